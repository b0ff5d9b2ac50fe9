"""What a running task learns about itself, in every way of running and wherever it asks from."""

import asyncio
import threading
from typing import Any

import pytest

from sayiir import (
    Backend,
    Flow,
    RetryPolicy,
    SyncWorkflowClient,
    TaskContext,
    Worker,
    WorkflowClient,
    get_task_context,
    run_durable_workflow,
    run_durable_workflow_async,
    run_workflow,
    run_workflow_async,
    task,
)


def ask() -> TaskContext:
    context = TaskContext.current()
    assert context == get_task_context()
    return context


def spoken() -> tuple[str, str, str, int]:
    """What a context says, as a value that can be stored."""
    context = ask()
    return context.instance_id, context.task_id, context.path, context.attempt


@task("sync")
def in_a_thread(value: Any) -> Any:
    return spoken()


@task("async")
async def on_the_loop(value: Any) -> Any:
    before = spoken()
    await asyncio.sleep(0)
    assert spoken() == before
    return before


@task("inline", run_in="inline")
def inline(value: Any) -> Any:
    return spoken()


@task("deeper")
async def deeper(value: Any) -> Any:
    mine = spoken()
    first, second = await asyncio.gather(
        asyncio.to_thread(spoken), asyncio.create_task(asyncio.to_thread(spoken))
    )
    assert first == second == mine
    return mine


WAYS = {"sync": in_a_thread, "async": on_the_loop, "inline": inline, "deeper": deeper}


@pytest.mark.parametrize("way", WAYS)
def test_a_task_knows_itself(way: str) -> None:
    flow = Flow("know").then(WAYS[way]).build()
    status = run_durable_workflow(flow, "k-1", None)
    assert status.output == ("k-1", way, way, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_task_on_a_worker_knows_itself(backend: Backend, way: str) -> None:
    flow = Flow("know").then(WAYS[way]).build()
    async with Worker(backend, flow), asyncio.timeout(30):
        handle = await WorkflowClient(backend).submit(flow, "k-1")
        assert await handle.result() == ("k-1", way, way, 1)


def test_outside_there_is_none() -> None:
    assert get_task_context() is None
    with pytest.raises(RuntimeError, match="for a running task, and none runs here"):
        TaskContext.current()
    run_workflow(Flow("know").then(in_a_thread).build(), None)
    assert get_task_context() is None


async def test_a_run_leaves_no_context_on_the_callers_loop() -> None:
    await run_workflow_async(Flow("know").then(on_the_loop).then(inline).build(), None)
    assert get_task_context() is None


async def test_a_run_inside_a_task_leaves_that_tasks_context() -> None:
    inner = Flow("inner").then(on_the_loop).build()

    @task("outer")
    async def outer(value: Any) -> Any:
        mine = spoken()
        theirs = await run_workflow_async(inner, None, instance_id="inner-1")
        assert theirs == ("inner-1", "async", "async", 1)
        return spoken() == mine

    status = await run_durable_workflow_async(Flow("outer").then(outer).build(), "o-1", None)
    assert status.output is True


def test_each_place_in_a_flow_has_a_path_and_a_key_of_its_own() -> None:
    keys: list[tuple[str, str]] = []
    lock = threading.Lock()

    @task("same")
    def same(value: Any) -> Any:
        with lock:
            keys.append((ask().path, ask().idempotency_key))
        return value

    inner = Flow("inner").then(same).build()
    flow = (
        Flow("paths")
        .then(same)
        .then(same)
        .fork()
        .branch(same, name="left")
        .branch(same, same, name="right")
        .join(lambda both: [1, 2], name="merge")
        .map(same)
        .then_flow(inner)
        .build()
    )
    run_durable_workflow(flow, "p-1", 0)
    paths = [path for path, _ in keys]
    assert len(paths) == len(set(paths)) == 8
    assert len({key for _, key in keys}) == 8
    assert all(key.startswith("p-1") and path in key for path, key in keys)


def test_the_key_is_the_same_for_every_attempt_and_the_attempt_counts() -> None:
    seen: list[tuple[int, str]] = []

    @task(retries=RetryPolicy(2, initial_delay_secs=0.001))
    def flaky(value: Any) -> Any:
        seen.append((ask().attempt, ask().idempotency_key))
        if len(seen) < 3:
            raise ConnectionError("again")
        return value

    run_workflow(Flow("again").then(flaky).build(), 0)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({key for _, key in seen}) == 1


def test_what_was_said_of_the_task_and_of_the_flow() -> None:
    seen: list[TaskContext] = []

    @task(timeout="1h", retries=4, tags=["gpu"], priority=2, description="d", version="7")
    def told(value: Any) -> Any:
        assert not ask().cancelled
        seen.append(ask())
        return value

    flow = Flow("told", metadata={"team": "core"}).then(told).build()
    run_workflow(flow, 0)
    [context] = seen
    metadata = context.metadata
    assert metadata.timeout_secs == 3600.0
    assert list(metadata.tags) == ["gpu"]
    assert (metadata.priority, metadata.description, metadata.version) == (2, "d", "7")
    assert context.workflow_metadata == {"team": "core"}
    assert context.deadline is not None
    copy = context.workflow_metadata
    copy["team"] = "mine"
    run_workflow(flow, 0)
    assert seen[1].workflow_metadata == {"team": "core"}


def test_without_a_timeout_there_is_no_deadline() -> None:
    seen: list[TaskContext] = []

    def plain(value: Any) -> Any:
        seen.append(ask())
        return value

    run_workflow(Flow("plain").then(plain).build(), 0)
    assert (seen[0].deadline, seen[0].workflow_metadata) == (None, None)


def test_a_thread_that_timed_out_sees_that_nobody_waits() -> None:
    over = threading.Event()
    seen: list[bool] = []

    @task(timeout="20ms")
    def slow(value: Any) -> Any:
        context = ask()
        while not context.cancelled:
            over.wait(0.001)
        seen.append(True)
        over.set()
        return value

    status = run_durable_workflow(Flow("slow").then(slow).build(), "s-1", 0)
    assert status.error_type == "TaskTimeout"
    assert over.wait(20)
    assert seen == [True]


async def test_two_instances_at_once_do_not_see_each_other(backend: Backend) -> None:
    @task("turns")
    async def turns(value: int) -> Any:
        seen = []
        for _ in range(5):
            seen.append(ask().instance_id)
            await asyncio.sleep(0)
        return seen

    flow = Flow("turns").then(turns).build()
    statuses = await asyncio.gather(
        *(run_durable_workflow_async(flow, f"t-{n}", n, backend) for n in range(20))
    )
    assert [status.output for status in statuses] == [[f"t-{n}"] * 5 for n in range(20)]


async def test_a_client_works_inside_a_task(backend: Backend) -> None:
    child = Flow("child").then(lambda x: x * 2, name="twice").build()

    @task("parent")
    async def parent(value: int) -> Any:
        client = WorkflowClient(backend)
        handle = await client.submit(child, f"{ask().instance_id}/child", value)
        return await handle.result(timeout="20s")

    flow = Flow("parent").then(parent).build()
    async with Worker(backend, [flow, child]), asyncio.timeout(30):
        handle = await WorkflowClient(backend).submit(flow, "p-1", 21)
        assert await handle.result() == 42


async def test_a_sync_client_works_inside_a_sync_task(backend: Backend) -> None:

    @task("parent")
    def parent(value: int) -> Any:
        with SyncWorkflowClient(backend) as client:
            client.send_event(ask().instance_id, "done", value)
            return str(client.status(ask().instance_id).status)

    flow = Flow("parent").then(parent).wait_for_event("done").build()
    async with Worker(backend, flow), asyncio.timeout(30):
        handle = await WorkflowClient(backend).submit(flow, "p-1", 21)
        assert await handle.result() == 21
        assert await WorkflowClient(backend).get_task_result("p-1", "parent") == "in_progress"
