"""The rows of the storage contract, as plain frozen data.

Times are seconds since 1970 UTC; payloads and error records are sealed bytes that a backend stores
and hands back without looking inside. `StepRow`, `Commit`, `Claim` and `Claimant` come from the
engine and are in `sayiir._core`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sayiir._core import Program, StepRow

__all__ = ["Backlog", "Event", "HistoryRow", "InstanceRow", "NewInstance", "News", "Page", "Reply"]


class NewInstance(NamedTuple):
    """An instance to be created.

    A tuple, because one is made for every submit, and a frozen class takes five times as long.

    >>> NewInstance._fields
    ('instance_id', 'program', 'input', 'start_at')
    """

    instance_id: str
    """1 to 256 bytes of UTF-8."""
    program: Program
    """What it runs: `.name`, `.definition_hash`, `.entry` (tags and priority of the first step)."""
    input: bytes
    """The sealed input."""
    start_at: float | None = None
    """Not to be claimed before this moment."""


@dataclass(slots=True)
class InstanceRow:
    """What is true of an instance now.

    Not frozen, alone among the rows: a frozen one of this width takes four times as long to make,
    and every answer to a client begins with one. Nobody changes it all the same.

    >>> InstanceRow("order-1", "order", "00" * 32, "waiting", 0.0, 0.0, wake_at=60.0).wake_at
    60.0
    """

    instance_id: str
    workflow_id: str
    definition_hash: str
    """64 hexadecimal digits."""
    status: str
    """A word of `Status`."""
    created_at: float
    updated_at: float
    ended_at: float | None = None
    start_at: float | None = None
    wake_at: float | None = None
    """When a parked instance goes on by itself."""
    delay_id: str | None = None
    """Path of the delay it is in."""
    signal_id: str | None = None
    """Path of the wait it is in."""
    signal_name: str | None = None
    """Name of the event it waits for."""
    reason: str | None = None
    """Why it was paused or cancelled, or is about to be."""
    by: str | None = None
    """Who asked for that."""
    output: bytes | None = None
    """Sealed output, when completed."""
    error: bytes | None = None
    """Error record, when failed."""
    tags: Sequence[str] = ()
    """What the next step needs of a worker."""
    priority: int = 3
    """Of the next step, 1 (first) to 5 (last)."""
    worker_id: str | None = None
    """Who holds it."""
    fence: int = 0
    """Number of the current or last lease."""
    steps: int = 0
    """How many history rows there are."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One history row with the worker that wrote it."""

    step: StepRow
    worker_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """One buffered event; `seq` orders and identifies it within its instance."""

    seq: int
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's answer to one commit.

    >>> Reply("ok").events
    ()
    """

    kind: str
    """`ok`; `pause_pending` (go on, but start nothing new); `events` (the commit wanted to park,
    but awaited events are there: the lease is kept); `cancelled`, `paused` (a pending request took
    effect with this commit, the lease is gone); `lease_lost` (nothing was written)."""
    events: Sequence[Event] = ()
    """For `events`."""


@dataclass(frozen=True, slots=True)
class News:
    """What the holder of an instance should know."""

    lost: bool = False
    """The lease is gone."""
    cancel: bool = False
    """A cancel is pending."""
    pause: bool = False
    """A pause is pending."""
    events: Sequence[Event] = ()
    """The oldest buffered events of the names asked for."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Ready instances of one definition that need the same tags."""

    definition_hash: str
    workflow_id: str
    tags: Sequence[str]
    ready: int
    """How many."""
    age: float
    """For how many seconds the one that is next has been ready, by the backend's clock."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of instances, newest first; `cursor` leads to the next one, if there is one."""

    rows: Sequence[InstanceRow] = field(default_factory=tuple)
    cursor: str | None = None
