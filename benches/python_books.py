"""The state of the pure-Python backend and every way it changes.

An instance is ready, on a timer, held, or nowhere; each method here takes it from one to the
other and keeps the indexes true. Whoever calls holds the lock and has read the clock once: nothing
here waits, reads the time or tells anybody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import count

from benches.python_family import Families
from benches.python_index import EventBox, Index
from benches.python_record import PARKED, Asked, Instance, Lease
from sayiir._core import AGEING_SECONDS, Claim, Claimant, Commit, Program
from sayiir._errors import (
    DefinitionMismatchError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
)
from sayiir.backends import HistoryRow, Hub, InstanceRow, NewInstance, Reply

__all__ = ["Books"]

POLICIES = frozenset({"fail", "use_existing", "terminate_existing"})


class Books:
    """Instances, events and leases, and where each of them is found; see the module's opening."""

    def __init__(
        self,
        *,
        keep_completed: float | None,
        keep_events: float,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._hub = Hub()
        self._lock = threading.Lock()
        self._keep_completed = keep_completed
        self._keep_events = keep_events
        self._instances: dict[str, Instance] = {}
        self._by_number: dict[int, Instance] = {}
        self._last_number = 0
        self._fences = count(1)
        # What a worker cannot do sits in groups that it never looks at.
        self._ready: dict[str, dict[tuple[str, ...], Index[Instance]]] = {}
        self._names: dict[str, str] = {}
        self._trees: dict[str, bytes] = {}
        self._timers: Index[Instance] = Index()
        self._leases: dict[str, Lease] = {}
        self._no_lease_ends_before = float("inf")
        self._orphans: dict[str, EventBox] = {}
        self._orphans_by_age: deque[tuple[float, str, EventBox, int]] = deque()
        self._ended: deque[tuple[float, Instance]] = deque()
        self._families = Families(self._add, self._stop, self._place, self._erase)

    def _find(self, instance_id: str) -> Instance:
        one = self._instances.get(instance_id)
        if one is None:
            raise InstanceNotFoundError(
                f"there is no instance {instance_id!r}; check the id and the backend it was"
                " submitted to",
                instance_id=instance_id,
            )
        return one

    def _conflict(self, instance_id: str, program: Program, policy: str) -> InstanceRow | None:
        if policy not in POLICIES:
            raise ValueError(f"unknown conflict policy {policy!r}; use one of {sorted(POLICIES)}")
        one = self._instances.get(instance_id)
        if one is None or policy == "terminate_existing":
            return None
        if one.definition_hash != program.definition_hash:
            raise DefinitionMismatchError(
                f"instance {instance_id!r} belongs to another definition of its workflow; let it"
                " finish with the old code, or submit with 'terminate_existing'",
                expected=program.definition_hash,
                found=one.definition_hash,
                instance_id=instance_id,
            )
        if policy == "fail":
            raise InstanceAlreadyExistsError(
                f"instance {instance_id!r} already exists and is {one.status}; choose another id,"
                " or the conflict policy 'use_existing' or 'terminate_existing'",
                instance_id=instance_id,
            )
        return one.row()

    def _create(self, new: NewInstance, now: float) -> None:
        program = new.program
        if program.definition_hash not in self._trees:
            self._trees[program.definition_hash] = program.tree
        self._add(
            new.instance_id,
            program.name,
            program.definition_hash,
            new.input,
            program.entry,
            now,
            new.start_at,
        )

    def _add(
        self,
        instance_id: str,
        workflow: str,
        definition_hash: str,
        payload: bytes,
        entry: tuple[list[str], int],
        now: float,
        start_at: float | None = None,
    ) -> Instance:
        """Make an instance in the place of whatever has its id."""
        former = self._instances.get(instance_id)
        if former is not None:
            self._erase(former, now)
        tags, priority = entry
        self._names[definition_hash] = workflow
        self._last_number += 1
        one = Instance(
            instance_id,
            workflow,
            definition_hash,
            payload,
            tuple(tags),
            priority,
            self._last_number,
            now,
            now,
        )
        if start_at is not None and start_at > now:
            one.start_at = one.wake_at = start_at
            one.status = "waiting"
        one.events = self._orphans.pop(instance_id, None)
        self._instances[one.instance_id] = self._by_number[one.number] = one
        self._place(one, now)
        return one

    def _groups(self, claimant: Claimant) -> list[Index[Instance]]:
        tags = claimant.tags
        offered = None if tags is None else frozenset(tags)
        return [
            group
            for definition_hash in claimant.definition_hashes
            for needed, group in self._ready.get(definition_hash, {}).items()
            if offered is None or offered.issuperset(needed)
        ]

    def _lease(self, one: Instance, claimant: Claimant, now: float) -> Claim:
        self._unplace(one)
        lease = self._leases.get(claimant.worker_id)
        if lease is None:
            lease = Lease(claimant.worker_id, now + claimant.lease_ttl)
            self._leases[lease.worker_id] = lease
        else:
            lease.expires_at = max(lease.expires_at, now + claimant.lease_ttl)
        self._no_lease_ends_before = min(self._no_lease_ends_before, lease.expires_at)
        lease.held.add(one)
        one.lease = lease
        one.fence = next(self._fences)
        one.unpark()
        return one.claim()

    def _expire(self, now: float) -> None:
        """Take leases back from workers that were not renewed in time."""
        if now < self._no_lease_ends_before:
            return
        late = [lease for lease in self._leases.values() if lease.expires_at <= now]
        for lease in late:
            del self._leases[lease.worker_id]
        self._no_lease_ends_before = min(
            (lease.expires_at for lease in self._leases.values()), default=float("inf")
        )
        for lease in late:
            for one in list(lease.held):
                self._let_go(one, now)

    def _wake_due(self, now: float) -> None:
        while (entry := self._timers.first()) is not None and entry.key[0] <= now:
            self._place(entry.item, now)

    def _apply(
        self, one: Instance, worker_id: str, commit: Commit, intended: str, now: float
    ) -> Reply:
        one.updated_at = now
        one.steps.extend(HistoryRow(step, worker_id) for step in commit.steps)
        cursor = commit.cursor
        if cursor is not None:
            one.cursor = cursor
        one.cells.update(commit.cells)
        one.next_seq = commit.next_seq
        one.next_strand = commit.next_strand
        one.cells_from = commit.cells_from
        if one.cells and one.cells_from >= one.next_strand:
            one.cells = {}
        consumed = commit.consumed
        if consumed and one.events is not None:
            one.events.remove(consumed)
        needs = commit.needs
        if needs is not None:
            one.tags, one.priority = tuple(needs[0]), needs[1]
        batch, over = commit.batch, commit.over
        if batch is not None or over is None or over:
            self._families.change(one, batch, over, now)
        pending = one.pending
        if intended == "completed" or intended == "failed":
            self._finish(one, intended, commit.result, now)
            return Reply("ok")
        if intended == "hold":
            if pending is None:
                return Reply("ok")
            if not pending.cancel and not commit.quiescent:
                return Reply("pause_pending")
        elif intended == "park":
            awaits = commit.awaits
            if pending is None and one.events is not None:
                events = one.events.oldest(awaits)
                if events:
                    return Reply("events", events)
            one.status = "awaiting_signal" if commit.awaiting else "waiting"
            one.awaits, one.wake_at = awaits, commit.wake_at
            one.delay_id = commit.delay_id
            one.signal_id, one.signal_name = commit.signal_id, commit.signal_name
        self._let_go(one, now)
        if pending is None:
            return Reply("ok")
        return Reply("cancelled" if pending.cancel else "paused")

    def _place(self, one: Instance, now: float) -> None:
        """Put an instance that nobody holds where its status says."""
        self._unplace(one)
        status = one.status
        if status == "in_progress" or (status in PARKED and one.is_due(now)):
            if status in PARKED:
                due = one.wake_at is not None and one.wake_at <= now
                one.updated_at = max(one.updated_at, one.wake_at or 0.0) if due else now
            one.status = "in_progress"
            since = max(one.created_at, one.start_at or 0.0)
            order = since + (one.priority - 1) * AGEING_SECONDS
            groups = self._ready.setdefault(one.definition_hash, {})
            group = groups.get(one.tags)
            if group is None:
                group = groups[one.tags] = Index()
            one.place = group.push((order, one.number), one)
        elif status in PARKED and one.wake_at is not None:
            one.place = self._timers.push((one.wake_at, one.number), one)

    def _unplace(self, one: Instance) -> None:
        if one.place is not None:
            one.place.withdraw()
            one.place = None

    def _let_go(self, one: Instance, now: float) -> None:
        """Give a lease back, let a pending request take effect, and index what goes on."""
        self._drop_lease(one)
        pending = one.pending
        if pending is None:
            self._place(one, now)
        else:
            self._stop(one, pending, now)

    def _drop_lease(self, one: Instance) -> None:
        if one.lease is not None:
            one.lease.held.discard(one)
            one.lease = None

    def _stop(self, one: Instance, asked: Asked, now: float) -> None:
        """A cancel or pause takes effect."""
        asked.pending = False
        one.fence = next(self._fences)
        one.updated_at = now
        if asked.cancel:
            self._finish(one, "cancelled", None, now)
        else:
            asked.resume, one.status = one.status, "paused"
            self._unplace(one)

    def _finish(self, one: Instance, status: str, result: bytes | None, now: float) -> None:
        self._unplace(one)
        self._drop_lease(one)
        if status != "cancelled":
            one.asked = None
        one.status, one.result, one.updated_at = status, result, now
        one.unpark()
        one.cells = {}
        one.events = None
        self._families.finished(one, now)
        if self._keep_completed is not None and one.kin is None:
            self._ended.append((now + self._keep_completed, one))
        self._forget_old(now)

    def _erase(self, one: Instance, now: float) -> None:
        self._families.leave(one, now)
        self._unplace(one)
        self._drop_lease(one)
        del self._instances[one.instance_id], self._by_number[one.number]

    def _forget_old(self, now: float) -> None:
        while self._ended and self._ended[0][0] <= now:
            one = self._ended.popleft()[1]
            if self._by_number.get(one.number) is one:
                self._erase(one, now)
        while self._orphans_by_age and self._orphans_by_age[0][0] <= now:
            _, instance_id, box, seq = self._orphans_by_age.popleft()
            if self._orphans.get(instance_id) is box:
                box.forget(seq)
                if not box:
                    del self._orphans[instance_id]
