"""The workflows that the contract suite runs: each as small as the promise it is used for.

Their functions are never called; the suite says what a step returned. Names and tags matter, and so
does where a flow waits, parks or branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sayiir._codec import encode_payload
from sayiir._flow import Flow
from sayiir._task import task
from sayiir._workflow import Workflow
from sayiir.backends import NewInstance

__all__ = [
    "COLLECTING",
    "DELAYED",
    "FORKED",
    "HANDING_OVER",
    "LISTENING",
    "MAPPED",
    "NESTED",
    "ONE",
    "OTHER",
    "PATIENT",
    "RETRYING",
    "SPREADING",
    "SPREADING_BESIDE",
    "SPREADING_BESIDE_TWICE",
    "SPREADING_NAPS",
    "SPREADING_TAGGED",
    "SPREADING_TWICE",
    "TWIN_WAITS",
    "TWO",
    "new_instance",
    "prioritised",
    "tagged",
    "waits_first",
]

Anything = Workflow[Any, Any]


def _step(value: Any) -> Any:
    return value


def _named(name: str, **options: Any) -> Any:
    def named(value: Any) -> Any:
        return value

    return task(name, **options)(named)


ONE: Anything = Flow("one").then(_step, name="only").build()
"""A single step."""
OTHER: Anything = Flow("one").then(_step, name="other").build()
"""Another definition of the same workflow."""
TWO: Anything = Flow("two").then(_step, name="first").then(_step, name="second").build()
"""Two steps."""
DELAYED: Anything = (
    Flow("delayed").then(_step, name="before").delay("nap", 60).then(_step, name="after").build()
)
"""A delay of 60 seconds between two steps."""
LISTENING: Anything = (
    Flow("listening")
    .then(_step, name="before")
    .wait_for_event("go", node="door")
    .then(_step, name="after")
    .build()
)
"""Waits for the event `go` between two steps, forever."""
PATIENT: Anything = (
    Flow("patient")
    .then(_step, name="before")
    .wait_for_event("go", node="door", timeout=60, on_timeout="continue")
    .then(_step, name="after")
    .build()
)
"""Waits for the event `go`, but no longer than 60 seconds."""
FORKED: Anything = (
    Flow("forked")
    .fork()
    .branch(_named("left"))
    .branch(_named("right"))
    .join(_named("join"))
    .build()
)
"""Two branches at the same time."""
TWIN_WAITS: Anything = (
    Flow("twin-waits")
    .fork()
    .branch(Flow("a").wait_for_event("go").then(_step, name="left").build(), name="a")
    .branch(Flow("b").wait_for_event("go").then(_step, name="right").build(), name="b")
    .join(_named("join"))
    .build()
)
"""Two branches that wait for one event each, of the same name."""
MAPPED: Anything = Flow("mapped").then(_step, name="list").map(_named("item")).build()
"""A map over the list that the first step returns."""
RETRYING: Anything = Flow("retrying").then(_named("flaky", retries=3)).build()
"""One step with three retries."""
HANDING_OVER: Anything = (
    Flow("handing-over")
    .then(_named("plain"))
    .then(_named("special", tags=["gpu"], priority=1))
    .build()
)
"""A step for anybody, then one that needs the tag `gpu` and has the first priority."""
SPREADING: Anything = (
    Flow("spreading")
    .then(_step, name="list")
    .map(_named("each"), spread=True)
    .then(_step, name="after")
    .build()
)
"""A spread map over the list that the first step returns, which one failed item fails."""
COLLECTING: Anything = (
    Flow("collecting")
    .then(_step, name="list")
    .map(_named("each"), spread=True, on_error="collect")
    .then(_step, name="after")
    .build()
)
"""A spread map that goes on whatever its items come to."""
SPREADING_TAGGED: Anything = (
    Flow("spreading-tagged")
    .then(_step, name="list")
    .map(_named("special", tags=["gpu"], priority=1), spread=True)
    .build()
)
"""A spread map whose items need the tag `gpu` and have the first priority."""
SPREADING_NAPS: Anything = (
    Flow("spreading-naps").then(_step, name="list").map(DELAYED, spread=True).build()
)
"""A spread map over a workflow that has a delay of 60 seconds between two steps."""
SPREADING_BESIDE: Anything = (
    Flow("spreading-beside")
    .fork()
    .branch(Flow("parts").map(_named("each"), spread=True).build(), name="parts")
    .branch(_named("own"))
    .join(_named("join"))
    .build()
)
"""A spread map over the input, and a step of the instance's own beside it."""
SPREADING_BESIDE_TWICE: Anything = (
    Flow("spreading-beside-twice")
    .map(SPREADING_BESIDE, on_error="collect", name="outer")
    .then(_step, name="after")
    .build()
)
"""A map of the instance's own over lists: each is spread, beside a step that may fail."""
SPREADING_TWICE: Anything = (
    Flow("spreading-twice")
    .then(_step, name="list")
    .map(Flow("inner").map(_named("each"), spread=True).build(), on_error="collect", name="outer")
    .then(_step, name="after")
    .build()
)
"""A map of the instance's own over lists, each of which it spreads: a group of items for each."""
NESTED: Anything = (
    Flow("nested")
    .then(_step, name="list")
    .map(Flow("inner").map(_named("each"), spread=True).build(), spread=True, name="outer")
    .then(_step, name="after")
    .build()
)
"""A spread map over lists, whose items spread them on."""


def waits_first(name: str) -> Anything:
    """A workflow that begins by waiting for the event of this name and then takes one step."""
    return Flow(f"waits-for-{name}").wait_for_event(name).then(_step, name="after").build()


def tagged(*tags: str) -> Anything:
    """A workflow of one step that needs these tags."""
    return Flow("-".join(("tagged", *tags))).then(_named("work", tags=list(tags))).build()


def prioritised(priority: int) -> Anything:
    """A workflow of one step with this priority."""
    return Flow(f"priority-{priority}").then(_named("work", priority=priority)).build()


def new_instance(
    workflow: Anything, instance_id: str, value: object = None, *, start_at: float | None = None
) -> NewInstance:
    """An instance to submit to a backend.

    Args:
        workflow: What it runs.
        instance_id: Its id.
        value: Its input.
        start_at: Not to be claimed before this moment, in seconds since 1970.

    >>> from sayiir import Flow
    >>> new_instance(Flow("double").then(abs).build(), "d-1", -2).instance_id
    'd-1'
    """
    return NewInstance(instance_id, workflow.program, encode_payload(value), start_at)


def new_instances(workflow: Anything, ids: Sequence[str]) -> list[NewInstance]:
    """Instances with these ids and no input."""
    return [new_instance(workflow, instance_id) for instance_id in ids]
