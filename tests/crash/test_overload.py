"""Far more submits at once than two workers can take: memory is bounded, and the queue drains.

Every submit is a call of its own, so the burst is one of calls and not of rows. Meanwhile another
client goes on asking, and is answered in good time; how good is measured, and bounded so loosely
that no slow machine fails.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sayiir import WorkflowClient, connect

from .burst import BURST, outcome
from .figures import keep
from .fleet import Fleet
from .ground import Ground
from .ledger import read

WORKERS = 2
BURST_SIZE = 5_000
"""Calls that are made at once; a longer run makes one burst after the other."""
MOST_RSS_MB = 300
"""What any process may come to, however long the queue."""
MOST_CALL_MS = 5_000
ASKED_AT_ONCE = 500
"""Results that are waited for together."""


def rss_mb(pid: int | str, line: str = "VmRSS") -> float:
    """Resident memory of a process in MiB; `VmHWM` is the most it ever had."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(f"{line}:"):
            return int(text.split()[1]) / 1024
    raise ValueError(f"process {pid} has no {line}")


async def overload(ground: Ground, submits: int, seconds: float = 1e9) -> dict[str, float]:
    """Submit so many in bursts and wait until the queue is empty; what was measured.

    Raises:
        AssertionError: An instance came to something else, memory grew beyond its bound, or a call
            took longer than any machine should need.
    """
    begin = time.monotonic()
    settings = ground.settings(
        repertoire="burst", lease_ttl=10.0, concurrency=64, poll_interval=1.0
    )
    async with Fleet(settings) as fleet:
        workers = await fleet.start_ready(*["worker"] * WORKERS)
        caller = await fleet.start("caller")
        await caller.ready()
        backend = connect(ground.url)
        client = WorkflowClient(backend)
        before, submitted = rss_mb("self"), 0
        while submitted < submits and time.monotonic() - begin < seconds:
            names = range(submitted, min(submitted + BURST_SIZE, submits))
            await asyncio.gather(*(client.submit(BURST, f"burst-{n}", n) for n in names))
            submitted = names.stop
        taken = time.monotonic() - begin
        for first in range(0, submitted, ASKED_AT_ONCE):
            names = range(first, min(first + ASKED_AT_ONCE, submitted))
            asked = (client.result(f"burst-{n}", timeout="30m") for n in names)
            assert await asyncio.gather(*asked) == [outcome(n) for n in names]
        drained = time.monotonic() - begin
        assert await caller.finish() == 0, caller.complaint()
        grown = rss_mb("self") - before
        peaks = [rss_mb(worker.pid, "VmHWM") for worker in workers]
        await fleet.retire()
        for status in ("in_progress", "failed"):
            assert (await client.list_instances(status=status)).items == ()
        await backend.close()
        assert fleet.complaints() == []
    [calls] = [record.detail for record in read(ground.folder) if record.kind == "asked"]
    assert max(peaks) < MOST_RSS_MB, peaks
    assert grown < MOST_RSS_MB, grown
    assert max(calls.values()) < MOST_CALL_MS, calls
    return {
        "submits": submitted,
        "submitted_s": taken,
        "drained_s": drained,
        "worker_peak_mb": max(peaks),
        "client_grown_mb": grown,
        **calls,
    }


@pytest.mark.timeout(180)
async def test_a_burst_of_five_thousand(ground: Ground) -> None:
    figures = await overload(ground, 5_000)
    keep("overload", ground.url, ground.seed, figures)
    assert figures["submits"] == 5_000


@pytest.mark.soak
async def test_bursts_of_a_hundred_thousand(ground: Ground, soak_seconds: float) -> None:
    figures = await overload(ground, 100_000, soak_seconds)
    keep("overload-long", ground.url, ground.seed, figures)
