"""The fixed flows whose definitions and hashes are frozen: one per kind of node, and some together.

A flow here is never changed; another one is added. What its tasks do is of no interest.
"""

from datetime import UTC, datetime
from typing import Any

from sayiir import Flow, LoopResult, RetryPolicy, Workflow, task


def named(name: str, **policy: Any) -> Any:
    return task(name, **policy)(lambda value: value)


def turn(value: Any) -> LoopResult[Any]:
    return LoopResult.done(value)


STEP, OTHER, KEY = named("step"), named("other"), named("key")
BODY = task("body")(turn)
INNER: Workflow[Any, Any] = Flow("inner").then(STEP).build()
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)

TUNED = named(
    "tuned",
    timeout="1h30m",
    retries=RetryPolicy(
        max_retries=5,
        initial_delay_secs=0.25,
        backoff_multiplier=1.5,
        max_delay_secs=60.0,
        jitter=0.5,
    ),
    tags=["gpu", "eu", "größe"],
    priority=1,
)
INSIDE = f"each/{'µ' * 120}"
"""Too long a name to be a part of another one."""
LOT: Workflow[Any, Any] = Flow("lot").map(TUNED, spread=True, name=INSIDE).build()
NESTED: Workflow[Any, Any] = (
    Flow("nested")
    .route(KEY, keys=["left/right", "50%"], name="which way?")
    .branch("left/right", STEP, STEP)
    .branch("50%", INNER)
    .done()
    .build()
)

FLOWS: dict[str, Workflow[Any, Any]] = {
    "task": Flow("one task").then(STEP).build(),
    "repeated": Flow("repeated").then(STEP).then(OTHER).then(STEP).then(STEP).build(),
    "tuned": Flow("tuned").then(TUNED).then(STEP).build(),
    "fork": (
        Flow("forked")
        .fork(name="both")
        .branch(STEP, OTHER, name="left")
        .branch(STEP, name="right")
        .join(named("join"))
        .build()
    ),
    "map": Flow("mapped").map(STEP, concurrency=7, on_error="collect").build(),
    "map-of-flow": Flow("mapped flow").map(INNER, name="each").build(),
    "route": (
        Flow("routed")
        .route(KEY, keys=["a", "b"], name="choose")
        .branch("a", STEP)
        .branch("b", OTHER, STEP)
        .default_branch(OTHER)
        .done()
        .build()
    ),
    "loop": Flow("looped").loop(BODY, max_iterations=300, on_max="exit_with_last").build(),
    "delay": Flow("delayed").delay("rest", "90s").build(),
    "delay-until": Flow("put off").delay_until("new year", MOMENT).build(),
    "wait": (
        Flow("waiting")
        .wait_for_event("paid", node="payment", timeout="1d", on_timeout="continue")
        .wait_for_event("paid")
        .build()
    ),
    "child": Flow("parent").then_flow(INNER, name="first").then_flow(INNER).build(),
    "spread": (
        Flow("spread out")
        .then(STEP)
        .map(INNER, spread=True, on_error="collect", name="each")
        .build()
    ),
    "spread-nested": Flow("spread twice").map(LOT, spread=True, name="lots").build(),
    "everything": (
        Flow("alles 🎉")
        .then(TUNED)
        .fork()
        .branch(NESTED, name="a~2")
        .branch(named("[0]#1"), BODY, name="b")
        .join(OTHER)
        .map(NESTED)
        .loop(INNER, BODY, name="again")
        .delay("z", 0)
        .wait_for_event("e")
        .then_flow(NESTED)
        .build()
    ),
}

ITEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "items": ("spread", ("each",)),
    "items-nested": ("spread-nested", ("lots", INSIDE)),
}
"""Names of what the items of spread maps run, each with its flow and the maps that lead to it."""
