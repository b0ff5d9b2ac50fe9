"""The books: what was seen of each instance, and the judgement over it.

The simulator tells the books whatever it does and sees; they object (`Violation`) as soon as a
promise of the engine is broken, and at the end they compare the whole with the oracle. They know
leases, history rows and outcomes, and refuse to know how the simulator chooses what happens next.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sayiir import EventTimeout, MapError
from sayiir._codec import decode_payload, read_error
from sayiir._core import Step, StepRow

from .flows import Made
from .oracle import TIMED_OUT, Body, Failed, Failure, Oracle, Tape, Timer, Value, pattern
from .tree import TASK_ERRORS, shape

MICROSECOND = 1e-6
TERMINAL = frozenset({"completed", "failed", "cancelled"})
_ITEM = re.compile(r"~([0-9a-f]+)\.(\d+)\[(\d+)\]")


def parent_of(item: str) -> str:
    """The id of whose item it is."""
    return item.rpartition("~")[0]


class Violation(AssertionError):
    """A promise was broken."""


class Absent:
    """The tape of an item that nobody ever saw: nothing happened in it."""

    def answer(self, path: str, event: str) -> object:
        return None

    def failed(self, failure: Failure) -> bool:
        return False

    def items(self, path: str, given: list[Any]) -> Sequence[Tape]:
        return [self] * len(given)

    def cancelled(self) -> bool:
        return False


@dataclass(eq=False, slots=True)
class Tenure:
    """One lease on one instance, from its claim on."""

    book: Book
    fence: int
    worker: str
    given_back: bool = False
    """The holder gave it back with a commit, or the store took the instance away from it."""
    expired: bool = False
    """Its worker was not renewed in time at some moment."""
    interrupted: set[tuple[str, int]] = field(default_factory=set)

    @property
    def intact(self) -> bool:
        """Whether nothing has happened that could have ended it."""
        return self.book.tenure is self and not self.given_back and not self.expired


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the history, in plain values."""

    seq: int
    path: str
    attempt: int
    outcome: str
    output: bytes | None
    error: bytes | None
    started_at: float
    ended_at: float
    worker: str

    @classmethod
    def of(cls, row: StepRow, worker: str) -> Row:
        """The line that the store shows."""
        return cls(
            row.seq,
            row.path,
            row.attempt,
            row.outcome,
            row.output,
            row.error,
            row.started_at,
            row.ended_at,
            worker,
        )

    @property
    def failure(self) -> Failure:
        """The failure that this line records, as the oracle puts it."""
        if self.error is None:
            raise Violation(f"row {self.seq} at {self.path} failed without an error record")
        text = read_error(self.error)
        message = text.message if text.error_type in TASK_ERRORS else ""
        return Failure(text.error_type, text.path, message)


@dataclass(eq=False, slots=True)
class Book:
    """Everything that was seen of one instance."""

    instance_id: str
    made: Made
    given: Any
    skews: dict[str, float]
    """How wrong each worker's clock is, in seconds."""
    submitted_at: float | None = None
    tenure: Tenure | None = None
    rows: list[Row] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)
    sent: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    keys: set[tuple[str, str]] = field(default_factory=set)
    cancel_asked: bool = False
    cancel_applied: bool = False
    paused: bool = False
    replaced: bool = False
    """Another instance has taken its id."""
    starts: dict[tuple[str, int], list[Tenure]] = field(default_factory=lambda: defaultdict(list))
    given_to: list[tuple[str, int, Any]] = field(default_factory=list)
    ended: tuple[Any, ...] | None = None
    parent: Book | None = None
    """Whose item it is."""
    families: dict[tuple[str, int], dict[int, Book]] = field(default_factory=dict)
    """Its items: by the fence under which they were made and their group, then by their index."""
    _uses: dict[tuple[str, int], str] = field(default_factory=dict)
    """At which path each family was found to be."""
    at_end: dict[str, Any] = field(default_factory=dict)
    """What the store says of it when all is over."""

    def belong_to(self, parent: Book) -> None:
        """It is an item of another instance."""
        self.parent = parent
        found = _ITEM.fullmatch(self.instance_id.removeprefix(parent.instance_id))
        if found is None:
            raise self.fail(f"this is no id for an item of {parent.instance_id}")
        family = parent.families.setdefault((found[1], int(found[2])), {})
        family[int(found[3])] = self

    def descendants(self) -> Iterator[Book]:
        """Its items, and theirs."""
        for family in self.families.values():
            for item in family.values():
                yield item
                yield from item.descendants()

    def fail(self, text: str) -> Violation:
        return Violation(f"{self.instance_id}: {text}")

    # While it runs.

    def claimed(self, fence: int, worker: str) -> Tenure:
        """A worker got the lease."""
        old = self.tenure
        if old is not None:
            if old.intact:
                raise self.fail(f"{worker} claimed it while {old.worker} holds fence {old.fence}")
            if fence <= old.fence:
                raise self.fail(f"the fence went from {old.fence} to {fence} with a claim")
        if self.paused or self.ended is not None or self.cancel_applied:
            raise self.fail("it was claimed although it is paused or has ended")
        self.tenure = Tenure(self, fence, worker)
        return self.tenure

    def started(self, tenure: Tenure, step: Step, now: float) -> None:
        """A body begins."""
        path, attempt = step.path, step.attempt
        self.given_to.append((path, attempt, step.input))
        holds = tenure.intact
        if holds and path in self.completed:
            raise self.fail(f"{path} began after its completion was recorded")
        if holds and (self.paused or self.cancel_applied or self.ended is not None):
            raise self.fail(f"{path} began although the instance is stopped")
        former = self.starts[path, attempt]
        # A worker that lost its lease without knowing may begin what others have begun or done.
        for other in former if holds else ():
            if other is tenure and (path, attempt) not in tenure.interrupted:
                raise self.fail(f"attempt {attempt} of {path} began twice under one lease")
            if other is not tenure and other.intact:
                raise self.fail(f"attempt {attempt} of {path} is at work on {other.worker} already")
            if (
                other is not tenure
                and not other.expired
                and (path, attempt) not in other.interrupted
            ):
                raise self.fail(
                    f"attempt {attempt} of {path} began again although {other.worker}, "
                    "which began it, neither lost its lease nor stopped it"
                )
        tenure.interrupted.discard((path, attempt))
        former.append(tenure)
        if attempt > 1:
            self._waited(tenure, step, now)

    def _waited(self, tenure: Tenure, step: Step, now: float) -> None:
        """Another attempt comes only after the wait that its policy asks for."""
        last = [row for row in self.rows if row.path == step.path and row.outcome == "retried"]
        if not last or last[-1].attempt != step.attempt - 1:
            if tenure.intact:
                raise self.fail(f"attempt {step.attempt} of {step.path} has no recorded one before")
            return
        policy = step.task.metadata.retries
        wait = 0.0 if policy is None else policy.initial_delay_secs * 2.0 ** (step.attempt - 2)
        failure = last[-1].failure
        if failure.error_type != "RetryAfter" and now < self._true(last[-1]) + wait - self.slack:
            raise self.fail(f"attempt {step.attempt} of {step.path} began before its wait was over")

    def wrote(self, tenure: Tenure, shown: list[tuple[StepRow, str]]) -> None:
        """The history after a call on behalf of this tenure; only it may have added to it."""
        known = len(self.rows)
        if len(shown) < known:
            raise self.fail(f"the history shrank from {known} to {len(shown)} rows")
        if len(shown) > known and (self.tenure is not tenure or tenure.given_back):
            raise self.fail(f"a late write under fence {tenure.fence} was accepted")
        for row, worker in shown[known:]:
            line = Row.of(row, worker)
            if line.seq != len(self.rows):
                raise self.fail(f"row {line.seq} stands at place {len(self.rows)}")
            if worker != tenure.worker:
                raise self.fail(f"row {line.seq} is said to be by {worker}, not {tenure.worker}")
            if line.outcome in ("completed", "elapsed"):
                if line.path in self.completed:
                    raise self.fail(f"{line.path} was completed twice")
                self.completed.add(line.path)
            self.rows.append(line)

    def compare(self, shown: list[tuple[StepRow, str]]) -> None:
        """What was recorded once stays as it was."""
        for old, (row, worker) in zip(self.rows, shown, strict=True):
            if Row.of(row, worker) != old:
                raise self.fail(f"row {old.seq} at {old.path} changed after it was written")

    def saw_end(self, fields: dict[str, Any]) -> None:
        """The instance is in a terminal state; it must stay exactly so."""
        state = tuple(fields[key] for key in ("status", "output", "error", "ended_at", "steps"))
        if self.ended is not None and self.ended != state:
            raise self.fail(f"its end changed from {self.ended} to {state}")
        self.ended = state

    # At the end.

    def answer(self, path: str, event: str) -> object:
        """See `Tape.answer`."""
        for row in self.rows:
            if row.path != path:
                continue
            if row.outcome == "completed" and row.output is not None:
                return decode_payload(row.output)
            if row.outcome == "elapsed" and row.output is not None:
                if decode_payload(row.output) != EventTimeout(event):
                    raise self.fail(f"the wait at {path} elapsed with something else than its mark")
                return TIMED_OUT
            if row.outcome == "failed" and row.failure.error_type == "EventTimeout":
                return TIMED_OUT
            raise self.fail(f"the wait at {path} ended as {row.outcome}")
        return None

    def failed(self, failure: Failure) -> bool:
        """See `Tape.failed`."""
        return any(row.outcome == "failed" and row.failure == failure for row in self.rows)

    def cancelled(self) -> bool:
        """See `Tape.cancelled`."""
        return self.cancel_asked and self.at_end.get("status") == "cancelled"

    def items(self, path: str, given: list[Any]) -> Sequence[Tape]:
        """See `Tape.items`. Items bear no path: they are known by what they were given.

        Of several uses of a map that were given the same, this one is the one that fits what was
        recorded; if nothing was, any one does.
        """
        name = f"{self.made.name}/{pattern(path)}"
        fitting = []
        for group, family in self.families.items():
            known = all(
                item.made.name == name
                and index < len(given)
                and shape(item.given) == shape(given[index])
                for index, item in family.items()
            )
            if known and self._uses.get(group, path) == path and self._fits(path, family):
                fitting.append(group)
        rows = [row for row in self.rows if row.path == path]
        if not rows:
            # Those by which something else that is recorded is explained are left to that.
            others = {
                row.path for row in self.rows if f"{self.made.name}/{pattern(row.path)}" == name
            }
            fitting = [
                group
                for group in fitting
                if not any(self._fits(other, self.families[group]) for other in others)
            ]
        if not fitting:
            if given and any(row.outcome == "completed" for row in rows):
                raise self.fail(f"{path} is recorded, and no items of it were seen that fit")
            return [Absent()] * len(given)
        self._uses[fitting[0]] = path
        family = self.families[fitting[0]]
        return [family.get(index, Absent()) for index in range(len(given))]

    def _fits(self, path: str, family: dict[int, Book]) -> bool:
        """Whether what is recorded of a spread map may have come of these items."""
        for row in self.rows:
            if row.path != path:
                continue
            if row.outcome == "failed":
                places = [f"{path}[{index}]" for index, item in family.items() if item.ended_badly]
                return any(f"{row.failure.path}/".startswith(f"{place}/") for place in places)
            outputs = decode_payload(row.output or b"")
            if len(outputs) != len(family):
                return False
            for index, item in family.items():
                if item.ended_badly != isinstance(outputs[index], MapError):
                    return False
                if not item.ended_badly and shape(outputs[index]) != shape(item.output):
                    return False
        return True

    @property
    def ended_badly(self) -> bool:
        """Whether it came to an end without an output."""
        return self.at_end.get("status") in ("failed", "cancelled")

    @property
    def output(self) -> Any:
        """What it came to."""
        sealed = self.at_end.get("output")
        return None if sealed is None else decode_payload(sealed)

    def judge(self, fields: dict[str, Any]) -> None:
        """Everything that can only be said when it is over."""
        status = fields["status"]
        if status not in TERMINAL:
            raise self.fail(f"it never ended: {fields}")
        if fields["worker_id"] is not None:
            raise self.fail(f"it ended and is still held by {fields['worker_id']}")
        self.saw_end(fields)
        oracle = Oracle(self)
        outcome = oracle.run(self.made.block, self.given)
        if status == "completed":
            if not isinstance(outcome, Value):
                raise self.fail(f"it completed, and should have been {outcome}")
            output = decode_payload(fields["output"])
            if shape(output) != shape(outcome.value):
                raise self.fail(f"its output is {output!r}, and should be {outcome.value!r}")
        elif status == "failed":
            if not isinstance(outcome, Failed):
                raise self.fail(f"it failed, and should have been {outcome}")
            text = read_error(fields["error"])
            message = text.message if text.error_type in TASK_ERRORS else ""
            if Failure(text.error_type, text.path, message) not in outcome.failures:
                raise self.fail(f"it failed with {text}, and should have with {outcome}")
        elif not self.cancel_asked and self.parent is None:
            raise self.fail("it is cancelled, and nobody asked for it")
        if self.cancel_applied and status != "cancelled":
            raise self.fail(f"it was cancelled, and is now {status}")
        self._judge_failures(oracle, status)
        self._judge_bodies(oracle, status)
        self._judge_events(oracle.timers)
        self._judge_timers(oracle.timers)

    def _judge_failures(self, oracle: Oracle, status: str) -> None:
        """Of failures that compete exactly one came first, and no other was ever recorded."""
        recorded = [row.failure for row in self.rows if row.outcome == "failed"]
        for failure in recorded:
            if not any(failure in rivals for rivals in (*oracle.rivals, *oracle.faint)):
                raise self.fail(f"{failure} should not have happened")
        for rivals in (*oracle.rivals, *oracle.faint):
            count = sum(failure in rivals for failure in recorded)
            missing = count == 0 and status == "completed" and rivals in oracle.rivals
            if count > 1 or missing:
                raise self.fail(f"{count} of these failures were recorded, not one: {rivals}")

    def _judge_bodies(self, oracle: Oracle, status: str) -> None:
        """Each body got what its forerunner gave, and its record is what it answered."""
        bodies = oracle.bodies
        for path, attempt, given in self.given_to:
            body = bodies.get(path)
            if body is None:
                raise self.fail(f"{path} began, and should never have")
            if shape(given) != shape(body.given):
                raise self.fail(f"{path} was given {given!r}, and should have got {body.given!r}")
            if attempt > body.attempts:
                raise self.fail(f"{path} had attempt {attempt}; {body.attempts} were to be made")
        attempts: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.path in bodies and row.attempt > 0:
                attempts[row.path].append(row)
        for path, rows in attempts.items():
            self._judge_rows(bodies[path], rows)
        if status == "completed":
            for path, body in bodies.items():
                if path in oracle.optional or path in self.completed:
                    continue
                if isinstance(body.outcome, Value):
                    raise self.fail(f"{path} has no recorded completion")

    def _judge_rows(self, body: Body, rows: list[Row]) -> None:
        last = rows[-1]
        if len(rows) > 1 and last.outcome == "failed" and rows[-2].outcome == "completed":
            # A route whose key fits none of its arms: the key step completed, the node failed.
            rows = rows[:-1]
        for number, row in enumerate(rows, 1):
            if row.attempt != number:
                raise self.fail(
                    f"{row.path}: attempt {row.attempt} was recorded as number {number}"
                )
            if row is not rows[-1] and row.outcome != "retried":
                raise self.fail(f"{row.path}: attempt {number} ended it, and another was recorded")
            if row.outcome == "completed" and row.output is not None:
                output = decode_payload(row.output)
                expected = body.outcome.value if isinstance(body.outcome, Value) else None
                if shape(output) != shape(expected):
                    raise self.fail(f"{row.path}: {output!r} is recorded, not {expected!r}")

    def _judge_events(self, timers: dict[str, Timer]) -> None:
        """Each event is consumed at most once and in order."""
        consumed: dict[str, list[Any]] = defaultdict(list)
        for row in self.rows:
            timer = timers.get(row.path)
            if timer is not None and timer.event is not None and row.outcome == "completed":
                if row.output is None:
                    raise self.fail(f"the wait at {row.path} ended without a payload")
                consumed[timer.event].append(decode_payload(row.output))
        for name, payloads in consumed.items():
            if payloads != self.sent[name][: len(payloads)]:
                raise self.fail(f"events {name!r} came as {payloads}, sent as {self.sent[name]}")

    def _judge_timers(self, timers: dict[str, Timer]) -> None:
        """Nothing wakes before its time."""
        ends = {row.path: self._true(row) for row in self.rows if row.outcome != "retried"}
        for row in self.rows:
            timer = timers.get(row.path)
            if timer is None or row.outcome == "completed":
                continue
            # Of branches that a failure stopped there is no end.
            before = [ends[path] for path in timer.after if path in ends]
            begun = max(before, default=self.submitted_at or 0.0)
            due = begun + (timer.seconds or 0.0) if timer.until is None else timer.until
            if self._true(row) < due - self.slack:
                raise self.fail(f"{row.path} was over {due - self._true(row):g} s too early")

    @property
    def slack(self) -> float:
        """How far the clocks of two workers may be apart, twice, in seconds."""
        skews = [*self.skews.values(), 0.0]
        return 2 * (max(skews) - min(skews)) + 2 * MICROSECOND

    def _true(self, row: Row) -> float:
        """When a line was written by the clock of the world."""
        return row.ended_at - self.skews[row.worker]
