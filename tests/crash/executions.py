"""Executions: one run of one body in one process, put together from the records.

Says which process ran what under which lease, and what befell it: whether it was killed, stopped or
told to give up. Everything the checker wants to know about the world outside of the store is
answered here; it refuses to know the store and what should have happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from .ledger import Record

Attempt = tuple[str, str, int]
"""Instance, path and attempt: what is executed once, unless something befell it."""


@dataclass(eq=False, slots=True)
class Execution:
    """One body at work."""

    who: str
    instance: str
    path: str
    attempt: int
    fence: int
    given: str
    """Digest of its input."""
    start: float
    end: float = inf
    """When it ended, if it did."""
    outcome: str = ""
    """`end`, `raised`, `cut`, or nothing when it came to no end."""
    digest: str = ""
    """Digest of its output."""

    @property
    def key(self) -> Attempt:
        """What it is an execution of."""
        return self.instance, self.path, self.attempt

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.path} by {self.who} under fence {self.fence}"


@dataclass(slots=True)
class Fates:
    """What befell the processes."""

    killed: dict[str, float] = field(default_factory=dict)
    """When each one was killed."""
    stopped: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """From when to when each one stood still."""
    names: dict[str, str] = field(default_factory=dict)
    """The worker id that each one was given."""

    def dead(self, who: str, at: float) -> bool:
        """Whether it was killed by then."""
        return self.killed.get(who, inf) <= at

    def stood_still(self, who: str, since: float, until: float) -> bool:
        """Whether it was stopped at some moment between these two."""
        return any(begin <= until and end >= since for begin, end in self.stopped.get(who, ()))


def fates_of(records: Iterable[Record]) -> Fates:
    """What the fleet and the workers said."""
    fates = Fates()
    for record in records:
        match record.kind:
            case "hello":
                fates.names[record.who] = record.detail
            case "kill":
                fates.killed.setdefault(record.detail, record.at)
            case "stop":
                fates.stopped.setdefault(record.detail, []).append((record.at, inf))
            case "cont":
                spells = fates.stopped[record.detail]
                spells[-1] = (spells[-1][0], record.at)
    return fates


def executions_of(records: Iterable[Record]) -> dict[str, list[Execution]]:
    """The executions of each instance, in the order of their starts.

    Raises:
        ValueError: A body ended that had not begun.
    """
    found: dict[str, list[Execution]] = defaultdict(list)
    running: dict[tuple[str, int, Attempt], list[Execution]] = defaultdict(list)
    for record in records:
        key = (record.who, record.fence, (record.instance, record.path, record.attempt))
        if record.kind == "start":
            execution = Execution(
                record.who,
                record.instance,
                record.path,
                record.attempt,
                record.fence,
                record.digest,
                record.at,
            )
            found[record.instance].append(execution)
            running[key].append(execution)
        elif record.kind in ("end", "raised", "cut"):
            if not running[key]:
                raise ValueError(f"{record} ended and had not begun")
            execution = running[key].pop(0)
            execution.end, execution.outcome = record.at, record.kind
            execution.digest = record.digest
    return found
