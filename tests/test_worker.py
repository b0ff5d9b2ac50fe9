"""The worker: what it runs at once, from where work reaches it, and what it refuses to be made of.

That bodies run at the same time is shown by a meeting: none of them goes on before all have come.
That nothing waits for a poll is shown by a poll that never comes.
"""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benches.python_backend import PythonBackend

from sayiir import (
    Flow,
    InMemoryBackend,
    SqliteBackend,
    SyncWorkflowClient,
    Worker,
    Workflow,
    WorkflowClient,
    task,
)
from sayiir._core import Claim, Claimant
from sayiir.backends import Backend, Listener

from .working import LONG, NEVER, Altered, Gauge, Places, until


def inc(x: int) -> int:
    return x + 1


async def later_inc(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


ADD: Workflow[int, int] = Flow("add").then(inc).build()


def meeting_of_threads(count: int) -> Callable[[int], int]:
    barrier = threading.Barrier(count, timeout=LONG)

    def meet(x: int) -> int:
        barrier.wait()
        return x

    return meet


def meeting_of_coroutines(count: int) -> Callable[[int], Any]:
    barrier = asyncio.Barrier(count)

    async def meet(x: int) -> int:
        async with asyncio.timeout(LONG):
            await barrier.wait()
        return x

    return meet


MEETINGS = {"threads": meeting_of_threads, "coroutines": meeting_of_coroutines}


# At once.


@pytest.mark.parametrize("meeting", MEETINGS)
async def test_instances_run_at_once(backend: Backend, meeting: str) -> None:
    workflow = Flow("meet").then(MEETINGS[meeting](4), name="meet").build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=4, poll_interval=NEVER):
        handles = [await client.submit(workflow, input=n) for n in range(4)]
        assert [await handle.result(timeout=LONG) for handle in handles] == [0, 1, 2, 3]


class Discreet(PythonBackend):
    """Tells nobody of one instance, as if another process had submitted it."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        def hear(kind: str, instance_id: str) -> None:
            if instance_id != "hushed":
                listener(kind, instance_id)

        return super().listen(hear)


async def test_a_hint_counts_though_its_claim_brought_something_else() -> None:
    backend = Discreet()
    workflow = Flow("meet").then(meeting_of_coroutines(2), name="meet").build()
    client = WorkflowClient(backend)
    async with Worker(backend, (workflow, ADD), concurrency=2, poll_interval=NEVER):
        # Both slots have looked, and rest.
        assert await (await client.submit(ADD, input=1)).result(timeout=LONG) == 2
        for _ in range(20):
            await asyncio.sleep(0)
        # Whoever looks for the second one finds the first.
        await client.submit(workflow, "hushed", 1)
        handle = await client.submit(workflow, "told", 2)
        assert await handle.result(timeout=LONG) == 2


async def test_who_has_nothing_to_do_hears_of_a_submit_before_it_is_done(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "soon.db")
    client = WorkflowClient(backend)
    heard: list[tuple[str, str]] = []
    backend.hub.listen(lambda *hint: heard.append(hint))
    submitting = asyncio.ensure_future(client.submit(ADD, input=1))
    # What a storage thread answers is heard in a later turn.
    await asyncio.sleep(0)
    assert ([kind for kind, _ in heard], submitting.done()) == (["work"], False)
    handle = await submitting
    assert heard == [("work", handle.instance_id)] * 2
    await backend.close()


class Detaining(PythonBackend):
    """Keeps claims waiting for their answers, from the third one on, until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.detained: list[asyncio.Event] = []
        self.made = 0

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        self.made += 1
        detained = self.made in (3, 4)
        claims = await super().claim(claimant, limit)
        if detained:
            self.detained.append(asyncio.Event())
            await self.detained[-1].wait()
        return claims

    def listen(self, listener: Listener) -> Callable[[], None]:
        return super().listen(
            lambda kind, about: None if about.startswith("hushed") else listener(kind, about)
        )


async def test_a_slot_that_rests_is_woken_though_a_younger_claim_is_under_way() -> None:
    backend = Detaining()
    go = {name: asyncio.Event() for name in ("first", "hushed")}

    async def wait_for(name: str) -> str:
        if name in go:
            await go[name].wait()
        return name

    workflow = Flow("wait").then(wait_for).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=3, poll_interval=NEVER) as worker:
        engine = worker._engine
        assert engine is not None
        await until(lambda: len(engine._idle) == 3)
        first = await client.submit(workflow, "first", "first")
        await until(lambda: backend.made == 2)
        for name in ("hushed-1", "hushed-2"):
            await client.submit(workflow, name, "hushed")
        told = await client.submit(workflow, "told", "told")
        # The slot that is woken gets one that nobody told of, as does the one that becomes free.
        await until(lambda: len(backend.detained) == 1)
        go["first"].set()
        assert await first.result(timeout=LONG) == "first"
        await until(lambda: len(backend.detained) == 2)
        backend.detained[0].set()
        assert await told.result(timeout=LONG) == "told"
        assert backend.made == 5
        backend.detained[1].set()
        go["hushed"].set()


@pytest.mark.parametrize("meeting", MEETINGS)
async def test_branches_run_at_once(backend: Backend, meeting: str) -> None:
    meet = MEETINGS[meeting](2)
    fork = Flow("meet").fork().branch(meet, name="a").branch(meet, name="b").join(dict)
    async with Worker(backend, fork.build(), concurrency=2, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(fork.build(), input=1)
        assert await handle.result(timeout=LONG) == {"a": 1, "b": 1}


@pytest.mark.parametrize("meeting", MEETINGS)
async def test_map_items_run_at_once(backend: Backend, meeting: str) -> None:
    workflow = Flow("meet").map(MEETINGS[meeting](5), name="meet").build()
    async with Worker(backend, workflow, concurrency=5, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=[1, 2, 3, 4, 5])
        assert await handle.result(timeout=LONG) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("body", [inc, later_inc])
async def test_no_more_instances_run_at_once_than_allowed(
    backend: Backend, body: Callable[[int], Any]
) -> None:
    gauge = Gauge()
    enough = asyncio.Barrier(3)

    async def counted(x: int) -> int:
        with gauge.body():
            await enough.wait()
            return x

    workflow = Flow("counted").then(counted).then(body).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=3, poll_interval=NEVER):
        handles = await client.submit_many(workflow, [(None, n) for n in range(30)])
        assert [await h.result(timeout=LONG) for h in handles] == list(range(1, 31))
    assert (gauge.most, gauge.total) == (3, 30)


async def test_a_worker_with_very_many_slots_fills_them(backend: Backend) -> None:
    workflow = Flow("meet").then(meeting_of_coroutines(200), name="meet").build()
    async with Worker(backend, workflow, concurrency=500, poll_interval=NEVER):
        handles = await WorkflowClient(backend).submit_many(workflow, [(None, 1)] * 200)
        assert sum([await handle.result(timeout=LONG) for handle in handles]) == 200


# From where work comes; the poll never does.


@pytest.mark.parametrize("body", [inc, later_inc])
async def test_steps_in_a_row_wait_for_no_poll(
    backend: Backend, body: Callable[[int], Any]
) -> None:
    workflow = Flow("row").then(body).then(body).then(body).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        # The second one finds the worker idle.
        for _ in range(2):
            handle = await WorkflowClient(backend).submit(workflow, input=0)
            assert await handle.result(timeout=LONG) == 3


async def test_work_may_be_there_before_the_worker(backend: Backend) -> None:
    client = WorkflowClient(backend)
    handles = await client.submit_many(ADD, [(None, n) for n in range(100)])
    async with Worker(backend, ADD, poll_interval=NEVER):
        assert [await h.result(timeout=LONG) for h in handles] == list(range(1, 101))


async def test_work_may_come_from_another_thread(backend: Backend) -> None:
    def elsewhere() -> int:
        with SyncWorkflowClient(backend) as client:
            return int(client.submit(ADD, input=1).result(timeout=LONG))

    async with Worker(backend, ADD, poll_interval=NEVER):
        assert [await asyncio.to_thread(elsewhere) for _ in range(3)] == [2, 2, 2]


async def test_work_may_come_from_another_loop(backend: Backend) -> None:
    async def elsewhere() -> int:
        handle = await WorkflowClient(backend).submit(ADD, input=1)
        return await handle.result(timeout=LONG)

    async with Worker(backend, ADD, poll_interval=NEVER):
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == 2


async def test_a_task_may_submit_and_wait(backend: Backend) -> None:
    async def ask(x: int) -> int:
        handle = await WorkflowClient(backend).submit(ADD, input=x)
        return await handle.result(timeout=LONG)

    def ask_in_a_thread(x: int) -> int:
        with SyncWorkflowClient(backend) as client:
            return int(client.submit(ADD, input=x).result(timeout=LONG))

    asking = Flow("asking").then(ask).then(ask_in_a_thread).build()
    async with Worker(backend, [ADD, asking], concurrency=2, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(asking, input=0)
        assert await handle.result(timeout=LONG) == 2


async def test_a_task_may_send_an_event_to_its_own_instance(backend: Backend) -> None:
    async def tell(x: int) -> int:
        await WorkflowClient(backend).send_event("self", "e", x + 1)
        return x

    workflow = Flow("self").then(tell).wait_for_event("e").build()
    async with Worker(backend, workflow, concurrency=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "self", 1)
        assert await handle.result(timeout=LONG) == 2


async def test_a_timer_is_seen_though_every_slot_was_busy(backend: Backend) -> None:
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def occupy(x: int) -> int:
        busy.set()
        await go_on.wait()
        return x

    resting = Flow("resting").delay("rest", "500ms").then(inc).build()
    occupied = Flow("occupied").then(occupy).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [resting, occupied], concurrency=1, poll_interval=NEVER):
        rest = await client.submit(resting, "rest", 1)
        block = await client.submit(occupied, "block", 1)
        await busy.wait()
        go_on.set()
        assert await block.result(timeout=LONG) == 1
        assert await rest.result(timeout=LONG) == 2


async def test_polls_find_what_no_hint_told_of(places: Places) -> None:
    class Silent(Altered):
        def listen(self, listener: Listener) -> Callable[[], None]:
            return lambda: None

    backend = places(Silent)
    started = asyncio.Event()

    async def begin(x: int) -> int:
        started.set()
        return x

    workflow = Flow("found").then(begin).build()
    async with Worker(backend, workflow, poll_interval="50ms"):
        await WorkflowClient(backend).submit(workflow, "i", 1)
        async with asyncio.timeout(LONG):
            await started.wait()


# What user code may do to the worker.


async def test_a_cancellation_that_user_code_left_behind_costs_no_slot(backend: Backend) -> None:
    async def cancels_itself(x: int) -> int:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)
        return x

    workflow = Flow("careless").then(cancels_itself).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow, ADD], concurrency=1, poll_interval=NEVER):
        await client.submit(workflow, "careless", 1)
        good = await client.submit(ADD, "good", 1)
        assert await good.result(timeout=5) == 2


@pytest.mark.parametrize("places", ["python", "sqlite", "postgres"], indirect=True)
async def test_a_backend_in_trouble_is_tried_again(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    class Troubled(Altered):
        refusals = 3

        async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
            if self.refusals:
                self.refusals -= 1
                raise ConnectionError("the server went away")
            return await super().claim(claimant, limit)

    backend = places(Troubled)
    handle = await WorkflowClient(backend).submit(ADD, input=1)
    with caplog.at_level(logging.ERROR, "sayiir"):
        async with Worker(backend, ADD, concurrency=2, poll_interval="20ms"):
            assert await handle.result(timeout=LONG) == 2
    assert "the server went away" in caplog.text


async def test_what_ended_is_not_kept_alive(backend: Backend) -> None:
    import weakref

    class Load:
        pass

    seen: list[weakref.ref[Load]] = []

    def heavy(x: int) -> int:
        load = Load()
        seen.append(weakref.ref(load))
        return x

    async def later_heavy(x: int) -> int:
        return heavy(x)

    workflow = Flow("heavy").then(heavy).then(later_heavy).build()
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=1)
        await handle.result(timeout=LONG)
        gc.collect()
        assert [ref() for ref in seen] == [None, None]


# What it is made of.


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"backend": "memory://"}, "backend"),
        ({"backend": None}, "backend"),
        ({"workflows": inc}, "workflows"),
        ({"workflows": [inc]}, "workflows"),
        ({"workflows": Flow("unbuilt").then(inc)}, "workflows"),
        ({"workflows": None}, "workflows"),
        ({"workflows": "add"}, "workflows"),
        ({"worker_id": 7}, "worker_id"),
        ({"concurrency": "4"}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"tags": "gpu"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"tags": 5}, "tags"),
        ({"lease_ttl": None}, "lease_ttl"),
        ({"poll_interval": [1]}, "poll_interval"),
        ({"grace": None}, "grace"),
        ({"processes": "2"}, "processes"),
    ],
)
def test_a_wrong_kind_is_refused(wrong: dict[str, Any], name: str) -> None:
    arguments: dict[str, Any] = {"backend": InMemoryBackend(), "workflows": [ADD]} | wrong
    with pytest.raises(TypeError, match=name):
        Worker(**arguments)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"workflows": []}, "workflows"),
        ({"worker_id": ""}, "worker"),
        ({"worker_id": "a\0b"}, "worker"),
        ({"worker_id": "x" * 257}, "worker"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": -1}, "concurrency"),
        ({"concurrency": 10**9}, "concurrency"),
        ({"tags": [""]}, "tag"),
        ({"tags": ["x" * 65]}, "tag"),
        ({"lease_ttl": 0}, "lease_ttl"),
        ({"lease_ttl": -1}, "lease_ttl"),
        ({"lease_ttl": "soon"}, "lease_ttl"),
        ({"lease_ttl": float("nan")}, "lease_ttl"),
        ({"lease_ttl": 1e300}, "lease_ttl"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"poll_interval": -1}, "poll_interval"),
        ({"poll_interval": float("nan")}, "poll_interval"),
        ({"poll_interval": float("inf")}, "poll_interval"),
        ({"grace": -1}, "grace"),
        ({"processes": 0}, "processes"),
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any], name: str) -> None:
    arguments: dict[str, Any] = {"backend": InMemoryBackend(), "workflows": [ADD]} | wrong
    with pytest.raises(ValueError, match=name):
        Worker(**arguments)


def test_two_definitions_of_one_name_may_be_served_together() -> None:
    changed = Flow("add").then(inc).then(inc).build()
    worker = Worker(InMemoryBackend(), [ADD, changed])
    assert repr(worker).startswith("<Worker ")
    assert len(worker.workflows) == 2


def test_it_says_who_it_is() -> None:
    worker = Worker(InMemoryBackend(), ADD, worker_id="w-1", tags=["gpu"])
    assert (worker.worker_id, worker.tags) == ("w-1", ("gpu",))
    assert repr(worker) == "<Worker 'w-1' stopped, for add>"
    assert str(os.getpid()) in Worker(InMemoryBackend(), ADD).worker_id


async def test_history_names_the_worker(backend: Backend) -> None:
    @task
    def named(x: int) -> int:
        return x

    workflow = Flow("named").then(named).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, worker_id="w-1", poll_interval=NEVER):
        await (await client.submit(workflow, "i", 1)).result(timeout=LONG)
    [step] = await client.history("i")
    assert (step.path, step.worker_id, step.outcome) == ("named", "w-1", "completed")
