"""`TestEnvironment`: everything runs when it is told to, and time passes when it is told to."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from sayiir import (
    EventTimeout,
    Flow,
    InMemoryBackend,
    InstanceNotFoundError,
    InvalidStateError,
    RetryAfter,
    RetryPolicy,
    Workflow,
    WorkflowCancelled,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    task,
)
from sayiir.testing import SyncTestEnvironment, TestEnvironment

START = datetime(2031, 5, 6, 7, tzinfo=UTC)


@pytest_asyncio.fixture
async def env() -> AsyncIterator[TestEnvironment]:
    async with TestEnvironment(start=START, patience="20s") as environment:
        yield environment


def shout(text: str) -> str:
    return text.upper()


SHOUT = Flow("shout").then(shout).build()
NAP = Flow("nap").delay("night", "30d").then(shout).build()
ASK = Flow("ask").wait_for_event("answer", timeout="2d", on_timeout="continue").build()


async def test_a_workflow_runs_to_its_end(env: TestEnvironment) -> None:
    status = await env.run(SHOUT, "hey", instance_id="s-1")
    assert (status.instance_id, status.output) == ("s-1", "HEY")
    assert await env.result("s-1") == "HEY"
    assert (await env.history(status)).paths == ["shout"]


async def test_a_month_passes(env: TestEnvironment) -> None:
    parked = await env.run(NAP, "hey")
    assert (parked.delay_id, parked.wake_at) == ("night", START + timedelta(days=30))
    await env.advance("29d23h")
    assert (await env.status(parked)).is_waiting()
    await env.advance("1h")
    assert (await env.status(parked)).output == "HEY"
    assert env.now == START + timedelta(days=30)


async def test_time_passes_to_a_moment_and_never_back(env: TestEnvironment) -> None:
    until = START + timedelta(days=400)
    await env.run(Flow("until").delay_until("then", until).build(), instance_id="u")
    await env.advance_to(until)
    assert (await env.status("u")).is_completed()
    with pytest.raises(ValueError, match="does not go back"):
        await env.advance_to(START)
    for wrong in (datetime(2050, 1, 1), None, "2050"):
        with pytest.raises((ValueError, TypeError), match="moment"):
            await env.advance_to(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="duration"):
        await env.advance("-1s")


async def test_each_thing_happens_at_its_moment(env: TestEnvironment) -> None:
    seen: list[tuple[str, timedelta]] = []

    def note(name: str) -> str:
        seen.append((name, env.now - START))
        return name

    for days in (3, 1, 2):
        flow = Flow(f"after-{days}").delay("wait", f"{days}d").then(note).delay("more", "1d")
        await env.submit(flow.then(note, name="again").build(), f"{days}")
    await env.advance("30d")
    assert [days for _, days in seen] == sorted(days for _, days in seen)
    assert sorted((name, at.days) for name, at in seen) == [
        *(("1", 1), ("1", 2), ("2", 2), ("2", 3), ("3", 3), ("3", 4))
    ]


async def test_retries_wait_in_the_clock_of_the_test(env: TestEnvironment) -> None:
    at: list[timedelta] = []

    @task(retries=RetryPolicy(max_retries=3, initial_delay_secs=60, backoff_multiplier=10))
    async def flaky(_: object) -> str:
        at.append(env.now - START)
        if len(at) == 2:
            raise RetryAfter(5)
        if len(at) < 4:
            raise ConnectionError("down")
        return "up"

    status = await env.run(Flow("flaky").then(flaky).build())
    assert len(at) == 1
    assert await env.result(status) == "up"
    assert [moment.total_seconds() for moment in at] == [0, 60, 65, 6065]
    history = await env.history(status)
    assert history.attempts("flaky") == 4
    assert history.paths == ["flaky"]


async def test_events_and_their_timeouts(env: TestEnvironment) -> None:
    asked = await env.run(ASK)
    assert asked.signal_name == "answer"
    assert (await env.send_event(asked, "answer", 42)).output == 42
    with pytest.raises(InvalidStateError):
        await env.send_event(asked, "answer", 42)
    late = await env.run(ASK)
    await env.advance("2d")
    assert (await env.status(late)).output == EventTimeout("answer")


async def test_what_will_not_end_is_said(env: TestEnvironment) -> None:
    stuck = await env.run(Flow("stuck").wait_for_event("go").build(), instance_id="x")
    with pytest.raises(RuntimeError, match=r"awaits event 'go'.*send_event\('x', 'go'"):
        await env.result(stuck)
    paused = await env.run(NAP, instance_id="p")
    await env.client.pause("p")
    with pytest.raises(RuntimeError, match=r"paused.*unpause\('p'\)"):
        await env.result(paused)
    with pytest.raises(InstanceNotFoundError):
        await env.result("nobody")


async def test_a_paused_instance_is_in_nobodys_way(env: TestEnvironment) -> None:
    await env.run(NAP, "a", instance_id="a")
    await env.run(Flow("long").delay("year", "365d").then(shout).build(), "b", instance_id="b")
    await env.client.pause("a")
    assert await env.result("b") == "B"
    assert (await env.status("a")).is_paused()
    await env.client.unpause("a")
    assert await env.result("a") == "A"


async def test_failures_are_in_the_status_and_raised_by_the_result(env: TestEnvironment) -> None:
    def broken(_: object) -> None:
        raise KeyError("gone")

    status = await env.run(Flow("broken").then(broken).build())
    assert (status.status, status.error_type) == ("failed", "KeyError")
    with pytest.raises(WorkflowFailed, match="gone"):
        await env.result(status)
    parked = await env.run(NAP)
    assert (await env.cancel(parked, "enough")).reason == "enough"
    with pytest.raises(WorkflowCancelled):
        await env.result(parked)


@dataclass
class Order:
    cents: int


async def test_types_are_those_of_the_annotations(env: TestEnvironment) -> None:
    def double(order: Order) -> Order:
        return Order(order.cents * 2)

    status = await env.run(Flow("double").then(double).build(), Order(21))
    assert status.output == Order(42)
    assert await env.result(status.instance_id) == Order(42)
    nothing = await env.run(Flow("nothing").then(lambda _: None).build())
    assert await env.result(nothing) is None


async def test_items_and_children_run_too(env: TestEnvironment) -> None:
    child = Flow("child").delay("rest", "1h").then(shout).build()
    flow = Flow("many").map(child, spread=True).then("-".join, name="join").build()
    status = await env.run(flow, ["a", "b"])
    assert status.is_waiting()
    assert await env.result(status) == "A-B"


async def test_a_step_may_use_the_client(env: TestEnvironment) -> None:
    async def outer(text: str) -> Any:
        handle = await env.client.submit(SHOUT, "inner", text)
        return await handle.result()

    assert (await env.run(Flow("outer").then(outer).build(), "hey")).output == "HEY"


async def test_what_others_submit_runs_without_being_added(env: TestEnvironment) -> None:
    handle = await WorkflowClient(env.backend).submit(SHOUT, input="hey")
    await env.run_until_idle()
    assert (await env.status(handle)).output == "HEY"


async def test_of_two_with_one_hash_the_newer_runs(env: TestEnvironment) -> None:
    def flow(answer: str) -> Workflow[Any, str]:
        return Flow("same").then(lambda _: answer, name="answer").build()

    assert flow("a").definition_hash == flow("b").definition_hash
    for answer in ("a", "b"):
        assert (await env.run(flow(answer))).output == answer
    async with TestEnvironment() as other:
        for answer in ("a", "b"):
            handle = await other.client.submit(flow(answer))
            await other.run_until_idle()
            assert (await other.status(handle)).output == answer


async def test_code_that_waits_by_itself_is_served(env: TestEnvironment) -> None:
    submitted = asyncio.Barrier(3)

    async def endpoint(text: str) -> Any:
        handle = await env.client.submit(NAP, input=text)
        await submitted.wait()
        return await handle.result()

    async with env.working():
        first = asyncio.create_task(endpoint("a"))
        second = asyncio.create_task(endpoint("b"))
        await submitted.wait()
        await env.advance("30d")
        assert (await first, await second) == ("A", "B")


async def test_an_error_of_the_work_beside_comes_out_of_the_block(env: TestEnvironment) -> None:
    with pytest.raises(LookupError, match="shuot"):
        async with env.working():
            env.add(SHOUT)
            env.mock("shuot")
            await (await env.client.submit(SHOUT, input="hey")).result()


async def test_a_step_that_does_not_end_is_given_up() -> None:
    began = []

    async def hang(_: object) -> None:
        began.append(get_task_context())
        if len(began) == 1:
            await asyncio.Event().wait()

    async with TestEnvironment(patience="50ms") as env:
        with pytest.raises(TimeoutError, match="'h' still runs a step"):
            await env.run(Flow("hang").then(hang).build(), instance_id="h")
        # It was given back, and runs again when the test goes on.
        await env.run_until_idle()
        assert (await env.status("h")).is_completed()
        assert len(began) == 2


async def test_time_may_jump_while_a_step_runs(env: TestEnvironment) -> None:
    at: list[datetime] = []

    async def slow(_: object) -> str:
        at.append(env.now)
        if len(at) == 1:
            env._move_to(env._clock.time + 5 * 365 * 86_400)
        return "done"

    assert (await env.run(Flow("slow").then(slow).build())).output == "done"
    assert at == [START]


def test_one_environment_serves_one_loop_after_the_other() -> None:
    env = TestEnvironment()
    for _ in range(2):
        assert asyncio.run(env.run(SHOUT, "hey")).output == "HEY"
    assert env.sync.run(SHOUT, "hey").output == "HEY"
    env.close()
    env.close()


def test_what_a_closed_loop_left_behind_goes_on() -> None:
    async def hang(_: object) -> str:
        began.append(1)
        if len(began) == 1:
            entered.set()
            await asyncio.Event().wait()
        return "done"

    async def leave() -> None:
        running = asyncio.create_task(env.run(Flow("hang").then(hang).build(), instance_id="h"))
        await entered.wait()
        left.append(running)

    began: list[int] = []
    left: list[object] = []
    entered = asyncio.Event()
    env = TestEnvironment()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    pending = asyncio.all_tasks(loop)
    assert env.sync.result("h") == "done"
    for one in pending:
        one.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.close()
    assert env.sync.status("h").is_completed()
    env.close()


async def test_an_interrupted_call_leaves_the_others_their_work(env: TestEnvironment) -> None:
    gate = asyncio.Event()
    began: list[str] = []

    async def wait(name: str) -> str:
        began.append(name)
        await entered.wait()
        await gate.wait()
        return name

    flow = Flow("wait").then(wait).build()
    entered = asyncio.Barrier(3)
    first = asyncio.create_task(env.run(flow, "a", instance_id="a"))
    second = asyncio.create_task(env.run(flow, "b", instance_id="b"))
    await entered.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).output == "b"
    assert (await env.status("a")).output == "a"
    assert began == ["a", "b"]


def test_the_twin_without_a_loop() -> None:
    def outcome() -> str:
        return threading.current_thread().name

    with TestEnvironment(start=START).sync as env:
        assert isinstance(env, SyncTestEnvironment)
        assert env.now == env.environment.now == START
        assert "sayiir-test" in (env.run(Flow("where").then(outcome).build()).output or "")
        parked = env.run(NAP, "hey")
        env.advance("29d")
        env.run_until_idle()
        assert env.status(parked).is_waiting()
        env.advance_to(START + timedelta(days=30))
        assert env.history(parked).tasks == ["night", "shout"]
        assert env.result(env.submit(NAP, "hey")) == "HEY"
        assert env.send_event(env.run(ASK), "answer", 1).output == 1
        assert env.cancel(env.run(NAP), "no").is_cancelled()
        assert repr(env).startswith("<SyncTestEnvironment at 2031-")


async def test_the_twin_refuses_a_running_loop(env: TestEnvironment) -> None:
    with pytest.raises(RuntimeError, match=r"use `await env\.run\(…\)`"):
        env.sync.run(SHOUT, "hey")


def test_what_is_given_wrongly_is_refused() -> None:
    with pytest.raises(TypeError, match="workflow"):
        TestEnvironment(shout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start"):
        TestEnvironment(start=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="patience"):
        TestEnvironment(patience=0)
    with TestEnvironment().sync as env, pytest.raises(TypeError, match="its id, its status"):
        env.status(7)  # type: ignore[arg-type]


def test_the_backend_is_the_memory_backend() -> None:
    with TestEnvironment().sync as env:
        assert isinstance(env.environment.backend, InMemoryBackend)
        # The real time, so that moments in the code under test are near.
        assert abs(env.now - datetime.now(UTC)) < timedelta(minutes=5)
