"""A saga: book a trip at three places, and undo all of it when one of them has nothing left.

    python examples/trip.py [TRIP]

The bookings go out at the same time, each with its retries. `on_error="collect"` makes a failure
a value instead of the end, so that the route behind it can choose: confirm, or compensate. What it
began to undo is undone to the end: kill it in the middle and run it again. Every TRIP is an
instance of its own; without a name it is `trip-1`, and no car is left. They live in `sayiir.db`,
or where `SAYIIR_DATABASE_URL` says. What the places have booked stands in `bookings.txt`.
"""

import asyncio
import os
import sys
from pathlib import Path

from sayiir import (
    Flow,
    MapError,
    RetryPolicy,
    TaskContext,
    Worker,
    WorkflowClient,
    WorkflowFailed,
    task,
)

NEEDS = ["flight", "hotel", "car"]
PACE = float(os.environ.get("PACE", "0.5"))  # Seconds for a call: time to kill the program.


class NothingLeft(Exception):
    """A place has answered, and the answer is no."""


# An answer that is no will not change; a place that does not answer may do so the next time.
BOOKING = RetryPolicy(max_retries=3, initial_delay_secs=0.5, give_up_on=(NothingLeft,))
# Who undoes must not give up: with these it tries for three days before somebody has to look.
UNDOING = RetryPolicy(max_retries=1000, initial_delay_secs=0.5, max_delay_secs=300, jitter=0.2)


def call(deed: str, what: str, key: str) -> None:
    """Call an airline, a hotel or a garage, which does what it is asked once for each key.

    Raises:
        NothingLeft: It has none.
    """
    if deed == "book" and what == "car":
        raise NothingLeft("no car is left")
    book = Path("bookings.txt")
    entry = f"{deed} {key}"
    known = book.read_text(encoding="utf-8").splitlines() if book.exists() else []
    print(f"{deed} {what}" + (", once more" if entry in known else ""), flush=True)
    if entry not in known:
        with book.open("a", encoding="utf-8") as pen:
            pen.write(f"{entry}\n")


def key_of(what: str) -> str:
    """The key of a booking: of the trip and not of the step, so that undoing has the same one."""
    context = TaskContext.current()
    return f"{context.instance_id}:{what}"


@task(retries=BOOKING, timeout="10s")
async def book(what: str) -> str:
    """Book one thing."""
    await asyncio.sleep(PACE)
    call("book", what, key_of(what))
    return what


def outcome(booked: list[str | MapError]) -> str:
    """Whether there is anything to undo."""
    return "incomplete" if any(isinstance(one, MapError) for one in booked) else "complete"


@task
def confirm(booked: list[str | MapError]) -> str:
    """Tell the traveller."""
    return f"booked: {', '.join(map(str, booked))}"


@task
def undo_list(booked: list[str | MapError]) -> list[str]:
    """What to undo, the last first; also what failed, unless its place has said no.

    A booking that failed otherwise may have been made: only the answer was lost.
    """
    refused = {
        one.index
        for one in booked
        if isinstance(one, MapError) and one.error_type == NothingLeft.__name__
    }
    return [what for index, what in reversed([*enumerate(NEEDS)]) if index not in refused]


@task(retries=UNDOING, timeout="10s")
async def cancel(what: str) -> str:
    """Undo one booking."""
    await asyncio.sleep(PACE)
    call("cancel", what, key_of(what))
    return what


@task
def apologise(undone: list[str]) -> str:
    """Tell the traveller."""
    return f"undone: {', '.join(undone)}"


# One after the other, as what is behind may depend on what is before.
undo = Flow("undo").then(undo_list).map(cancel, concurrency=1).then(apologise).build()
workflow = (
    Flow("trip")
    .map(book, on_error="collect")
    .route(outcome, keys=["complete", "incomplete"])
    .branch("complete", confirm)
    .branch("incomplete", undo)
    .done()
    .build()
)


async def travel(trip: str) -> str:
    """Book the trip, or go on with it, until it is booked or undone."""
    async with (
        WorkflowClient.from_url(conflict_policy="use_existing") as client,
        # Short, so that whoever goes on after a kill need not wait the usual 30 s.
        Worker(client.backend, workflow, lease_ttl="1s"),
    ):
        handle = await client.submit(workflow, trip, NEEDS)
        result = await handle.result(timeout="10m")
        return f"{trip} is {result['branch']}; {result['result']}"


def main() -> int:
    """Book one trip."""
    trip = sys.argv[1] if len(sys.argv) > 1 else "trip-1"
    try:
        print(asyncio.run(travel(trip)))
    except WorkflowFailed as failure:
        print(f"{trip} failed: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
