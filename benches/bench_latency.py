"""How soon an idle worker begins: from the call that brings work to the first line of a task.

The worker has nothing to do before each sample and sleeps in its selector. Once it lives on the
client's event loop, once on a thread of its own, where waking another thread is part of the price.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from benches.ledger import Ledger
from benches.stopwatch import quantile
from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient

SAMPLES = 1_000
REST = 0.001
"""Seconds between samples, for the worker to fall asleep."""

_begun: queue.SimpleQueue[float] = queue.SimpleQueue()


async def _mark(value: Any) -> Any:
    _begun.put(perf_counter())
    return value


STARTED = Flow("started").then(_mark).build()
WOKEN = Flow("woken").wait_for_event("go").then(_mark).build()


async def _submits(client: WorkflowClient) -> float:
    start = perf_counter()
    handle = await client.submit(STARTED, input=1)
    await handle.result()
    return _begun.get() - start


async def _events(client: WorkflowClient) -> float:
    handle = await client.submit(WOKEN, input=1)
    while (await handle.refresh()).status != "awaiting_signal":  # noqa: ASYNC110 - parking is silent
        await asyncio.sleep(REST)
    await asyncio.sleep(REST)
    start = perf_counter()
    await client.send_event(handle.instance_id, "go", 2)
    await handle.result()
    return _begun.get() - start


async def _sampled(
    sample: Callable[[WorkflowClient], Awaitable[float]], *, apart: bool
) -> list[float]:
    backend = InMemoryBackend()
    client = WorkflowClient(backend)
    worker = Worker(backend, [STARTED, WOKEN], concurrency=4, poll_interval="5s")
    found = []
    if apart:
        worker.start()
    else:
        await worker.__aenter__()
    try:
        for number in range(SAMPLES + 20):
            await asyncio.sleep(REST)
            took = await sample(client)
            if number >= 20:
                found.append(took)
    finally:
        if apart:
            await asyncio.to_thread(worker.stop)
        else:
            await worker.aclose()
    return found


def bench_idle_worker(ledger: Ledger) -> None:
    """Submit to first task, event to next task; the median and the 99th of a hundred."""
    for sample, what in ((_submits, "submit → first task"), (_events, "event → next task")):
        for apart, where in ((False, "same loop"), (True, "worker's own thread")):
            found = asyncio.run(_sampled(sample, apart=apart))
            ledger.enter("latency", f"{what}, {where}, p50", quantile(found, 0.5) * 1e3, "ms")
            late = quantile(found, 0.99) * 1e3
            ledger.enter(
                "latency",
                f"{what}, {where}, p99",
                late,
                "ms",
                judged=late,
                at_most=0.2,
                budget="< 0.2 ms",
            )
