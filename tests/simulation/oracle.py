"""The oracle: what a flow must give, by plain recursion over its tree.

It reads the tree of `tests/simulation/tree.py` and nothing else; it has its own idea of paths,
retries, branches and failures, taken from the documentation. What comes from outside it is told by
a `Tape`: which answer a wait got, and which of several competing failures was the first.

Besides the outcome it says what every body must have been given, what it must have answered, and
from when on each timer runs. Refuses to know time, workers, stores and the engine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeAlias

from sayiir import EventTimeout, LoopResult, MapError, NonRetryable

from .tree import Block, Child, Delay, Fork, Loop, Map, Node, Route, Step, Steps, Task, Wait


class _TimedOut:
    """The answer of a wait whose time was over."""


TIMED_OUT: Final = _TimedOut()


class Tape(Protocol):
    """What happened, as far as the flow alone does not decide it."""

    def answer(self, path: str, event: str) -> object:
        """The payload this wait got, `TIMED_OUT`, or `None` while it got nothing."""

    def failed(self, failure: Failure) -> bool:
        """Whether this failure was the one that came first in its surroundings."""

    def items(self, path: str, given: list[Any]) -> Sequence[Tape]:
        """What happened in the items of the spread map at this path, that were given this."""

    def cancelled(self) -> bool:
        """Whether it ended because somebody cancelled it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error for good: the name of its class, where, and its text if a task said it."""

    error_type: str
    path: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """An output."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """Any one of these failures."""

    failures: frozenset[Failure]


@dataclass(frozen=True, slots=True)
class Open:
    """Not at its end: something from outside is still to come."""


Outcome: TypeAlias = Value | Failed | Open
After: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """One step that runs a task: what goes in, how many attempts it takes, what comes out."""

    task: Task
    given: Any
    attempts: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Timer:
    """A delay or a wait: it begins when all of `after` have ended (at the start if empty)."""

    path: str
    after: After
    seconds: float | None
    until: float | None
    event: str | None = None


@dataclass(slots=True)
class Oracle:
    """Works out one instance of a flow.

    >>> from tests.simulation.tree import Task
    >>> class Nothing:
    ...     def answer(self, path, event): return None
    ...     def failed(self, failure): return True
    ...     def items(self, path, given): return [self for _ in given]
    ...     def cancelled(self): return False
    >>> oracle = Oracle(Nothing())
    >>> outcome = oracle.run((Task("a", "t1"), Task("a", "t2")), "input")
    >>> list(oracle.bodies), outcome.value[0]
    (['a', 'a~2'], 't2')
    """

    tape: Tape
    bodies: dict[str, Body] = field(default_factory=dict)
    timers: dict[str, Timer] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    """Paths of bodies that a failure beside them may have stopped or kept from beginning."""
    rivals: list[frozenset[Failure]] = field(default_factory=list)
    """Sets of failures of which exactly one happened."""
    faint: list[frozenset[Failure]] = field(default_factory=list)
    """Sets of failures of which one at most happened: another failure may have come before."""

    def run(self, block: Block, given: Any) -> Outcome:
        """The outcome of the whole flow."""
        outcome, _ = self._block(block, "", given, ())
        if isinstance(outcome, Failed):
            self.rivals.append(outcome.failures)
        return outcome

    def _block(
        self, block: Block, prefix: str, given: Any, after: After, *, alone: bool = False
    ) -> tuple[Outcome, After]:
        """Nodes in a row. `alone`: a single task has no path of its own here."""
        for path, node in _paths(block, prefix, alone=alone):
            outcome, after = self._node(node, path, given, after)
            if not isinstance(outcome, Value):
                return outcome, after
            given = outcome.value
        return Value(given), after

    def _node(self, node: Node, path: str, given: Any, after: After) -> tuple[Outcome, After]:
        match node:
            case Task():
                return self._task(node, path, given), (path,)
            case Child():
                return self._block(node.block, path, given, after)
            case Fork():
                return self._fork(node, path, given, after)
            case Map():
                return self._map(node, path, given, after)
            case Route():
                return self._route(node, path, given)
            case Loop():
                return self._loop(node, path, given, after)
            case Delay():
                self.timers[path] = Timer(path, after, node.seconds, node.until)
                return Value(given), (path,)
            case Wait():
                self.timers[path] = Timer(path, after, node.timeout, None, node.event)
                return self._wait(node, path), (path,)

    def _task(self, task: Task, path: str, given: Any) -> Outcome:
        outcome: Outcome = Open()
        attempt = 0
        for attempt in range(1, task.retries + 2):
            try:
                answer = task.answer(given, attempt)
            except NonRetryable as error:
                outcome = _failed("NonRetryable", path, str(error))
                break
            except Exception as error:
                outcome = _failed(type(error).__name__, path, str(error))
            else:
                outcome = Value(answer)
                break
        self.bodies[path] = Body(task, given, attempt, outcome)
        return outcome

    def _fork(self, fork: Fork, path: str, given: Any, after: After) -> tuple[Outcome, After]:
        outcomes: dict[str, Outcome] = {}
        ends: list[str] = []
        for name, steps in fork.branches:
            branch = _first_name(steps) if name is None else name
            place = f"{path}/{_escaped(branch)}"
            outcomes[branch], end = self._block(_block_of(steps), place, given, after)
            ends.extend(end)
        whole = _together(outcomes.values())
        if whole is not None:
            return whole, tuple(ends)
        values = {name: out.value for name, out in outcomes.items() if isinstance(out, Value)}
        return Value(values), tuple(ends)

    def _map(self, node: Map, path: str, given: Any, after: After) -> tuple[Outcome, After]:
        if not isinstance(given, list):
            return _failed("TypeError", path), (path,)
        if node.spread:
            return self._spread(node, path, given), (path,)
        outcomes: list[Outcome] = []
        ends: list[str] = []
        body = _block_of((node.step,))
        for index, item in enumerate(given):
            known, rivals = len(self.bodies), len(self.rivals)
            outcome, end = self._block(body, f"{path}[{index}]", item, after, alone=True)
            if node.on_error == "collect" and isinstance(outcome, Failed):
                self.optional.update(list(self.bodies)[known:])
                self.faint += self.rivals[rivals:]
                del self.rivals[rivals:]
                outcome = self._collected(index, outcome)
            outcomes.append(outcome)
            ends.extend(end)
        whole = _together(outcomes)
        if whole is not None:
            return whole, tuple(ends)
        return Value([out.value for out in outcomes if isinstance(out, Value)]), (
            tuple(ends) if ends else after
        )

    def _spread(self, node: Map, path: str, given: list[Any]) -> Outcome:
        """Each item is an instance that has an oracle of its own."""
        outcomes: list[Outcome] = []
        tapes = self.tape.items(path, given)
        for index, (item, tape) in enumerate(zip(given, tapes, strict=True)):
            place = f"{path}[{index}]"
            outcome = Oracle(tape).run(_block_of((node.step,)), item)
            if tape.cancelled():
                outcome = _failed("WorkflowCancelled", place)
            elif isinstance(outcome, Failed):
                happened = frozenset(one for one in outcome.failures if tape.failed(one))
                known = happened or outcome.failures
                outcome = Failed(
                    frozenset(replace(one, path=f"{place}/{one.path}") for one in known)
                )
                if len(happened) != 1 and node.on_error == "collect":
                    outcome = Open()
            if isinstance(outcome, Failed) and node.on_error == "collect":
                [first] = outcome.failures
                outcome = Value(MapError(index, first.error_type, first.message, first.path))
            outcomes.append(outcome)
        whole = _together(outcomes)
        return whole or Value([out.value for out in outcomes if isinstance(out, Value)])

    def _collected(self, index: int, outcome: Failed) -> Outcome:
        """The item that a failure becomes, once it is known which one it was."""
        self.rivals.append(outcome.failures)
        happened = [failure for failure in outcome.failures if self.tape.failed(failure)]
        if len(happened) != 1:
            return Open()
        first = happened[0]
        return Value(MapError(index, first.error_type, first.message, first.path))

    def _route(self, route: Route, path: str, given: Any) -> tuple[Outcome, After]:
        key = self._task(route.key, path, given)
        if not isinstance(key, Value):
            return key, (path,)
        arms = dict(route.arms)
        if key.value in arms:
            steps, place = arms[key.value], f"{path}/{_escaped(key.value)}"
        elif route.default is not None:
            steps, place = route.default, f"{path}/~default"
        else:
            return _failed("RouteKeyError", path), (path,)
        outcome, end = self._block(_block_of(steps), place, given, (path,))
        if isinstance(outcome, Value):
            outcome = Value({"branch": key.value, "result": outcome.value})
        return outcome, end

    def _loop(self, loop: Loop, path: str, given: Any, after: After) -> tuple[Outcome, After]:
        body = _block_of(loop.steps)
        for turn in range(loop.max_iterations):
            outcome, after = self._block(body, f"{path}#{turn}", given, after, alone=True)
            if not isinstance(outcome, Value):
                return outcome, after
            if not isinstance(outcome.value, LoopResult):
                return _failed("TypeError", path), (path,)
            given = outcome.value.value
            if outcome.value.is_done:
                return Value(given), after
        if loop.on_max == "fail":
            return _failed("MaxIterationsExceeded", path), (path,)
        return Value(given), after

    def _wait(self, wait: Wait, path: str) -> Outcome:
        answer = self.tape.answer(path, wait.event)
        if answer is None:
            return Open()
        if isinstance(answer, _TimedOut):
            if wait.on_timeout == "fail":
                return _failed("EventTimeout", path)
            return Value(EventTimeout(wait.event))
        return Value(answer)


def _failed(error_type: str, path: str, message: str = "") -> Failed:
    return Failed(frozenset({Failure(error_type, path, message)}))


def _together(outcomes: Iterable[Outcome]) -> Outcome | None:
    """What spoils a group of concurrent outcomes, if anything does: any failure beats waiting."""
    listed = list(outcomes)
    failures = [out.failures for out in listed if isinstance(out, Failed)]
    if failures:
        return Failed(frozenset().union(*failures))
    return Open() if any(isinstance(out, Open) for out in listed) else None


def item_blocks(name: str, block: Block) -> Iterator[tuple[str, Block]]:
    """What the items of all spread maps run, by name: the flow's, and the way to the map."""
    for path, node in _all_nodes(block, ""):
        if isinstance(node, Map) and node.spread:
            inner = _block_of((node.step,))
            yield f"{name}/{path}", inner
            yield from item_blocks(f"{name}/{path}", inner)


def pattern(path: str) -> str:
    """The path with `[]` and `#` in the place of every item and turn."""
    return re.sub(r"#\d+", "#", re.sub(r"\[\d+\]", "[]", path))


def _all_nodes(block: Block, prefix: str) -> Iterator[tuple[str, Node]]:
    """All nodes that an instance comes to itself, with marks for items and turns in the paths."""
    for path, node in _paths(block, prefix):
        yield path, node
        match node:
            case Child():
                yield from _all_nodes(node.block, path)
            case Fork():
                for name, steps in node.branches:
                    branch = _first_name(steps) if name is None else name
                    yield from _all_nodes(_block_of(steps), f"{path}/{_escaped(branch)}")
            case Map(spread=False):
                yield from _all_nodes(_block_of((node.step,)), f"{path}[]")
            case Route():
                for key, steps in node.arms:
                    yield from _all_nodes(_block_of(steps), f"{path}/{_escaped(key)}")
                if node.default is not None:
                    yield from _all_nodes(_block_of(node.default), f"{path}/~default")
            case Loop():
                yield from _all_nodes(_block_of(node.steps), f"{path}#")


def _paths(block: Block, prefix: str, *, alone: bool = False) -> Iterator[tuple[str, Node]]:
    """The nodes of a block with their paths. `alone`: a single task has none of its own here."""
    nodes = list(_with_joins(block))
    seen: Counter[str] = Counter()
    for node in nodes:
        segment = _escaped(_name(node))
        seen[segment] += 1
        if seen[segment] > 1:
            segment = f"{segment}~{seen[segment]}"
        path = f"{prefix}/{segment}" if prefix else segment
        lone = alone and len(nodes) == 1 and isinstance(node, Task)
        yield prefix if lone else path, node


def _with_joins(block: Block) -> Iterable[Node]:
    """The nodes as they stand in a row; a join follows its fork under a name of its own."""
    for node in block:
        yield node
        if isinstance(node, Fork):
            yield node.join


def _block_of(steps: Steps) -> Block:
    """Steps as nodes; a workflow that is the only step stands for its own nodes."""
    only = steps[0]
    return only.block if len(steps) == 1 and isinstance(only, Child) else steps


def _first_name(steps: Steps) -> str:
    return _step_name(steps[0])


def _step_name(step: Step) -> str:
    return step.name if isinstance(step, Task) else step.workflow


def _name(node: Node) -> str:
    """What a node is called when the author gave it no name."""
    match node:
        case Child():
            return node.workflow if node.name is None else node.name
        case Map():
            return _step_name(node.step) if node.name is None else node.name
        case Loop():
            return _first_name(node.steps) if node.name is None else node.name
        case Wait():
            return node.event if node.name is None else node.name
        case _:
            return node.name


def _escaped(name: str) -> str:
    """A name as one segment of a path."""
    return "".join(f"%{ord(char):02X}" if char in "/[]#~%" else char for char in name)
