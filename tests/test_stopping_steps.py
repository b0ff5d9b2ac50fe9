"""Steps that nobody wants any more: cancelled, deleted, paused, or beside one that failed.

Coroutines are cancelled, threads are told, and what ended first counts as ended.
"""

import asyncio
import threading
import time

import pytest

from sayiir import (
    Flow,
    Status,
    TaskContext,
    Worker,
    WorkflowCancelled,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
)
from sayiir.backends import Backend

from .working import LONG, NEVER, Gauge


def context() -> TaskContext:
    seen = get_task_context()
    assert seen is not None
    return seen


async def test_a_cancel_reaches_an_async_task(backend: Backend) -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs(x: int) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert context().cancelled
            cancelled.set()
            raise

    workflow = Flow("f").then(hangs).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 0)
        await running.wait()
        await handle.cancel("enough", "ops")
        async with asyncio.timeout(LONG):
            await cancelled.wait()
        with pytest.raises(WorkflowCancelled, match="enough"):
            await handle.result(timeout=LONG)


async def test_a_cancel_reaches_every_branch(backend: Backend) -> None:
    running = asyncio.Barrier(4)
    cancelled = []

    async def hangs(x: int) -> None:
        await running.wait()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(x)

    workflow = Flow("f").map(hangs).build()
    async with Worker(backend, workflow, concurrency=4, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", [1, 2, 3])
        await running.wait()
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=LONG)
    assert sorted(cancelled) == [1, 2, 3]


async def test_a_cancel_is_seen_by_a_thread_and_takes_effect_when_it_ends(
    backend: Backend,
) -> None:
    running, after = threading.Event(), Gauge()

    def looks(x: int) -> int:
        running.set()
        own = context()
        while not own.cancelled:
            time.sleep(0.002)
        return x

    def never(x: int) -> int:
        with after.body():
            return x

    workflow = Flow("f").then(looks).then(never).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 0)
        assert await asyncio.to_thread(running.wait, LONG)
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=LONG)
    assert after.total == 0


@pytest.mark.parametrize("last", [True, False])
async def test_work_that_ended_is_not_reported_as_cancelled(backend: Backend, last: bool) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def holds_on(x: int) -> int:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # It finishes what it began, and returns.
            await go_on.wait()
        return x + 1

    flow = Flow("f").then(holds_on)
    workflow = flow.build() if last else flow.then(lambda x: x).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 0)
        await running.wait()
        await handle.cancel()
        go_on.set()
        if last:
            assert await handle.result(timeout=LONG) == 1
        else:
            with pytest.raises(WorkflowCancelled):
                await handle.result(timeout=LONG)


async def test_a_failure_beats_a_cancel(backend: Backend) -> None:
    running = asyncio.Event()

    async def fails(x: int) -> int:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("broke while stopping") from None
        return x

    workflow = Flow("f").then(fails).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 0)
        await running.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailed, match="broke while stopping"):
            await handle.result(timeout=LONG)


async def test_deleting_by_force_stops_an_async_task(backend: Backend) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def hangs(x: int) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    workflow = Flow("f").then(hangs).build()
    good = Flow("good").then(lambda x: x).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow, good], concurrency=1, poll_interval=NEVER, grace=0):
        await client.submit(workflow, "i", 0)
        await running.wait()
        await client.delete("i", force=True)
        async with asyncio.timeout(5):
            await stopped.wait()
        handle = await client.submit(good, "j", 1)
        assert await handle.result(timeout=LONG) == 1


async def test_a_pause_waits_for_the_running_step(backend: Backend) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()
    after = Gauge()

    async def first(x: int) -> int:
        running.set()
        await go_on.wait()
        return x + 1

    async def second(x: int) -> int:
        with after.body():
            return x * 10

    workflow = Flow("f").then(first).then(second).build()
    good = Flow("good").then(lambda x: x).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow, good], concurrency=1, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", 0)
        await running.wait()
        await handle.pause()
        go_on.set()
        # The only slot is free again only when the instance was let go.
        assert await (await client.submit(good, "j", 1)).result(timeout=LONG) == 1
        assert (await handle.refresh()).status is Status.PAUSED
        assert after.total == 0
        await handle.unpause()
        assert await handle.result(timeout=LONG) == 10


async def test_a_failing_item_stops_the_others(backend: Backend) -> None:
    running = asyncio.Barrier(3)
    stopped = []

    async def item(x: int) -> int:
        try:
            await running.wait()
            if x == 0:
                raise ValueError("the first")
            await asyncio.Event().wait()
        finally:
            stopped.append(x)
        return x

    workflow = Flow("f").map(item).build()
    async with Worker(backend, workflow, concurrency=3, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", [0, 1, 2])
        with pytest.raises(WorkflowFailed, match="the first"):
            await handle.result(timeout=LONG)
    assert sorted(stopped) == [0, 1, 2]


async def test_a_failing_branch_does_not_wait_for_a_thread(backend: Backend) -> None:
    running, go_on = threading.Event(), threading.Event()

    def long(x: int) -> int:
        running.set()
        go_on.wait(LONG)
        return x

    async def fails(x: int) -> int:
        await asyncio.to_thread(running.wait, LONG)
        raise ValueError("the other branch")

    fork = Flow("f").fork().branch(long).branch(fails).join(dict).build()
    try:
        async with Worker(backend, fork, concurrency=2, poll_interval=NEVER):
            handle = await WorkflowClient(backend).submit(fork, "i", 1)
            with pytest.raises(WorkflowFailed, match="the other branch"):
                await handle.result(timeout=5)
            go_on.set()
    finally:
        go_on.set()
    assert (await WorkflowClient(backend).status("i")).status is Status.FAILED


async def test_a_cancel_leaves_alone_what_was_not_begun(backend: Backend) -> None:
    client, started = WorkflowClient(backend), []

    async def asks(x: int) -> None:
        started.append(x)
        if x == 0:
            await client.cancel("i")
        await asyncio.Event().wait()

    many = Flow("f").then(lambda n: list(range(n)), name="many")
    workflow = many.map(asks, concurrency=256).build()
    async with Worker(backend, workflow, concurrency=256, poll_interval=NEVER):
        # More than there is room for: until the cancel is written, whatever can begin may.
        handle = await client.submit(workflow, "i", 512)
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=LONG)
        begun = len(started)
        assert 0 < begun <= 256
    assert len(started) == begun


async def test_a_failure_leaves_alone_what_was_not_begun(backend: Backend) -> None:
    started = []

    async def fails(x: int) -> None:
        started.append(x)
        raise ValueError(x)

    workflow = Flow("f").then(lambda n: list(range(n)), name="many").map(fails).build()
    async with Worker(backend, workflow, concurrency=256, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 256)
        with pytest.raises(WorkflowFailed):
            await handle.result(timeout=LONG)
    # Without a commit to wait for, the first failure is the last start.
    assert started[0] == 0
    assert len(started) < 256
