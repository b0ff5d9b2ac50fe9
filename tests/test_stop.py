"""Stopping: what runs may end, nothing new begins, everything held is given back.

Programs that are stopped by signals are in `test_signals.py`.
"""

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sayiir import (
    Flow,
    Status,
    Worker,
    Workflow,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    task,
)
from sayiir._core import Claim, Claimant
from sayiir.backends import Backend

from . import tasks_for_processes as tasks
from .working import LONG, NEVER, Altered, Gauge, Places


@contextmanager
def no_thread_left_behind() -> Iterator[None]:
    """Every thread that is started in here has ended, or ends now that its body has."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("sayiir-"):
            thread.join(5)
            assert not thread.is_alive(), thread.name


async def test_running_steps_end_and_the_rest_goes_on_elsewhere(backend: Backend) -> None:
    runs: Counter[str] = Counter()
    met = asyncio.Barrier(5)
    go_on = asyncio.Event()

    async def first(x: int) -> int:
        runs["first"] += 1
        if not go_on.is_set():
            await met.wait()
            await go_on.wait()
        return x + 1

    async def second(x: int) -> int:
        runs["second"] += 1
        return x * 10

    workflow = Flow("f").then(first).then(second).build()
    client = WorkflowClient(backend)
    handles = await client.submit_many(workflow, [(f"i-{n}", n) for n in range(10)])
    worker = Worker(backend, workflow, concurrency=4, poll_interval=NEVER, worker_id="one")
    async with worker:
        await met.wait()
        stopping = asyncio.create_task(worker.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
        # What ran has ended and is kept, and nothing was begun after it.
        assert runs == {"first": 4}
    rows = await client.list_instances()
    assert [row.worker_id for row in rows] == [None] * 10
    assert Counter(row.steps for row in rows) == {1: 4, 0: 6}
    async with Worker(backend, workflow, poll_interval=NEVER, worker_id="two"):
        assert [await h.result(timeout=LONG) for h in handles] == [(n + 1) * 10 for n in range(10)]
    assert runs == {"first": 10, "second": 10}


async def test_a_thread_may_end_too(backend: Backend) -> None:
    running, go_on = threading.Event(), threading.Event()
    runs = Gauge()

    def first(x: int) -> int:
        with runs.body():
            running.set()
            go_on.wait(LONG)
            return x + 1

    workflow = Flow("f").then(first).then(lambda x: x * 10).build()
    client = WorkflowClient(backend)
    worker = Worker(backend, workflow, poll_interval=NEVER)
    async with worker:
        handle = await client.submit(workflow, "i", 0)
        assert await asyncio.to_thread(running.wait, LONG)
        stopping = asyncio.create_task(worker.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
    async with Worker(backend, workflow, poll_interval=NEVER):
        assert await handle.result(timeout=LONG) == 10
    assert runs.total == 1


@pytest.mark.parametrize("kind", ["chain", "map"])
async def test_when_the_grace_is_over_what_runs_is_cancelled_and_given_back(
    backend: Backend, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    running = asyncio.Event()
    cancelled: list[int] = []
    patient = False

    async def hangs(x: int) -> int:
        running.set()
        if patient:
            return x
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(x)
            raise
        return x

    workflow: Workflow[Any, Any] = Flow("f").then(hangs).build()
    if kind == "map":
        workflow = Flow("f").map(hangs).build()
    value: object = 1 if kind == "chain" else [1, 2, 3]
    client = WorkflowClient(backend)
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, workflow, grace="50ms", poll_interval=NEVER):
            handle = await client.submit(workflow, "i", value)
            await running.wait()
    assert sorted(cancelled) == ([1] if kind == "chain" else [1, 2, 3])
    assert "grace" in caplog.text
    assert (await handle.refresh()).status is Status.IN_PROGRESS
    assert (await client.list_instances())[0].worker_id is None
    # It counts as not having been tried.
    assert await client.history("i") == []
    patient = True
    async with Worker(backend, workflow, poll_interval=NEVER):
        assert await handle.result(timeout=LONG) == value
    assert [row.attempt for row in await client.history("i")] == [1] * len(cancelled)


async def test_a_body_that_ignores_its_cancel_does_not_hold_the_worker(backend: Backend) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    @task
    async def stubborn(x: int) -> int:
        running.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        return x

    workflow = Flow("f").then(stubborn).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, grace=0, poll_interval=NEVER):
        await client.submit(workflow, "i", 1)
        await running.wait()
    # Given back, though the body still runs; its late result is refused.
    async with Worker(backend, workflow, poll_interval=NEVER, worker_id="two"):
        go_on.set()
        assert await client.result("i", timeout=LONG) == 1
    assert [row.worker_id for row in await client.history("i")] == ["two"]


@pytest.mark.parametrize("places", ["python", "sqlite", "postgres"], indirect=True)
async def test_a_claim_that_is_under_way_is_given_back(places: Places) -> None:
    claiming, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Altered):
        async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
            claims = await super().claim(claimant, limit)
            if claims:
                claiming.set()
                await go_on.wait()
            return claims

    backend = places(Slow)
    runs = Gauge()

    def body(x: int) -> int:
        with runs.body():
            return x

    workflow = Flow("f").then(body).then(body).build()
    client = WorkflowClient(backend)
    await client.submit(workflow, "i", 1)
    worker = Worker(backend, workflow, poll_interval=NEVER)
    async with worker:
        await claiming.wait()
        stopping = asyncio.create_task(worker.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
    assert runs.total == 0
    assert (await client.list_instances())[0].worker_id is None
    async with Worker(backend, workflow, poll_interval=NEVER):
        assert await client.result("i", timeout=LONG) == 1


async def test_ten_rounds_under_load_lose_and_repeat_nothing(backend: Backend) -> None:
    runs: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()
    loop = asyncio.get_running_loop()
    enough, goal = asyncio.Event(), 0

    def count(name: str, x: int) -> int:
        with lock:
            runs[name, x] += 1
            if len(runs) == goal:
                loop.call_soon_threadsafe(enough.set)
        return x

    async def on_the_loop(x: int) -> int:
        await asyncio.sleep(0)
        return count("loop", x)

    plain = Flow("plain").then(lambda x: count("thread", x)).then(on_the_loop).build()
    client = WorkflowClient(backend)
    handles = await client.submit_many(plain, [(f"i-{n}", n) for n in range(1000)])
    for round_ in range(10):
        enough, goal = asyncio.Event(), len(runs) + 100
        async with Worker(backend, plain, concurrency=8, poll_interval=NEVER):
            await enough.wait()
        rows = await client.list_instances(limit=1000)
        assert all(row.worker_id is None for row in rows), round_
    async with Worker(backend, plain, poll_interval=NEVER):
        assert [await h.result(timeout=LONG) for h in handles] == list(range(1000))
    assert set(runs.values()) == {1}
    assert len(runs) == 2000


async def test_a_thread_that_outlives_the_grace_is_left_and_its_result_refused(
    backend: Backend,
) -> None:
    running, go_on = threading.Event(), threading.Event()
    told: list[bool] = []

    def stubborn(x: int) -> str:
        if running.is_set():
            return "second"
        seen = get_task_context()
        assert seen is not None
        running.set()
        go_on.wait(LONG)
        told.append(seen.cancelled)
        return "first"

    workflow = Flow("f").then(stubborn).build()
    client = WorkflowClient(backend)
    with no_thread_left_behind():
        async with Worker(backend, workflow, grace=0, poll_interval=NEVER):
            await client.submit(workflow, "i", 1)
            assert await asyncio.to_thread(running.wait, LONG)
        go_on.set()
        async with Worker(backend, workflow, poll_interval=NEVER, worker_id="two"):
            assert await client.result("i", timeout=LONG) == "second"
    assert told == [True]


async def test_a_process_that_outlives_the_grace_is_killed(
    tmp_path: Path, backend: Backend
) -> None:
    workflow = Flow("f").then(tasks.endless).build()
    os.mkfifo(tmp_path / "begun")
    with no_thread_left_behind():
        async with Worker(backend, workflow, grace=0, poll_interval=NEVER):
            await WorkflowClient(backend).submit(workflow, "i", str(tmp_path))
            pid = int(await asyncio.to_thread((tmp_path / "begun").read_text))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_failing_maps_leave_no_thread_behind(backend: Backend) -> None:
    def odd_fails(x: int) -> int:
        if x % 2:
            raise ValueError("odd")
        return x

    workflow = Flow("f").map(odd_fails).build()
    client = WorkflowClient(backend)
    before = set(threading.enumerate())
    with no_thread_left_behind():
        async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
            for handle in await client.submit_many(workflow, [(None, [0, 1, 2, 3])] * 20):
                with pytest.raises(WorkflowFailed):
                    await handle.result(timeout=LONG)
            started = set(threading.enumerate()) - before
            assert len([thread for thread in started if thread.name == "sayiir-task"]) <= 2


async def test_no_thread_is_left_behind(backend: Backend) -> None:
    release = threading.Event()

    @task(timeout="30ms")
    def stuck(x: int) -> None:
        release.wait(LONG)

    quick = Flow("quick").map(lambda x: x).build()
    slow = Flow("slow").map(stuck, on_error="collect").build()
    client = WorkflowClient(backend)
    with no_thread_left_behind():
        async with Worker(backend, [quick, slow], concurrency=4, poll_interval=NEVER):
            one = await client.submit(slow, "slow", list(range(6)))
            two = await client.submit(quick, "quick", list(range(50)))
            assert len(await one.result(timeout=LONG)) == 6
            await two.result(timeout=LONG)
            release.set()
