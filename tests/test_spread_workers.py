"""Spread maps, as those see them who run workers: who does the items, and what befalls a parent.

Polls are so far apart that a hint that is not given is a test that does not end.
"""

import asyncio
import contextlib
from collections import Counter

import pytest

from sayiir import (
    Flow,
    InstanceNotFoundError,
    Status,
    Worker,
    WorkflowCancelled,
    WorkflowClient,
    task,
)
from sayiir.backends import Backend
from sayiir.testing import HandWorker, VirtualClock, new_instance

from .spreading import (
    MAPS,
    Any2Any,
    double,
    each,
    items_of,
)
from .working import LONG, NEVER, Gauge, Places

# Who does them.


async def test_items_go_to_those_that_have_the_tags(backend: Backend) -> None:
    special = task("special", tags=["gpu"])(double)
    workflow: Any2Any = Flow("f").then(list).map(special, spread=True).then(sum).build()
    client = WorkflowClient(backend)
    async with (
        Worker(backend, workflow, worker_id="cpu", tags=["cpu"], poll_interval=NEVER),
        Worker(backend, workflow, worker_id="gpu", tags=["gpu"], poll_interval=NEVER),
    ):
        handle = await client.submit(workflow, "i", [1, 2, 3])
        assert await handle.result(timeout=LONG) == 12
    for name in await items_of(client, "i"):
        assert {row.worker_id for row in await client.history(name)} == {"gpu"}


async def test_two_workers_share_the_items_of_one_parent(backend: Backend) -> None:
    both = asyncio.Barrier(2)

    async def meet(x: int) -> int:
        # Done one at a time by each worker, so nobody gets through without the other.
        async with asyncio.timeout(LONG):
            await both.wait()
        return x

    workflow = each(meet)
    client = WorkflowClient(backend)
    async with (
        Worker(backend, workflow, worker_id="a", concurrency=1, poll_interval=NEVER),
        Worker(backend, workflow, worker_id="b", concurrency=1, poll_interval=NEVER),
    ):
        handle = await client.submit(workflow, "i", list(range(6)))
        assert await handle.result(timeout=LONG) == list(range(6))
    names = await items_of(client, "i")
    by = Counter([row.worker_id for name in names for row in await client.history(name)])
    assert by == {"a": 3, "b": 3}


@pytest.mark.parametrize("places", ["sqlite", "postgres"], indirect=True)
async def test_items_are_shared_by_all_who_have_the_storage_open(places: Places) -> None:
    gate, gauge = asyncio.Event(), Gauge()

    async def wait(x: int) -> int:
        with gauge.body():
            await gate.wait()
        return x

    workflow = each(wait)
    first = places()
    second = places.again(first)
    client = WorkflowClient(first)
    async with (
        Worker(first, workflow, worker_id="a", concurrency=1, poll_interval="20ms"),
        Worker(second, workflow, worker_id="b", concurrency=1, poll_interval="20ms"),
    ):
        handle = await client.submit(workflow, "i", [1, 2, 3])
        async with asyncio.timeout(LONG):
            while gauge.most < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        gate.set()
        assert await handle.result(timeout=LONG) == [1, 2, 3]
    assert gauge.total == 3


# What befalls the parent.


async def test_a_cancel_of_the_parent_stops_running_items(backend: Backend) -> None:
    running, stopped = asyncio.Barrier(3), []

    async def hang(x: int) -> None:
        await running.wait()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(x)

    workflow = each(hang)
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", [0, 1, 2])
        await running.wait()
        await handle.cancel("enough", "ops")
        with pytest.raises(WorkflowCancelled, match="enough"):
            await handle.result(timeout=LONG)
        for name in await items_of(client, "i"):
            with pytest.raises(WorkflowCancelled, match="an item of 'i'"):
                await client.result(name, timeout=LONG)
    assert sorted(stopped) == [0, 1]


async def test_items_of_a_deleted_parent_stop(backend: Backend) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def hang(x: int) -> int:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return x

    workflow = each(hang)
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, poll_interval=NEVER):
        await client.submit(workflow, "i", [0])
        await running.wait()
        await client.delete("i", force=True)
        async with asyncio.timeout(LONG):
            await stopped.wait()
    assert await items_of(client, "i") == []


async def test_late_items_of_a_former_parent_are_nobodys(backend: Backend) -> None:
    running, gate, late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(x: int) -> int:
        if x == 0:
            running.set()
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
            late.set()
        return x

    workflow = each(wait)
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
        await client.submit(workflow, "i", [0, 1])
        await running.wait()
        again = await client.submit(workflow, "i", [5, 6], conflict_policy="terminate_existing")
        assert await again.result(timeout=LONG) == [5, 6]
        gate.set()
        async with asyncio.timeout(LONG):
            await late.wait()
    assert await client.result("i") == [5, 6]
    assert [await client.result(name) for name in await items_of(client, "i")] == [5, 6]


async def test_a_paused_parent_waits_while_its_items_go_on(backend: Backend) -> None:
    gate, gauge = asyncio.Event(), Gauge()

    async def wait(x: int) -> int:
        with gauge.body():
            await gate.wait()
        return x

    workflow: Any2Any = Flow("f").map(wait, spread=True).then(sum).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=1, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", [1, 2, 3])
        async with asyncio.timeout(LONG):
            while gauge.total < 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await client.pause("i", "lunch", "ops")
        gate.set()
        names = await items_of(client, "i")
        assert [await client.result(name, timeout=LONG) for name in names] == [1, 2, 3]
        assert (await client.status("i")).status is Status.PAUSED
        await client.unpause("i")
        assert await handle.result(timeout=LONG) == 6


async def test_a_worker_stops_and_another_goes_on(backend: Backend) -> None:
    starts: Counter[int] = Counter()
    half = asyncio.Event()

    async def count(x: int) -> int:
        starts[x] += 1
        if len(starts) == 20:
            half.set()
        return x

    workflow = each(count)
    client = WorkflowClient(backend)
    handle = await client.submit(workflow, "i", list(range(40)))
    async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
        await half.wait()
    assert len(starts) >= 20
    async with Worker(backend, workflow, concurrency=8, poll_interval=NEVER):
        assert await handle.result(timeout=LONG) == list(range(40))
    assert starts == dict.fromkeys(range(40), 1)


# A server sweeps by its own clock: see tests/postgres/test_retention.py.
@pytest.mark.parametrize("places", ["memory", "python", "sqlite"], indirect=True)
async def test_items_stay_as_long_as_their_parent(places: Places) -> None:
    clock = VirtualClock()
    backend = places(keep_completed=60, clock=clock)
    client = WorkflowClient(backend)
    workflow: Any2Any = Flow("f").map(double, spread=True).wait_for_event("go").build()
    worker = HandWorker(backend, [workflow])
    await backend.submit([new_instance(workflow, "i", [1, 2])], "fail")
    for _ in range(2):
        for held in await worker.claim(9):
            while held.steps:
                await held.complete(held.steps[0].fn(held.steps[0].input))
    [held] = await worker.claim(9)
    assert held.state == "parked"
    clock.advance(3600)
    await backend.submit([new_instance(MAPS, "other", [])], "fail")
    names = await items_of(client, "i")
    assert [await client.result(name) for name in names] == [2, 4]
    await client.send_event("i", "go", 1)
    [held] = await worker.claim(9)
    assert held.state == "completed"
    clock.advance(61)
    await backend.submit([new_instance(MAPS, "third", [])], "fail")
    for name in ["i", *names]:
        with pytest.raises(InstanceNotFoundError):
            await client.status(name)
