"""How soon an idle worker begins: from the call that brings work to the first line of a task.

The worker has nothing to do before each sample and sleeps in its selector. Once it lives on the
client's event loop, once on a thread of its own, where waking another thread is part of the price,
and on a file or a server also in a process of its own, which has to notice, or to be told.

There both sides of the call are durable before the task begins: what brings the work, and the
claim. The budget allows for one fsync, the median of those taken in the same minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter

from benches.ground import ground
from benches.ledger import Ledger
from benches.sqlite_floor import fsync_seconds
from benches.stopwatch import quantile
from benches.store import MEMORY, POSTGRES, PYTHON, SQLITE, SQLITE_NORMAL, Store
from benches.worker_process import worker_processes
from benches.workload import STARTED, WOKEN
from sayiir import Worker, WorkflowClient
from sayiir.backends import Backend

Sample = Callable[[WorkflowClient], Awaitable[float]]

SAMPLES = 1_000
DURABLE_SAMPLES = 400
WARM = 20
"""Samples that do not count."""
REST = 0.001
"""Seconds between samples, for the worker to fall asleep."""
POLL = "5s"
"""Longer than any sample: a worker that had to poll would be seen."""

SAME_LOOP, OWN_THREAD = "same loop", "worker's own thread"
OWN_PROCESS = "worker's own process"


async def submits(client: WorkflowClient) -> float:
    """Seconds from a submit to the first line of its task."""
    start = perf_counter()
    handle = await client.submit(STARTED, input=1)
    return await handle.result() - start


async def _events(client: WorkflowClient) -> float:
    handle = await client.submit(WOKEN, input=1)
    while (await handle.refresh()).status != "awaiting_signal":  # noqa: ASYNC110 - parking is silent
        await asyncio.sleep(REST)
    await asyncio.sleep(REST)
    start = perf_counter()
    await client.send_event(handle.instance_id, "go", 2)
    return await handle.result() - start


SAMPLED: tuple[tuple[Sample, str, str], ...] = (
    (submits, "submit → first task", STARTED.workflow_id),
    (_events, "event → next task", WOKEN.workflow_id),
)


@asynccontextmanager
async def idle_worker(backend: Backend, workflow_id: str, where: str) -> AsyncIterator[None]:
    """A worker that has nothing to do, on this loop, on its own thread or in its own process."""
    if where == OWN_PROCESS:
        async with worker_processes(backend, 1, workflow_id, 4, poll_interval=POLL):
            yield
        return
    worker = Worker(backend, [STARTED, WOKEN], concurrency=4, poll_interval=POLL)
    if where == SAME_LOOP:
        async with worker:
            yield
        return
    worker.start()
    try:
        yield
    finally:
        await asyncio.to_thread(worker.stop)


async def sampled_on(backend: Backend, sample: Sample, count: int) -> list[float]:
    """So many samples, after some that do not count."""
    client = WorkflowClient(backend)
    found = []
    for _ in range(WARM + count):
        await asyncio.sleep(REST)
        found.append(await sample(client))
    return found[WARM:]


async def _sampled(
    store: Store, sample: Sample, workflow_id: str, where: str, count: int
) -> list[float]:
    async with store.opened() as backend, idle_worker(backend, workflow_id, where):
        return await sampled_on(backend, sample, count)


def bench_idle_worker(ledger: Ledger) -> None:
    """Submit to first task, event to next task in memory; the median and the 99th of a hundred."""
    for sample, what, workflow_id in SAMPLED:
        for where in (SAME_LOOP, OWN_THREAD):
            found = asyncio.run(_sampled(MEMORY, sample, workflow_id, where, SAMPLES))
            theirs = asyncio.run(_sampled(PYTHON, sample, workflow_id, where, SAMPLES))
            ledger.enter(
                "latency",
                f"memory: {what}, {where}, p50",
                quantile(found, 0.5) * 1e3,
                "ms",
                against=quantile(theirs, 0.5) * 1e3,
                rival=PYTHON.name,
            )
            late = quantile(found, 0.99) * 1e3
            ledger.enter(
                "latency",
                f"memory: {what}, {where}, p99",
                late,
                "ms",
                against=quantile(theirs, 0.99) * 1e3,
                rival=PYTHON.name,
                judged=late,
                at_most=0.2,
                budget="< 0.2 ms",
            )


def bench_idle_worker_on_disk(ledger: Ledger) -> None:
    """The same on a file, where the worker may also be another process."""
    _durable(ledger, SQLITE)
    for sample, what, workflow_id in SAMPLED:
        found = asyncio.run(_sampled(SQLITE_NORMAL, sample, workflow_id, SAME_LOOP, SAMPLES))
        ledger.enter(
            "latency",
            f"  {SQLITE_NORMAL.name}: {what}, {SAME_LOOP}, p99",
            quantile(found, 0.99) * 1e3,
            "ms",
        )


def bench_idle_worker_on_a_server(ledger: Ledger) -> None:
    """The same on PostgreSQL."""
    _durable(ledger, POSTGRES)


def _durable(ledger: Ledger, store: Store) -> None:
    fsync = median(fsync_seconds(ground(), DURABLE_SAMPLES)) * 1e3
    ledger.enter("latency", "one fsync of a page appended to a file, p50", fsync, "ms")
    for sample, what, workflow_id in SAMPLED:
        for where in (SAME_LOOP, OWN_THREAD, OWN_PROCESS):
            found = asyncio.run(_sampled(store, sample, workflow_id, where, DURABLE_SAMPLES))
            ledger.enter(
                "latency",
                f"{store.name}: {what}, {where}, p50",
                quantile(found, 0.5) * 1e3,
                "ms",
                against=fsync,
                rival="one fsync",
            )
            late = quantile(found, 0.99) * 1e3
            ledger.enter(
                "latency",
                f"{store.name}: {what}, {where}, p99",
                late,
                "ms",
                judged=late,
                at_most=5.0 + fsync,
                budget="< 5 ms + one fsync",
            )
