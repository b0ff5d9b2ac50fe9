"""Instances and steps as a client lists them: frozen rows with aware times.

The one place that turns a backend's rows into these. They are photographs like `WorkflowStatus`,
and hold no output and no input, so that a page stays small. Nothing is fetched here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ._notebook import MOST_ROWS, moment_text, rows_table, span_text
from ._status import Status
from .backends._view import error_of, moment, worker_name

if TYPE_CHECKING:
    from .backends import HistoryRow, InstanceRow, Page

__all__ = ["History", "InstanceInfo", "InstancePage", "StepInfo", "page_of", "step_of"]


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """One instance in a list. Times are aware, in UTC.

    >>> from datetime import UTC, datetime
    >>> at = datetime(2024, 1, 1, tzinfo=UTC)
    >>> InstanceInfo("order-1", "order", "00" * 32, Status.WAITING, at, at).priority
    3
    """

    instance_id: str
    workflow_id: str
    """The name of the workflow it runs."""
    definition_hash: str
    """The fingerprint of the definition it runs."""
    status: Status
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    """When it completed, failed or was cancelled."""
    wake_at: datetime | None = None
    """When it goes on by itself, if it is parked."""
    priority: int = 3
    """Of its next step, 1 (first) to 5 (last)."""
    tags: tuple[str, ...] = ()
    """What its next step needs of a worker."""
    worker_id: str | None = None
    """The worker that holds it."""
    steps: int = 0
    """How many steps it has in its history."""


@dataclass(frozen=True, slots=True)
class InstancePage:
    """A page of instances, newest first. It can be iterated, counted and indexed by its `items`.

    >>> len(InstancePage(())), InstancePage(()).next_cursor
    (0, None)
    """

    items: tuple[InstanceInfo, ...]
    next_cursor: str | None = None
    """Hand it to `list_instances` for the next page; `None` on the last one."""

    def __iter__(self) -> Iterator[InstanceInfo]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> InstanceInfo:
        return self.items[index]

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        count = len(self.items)
        more = ", and there are more" if self.next_cursor is not None else ""
        return rows_table(
            f"{count} instance{'' if count == 1 else 's'}{more}",
            ["id", "workflow", "status", "created", "updated", "steps"],
            (
                (
                    *(one.instance_id, one.workflow_id, one.status),
                    *(moment_text(one.created_at), moment_text(one.updated_at), one.steps),
                )
                for one in self.items[:MOST_ROWS]
            ),
            left_out=max(0, count - MOST_ROWS),
        )


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One execution of a step in an instance's history. Times are aware, in UTC.

    >>> from datetime import UTC, datetime
    >>> at = datetime(2024, 1, 1, tzinfo=UTC)
    >>> StepInfo("charge", "charge", 1, "w1", at, at, "completed").error is None
    True
    """

    path: str
    """The path of the step within its instance."""
    task: str
    """The name of the task, delay or wait."""
    attempt: int
    """1 for the first."""
    worker_id: str
    """The worker that wrote it down."""
    started_at: datetime
    ended_at: datetime
    outcome: str
    """`completed`; `retried` (failed, with another attempt to come); `failed`; `elapsed` (a delay,
    or a wait whose time was over)."""
    error: str | None = None
    """Text of the exception of a failed attempt."""
    error_type: str | None = None
    """Name of that exception's class."""


class History(list[StepInfo]):
    """The steps of one instance: a list that a notebook shows as a table.

    >>> History() == []
    True
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return rows_table(
            f"{len(self)} step{'' if len(self) == 1 else 's'}",
            ["path", "attempt", "outcome", "worker", "started", "took", "error"],
            (
                (
                    *(step.path, step.attempt, step.outcome, step.worker_id),
                    moment_text(step.started_at),
                    span_text((step.ended_at - step.started_at).total_seconds()),
                    step.error_type,
                )
                for step in self[:MOST_ROWS]
            ),
            left_out=max(0, len(self) - MOST_ROWS),
        )


def page_of(page: Page) -> InstancePage:
    """The page as a user sees it."""
    return InstancePage(tuple(_instance_of(row) for row in page.rows), page.cursor)


def _instance_of(row: InstanceRow) -> InstanceInfo:
    return InstanceInfo(
        row.instance_id,
        row.workflow_id,
        row.definition_hash,
        Status(row.status),
        _at(row.created_at),
        _at(row.updated_at),
        moment(row.ended_at),
        moment(row.wake_at),
        row.priority,
        tuple(row.tags),
        None if row.worker_id is None else worker_name(row.worker_id),
        row.steps,
    )


def step_of(row: HistoryRow) -> StepInfo:
    """The step as a user sees it; never raises because of what is stored in it."""
    step = row.step
    error = error_of(step.error)
    return StepInfo(
        step.path,
        step.name,
        step.attempt,
        worker_name(row.worker_id),
        _at(step.started_at),
        _at(step.ended_at),
        step.outcome,
        None if error is None else error.message,
        None if error is None else error.error_type,
    )


def _at(seconds: float) -> datetime:
    at = moment(seconds)
    assert at is not None
    return at
