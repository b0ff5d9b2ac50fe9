"""A complete backend in pure Python, as somebody would write it who needs a fourth one.

It keeps every promise of `sayiir.backends.Backend`, proven by the same contract suite as the
backends of the package, and is what their speed is compared with: the standard library's best
structures, each call costing what it touches, nothing done twice. Everything is in memory and goes
with the process.

One lock is held for the length of a call and never while a listener runs. No method ever waits, so
any event loop, or none, will do. Leases are ended when they are next looked at, by whoever looks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from benches.python_index import EventBox
from benches.python_moving import Moving
from benches.python_record import ENDED, PARKED, Asked, Instance
from sayiir import _clock
from sayiir._core import Claim, Claimant, Commit, Program, StepRow
from sayiir._errors import InvalidStateError
from sayiir.backends import (
    Backlog,
    HistoryRow,
    InstanceRow,
    Listener,
    NewInstance,
    News,
    Page,
    Reply,
)

__all__ = ["PythonBackend"]

STATUSES = ENDED | PARKED | {"in_progress", "paused"}
WEEK = 7 * 86_400.0


class PythonBackend(Moving):
    """See the module's opening.

    Args:
        keep_completed: How long ended instances are kept, in seconds; `None`: until deleted.
        keep_events: How long an event waits for an instance that does not exist yet, in seconds.
        clock: Gives the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        keep_completed: float | None = None,
        keep_events: float = WEEK,
        clock: Callable[[], float] = _clock.now,
    ) -> None:
        super().__init__(keep_completed=keep_completed, keep_events=keep_events, clock=clock)

    def now(self) -> float:
        return self._clock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._hub.listen(listener)

    async def check_submit(
        self, instance_id: str, program: Program, policy: str
    ) -> InstanceRow | None:
        with self._lock:
            self._expire(self._clock())
            return self._conflict(instance_id, program, policy)

    async def submit(
        self, instances: Sequence[NewInstance], policy: str
    ) -> Sequence[InstanceRow | None]:
        now = self._clock()
        with self._lock:
            self._expire(now)
            self._forget_old(now)
            found = [self._conflict(new.instance_id, new.program, policy) for new in instances]
            for new, existing in zip(instances, found, strict=True):
                if existing is None:
                    self._create(new, now)
        for new in instances:
            if policy == "terminate_existing":
                self._hub.tell("news", new.instance_id)
            self._hub.tell("work", new.instance_id)
        self._tell()
        return found

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        now = self._clock()
        with self._lock:
            self._expire(now)
            self._wake_due(now)
            groups = self._groups(claimant)
            claims: list[Claim] = []
            while len(claims) < limit:
                firsts = [entry for group in groups if (entry := group.first()) is not None]
                if not firsts:
                    break
                best = min(firsts, key=lambda entry: entry.key).item
                claims.append(self._lease(best, claimant, now))
            return claims

    async def claim_one(self, claimant: Claimant, instance_id: str) -> Claim | None:
        now = self._clock()
        with self._lock:
            self._expire(now)
            self._wake_due(now)
            one = self._find(instance_id)
            free = one.status == "in_progress" and one.lease is None
            able = one.definition_hash in claimant.definition_hashes and claimant.covers(one.tags)
            return self._lease(one, claimant, now) if free and able else None

    async def renew(self, worker_id: str, lease_ttl: float) -> Sequence[str]:
        now = self._clock()
        with self._lock:
            self._expire(now)
            lease = self._leases.get(worker_id)
            if lease is None:
                return ()
            lease.expires_at = max(lease.expires_at, now + lease_ttl)
            return [one.instance_id for one in lease.held if one.pending is not None]

    def _tell(self) -> None:
        """Tell of instances that a call for another one had to do with: items and parents."""
        for hint in self._families.told():
            self._hub.tell(*hint)

    async def release(self, worker_id: str) -> int:
        now = self._clock()
        with self._lock:
            self._expire(now)
            lease = self._leases.pop(worker_id, None)
            held = [] if lease is None else list(lease.held)
            for one in held:
                self._let_go(one, now)
            ended = [one.instance_id for one in held if one.status in ENDED]
        if held:
            self._hub.tell("work", "")
        for instance_id in ended:
            self._hub.tell("ended", instance_id)
        self._tell()
        return len(held)

    async def give_back(self, instance_id: str, fence: int) -> bool:
        now = self._clock()
        with self._lock:
            self._expire(now)
            one = self._instances.get(instance_id)
            if one is None or one.lease is None or one.fence != fence:
                return False
            self._let_go(one, now)
            ended = one.status in ENDED
        self._hub.tell("ended" if ended else "work", instance_id)
        self._tell()
        return True

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        now = self._clock()
        replies: list[Reply] = []
        hints: list[tuple[str, str]] = []
        with self._lock:
            self._expire(now)
            for commit in commits:
                one = self._instances.get(commit.instance_id)
                if one is None or one.lease is None or one.fence != commit.fence:
                    replies.append(Reply("lease_lost"))
                    continue
                intended = commit.next
                reply = self._apply(one, one.lease.worker_id, commit, intended, now)
                replies.append(reply)
                if one.status in ENDED:
                    hints.append(("ended", one.instance_id))
                elif intended in ("park", "hand_over"):
                    hints.append(("work", one.instance_id))
        for hint in hints:
            self._hub.tell(*hint)
        self._tell()
        return replies

    async def news(self, instance_id: str, fence: int, names: Sequence[str]) -> News:
        with self._lock:
            self._expire(self._clock())
            one = self._instances.get(instance_id)
            if one is None or one.lease is None or one.fence != fence:
                return News(lost=True)
            pending = one.pending
            return News(
                cancel=pending is not None and pending.cancel,
                pause=pending is not None and not pending.cancel,
                events=() if one.events is None else one.events.oldest(names),
            )

    async def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        now = self._clock()
        with self._lock:
            self._expire(now)
            one = self._instances.get(instance_id)
            if one is None:
                self._forget_old(now)
                box = self._orphans.setdefault(instance_id, EventBox())
                seq = box.push(name, payload, key)
                if seq is not None:
                    self._orphans_by_age.append((now + self._keep_events, instance_id, box, seq))
                return seq is not None
            if one.status in ENDED:
                raise _invalid(one, "send an event to", "it has ended")
            if one.events is None:
                one.events = EventBox()
            fresh = one.events.push(name, payload, key) is not None
            if one.status in PARKED and name in one.awaits:
                self._place(one, now)
        self._hub.tell("work", instance_id)
        self._hub.tell("news", instance_id)
        return fresh

    async def cancel(self, instance_id: str, reason: str | None, by: str | None) -> str:
        return self._request(instance_id, Asked(True, reason, by))

    async def pause(self, instance_id: str, reason: str | None, by: str | None) -> str:
        return self._request(instance_id, Asked(False, reason, by))

    def _request(self, instance_id: str, asked: Asked) -> str:
        now = self._clock()
        with self._lock:
            self._expire(now)
            one = self._find(instance_id)
            if one.status == ("cancelled" if asked.cancel else "paused"):
                return one.status
            if one.status in ENDED:
                raise _invalid(one, "cancel" if asked.cancel else "pause", "it has ended")
            pending = one.pending
            # The first of two equal requests stays, and a cancel beats a pause.
            if pending is None or (asked.cancel and not pending.cancel):
                one.asked = asked
                if one.lease is None:
                    self._stop(one, asked, now)
            status = one.status
        self._hub.tell("ended" if status in ENDED else "news", instance_id)
        self._tell()
        return status

    async def unpause(self, instance_id: str) -> str:
        now = self._clock()
        with self._lock:
            self._expire(now)
            one = self._find(instance_id)
            asked = one.asked
            if asked is None or asked.cancel:
                raise _invalid(one, "unpause", "only a paused instance can be unpaused")
            one.asked = None
            if not asked.pending:
                one.status, one.updated_at = asked.resume, now
                self._place(one, now)
            status = one.status
        self._hub.tell("work", instance_id)
        return status

    async def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]:
        with self._lock:
            return self._families.ends(self._find(instance_id), group)

    async def delete(self, instance_id: str, force: bool) -> None:
        now = self._clock()
        with self._lock:
            self._expire(now)
            one = self._find(instance_id)
            if one.status not in ENDED and not force:
                raise _invalid(one, "delete", "cancel it first, or delete it with force=True")
            self._erase(one, now)
        self._hub.tell("news", instance_id)
        self._hub.tell("ended", instance_id)
        self._tell()

    async def get(self, instance_id: str) -> InstanceRow:
        with self._lock:
            self._expire(self._clock())
            return self._find(instance_id).row()

    async def find(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
            raise ValueError("cursor must be one that a former page gave")
        if status is not None and status not in STATUSES:
            raise ValueError(f"unknown status {status!r}; use one of {sorted(STATUSES)}")
        with self._lock:
            self._expire(self._clock())
            rows: list[InstanceRow] = []
            last = 0
            newest = self._last_number if cursor is None else int(cursor) - 1
            for number in range(min(newest, self._last_number), 0, -1):
                one = self._by_number.get(number)
                if (
                    one is None
                    or (status is not None and one.status != status)
                    or (workflow is not None and one.workflow_id != workflow)
                    or (id_prefix is not None and not one.instance_id.startswith(id_prefix))
                    or (created_after is not None and one.created_at <= created_after)
                    or (created_before is not None and one.created_at >= created_before)
                ):
                    continue
                if len(rows) == limit:
                    # One more matches, so the next page begins below the last row of this one.
                    return Page(rows, str(last))
                rows.append(one.row())
                last = number
            return Page(rows)

    async def history(self, instance_id: str) -> Sequence[HistoryRow]:
        with self._lock:
            return list(self._find(instance_id).steps)

    async def step(self, instance_id: str, path_or_name: str) -> StepRow | None:
        with self._lock:
            done = [row.step for row in self._find(instance_id).steps]
        done = [step for step in reversed(done) if step.output is not None]
        by_path = (step for step in done if step.path == path_or_name)
        by_name = (step for step in done if step.name == path_or_name)
        return next(by_path, None) or next(by_name, None)

    async def input(self, instance_id: str) -> bytes:
        with self._lock:
            return self._find(instance_id).input

    async def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]:
        with self._lock:
            steps = self._find(instance_id).steps
            found = []
            for seq in seqs:
                # Rows are numbered in order, so a row is at its number or, after a gap, before it.
                at = seq
                if at >= len(steps) or steps[at].step.seq != seq:
                    at = bisect_left(steps, seq, key=lambda row: row.step.seq)
                if at < len(steps) and steps[at].step.seq == seq:
                    found.append(steps[at].step)
            return found

    async def backlog(self) -> Sequence[Backlog]:
        now = self._clock()
        with self._lock:
            return [
                Backlog(
                    definition_hash,
                    self._names[definition_hash],
                    tags,
                    len(group),
                    max(0.0, now - next_one.item.updated_at),
                )
                for definition_hash, groups in self._ready.items()
                for tags, group in groups.items()
                if (next_one := group.first()) is not None
            ]

    async def next_wake(self) -> float | None:
        with self._lock:
            entry = self._timers.first()
            return None if entry is None else entry.key[0]

    async def close(self) -> None:
        """Nothing to give up."""


def _invalid(one: Instance, verb: str, hint: str) -> InvalidStateError:
    return InvalidStateError(
        f"cannot {verb} instance {one.instance_id!r}: it is {one.status}; {hint}",
        state=one.status,
        instance_id=one.instance_id,
    )
