"""The tree under construction: what a flow has been told so far, checked piece by piece.

`Flow` is the face that authors and type checkers see; this is what it writes to. Every call either
adds a whole node or refuses and leaves the tree as it was. Names and paths are made unique by the
engine, not here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from ._draw import Block
from ._duration import Duration, parse_duration
from ._policy import check_name, whole_number
from ._task import TaskDef, define_task
from ._values import OnError, OnMax, OnTimeout
from ._workflow import Workflow

__all__ = ["Assembly", "Step"]

Step: TypeAlias = Callable[..., Any] | Workflow[Any, Any]
"""What may stand as a step: anything callable with one argument, or a built workflow."""

E = TypeVar("E", bound=StrEnum)
Branch: TypeAlias = tuple[str, Block]

# The engine's own limits, known here so that the refusal names the argument.
_MAX_LOOP_TURNS = 1_000_000_000
_MAX_CONCURRENCY = 1_000_000


class Assembly:
    """The nodes and tasks of one flow."""

    __slots__ = ("_lambdas", "metadata", "name", "nodes", "pending", "tasks")

    def __init__(self, name: str, metadata: Mapping[str, Any] | None) -> None:
        self.name: str = check_name("workflow name", name)
        self.metadata: dict[str, Any] | None = _checked_metadata(self.where, metadata)
        self.nodes: Block = []
        self.tasks: list[TaskDef] = []
        self.pending: str | None = None
        self._lambdas = 0

    @property
    def where(self) -> str:
        """How messages name this flow."""
        return f"flow {self.name!r}"

    def build(self) -> Workflow[Any, Any]:
        """The workflow as it stands; the tree may grow on afterwards without changing it."""
        self.ready("build()")
        if not self.nodes:
            raise ValueError(f"{self.where} has no steps; add one with .then(…) before .build()")
        return Workflow(self.name, list(self.nodes), self.tasks, self.metadata)

    def ready(self, call: str) -> None:
        """Refuse to go on while a fork or a route is unfinished."""
        if self.pending is not None:
            raise ValueError(f"{self.where}: {self.pending} before {call}")

    def begin(self, call: str, finish: str) -> None:
        """Note that something is open, and how to finish it."""
        self.ready(call)
        self.pending = finish

    def add_step(self, step: Step, name: str | None) -> None:
        """A task, or a whole workflow as a child."""
        if isinstance(step, Workflow):
            self.add_child(step, name)
            return
        self.ready("then()")
        index = self.define(step, name)
        self.nodes.append(("task", self.tasks[index].name, index))

    def add_child(self, workflow: object, name: str | None) -> None:
        """A whole workflow as one node."""
        self.ready("then_flow()")
        if not isinstance(workflow, Workflow):
            raise TypeError(
                f"{self.where}: then_flow() takes a built workflow, got {type(workflow).__name__}; "
                "call .build() on a flow, and use .then(…) for a function"
            )
        node = self._label("child name", workflow.workflow_id if name is None else name)
        self.nodes.append(("child", node, workflow.workflow_id, self._inline(workflow)))

    def add_map(
        self,
        step: Step,
        concurrency: int | None,
        on_error: str,
        name: str | None,
        spread: bool,
    ) -> None:
        """One body over every item of a list."""
        self.ready("map()")
        place = f"{self.where}, map"
        if not isinstance(spread, bool):
            raise TypeError(f"{place}: spread must be a bool, got {type(spread).__name__}")
        if spread and concurrency is not None:
            raise ValueError(
                f"{place}: concurrency bounds the items that one worker does at once, and with "
                "spread=True any worker may take them; bound the workers' own concurrency, or give "
                "the step tags and serve those with the workers you want"
            )
        if concurrency is not None:
            concurrency = whole_number(f"{place}: concurrency", concurrency, 1, _MAX_CONCURRENCY)
        policy = _choice(OnError, f"{place}: on_error", on_error)
        label = None if name is None else self._label("map name", name)
        label, body = self.chain([step], "map", name=label)
        if spread:
            self.nodes.append(("spread", label, body, policy))
        else:
            self.nodes.append(("map", label, body, concurrency, policy))

    def add_loop(
        self, steps: Sequence[Step], max_iterations: int, on_max: str, name: str | None
    ) -> None:
        """A body repeated until it says done."""
        self.ready("loop()")
        place = f"{self.where}, loop"
        turns = whole_number(f"{place}: max_iterations", max_iterations, 1, _MAX_LOOP_TURNS)
        policy = _choice(OnMax, f"{place}: on_max", on_max)
        label = None if name is None else self._label("loop name", name)
        label, body = self.chain(steps, "loop", name=label)
        self.nodes.append(("loop", label, body, turns, policy))

    def add_delay(self, name: str, duration: Duration) -> None:
        """A pause of a given length."""
        self.ready("delay()")
        name = self._label("delay name", name)
        seconds = parse_duration(duration, name=f"{self.where}, delay {name!r}: duration")
        self.nodes.append(("delay", name, seconds))

    def add_delay_until(self, name: str, moment: datetime) -> None:
        """A pause until a given moment."""
        self.ready("delay_until()")
        name = self._label("delay name", name)
        place = f"{self.where}, delay {name!r}"
        if not isinstance(moment, datetime):
            raise TypeError(f"{place}: the moment must be a datetime, got {type(moment).__name__}")
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise ValueError(
                f"{place}: the moment {moment.isoformat()} has no time zone; "
                "say which, for example datetime(…, tzinfo=UTC)"
            )
        self.nodes.append(("delay_until", name, moment.astimezone(UTC).timestamp()))

    def add_wait(
        self, event: str, node: str | None, timeout: Duration | None, on_timeout: str
    ) -> None:
        """A pause until an event arrives."""
        self.ready("wait_for_event()")
        event = self._label("event name", event)
        label = event if node is None else self._label("node name", node)
        place = f"{self.where}, wait {label!r}"
        limit = None
        if timeout is not None:
            limit = parse_duration(timeout, name=f"{place}: timeout", allow_zero=False)
        policy = _choice(OnTimeout, f"{place}: on_timeout", on_timeout)
        self.nodes.append(("wait", label, event, limit, policy))

    def add_fork(
        self, name: str, branches: list[Branch], join: Callable[..., Any], join_name: str | None
    ) -> None:
        """Branches that run at the same time, and the task that takes their outputs."""
        if not branches:
            raise ValueError(
                f"{self.where}: fork {name!r} has no branches; add .branch(…) before .join(…)"
            )
        if isinstance(join, Workflow):
            raise TypeError(
                f"{self.where}: join() takes a function; join with one, then use .then_flow(…)"
            )
        index = self.define(join, join_name)
        self.nodes.append(("fork", name, branches))
        self.nodes.append(("task", self.tasks[index].name, index))
        self.pending = None

    def add_route(self, name: str, key: int, arms: list[Branch], default: Block | None) -> None:
        """One of several arms, chosen by the task of index `key`."""
        self.nodes.append(("route", name, key, arms, default))
        self.pending = None

    def define(
        self, fn: Callable[..., Any], name: str | None = None, spare: str | None = None
    ) -> int:
        """The index of a new use of a function; `spare` is a name for one that has none."""
        lambda_name = self._next_lambda if spare is None else lambda: spare
        self.tasks.append(define_task(fn, where=self.where, name=name, lambda_name=lambda_name))
        return len(self.tasks) - 1

    def chain(
        self,
        steps: Iterable[Step],
        what: str,
        *,
        name: str | None = None,
        first_name: str | None = None,
        taken: Iterable[str] = (),
    ) -> Branch:
        """Steps in a row as a block, and the name it goes by.

        Args:
            steps: The steps.
            what: How messages name the place.
            name: The name the block goes by; otherwise that of its first step. A first step that
                has no name of its own, like a lambda, takes it as well.
            first_name: The first step's name, whatever its own.
            taken: Names it must not go by.
        """
        steps = list(steps)
        if not steps:
            raise ValueError(f"{self.where}: {what} has no steps; give it at least one")
        tasks, lambdas = len(self.tasks), self._lambdas
        try:
            block, own = self._block(steps, name, first_name)
            key = own if name is None else name
            if key in taken:
                raise ValueError(
                    f"{self.where}: {what} has the name {key!r}, which another has already; "
                    "say name=… to tell them apart"
                )
        except BaseException:
            del self.tasks[tasks:]
            self._lambdas = lambdas
            raise
        return key, block

    def _block(
        self, steps: list[Step], name: str | None, first_name: str | None
    ) -> tuple[Block, str]:
        """The nodes for these steps, and the first one's name."""
        first = steps[0]
        if len(steps) == 1 and isinstance(first, Workflow) and first_name is None:
            return self._inline(first), first.workflow_id
        block: Block = []
        for step in steps:
            given = first_name if step is first and not block else None
            if isinstance(step, Workflow):
                workflow = step.workflow_id
                label = workflow if given is None else self._label("step name", given)
                block.append(("child", label, workflow, self._inline(step)))
            else:
                index = self.define(step, given, None if block else name)
                block.append(("task", self.tasks[index].name, index))
        return block, block[0][1]

    def _inline(self, workflow: Workflow[Any, Any]) -> Block:
        block = workflow.inlined(len(self.tasks))
        self.tasks.extend(workflow.tasks)
        return block

    def _next_lambda(self) -> str:
        self._lambdas += 1
        return f"lambda_{self._lambdas - 1}"

    def _label(self, what: str, name: str) -> str:
        return check_name(f"{self.where}: {what}", name)


def _choice(options: type[E], what: str, value: str) -> str:
    """One of the words of an enumeration, as plain text."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, got {type(value).__name__}")
    try:
        return options(value).value
    except ValueError:
        words = " or ".join(repr(option.value) for option in options)
        raise ValueError(f"{what} must be {words}, got {value[:100]!r}") from None


def _checked_metadata(where: str, metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"{where}: metadata must be a dict, got {type(metadata).__name__}")
    for key in metadata:
        if not isinstance(key, str):
            raise TypeError(f"{where}: the keys of metadata must be str, got {key!r}")
    return copy.deepcopy(dict(metadata))
