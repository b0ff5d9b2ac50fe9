"""How an instance ended, as the one who asked for its result gets to know it.

An output is returned, a failure or a cancel is raised. Waiting for the end is not done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._codec import from_rest, read_error
from ._errors import (
    CodecError,
    DecodeError,
    TaskError,
    TaskTimeout,
    WorkflowCancelled,
    WorkflowFailed,
)
from ._status import Status
from .backends._view import status_of

if TYPE_CHECKING:
    from ._core import AtRest
    from .backends import InstanceRow

__all__ = ["outcome_of"]


def outcome_of(instance_id: str, end: InstanceRow | bytes, codec: AtRest | None) -> Any:
    """The output of an instance that has ended; all of its row is known, or the sealed output.

    Raises:
        WorkflowFailed: It failed; the `__cause__` is the `TaskError`, if a task was to blame.
        WorkflowCancelled: It was cancelled.
        DecodeError: The stored output is damaged.
    """
    if isinstance(end, bytes) or end.status == Status.COMPLETED:
        # A backend that lost the output gets told so by the decoder.
        sealed = end if isinstance(end, bytes) else end.output or b""
        try:
            return from_rest(codec, sealed, instance_id, "output")
        except DecodeError as failure:
            raise DecodeError(
                f"the output of instance {instance_id!r} cannot be decoded: {failure}"
            ) from failure
    status = status_of(end, codec)
    if end.status == Status.CANCELLED:
        raise WorkflowCancelled(status)
    raise WorkflowFailed(status) from _cause(end)


def _cause(row: InstanceRow) -> TaskError | None:
    """The task's error behind a failed instance, put together from its record."""
    try:
        error = None if row.error is None else read_error(row.error)
    except CodecError:
        return None
    if error is None or not error.task:
        return None
    kind = TaskTimeout if error.error_type == TaskTimeout.__name__ else TaskError
    return kind(
        error.task,
        error.path,
        error.error_type,
        error.message,
        error.traceback or None,
        instance_id=row.instance_id,
    )
