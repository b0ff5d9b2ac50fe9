"""A whole instance as plain data, and as the bytes that move it from one backend to another.

The layout of the bytes, and every check of what is read or made, are the engine's (`rust/core`);
here are the parts of a snapshot of which there are few. Payloads, records and positions stay the
sealed bytes that they are where they are stored. What they mean is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import _core
from ._core import Snapshot, SnapshotStep

__all__ = [
    "Snapshot",
    "SnapshotEvent",
    "SnapshotRequest",
    "SnapshotStep",
    "decode_snapshot",
    "encode_snapshot",
]


@dataclass(frozen=True, slots=True)
class SnapshotEvent:
    """An event that waits, or the key of one that was consumed (then without a payload)."""

    name: str
    key: str | None
    came_at: float
    payload: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """A cancel or a pause, pending or in effect.

    >>> SnapshotRequest(cancel=False, pending=True).resume
    'in_progress'
    """

    cancel: bool
    """A cancel, else a pause."""
    pending: bool
    """Not yet in effect."""
    resume: str = "in_progress"
    """For a pause in effect: the status to go back to."""
    reason: str | None = None
    by: str | None = None


def decode_snapshot(data: bytes) -> Snapshot:
    """The instance in the bytes that `WorkflowClient.export` gave.

    Its values stay sealed; `decode_value` opens one.

    Raises:
        TypeError: `data` is not bytes.
        SnapshotFormatError: They are damaged, cut, foreign or of a newer version, or hold what no
            backend could have stored.

    >>> decode_snapshot(b"SYRS")
    Traceback (most recent call last):
    ...
    sayiir._errors.SnapshotFormatError: these bytes are not sayiir's: the mark SYRS is missing
    """
    return _core.decode_snapshot(data)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes that `WorkflowClient.import_` takes.

    Raises:
        TypeError: It is no snapshot.

    >>> from sayiir import Flow, SyncWorkflowClient
    >>> with SyncWorkflowClient.from_url("memory://") as client:
    ...     _ = client.submit(Flow("f").then(abs).build(), "i-1", -1)
    ...     data = client.export("i-1")
    >>> encode_snapshot(decode_snapshot(data)) == data
    True
    """
    return _core.encode_snapshot(snapshot)
