"""One instance as the pure-Python backend keeps it, and the worker that may hold it.

Plain mutable records; the rules are in `benches.python_backend`. They promise only to turn
themselves into the rows of the storage contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benches.python_index import Entry, EventBox
from sayiir._core import Claim
from sayiir.backends import HistoryRow, InstanceRow

__all__ = ["ENDED", "PARKED", "Asked", "Instance", "Kin", "Lease"]

ENDED = frozenset({"completed", "failed", "cancelled"})
PARKED = frozenset({"waiting", "awaiting_signal"})
_SHOWS_PARKING = PARKED | {"paused"}


@dataclass(slots=True, eq=False)
class Lease:
    """All that one worker holds; its instances are renewed, and lost, together."""

    worker_id: str
    expires_at: float
    held: set[Instance] = field(default_factory=set)


@dataclass(slots=True)
class Asked:
    """A cancel or a pause: asked of the holder while `pending`, in effect afterwards."""

    cancel: bool
    reason: str | None
    by: str | None
    pending: bool = True
    resume: str = "in_progress"
    """For a pause in effect: the status to go back to."""


@dataclass(slots=True)
class Kin:
    """Which item of which parent an instance is."""

    parent: Instance
    group: int
    index: int


@dataclass(slots=True, eq=False)
class Instance:
    """Everything about one instance. Times are seconds since 1970."""

    instance_id: str
    workflow_id: str
    definition_hash: str
    input: bytes
    tags: tuple[str, ...]
    priority: int
    number: int
    """Position in the order of creation."""
    created_at: float
    updated_at: float
    status: str = "in_progress"
    start_at: float | None = None
    lease: Lease | None = None
    fence: int = 0
    place: Entry[Instance] | None = None
    """Where it is indexed: among the ready, among the timers, or nowhere."""
    cursor: bytes | None = None
    cells: dict[int, bytes] = field(default_factory=dict)
    cells_from: int = 0
    next_seq: int = 0
    next_strand: int = 1
    steps: list[HistoryRow] = field(default_factory=list)
    wake_at: float | None = None
    awaits: Sequence[str] = ()
    delay_id: str | None = None
    signal_id: str | None = None
    signal_name: str | None = None
    events: EventBox | None = None
    asked: Asked | None = None
    result: bytes | None = None
    kin: Kin | None = None
    """If it is an item of a spread map."""

    @property
    def pending(self) -> Asked | None:
        """A request that waits for the holder."""
        return self.asked if self.asked is not None and self.asked.pending else None

    def is_due(self, now: float) -> bool:
        """Whether a parked instance may go on."""
        if self.wake_at is not None and self.wake_at <= now:
            return True
        return self.events is not None and self.events.has(self.awaits)

    def unpark(self) -> None:
        """Forget what it was parked on."""
        self.wake_at = self.delay_id = self.signal_id = self.signal_name = None
        self.awaits = ()

    def claim(self) -> Claim:
        """What its holder needs."""
        cells_from = self.cells_from
        return Claim(
            self.instance_id,
            self.fence,
            self.definition_hash,
            cursor=self.cursor,
            cells=[(strand, cell) for strand, cell in self.cells.items() if strand >= cells_from],
            next_seq=self.next_seq,
            next_strand=self.next_strand,
            tags=self.tags,
            priority=self.priority,
        )

    def row(self) -> InstanceRow:
        """What is true of it now."""
        status = self.status
        shows_parking = status in _SHOWS_PARKING
        # A pause that was taken back, or a request that the end overtook, is no longer there.
        asked = self.asked
        return InstanceRow(
            self.instance_id,
            self.workflow_id,
            self.definition_hash,
            status,
            self.created_at,
            self.updated_at,
            ended_at=self.updated_at if status in ENDED else None,
            start_at=self.start_at,
            wake_at=self.wake_at if shows_parking else None,
            delay_id=self.delay_id if shows_parking else None,
            signal_id=self.signal_id if shows_parking else None,
            signal_name=self.signal_name if shows_parking else None,
            reason=None if asked is None else asked.reason,
            by=None if asked is None else asked.by,
            output=self.result if status == "completed" else None,
            error=self.result if status == "failed" else None,
            tags=self.tags,
            priority=self.priority,
            worker_id=None if self.lease is None else self.lease.worker_id,
            fence=self.fence,
            steps=len(self.steps),
        )
