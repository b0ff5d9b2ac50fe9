"""What a child of the nursery does to a schema, and may die of, see `test_fail_points.py`.

`walk` goes through the protocol at times of its own, so that each of its calls leaves one state.
The other deeds come to what only happens on the database's own time, or when something goes wrong:
each begins with what `prepare` left, and comes to the same end however often it is begun anew.

Every function is given the URL of a database that has the schema, and a file to write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from tests.postgres.picture import Picture, take_picture
from tests.postgres.proxy import Proxy, Trap
from tests.sqlite.recovery import finish
from tests.sqlite.walk import (
    DAY,
    FLOWS,
    FORK,
    KEEP_COMPLETED,
    KEEP_EVENTS,
    LEASE_S,
    NAP,
    PAYLOAD,
    SPREAD,
    START,
    STRAIGHT,
    TAKEN,
    WAIT,
    Diary,
    Recorded,
    Stops,
    refused,
    run_on,
)

from sayiir import Flow, InvalidStateError, PostgresBackend, Worker, WorkflowClient
from sayiir._codec import encode_payload
from sayiir.testing import HandWorker, VirtualClock, new_instance

LONG_S = 20.0
GONE = ("done-1", "done-2", "spread-gone")
"""Instances that ended long ago."""
KEEP_ALL = "20000d"
SUBMIT = ".inputs (instance, id, token"
EVENT = ".events (id, event"
CHECKPOINT = ".steps (instance, seq"
CLAIM = "taken AS MATERIALIZED"


def walk(url: str, log: Path, look: Callable[[int], None] | None = None) -> None:
    """Take the walk; `look` is called with its number after every call."""

    async def main() -> None:
        clock = VirtualClock(START)
        backend = PostgresBackend(
            url, clock=clock, keep_events=KEEP_EVENTS, keep_completed=KEEP_COMPLETED
        )
        stops = Stops(Recorded(backend, Diary(log, look)), None, clock)
        for stop in (
            stops.submits,
            stops.steps,
            stops.timers,
            stops.early_events,
            stops.forks,
            stops.requests,
            stops.moves,
            stops.tags_and_retries,
            stops.leases,
            stops.spreads,
            stops.families,
            stops.reads,
            stops.deletes,
        ):
            await stop()
        await _many_at_once(stops)
        await backend.doctor()
        await backend.close()

    asyncio.run(main())


def look(url: str, pictures: Path) -> None:
    """Take the walk, and a picture after each of its calls; all of them go to a file."""
    taken: list[Picture] = []
    with psycopg.connect(url, autocommit=True) as eye:
        walk(url, pictures.with_suffix(".diary"), lambda _: taken.append(take_picture(eye)))
    pictures.write_bytes(pickle.dumps(taken))


async def _many_at_once(stops: Stops) -> None:
    """What goes by other statements than one call alone."""
    batch = [new_instance(WAIT, f"wait-{n}", n) for n in range(20, 23)]
    await stops.backend.submit(batch, "terminate_existing")
    await stops.backend.submit(batch, "use_existing")
    await stops.event("wait-20", "k-20")
    held = await stops.claim("wait-20")
    await stops.backend.news("wait-20", held.fence, ["go"])
    await run_on(held)
    await stops.backend.rows("wait-20", [0, 1])
    # A fork that is paused while its branches are under way, and again while it joins.
    await stops.submit(FORK, "fork-20")
    await stops.event("fork-20")
    held = await stops.claim("fork-20")
    for _ in range(2):
        step = held.steps[0]
        await held.complete(step.fn(step.input), step.task.name)
    await stops.backend.pause("fork-20", None, None)
    await run_on(held)
    for status in ("waiting", "in_progress"):
        await stops.backend.find(status=status, limit=5)
    await stops.backend.unpause("fork-20")
    held = await stops.claim("fork-20")
    await stops.backend.pause("fork-20", None, None)
    await run_on(held)
    await stops.backend.unpause("fork-20")
    await run_on(await stops.claim("fork-20"))
    await refused(stops.backend.cancel("fork-20", None, None))
    assert await stops.worker.claim_one("fork-20") is None
    # It has an event, but not the one that it waits for.
    await stops.submit(WAIT, "wait-30")
    await stops.event("wait-30", event="other")
    await run_on(await stops.claim("wait-30"))
    # It takes an event while a pause is pending.
    await stops.submit(FORK, "fork-21")
    held = await stops.claim("fork-21")
    await held.complete(2)
    await stops.event("fork-21")
    await stops.backend.pause("fork-21", None, None)
    await held.attend()
    await run_on(held)
    # Released while a request is pending.
    await stops.submit(STRAIGHT, "straight-20")
    await stops.claim("straight-20")
    await stops.backend.pause("straight-20", None, None)
    await stops.backend.release("w-1")
    await stops.backend.unpause("straight-20")


def prepare(url: str, log: Path) -> None:
    """Long ago two instances ended, one was taken by a worker that died, one began to wait."""

    async def main() -> None:
        clock = VirtualClock(START)
        backend = PostgresBackend(url, clock=clock, keep_events=KEEP_ALL)
        worker = HandWorker(backend, FLOWS, "w-gone", lease_ttl=LEASE_S)
        for workflow, name in ((STRAIGHT, GONE[0]), (STRAIGHT, GONE[1]), (WAIT, "wait-1")):
            await backend.submit([new_instance(workflow, name, 1)], "fail")
            held = await worker.claim_one(name)
            assert held is not None
            await run_on(held)
        await backend.submit([new_instance(SPREAD, GONE[2], 2)], "fail")
        for _ in range(3):
            for held in await worker.claim(2):
                await run_on(held)
        await backend.submit([new_instance(STRAIGHT, TAKEN, 1)], "fail")
        taken = await worker.claim_one(TAKEN)
        assert taken is not None
        await taken.complete(2)  # And here it stops, holding it.
        await backend.send_event("nobody", "go", encode_payload(PAYLOAD), None)
        await backend.close()

    asyncio.run(main())


def recover(url: str, report: Path) -> None:
    """Bring all work to its end; leases run out at once, as they would have in time."""
    clock = time.time if _aged(url) else None
    settings: dict[str, Any] = {} if clock is None else {"clock": clock}
    asyncio.run(finish(PostgresBackend(url, keep_events=KEEP_ALL, **settings), report))


def _aged(url: str) -> bool:
    """Whether all that is there is of the walk, which took place years ago."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(created_us) FROM sayiir.instances").fetchone()
    return row is None or row[0] is None or row[0] < (START + 100 * DAY) * 1e6


def sweep(url: str, log: Path) -> None:
    """Forget what ended long ago, and events that came for nobody."""

    async def main() -> None:
        backend = PostgresBackend(url, keep_completed=DAY, keep_events=DAY)
        await backend.release("nobody")  # Who never writes does not forget either.
        with psycopg.connect(url, autocommit=True) as eye:
            left = (
                "SELECT (SELECT count(*) FROM sayiir.instances WHERE status >= 4) +"
                " (SELECT count(*) FROM sayiir.garbage) +"
                " (SELECT count(*) FROM sayiir.events WHERE early)"
            )
            async with asyncio.timeout(LONG_S):
                while eye.execute(left).fetchone() != (0,):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # Nothing tells of what is forgotten.
        await backend.close()

    asyncio.run(main())


def take_over(url: str, log: Path) -> None:
    """Go on with what a dead worker held."""

    async def main() -> None:
        backend = PostgresBackend(url, keep_events=KEEP_ALL)
        heir = HandWorker(backend, FLOWS, f"w-{os.getpid()}", lease_ttl=1.0)
        async with asyncio.timeout(LONG_S):
            while (await backend.get(TAKEN)).status != "completed":
                if (held := await heir.claim_one(TAKEN)) is not None:
                    await run_on(held)
        await backend.close()

    asyncio.run(main())


def tell(url: str, log: Path) -> None:
    """One process works, another one submits, waits, sends and cancels: by hints and renewals."""

    async def main() -> None:
        here = PostgresBackend(url, keep_events=KEEP_ALL)
        there = PostgresBackend(url, keep_events=KEEP_ALL)
        renewed = asyncio.Event()

        async def lasts(x: int) -> int:
            # Longer than its lease, which the eye sees renewed.
            await renewed.wait()
            return x + 1

        async def endless(x: int) -> int:
            await asyncio.Event().wait()
            return x

        held = Flow("held").then(lasts, name="lasts").build()
        stuck = Flow("stuck").then(endless, name="endless").build()
        client = WorkflowClient(there).with_conflict_policy("use_existing")
        worker = Worker(here, [held, stuck, NAP, WAIT], lease_ttl=0.3, poll_interval="50ms")
        async with worker, asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
            group.create_task(_once_renewed(url, renewed))
            lasting = await client.submit(held, "held-1", 1)
            await client.submit(stuck, "stuck-1", 1)
            while (row := await there.get("stuck-1")).status != "cancelled":
                if row.worker_id is not None:
                    await client.cancel("stuck-1", "enough", "me")
                await asyncio.sleep(0.01)  # Nobody tells of a claim.
            assert await lasting.result() == 2
            assert await (await client.submit(NAP, "nap-1", 1)).result() == 3
            wait = await client.submit(WAIT, "wait-2", 1)
            with contextlib.suppress(InvalidStateError):  # It ended in a former life.
                await wait.send_event("go", PAYLOAD, idempotency_key="once")
            assert await wait.result() == PAYLOAD + 1
        await here.close()
        await there.close()

    asyncio.run(main())


async def _once_renewed(url: str, renewed: asyncio.Event) -> None:
    """Set an event when the lease of some worker was renewed twice."""
    ends: set[Any] = set()
    with psycopg.connect(url, autocommit=True) as eye:
        while len(ends) < 3:
            ends |= set(eye.execute("SELECT max(expires_us) FROM sayiir.workers").fetchall())
            await asyncio.sleep(0.01)  # The storage thread renews, and says nothing.
    renewed.set()


def lose(url: str, log: Path) -> None:
    """Answers to commits are lost, a row is locked; every call is done all the same."""

    async def main() -> None:
        with Proxy(url) as proxy:
            backend = PostgresBackend(proxy.url, keep_events=KEEP_ALL)
            worker = HandWorker(backend, FLOWS, f"w-{os.getpid()}", lease_ttl=1.0)
            proxy.judge = Trap(SUBMIT)
            await backend.submit([new_instance(WAIT, "lost", 1)], "use_existing")
            proxy.judge = Trap(EVENT)
            with contextlib.suppress(InvalidStateError):  # It ended in a former life.
                await backend.send_event("lost", "go", encode_payload(PAYLOAD), "once")
            proxy.judge = Trap(CLAIM)
            async with asyncio.timeout(LONG_S):
                while (await backend.get("lost")).status != "completed":
                    if (held := await worker.claim_one("lost")) is not None:
                        proxy.judge = Trap(CHECKPOINT)
                        await run_on(held)
            await _locked(url, backend)
            await backend.close()

    asyncio.run(main())


async def _locked(url: str, backend: PostgresBackend) -> None:
    """Pause what somebody else has locked, until the lock has been in the way."""
    with psycopg.connect(url) as rival, psycopg.connect(url, autocommit=True) as eye:
        rival.execute("SELECT FROM sayiir.instances WHERE id = 'wait-1' FOR UPDATE")
        pausing = asyncio.create_task(backend.pause("wait-1", None, None))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        for met in (1, 0):
            while eye.execute(waiting).fetchone() != (met,):  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # The server tells nobody.
        rival.rollback()
    await pausing
    assert await backend.unpause("wait-1") == "awaiting_signal"
