"""The checker: holds what processes said about themselves against what the store says at the end.

It proves, of every instance:

(i) an acknowledged submit exists, and ends;
(ii) each path has one recorded result, which an execution gave, and which never changes;
(iii) each body was given exactly what was recorded of the one before; the output is the oracle's;
(iv) a body begins once, and again only after something befell the process that ran it;
(v) nothing begins after its completion was recorded;
(vi) a terminal state never changes;
(vii) each event is consumed at most once, and in order of its name;
(viii) no lease is left over;
(ix) nothing is recorded under a lease that another process has taken over since.

A claim of an instance raises its fence, and each execution knows the fence it ran under, so that
nothing here hangs on how exact a clock is. The checker itself is on trial in `test_checker.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from sayiir._codec import decode_payload

from .executions import Attempt, Execution, Fates, executions_of, fates_of
from .ledger import Record, digest
from .replay import FINAL, Photograph, Recorded, Share
from .shapes import Oracle, Shape

TERMINAL = ("completed", "failed", "cancelled")
SHOWN = 40
"""So many breaches are spelled out."""


class BreachError(AssertionError):
    """Promises were broken."""


@dataclass(slots=True)
class Tally:
    """What was seen on the way."""

    instances: int = 0
    bodies: int = 0
    """Attempts that were executed at all."""
    repeated: int = 0
    """Executions beyond the first of each."""
    redone: int = 0
    """Those of them whose forerunner had ended, so that its result was lost with the process."""
    taken_over: int = 0
    """Executions during which another process took the instance over."""
    late: int = 0
    """Those of them that came to an end all the same, so that their result had to be refused."""
    contested: int = 0
    """Those of them that ended while whoever had taken over was still at work on the instance."""
    kills: int = 0
    kills_that_hit: int = 0
    """Of processes that had a body running, or ended and not recorded."""
    stops: int = 0
    lost: int = 0
    changed: int = 0

    @property
    def repeated_percent(self) -> float:
        """Repeated executions for each hundred bodies."""
        return 100 * self.repeated / max(self.bodies, 1)

    def figures(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**asdict(self), "repeated_percent": self.repeated_percent}


@dataclass(slots=True)
class Checker:
    """One check of one run. `shapes` are the flows by name.

    `first` are photographs made as soon as an instance had ended, `last` those made when all was
    over.
    """

    records: Sequence[Record]
    shapes: Mapping[str, Shape]
    first: Mapping[str, Photograph]
    last: Mapping[str, Photograph]
    tally: Tally = field(default_factory=Tally)
    items: set[str] = field(default_factory=set)
    """Those instances that are items of others."""
    breaches: list[str] = field(default_factory=list)

    def prove(self) -> Tally:
        """Go through all clauses.

        Raises:
            BreachError: One or more do not hold; it lists them.
        """
        fates = fates_of(self.records)
        executions = executions_of(self.records)
        submits = self._submits()
        sent = self._sent()
        for instance, record in submits.items():
            photograph = self.last.get(instance)
            if photograph is None:
                self._missing(instance, executions.get(instance, ()))
                continue
            ran = executions.get(instance, [])
            book = Recorded(photograph, ran)
            self._judge_end(book, self.first.get(instance))
            oracle = self.shapes[record.detail["shape"]].oracle
            self._judge_book(book, oracle, record.detail["given"], executions, fates)
            _judge_events(book, sent.get(instance, {}))
            self.breaches += book.breaches
            self.tally.instances += 1
        for instance in {*executions, *self.last} - set(submits) - self.items:
            self.breaches.append(f"(i) {instance}: nobody submitted it")
        self._count(fates, executions)
        if self.breaches:
            listed = "\n".join(self.breaches[:SHOWN])
            raise BreachError(f"{len(self.breaches)} breaches:\n{listed}")
        return self.tally

    def _judge_book(
        self,
        book: Recorded,
        oracle: Oracle,
        given: Any,
        executions: Mapping[str, Sequence[Execution]],
        fates: Fates,
    ) -> None:
        """One instance, and then the items of its spread maps, which are instances like others."""
        book.walk(oracle, given)
        _judge_results(book)
        _Tenures(book, fates, self.tally).judge()
        for share in book.shares:
            items = self._items_of(book, share)
            for index, (item, output) in enumerate(zip(items, share.outputs, strict=False)):
                own = Recorded(self.last[item], executions.get(item, []))
                self._judge_end(own, None)
                self._judge_book(own, share.item, share.given[index], executions, fates)
                row = own.photograph.row
                if row.output is None or digest(decode_payload(row.output)) != digest(output):
                    book.object("iii", f"{share.path}[{index}] is {output!r}, not that of {item}")
                self.breaches += own.breaches

    def _items_of(self, book: Recorded, share: Share) -> list[str]:
        """The items of a spread map by their indexes; each was made once.

        No instance of these shapes comes to more than one spread map.
        """
        parent = book.photograph.row.instance_id
        found = {
            name: int(name[name.rindex("[") + 1 : -1])
            for name in self.last
            if name.rpartition("~")[0] == parent
        }
        self.items |= found.keys()
        ordered = sorted(found, key=found.__getitem__)
        if [found[name] for name in ordered] != list(range(len(share.given))):
            book.object("i", f"{share.path} has the items {ordered}, not {len(share.given)}")
            return []
        return ordered

    def _submits(self) -> dict[str, Record]:
        """Each instance with the first attempt to submit it; all of them said the same."""
        found: dict[str, Record] = {}
        for record in self.records:
            if record.kind == "submit":
                found.setdefault(record.instance, record)
        return found

    def _sent(self) -> dict[str, dict[str, list[Any]]]:
        """The events of each instance by name, in the order of their sending, each key once."""
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        for record in self.records:
            if record.kind == "event":
                detail = record.detail
                found[record.instance][detail["name"]].setdefault(detail["key"], detail["payload"])
        return {
            instance: {name: list(keys.values()) for name, keys in names.items()}
            for instance, names in found.items()
        }

    def _missing(self, instance: str, ran: Sequence[Execution]) -> None:
        acknowledged = any(
            record.kind == "ack" and record.instance == instance for record in self.records
        )
        if acknowledged or ran or instance in self.first:
            self.tally.lost += 1
            self.breaches.append(f"(i) {instance}: it was acknowledged, and is not there")

    def _judge_end(self, book: Recorded, first: Photograph | None) -> None:
        row = book.photograph.row
        if row.status not in TERMINAL:
            self.tally.lost += 1
            book.object("i", f"it never ended; it is {row.status}")
        if row.worker_id is not None:
            book.object("viii", f"it is still held by {row.worker_id}")
        if first is None:
            return
        before = (first.row, [_line(line) for line in first.history])
        after = (row, [_line(line) for line in book.photograph.history])
        if before != after:
            self.tally.changed += 1
            book.object("vi", f"its end changed from {before} to {after}")

    def _count(self, fates: Fates, executions: Mapping[str, Sequence[Execution]]) -> None:
        starts = Counter(one.key for ran in executions.values() for one in ran)
        self.tally.bodies = len(starts)
        self.tally.repeated = starts.total() - len(starts)
        ends = Counter(
            one.key for ran in executions.values() for one in ran if one.outcome == "end"
        )
        self.tally.redone = ends.total() - len(ends)
        self.tally.kills = len(fates.killed)
        repeated = {key for key, count in starts.items() if count > 1}
        hit = {
            one.who
            for ran in executions.values()
            for one in ran
            if one.who in fates.killed and (one.outcome == "" or one.key in repeated)
        }
        self.tally.kills_that_hit = len(hit)
        self.tally.stops = sum(len(spells) for spells in fates.stopped.values())


def _line(line: Any) -> tuple[Any, ...]:
    """A row of the history as plain data."""
    step = line.step
    return (
        *(step.seq, step.path, step.name, step.attempt, step.outcome, step.output, step.error),
        *(step.started_at, step.ended_at, line.worker_id),
    )


def _judge_results(book: Recorded) -> None:
    """(ii): one result for each path, and rows that follow one another."""
    ends: Counter[str] = Counter()
    for place, line in enumerate(book.photograph.history):
        if line.step.seq != place:
            book.object("ii", f"row {line.step.seq} of its history stands at place {place}")
        if line.step.outcome in FINAL:
            ends[line.step.path] += 1
    for path, count in ends.items():
        if count > 1:
            book.object("ii", f"{path} has {count} results")


def _judge_events(book: Recorded, sent: Mapping[str, list[Any]]) -> None:
    """(vii): what waits were given is the first part of what was sent, in order."""
    for name, payloads in book.consumed.items():
        known = sent.get(name, [])
        if payloads != known[: len(payloads)]:
            book.object("vii", f"events {name!r} came as {payloads}, and were sent as {known}")


class _Tenures:
    """Who held one instance when: the clauses that compare executions with one another."""

    def __init__(self, book: Recorded, fates: Fates, tally: Tally) -> None:
        self._book = book
        self._fates = fates
        self._tally = tally
        self._ran = sorted(book.executions, key=lambda one: (one.fence, one.start))
        self._recorded = self._find_recorded()

    def judge(self) -> None:
        """Go through (iv), (v) and (ix)."""
        self._judge_holders()
        self._judge_repeats()
        self._judge_overlaps()
        self._judge_completed()
        self._judge_late()

    def _find_recorded(self) -> dict[Attempt, Execution]:
        """The execution behind each row that has an output, where it can be told."""
        instance = self._book.photograph.row.instance_id
        found = {}
        for line in self._book.photograph.history:
            step = line.step
            if step.output is None or step.attempt == 0:
                continue
            key = (instance, step.path, step.attempt)
            made = digest(decode_payload(step.output))
            able = [one for one in self._ran if one.key == key and one.digest == made]
            # Keys of routes bear no mark; when they were worked out twice nobody can tell.
            if len(able) == 1:
                found[key] = able[0]
        return found

    def _since(self, fence: int) -> float:
        """A moment before which this fence cannot have been given out."""
        return max((one.start for one in self._ran if one.fence < fence), default=0.0)

    def _excused(self, one: Execution, by: float) -> bool:
        """Whether the process of this execution may have lost its lease by then."""
        if one.outcome == "cut" and one.end <= by:
            return True
        fates = self._fates
        return fates.dead(one.who, by) or fates.stood_still(one.who, self._since(one.fence), by)

    def _judge_holders(self) -> None:
        """(ix): one process for each fence, and what is recorded bears the name of who ran it."""
        holders: dict[int, str] = {}
        for one in self._ran:
            if holders.setdefault(one.fence, one.who) != one.who:
                self._object("ix", f"{one} shares its fence with {holders[one.fence]}")
        for line in self._book.photograph.history:
            key = (self._book.photograph.row.instance_id, line.step.path, line.step.attempt)
            ran = self._recorded.get(key)
            name = None if ran is None else self._fates.names.get(ran.who)
            if name is not None and line.worker_id.rpartition("~")[0] != name:
                self._object("ix", f"{ran} is recorded as one of {line.worker_id}")

    def _judge_repeats(self) -> None:
        """(iv): starts ≤ 1 + what befell those who ran it; retries are attempts of their own."""
        attempts: dict[Attempt, list[Execution]] = defaultdict(list)
        for one in self._ran:
            attempts[one.key].append(one)
        for ran in attempts.values():
            for one, following in pairwise(ran):
                if one.fence == following.fence:
                    self._object("iv", f"{one} began twice under one lease")
                elif not self._excused(one, max(following.start, one.start)):
                    self._object("iv", f"{one} began again as {following}; nothing befell it")

    def _judge_overlaps(self) -> None:
        """(iv): no instance is advanced by two at one time."""
        for one in self._ran:
            taken = [
                other
                for other in self._ran
                if other.fence > one.fence and one.start < other.start < one.end
            ]
            if not taken:
                continue
            if not self._fates.dead(one.who, taken[0].start):
                self._tally.taken_over += 1
            if one.outcome in ("end", "raised"):
                self._tally.late += 1
                self._tally.contested += any(one.end < other.end for other in taken)
            if not self._excused(one, min(other.start for other in taken)):
                self._object("iv", f"{taken[0]} began while {one} was running")
        for one in self._ran:
            newer = [
                other for other in self._ran if other.fence > one.fence and other.start < one.start
            ]
            if newer and not self._excused(one, one.start):
                self._object("iv", f"{one} began although {newer[0]} had begun")

    def _judge_completed(self) -> None:
        """(v): what began after a completion ran under an older lease, or not at all."""
        for (instance, path, _), made in self._recorded.items():
            for one in self._ran:
                if one.path != path or one is made or one.attempt < made.attempt:
                    continue
                later = one.fence > made.fence or (one.fence == made.fence and one.start > made.end)
                if later:
                    self._object("v", f"{one} began after {path} of {instance} was completed")

    def _judge_late(self) -> None:
        """(ix): fences never fall along the history, and nothing superseded is recorded."""
        highest = 0
        for line in self._book.photograph.history:
            key = (self._book.photograph.row.instance_id, line.step.path, line.step.attempt)
            made = self._recorded.get(key)
            if made is None:
                continue
            if made.fence < highest:
                self._object("ix", f"{made} was recorded after a row under fence {highest}")
            highest = max(highest, made.fence)
            for other in self._ran:
                if other.fence > made.fence and other.start < made.end:
                    self._object("ix", f"a late write was accepted: {made}, though {other} ran")

    def _object(self, clause: str, text: str) -> None:
        self._book.object(clause, text)
