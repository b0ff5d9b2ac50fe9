"""What a user sees of an instance row.

The one place that turns a backend's row into a `WorkflowStatus`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sayiir._codec import ErrorText, decode_payload, read_error
from sayiir._errors import CodecError
from sayiir._status import Status, WorkflowStatus

from ._rows import InstanceRow

__all__ = ["moment", "status_of"]


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as an aware datetime in UTC.

    >>> moment(0.0)
    datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def status_of(row: InstanceRow) -> WorkflowStatus[Any]:
    """The status a row stands for; never raises because of what is stored in it."""
    status = Status(row.status)
    error = _error(row.error)
    return WorkflowStatus(
        row.instance_id,
        row.workflow_id,
        status,
        error=None if error is None else error.message,
        error_type=None if error is None else error.error_type,
        traceback=None if error is None else error.traceback or None,
        reason=row.reason,
        cancelled_by=row.by if status is Status.CANCELLED else None,
        paused_by=row.by if status is Status.PAUSED else None,
        wake_at=moment(row.wake_at),
        delay_id=row.delay_id,
        signal_id=row.signal_id,
        signal_name=row.signal_name,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
        output_bytes=row.output,
        decode=decode_payload,
    )


def _error(record: bytes | None) -> ErrorText | None:
    if record is None:
        return None
    try:
        return read_error(record)
    except CodecError as failure:
        return ErrorText(type(failure).__name__, f"the error record is damaged: {failure}", "")
