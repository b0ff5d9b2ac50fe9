"""Following instances: steps as they end, and waits for a state.

What hints alone must do is tried with looks that come by themselves once an hour; what must work
without any hint, on a backend whose hints are lost.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from sayiir import (
    BackendUnavailableError,
    Flow,
    InMemoryBackend,
    InstanceNotFoundError,
    InvalidStateError,
    NonRetryable,
    RetryPolicy,
    Status,
    StepInfo,
    SyncWorkflowClient,
    Worker,
    Workflow,
    WorkflowClient,
    _watching,
    connect,
    task,
)
from sayiir.backends import Backend, HistoryRow, InstanceRow, Listener

from .sqlite.orders import Program
from .sqlite.served import ASK, NAP
from .stepping import TOUR, Stages
from .working import LONG, NEVER, Altered, Places

THREE: Workflow[int, int] = (
    Flow("three")
    .then(lambda x: x + 1, name="a")
    .then(lambda x: x + 1, name="b")
    .then(lambda x: x + 1, name="c")
    .build()
)
ASKING: Workflow[None, str] = Flow("asking").wait_for_event("go").build()
NAPPING: Workflow[None, None] = Flow("napping").delay("nap", "1h").build()


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself while the test lasts."""
    monkeypatch.setattr(_watching, "SOONEST_S", 3600.0)
    monkeypatch.setattr(_watching, "LATEST_S", 3600.0)
    monkeypatch.setattr(_watching, "PARKED_S", 3600.0)


@pytest.fixture
def only_plain_hints(only_hints: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor when a hint names nobody."""
    monkeypatch.setattr(_watching, "VAGUE_S", 3600.0)


class Deaf(Altered):
    """A backend whose hints are lost."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        return lambda: None


class Faltering(Altered):
    """A backend whose history cannot be read now and then."""

    trouble: Callable[[], Awaitable[None]] | None = None

    async def history(self, instance_id: str) -> Sequence[HistoryRow]:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            await trouble()
        return await super().history(instance_id)


class Asked(Altered):
    """A backend that counts looks."""

    gets = 0

    async def get(self, instance_id: str) -> InstanceRow:
        self.gets += 1
        return await super().get(instance_id)


async def paths(steps: AsyncIterator[StepInfo]) -> list[str]:
    """The paths of all that is to come."""
    async with asyncio.timeout(LONG):
        return [step.path async for step in steps]


async def following(client: WorkflowClient, count: int) -> None:
    """Wait until so many look or wait."""
    async with asyncio.timeout(LONG):
        while client._sights.following != count:  # noqa: ASYNC110
            await asyncio.sleep(0)  # Nothing else tells.


async def waiting(client: WorkflowClient) -> None:
    """Wait until somebody has looked and waits for what comes next."""
    async with asyncio.timeout(LONG):
        while not any(bell.waiter for bell in client._sights._bells.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)  # As above.


# Steps.


async def test_steps_come_while_the_instance_runs(backend: Backend) -> None:
    let_go = [asyncio.Event() for _ in range(3)]

    async def body(number: int) -> int:
        await let_go[number].wait()
        return number + 1

    flow = Flow("gated").then(body, name="a").then(body, name="b").then(body, name="c").build()
    async with WorkflowClient(backend) as client, Worker(backend, flow, poll_interval=NEVER):
        handle = await client.submit(flow, "i", 0)
        steps = client.watch("i")
        for number, path in enumerate("abc"):
            let_go[number].set()
            step = await asyncio.wait_for(anext(steps), LONG)
            assert (step.path, step.outcome, step.attempt) == (path, "completed", 1)
        assert await paths(steps) == []
        assert await paths(handle.watch()) == ["a", "b", "c"]
        assert [step.path for step in await handle.history()] == ["a", "b", "c"]


async def test_those_that_were_seen_are_left_out(backend: Backend) -> None:
    async with WorkflowClient(backend) as client, Worker(backend, THREE, poll_interval=NEVER):
        await (await client.submit(THREE, "i", 1)).result(LONG)
        assert await paths(client.watch("i", after=1)) == ["b", "c"]
        assert await paths(client.watch("i", 3)) == []
        assert await paths(client.watch("i", after=99)) == []


async def test_every_attempt_is_told_of(backend: Backend) -> None:
    tries = iter([ValueError("no"), NonRetryable("never")])

    @task(retries=RetryPolicy(max_retries=5, initial_delay_secs=0.001))
    def stumble(_: int) -> None:
        raise next(tries)

    flow = Flow("stumbling").then(stumble).build()
    async with WorkflowClient(backend) as client, Worker(backend, flow, poll_interval="50ms"):
        await client.submit(flow, "i", 0)
        async with asyncio.timeout(LONG):
            told = [step async for step in client.watch("i")]
    assert [(step.attempt, step.outcome) for step in told] == [(1, "retried"), (2, "failed")]
    assert told[0].error == "no"


async def test_all_items_of_a_map_come_once(backend: Backend) -> None:
    flow = (
        Flow("items").then(lambda n: list(range(n)), name="list").map(lambda x: x, name="m").build()
    )
    async with WorkflowClient(backend) as client, Worker(backend, flow, poll_interval=NEVER):
        await client.submit(flow, "i", 200)
        told = await paths(client.watch("i"))
    assert told[0] == "list"
    assert sorted(told[1:]) == sorted(f"m[{n}]" for n in range(200))


@pytest.mark.usefixtures("only_plain_hints")
async def test_the_end_is_hinted_at(backend: Backend) -> None:
    async with WorkflowClient(backend) as client:
        await client.submit(THREE, "i", 1)
        steps = asyncio.create_task(paths(client.watch("i")))
        await waiting(client)
        await client.cancel("i")
        assert await steps == []


async def test_lost_hints_are_made_up_for(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watching, "SOONEST_S", 0.001)
    backend = places(Deaf)
    async with WorkflowClient(backend) as client:
        await client.submit(THREE, "i", 1)
        steps = asyncio.create_task(paths(client.watch("i")))
        await waiting(client)
        async with Worker(backend, THREE, poll_interval="50ms"):
            assert await steps == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["unavailable", "interrupted"])
async def test_nothing_is_lost_to_what_comes_between(places: Places, kind: str) -> None:
    backend = cast(Faltering, places(Faltering))
    stuck = asyncio.Event()

    async def fail() -> None:
        raise BackendUnavailableError("the cable was pulled")

    async def hang() -> None:
        stuck.set()
        await asyncio.Event().wait()

    async with WorkflowClient(backend) as client, Worker(backend, THREE, poll_interval=NEVER):
        await (await client.submit(THREE, "i", 1)).result(LONG)
        steps = client.watch("i")
        backend.trouble = fail if kind == "unavailable" else hang
        asked = asyncio.ensure_future(anext(steps))
        if kind == "unavailable":
            with pytest.raises(BackendUnavailableError, match="cable"):
                await asked
        else:
            await stuck.wait()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert await paths(steps) == ["a", "b", "c"]


async def test_who_is_gone_is_not_told(backend: Backend) -> None:
    async with WorkflowClient(backend) as client:
        with pytest.raises(InstanceNotFoundError, match="'none'"):
            await anext(client.watch("none"))
        await client.submit(THREE, "i", 1)
        steps = asyncio.create_task(paths(client.watch("i")))
        await waiting(client)
        await client.delete("i", force=True)
        with pytest.raises(InstanceNotFoundError):
            await steps


async def test_another_of_the_same_id_is_not_mistaken_for_it(stages: Stages) -> None:
    stage = stages()
    client = stage.client
    await client.submit(TOUR, "i", "in")
    steps = client.watch("i")
    asked = asyncio.ensure_future(anext(steps))
    await waiting(client)
    stage.now += 1
    await client.submit(TOUR, "i", "in", conflict_policy="terminate_existing")
    with pytest.raises(InstanceNotFoundError, match="was replaced"):
        await asyncio.wait_for(asked, LONG)
    assert await paths(steps) == []


@pytest.mark.parametrize(
    ("instance_id", "after", "kind", "says"),
    [
        (1, 0, TypeError, "instance_id must be"),
        ("", 0, ValueError, "instance_id"),
        ("i", -1, ValueError, "after must be 0 or more"),
        ("i", True, TypeError, "after must be an int, got bool"),
        ("i", "1", TypeError, "after must be an int, got str"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    instance_id: Any, after: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        WorkflowClient(InMemoryBackend()).watch(instance_id, after)
    with (
        SyncWorkflowClient(InMemoryBackend()) as client,
        pytest.raises(kind, match=says),
    ):
        client.watch(instance_id, after)


@pytest.mark.usefixtures("only_hints")
async def test_a_closed_client_sends_them_away(backend: Backend) -> None:
    client = WorkflowClient(backend)
    await client.submit(THREE, "i", 1)
    steps = asyncio.create_task(paths(client.watch("i")))
    state = asyncio.create_task(client.wait_until("i", "paused"))
    await following(client, 2)
    await waiting(client)
    await client.close()
    for one in (steps, state):
        with pytest.raises(RuntimeError, match=r"client was closed.*'i'"):
            await asyncio.wait_for(one, LONG)
    with pytest.raises(RuntimeError, match="closed"):
        client.watch("i")


async def test_who_is_dropped_leaves_nothing_behind() -> None:
    backend = InMemoryBackend()
    async with WorkflowClient(backend) as client, Worker(backend, THREE):
        await (await client.submit(THREE, "i", 1)).result(LONG)
        before = len(backend.hub._listeners)
        steps = client.watch("i")
        assert (await anext(steps)).path == "a"
        assert client._sights.following == 1
        assert len(backend.hub._listeners) == before + 1
        del steps
        gc.collect()
        assert client._sights.following == 0
        assert len(backend.hub._listeners) == before


@pytest.mark.usefixtures("only_plain_hints")
async def test_hints_about_others_cost_nothing(places: Places) -> None:
    backend = cast(Asked, places(Asked))
    async with WorkflowClient(backend) as client:
        await client.submit(ASKING, "i")
        state = asyncio.create_task(client.wait_until("i", "cancelled"))
        await waiting(client)
        looked = backend.gets
        for number in range(50):
            await client.submit(ASKING, f"other-{number}")
        assert backend.gets == looked
        await client.cancel("i")
        assert (await asyncio.wait_for(state, LONG)).is_cancelled()


# States.


@pytest.mark.usefixtures("only_plain_hints")
async def test_a_state_is_waited_for(backend: Backend) -> None:
    async with WorkflowClient(backend) as client:
        handle = await client.submit(ASKING, "i")
        assert (await client.wait_until("i", Status.IN_PROGRESS)).is_in_progress()
        state = asyncio.create_task(client.wait_until("i", "awaiting_signal", "waiting"))
        await waiting(client)
        async with Worker(backend, ASKING, poll_interval=NEVER):
            reached = await asyncio.wait_for(state, LONG)
            assert (reached.status, reached.signal_name) == ("awaiting_signal", "go")
            completed = asyncio.create_task(handle.wait_until("completed", timeout=LONG))
            await waiting(client)
            await handle.send_event("go", "now")
            assert (await completed).output == "now"
            assert handle.status is Status.COMPLETED


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
async def test_who_ends_otherwise_is_not_waited_for(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    with pytest.raises(
        InvalidStateError, match=f"'i'.*is {state}.*never be awaiting_signal or paused"
    ) as refused:
        await stage.client.wait_until("i", "paused", "awaiting_signal")
    assert (refused.value.state, refused.value.instance_id) == (state, "i")
    assert (await stage.client.wait_until("i", "paused", state)).status == state


async def test_a_wait_may_have_a_limit(backend: Backend) -> None:
    async with WorkflowClient(backend) as client:
        await client.submit(NAPPING, "i")
        for limit in (0, "20ms"):
            with pytest.raises(TimeoutError, match="'i' of workflow 'napping' is in_progress"):
                await client.wait_until("i", "waiting", timeout=limit)
        assert (await client.wait_until("i", "in_progress", timeout=0)).is_in_progress()
        with pytest.raises(InstanceNotFoundError):
            await client.wait_until("none", "waiting", timeout=0)


@pytest.mark.parametrize(
    ("statuses", "kind", "says"),
    [
        ((), ValueError, "at least one status"),
        (("done",), ValueError, "status must be one of .*'completed'.*got 'done'"),
        ((None,), TypeError, "status must be a Status or its text, got NoneType"),
        ((("waiting", "paused"),), TypeError, "got tuple"),
    ],
)
async def test_bad_states_are_refused(
    statuses: tuple[Any, ...], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await WorkflowClient(InMemoryBackend()).wait_until("i", *statuses)


# Without a loop.


def test_without_a_loop() -> None:
    backend = InMemoryBackend()
    begun, let_go = threading.Event(), threading.Event()

    def slow(x: int) -> int:
        begun.set()
        assert let_go.wait(LONG)
        return x

    flow = Flow("slow").then(lambda x: x, name="quick").then(slow, name="slow").build()
    worker = Worker(backend, flow).start()
    with SyncWorkflowClient(backend) as client:
        handle = client.submit(flow, "i", 1)
        steps = handle.watch()
        assert next(steps).path == "quick"
        assert begun.wait(LONG)
        let_go.set()
        assert [step.path for step in steps] == ["slow"]
        assert [step.path for step in client.watch("i", after=1)] == ["slow"]
        assert [step.path for step in handle.history()] == ["quick", "slow"]
        assert handle.wait_until("completed").output == 1
        assert client.wait_until("i", "completed", timeout=LONG).is_completed()
        left = client.watch("i")
        assert next(left).path == "quick"
    with pytest.raises(RuntimeError, match="closed"):
        next(left)
    worker.stop()


# Another process.


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def server(url: str) -> Iterator[Program]:
    with Program("serve", url, "1h") as program:
        assert program.hear() == "ready"
        yield program
        assert program.ended() == 0


@pytest.mark.usefixtures("server", "only_hints")
async def test_another_process_is_followed(url: str) -> None:
    backend = connect(url)
    async with WorkflowClient(backend) as client:
        handle = await client.submit(ASK)
        reached = await handle.wait_until("awaiting_signal", timeout=LONG)
        assert reached.signal_name == "go"
        steps = asyncio.create_task(paths(handle.watch()))
        await waiting(client)
        await handle.send_event("go", "now")
        assert await steps == [step.path for step in await handle.history()] != []
        napping = await client.submit(NAP)
        await napping.wait_until("waiting", "completed", timeout=LONG)
    await backend.close()
