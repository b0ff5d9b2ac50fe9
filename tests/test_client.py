"""The client: handles, results and how they are waited for, what it lists, tells and forgets.

What the states allow is in `test_lifecycle.py`, what taken ids lead to in `test_conflict.py`, and
what is refused in `test_bad_input.py`.
"""

import asyncio
import gc
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest

from sayiir import (
    DecodeError,
    Flow,
    InMemoryBackend,
    InstanceNotFoundError,
    InvalidStateError,
    LoopResult,
    Status,
    SyncWorkflowClient,
    SyncWorkflowHandle,
    TaskError,
    Worker,
    Workflow,
    WorkflowCancelled,
    WorkflowClient,
    WorkflowFailed,
    WorkflowHandle,
    _ending,
    task,
)
from sayiir._loop_thread import LoopThread
from sayiir.backends import Backend, InstanceRow, Listener

from .stepping import HOUR, START, TOUR, Stage, Stages, first, last


@task("add-one")
def add_one(x: int) -> int:
    return x + 1


@task
async def triple(x: int) -> int:
    return 3 * x


@task
def nothing(x: int) -> None:
    return None


def three_turns(x: int) -> LoopResult[int]:
    return LoopResult.again(x + 1) if x < 3 else LoopResult.done(x)


SUM: Workflow[int, int] = Flow("sum").then(add_one).then(triple).build()


class Watched(InMemoryBackend):
    """A backend that counts what it is asked and can be made to answer otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.gets = 0
        self.answer: Callable[[InstanceRow], InstanceRow] = lambda row: row
        self.looked: Callable[[], None] = lambda: None

    async def get(self, instance_id: str) -> InstanceRow:
        self.gets += 1
        row = await super().get(instance_id)
        self.looked()
        return self.answer(row)


def stage_of(backend: InMemoryBackend, *workflows: Workflow[Any, Any]) -> Stage:
    """A stage on this backend, with a clock that stands still."""

    def adopt(clock: Callable[[], float]) -> Backend:
        backend.clock = clock
        return backend

    return Stage(adopt, *workflows)


def waiting(client: WorkflowClient) -> int:
    """How many instances someone waits for."""
    return client._endings.waiting


def pulse_of(client: WorkflowClient) -> Any:
    """The safety net of the only loop the client has waited on."""
    [pulse] = client._endings._pulses.values()
    return pulse


@pytest.fixture(autouse=True)
def no_safety_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is woken is woken by a hint, unless a test brings the pulse back."""
    monkeypatch.setattr(_ending, "BEAT_S", 3600.0)


# Handles.


async def test_a_fresh_handle_asks_the_backend_nothing() -> None:
    backend = Watched()
    handle = await WorkflowClient(backend).submit(SUM, "s", 1)
    assert_type(handle, WorkflowHandle[int])
    assert handle.instance_id == "s"
    assert handle.status is Status.IN_PROGRESS
    assert handle.details.workflow_id == "sum"
    assert handle.output is None
    assert repr(handle) == "<WorkflowHandle 's' of 'sum': in_progress>"
    assert backend.gets == 0


async def test_an_id_is_generated() -> None:
    client = WorkflowClient(InMemoryBackend())
    ids = {(await client.submit(SUM, input=1)).instance_id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in ids)
    assert len(await client.list_instances()) == 50


async def test_start_at_delays_the_start(stages: Stages) -> None:
    stage = stages()
    later = datetime.fromtimestamp(START, UTC) + timedelta(hours=1)
    handle = await stage.client.submit(TOUR, "i", 1, start_at=later)
    assert (handle.status, handle.details.wake_at) == ("waiting", later)
    fresh = await handle.refresh()
    assert (fresh.status, fresh.wake_at) == ("waiting", later)
    assert await stage.backend.claim(stage.claimant, 1) == []
    stage.now += HOUR
    assert await stage.run("i") == "parked"


async def test_a_start_in_the_past_is_no_delay(stages: Stages) -> None:
    stage = stages()
    past = datetime(1960, 1, 1, tzinfo=UTC)
    handle = await stage.client.submit(TOUR, "i", 1, start_at=past)
    assert (handle.status, handle.details.wake_at) == ("in_progress", None)
    assert (await handle.refresh()).status == "in_progress"


async def test_a_handle_keeps_its_status_until_it_is_refreshed(stages: Stages) -> None:
    stage = stages(SUM)
    handle = await stage.client.submit(SUM, "s", 1)
    await stage.run("s")
    assert handle.details.is_in_progress()
    assert (await handle.refresh()).is_completed()
    assert (handle.status, handle.output) == ("completed", 6)


async def test_a_handle_does_what_its_client_does(stages: Stages) -> None:
    stage = stages()
    handle = await stage.client.submit(TOUR, "i", 1)
    await handle.pause("a break", "ann")
    assert (await handle.refresh()).paused_by == "ann"
    await handle.unpause()
    assert await stage.run("i") == "parked"
    await handle.send_event("go", 1, idempotency_key="k")
    await handle.send_event("go", 2, idempotency_key="k")
    stage.now += HOUR
    await stage.run("i")
    assert_type(await handle.result(), dict[str, Any])
    assert await handle.result("1s") == {"event": 1}
    other = await stage.client.submit(TOUR, "j", 1)
    await other.cancel("why not", "bob")
    assert (await other.refresh()).reason == "why not"


# Results.


async def test_the_result_of_an_ended_instance_takes_one_look() -> None:
    backend = Watched()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    await stage.run("s")
    assert await stage.client.result("s") == 6
    assert backend.gets == 1
    assert waiting(stage.client) == 0


async def test_an_output_of_none_is_a_result(stages: Stages) -> None:
    workflow = Flow("n").then(nothing).build()
    stage = stages(workflow)
    handle = await stage.client.submit(workflow, "n", 1)
    assert_type(handle, WorkflowHandle[None])
    await stage.run("n")
    # The type says that there is no value; that it is the stored one and not a lack is the point.
    assert (await stage.client.result("n")) is None


async def test_waiting_takes_one_look_before_and_one_after() -> None:
    backend = Watched()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    looked = asyncio.Event()
    backend.looked = looked.set
    wait = asyncio.create_task(stage.client.result("s"))
    await looked.wait()
    assert waiting(stage.client) == 1
    await stage.run("s")
    assert await wait == 6
    assert backend.gets == 2
    assert waiting(stage.client) == 0


async def test_many_wait_for_one_and_one_for_many(stages: Stages) -> None:
    stage = stages(SUM)
    names = [f"s{n}" for n in range(20)]
    await stage.client.submit_many(SUM, [(name, n) for n, name in enumerate(names)])
    waits = [asyncio.create_task(stage.client.result(name)) for name in names * 3]
    await asyncio.sleep(0)
    for name in reversed(names):
        await stage.run(name)
    assert await asyncio.gather(*waits) == [3 * (n + 1) for n in range(20)] * 3
    assert waiting(stage.client) == 0
    assert not any(pulse_of(stage.client)._due.values())


def test_the_end_comes_from_another_thread_and_another_loop() -> None:
    backend = Watched()
    stage = stage_of(backend, SUM)
    asyncio.run(stage.client.submit(SUM, "s", 1))
    looked = threading.Semaphore(0)
    backend.looked = lambda: looked.release()
    results: list[int] = []

    def wait() -> None:
        results.append(asyncio.run(stage.client.result("s")))

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        looked.acquire()
    asyncio.run(stage.run("s"))
    for thread in threads:
        thread.join()
    assert results == [6] * 4
    assert waiting(stage.client) == 0


async def test_an_end_between_the_look_and_the_wait_is_noticed() -> None:
    """The hint comes after the row was read and before the waiter sleeps."""

    class Late(Watched):
        async def get(self, instance_id: str) -> InstanceRow:
            row = await super().get(instance_id)
            if self.gets == 1:
                await stage.run("s")
            return row

    backend = Late()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    assert await stage.client.result("s") == 6


class Deaf(Watched):
    """A backend all of whose hints are lost."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        return lambda: None


async def test_a_lost_hint_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ending, "BEAT_S", 0.001)
    backend = Deaf()
    stage = stage_of(backend, SUM)
    names = [f"s{n}" for n in range(10)]
    await stage.client.submit_many(SUM, [(name, 1) for name in names])
    looks = asyncio.Semaphore(0)
    backend.looked = looks.release
    waits = [asyncio.create_task(stage.client.result(name)) for name in names]
    for _ in range(50):
        await looks.acquire()
    for name in names:
        await stage.run(name)
    assert await asyncio.gather(*waits) == [6] * 10
    assert waiting(stage.client) == 0
    # And again, after the pulse had nobody left to wake.
    await stage.client.submit(SUM, "t", 2)
    late = asyncio.create_task(stage.client.result("t"))
    await asyncio.sleep(0)
    await stage.run("t")
    assert await late == 9


async def test_the_looks_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ending, "BEAT_S", 0.001)
    backend = Deaf()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    looks = asyncio.Semaphore(0)
    beats: list[int] = []

    def look() -> None:
        beats.append(pulse_of(stage.client)._beat)
        looks.release()

    backend.looked = look
    wait = asyncio.create_task(stage.client.result("s"))
    for _ in range(6):
        await looks.acquire()
    assert beats == [0, 2, 5, 10, 19, 30]
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait


class Timers(asyncio.SelectorEventLoop):
    """A loop whose timers a test goes off by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[Callable[[], Any]] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self.timers.append(lambda: callback(*args))


def test_one_timer_serves_all_who_wait_and_rests_without_them() -> None:
    loop = Timers()
    pulse = _ending._Pulse()
    one, two, three = [loop.create_future() for _ in range(3)]
    for waiter, beats in ((one, 1), (two, 2), (three, 2)):
        bucket = pulse.join(loop, waiter, beats)
    bucket.discard(three)
    assert len(loop.timers) == 1
    loop.timers.pop()()
    # The beat that they came into does not count.
    assert not one.done()
    loop.timers.pop()()
    assert (one.done(), two.done()) == (True, False)
    loop.timers.pop()()
    assert (two.result(), three.done()) == (False, False)
    assert loop.timers == []
    pulse.join(loop, three, 1)
    for done in (False, True):
        [timer] = loop.timers
        loop.timers.clear()
        timer()
        assert three.done() is done
    loop.close()


async def test_a_hint_that_was_not_true_is_survived() -> None:
    backend = Watched()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    looks = asyncio.Semaphore(0)
    backend.looked = looks.release
    wait = asyncio.create_task(stage.client.result("s"))
    await looks.acquire()
    for _ in range(3):
        backend.hub.tell("ended", "s")
        backend.hub.tell("ended", "s")
        # One look because of the hint, and one after registering again.
        await looks.acquire()
        await looks.acquire()
    assert backend.gets == 7
    await stage.run("s")
    assert await wait == 6


async def test_other_hints_make_nobody_look() -> None:
    backend = Watched()
    stage = stage_of(backend, SUM)
    await stage.client.submit_many(SUM, [("s", 1), ("t", 2)])
    wait = asyncio.create_task(stage.client.result("s"))
    await asyncio.sleep(0)
    for kind, name in (("news", "s"), ("work", "s"), ("ended", "t"), ("ended", "")):
        backend.hub.tell(kind, name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert backend.gets == 1
    await stage.run("s")
    assert await wait == 6


async def test_a_failed_instance_raises_with_its_cause(stages: Stages) -> None:
    stage = stages()
    await stage.reach("failed")
    with pytest.raises(WorkflowFailed, match="told to fail") as raised:
        await stage.client.result("i")
    status = raised.value.status
    assert (status.status, status.error_type, status.error) == (
        "failed",
        "ValueError",
        "told to fail",
    )
    assert status.traceback is not None
    assert "in first" in status.traceback
    cause = raised.value.__cause__
    assert isinstance(cause, TaskError)
    assert (cause.task, cause.path, cause.instance_id) == ("first", "first", "i")


async def test_a_failure_with_a_damaged_record_still_raises() -> None:
    backend = Watched()
    stage = stage_of(backend)
    await stage.reach("failed")
    backend.answer = lambda row: replace(row, error=b"junk")
    with pytest.raises(WorkflowFailed, match="damaged") as raised:
        await stage.client.result("i")
    assert raised.value.__cause__ is None


async def test_a_cancelled_instance_raises(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    wait = asyncio.create_task(stage.client.result("i"))
    await asyncio.sleep(0)
    await stage.client.cancel("i", "no need", "ann")
    with pytest.raises(WorkflowCancelled, match="by ann: no need") as raised:
        await wait
    assert raised.value.status.reason == "no need"


async def test_a_result_that_takes_too_long(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    with pytest.raises(TimeoutError, match=r"'i' .*awaiting_signal") as raised:
        await stage.client.result("i", timeout=0.001)
    assert type(raised.value) is TimeoutError
    assert waiting(stage.client) == 0
    await stage.client.send_event("i", "go", 1)
    await stage.run("i")
    assert await stage.client.result("i", timedelta(seconds=1)) == {"event": 1}


async def test_the_result_of_an_unknown_instance(stages: Stages) -> None:
    stage = stages()
    with pytest.raises(InstanceNotFoundError, match="'ghost'"):
        await stage.client.result("ghost")
    assert waiting(stage.client) == 0


async def test_an_instance_that_is_deleted_under_a_waiter(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    wait = asyncio.create_task(stage.client.result("i"))
    await asyncio.sleep(0)
    await stage.client.delete("i", force=True)
    with pytest.raises(InstanceNotFoundError):
        await wait


@pytest.mark.parametrize("damaged", [b"junk", b"", None])
async def test_a_damaged_output(damaged: bytes | None) -> None:
    backend = Watched()
    stage = stage_of(backend)
    await stage.reach("completed")
    backend.answer = lambda row: replace(row, output=damaged)
    with pytest.raises(DecodeError, match="the output of instance 'i'"):
        await stage.client.result("i")
    assert (await stage.client.status("i")).status == "completed"


async def test_a_cancelled_wait_leaves_nothing_behind(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    waits = [asyncio.create_task(stage.client.result("i")) for _ in range(3)]
    await asyncio.sleep(0)
    assert waiting(stage.client) == 1
    waits[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits[0]
    assert waiting(stage.client) == 1
    for wait in waits[1:]:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert waiting(stage.client) == 0


# Results of single steps.


async def test_a_task_result_by_name_path_and_function(stages: Stages) -> None:
    stage = stages(SUM)
    await stage.client.submit(SUM, "s", 1)
    missing = object()
    assert await stage.client.get_task_result("s", "add-one") is None
    assert await stage.client.get_task_result("s", add_one, missing) is missing
    held = await stage.take("s")
    await held.do(held.steps[0])
    assert await stage.client.get_task_result("s", "add-one") == 2
    assert await stage.client.get_task_result("s", triple, missing) is missing
    await held.finish()
    assert_type(await stage.client.get_task_result("s", add_one), int | None)
    assert_type(await stage.client.get_task_result("s", triple, ""), int | str)
    assert await stage.client.get_task_result("s", add_one) == 2
    assert await stage.client.get_task_result("s", triple) == 6


async def test_a_task_that_returned_none_did_run(stages: Stages) -> None:
    workflow = Flow("n").then(nothing).build()
    stage = stages(workflow)
    await stage.client.submit(workflow, "n", 1)
    assert await stage.client.get_task_result("n", nothing, "never") == "never"
    await stage.run("n")
    assert await stage.client.get_task_result("n", nothing, "never") is None


@pytest.mark.parametrize("state", ["waiting", "paused", "completed", "cancelled"])
async def test_a_task_result_in_any_state(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach("waiting")
    if state == "paused":
        await stage.client.pause("i")
    if state == "cancelled":
        await stage.client.cancel("i")
    if state == "completed":
        await stage.client.send_event("i", "go", "out")
        stage.now += HOUR
        await stage.run("i")
    assert await stage.client.get_task_result("i", first) == ["in"]
    expected = {"event": "out"} if state == "completed" else None
    assert await stage.client.get_task_result("i", last) == expected
    assert (await stage.client.status("i")).status == state


async def test_a_path_tells_equal_names_apart(stages: Stages) -> None:
    workflow = Flow("twice").then(add_one).then(add_one).build()
    stage = stages(workflow)
    await stage.client.submit(workflow, "t", 1)
    await stage.run("t")
    one, two = [node.id for node in workflow.iter_nodes()]
    assert await stage.client.get_task_result("t", one) == 2
    assert await stage.client.get_task_result("t", two) == 3


async def test_the_result_of_a_loop_body_is_a_loop_result(stages: Stages) -> None:
    workflow: Workflow[Any, Any] = Flow("l").loop(three_turns).build()
    stage = stages(workflow)
    await stage.client.submit(workflow, "l", 1)
    await stage.run("l")
    assert await stage.client.get_task_result("l", three_turns) == LoopResult.done(3)
    assert await stage.client.result("l") == 3


async def test_the_task_of_an_unknown_instance(stages: Stages) -> None:
    with pytest.raises(InstanceNotFoundError):
        await stages().client.get_task_result("ghost", "first")


# Lists, histories, deletion.


async def test_instances_are_listed_newest_first_in_pages(stages: Stages) -> None:
    stage = stages()
    names = [f"i{n:02}" for n in range(7)]
    await stage.client.submit_many(TOUR, [(name, 1) for name in names])
    page = await stage.client.list_instances(limit=3)
    listed = [info.instance_id for info in page]
    assert (len(page), page[0].instance_id) == (3, "i06")
    while page.next_cursor is not None:
        page = await stage.client.list_instances(limit=3, cursor=page.next_cursor)
        listed += [info.instance_id for info in page.items]
    assert listed == names[::-1]


async def test_each_filter_filters(stages: Stages) -> None:
    stage = stages(SUM)
    await stage.reach("completed", "old-1")
    middle = datetime.fromtimestamp(stage.now, UTC) + timedelta(seconds=1)
    stage.now += 2
    await stage.client.submit(SUM, "new-1", 1)
    await stage.client.submit(TOUR, "new-2", 1)

    async def ids(**filters: Any) -> list[str]:
        return [info.instance_id for info in await stage.client.list_instances(**filters)]

    assert await ids() == ["new-2", "new-1", "old-1"]
    assert await ids(status="completed") == ["old-1"]
    assert await ids(status=Status.IN_PROGRESS) == ["new-2", "new-1"]
    assert await ids(workflow="sum") == ["new-1"]
    assert await ids(workflow=TOUR) == ["new-2", "old-1"]
    assert await ids(id_prefix="new-") == ["new-2", "new-1"]
    assert await ids(id_prefix="%") == []
    assert await ids(id_prefix="") == ["new-2", "new-1", "old-1"]
    assert await ids(created_after=middle) == ["new-2", "new-1"]
    assert await ids(created_before=middle) == ["old-1"]
    assert await ids(workflow=TOUR, status="in_progress", id_prefix="new") == ["new-2"]


async def test_what_a_row_of_the_list_says(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    [info] = await stage.client.list_instances()
    start = datetime.fromtimestamp(START, UTC)
    assert (info.workflow_id, info.status, info.steps) == ("tour", Status.WAITING, 1)
    assert info.definition_hash == TOUR.definition_hash
    assert (info.created_at, info.updated_at, info.ended_at) == (start, start, None)
    assert info.wake_at == start + timedelta(hours=1)
    assert (info.priority, info.tags, info.worker_id) == (3, (), None)
    stage.now += HOUR
    await stage.client.send_event("i", "go", 1)
    held = await stage.take("i")
    [info] = await stage.client.list_instances()
    assert (info.status, info.worker_id) == (Status.IN_PROGRESS, "stage")
    await held.finish()
    [info] = await stage.client.list_instances()
    assert info.ended_at == start + timedelta(hours=1)


async def test_history_tells_every_step(stages: Stages) -> None:
    stage = stages()
    await stage.reach("completed")
    steps = await stage.client.history("i")
    start = datetime.fromtimestamp(START, UTC)
    assert [(step.path, step.task, step.outcome) for step in steps] == [
        ("first", "first", "completed"),
        ("rest", "rest", "elapsed"),
        ("go", "go", "completed"),
        ("last", "last", "completed"),
    ]
    assert {step.attempt for step in steps} == {1}
    assert {step.worker_id for step in steps} == {"stage"}
    assert (steps[0].started_at, steps[0].ended_at) == (start, start)
    assert (steps[0].error, steps[0].error_type) == (None, None)


async def test_history_tells_what_failed(stages: Stages) -> None:
    stage = stages()
    await stage.reach("failed")
    [step] = await stage.client.history("i")
    assert (step.outcome, step.error_type, step.error) == ("failed", "ValueError", "told to fail")


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
async def test_an_ended_instance_is_deleted(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    await stage.client.delete("i")
    for ask in (stage.client.status, stage.client.history, stage.client.delete):
        with pytest.raises(InstanceNotFoundError):
            await ask("i")
    assert (await stage.client.submit(TOUR, "i", 1)).status == "in_progress"


@pytest.mark.parametrize("state", ["in_progress", "waiting", "awaiting_signal", "paused"])
async def test_a_live_instance_is_deleted_by_force_only(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    with pytest.raises(InvalidStateError, match="force=True"):
        await stage.client.delete("i")
    assert (await stage.client.status("i")).status == state
    await stage.client.delete("i", force=True)
    with pytest.raises(InstanceNotFoundError):
        await stage.client.status("i")


async def test_the_holder_of_a_deleted_instance_cannot_write(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.delete("i", force=True)
    assert await held.finish() == "lost"


async def test_the_history_and_status_of_an_unknown_instance(stages: Stages) -> None:
    stage = stages()
    for ask in (stage.client.history, stage.client.status, stage.client.delete):
        with pytest.raises(InstanceNotFoundError, match="'ghost'"):
            await ask("ghost")


# The client's own life.


class Closable(InMemoryBackend):
    """A backend that knows whether it was closed and who listens."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.listeners = 0

    async def close(self) -> None:
        self.closed += 1

    def listen(self, listener: Listener) -> Callable[[], None]:
        stop = super().listen(listener)
        self.listeners += 1

        def stop_counted() -> None:
            self.listeners -= 1
            stop()

        return stop_counted


async def test_a_client_listens_once_and_only_when_it_waits() -> None:
    backend = Closable()
    stage = stage_of(backend, SUM)
    async with stage.client as client:
        await client.submit_many(SUM, [("a", 1), ("b", 2)])
        assert backend.listeners == 0
        waits = [asyncio.create_task(client.result(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        await stage.run("a")
        await stage.run("b")
        assert await asyncio.gather(*waits) == [6, 9]
        assert backend.listeners == 1
    assert (backend.listeners, backend.closed) == (0, 0)


async def test_a_forgotten_client_stops_listening() -> None:
    backend = Closable()
    stage = stage_of(backend, SUM)
    await stage.client.submit(SUM, "s", 1)
    await stage.run("s")
    client = WorkflowClient(backend)
    assert await client.result("s") == 6
    assert backend.listeners == 1
    del client
    gc.collect()
    assert backend.listeners == 0


async def test_a_closed_client_refuses_every_call() -> None:
    client = WorkflowClient(InMemoryBackend())
    handle = await client.submit(SUM, "s", 1)
    await client.close()
    await client.close()
    for call in (
        client.submit(SUM, "t", 1),
        client.submit_many(SUM, [("t", 1)]),
        client.status("s"),
        client.result("s"),
        client.cancel("s"),
        client.pause("s"),
        client.unpause("s"),
        client.send_event("s", "go"),
        client.get_task_result("s", "add-one"),
        client.list_instances(),
        client.history("s"),
        client.delete("s"),
        handle.refresh(),
        client.__aenter__(),
    ):
        with pytest.raises(RuntimeError, match="this client is closed"):
            await call
    assert handle.details.is_in_progress()


async def test_closing_sends_waiters_away(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    wait = asyncio.create_task(stage.client.result("i"))
    await asyncio.sleep(0)
    await stage.client.close()
    with pytest.raises(RuntimeError, match=r"closed while it waited for instance 'i'"):
        await wait


async def test_clients_that_share_a_backend_close_apart() -> None:
    backend = Closable()
    stage = stage_of(backend, SUM)
    other = stage.client.with_conflict_policy("use_existing")
    await other.close()
    await stage.client.submit(SUM, "s", 1)
    await stage.run("s")
    assert await stage.client.result("s") == 6
    assert backend.closed == 0


async def test_a_client_from_a_url_owns_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Closable()
    monkeypatch.setattr("sayiir._client.connect", lambda url, *, codec: backend)
    async with WorkflowClient.from_url("memory://", "use_existing") as client:
        assert client.backend is backend
        await client.with_conflict_policy("fail").close()
        assert backend.closed == 0
    await client.close()
    assert backend.closed == 1


async def test_each_memory_url_is_a_place_of_its_own() -> None:
    one, two = WorkflowClient.from_url("memory://"), WorkflowClient.from_url("MEMORY://")
    await one.submit(SUM, "s", 1)
    with pytest.raises(InstanceNotFoundError):
        await two.status("s")
    assert isinstance(one.backend, Backend)


# The client for code without a loop.


def test_the_sync_client_does_the_same(stages: Stages) -> None:
    stage = stages(SUM)
    with SyncWorkflowClient(stage.backend) as client:
        handle = client.submit(SUM, "s", 1)
        assert_type(handle, SyncWorkflowHandle[int])
        assert (handle.instance_id, handle.status) == ("s", "in_progress")
        handle.pause("a break", "ann")
        assert handle.refresh().paused_by == "ann"
        handle.unpause()
        asyncio.run(stage.run("s"))
        assert_type(handle.result(), int)
        assert (handle.result("1s"), client.result("s")) == (6, 6)
        assert (handle.refresh().output, handle.output) == (6, 6)
        assert client.get_task_result("s", add_one) == 2
        assert client.get_task_result("s", "no-such-task", "default") == "default"
        assert [step.task for step in client.history("s")] == ["add-one", "triple"]
        assert [info.instance_id for info in client.list_instances(status="completed")] == ["s"]
        assert client.with_conflict_policy("use_existing").submit(SUM, "s", 9).output == 6
        client.delete("s")
        with pytest.raises(InstanceNotFoundError):
            client.status("s")
        assert repr(handle) == "<SyncWorkflowHandle 's' of 'sum': completed>"


def test_the_sync_client_steers(stages: Stages) -> None:
    stage = stages()
    with SyncWorkflowClient(stage.backend) as client:
        one, two, three = client.submit_many(TOUR, [("a", 1), ("b", 2), ("c", 3)])
        one.cancel("no need", "ann")
        client.cancel("b", cancelled_by="bob")
        client.pause("c")
        client.unpause("c")
        three.send_event("go", "x", idempotency_key="k")
        client.send_signal("c", "go", "y", idempotency_key="k")
        with pytest.raises(WorkflowCancelled, match="by ann: no need"):
            one.result()
        with pytest.raises(WorkflowCancelled, match="by bob"):
            two.result()
        with pytest.raises(TimeoutError, match="'c'"):
            three.result(0.001)


async def test_the_sync_client_refuses_to_block_a_loop() -> None:
    client = SyncWorkflowClient(InMemoryBackend())
    with client, pytest.raises(RuntimeError, match="use WorkflowClient"):
        client.submit(SUM, "s", 1)
    with pytest.raises(RuntimeError, match="closed"):
        _ = client.backend


def test_one_sync_client_serves_many_threads(stages: Stages) -> None:
    stage = stages(SUM)
    results: list[int] = []
    with SyncWorkflowClient(stage.backend) as client:
        submitted = threading.Barrier(9)

        def work(n: int) -> None:
            handle = client.submit(SUM, f"s{n}", n)
            submitted.wait()
            results.append(handle.result())

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        submitted.wait()
        for n in range(8):
            asyncio.run(stage.run(f"s{n}"))
        for thread in threads:
            thread.join()
    assert sorted(results) == [3 * (n + 1) for n in range(8)]


def test_an_interrupted_wait_is_taken_back() -> None:
    backend = Watched()
    with SyncWorkflowClient(backend) as client:
        client.submit(SUM, "s", 1)
        backend.looked = lambda: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            client.result("s")
        backend.looked = lambda: None
        # The cancelled wait ends on the client's thread; each call there lets it get on.
        while waiting(client._client):
            client.status("s")
        assert client.status("s").is_in_progress()


def test_a_wait_that_is_interrupted_while_it_is_handed_over_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand_over = asyncio.run_coroutine_threadsafe

    def interrupted(*given: Any) -> Any:
        hand_over(*given)
        raise KeyboardInterrupt

    with SyncWorkflowClient(InMemoryBackend()) as client:
        client.submit(SUM, "s", 1)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.result("s")
        for _ in range(2):
            # By the time these are answered the wait would have begun.
            assert client.status("s").is_in_progress()
        assert waiting(client._client) == 0


def test_a_closed_sync_client() -> None:
    client = SyncWorkflowClient.from_url("memory://")
    shared = client.with_conflict_policy("use_existing")
    shared.close()
    client.submit(SUM, "s", 1)
    client.close()
    client.close()
    for one in (client, shared):
        with pytest.raises(RuntimeError, match="closed"):
            one.status("s")
        with pytest.raises(RuntimeError, match="closed"):
            one.__enter__()


def test_closing_sends_the_waiters_of_other_threads_away() -> None:
    backend = Watched()
    client = SyncWorkflowClient(backend)
    client.submit(SUM, "s", 1)
    looked = threading.Event()
    backend.looked = looked.set
    refusals: list[RuntimeError] = []

    def wait() -> None:
        with pytest.raises(RuntimeError, match="closed") as raised:
            client.result("s")
        refusals.append(raised.value)

    thread = threading.Thread(target=wait)
    thread.start()
    looked.wait()
    client.close()
    thread.join()
    assert len(refusals) == 1


def test_closing_a_loop_thread_ends_the_calls_on_it() -> None:
    thread = LoopThread("test")
    begun = threading.Event()
    ended = threading.Event()
    refusals: list[RuntimeError] = []

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    def call() -> None:
        with pytest.raises(RuntimeError, match="closed while the call was under way") as raised:
            thread.run(endless)
        refusals.append(raised.value)

    caller = threading.Thread(target=call)
    caller.start()
    begun.wait()
    thread.close()
    caller.join()
    assert ended.is_set()
    assert len(refusals) == 1
    assert thread.closed


def test_the_thread_of_a_forgotten_sync_client_ends() -> None:
    before = set(threading.enumerate())
    client = SyncWorkflowClient(InMemoryBackend())
    client.submit(SUM, "s", 1)
    [thread] = set(threading.enumerate()) - before
    assert thread.daemon
    del client
    gc.collect()
    thread.join()
    assert not thread.is_alive()


# With a real worker.


async def test_submit_and_result_with_a_worker(backend: Backend) -> None:
    async with Worker(backend, [SUM]), WorkflowClient(backend) as client:
        handles = await client.submit_many(SUM, [(None, n) for n in range(100)])
        results = await asyncio.gather(*(handle.result("60s") for handle in handles))
    assert results == [3 * (n + 1) for n in range(100)]


def test_the_sync_client_with_a_worker_of_its_own_thread(backend: Backend) -> None:
    worker = Worker(backend, [SUM])
    worker.start()
    try:
        with SyncWorkflowClient(backend) as client:
            assert client.submit(SUM, "s", 1).result("60s") == 6
    finally:
        worker.stop()
