"""What it costs that many instances are there: parked by the hundred thousand, or left by the dead.

Parked instances are made as users make them, by a worker that meets their waits. What one takes on
the disk is the growth of what the file or the schema uses, indexes included. Waking one in a
hundred is timed from the first event sent to the last one's end. Beside the parked, an idle worker
takes up new work; how long that takes is compared with the same where nobody is parked.

Interrupted ones are claimed by somebody who never comes back. The next worker starts when the dead
one's leases are over, all of them: a worker that stood by would take up the first while the last
are still held, and be ahead of the clock. It is timed from its start, and compared with as many
that nobody had begun.

Memory has its crowd of a million in `bench_footprint`, in a process of its own; nothing is to be
recovered there, because it ends with its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import pytest

from benches.bench_latency import DURABLE_SAMPLES, SAME_LOOP, idle_worker, sampled_on, submits
from benches.ledger import Ledger
from benches.stopwatch import quantile
from benches.store import POSTGRES, SQLITE, Store, space, url_of
from benches.workload import PAYLOAD, STARTED, WOKEN, chain
from sayiir import Worker, WorkflowClient
from sayiir.backends import Backend
from sayiir.testing import HandWorker

STORES = (SQLITE, POSTGRES)
THREE = chain(3)
PARKED, PARKED_QUICK = 100_000, 10_000
INTERRUPTED = 10_000
BATCH = 1_000
LEASE = 6.0
"""Seconds that the dead one holds each; longer than it takes to claim them all."""


class Crowd(NamedTuple):
    """What was seen of one crowd."""

    each: float
    """Bytes on the disk that one of it takes."""
    woken: float
    """Seconds until one in a hundred was woken and had ended."""
    alone: list[float]
    """Seconds in which an idle worker began when nobody was parked yet, one for each submit."""
    beside: list[float]
    """The same beside the crowd."""


async def park(backend: Backend, count: int) -> list[str]:
    """So many instances that wait for an event; their ids."""
    client = WorkflowClient(backend)
    ids: list[str] = []
    async with Worker(backend, [WOKEN], concurrency=256):
        for _ in range(0, count, BATCH):
            handles = await client.submit_many(WOKEN, [(None, PAYLOAD)] * BATCH)
            ids.extend(handle.instance_id for handle in handles)
        while (await backend.find(status="in_progress", limit=1)).rows:  # noqa: ASYNC110 - parking is silent
            await asyncio.sleep(0.05)
    return ids


async def _woken(backend: Backend, ids: Sequence[str]) -> float:
    """Seconds from the first event to the last end of these."""
    client = WorkflowClient(backend)
    async with Worker(backend, [WOKEN], concurrency=256):
        start = perf_counter()

        async def wake(instance_id: str) -> None:
            await client.send_event(instance_id, "go", 1)
            await client.result(instance_id)

        await asyncio.gather(*(wake(instance_id) for instance_id in ids))
        return perf_counter() - start


async def _begins(backend: Backend) -> list[float]:
    async with idle_worker(backend, STARTED.workflow_id, SAME_LOOP):
        return await sampled_on(backend, submits, DURABLE_SAMPLES)


async def _crowd(store: Store, count: int) -> Crowd:
    async with store.opened() as backend:
        alone = await _begins(backend)
        before = space(url_of(backend))
        ids = await park(backend, count)
        each = (space(url_of(backend)) - before) / count
        beside = await _begins(backend)
        took = await _woken(backend, ids[::100])
    return Crowd(each, took, alone, beside)


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def bench_crowd(ledger: Ledger, store: Store) -> None:
    """100,000 parked: what each takes, how soon others begin beside them, and 1 % are woken."""
    count = PARKED_QUICK if ledger.quick else PARKED
    crowd = asyncio.run(_crowd(store, count))
    ledger.enter(
        "footprint", f"{store.name}: a parked instance, of {count:,}, on the disk", crowd.each, "B"
    )
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ledger.enter(
            "crowd",
            f"{store.name}: submit → first task beside {count:,} parked, {name}",
            quantile(crowd.beside, share) * 1e3,
            "ms",
            against=quantile(crowd.alone, share) * 1e3,
            rival="beside none",
        )
    ledger.enter(
        "crowd", f"{store.name}: 1 % of {count:,} parked woken and ended", crowd.woken, "s"
    )
    ledger.enter("crowd", "  of them in a second", count / 100 / crowd.woken, "/s")


async def _finished(store: Store, *, interrupted: bool) -> float:
    """Seconds from a worker's start until it has ended them all."""
    async with store.opened() as backend:
        client = WorkflowClient(backend)
        ids: list[str] = []
        for _ in range(0, INTERRUPTED, BATCH):
            handles = await client.submit_many(THREE, [(None, PAYLOAD)] * BATCH)
            ids.extend(handle.instance_id for handle in handles)
        if interrupted:
            dead = HandWorker(backend, [THREE], "dead", lease_ttl=LEASE)
            batches = [await dead.claim_ids(BATCH) for _ in range(0, INTERRUPTED, BATCH)]
            assert sum(map(len, batches)) == INTERRUPTED
            await asyncio.sleep(LEASE)
        start = perf_counter()
        async with Worker(backend, [THREE], concurrency=256):
            await asyncio.gather(*(client.result(instance_id) for instance_id in ids))
            return perf_counter() - start


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def bench_recovery(ledger: Ledger, store: Store) -> None:
    """10,000 instances of three steps whose worker died with all of them in hand."""
    took = asyncio.run(_finished(store, interrupted=True))
    fresh = asyncio.run(_finished(store, interrupted=False))
    ledger.enter(
        "crowd",
        f"{store.name}: {INTERRUPTED:,} interrupted 3-step instances ended by the next worker",
        took,
        "s",
        against=fresh,
        rival="as many that nobody began",
    )
    ledger.enter(
        "crowd",
        "  of them in a second",
        INTERRUPTED / took,
        "/s",
        against=INTERRUPTED / fresh,
        rival="as many that nobody began",
    )
