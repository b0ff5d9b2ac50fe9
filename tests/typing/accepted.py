"""Programs a type checker must accept, and the types it must see in them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, assert_type

from sayiir import (
    Flow,
    LoopResult,
    MapError,
    OnMax,
    RetryPolicy,
    TaskContext,
    Workflow,
    WorkflowFailed,
    WorkflowStatus,
    get_task_context,
    task,
)


@task
def length(text: str) -> int:
    return len(text)


@task("halve", timeout="30s", retries=3)
async def halve(number: int) -> float:
    return number / 2


@task(retries=RetryPolicy(max_retries=1), tags=["gpu"], run_in="inline")
def show(number: float) -> str:
    return str(number)


@task
def origin() -> str:
    return "here"


@task
async def remote_origin() -> bytes:
    return b"there"


# A decorated function keeps its type.
assert_type(length("abc"), int)
assert_type(show(1.5), str)


async def call() -> None:
    assert_type(await halve(3), float)


# Steps fit together, def and async def alike; the first one says what the workflow takes.
chained = Flow("chained").then(length).then(halve).then(show).build()
assert_type(chained, Workflow[str, str])
assert_type(Flow("one").then(halve).build(), Workflow[int, float])
assert_type(Flow("none").then(origin).then(length).build(), Workflow[object, int])
assert_type(Flow("none").then(remote_origin).build(), Workflow[object, bytes])
assert_type(Flow("later").then(length).then(origin).build(), Workflow[str, str])
assert_type(Flow("later").then(length).then(remote_origin).build(), Workflow[str, bytes])

# An int is good enough where a float is wanted.
assert_type(Flow("wider").then(length).then(show).build(), Workflow[str, str])

# Lambdas see the type of what they get.
assert_type(Flow("lambda").then(length).then(lambda x: x + 1).build(), Workflow[str, int])
assert_type(Flow("lambda").then(length).then(lambda x: [x]).build(), Workflow[str, list[int]])

# As the first step a lambda has nothing to see; basedpyright does not let it compute with that.
start = Flow("pipeline").then(lambda x: x * 2)  # pyright: ignore[reportOperatorIssue]
start.then(lambda x: x + 1).then(lambda x: str(x)).build()

# A child fits like a task, and so does a whole workflow anywhere else.
assert_type(Flow("parent").then_flow(chained).then(length).build(), Workflow[str, int])
assert_type(Flow("parent").then(chained).build(), Workflow[str, str])
assert_type(Flow("parent").then(length).then(show).then_flow(chained).build(), Workflow[str, str])


@task
def words(text: str) -> list[str]:
    return text.split()


# A map takes the items of a list and gives a list.
sizes = Flow("map").then(words).map(length, concurrency=4, on_error="collect").build()
assert_type(sizes, Workflow[str, list[int | MapError]])
assert_type(Flow("map").map(halve).build(), Workflow[Sequence[int], list[float]])
assert_type(Flow("map").map(chained).build(), Workflow[Sequence[str], list[str]])
assert_type(Flow("map").then(words).map(chained).build(), Workflow[str, list[str]])
assert_type(Flow("map").then(words).map(lambda w: w.upper()).build(), Workflow[str, list[str]])


@task
def merge(results: dict[str, Any]) -> bool:
    return bool(results)


@task
async def merge_mapping(results: Mapping[str, Any]) -> bool:
    return bool(results)


# A fork's branches all take what came before; the join gives what comes after.
forked = Flow("fork").then(length).fork().branch(halve, show).branch(show).join(merge).build()
assert_type(forked, Workflow[str, bool])
Flow("fork").then(length).fork().branch(origin).branch(halve).join(merge_mapping).build()
Flow("fork").fork().branch(length).branch(chained, name="c").join(merge).build()
Flow("fork").then(length).fork().branch(lambda x: x + 1).join(lambda r: r["lambda_0"]).build()


@task
def classify(text: str) -> str:
    return text[:1]


routed = (
    Flow("route")
    .route(classify, keys=["a", "b"])
    .branch("a", length, halve)
    .branch("b", chained)
    .default_branch(words)
    .done()
    .build()
)
assert_type(routed, Workflow[str, dict[str, Any]])
Flow("route").then(length).route(lambda n: str(n), keys=["1"]).branch("1", halve).done().build()


@task
def refine(draft: str) -> LoopResult[str]:
    return LoopResult.done(draft) if draft else LoopResult.again(draft + "!")


@task
async def refine_slowly(draft: str) -> LoopResult[str]:
    return LoopResult.again(draft)


@task
def refine_as_dict(draft: str) -> dict[str, Any]:
    return LoopResult.done(draft).to_dict()


# A loop gives the value inside of the last result.
assert_type(Flow("loop").loop(refine, max_iterations=5).then(length).build(), Workflow[str, int])
assert_type(Flow("loop").then(show).loop(refine_slowly).build(), Workflow[float, str])
assert_type(
    Flow("loop").then(show).loop(refine, on_max=OnMax.EXIT_WITH_LAST).build(),
    Workflow[float, str],
)
Flow("loop").then(show).loop(refine_as_dict, on_max="exit_with_last").then(length).build()
Flow("loop").loop(classify, refine, max_iterations=3).build()

# A delay passes on what it gets; an event brings anything.
assert_type(Flow("delay").then(length).delay("d", "30s").then(halve).build(), Workflow[str, float])
assert_type(Flow("delay").delay("d", 3).then(length).build(), Workflow[str, int])
Flow("until").then(length).delay_until("d", datetime(2030, 1, 1, tzinfo=UTC)).then(halve).build()
assert_type(Flow("wait").then(length).wait_for_event("e").then(length).build(), Workflow[str, int])
Flow("wait").wait_for_signal("e", name="n", timeout="1h", on_timeout="continue").then(show).build()


# A flow may be held in a variable, and in one without type arguments.
started = Flow("held")
grown = started.then(length)
assert_type(grown.build(), Workflow[str, int])
untyped: Flow[Any, Any] = Flow("held")
untyped.then(length).then(halve).build()


def context() -> None:
    ctx = get_task_context()
    assert_type(ctx, TaskContext | None)
    assert_type(TaskContext.current(), TaskContext)
    if ctx is not None:
        assert_type(ctx.metadata.timeout_secs, float | None)
        assert_type(ctx.attempt, int)


def failure(error: WorkflowFailed, status: WorkflowStatus[int]) -> None:
    assert_type(error.status, WorkflowStatus[Any])
    assert_type(status.output, int | None)


def takes_strings(workflow: Workflow[str, object]) -> None:
    """A workflow that takes more and gives less is one of these."""


@task
async def fetch(url: str) -> dict[str, Any]:
    return {"url": url}


@task
def render(page: dict[str, Any]) -> str:
    return str(page)


# mypy loses sight of a coroutine function with `Any` in it, and must not make up a wrong type.
takes_strings(Flow("fetch").then(fetch).then(render).build())
takes_strings(Flow("none").then(origin).build())
takes_strings(chained)
