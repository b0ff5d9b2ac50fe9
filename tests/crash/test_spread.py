"""A spread map of very many items, shared by two worker processes: all done, once, and by both.

Memory is bounded by the size of a batch and of the outputs, whatever the number of items, and while
they are done nothing is written to their parent. How many items a second that makes is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from sayiir import WorkflowClient, connect
from sayiir.backends import Backend, InstanceRow

from .burst import SHARED, total
from .figures import keep
from .fleet import Fleet
from .ground import Ground
from .test_overload import MOST_RSS_MB, rss_mb

NAMES = ("one", "two")
FAIR = 0.1
"""The share of the items that each worker must have done, at least."""
PARENT = "parent"


async def share(ground: Ground, count: int) -> dict[str, Any]:
    """Let two processes do so many items; what was measured.

    Raises:
        AssertionError: An item was not done, or twice; a worker idled; the parent was written to.
    """
    settings = ground.settings(
        repertoire="burst", lease_ttl=10.0, concurrency=64, poll_interval=1.0
    )
    async with Fleet(settings) as fleet:
        workers = await fleet.start_ready(*NAMES)
        backend = connect(ground.url)
        client = WorkflowClient(backend)
        begin = time.monotonic()
        handle = await client.submit(SHARED, PARENT, count)
        looking = asyncio.create_task(look_at_parent(backend))
        assert await handle.result(timeout="10m") == total(count)
        took = time.monotonic() - begin
        seen = await looking
        peaks = [rss_mb(worker.pid, "VmHWM") for worker in workers]
        done_by = await workers_of_items(backend, count)
        steps = [row.step.path for row in await backend.history(PARENT)]
        await fleet.retire()
        await backend.close()
        assert fleet.complaints() == []
    assert steps == ["numbers", "part", "sum"]
    assert len(seen) == 1, seen
    assert min(done_by[name] for name in NAMES) >= FAIR * count, done_by
    assert max(peaks) < MOST_RSS_MB, peaks
    return {
        "items": count,
        "seconds": took,
        "items_per_second": count / took,
        "worker_peak_mb": max(peaks),
        "fewest_items_of_a_worker": min(done_by.values()),
    }


async def look_at_parent(backend: Backend) -> set[tuple[float, int, int]]:
    """What was ever seen of a parent that waits for its items; more than one means writes."""
    seen = set()
    row = await backend.get(PARENT)
    while row.ended_at is None:
        if waits(row):
            seen.add((row.updated_at, row.fence, row.steps))
        await asyncio.sleep(0.02)  # It is looked at every now and then; nothing is waited for.
        row = await backend.get(PARENT)
    return seen


def waits(row: InstanceRow) -> bool:
    """Whether all of its items are made, and some have not ended."""
    return row.status == "waiting" and row.worker_id is None


async def workers_of_items(backend: Backend, count: int) -> Counter[str]:
    """How many items each worker brought to their end; each went through its two steps once."""
    found: Counter[str] = Counter()
    page = await backend.find(id_prefix=f"{PARENT}~", limit=500)
    while True:
        for row in page.rows:
            assert row.status == "completed"
        histories = await asyncio.gather(*(backend.history(row.instance_id) for row in page.rows))
        for history in histories:
            assert [(one.step.path, one.step.attempt) for one in history] == [
                ("double", 1),
                ("increase", 1),
            ]
            found[history[-1].worker_id.rpartition("~")[0]] += 1
        if page.cursor is None:
            break
        page = await backend.find(id_prefix=f"{PARENT}~", limit=500, cursor=page.cursor)
    assert found.total() == count
    return found


@pytest.mark.timeout(120)
async def test_two_processes_share_2_500_items(ground: Ground) -> None:
    figures = await share(ground, 2_500)
    keep("spread", ground.url, ground.seed, figures)
    assert figures["items"] == 2_500


@pytest.mark.soak
async def test_two_processes_share_10_000_items(ground: Ground) -> None:
    figures = await share(ground, 10_000)
    keep("spread-long", ground.url, ground.seed, figures)
    assert figures["items"] == 10_000
