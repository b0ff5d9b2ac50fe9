"""A whole instance as plain data, and as the bytes that move it from one backend to another.

The layout of the bytes, and every check of what is read, are the engine's (`rust/core`). Payloads,
records and positions stay the sealed bytes that they are where they are stored; `each_payload` is
the one place at which they pass when an instance is moved, for whoever keeps them in another form
at rest. What they mean is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from . import _core

__all__ = [
    "Snapshot",
    "SnapshotEvent",
    "SnapshotRequest",
    "SnapshotStep",
    "decode_snapshot",
    "each_payload",
    "encode_snapshot",
    "has_ended",
    "opened_snapshot",
    "stored_snapshot",
]

_ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class SnapshotStep:
    """One line of the history. Times are seconds since 1970 UTC."""

    seq: int
    path: str
    name: str
    attempt: int
    outcome: str
    """`completed`, `retried`, `failed` or `elapsed`."""
    worker_id: str
    started_at: float
    ended_at: float
    output: bytes | None = None
    """The sealed output; see `decode_value`."""
    error: bytes | None = None
    """The error record of an attempt that failed."""


@dataclass(frozen=True, slots=True)
class SnapshotEvent:
    """An event that waits, or the key of one that was consumed (then without a payload)."""

    name: str
    key: str | None
    came_at: float
    payload: bytes | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is stored of one instance, but for who holds it.

    Times are seconds since 1970 UTC. Payloads, records and positions are sealed bytes.
    """

    instance_id: str
    workflow_id: str
    definition_hash: str
    """64 hexadecimal digits, computed from `definition`."""
    definition: bytes
    """What it runs, as data."""
    status: str
    """A word of `Status`."""
    created_at: float
    updated_at: float
    """When something last happened to it; of an ended instance, when it ended."""
    start_at: float | None = None
    wake_at: float | None = None
    """When it goes on by itself, if it is parked."""
    delay_id: str | None = None
    signal_id: str | None = None
    signal_name: str | None = None
    awaits: tuple[str, ...] = ()
    """Names of the events that it waits for."""
    asked: SnapshotRequest | None = None
    tags: tuple[str, ...] = ()
    """What the next step needs of a worker."""
    priority: int = 3
    cursor: bytes | None = None
    """The position of its first strand; `None` before the first checkpoint and after the end."""
    cells: tuple[tuple[int, bytes], ...] = ()
    """The positions of its other strands, by their numbers."""
    next_seq: int = 0
    next_strand: int = 1
    cells_from: int | None = None
    """The lowest number of a strand that is still needed."""
    input: bytes
    result: bytes | None = None
    """The output of a completed instance, the error record of a failed one."""
    steps: tuple[SnapshotStep, ...] = ()
    events: tuple[SnapshotEvent, ...] = ()

    @property
    def ended_at(self) -> float | None:
        """When it ended, if it did."""
        return self.updated_at if has_ended(self.status) else None


def has_ended(status: str) -> bool:
    """Whether nothing happens any more to an instance of this status.

    >>> has_ended("failed"), has_ended("paused")
    (True, False)
    """
    return status in _ENDED


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
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    found = _core.decode_snapshot(data)
    asked = found.pop("asked")
    return Snapshot(
        asked=None if asked is None else SnapshotRequest(*asked),
        awaits=tuple(found.pop("awaits")),
        tags=tuple(found.pop("tags")),
        cells=tuple(found.pop("cells")),
        steps=tuple(_step(row, worker) for row, worker in found.pop("steps")),
        events=tuple(SnapshotEvent(*event) for event in found.pop("events")),
        **found,
    )


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes that `WorkflowClient.import_` takes.

    The name and the hash of the workflow are those of the definition, whatever `snapshot` says.

    Raises:
        TypeError: It is no snapshot, or a field of it is of the wrong kind.
        ValueError, SnapshotFormatError: Its fields are none that a backend could have stored.
    """
    if not isinstance(snapshot, Snapshot):
        raise TypeError(f"snapshot must be a Snapshot, got {type(snapshot).__name__}")
    given = {
        field.name: getattr(snapshot, field.name)
        for field in fields(snapshot)
        if field.name not in {"workflow_id", "definition_hash"}
    }
    asked = snapshot.asked
    given["asked"] = asked and (asked.cancel, asked.pending, asked.resume, asked.reason, asked.by)
    for name in ("awaits", "tags", "cells"):
        given[name] = list(given[name])
    given["steps"] = [(_row(step), step.worker_id) for step in snapshot.steps]
    given["events"] = [(one.name, one.key, one.came_at, one.payload) for one in snapshot.events]
    return _core.encode_snapshot(**given)


def each_payload(snapshot: Snapshot, change: Callable[[str, str, bytes], bytes]) -> Snapshot:
    """The same instance with every payload changed; error records stay as they are.

    Args:
        snapshot: The instance.
        change: Gets the place of a payload (its role and name, as in `codecs.Place`) and its bytes,
            and gives those that take their place.
    """
    result = snapshot.result
    if result is not None and snapshot.status == "completed":
        result = change("output", "", result)
    return replace(
        snapshot,
        input=change("input", "", snapshot.input),
        result=result,
        steps=tuple(
            step
            if step.output is None
            else replace(step, output=change("step", step.path, step.output))
            for step in snapshot.steps
        ),
        events=tuple(
            one
            if one.payload is None
            else replace(one, payload=change("event", one.name, one.payload))
            for one in snapshot.events
        ),
    )


def opened_snapshot(codec: _core.AtRest | None, stored: bytes) -> bytes:
    """A snapshot with plain payloads, of one with payloads as a backend keeps them.

    Raises:
        DecodeError: A payload is damaged, or needs a codec that is not given.
    """
    found = decode_snapshot(stored)
    plain = _opened(codec, found)
    return stored if plain == found else encode_snapshot(plain)


def stored_snapshot(
    codec: _core.AtRest | None, data: bytes, new_id: str | None
) -> tuple[str, bytes]:
    """The id that an instance is to have, and its snapshot with payloads as the backend keeps them.

    Raises:
        SnapshotFormatError: The bytes are no snapshot.
        DecodeError: Its payloads are not plain, and cannot be made so.
        EncodeError: A payload cannot be stored.
    """
    found = decode_snapshot(data)
    instance_id = new_id or found.instance_id
    plain = _opened(codec, found)
    if codec is None:
        return instance_id, data if plain == found else encode_snapshot(plain)

    def sealed(role: str, name: str, payload: bytes) -> bytes:
        return codec.seal_payload(payload, instance_id, role, name)

    return instance_id, encode_snapshot(each_payload(plain, sealed))


def _opened(codec: _core.AtRest | None, found: Snapshot) -> Snapshot:
    def opened(role: str, name: str, data: bytes) -> bytes:
        return _core.open_payload(codec, data, found.instance_id, role, name)

    return each_payload(found, opened)


def _step(row: _core.StepRow, worker: str) -> SnapshotStep:
    return SnapshotStep(
        row.seq,
        row.path,
        row.name,
        row.attempt,
        row.outcome,
        worker,
        row.started_at,
        row.ended_at,
        row.output,
        row.error,
    )


def _row(step: SnapshotStep) -> _core.StepRow:
    return _core.StepRow(
        step.seq,
        step.path,
        step.name,
        step.attempt,
        step.outcome,
        output=step.output,
        error=step.error,
        started_at=step.started_at,
        ended_at=step.ended_at,
    )
