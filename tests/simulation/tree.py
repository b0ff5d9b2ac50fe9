"""The tree of a flow: what an author would say, as plain data.

Which steps, in which order, under which names. `build` tells it to `sayiir.Flow`;
`tests/simulation/oracle.py` reads it by itself. What a task answers is a pure function of the task,
its input and the number of the attempt (`Task.answer`), so both sides can ask for it without
sharing anything of the engine.

Refuses to know paths, stores, workers and what the outcome should be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from sayiir import (
    EventTimeout,
    Flow,
    LoopResult,
    MapError,
    NonRetryable,
    RetryAfter,
    RetryPolicy,
    Workflow,
    get_task_context,
    task,
)

Act = Literal["mark", "list", "key", "turn"]
Mood = Literal["fine", "flaky", "broken", "final", "picky"]


class Wobble(Exception):
    """A failure that another attempt may get past."""


class Broken(Exception):
    """A failure of every attempt."""


class Picky(Exception):
    """A failure that depends on the input alone."""


TASK_ERRORS = ("Wobble", "Broken", "Picky", "NonRetryable", "RetryAfter")


def shape(value: Any) -> Any:
    """The value with the engine's own sentences taken out, which no test should repeat."""
    if isinstance(value, MapError):
        message = value.message if value.error_type in TASK_ERRORS else ""
        return ("MapError", value.index, value.error_type, message, value.path)
    if isinstance(value, EventTimeout):
        return ("EventTimeout", value.name)
    if isinstance(value, LoopResult):
        return ("LoopResult", value.is_done, shape(value.value))
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return value


def digest(value: Any) -> int:
    """A short fingerprint of a value."""
    return zlib.crc32(repr(shape(value)).encode())


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its name (not unique), its identity (unique), and how it behaves."""

    name: str
    ident: str
    act: Act = "mark"
    size: int = 0
    keys: tuple[str, ...] = ()
    odds: int = 2
    mood: Mood = "fine"
    failures: int = 0
    """Attempts that a flaky task fails."""
    retries: int = 0
    wait: float = 0.0
    asks: float | None = None
    """The wait that a failure asks for itself, in seconds."""
    tags: tuple[str, ...] = ()
    priority: int | None = None
    calling: Literal["inline", "thread", "async"] = "inline"

    def answer(self, value: Any, attempt: int) -> Any:
        """What the attempt returns or raises."""
        print_of_input = digest([self.ident, value])
        if self.mood == "flaky" and attempt <= self.failures:
            if self.asks is not None:
                raise RetryAfter(self.asks, f"{self.ident} asks for patience")
            raise Wobble(f"{self.ident} wobbles")
        if self.mood == "broken":
            raise Broken(f"{self.ident} is broken")
        if self.mood == "final":
            raise NonRetryable(f"{self.ident} gives up")
        if self.mood == "picky" and print_of_input % 3 == 0:
            raise Picky(f"{self.ident} does not like {print_of_input}")
        if self.act == "list":
            return [[self.ident, index, print_of_input] for index in range(self.size)]
        if self.act == "key":
            return self.keys[print_of_input % len(self.keys)]
        mark = [self.ident, print_of_input]
        if self.act == "turn":
            done = print_of_input % self.odds == 0
            return LoopResult.done(mark) if done else LoopResult.again(mark)
        return mark


@dataclass(frozen=True, slots=True)
class Child:
    """A whole workflow as a step."""

    workflow: str
    block: Block
    name: str | None = None


Step: TypeAlias = Task | Child
Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches beside one another, each with the name it was given, and their join."""

    name: str
    branches: tuple[tuple[str | None, Steps], ...]
    join: Task


@dataclass(frozen=True, slots=True)
class Map:
    """One step over a list."""

    name: str | None
    step: Step
    concurrency: int | None
    on_error: Literal["fail", "collect"]
    spread: bool = False
    """Whether its items are instances of their own."""


@dataclass(frozen=True, slots=True)
class Route:
    """A choice by key; `keys` are declared, `arms` covers some or all of them."""

    name: str
    key: Task
    keys: tuple[str, ...]
    arms: tuple[tuple[str, Steps], ...]
    default: Steps | None


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps repeated until the last says done."""

    name: str | None
    steps: Steps
    max_iterations: int
    on_max: Literal["fail", "exit_with_last"]


@dataclass(frozen=True, slots=True)
class Delay:
    """A pause of some seconds, or until a moment (seconds since 1970)."""

    name: str
    seconds: float | None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause until an event."""

    name: str | None
    event: str
    timeout: float | None
    on_timeout: Literal["fail", "continue"]


Node: TypeAlias = Task | Child | Fork | Map | Route | Loop | Delay | Wait
Block: TypeAlias = tuple[Node, ...]


def callee(made: Task) -> Callable[[Any], Any]:
    """The function a workflow runs for this task."""

    def attempt() -> int:
        context = get_task_context()
        return 1 if context is None else context.attempt

    mark = task(
        name=made.name,
        retries=RetryPolicy(max_retries=made.retries, initial_delay_secs=made.wait),
        tags=made.tags,
        priority=made.priority,
        run_in=None if made.calling == "async" else made.calling,
    )
    if made.calling == "async":

        async def run_async(value: Any) -> Any:
            return made.answer(value, attempt())

        return mark(run_async)

    def run(value: Any) -> Any:
        answer = made.answer(value, attempt())
        # A body may say its turn as a dict, too.
        return answer.to_dict() if isinstance(answer, LoopResult) else answer

    return mark(run)


def build(name: str, block: Block) -> Workflow[Any, Any]:
    """The tree as a workflow."""
    flow: Any = Flow(name)
    for node in block:
        flow = _add(flow, node)
    workflow: Workflow[Any, Any] = flow.build()
    return workflow


def _add(flow: Any, node: Node) -> Any:
    match node:
        case Task():
            return flow.then(callee(node))
        case Child():
            return flow.then_flow(_callable(node), name=node.name)
        case Fork():
            fork = flow.fork(name=node.name)
            for name, steps in node.branches:
                fork = fork.branch(*map(_callable, steps), name=name)
            return fork.join(callee(node.join))
        case Map():
            return flow.map(
                _callable(node.step),
                concurrency=node.concurrency,
                on_error=node.on_error,
                name=node.name,
                spread=node.spread,
            )
        case Route():
            route = flow.route(callee(node.key), keys=node.keys, name=node.name)
            for key, steps in node.arms:
                route = route.branch(key, *map(_callable, steps))
            if node.default is not None:
                route = route.default_branch(*map(_callable, node.default))
            return route.done()
        case Loop():
            return flow.loop(
                *map(_callable, node.steps),
                max_iterations=node.max_iterations,
                on_max=node.on_max,
                name=node.name,
            )
        case Delay():
            if node.until is not None:
                return flow.delay_until(node.name, datetime.fromtimestamp(node.until, UTC))
            return flow.delay(node.name, node.seconds)
        case Wait():
            return flow.wait_for_event(
                node.event, node=node.name, timeout=node.timeout, on_timeout=node.on_timeout
            )


def _callable(step: Step) -> Any:
    return callee(step) if isinstance(step, Task) else build(step.workflow, step.block)
