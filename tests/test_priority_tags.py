"""Who takes what, and in which order: tags, priorities, ages."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from sayiir import Flow, Status, Worker, Workflow, WorkflowClient, task
from sayiir.backends import Backend

from .working import LONG, NEVER


class Record:
    """Which worker ran which step: tasks note the worker that they are given."""

    def __init__(self) -> None:
        self.order: list[Any] = []

    def task(self, name: str, **said: Any) -> Any:
        @task(name, **said)
        async def note(x: Any) -> Any:
            self.order.append((name, x))
            return x

        return note


async def who_ran(client: WorkflowClient, instance_id: str) -> dict[str, str]:
    return {row.path: row.worker_id for row in await client.history(instance_id)}


# Tags.


@pytest.mark.parametrize(
    ("needed", "offered", "taken"),
    [
        ((), (), True),
        ((), ("gpu",), True),
        (("gpu",), (), True),
        (("gpu",), ("gpu",), True),
        (("gpu",), ("gpu", "eu"), True),
        (("gpu", "eu"), ("gpu",), False),
        (("gpu", "eu"), ("eu", "gpu"), True),
        (("gpu",), ("GPU",), False),
        (("gpu",), ("cpu",), False),
    ],
)
async def test_a_worker_takes_what_its_tags_cover(
    backend: Backend, needed: tuple[str, ...], offered: tuple[str, ...], taken: bool
) -> None:
    record = Record()
    tagged = Flow("tagged").then(record.task("tagged", tags=needed)).build()
    plain = Flow("plain").then(record.task("plain")).build()
    client = WorkflowClient(backend)
    handle = await client.submit(tagged, "tagged", 1)
    async with Worker(backend, [tagged, plain], tags=offered, concurrency=1, poll_interval=NEVER):
        # Younger, but not stuck behind what this worker cannot do.
        assert await (await client.submit(plain, "plain", 2)).result(timeout=LONG) == 2
        if taken:
            assert await handle.result(timeout=LONG) == 1
    assert (("tagged", 1) in record.order) is taken
    if not taken:
        assert (await handle.refresh()).status is Status.IN_PROGRESS
        async with Worker(backend, tagged, tags=needed, poll_interval=NEVER):
            assert await handle.result(timeout=LONG) == 1


async def test_an_instance_is_handed_from_worker_to_worker(backend: Backend) -> None:
    record = Record()
    workflow = (
        Flow("handed")
        .then(record.task("first", tags=["cpu"]))
        .then(record.task("second", tags=["gpu"]))
        .then(record.task("third", tags=["cpu"]))
        .then(record.task("fourth"))
        .build()
    )
    client = WorkflowClient(backend)
    async with (
        Worker(backend, workflow, tags=["cpu"], worker_id="cpu", poll_interval=NEVER),
        Worker(backend, workflow, tags=["gpu"], worker_id="gpu", poll_interval=NEVER),
    ):
        handles = await client.submit_many(workflow, [(f"i-{n}", n) for n in range(20)])
        assert [await h.result(timeout=LONG) for h in handles] == list(range(20))
    for number in range(20):
        ran = await who_ran(client, f"i-{number}")
        assert (ran["first"], ran["second"], ran["third"]) == ("cpu", "gpu", "cpu")
    assert len(record.order) == 80


async def test_the_holder_finishes_what_it_can_before_it_hands_over(backend: Backend) -> None:
    record = Record()
    fork = (
        Flow("mixed")
        .fork()
        .branch(record.task("left", tags=["gpu"]))
        .branch(record.task("right", tags=["cpu"]), record.task("right too", tags=["cpu"]))
        .join(lambda both: sorted(both))
        .build()
    )
    client = WorkflowClient(backend)
    handle = await client.submit(fork, "i", 1)
    plain = Flow("plain").then(record.task("plain")).build()
    async with Worker(
        backend, [fork, plain], tags=["cpu"], worker_id="cpu", concurrency=1, poll_interval=NEVER
    ):
        await (await client.submit(plain, "p", 1)).result(timeout=LONG)
        done = [name for name, _ in record.order if name != "plain"]
        assert done == ["right", "right too"]
        [row] = await client.list_instances(id_prefix="i")
        assert (row.worker_id, row.tags) == (None, ("gpu",))
    async with Worker(backend, fork, tags=["gpu"], worker_id="gpu", poll_interval=NEVER):
        assert await handle.result(timeout=LONG) == ["left", "right"]
    assert sorted(name for name, _ in record.order) == ["left", "plain", "right", "right too"]


# Order.


async def in_order(
    backend: Backend, workflows: list[Workflow[Any, Any]], submits: list[tuple[int, Any]]
) -> list[Any]:
    """What one slot does with work that came while it was busy."""
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def occupy(x: Any) -> Any:
        busy.set()
        await go_on.wait()
        return x

    first = Flow("first").then(occupy).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [first, *workflows], concurrency=1, poll_interval=NEVER):
        await client.submit(first)
        await busy.wait()
        handles = [
            await client.submit(workflows[at], f"i-{number}", value)
            for number, (at, value) in enumerate(submits)
        ]
        go_on.set()
        return [await handle.result(timeout=LONG) for handle in handles]


async def test_the_more_urgent_goes_first_and_then_the_older(backend: Backend) -> None:
    record = Record()
    flows = [
        Flow(f"p{priority}").then(record.task(f"p{priority}", priority=priority)).build()
        for priority in range(1, 6)
    ]
    unsaid = Flow("unsaid").then(record.task("unsaid")).build()
    order = [4, 2, 5, 0, 3, 1, 4, 2, 5, 0, 3, 1]
    await in_order(backend, [*flows, unsaid], [(at, n) for n, at in enumerate(order)])
    by_class: dict[str, list[int]] = defaultdict(list)
    for name, number in record.order:
        by_class[name].append(number)
    # Whoever says nothing is in the middle, and queues with those who say so.
    assert [name for name, _ in record.order] == [
        *("p1", "p1", "p2", "p2", "p3", "unsaid", "p3", "unsaid", "p4", "p4", "p5", "p5")
    ]
    assert all(numbers == sorted(numbers) for numbers in by_class.values())


async def test_the_next_step_decides_how_urgent_an_instance_is(backend: Backend) -> None:
    record = Record()
    busy, go_on = asyncio.Event(), asyncio.Event()

    @task(priority=5)
    async def occupy(x: Any) -> Any:
        busy.set()
        await go_on.wait()
        return x

    first = Flow("first").then(occupy).build()
    # What came before the wait says the opposite of what comes after it.
    lazy = Flow("lazy").then(record.task("a", priority=1)).wait_for_event("go")
    urgent = Flow("urgent").then(record.task("b", priority=5)).wait_for_event("go")
    flows = [
        lazy.then(record.task("then", priority=5)).build(),
        urgent.then(record.task("now", priority=1)).build(),
    ]
    client = WorkflowClient(backend)
    async with Worker(backend, [first, *flows], concurrency=1, poll_interval=NEVER):
        handles = [await client.submit(flow, flow.workflow_id) for flow in flows]
        # The least urgent of all: when it runs, the others are parked.
        await client.submit(first, "first")
        await busy.wait()
        for handle in handles:
            await handle.send_event("go")
        go_on.set()
        for handle in handles:
            await handle.result(timeout=LONG)
    assert [name for name, _ in record.order][-2:] == ["now", "then"]


async def test_many_of_one_priority_go_in_the_order_they_came(backend: Backend) -> None:
    record = Record()
    flow = Flow("queue").then(record.task("one")).build()
    await in_order(backend, [flow], [(0, n) for n in range(100)])
    assert [number for _, number in record.order] == list(range(100))
