"""Instances of three steps from submit through a worker to the result, so many in flight at once.

In memory the rival is a backend in pure Python that keeps the same contract, under the same client,
worker and engine: what remains between the two is what storing in Rust, without a way through
Python for each step, is worth. On SQLite and PostgreSQL the floor is a bare script that writes the
same rows with the same durability and no engine (`sqlite_floor`, `postgres_floor`), taken in turn
on the same file system, on the same server.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from benches.ground import ground
from benches.ledger import Ledger
from benches.postgres_floor import PostgresFloor
from benches.postgres_server import served
from benches.sqlite_floor import SqliteFloor, Synchronous
from benches.stopwatch import interleave_async
from benches.store import MEMORY, POSTGRES, PYTHON, SQLITE, SQLITE_NORMAL, Store
from benches.worker_process import worker_processes
from benches.workload import PAYLOAD, chain, noop
from sayiir import Worker, WorkflowClient
from sayiir.backends import Backend

Timed = Callable[[], Awaitable[float]]

WORKFLOW = chain(3)
FLIGHTS = (1, 16, 64, 256)
TARGET = 100_000
"""Instances a second in memory at 64 in flight."""
SQLITE_TARGETS = {64: 12_000, 256: 20_000}
"""Instances a second on SQLite, fully durable, at so many in flight."""
POSTGRES_TARGETS = {64: 6_000, 256: 8_000}
"""The same on PostgreSQL."""
DURABLE_COUNTS = {1: 256, 16: 1_024, 64: 4_096, 256: 4_096}
"""Enough of them that the write-ahead log is folded back several times within a sample."""
DURABLE_ROUNDS = 8
"""The best counts; disks have bad minutes."""


async def _flow(backend: Backend, in_flight: int, count: int) -> float:
    """Seconds for an instance when so many submitters each wait for a result, then submit again."""
    client = WorkflowClient(backend)

    async def submitter() -> None:
        for _ in range(count // in_flight):
            handle = await client.submit(WORKFLOW, input=PAYLOAD)
            await handle.result()

    await asyncio.gather(*(submitter() for _ in range(in_flight)))  # Warm.
    start = perf_counter()
    await asyncio.gather(*(submitter() for _ in range(in_flight)))
    return (perf_counter() - start) / count


def flows(store: Store, in_flight: int, count: int) -> Timed:
    """A contender: submitters and worker on one event loop."""

    async def timed() -> float:
        async with (
            store.opened() as backend,
            Worker(backend, [WORKFLOW], concurrency=in_flight),
        ):
            return await _flow(backend, in_flight, count)

    return timed


def flows_between(store: Store, processes: int, in_flight: int, count: int) -> Timed:
    """A contender: submitters here, and so many worker processes on the same file or schema."""

    async def timed() -> float:
        async with (
            store.opened() as backend,
            worker_processes(backend, processes, WORKFLOW.workflow_id, in_flight),
        ):
            return await _flow(backend, in_flight, count)

    return timed


def batches(store: Store, size: int, count: int) -> Timed:
    """As `flows`, by one submitter that submits a batch and waits for all of it."""

    async def timed() -> float:
        async with store.opened() as backend:
            client = WorkflowClient(backend)
            items = [(None, PAYLOAD)] * size
            async with Worker(backend, [WORKFLOW], concurrency=size):
                start = perf_counter()
                for _ in range(count // size):
                    handles = await client.submit_many(WORKFLOW, items)
                    await asyncio.gather(*(handle.result() for handle in handles))
                return (perf_counter() - start) / count

    return timed


def hands_over(in_flight: int, count: int) -> Timed:
    """The floor: as `flows` with futures and a deque alone, and nothing encoded, kept or leased."""

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        waiting: deque[asyncio.Future[object]] = deque()
        idle: deque[asyncio.Future[None]] = deque()

        async def submitter() -> None:
            for _ in range(count // in_flight):
                result: asyncio.Future[object] = loop.create_future()
                waiting.append(result)
                if idle:
                    idle.popleft().set_result(None)
                await result

        async def slot() -> None:
            while True:
                while waiting:
                    result, value = waiting.popleft(), PAYLOAD
                    for _ in range(3):
                        value = await noop(value)
                    result.set_result(value)
                rest = loop.create_future()
                idle.append(rest)
                await rest

        slots = [loop.create_task(slot()) for _ in range(in_flight)]
        start = perf_counter()
        await asyncio.gather(*(submitter() for _ in range(in_flight)))
        took = perf_counter() - start
        for one in slots:
            one.cancel()
        await asyncio.gather(*slots, return_exceptions=True)
        return took / count

    return timed


def script(synchronous: Synchronous, in_flight: int, count: int) -> Timed:
    """The floor on SQLite: the same rows, no engine."""

    async def timed() -> float:
        with (
            tempfile.TemporaryDirectory(prefix="sayiir-floor-", dir=ground()) as folder,
            SqliteFloor(Path(folder), synchronous) as floor,
        ):
            floor.instances(in_flight, count)  # Warm.
            return floor.instances(in_flight, count)

    return timed


def postgres_script(in_flight: int, count: int) -> Timed:
    """The floor on PostgreSQL: the same rows, no engine."""

    async def timed() -> float:
        async with PostgresFloor(served().url()) as floor:
            await floor.instances(in_flight, count)  # Warm.
            return await floor.instances(in_flight, count)

    return timed


def _rates(contenders: dict[str, Timed], rounds: int) -> list[float]:
    samples = asyncio.run(interleave_async(contenders, rounds))
    return [1 / min(samples[name]) for name in contenders]


def bench_instances(ledger: Ledger) -> None:
    """3-step instances a second in memory at 1, 16, 64 and 256 in flight."""
    for in_flight in FLIGHTS:
        ours, python, floor = _rates(
            {
                "ours": flows(MEMORY, in_flight, 1_024),
                "python": flows(PYTHON, in_flight, 1_024),
                "floor": hands_over(in_flight, 1_024),
            },
            10,
        )
        budgeted = in_flight == 64
        ledger.enter(
            "throughput",
            f"memory: 3-step instances, {in_flight} in flight",
            ours,
            "/s",
            against=python,
            rival="Python backend",
            judged=ours if budgeted else None,
            at_least=TARGET if budgeted else None,
            budget=f"≥ {TARGET:,} /s" if budgeted else "",
        )
        if budgeted:
            ledger.enter(
                "throughput",
                "  the floor of that: futures and a deque, nothing kept",
                floor,
                "/s",
            )
            ledger.enter(
                "throughput",
                f"  the same, as a multiple of the Python backend's {python:,.0f} /s",
                ours / python,
                "×",
                judged=ours / python,
                at_least=8.0,
                budget="≥ 8×",
            )


def bench_batches(ledger: Ledger) -> None:
    """The same when one submitter hands in 64 or 256 at once."""
    for size in (64, 256):
        ours, python = _rates(
            {"ours": batches(MEMORY, size, 1_024), "python": batches(PYTHON, size, 1_024)}, 6
        )
        ledger.enter(
            "throughput",
            f"memory: 3-step instances, in batches of {size}",
            ours,
            "/s",
            against=python,
            rival="Python backend",
        )


def bench_durable_instances(ledger: Ledger) -> None:
    """3-step instances a second on SQLite, and with fewer promises (`synchronous="normal"`)."""
    for in_flight in FLIGHTS:
        count = DURABLE_COUNTS[in_flight]
        ours, floor, relaxed, relaxed_floor = _rates(
            {
                "full": flows(SQLITE, in_flight, count),
                "full floor": script("full", in_flight, count),
                "normal": flows(SQLITE_NORMAL, in_flight, count),
                "normal floor": script("normal", in_flight, count),
            },
            DURABLE_ROUNDS,
        )
        target = SQLITE_TARGETS.get(in_flight)
        ledger.enter(
            "throughput",
            f"{SQLITE.name}: 3-step instances, {in_flight} in flight",
            ours,
            "/s",
            against=floor,
            rival="bare script",
            judged=ours if target else None,
            at_least=target,
            budget=f"≥ {target:,} /s" if target else "",
        )
        ledger.enter(
            "throughput",
            f"  {SQLITE_NORMAL.name}: the same",
            relaxed,
            "/s",
            against=relaxed_floor,
            rival="bare script",
        )


def bench_durable_batches(ledger: Ledger) -> None:
    """One submitter, batches of 64 and 256, on SQLite."""
    for size in (64, 256):
        ours, floor = _rates(
            {"ours": batches(SQLITE, size, 4_096), "floor": script("full", size, 4_096)}, 4
        )
        ledger.enter(
            "throughput",
            f"{SQLITE.name}: 3-step instances, in batches of {size}",
            ours,
            "/s",
            against=floor,
            rival="bare script",
        )


def bench_served_instances(ledger: Ledger) -> None:
    """3-step instances a second on PostgreSQL."""
    for in_flight in FLIGHTS:
        count = DURABLE_COUNTS[in_flight]
        ours, floor = _rates(
            {
                "ours": flows(POSTGRES, in_flight, count),
                "floor": postgres_script(in_flight, count),
            },
            DURABLE_ROUNDS,
        )
        target = POSTGRES_TARGETS.get(in_flight)
        ledger.enter(
            "throughput",
            f"{POSTGRES.name}: 3-step instances, {in_flight} in flight",
            ours,
            "/s",
            against=floor,
            rival="bare script",
            judged=ours if target else None,
            at_least=target,
            budget=f"≥ {target:,} /s" if target else "",
        )


def bench_served_batches(ledger: Ledger) -> None:
    """One submitter, batches of 64 and 256, on PostgreSQL."""
    for size in (64, 256):
        ours, floor = _rates(
            {"ours": batches(POSTGRES, size, 4_096), "floor": postgres_script(size, 4_096)}, 4
        )
        ledger.enter(
            "throughput",
            f"{POSTGRES.name}: 3-step instances, in batches of {size}",
            ours,
            "/s",
            against=floor,
            rival="bare script",
        )


def bench_worker_processes(ledger: Ledger) -> None:
    """Submitters in one process, one or two worker processes on the same file."""
    _between_processes(ledger, SQLITE)


def bench_served_processes(ledger: Ledger) -> None:
    """The same on one PostgreSQL server."""
    _between_processes(ledger, POSTGRES)


def _between_processes(ledger: Ledger, store: Store) -> None:
    for in_flight in (64, 256):
        one, two, here = _rates(
            {
                "one": flows_between(store, 1, in_flight, 2_048),
                "two": flows_between(store, 2, in_flight, 2_048),
                "here": flows(store, in_flight, 2_048),
            },
            3,
        )
        for number, rate in (("one worker process", one), ("two worker processes", two)):
            ledger.enter(
                "throughput",
                f"{store.name}: 3-step instances, {in_flight} in flight, {number}",
                rate,
                "/s",
                against=here,
                rival="all in one process",
            )
