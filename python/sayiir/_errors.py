"""The exceptions of the package, all in one tree.

::

    SayiirError (RuntimeError)
    ├─ WorkflowError
    │  ├─ TaskError                    .task .path .error_type .message .traceback
    │  │  └─ TaskTimeout               also a TimeoutError
    │  ├─ WorkflowFailed               .status
    │  ├─ WorkflowCancelled            .status
    │  ├─ InstanceAlreadyExistsError
    │  ├─ DefinitionMismatchError      .expected .found
    │  └─ BackendError
    │     ├─ InstanceNotFoundError     also a LookupError
    │     ├─ InvalidStateError         .state
    │     ├─ LeaseLostError
    │     └─ BackendUnavailableError   also a ConnectionError
    └─ CodecError
       ├─ EncodeError                  also a TypeError
       ├─ DecodeError                  also a ValueError
       └─ SnapshotFormatError

    RetryAfter (Exception)             raised by a task: try again after this long
    NonRetryable (Exception)           raised by a task: do not try again

Wrong arguments are plain `ValueError` and `TypeError`. Every exception here can be pickled, so it
crosses process borders with its attributes. Errors that concern one instance carry its
`instance_id`. This module decides nothing: who raises what is said where it is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._duration import Duration, parse_duration

if TYPE_CHECKING:
    from ._status import WorkflowStatus

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "CodecError",
    "DecodeError",
    "DefinitionMismatchError",
    "EncodeError",
    "InstanceAlreadyExistsError",
    "InstanceNotFoundError",
    "InvalidStateError",
    "LeaseLostError",
    "NonRetryable",
    "RetryAfter",
    "SayiirError",
    "SnapshotFormatError",
    "TaskError",
    "TaskTimeout",
    "WorkflowCancelled",
    "WorkflowError",
    "WorkflowFailed",
]


def _restore(cls: type[SayiirError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    """Put a pickled exception together again without calling its constructor.

    The constructors take keywords and compose messages; what is restored is their outcome.
    """
    # The members that are also an OSError have its layout, and only its maker can make them.
    maker = OSError if issubclass(cls, OSError) else RuntimeError
    error = maker.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class SayiirError(RuntimeError):
    """Anything that goes wrong in this package, other than a wrong argument.

    >>> issubclass(WorkflowError, SayiirError) and issubclass(CodecError, SayiirError)
    True
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class WorkflowError(SayiirError):
    """Something about a workflow, an instance of one, or the place where instances live.

    `instance_id` is the instance concerned, or `None`.

    >>> WorkflowError("it stopped", instance_id="order-1").instance_id
    'order-1'
    """

    instance_id: str | None

    def __init__(self, message: str = "", *, instance_id: str | None = None) -> None:
        super().__init__(message)
        self.instance_id = instance_id


class TaskError(WorkflowError):
    """A task failed and has no retries left.

    In the process where it happened the original exception is the `__cause__`. Elsewhere there
    are `error_type`, `message` and `traceback` as text.

    >>> print(TaskError("charge", "fork/left/charge", "ValueError", "no funds"))
    task 'charge' (at 'fork/left/charge') failed with ValueError: no funds
    """

    task: str
    """The task's name."""
    path: str
    """The path of the step within its instance."""
    error_type: str
    """Name of the exception's class."""
    message: str
    """Text of the exception."""
    traceback: str | None
    """The formatted traceback, where one is known."""

    def __init__(
        self,
        task: str,
        path: str,
        error_type: str,
        message: str,
        traceback: str | None = None,
        *,
        instance_id: str | None = None,
    ) -> None:
        place = f"task {task!r}" if task == path else f"task {task!r} (at {path!r})"
        if instance_id is not None:
            place += f" of instance {instance_id!r}"
        cause = f"{error_type}: {message}" if message else error_type
        super().__init__(f"{place} failed with {cause}", instance_id=instance_id)
        self.task = task
        self.path = path
        self.error_type = error_type
        self.message = message
        self.traceback = traceback


class TaskTimeout(TaskError, TimeoutError):
    """An attempt of a task took longer than its `timeout` and has no retries left.

    >>> try:
    ...     raise TaskTimeout("charge", "charge", "TaskTimeout", "still running after 30 s")
    ... except TimeoutError as error:
    ...     print(error)
    task 'charge' failed with TaskTimeout: still running after 30 s
    """


class WorkflowFailed(WorkflowError):
    """The instance whose result was asked for has failed.

    >>> from sayiir import Status, WorkflowStatus
    >>> status = WorkflowStatus("order-1", "order", Status.FAILED, error="no funds")
    >>> print(WorkflowFailed(status))
    instance 'order-1' of workflow 'order' failed: no funds
    """

    status: WorkflowStatus[Any]
    """The instance's status, with the error, its type and its traceback."""

    def __init__(self, status: WorkflowStatus[Any]) -> None:
        cause = ": ".join(part for part in (status.error_type, status.error) if part)
        super().__init__(
            f"{_instance(status)} failed: {cause or 'no reason was recorded'}",
            instance_id=status.instance_id,
        )
        self.status = status


class WorkflowCancelled(WorkflowError):
    """The instance whose result was asked for was cancelled.

    >>> from sayiir import Status, WorkflowStatus
    >>> status = WorkflowStatus("order-1", "order", Status.CANCELLED, cancelled_by="ops")
    >>> print(WorkflowCancelled(status))
    instance 'order-1' of workflow 'order' was cancelled by ops
    """

    status: WorkflowStatus[Any]
    """The instance's status, with the reason and who cancelled."""

    def __init__(self, status: WorkflowStatus[Any]) -> None:
        by = f" by {status.cancelled_by}" if status.cancelled_by else ""
        why = f": {status.reason}" if status.reason else ""
        super().__init__(
            f"{_instance(status)} was cancelled{by}{why}", instance_id=status.instance_id
        )
        self.status = status


def _instance(status: WorkflowStatus[Any]) -> str:
    """How a message names the instance of a status."""
    return f"instance {status.instance_id!r} of workflow {status.workflow_id!r}"


class InstanceAlreadyExistsError(WorkflowError):
    """An instance of this id exists and the conflict policy is `"fail"`.

    >>> issubclass(InstanceAlreadyExistsError, WorkflowError)
    True
    """


class DefinitionMismatchError(WorkflowError):
    """The instance belongs to a workflow of another structure.

    >>> error = DefinitionMismatchError("it changed", expected="aa", found="bb")
    >>> error.expected, error.found
    ('aa', 'bb')
    """

    expected: str | None
    """The definition hash of the workflow at hand."""
    found: str | None
    """The definition hash the instance was started with."""

    def __init__(
        self,
        message: str = "",
        *,
        expected: str | None = None,
        found: str | None = None,
        instance_id: str | None = None,
    ) -> None:
        super().__init__(message, instance_id=instance_id)
        self.expected = expected
        self.found = found


class BackendError(WorkflowError):
    """The place where instances live refused or failed.

    >>> issubclass(BackendError, WorkflowError)
    True
    """


class InstanceNotFoundError(BackendError, LookupError):
    """There is no instance of this id.

    >>> issubclass(InstanceNotFoundError, LookupError)
    True
    """


class InvalidStateError(BackendError):
    """The instance is in a state that does not allow the call.

    >>> InvalidStateError("it is over", state="completed").state
    'completed'
    """

    state: str | None
    """The state the instance is in, as in `Status`."""

    def __init__(
        self, message: str = "", *, state: str | None = None, instance_id: str | None = None
    ) -> None:
        super().__init__(message, instance_id=instance_id)
        self.state = state


class LeaseLostError(BackendError):
    """The lease went to another worker, so this one's write was refused.

    >>> issubclass(LeaseLostError, BackendError)
    True
    """


class BackendUnavailableError(BackendError, ConnectionError):
    """The backend cannot be reached or cannot be written to.

    >>> issubclass(BackendUnavailableError, ConnectionError)
    True
    """


class CodecError(SayiirError):
    """A value could not be turned into bytes or bytes into a value.

    >>> issubclass(EncodeError, CodecError)
    True
    """


class EncodeError(CodecError, TypeError):
    """A value is of a type that cannot be stored; nothing was stored.

    >>> issubclass(EncodeError, TypeError)
    True
    """


class DecodeError(CodecError, ValueError):
    """Stored bytes are damaged or were not written by this package.

    >>> issubclass(DecodeError, ValueError)
    True
    """


class SnapshotFormatError(CodecError):
    """Stored state is foreign, damaged, or of a version this release does not read.

    >>> issubclass(SnapshotFormatError, CodecError)
    True
    """


class RetryAfter(Exception):
    """Raised by a task to be tried again after a wait of its own choosing.

    The wait replaces the one its `RetryPolicy` would give. It uses up one retry like any other
    failure; when none are left, the task has failed with this exception.

    Args:
        seconds: The wait, in any form a duration may have.
        message: Why, for the history.

    Raises:
        TypeError: `seconds` is not a duration.
        ValueError: It is negative, not finite, longer than 100 years, or malformed.

    >>> RetryAfter("1m", "rate limited").seconds
    60.0
    """

    seconds: float
    """The wait in seconds."""

    def __init__(self, seconds: Duration, message: str = "") -> None:
        self.seconds = parse_duration(seconds, name="RetryAfter: seconds")
        self.message = message
        super().__init__(message or f"retry after {self.seconds:g} s")

    def __reduce__(self) -> tuple[Any, ...]:
        return RetryAfter, (self.seconds, self.message)


class NonRetryable(Exception):
    """Raised by a task whose failure no retry can mend; the remaining retries are not used.

    >>> print(NonRetryable("the card was reported stolen"))
    the card was reported stolen
    """
