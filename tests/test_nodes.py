"""Every node of a flow, through a client and a worker: what comes out, alone and nested.

Each shape is a workflow and the output it must have. The nesting is total: every container holds
every container holds every node. What is refused at build time is in `test_flow.py`.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sayiir import (
    EventTimeout,
    Flow,
    LoopResult,
    MapError,
    Worker,
    Workflow,
    WorkflowClient,
    WorkflowFailed,
    task,
)
from sayiir.backends import Backend

from .working import LONG, NEVER, Gauge, outcome

Any_Workflow = Workflow[Any, Any]


def inc(x: int) -> int:
    return x + 1


async def later_inc(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@task(run_in="inline")
def double(x: int) -> int:
    return 2 * x


def seven() -> int:
    return 7


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def namesake(number: int) -> Callable[[int], int]:
    def same_name(x: int) -> int:
        return 10 * x + number

    return same_name


def turn(state: list[int]) -> LoopResult[Any]:
    value, turns = state
    return LoopResult.again([value, turns + 1]) if turns < 2 else LoopResult.done(value + 1)


def endless(x: int) -> LoopResult[int]:
    return LoopResult.again(x + 1)


def parity(x: int) -> str:
    return "odd" if x % 2 else "even"


def routed(key: Callable[[Any], str]) -> Any_Workflow:
    route = Flow("routed").route(key, keys=["even", "odd"])
    return route.branch("even", inc).branch("odd", double).default_branch(seven).done().build()


CHILD = Flow("child").then(inc).then(double).build()

SHAPES: dict[str, tuple[Any_Workflow, Any, Any]] = {
    "a task": (Flow("f").then(inc).build(), 1, 2),
    "an async task": (Flow("f").then(later_inc).build(), 1, 2),
    "an inline task": (Flow("f").then(double).build(), 1, 2),
    "a task without parameters": (Flow("f").then(seven).build(), "unused", 7),
    "a lambda around an async def": (Flow("f").then(lambda x: later_inc(x)).build(), 1, 2),
    "the same task twice": (Flow("f").then(inc).then(inc).build(), 1, 3),
    "two functions of one name": (Flow("f").then(namesake(1)).then(namesake(2)).build(), 0, 12),
    "a fork": (
        Flow("f").fork().branch(inc).branch(double, later_inc, name="b").join(dict).build(),
        5,
        {"inc": 6, "b": 11},
    ),
    "a task on both sides of a fork": (
        Flow("f").fork().branch(inc, name="a").branch(inc, inc, name="b").join(dict).build(),
        5,
        {"a": 6, "b": 7},
    ),
    "a map": (Flow("f").map(inc).build(), [3, 1, 2], [4, 2, 3]),
    "a map of nothing": (Flow("f").map(inc).build(), [], []),
    "a map of one": (Flow("f").map(later_inc).build(), [1], [2]),
    "a map of many": (Flow("f").map(later_inc).build(), list(range(200)), list(range(1, 201))),
    "a map of lists": (Flow("f").map(sum).map(inc).build(), [[1, 2], []], [4, 1]),
    "a route": (routed(parity), 4, {"branch": "even", "result": 5}),
    "a route by default": (routed(lambda _: "else"), 4, {"branch": "else", "result": 7}),
    "a loop": (Flow("f").loop(turn).build(), [3, 0], 4),
    "a loop cut short": (
        Flow("f").loop(endless, max_iterations=4, on_max="exit_with_last").build(),
        0,
        4,
    ),
    "a delay": (Flow("f").delay("rest", "1ms").build(), {"kept": [1]}, {"kept": [1]}),
    "a delay of nothing": (Flow("f").delay("rest", 0).then(inc).build(), 1, 2),
    "a delay until": (
        Flow("f").delay_until("then", datetime.now(UTC) - timedelta(days=1)).then(inc).build(),
        1,
        2,
    ),
    "a wait that times out": (
        Flow("f").wait_for_event("e", timeout="1ms", on_timeout="continue").build(),
        1,
        EventTimeout("e"),
    ),
    "a child": (Flow("f").then_flow(CHILD).build(), 1, 4),
    "a child twice": (Flow("f").then_flow(CHILD).then_flow(CHILD).build(), 1, 10),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_shape_gives_its_output(backend: Backend, shape: str) -> None:
    workflow, value, expected = SHAPES[shape]
    assert await outcome(backend, workflow, value) == expected


# Nesting: each takes an int and adds one.

LEAVES: dict[str, Callable[[], Any_Workflow]] = {
    "task": lambda: Flow("task").then(inc).build(),
    "async": lambda: Flow("async").then(later_inc).build(),
    "route": lambda: (
        Flow("route")
        .route(parity, keys=["even", "odd"])
        .branch("even", inc)
        .branch("odd", later_inc)
        .done()
        .then(lambda routed: routed["result"])
        .build()
    ),
    "loop": lambda: Flow("loop").then(lambda x: [x, 0]).loop(turn).build(),
    "delay": lambda: Flow("delay").delay("rest", "1ms").then(inc).build(),
    "child": lambda: Flow("child-of").then_flow(Flow("inner").then(inc).build()).build(),
    "event": lambda: (
        Flow("event")
        .fork()
        .branch(inc, name="value")
        .branch(Flow("w").wait_for_event("no", timeout="1ms", on_timeout="continue").build())
        .join(lambda both: both["value"])
        .build()
    ),
}


def all_the_same(values: list[int]) -> int:
    [value] = set(values)
    return value


CONTAINERS: dict[str, Callable[[Any_Workflow], Any_Workflow]] = {
    "fork": lambda body: (
        Flow("fork")
        .fork()
        .branch(body, name="a")
        .branch(body, name="b")
        .join(lambda both: all_the_same(list(both.values())))
        .build()
    ),
    "map": lambda body: Flow("map").then(lambda x: [x] * 3).map(body).then(all_the_same).build(),
    "route": lambda body: (
        Flow("route")
        .route(parity, keys=["even", "odd"])
        .branch("even", body)
        .branch("odd", body)
        .done()
        .then(lambda routed: routed["result"])
        .build()
    ),
    "loop": lambda body: Flow("loop").loop(body, LoopResult.done).build(),
    "child": lambda body: Flow("parent").then_flow(body).build(),
}


async def test_every_nesting_gives_its_output(backend: Backend) -> None:
    shapes = {
        f"{outer} of {inner} of {leaf}": CONTAINERS[outer](CONTAINERS[inner](LEAVES[leaf]()))
        for outer in CONTAINERS
        for inner in CONTAINERS
        for leaf in LEAVES
    }
    client = WorkflowClient(backend)
    async with Worker(backend, shapes.values(), poll_interval=NEVER):
        handles = {
            name: await client.submit(workflow, name, at)
            for at, (name, workflow) in enumerate(shapes.items())
        }
        outputs = {name: await handle.result(timeout=LONG) for name, handle in handles.items()}
    assert outputs == {name: at + 1 for at, name in enumerate(shapes)}


# Maps.


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_map_runs_no_more_items_at_once_than_its_limit(
    backend: Backend, limit: int
) -> None:
    gauge = Gauge()
    meeting = asyncio.Barrier(limit)

    async def item(x: int) -> int:
        with gauge.body():
            # Nobody goes on before as many as may run at once are here.
            await meeting.wait()
            await asyncio.sleep(0)
            return x

    workflow = Flow("limited").map(item, concurrency=limit).build()
    assert await outcome(backend, workflow, list(range(12))) == list(range(12))
    assert (gauge.most, gauge.total) == (limit, 12)


async def test_a_map_that_collects_keeps_its_failures_in_place(backend: Backend) -> None:
    workflow = Flow("collected").map(odd_fails, on_error="collect").build()
    good, bad = await outcome(backend, workflow, [2, 3])
    assert good == 2
    assert isinstance(bad, MapError)
    assert (bad.error_type, bad.message) == ("ValueError", "3 is odd")


async def test_a_map_fails_with_its_item(backend: Backend) -> None:
    workflow = Flow("strict").map(odd_fails).build()
    with pytest.raises(WorkflowFailed, match="3 is odd"):
        await outcome(backend, workflow, [2, 3, 4])


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, "text"])
async def test_a_map_over_no_list_fails_and_says_so(backend: Backend, value: Any) -> None:
    workflow = Flow("listless").map(inc).build()
    with pytest.raises(WorkflowFailed, match="list"):
        await outcome(backend, workflow, value)


# Routes, loops.


async def test_an_undeclared_key_without_default_fails_and_is_named(backend: Backend) -> None:
    flow: Flow[int, Any] = Flow("strict").then(inc)
    workflow = flow.route(lambda _: "purple", keys=["red"]).branch("red", inc).done().build()
    with pytest.raises(WorkflowFailed, match="purple"):
        await outcome(backend, workflow, 1)


async def test_a_loop_that_does_not_end_fails(backend: Backend) -> None:
    gauge = Gauge()

    def body(x: int) -> LoopResult[int]:
        with gauge.body():
            return endless(x)

    workflow = Flow("forever").loop(body, max_iterations=3).build()
    with pytest.raises(WorkflowFailed, match="3"):
        await outcome(backend, workflow, 0)
    assert gauge.total == 3


async def test_a_loop_body_that_says_nothing_fails_and_is_named(backend: Backend) -> None:
    workflow: Any_Workflow = Flow("mute").loop(inc).build()  # type: ignore[arg-type]
    with pytest.raises(WorkflowFailed, match="LoopResult") as failure:
        await outcome(backend, workflow, 0)
    assert "inc" in str(failure.value)


# Delays and events.


async def test_an_event_that_was_there_first_is_passed_on(backend: Backend) -> None:
    workflow = Flow("ask").wait_for_event("answer").then(inc).build()
    client = WorkflowClient(backend)
    await client.send_event("early", "answer", 41)
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await client.submit(workflow, "early")
        assert await handle.result(timeout=LONG) == 42


async def test_an_event_wakes_the_instance_that_waits(backend: Backend) -> None:
    reached = asyncio.Event()

    async def ask(x: int) -> int:
        reached.set()
        return x

    workflow = Flow("ask").then(ask).wait_for_event("answer").then(inc).build()
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", 0)
        await reached.wait()
        await client.send_event("i", "answer", 41)
        assert await handle.result(timeout=LONG) == 42


async def test_a_wait_may_fail_when_its_time_is_over(backend: Backend) -> None:
    workflow = Flow("ask").wait_for_event("answer", timeout="1ms").then(inc).build()
    with pytest.raises(WorkflowFailed, match="answer"):
        await outcome(backend, workflow)


async def test_events_of_one_name_are_taken_in_order(backend: Backend) -> None:
    first = Flow("first").wait_for_event("e").build()
    second = Flow("second").wait_for_event("e").wait_for_event("e", node="again").build()
    client = WorkflowClient(backend)
    for number in (1, 2):
        await client.send_event("a", "e", number)
        await client.send_event("b", "e", number)
    async with Worker(backend, [first, second], poll_interval=NEVER):
        one, two = await client.submit(first, "a"), await client.submit(second, "b")
        assert await one.result(timeout=LONG) == 1
        assert await two.result(timeout=LONG) == 2


async def test_an_instance_that_starts_later_is_started_then(backend: Backend) -> None:
    workflow = Flow("later").then(inc).build()
    start = datetime.now(UTC) + timedelta(milliseconds=200)
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 1, start_at=start)
        assert await handle.result(timeout=LONG) == 2
    [step] = await WorkflowClient(backend).history("i")
    assert step.started_at >= start
