"""Mocks of tasks: what is called instead, what is recorded, and what stays as it was."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests import tasks_for_processes

from sayiir import (
    Flow,
    LoopResult,
    RetryPolicy,
    TaskTimeout,
    WorkflowClient,
    get_task_context,
    task,
)
from sayiir.testing import SyncTestEnvironment, TestEnvironment


@pytest.fixture
def env() -> Iterator[SyncTestEnvironment]:
    with TestEnvironment().sync as environment:
        yield environment


@task(retries=RetryPolicy(max_retries=2, initial_delay_secs=60))
def charge(cents: int) -> str:
    return f"charged {cents}"


@task
async def ship(text: str) -> str:
    return f"{text}, shipped"


@task(run_in="inline")
def thank(text: str) -> str:
    return f"{text}, thanks"


ORDER = Flow("order").then(charge).then(ship).then(thank).build()
PLAIN = "charged 5, shipped, thanks"


def test_by_name_by_function_and_by_path(env: SyncTestEnvironment) -> None:
    for target in ("charge", charge):
        with env.mock(target, returns="free") as calls:
            assert env.run(ORDER, 5).output == "free, shipped, thanks"
            assert calls == [5]
        assert env.run(ORDER, 5).output == PLAIN
        assert calls == [5]
    forked = Flow("forked").fork().branch(thank, name="a").branch(thank, name="b").join(dict)
    both = forked.build()
    with env.mock("fork/a/thank", returns="x") as calls:
        assert env.run(both, "hi").output == {"a": "x", "b": "hi, thanks"}
        assert calls == ["hi"]
    with env.mock("thank", returns="x") as calls:
        assert env.run(both, "hi").output == {"a": "x", "b": "x"}
        assert calls == ["hi", "hi"]


@pytest.mark.parametrize("name", ["charge", "ship", "thank"])
def test_wherever_the_task_is_called(env: SyncTestEnvironment, name: str) -> None:
    async def later(given: Any) -> str:
        await asyncio.sleep(0)
        return f"<{given}>"

    def now(given: Any) -> str:
        return f"<{given}>"

    for side_effect in (now, later):
        mock = env.mock(name, side_effect=side_effect)
        output = env.run(ORDER, 5).output
        assert f"<{mock.calls[0]}>" in str(output)
        assert mock.paths == [name]
        mock.remove()
        mock.remove()


def test_the_workflow_and_its_hash_stay_what_they_are(env: SyncTestEnvironment) -> None:
    before = ORDER.definition_hash, ORDER.tasks
    env.mock("charge", returns="free")
    status = env.run(ORDER, 5)
    assert (ORDER.definition_hash, ORDER.tasks) == before
    [info] = env.environment.sync._do(env.environment.client.list_instances).items
    assert info.definition_hash == ORDER.definition_hash
    assert status.output == "free, shipped, thanks"
    with TestEnvironment().sync as other:
        assert other.run(ORDER, 5).output == PLAIN


def test_retries_apply_to_a_mock(env: SyncTestEnvironment) -> None:
    mock = env.mock(charge, raises=ConnectionError("down"))
    status = env.run(ORDER, 5)
    assert env.status(status).wake_at is not None
    env.advance("1h")
    failed = env.status(status)
    assert (failed.status, failed.error_type, failed.error) == ("failed", "ConnectionError", "down")
    assert (mock.calls, mock.attempts) == ([5, 5, 5], [1, 2, 3])


def test_the_timeout_applies_to_a_mock(env: SyncTestEnvironment) -> None:
    @task(timeout="20ms")
    async def quick(_: object) -> None: ...

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    env.mock(quick, side_effect=never)
    assert env.run(Flow("quick").then(quick).build()).error_type == TaskTimeout.__name__


def test_the_newest_answers_as_often_as_it_is_to(env: SyncTestEnvironment) -> None:
    env.mock(charge, returns="always")
    down = env.mock(charge, raises=OSError, times=2)
    assert env.result(env.run(ORDER, 5)) == "always, shipped, thanks"
    assert down.calls == [5, 5]
    with env.mock(charge, raises=OSError("once"), times=1) as calls:
        assert env.result(env.run(ORDER, 6)) == "always, shipped, thanks"
    assert calls == [6]


def test_behind_the_last_the_task_itself_runs(env: SyncTestEnvironment) -> None:
    env.mock(charge, raises=OSError("once"), times=1)
    assert env.result(env.run(ORDER, 5)) == PLAIN


def test_a_spy_lets_the_task_run(env: SyncTestEnvironment) -> None:
    spies = [env.spy(name) for name in ("charge", ship, "thank")]
    assert env.run(ORDER, 5).output == PLAIN
    assert [spy.calls for spy in spies] == [[5], ["charged 5"], ["charged 5, shipped"]]
    assert "ship" in repr(spies[1])


@dataclass
class Order:
    cents: int


def test_a_mock_is_given_what_the_task_is(env: SyncTestEnvironment) -> None:
    def price(order: Order) -> int:
        return order.cents

    def nothing() -> str:
        return "real"

    flow = Flow("priced").then(price).then(nothing).build()
    by_price, by_nothing = env.mock(price, returns=1), env.mock(nothing, side_effect=lambda: "mock")
    assert env.run(flow, Order(5)).output == "mock"
    assert (by_price.calls, by_nothing.calls) == ([Order(5)], [None])


def test_inside_of_maps_loops_routes_and_children(env: SyncTestEnvironment) -> None:
    def again(n: int) -> Any:
        return LoopResult.again(n + 1)

    flow = (
        Flow("nested")
        .map(Flow("item").then(lambda n: n, name="one").build(), spread=True)
        .then(sum, name="total")
        .loop(again, max_iterations=5)
        .route(lambda n: "big", keys=["big"], name="size")
        .branch("big", ship)
        .done()
        .build()
    )
    one = env.mock("one", returns=10)
    turns = env.mock(again, side_effect=LoopResult.done)
    key = env.spy("size")
    with env.mock(ship, side_effect=str) as shipped:
        assert env.run(flow, [1, 2]).output == {"branch": "big", "result": "20"}
    assert (sorted(one.calls), turns.calls, shipped, key.calls) == ([1, 2], [20], [20], [20])


def test_a_task_for_a_process_is_mocked_in_this_one(env: SyncTestEnvironment) -> None:
    flow = Flow("far").then(tasks_for_processes.pid).build()
    with env.mock(tasks_for_processes.pid, side_effect=lambda _: os.getpid()) as calls:
        assert env.run(flow, None).output == os.getpid()
    assert calls == [None]


def test_the_context_is_there(env: SyncTestEnvironment) -> None:
    env.mock("ship", side_effect=lambda _: get_task_context().idempotency_key)  # type: ignore[union-attr]
    assert env.run(ORDER, 5, instance_id="o-1").output == "o-1:ship, thanks"


def test_a_task_that_is_not_there(env: SyncTestEnvironment) -> None:
    mock = env.mock("chrage", returns=1)
    with pytest.raises(LookupError, match=r"mock of 'chrage' \(did you mean 'charge'\?\).*'order'"):
        env.run(ORDER, 5)
    assert env.environment.sync._do(env.environment.client.list_instances).items == ()
    mock.remove()
    stranger = env.mock(test_a_spy_lets_the_task_run)
    with pytest.raises(LookupError, match="test_a_spy_lets_the_task_run"):
        env.run(ORDER, 5)
    stranger.remove()
    env.mock("later")
    env.environment.add(Flow("soon").then(abs, name="later").build())
    assert env.run(ORDER, 5).output == PLAIN


def test_no_mock_is_passed_by_unseen(env: SyncTestEnvironment) -> None:
    inner = env.environment
    client = WorkflowClient(inner.backend)
    env._do(client.submit, ORDER, None, 5)
    env.mock("charge", returns="free")
    with pytest.raises(LookupError, match=r"'order'.*env\.add\(workflow\)"):
        env.run_until_idle()
    with pytest.raises(LookupError, match=r"env\.add\(workflow\)"):
        env._do(client.submit, ORDER, "o-2", 5)
    inner.add(ORDER)
    handle = env._do(client.submit, ORDER, "o-2", 5)
    assert env.result(handle) == "free, shipped, thanks"


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"task": 7}, TypeError, "got int"),
        ({"task": "charge", "returns": 1, "raises": OSError}, TypeError, "one of returns="),
        ({"task": "charge", "raises": "OSError"}, TypeError, "exception or its class, got str"),
        ({"task": "charge", "raises": str}, TypeError, "exception or its class"),
        ({"task": "charge", "side_effect": 7}, TypeError, "callable"),
        ({"task": "charge", "side_effect": lambda a, b: 1}, TypeError, "one argument"),
        ({"task": "charge", "times": 0}, ValueError, "1 or more, got 0"),
        ({"task": "charge", "times": True}, TypeError, "whole number"),
    ],
)
def test_what_is_given_wrongly_is_refused(
    env: SyncTestEnvironment, arguments: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        env.mock(**arguments)
    assert env.run(ORDER, 5).output == PLAIN
