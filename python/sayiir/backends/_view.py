"""What a user sees of an instance row.

The one place that turns a backend's row into a `WorkflowStatus`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sayiir._codec import ErrorText, from_rest, read_error
from sayiir._errors import CodecError
from sayiir._status import Status, WorkflowStatus

from ._rows import InstanceRow

if TYPE_CHECKING:
    from sayiir._core import AtRest
    from sayiir.codecs import Codec, PayloadCodec

__all__ = [
    "codec_argument",
    "error_of",
    "holder_name",
    "moment",
    "page_number",
    "status_of",
    "worker_name",
]

INCARNATION = "~"


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as an aware datetime in UTC.

    >>> moment(0.0)
    datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        # A status must be readable whatever is stored in it.
        return datetime.max.replace(tzinfo=UTC)


def status_of(row: InstanceRow, codec: AtRest | None = None) -> WorkflowStatus[Any]:
    """The status a row stands for; never raises because of what is stored in it."""
    status = Status(row.status)
    error = error_of(row.error)
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
        decode=partial(from_rest, codec, instance_id=row.instance_id, role="output"),
    )


def holder_name(worker_id: str) -> str:
    """A name to hold leases under, unique to this run of a worker.

    Two processes that were given one worker id, or a worker that was started again, must not renew
    each other's leases.

    >>> holder_name("w1").startswith("w1~")
    True
    """
    return f"{worker_id}{INCARNATION}{os.urandom(6).hex()}"


def worker_name(holder: str) -> str:
    """The worker id in a holder's name.

    >>> worker_name("w1~0123456789ab"), worker_name("w1")
    ('w1', 'w1')
    """
    return holder.rpartition(INCARNATION)[0] or holder


def codec_argument(value: Codec | PayloadCodec | None) -> Codec | None:
    """A backend's argument `codec`; what it takes to check one is loaded only for one.

    Raises:
        TypeError: It is no codec.

    >>> codec_argument(None)
    """
    if value is None:
        return None
    from sayiir.codecs import checked_codec

    return checked_codec(value)


def error_of(record: bytes | None) -> ErrorText | None:
    """What an error record says; a damaged one says that it is damaged."""
    if record is None:
        return None
    try:
        return read_error(record)
    except CodecError as failure:
        return ErrorText(type(failure).__name__, f"the error record is damaged: {failure}", "")


def page_number(cursor: str | None) -> int | None:
    """The number in a page's cursor.

    Raises:
        ValueError: The cursor is not one that a page gave.

    >>> page_number("17"), page_number(None)
    (17, None)
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
        raise ValueError("cursor must be one that a former page gave")
    return int(cursor)
