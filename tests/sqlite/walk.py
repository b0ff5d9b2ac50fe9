"""A walk through the whole storage protocol, every call of it known by its number.

The walk is a fixed sequence of calls on a store, at times that the walk itself makes, so that each
call leaves the store in exactly one state. What was begun and what was answered is written to a log
outside of the store, so that after a sudden death it is known which call was in the air. The flows
are such that any worker can bring them to the one right end. `Stops` go through any store; the rest
of this module is about files.

Refuses to know why it dies and who looks at the store afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sayiir import (
    Flow,
    LoopResult,
    RetryPolicy,
    SnapshotFormatError,
    SqliteBackend,
    Workflow,
    task,
)
from sayiir._codec import encode_payload
from sayiir._core import Turn
from sayiir.backends import Backend
from sayiir.testing import HandWorker, Held, VirtualClock, new_instance

START = 1_600_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR
KEEP_EVENTS = "7d"
KEEP_COMPLETED = "30d"
LEASE_S = 0.15
"""Short, so that whoever comes after a death need not wait for long."""
LONG_TURNS = 1_100
"""Turns of an instance whose history is so long that it is deleted in pieces."""
EARLY = "early"
"""An id that only ever gets events."""
TAKEN = "taken"
"""The instance that a worker held when it died, before the walk."""
SPOILED = "spoiled"
"""An instance whose row is damaged; a call that meets it is undone."""

Whole = Workflow[Any, Any]


def add(x: int) -> int:
    return x + 1


def take(payload: int) -> int:
    return payload + 1


def total(both: dict[str, int]) -> int:
    return both["left"] + both["right"]


def refuse(x: int) -> int:
    raise ValueError("never")


def turn(x: int) -> LoopResult[int]:
    return LoopResult.done(x) if x >= LONG_TURNS else LoopResult.again(x + 1)


def step(function: Callable[[Any], Any], name: str, **settings: Any) -> Any:
    return task(name=name, **settings)(function)


ASKING = Flow("asking").wait_for_event("go").build()
STRAIGHT: Whole = Flow("straight").then(add, name="one").then(add, name="two").build()
NAP: Whole = Flow("nap").then(add, name="one").delay("rest", "1ms").then(add, name="two").build()
WAIT: Whole = Flow("wait").then(add, name="one").wait_for_event("go").then(take).build()
FORK: Whole = (
    Flow("fork")
    .then(add, name="one")
    .fork(name="both")
    .branch(step(add, "two"), step(add, "three"), name="left")
    .branch(ASKING, name="right")
    .join(total)
    .then(add, name="four")
    .build()
)
TAGGED: Whole = (
    Flow("tagged")
    .then(step(add, "crunch", tags=["cpu"]))
    .then(step(add, "draw", tags=["gpu"]))
    .build()
)
RETRIED: Whole = (
    Flow("retried")
    .then(step(add, "flaky", retries=RetryPolicy(max_retries=2, initial_delay_secs=60.0)))
    .build()
)
BROKEN: Whole = Flow("broken").then(refuse).build()
SPREAD: Whole = (
    Flow("spread")
    .then(step(lambda n: list(range(n)), "list"))
    .map(step(add, "each"), spread=True)
    .then(sum)
    .build()
)
FALLEN: Whole = (
    Flow("fallen")
    .then(step(lambda n: list(range(n)), "list"))
    .map(step(refuse, "each"), spread=True)
    .build()
)
LONG: Whole = (
    Flow("long").loop(step(turn, "turn"), max_iterations=LONG_TURNS + 1, name="again").build()
)
FLOWS = (STRAIGHT, NAP, WAIT, FORK, TAGGED, RETRIED, BROKEN, LONG, SPREAD, FALLEN)
PAYLOAD = 100
"""Of every event, so that it does not matter who sent it."""


def oracle(workflow: str, given: int) -> int | None:
    """What an instance comes to; `None`: it fails."""
    answers = {
        "straight": given + 2,
        "nap": given + 2,
        "wait": PAYLOAD + 1,
        "fork": given + 3 + PAYLOAD + 1,
        "tagged": given + 2,
        "retried": given + 1,
        "long": LONG_TURNS,
        "broken": None,
        "spread": sum(range(1, given + 1)),
        "spread/each": given + 1,
        "fallen": None,
        "fallen/each": None,
    }
    return answers[workflow]


def parent_of(item: str) -> str:
    """The id of whose item it is; of no item nobody's."""
    return item.rpartition("~")[0]


class Diary:
    """What the walk does, call by call, in a file outside of the store."""

    def __init__(self, log: Path, look: Callable[[int], None] | None = None) -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._look = look
        self._number = 0

    def begin(self, name: str) -> None:
        self._number += 1
        os.write(self._file, f"begin {self._number} {name}\n".encode())

    def answered(self, name: str) -> None:
        os.write(self._file, f"ack {self._number} {name}\n".encode())
        if self._look is not None:
            self._look(self._number)


class Recorded:
    """A backend whose calls stand in the diary."""

    def __init__(self, backend: Backend, diary: Diary) -> None:
        self._backend = backend
        self._diary = diary

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._backend, name)
        if not inspect.iscoroutinefunction(target):
            return target

        async def call(*args: Any, **given: Any) -> Any:
            self._diary.begin(name)
            try:
                return await target(*args, **given)
            finally:
                self._diary.answered(name)

        return call


async def gather(held: Held) -> None:
    """Tell how the items ended of groups that are over."""
    answer = held.run.attend(held.backend.now())
    if isinstance(answer, Turn) and answer.gather:
        items = held.backend.items
        ends = [(group, list(await items(held.instance_id, group))) for group in answer.gather]
        await held._settle(held.run.gathered(ends, held.backend.now()))


async def run_on(held: Held) -> None:
    """Run every step that it has, until it has none."""
    if not held.steps and held.state == "held":
        await gather(held)
    while held.steps:
        step = held.steps[0]
        try:
            value = step.fn(step.input)
        except ValueError as error:
            await held.fail(str(error), step.task.name)
        else:
            await held.complete(value, step.task.name)


async def prepare(path: Path) -> None:
    """Make the file that walks begin with: two long histories that have ended."""
    clock = VirtualClock(START - 25 * DAY)
    backend = SqliteBackend(path, synchronous="normal", clock=clock)
    await backend.submit([new_instance(LONG, "long-1", 0)], "fail")
    [held] = await HandWorker(backend, [LONG], "preparer", lease_ttl=LEASE_S).claim()
    await run_on(held)
    await backend.submit([new_instance(LONG, "long-2", LONG_TURNS - 10)], "fail")
    [held] = await HandWorker(backend, [LONG], "preparer", lease_ttl=LEASE_S).claim()
    await run_on(held)
    await backend.submit([new_instance(STRAIGHT, TAKEN, 1)], "fail")
    [held] = await HandWorker(backend, [STRAIGHT], "preparer", lease_ttl=LEASE_S).claim()
    await held.complete(2)  # And here it stops, holding it.
    await backend.submit([new_instance(STRAIGHT, SPOILED, 1)], "fail")
    await backend.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("""UPDATE instances SET "check" = 0 WHERE id = ?""", (SPOILED,))
        connection.commit()


async def take_over(path: Path) -> None:
    """Take work over from a worker that died long ago, on the machine's own clock."""
    backend = SqliteBackend(path, synchronous="normal", keep_events="20000d")
    heir = HandWorker(backend, FLOWS, "w-heir", lease_ttl=LEASE_S)
    while (held := await heir.claim_one(TAKEN)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)  # It takes as long as the dead worker had to come forward.
    await run_on(held)
    await backend.close()


async def walk(path: Path, log: Path, look: Callable[[int], None] | None = None) -> None:
    """Take the walk; `look` is called with its number after every call."""
    clock = VirtualClock(START)
    backend = SqliteBackend(
        path,
        synchronous="normal",
        clock=clock,
        keep_events=KEEP_EVENTS,
        keep_completed=KEEP_COMPLETED,
    )
    other = SqliteBackend(path, synchronous="normal", clock=clock, keep_events=KEEP_EVENTS)
    diary = Diary(log, look)
    stops = Stops(Recorded(backend, diary), Recorded(other, diary), clock)
    for stop in (
        stops.submits,
        stops.spoils,
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
        stops.listens,
        stops.deletes,
        stops.deletes_in_pieces,
        stops.forgets,
    ):
        await stop()
    if os.environ.get("SAYIIR_FAIL_AT", "").startswith("log.checkpoint"):
        # Within a second the log is written back, and the process dies of it.
        await asyncio.sleep(20)
    await backend.close()
    await other.close()


class Stops:
    """Where the walk goes. Every stop begins with what the ones before it left."""

    def __init__(self, backend: Any, other: Any, clock: VirtualClock) -> None:
        self.backend = backend
        self.other = other
        self.clock = clock
        self.worker = HandWorker(backend, FLOWS, "w-1", lease_ttl=LEASE_S)

    async def submit(
        self, workflow: Whole, name: str, policy: str = "fail", given: int = 1
    ) -> None:
        await self.backend.submit([new_instance(workflow, name, given)], policy)

    async def claim(self, name: str) -> Held:
        held = await self.worker.claim_one(name)
        assert held is not None, name
        return held

    async def later(self, seconds: float) -> None:
        """Time passes, and a call that only reads lets leases run out."""
        self.clock.advance(seconds)
        await self.backend.next_wake()

    async def event(self, name: str, key: str | None = None, event: str = "go") -> bool:
        fresh: bool = await self.backend.send_event(name, event, encode_payload(PAYLOAD), key)
        return fresh

    async def submits(self) -> None:
        await self.backend.check_submit("straight-1", STRAIGHT.program, "fail")
        batch = [new_instance(STRAIGHT, f"straight-{n}", n) for n in range(1, 4)]
        await self.backend.submit(batch, "fail")
        await refused(self.backend.submit([new_instance(STRAIGHT, "straight-1", 1)], "fail"))
        assert (await self.backend.submit(batch[:1], "use_existing"))[0] is not None
        await self.submit(STRAIGHT, "straight-2", "terminate_existing", 20)
        await self.submit(BROKEN, "broken-1")
        tomorrow = new_instance(NAP, "nap-0", 5)._replace(start_at=START + DAY)
        await self.backend.submit([tomorrow], "fail")

    async def spoils(self) -> None:
        """A call that meets a damaged row is undone."""
        await refused(self.submit(STRAIGHT, SPOILED, "use_existing"))
        await self.backend.delete(SPOILED, True)

    async def steps(self) -> None:
        held = await self.claim("straight-1")
        await run_on(held)
        for held in await self.worker.claim(2):
            await run_on(held)
        failing = await self.worker.claim_one("broken-1")
        if failing is not None:
            await run_on(failing)

    async def timers(self) -> None:
        await self.submit(NAP, "nap-1")
        await run_on(await self.claim("nap-1"))
        await self.later(HOUR)
        await run_on(await self.claim("nap-1"))
        await self.submit(NAP, "nap-2")
        await run_on(await self.claim("nap-2"))

    async def early_events(self) -> None:
        await self.event("wait-1", "k-1")
        assert not await self.event("wait-1", "k-1")
        await self.event("wait-1")
        await self.event(EARLY)
        await self.submit(WAIT, "wait-1")
        await run_on(await self.claim("wait-1"))
        await self.submit(WAIT, "wait-2")
        await run_on(await self.claim("wait-2"))
        await self.event("wait-2")
        await run_on(await self.claim("wait-2"))
        await self.submit(WAIT, "wait-3")
        await run_on(await self.claim("wait-3"))

    async def forks(self) -> None:
        for name in ("fork-1", "fork-2"):
            await self.submit(FORK, name)
            await run_on(await self.claim(name))
        await self.event("fork-1", "k-2")
        held = await self.claim("fork-1")
        await run_on(held)
        # An event for one that is held.
        await self.submit(FORK, "fork-3")
        held = await self.claim("fork-3")
        await self.event("fork-3", "k-3")
        await held.attend()
        await run_on(held)

    async def requests(self) -> None:
        # Of instances that nobody holds.
        await self.submit(NAP, "nap-3")
        await run_on(await self.claim("nap-3"))
        await self.backend.cancel("nap-3", "not wanted", "me")
        await self.submit(WAIT, "wait-4")
        await run_on(await self.claim("wait-4"))
        await self.backend.pause("wait-4", "later", None)
        await self.event("wait-4", "k-4")
        await self.backend.unpause("wait-4")
        await run_on(await self.claim("wait-4"))
        # Of one that is held: taken back, then meant.
        await self.submit(STRAIGHT, "straight-4")
        held = await self.claim("straight-4")
        await self.backend.pause("straight-4", None, None)
        await self.backend.unpause("straight-4")
        await self.backend.pause("straight-4", None, "me")
        await self.worker.renew()
        assert await held.complete(2) == "paused"
        await self.submit(STRAIGHT, "straight-5")
        held = await self.claim("straight-5")
        await self.backend.cancel("straight-5", None, None)
        assert await held.complete(2) == "cancelled"

    async def moves(self) -> None:
        """Snapshots of one in the middle and of one that has ended, and events that came early."""
        await self.submit(FORK, "fork-9")
        await run_on(await self.claim("fork-9"))
        await self.event("fork-9", "k-9", "other")
        moved = await self.backend.export("fork-9")
        await self.backend.cancel("fork-9", "moved", None)
        await self.event("moved-1", "k-9", "other")
        await self.event("moved-1", None, "other")
        await self.backend.import_(moved, "moved-1")
        await self.event("moved-1")
        await run_on(await self.claim("moved-1"))
        ended = await self.backend.export("moved-1")
        await self.event("moved-2")
        await self.backend.import_(ended, "moved-2")

    async def tags_and_retries(self) -> None:
        await self.submit(TAGGED, "tagged-1")
        cpu = HandWorker(self.backend, [TAGGED], "w-cpu", tags=["cpu"], lease_ttl=LEASE_S)
        [held] = await cpu.claim()
        await run_on(held)
        assert await cpu.claim() == []
        gpu = HandWorker(self.backend, [TAGGED], "w-gpu", tags=["gpu"], lease_ttl=LEASE_S)
        [held] = await gpu.claim()
        await run_on(held)
        await self.submit(RETRIED, "retried-1")
        held = await self.claim("retried-1")
        await held.fail("not yet")
        await self.later(120.0)
        await run_on(await self.claim("retried-1"))

    async def leases(self) -> None:
        await self.submit(STRAIGHT, "straight-6")
        await self.submit(STRAIGHT, "straight-7")
        first = await self.claim("straight-6")
        await self.claim("straight-7")
        assert await self.backend.give_back("straight-6", first.fence)
        await self.backend.release("w-1")
        gone = HandWorker(self.backend, FLOWS, "w-gone", lease_ttl=LEASE_S)
        late = await gone.claim_one("straight-7")
        assert late is not None
        await self.later(1.0)
        assert await late.complete(8) == "lease_lost"
        await run_on(await self.claim("straight-7"))
        # A lease that ran out is taken back by a call that only wants to read, too.
        await self.submit(STRAIGHT, "straight-8")
        held = await gone.claim_one("straight-8")
        assert held is not None
        self.clock.advance(1.0)
        assert (await self.backend.get("straight-8")).worker_id is None
        await self.worker.renew()

    async def spread(
        self, name: str, workflow: Whole = SPREAD, policy: str = "fail", count: int = 2
    ) -> None:
        """Submit a parent and let it make its items."""
        await self.submit(workflow, name, policy, count)
        await run_on(await self.claim(name))

    async def item(self, parent: str, index: int) -> Held:
        """Claim an item of the one group that a parent has."""
        page = await self.backend.find(id_prefix=f"{parent}~", limit=50)
        [name] = [row.instance_id for row in page.rows if row.instance_id.endswith(f"[{index}]")]
        return await self.claim(name)

    async def spreads(self) -> None:
        """Items end before their parent is asked for, and while somebody holds it."""
        await self.spread("spread-1")
        for index in (1, 0):
            await run_on(await self.item("spread-1", index))
        await run_on(await self.claim("spread-1"))
        # One item fails; another is being done, and a third is not wanted any more.
        await self.spread("fallen-1", FALLEN, count=3)
        held = await self.item("fallen-1", 1)
        await run_on(await self.item("fallen-1", 0))
        await run_on(await self.claim("fallen-1"))
        await self.worker.renew()
        await run_on(held)
        # The parent is paused when the last one ends.
        await self.spread("spread-2", count=1)
        await self.backend.pause("spread-2", None, None)
        await run_on(await self.item("spread-2", 0))
        await self.backend.unpause("spread-2")
        await run_on(await self.claim("spread-2"))
        # Where it stays when the walk is over.
        await self.spread("spread-3", count=3)
        await run_on(await self.item("spread-3", 2))

    async def families(self) -> None:
        """What befalls a parent befalls its items."""
        await self.spread("spread-4")
        held = await self.item("spread-4", 0)
        await self.backend.cancel("spread-4", "not wanted", None)
        # Finished work is never reported as cancelled.
        assert await held.complete(1) == "ok"
        await self.spread("spread-5")
        await run_on(await self.item("spread-5", 0))
        await self.spread("spread-5", policy="terminate_existing", count=3)
        await run_on(await self.item("spread-5", 0))
        await self.spread("spread-6")
        held = await self.item("spread-6", 1)
        await self.backend.delete("spread-6", True)
        assert await held.complete(2) == "lease_lost"
        # An item alone is cancelled, another one deleted; no one else ever will be.
        await self.spread("spread-7", FALLEN)
        page = await self.backend.find(id_prefix="spread-7~", limit=50)
        first, second = (row.instance_id for row in page.rows)
        await self.backend.cancel(first, None, None)
        await self.spread("spread-8", FALLEN)
        await self.backend.delete(second, True)
        await run_on(await self.claim("spread-7"))

    async def reads(self) -> None:
        await self.backend.find(limit=5, id_prefix="straight")
        await self.backend.history("straight-1")
        await self.backend.step("straight-1", "two")
        await self.backend.step("fork-1", "three")
        await self.backend.input("straight-1")
        await self.backend.backlog()
        await self.backend.next_wake()

    async def listens(self) -> None:
        """Another connection writes; this one hears of it."""
        heard = asyncio.Event()
        stop = self.backend.listen(lambda kind, name: heard.set() if kind == "work" else None)
        assert (await self.backend.get("wait-3")).status == "awaiting_signal"
        self.backend.watch("wait-3", True)
        heard.clear()
        await self.other.submit([new_instance(STRAIGHT, "straight-9", 1)], "fail")
        await asyncio.wait_for(heard.wait(), 20)
        stop()

    async def deletes(self) -> None:
        await self.backend.delete("wait-2", False)
        await self.backend.delete("fork-2", True)
        await refused(self.backend.delete("wait-3", False))

    async def deletes_in_pieces(self) -> None:
        """Its history goes in pieces, one of them with each of the calls that follow."""
        self.clock.advance(1.0)
        await self.backend.delete("long-1", True)
        for number in (10, 11):
            self.clock.advance(1.0)
            await self.submit(STRAIGHT, f"straight-{number}")

    async def forgets(self) -> None:
        self.clock.advance(8 * DAY)
        await self.submit(STRAIGHT, "straight-12")
        await self.event(EARLY)
        self.clock.advance(31 * DAY)
        for number in (13, 14, 15):
            await self.submit(STRAIGHT, f"straight-{number}")
            self.clock.advance(1.0)


async def refused(call: Awaitable[Any]) -> None:
    """The call must not be granted."""
    try:
        await call
    except (RuntimeError, SnapshotFormatError):
        return
    raise AssertionError("it should have been refused")
