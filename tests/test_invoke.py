"""How functions are called: timeouts, threads, and what a task learns about itself.

A timeout is told from a slow machine by the body, which would never end by itself. That a timeout
comes in time is shown with limits so far apart that no machine confuses them.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sayiir import (
    Flow,
    RetryPolicy,
    TaskContext,
    TaskTimeout,
    Worker,
    Workflow,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    run_durable_workflow,
    task,
)
from sayiir.backends import Backend

from .working import LONG, NEVER, Gauge, outcome


def context() -> TaskContext:
    seen = get_task_context()
    assert seen is not None
    return seen


async def timed_out(backend: Backend, workflow: Workflow[Any, Any]) -> TaskTimeout:
    with pytest.raises(WorkflowFailed) as caught:
        await outcome(backend, workflow, 0)
    cause = caught.value.__cause__
    assert isinstance(cause, TaskTimeout)
    assert isinstance(cause, TimeoutError)
    return cause


# Timeouts.


async def test_an_async_task_is_cancelled_at_its_deadline(backend: Backend) -> None:
    cancelled = []

    @task(timeout="100ms")
    async def hangs(x: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(x)
            raise

    begun = time.monotonic()
    error = await timed_out(backend, Flow("f").then(hangs).build())
    assert 0.1 <= time.monotonic() - begun < 10
    assert cancelled == [0]
    assert error.task == "hangs"
    assert "0.1 s" in error.message


async def test_a_thread_is_reported_at_its_deadline_and_told(backend: Backend) -> None:
    told = threading.Event()
    let_go = threading.Event()

    @task(timeout="100ms")
    def hangs(x: int) -> str:
        own = context()
        while not own.cancelled:
            let_go.wait(0.005)
        told.set()
        return "too late"

    error = await timed_out(backend, Flow("f").then(hangs).build())
    assert error.task == "hangs"
    assert await asyncio.to_thread(told.wait, LONG)


async def test_a_late_result_is_dropped(backend: Backend) -> None:
    late = threading.Event()
    ended = threading.Event()

    @task(timeout="50ms", retries=RetryPolicy(max_retries=1, initial_delay_secs=0.0))
    def slow_first(x: int) -> str:
        attempt = context().attempt
        if attempt == 1:
            late.wait(LONG)
            ended.set()
        return f"attempt {attempt}"

    async def hold(value: str) -> str:
        # The late one ends while the instance is still held, so it could do harm.
        late.set()
        await asyncio.to_thread(ended.wait, LONG)
        return value

    workflow = Flow("f").then(slow_first).then(hold).build()
    async with Worker(backend, workflow, poll_interval="100ms"):
        handle = await WorkflowClient(backend).submit(workflow, "i", 0)
        assert await handle.result(timeout=LONG) == "attempt 2"
    rows = await WorkflowClient(backend).history("i")
    assert [(row.path, row.attempt, row.outcome) for row in rows] == [
        ("slow_first", 1, "retried"),
        ("slow_first", 2, "completed"),
        ("hold", 1, "completed"),
    ]


async def test_stuck_threads_starve_nobody(backend: Backend) -> None:
    let_go = threading.Event()

    @task(timeout="50ms")
    def stuck(x: int) -> None:
        let_go.wait(LONG)

    bad = Flow("bad").then(stuck).build()
    good = Flow("good").then(lambda x: x).build()
    client = WorkflowClient(backend)
    try:
        async with Worker(backend, [bad, good], concurrency=2, poll_interval=NEVER):
            for handle in await client.submit_many(bad, [(None, n) for n in range(8)]):
                with pytest.raises(WorkflowFailed, match="still running after"):
                    await handle.result(timeout=LONG)
            handles = await client.submit_many(good, [(None, n) for n in range(8)])
            assert [await h.result(timeout=LONG) for h in handles] == list(range(8))
            let_go.set()
            handles = await client.submit_many(good, [(None, n) for n in range(8)])
            assert [await h.result(timeout=LONG) for h in handles] == list(range(8))
    finally:
        let_go.set()


async def test_a_timeout_begins_with_the_body_and_not_in_the_queue(backend: Backend) -> None:
    gauge = Gauge()

    @task(timeout="400ms")
    def waits_its_turn(x: int) -> int:
        with gauge.body():
            time.sleep(0.1)
            return x

    # One thread for ten items of a tenth of a second: the last has queued for twice its timeout.
    workflow = Flow("f").map(waits_its_turn).build()
    async with Worker(backend, workflow, concurrency=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=list(range(10)))
        assert await handle.result(timeout=LONG) == list(range(10))
    assert gauge.most == 1


async def test_a_timeout_error_of_the_user_is_no_timeout_of_ours(backend: Backend) -> None:
    @task(timeout="1m")
    async def own(x: int) -> None:
        raise TimeoutError("theirs")

    with pytest.raises(WorkflowFailed) as caught:
        await outcome(backend, Flow("f").then(own).build(), 0)
    cause = caught.value.__cause__
    assert not isinstance(cause, TaskTimeout)
    assert "theirs" in str(cause)


async def test_a_task_that_ends_in_time_is_left_alone(backend: Backend) -> None:
    @task(timeout="1m")
    def quick(x: int) -> int:
        return x + 1

    @task(timeout="1m")
    async def later_quick(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    workflow = Flow("f").then(quick).then(later_quick).build()
    assert await outcome(backend, workflow, 0) == 2


# What a task learns about itself.


@pytest.mark.parametrize("limit", [None, "1m"])
async def test_a_task_knows_where_it_is(backend: Backend, limit: str | None) -> None:
    seen: dict[str, TaskContext | None] = {}

    def note(name: str) -> None:
        seen[name] = get_task_context()
        assert not context().cancelled

    @task(timeout=limit, tags=["x"])
    async def on_the_loop(x: int) -> int:
        note("loop")
        await asyncio.to_thread(note, "to_thread")
        await asyncio.create_task(asyncio.to_thread(note, "child task"))
        return x

    @task(timeout=limit)
    def in_a_thread(x: int) -> int:
        note("thread")
        return x

    @task(timeout=limit, run_in="inline")
    def inline(x: int) -> int:
        note("inline")
        return x

    flow = Flow("order", metadata={"team": "shop"}).then(on_the_loop).then(in_a_thread)
    workflow = flow.then(inline).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "o-1", 0)
        await handle.result(timeout=LONG)
    assert get_task_context() is None
    paths = {}
    for name, one in seen.items():
        assert one is not None, name
        assert (one.workflow_id, one.instance_id, one.attempt) == ("order", "o-1", 1)
        assert one.workflow_metadata == {"team": "shop"}
        assert (one.deadline is None) is (limit is None)
        paths[name] = one.path
    assert paths == {
        "loop": "on_the_loop",
        "to_thread": "on_the_loop",
        "child task": "on_the_loop",
        "thread": "in_a_thread",
        "inline": "inline",
    }
    loop = seen["loop"]
    assert loop is not None
    assert loop.metadata.tags == ("x",)
    assert loop.idempotency_key == "o-1:on_the_loop"


async def test_tasks_that_run_at_once_do_not_see_one_another(backend: Backend) -> None:
    together = asyncio.Barrier(3)
    in_threads = threading.Barrier(3, timeout=LONG)

    async def own_path(x: int) -> str:
        await together.wait()
        before = context().path
        await together.wait()
        assert context().path == before
        return before

    def own_path_in_a_thread(_: str) -> str:
        in_threads.wait()
        return context().path

    chain = Flow("chain").then(own_path).then(own_path_in_a_thread).build()
    workflow = Flow("f").map(chain, name="m").build()
    async with Worker(backend, workflow, concurrency=3, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=[1, 2, 3])
        paths = await handle.result(timeout=LONG)
    assert len(set(paths)) == 3


async def test_what_a_task_leaves_running_keeps_its_context(backend: Backend) -> None:
    left: list[asyncio.Task[str]] = []
    go_on = asyncio.Event()

    async def straggler() -> str:
        await go_on.wait()
        return context().path

    async def starts(x: int) -> int:
        left.append(asyncio.create_task(straggler()))
        return x

    async def other(x: int) -> int:
        return x

    workflow = Flow("f").then(starts).then(other).build()
    assert await outcome(backend, workflow, 1) == 1
    go_on.set()
    assert await left[0] == "starts"


def test_a_client_outside_has_no_context() -> None:
    seen: list[Any] = []
    look: Callable[[], None] = lambda: seen.append(get_task_context())  # noqa: E731
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [None]


def test_what_a_task_inline_returns_too_late_is_discarded() -> None:
    @task(run_in="inline", timeout="1ms")
    def late(x: int) -> int:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.01:
            pass
        return x

    status = run_durable_workflow(Flow("f").then(late).build(), "i", 1)
    assert status.is_failed()
    assert status.error_type == "TaskTimeout"
    assert "after its timeout of 0.001 s" in str(status.error)
