"""Instances of three steps from submit through a worker to the result, so many in flight at once.

The rival is a backend in pure Python that keeps the same contract, under the same client, worker
and engine: what remains between the two is what storing in Rust, without a way through Python for
each step, is worth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter

from benches.ledger import Ledger
from benches.python_backend import PythonBackend
from benches.stopwatch import interleave_async
from benches.workload import PAYLOAD, chain, noop
from sayiir import InMemoryBackend, Worker, WorkflowClient
from sayiir.backends import Backend

WORKFLOW = chain(3)
FLIGHTS = (1, 16, 64, 256)
TARGET = 100_000
"""Instances a second at 64 in flight."""


def flows(
    make: Callable[[], Backend], in_flight: int, count: int
) -> Callable[[], Awaitable[float]]:
    """Seconds for an instance when so many submitters each wait for a result, then submit again."""

    async def timed() -> float:
        backend = make()
        client = WorkflowClient(backend)

        async def submitter() -> None:
            for _ in range(count // in_flight):
                handle = await client.submit(WORKFLOW, input=PAYLOAD)
                await handle.result()

        async with Worker(backend, [WORKFLOW], concurrency=in_flight):
            await asyncio.gather(*(submitter() for _ in range(in_flight)))  # Warm.
            start = perf_counter()
            await asyncio.gather(*(submitter() for _ in range(in_flight)))
            return (perf_counter() - start) / count

    return timed


def batches(make: Callable[[], Backend], size: int, count: int) -> Callable[[], Awaitable[float]]:
    """As `flows`, by one submitter that submits a batch and waits for all of it."""

    async def timed() -> float:
        backend = make()
        client = WorkflowClient(backend)
        items = [(None, PAYLOAD)] * size
        async with Worker(backend, [WORKFLOW], concurrency=size):
            start = perf_counter()
            for _ in range(count // size):
                handles = await client.submit_many(WORKFLOW, items)
                await asyncio.gather(*(handle.result() for handle in handles))
            return (perf_counter() - start) / count

    return timed


def hands_over(in_flight: int, count: int) -> Callable[[], Awaitable[float]]:
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


def bench_instances(ledger: Ledger) -> None:
    """3-step instances a second at 1, 16, 64 and 256 in flight."""
    for in_flight in FLIGHTS:
        contenders = {
            "ours": flows(InMemoryBackend, in_flight, 1_024),
            "python": flows(PythonBackend, in_flight, 1_024),
            "floor": hands_over(in_flight, 1_024),
        }
        samples = asyncio.run(interleave_async(contenders, 10))
        ours, python, floor = (1 / min(samples[name]) for name in ("ours", "python", "floor"))
        budgeted = in_flight == 64
        ledger.enter(
            "throughput",
            f"3-step instances, {in_flight} in flight",
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
        contenders = {
            "ours": batches(InMemoryBackend, size, 1_024),
            "python": batches(PythonBackend, size, 1_024),
        }
        samples = asyncio.run(interleave_async(contenders, 6))
        ours, python = (1 / min(samples[name]) for name in ("ours", "python"))
        ledger.enter(
            "throughput",
            f"3-step instances, in batches of {size}",
            ours,
            "/s",
            against=python,
            rival="Python backend",
        )
