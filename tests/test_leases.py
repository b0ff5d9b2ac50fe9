"""Leases: one worker at a time, however long a body takes, and others when a worker is gone."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from sayiir import Flow, Worker, WorkflowClient
from sayiir._core import Claimant
from sayiir.backends import Backend

from .working import LONG, Altered, Gauge, Places

TTL = 0.2


def sleeps(x: int) -> int:
    time.sleep(5 * TTL)
    return x + 1


def hogs(x: int) -> int:
    until = time.monotonic() + 5 * TTL
    while time.monotonic() < until:
        sum(range(1000))
    return x + 1


async def waits(x: int) -> int:
    await asyncio.sleep(5 * TTL)
    return x + 1


async def blocks(x: int) -> int:
    return hogs(x)


@pytest.mark.parametrize("body", [sleeps, hogs, waits, blocks])
async def test_a_body_that_outlives_its_lease_runs_once(backend: Backend, body: object) -> None:
    gauge = Gauge()
    wide = threading.Event()

    def begin(x: int) -> int:
        with gauge.body():
            wide.set()
            return x

    workflow = Flow("long").then(begin).then(body).build()  # type: ignore[call-overload]
    client = WorkflowClient(backend)
    other = Worker(backend, workflow, poll_interval="20ms", lease_ttl=TTL, worker_id="other")
    # The other one has a loop of its own, so a body that blocks this loop does not hold it up.
    other.start()
    try:
        async with Worker(backend, workflow, poll_interval="20ms", lease_ttl=TTL):
            handle = await client.submit(workflow, "i", 1)
            assert await handle.result(timeout=LONG) == 2
    finally:
        await asyncio.to_thread(other.stop)
    rows = await client.history("i")
    assert [row.outcome for row in rows] == ["completed", "completed"]
    assert gauge.total == 1
    assert len({row.worker_id for row in rows}) == 1


async def test_two_workers_share_the_work_and_repeat_none(backend: Backend) -> None:
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    def count(x: int) -> int:
        with lock:
            runs[x] += 1
        return x

    async def later_count(x: int) -> int:
        runs[x] += 1
        await asyncio.sleep(0)
        return x

    workflow = Flow("shared").then(count).then(later_count).build()
    client = WorkflowClient(backend)
    with Worker(backend, workflow, concurrency=8, worker_id="elsewhere", poll_interval="20ms"):
        async with Worker(backend, workflow, concurrency=8, worker_id="here"):
            handles = await client.submit_many(workflow, [(f"i-{n}", n) for n in range(200)])
            assert [await h.result(timeout=LONG) for h in handles] == list(range(200))
    assert runs == dict.fromkeys(range(200), 2)


async def test_what_a_vanished_worker_held_goes_on_elsewhere(backend: Backend) -> None:
    workflow = Flow("left").then(lambda x: x + 1).build()
    client = WorkflowClient(backend)
    handles = await client.submit_many(workflow, [(None, n) for n in range(10)])
    gone = Claimant("gone", [workflow.program], lease_ttl=TTL)
    assert len(await backend.claim(gone, 10)) == 10
    async with Worker(backend, workflow, poll_interval="50ms"):
        assert [await h.result(timeout=LONG) for h in handles] == list(range(1, 11))


@pytest.mark.parametrize("places", ["python", "sqlite", "postgres"], indirect=True)
async def test_a_lease_that_cannot_be_renewed_goes_to_another_and_no_late_write_is_taken(
    places: Places,
) -> None:
    class Deaf(Altered):
        """A backend that one worker cannot reach to renew."""

        async def renew(self, worker_id: str, lease_ttl: float) -> Sequence[str]:
            if worker_id.startswith("deaf"):
                raise ConnectionError("no route")
            return await super().renew(worker_id, lease_ttl)

        def keep_leases(self, claimant: Claimant) -> Callable[[], None] | None:
            """The storage's own thread does not renew either; the worker has to."""

    backend = places(Deaf)
    running, go_on = asyncio.Event(), asyncio.Event()
    starts: list[int] = []

    async def slow_first(x: int) -> str:
        starts.append(x)
        if len(starts) == 1:
            running.set()
            await go_on.wait()
            return "late"
        return "in time"

    workflow = Flow("contested").then(slow_first).then(lambda x: x).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, worker_id="deaf", lease_ttl=TTL, poll_interval="1h"):
        handle = await client.submit(workflow, "i", 1)
        await running.wait()
        async with Worker(backend, workflow, worker_id="other", poll_interval="20ms"):
            assert await handle.result(timeout=LONG) == "in time"
        go_on.set()
    assert {row.worker_id for row in await client.history("i")} == {"other"}
    assert await client.result("i") == "in time"
