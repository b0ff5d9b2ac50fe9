"""Instances on their way out of the pure-Python backend and into it, as snapshots.

The bytes are made and read by `sayiir.codec`; what is not movable is told by the engine's words.
"""

from __future__ import annotations

from benches.python_books import Books
from benches.python_index import EventBox
from benches.python_record import ENDED, PARKED, Asked, Instance
from sayiir._core import StepRow, check_snapshot, explain_cell
from sayiir._errors import InstanceAlreadyExistsError, InvalidStateError
from sayiir.backends import HistoryRow
from sayiir.codec import (
    Snapshot,
    SnapshotEvent,
    SnapshotRequest,
    SnapshotStep,
    decode_snapshot,
    encode_snapshot,
)

__all__ = ["Moving"]


class Moving(Books):
    """What `Books` has, and the two calls that move an instance."""

    async def export(self, instance_id: str) -> bytes:
        with self._lock:
            self._expire(self._clock())
            one = self._find(instance_id)
            tree = self._trees.get(one.definition_hash)
            if one.kin is not None or tree is None:
                raise _immovable(one, "it is an item of a spread map, which moves with its parent")
            return encode_snapshot(_picture(one, tree))

    async def import_(self, snapshot: bytes, instance_id: str) -> None:
        check_snapshot(snapshot, instance_id)
        given = decode_snapshot(snapshot)
        now = self._clock()
        with self._lock:
            self._expire(now)
            self._forget_old(now)
            former = self._instances.get(instance_id)
            if former is not None:
                raise InstanceAlreadyExistsError(
                    f"instance {instance_id!r} already exists and is {former.status};"
                    " choose another id",
                    instance_id=instance_id,
                )
            one = self._take_in(given, instance_id)
            if one.pending is not None:
                self._stop(one, one.pending, now)
            elif one.status in ENDED and self._keep_completed is not None:
                self._ended.append((one.updated_at + self._keep_completed, one))
            else:
                self._place(one, now)
        self._hub.tell("work", instance_id)

    def _take_in(self, given: Snapshot, instance_id: str) -> Instance:
        self._names[given.definition_hash] = given.workflow_id
        self._trees[given.definition_hash] = given.definition
        self._last_number += 1
        box = self._orphans.pop(instance_id, None) or EventBox()
        for event in given.events:
            box.adopt(event.name, event.payload, event.key)
        one = Instance(
            instance_id,
            given.workflow_id,
            given.definition_hash,
            given.input,
            given.tags,
            given.priority,
            self._last_number,
            given.created_at,
            given.updated_at,
            status=given.status,
            start_at=given.start_at,
            cursor=given.cursor,
            cells=dict(given.cells),
            cells_from=0 if given.cells_from is None else given.cells_from,
            next_seq=given.next_seq,
            next_strand=given.next_strand,
            steps=[_row(step) for step in given.steps],
            wake_at=given.wake_at,
            awaits=given.awaits,
            delay_id=given.delay_id,
            signal_id=given.signal_id,
            signal_name=given.signal_name,
            events=None if given.status in ENDED else box,
            result=given.result,
        )
        asked = given.asked
        if asked is not None:
            one.asked = Asked(asked.cancel, asked.reason, asked.by, asked.pending, asked.resume)
        self._instances[instance_id] = self._by_number[one.number] = one
        return one


def _picture(one: Instance, tree: bytes) -> Snapshot:
    ended = one.status in ENDED
    cells = sorted(item for item in one.cells.items() if item[0] >= one.cells_from)
    positions = [cell for _, cell in cells] + ([] if one.cursor is None else [one.cursor])
    if not ended and any("spread map" in explain_cell(cell) for cell in positions):
        raise _immovable(one, "it awaits the items of a spread map, which are instances too")
    parked = one.status in PARKED or one.status == "paused"
    box = one.events
    kept = [] if ended or box is None else box.kept()
    asked = one.asked
    return Snapshot(
        instance_id=one.instance_id,
        definition=tree,
        status=one.status,
        created_at=one.created_at,
        updated_at=one.updated_at,
        start_at=one.start_at,
        wake_at=one.wake_at if parked else None,
        delay_id=one.delay_id if parked else None,
        signal_id=one.signal_id if parked else None,
        signal_name=one.signal_name if parked else None,
        awaits=tuple(sorted(set(one.awaits))) if parked else (),
        asked=None
        if asked is None
        else SnapshotRequest(asked.cancel, asked.pending, asked.resume, asked.reason, asked.by),
        tags=one.tags,
        priority=one.priority,
        cursor=None if ended else one.cursor,
        cells=() if ended else tuple(cells),
        next_seq=one.next_seq,
        next_strand=one.next_strand,
        cells_from=one.cells_from if cells and not ended else None,
        input=one.input,
        result=one.result,
        steps=tuple(_step(row) for row in one.steps),
        events=tuple(
            SnapshotEvent(name, key, one.updated_at, payload)
            for name, key, payload in kept
            if not name.startswith("\1")
        ),
    )


def _step(row: HistoryRow) -> SnapshotStep:
    step = row.step
    return SnapshotStep(
        step.seq,
        step.path,
        step.name,
        step.attempt,
        step.outcome,
        row.worker_id,
        step.started_at,
        step.ended_at,
        step.output,
        step.error,
    )


def _row(step: SnapshotStep) -> HistoryRow:
    row = StepRow(
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
    return HistoryRow(row, step.worker_id)


def _immovable(one: Instance, why: str) -> InvalidStateError:
    return InvalidStateError(
        f"cannot export instance {one.instance_id!r}: it is {one.status}; {why}",
        state=one.status,
        instance_id=one.instance_id,
    )
