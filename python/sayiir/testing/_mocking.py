"""Mocks: what stands in for a task in a test, without a change of the workflow.

A mocked workflow is a copy with the same nodes and the same definition hash; only the function that
the engine calls is another one. Around it everything stays: the step is retried, times out, is
recorded and converts its input as the task's own annotations say. This module knows no backend.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from sayiir._context import get_task_context
from sayiir._signature import calling_signature, input_parameter
from sayiir._task import MODE_ASYNC, MODE_PROCESS, MODE_THREAD, TaskDef, define_task
from sayiir._workflow import Workflow

__all__ = ["Mock", "Mocks", "stand_in", "task_indices", "with_tasks"]

In = TypeVar("In")
Out = TypeVar("Out")

Target = str | Callable[..., Any]


class Mock:
    """One mock of a task, made by `TestEnvironment.mock` or `spy`; it is in place until removed.

    As a context manager it gives its `calls`, and is removed at the end of the block.

    >>> from sayiir import Flow
    >>> from sayiir.testing import TestEnvironment
    >>> bill = Flow("bill").then(lambda cents: cents + 19, name="charge").build()
    >>> env = TestEnvironment()
    >>> charge = env.mock("charge", returns=0)
    >>> env.sync.run(bill, 100).output, charge.calls, charge.paths
    (0, [100], ['charge'])
    >>> charge.remove()
    >>> env.sync.run(bill, 100).output
    119
    >>> env.close()
    """

    def __init__(
        self, owner: Mocks, target: Target, answer: Callable[[Any], Any] | None, times: int | None
    ) -> None:
        self.target = target
        """What it stands for, as it was given: a name, a path or a function."""
        self.calls: list[Any] = []
        """What the task was given, call by call; `None` for a task without a parameter."""
        self.paths: list[str] = []
        """The path of the step of each call."""
        self.attempts: list[int] = []
        """Which attempt of its step each call was, from 1."""
        self._owner = owner
        self._answer = answer
        self._left = times
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """How messages name what it stands for."""
        return repr(self.target) if isinstance(self.target, str) else _name_of(self.target)

    def remove(self) -> None:
        """Let the task run again; removing it twice is fine."""
        self._owner.remove(self)

    def take(self, given: Any) -> bool:
        """Record a call, if this mock is still to answer; `False`: its `times` are over."""
        context = get_task_context()
        with self._lock:
            if self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            self.calls.append(given)
            self.paths.append("" if context is None else context.path)
            self.attempts.append(1 if context is None else context.attempt)
        return True

    def answer(self, value: Any, otherwise: Callable[[Any], Any]) -> Any:
        """What the call comes to; `otherwise` is what a spy lets run."""
        return otherwise(value) if self._answer is None else self._answer(value)

    def __enter__(self) -> list[Any]:
        return self.calls

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Mock of {self.label}, called {len(self.calls)} times>"


class Mocks:
    """The mocks of one environment; the one that was made last answers first."""

    def __init__(self) -> None:
        self._mocks: list[Mock] = []
        self.edition: int = 0
        """Changes with every mock that comes or goes."""

    def __bool__(self) -> bool:
        return bool(self._mocks)

    def add(self, target: Target, answer: Callable[[Any], Any] | None, times: int | None) -> Mock:
        """One more.

        Raises:
            TypeError: `target` is neither text nor callable, or `times` no whole number.
            ValueError: `times` is below 1.
        """
        if not isinstance(target, str) and not callable(target):
            raise TypeError(
                "a mock stands for a task's name, its path or its function, "
                f"got {type(target).__name__}"
            )
        if times is not None:
            if isinstance(times, bool) or not isinstance(times, int):
                raise TypeError(f"times must be a whole number, got {type(times).__name__}")
            if times < 1:
                raise ValueError(f"times must be 1 or more, got {times}")
        mock = Mock(self, target, answer, times)
        self._mocks.append(mock)
        self.edition += 1
        return mock

    def mock(
        self,
        target: Target,
        *,
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> Mock:
        """One more that answers. See `TestEnvironment.mock`."""
        return self.add(target, _answer_of(returns, raises, side_effect), times)

    def remove(self, mock: Mock) -> None:
        """Take it away, if it is there."""
        if mock in self._mocks:
            self._mocks.remove(mock)
            self.edition += 1

    def check(self, workflows: Sequence[Workflow[Any, Any]]) -> None:
        """Refuse a mock of a task that no workflow has.

        Raises:
            LookupError: There is one.
        """
        for mock in self._mocks:
            if any(task_indices(workflow, mock.target) for workflow in workflows):
                continue
            raise LookupError(_unknown(mock.label, workflows))

    def applied(self, workflow: Workflow[In, Out]) -> Workflow[In, Out]:
        """The workflow with the mocks in place; itself, if none is for it."""
        found: dict[int, list[Mock]] = {}
        for mock in reversed(self._mocks):
            for index in task_indices(workflow, mock.target):
                found.setdefault(index, []).append(mock)
        changed = {
            index: stand_in(workflow.tasks[index], _chosen(workflow.tasks[index], mocks))
            for index, mocks in found.items()
        }
        return with_tasks(workflow, changed) if changed else workflow


def _answer_of(
    returns: Any, raises: BaseException | type[BaseException] | None, side_effect: Any
) -> Callable[[Any], Any]:
    """What a mock does when it is called, from the three ways to say it.

    Raises:
        TypeError: More than one was given, or one is of the wrong kind.
    """
    given = [returns is not None, raises is not None, side_effect is not None]
    if sum(given) > 1:
        raise TypeError("a mock has one of returns=, raises= and side_effect=; got several")
    if raises is not None:
        return _raising(raises)
    if side_effect is not None:
        return define_task(side_effect, where="side_effect of a mock", name="side_effect").call
    return lambda _: returns


def _raising(error: BaseException | type[BaseException]) -> Callable[[Any], Any]:
    given: object = error
    if not isinstance(given, BaseException) and not (
        isinstance(given, type) and issubclass(given, BaseException)
    ):
        raise TypeError(f"raises must be an exception or its class, got {type(given).__name__}")

    def fail(_: Any) -> Any:
        # One object may be raised many times; it is not to collect the tracebacks of all.
        raise error.with_traceback(None) if isinstance(error, BaseException) else error

    return fail


def _chosen(task: TaskDef, mocks: list[Mock]) -> Callable[[Any], Any]:
    """What is called in the task's place: the first of the mocks that is still to answer."""
    signature = calling_signature(task.original)
    takes_input = signature is None or input_parameter(signature) is not None

    def call(value: Any) -> Any:
        for mock in mocks:
            if mock.take(value if takes_input else None):
                return mock.answer(value, task.call)
        return task.call(value)

    return call


def stand_in(task: TaskDef, call: Callable[[Any], Any]) -> TaskDef:
    """The same use of a task with another function, called where the task is called.

    A task for a process of its own is called in a thread: what a test watches is in its process.
    """
    mode = MODE_THREAD if task.mode == MODE_PROCESS else task.mode
    if mode != MODE_ASYNC:
        return replace(task, call=call, mode=mode)

    async def awaited(value: Any) -> Any:
        result = call(value)
        return await result if inspect.isawaitable(result) else result

    return replace(task, call=awaited)


def with_tasks(workflow: Workflow[In, Out], changed: dict[int, TaskDef]) -> Workflow[In, Out]:
    """A copy of a workflow in which some uses of tasks are others; its hash is the same."""
    tasks = [changed.get(index, task) for index, task in enumerate(workflow.tasks)]
    return Workflow(workflow.workflow_id, workflow.inlined(0), tasks, workflow.metadata)


def task_indices(workflow: Workflow[Any, Any], target: Target) -> list[int]:
    """Which uses of a task this names: every use of a name or of a function, or one path.

    >>> from sayiir import Flow
    >>> twice = Flow("twice").then(abs, name="a").then(abs, name="b").build()
    >>> task_indices(twice, "b"), task_indices(twice, abs), task_indices(twice, "c")
    ([1], [0, 1], [])
    """
    if not isinstance(target, str):
        return [at for at, task in enumerate(workflow.tasks) if task.original == target]
    by_name = [at for at, task in enumerate(workflow.tasks) if task.name == target]
    if by_name:
        return by_name
    return [
        task
        for path, _, _, task, _ in workflow.program.nodes()
        if path == target and task is not None
    ]


def _unknown(label: str, workflows: Sequence[Workflow[Any, Any]]) -> str:
    """What to say of a mock that is for nothing."""
    names = sorted({task.name for workflow in workflows for task in workflow.tasks})
    near = difflib.get_close_matches(label.strip("'"), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    owners = " or ".join(sorted({repr(workflow.workflow_id) for workflow in workflows}))
    return (
        f"there is a mock of {label}{hint}, but no such task in {owners}, which has "
        f"{', '.join(map(repr, names))}; a path is as in workflow.iter_nodes(). If it is for a "
        "workflow that comes later, call env.add(workflow) first"
    )


def _name_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__name__)
