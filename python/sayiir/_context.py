"""What a running task can learn about itself.

The engine puts its own record of the step into the context variable `current` before it calls the
task; a `TaskContext` is made from it only when somebody asks, so a task that does not ask pays
for one assignment. Being a context variable it is also seen in `asyncio.to_thread` and in asyncio
tasks started by the task. This module reads the record and never changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ._policy import TaskMetadata

__all__ = [
    "StepLike",
    "TaskContext",
    "TaskExecutionContext",
    "TaskLike",
    "current",
    "get_task_context",
]


class TaskLike(Protocol):
    """The part of a task's definition that a context shows."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def metadata(self) -> TaskMetadata:
        """What was said in `@task(…)`."""


class StepLike(Protocol):
    """The engine's record of one attempt of one step."""

    @property
    def instance_id(self) -> str:
        """The instance the step belongs to."""

    @property
    def workflow_id(self) -> str:
        """The name of the workflow."""

    @property
    def path(self) -> str:
        """Where in the instance the step is."""

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    def deadline(self) -> float | None:
        """When the attempt times out, in seconds since 1970 UTC."""

    @property
    def task(self) -> TaskLike:
        """The task that runs."""

    @property
    def workflow_metadata(self) -> Mapping[str, Any] | None:
        """What was given as `Flow(metadata=…)`."""

    @property
    def cancelled(self) -> bool:
        """Whether the outcome of this attempt is no longer wanted."""


current: ContextVar[StepLike | None] = ContextVar("sayiir_step", default=None)
"""The step that runs in this context; set by the engine, read by `get_task_context`."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """Who is running: the instance, the step, the attempt.

    A task obtains it with `TaskContext.current()`; `get_task_context` is for code that may as well
    run outside of a task.

    Everything is as of the start of the attempt, except `cancelled`, which is looked up each time.
    """

    workflow_id: str
    """The name of the workflow."""
    instance_id: str
    """The instance the step belongs to."""
    task_id: str
    """The task's name."""
    path: str
    """Where in the instance the step is, such as `fork/left/charge` or `parse[17]`."""
    attempt: int
    """Which attempt this is: 1 for the first."""
    deadline: float | None
    """When the attempt times out, in seconds since 1970 UTC; `None` without a `timeout`."""
    metadata: TaskMetadata
    """What was said in `@task(…)`."""
    workflow_metadata: dict[str, Any] | None
    """What was given as `Flow(metadata=…)`."""
    _step: StepLike = field(repr=False, compare=False)

    @classmethod
    def current(cls) -> TaskContext:
        """The context of the task that is running.

        Raises:
            RuntimeError: No task is running here: it is called outside of one, or in a thread that
                the task started without its context (`asyncio.to_thread` hands it on).

        >>> from sayiir import Flow, TaskContext, run_workflow
        >>> def who(greeting: str) -> str:
        ...     return f"{greeting}, {TaskContext.current().instance_id}"
        >>> run_workflow(Flow("call").then(who).build(), "hi", instance_id="c-1")
        'hi, c-1'
        """
        step = current.get()
        if step is None:
            raise RuntimeError(
                "TaskContext.current() is for a running task, and none runs here; a thread of your "
                "own needs contextvars.copy_context().run(…), and get_task_context() is None "
                "outside of a task"
            )
        return cls.of(step)

    @classmethod
    def of(cls, step: StepLike) -> TaskContext:
        """The context of the engine's record of a step."""
        metadata = step.workflow_metadata
        return cls(
            workflow_id=step.workflow_id,
            instance_id=step.instance_id,
            task_id=step.task.name,
            path=step.path,
            attempt=step.attempt,
            deadline=step.deadline,
            metadata=step.task.metadata,
            workflow_metadata=None if metadata is None else dict(metadata),
            _step=step,
        )

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more: it timed out or was cancelled.

        A task in a thread cannot be stopped from outside; one that runs for long should look at
        this from time to time and return early, as its result will be discarded.
        """
        return self._step.cancelled

    @property
    def idempotency_key(self) -> str:
        """The same text for every attempt of this step, also after a crash, and for no other step.

        Hand it to the services the task calls, so that a repeated call has no second effect.
        """
        return f"{self.instance_id}:{self.path}"


TaskExecutionContext = TaskContext
"""The name that 1.0.0 gave it."""


def get_task_context() -> TaskContext | None:
    """The context of the task that is running, or `None` outside of a task.

    Within a task, `TaskContext.current()` is the same, and never `None`.

    >>> get_task_context() is None
    True
    """
    step = current.get()
    return None if step is None else TaskContext.of(step)
