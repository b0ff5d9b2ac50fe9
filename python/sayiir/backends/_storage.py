"""A backend whose storage has threads of its own: the event loop's side of it.

`Storage` in Rust takes calls and gives answers later. What this module adds is the loop's part: it
hands calls over, waits for their answers, and gives the hints that a change calls for. Hints of
other processes come from the storage thread. It does not know what is behind the storage.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from sayiir import _clock

from ._hub import Hub, Listener
from ._port import Landing
from ._rows import (
    Backlog,
    Event,
    HistoryRow,
    InstanceRow,
    NewInstance,
    News,
    Page,
    Reply,
)
from ._view import page_number

if TYPE_CHECKING:
    from sayiir._core import Claim, Claimant, Commit, Program, StepRow, Storage
    from sayiir.codecs import Codec

__all__ = ["StorageBackend"]


class StorageBackend:
    """What backends with storage threads have in common; see `Backend` for the calls.

    One object can be shared by any number of clients and workers, threads and event loops of its
    process.

    Args:
        store: Where the calls go.
        clock: Gives the time in seconds since 1970; `_clock.now` stands for the storage's own time,
            which is read as late as can be.
        codec: What clients and workers do to the payloads that they store here.
    """

    __slots__ = (
        "__weakref__", "_clock", "_landings", "_last", "_lock", "_now", "codec", "hub", "store"
    )  # fmt: skip

    def __init__(
        self, store: Storage, clock: Callable[[], float], codec: Codec | None = None
    ) -> None:
        self.codec: Codec | None = codec
        self._clock = clock
        self._now: Callable[[], float | None] = _no_time if clock is _clock.now else clock
        self.store: Storage = store
        self.hub: Hub = Hub()
        self._lock = threading.Lock()
        self._landings: WeakKeyDictionary[asyncio.AbstractEventLoop, Landing] = WeakKeyDictionary()
        # The loop that asked last, which nearly always asks next; it must not be kept alive.
        self._last: tuple[ref[asyncio.AbstractEventLoop], Landing] | None = None

    def now(self) -> float:
        """The clock's time."""
        return self._clock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener for hints; what comes back removes it.

        Called on a running event loop, the listener also hears of other processes, on that loop.
        """
        stop_hub = self.hub.listen(listener)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return stop_hub
        landing = self.landing(loop)
        with self._lock:
            landing.listeners = (*landing.listeners, listener)
            self.store.listen(landing.port, True)

        def stop() -> None:
            stop_hub()
            with self._lock:
                landing.listeners = tuple(one for one in landing.listeners if one is not listener)
                if not landing.listeners:
                    self.store.listen(landing.port, False)

        return stop

    def keep_leases(self, claimant: Claimant) -> Callable[[], None] | None:
        """Renew a worker's leases by the storage thread; what comes back stops it.

        `None` when the time is not the machine's: then whoever owns the clock has to renew.
        """
        if self._clock is not _clock.now:
            return None
        self.store.keep(claimant)
        return lambda: self.store.unkeep(claimant)

    def landing(self, loop: asyncio.AbstractEventLoop) -> Landing:
        """Where answers for the running loop arrive."""
        last = self._last
        if last is not None and last[0]() is loop:
            return last[1]
        landing = self._landings.get(loop)
        if landing is None:
            with self._lock:
                landing = self._landings[loop] = Landing(loop, self.store)
        self._last = (ref(loop), landing)
        return landing

    def _ask(self, call: Callable[..., int], *args: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        return self.landing(loop).ask(loop, call, self._now(), *args)

    def _announce(self, instance_id: str) -> None:
        """Hint at an instance as soon as the call that makes it ready is on its way.

        The claim of whoever has nothing to do goes out behind that, and need not wait for its
        answer. Among many calls that go out together there are claims of slots that became free.
        """
        last = self._last
        if last is not None and not last[1].settling:
            self.hub.tell("work", instance_id)

    def watch(self, instance_id: str, wanted: bool) -> None:
        """Somebody begins or ends to wait for the end of an instance, maybe by another process."""
        self.store.watch(instance_id, wanted)

    async def check_submit(
        self, instance_id: str, program: Program, policy: str
    ) -> InstanceRow | None:
        """See `Backend.check_submit`."""
        found = await self._ask(self.store.check_submit, instance_id, program, policy)
        return None if found is None else InstanceRow(**found)

    async def submit(
        self, instances: Sequence[NewInstance], policy: str
    ) -> Sequence[InstanceRow | None]:
        """See `Backend.submit`."""
        asked = self._ask(self.store.submit, instances, policy)
        for new in instances[:1]:
            self._announce(new.instance_id)
        found = await asked
        self.hub.submitted([new.instance_id for new in instances], policy)
        return [None if row is None else InstanceRow(**row) for row in found]

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        """See `Backend.claim`."""
        claims: Sequence[Claim] = await self._ask(self.store.claim, claimant, limit)
        return claims

    async def claim_one(self, claimant: Claimant, instance_id: str) -> Claim | None:
        """See `Backend.claim_one`."""
        claim: Claim | None = await self._ask(self.store.claim_one, claimant, instance_id)
        return claim

    async def renew(self, worker_id: str, lease_ttl: float) -> Sequence[str]:
        """See `Backend.renew`."""
        ids: Sequence[str] = await self._ask(self.store.renew, worker_id, lease_ttl)
        return ids

    async def release(self, worker_id: str) -> int:
        """See `Backend.release`."""
        count: int = await self._ask(self.store.release, worker_id)
        if count:
            self.hub.given_back("")
        return count

    async def give_back(self, instance_id: str, fence: int) -> bool:
        """See `Backend.give_back`."""
        held: bool = await self._ask(self.store.give_back, instance_id, fence)
        if held:
            self.hub.given_back(instance_id)
        return held

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        """See `Backend.commit`."""
        asked = [self._ask(self.store.commit, commit) for commit in commits]
        # Whichever fails, nobody's failure is left unheard.
        answers = (await asked[0],) if len(asked) == 1 else await asyncio.gather(*asked)
        replies = []
        for commit, answer in zip(commits, answers, strict=True):
            kind, events = answer or ("ok", ())
            replies.append(Reply(kind, tuple(Event(*event) for event in events)))
            self.hub.committed(commit.instance_id, kind, commit.next)
        return replies

    async def news(self, instance_id: str, fence: int, names: Sequence[str]) -> News:
        """See `Backend.news`."""
        lost, cancel, pause, events = await self._ask(
            self.store.news, instance_id, fence, list(names)
        )
        return News(lost, cancel, pause, tuple(Event(*event) for event in events))

    async def input(self, instance_id: str) -> bytes:
        """See `Backend.input`."""
        payload: bytes = await self._ask(self.store.input, instance_id)
        return payload

    async def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]:
        """See `Backend.rows`."""
        rows: Sequence[StepRow] = await self._ask(self.store.rows, instance_id, list(seqs))
        return rows

    async def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        """See `Backend.send_event`."""
        asked = self._ask(self.store.send_event, instance_id, name, payload, key)
        self._announce(instance_id)
        fresh: bool = await asked
        self.hub.event_sent(instance_id)
        return fresh

    async def cancel(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """See `Backend.cancel`."""
        status: str = await self._ask(self.store.cancel, instance_id, reason, by)
        self.hub.asked(instance_id, status)
        return status

    async def pause(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """See `Backend.pause`."""
        status: str = await self._ask(self.store.pause, instance_id, reason, by)
        self.hub.asked(instance_id, status)
        return status

    async def unpause(self, instance_id: str) -> str:
        """See `Backend.unpause`."""
        status: str = await self._ask(self.store.unpause, instance_id)
        self.hub.unpaused(instance_id)
        return status

    async def get(self, instance_id: str) -> InstanceRow:
        """See `Backend.get`."""
        return InstanceRow(**await self._ask(self.store.get, instance_id))

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
        """See `Backend.find`."""
        before = page_number(cursor)
        rows, following = await self._ask(
            self.store.find,
            limit,
            before,
            status,
            workflow,
            id_prefix,
            created_after,
            created_before,
        )
        return Page(
            tuple(InstanceRow(**row) for row in rows),
            None if following is None else str(following),
        )

    async def history(self, instance_id: str) -> Sequence[HistoryRow]:
        """See `Backend.history`."""
        rows = await self._ask(self.store.history, instance_id)
        return [HistoryRow(step, worker) for step, worker in rows]

    async def step(self, instance_id: str, path_or_name: str) -> StepRow | None:
        """See `Backend.step`."""
        step: StepRow | None = await self._ask(self.store.step, instance_id, path_or_name)
        return step

    async def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]:
        """See `Backend.items`."""
        ends: Sequence[tuple[str, bytes | None]] = await self._ask(
            self.store.items, instance_id, group
        )
        return ends

    async def export(self, instance_id: str) -> bytes:
        """See `Backend.export`."""
        snapshot: bytes = await self._ask(self.store.export, instance_id)
        return snapshot

    async def import_(self, snapshot: bytes, instance_id: str) -> None:
        """See `Backend.import_`."""
        await self._ask(self.store.import_, snapshot, instance_id)
        self.hub.submitted([instance_id], "fail")

    async def delete(self, instance_id: str, force: bool) -> None:
        """See `Backend.delete`."""
        await self._ask(self.store.delete, instance_id, force)
        self.hub.deleted(instance_id)

    async def backlog(self) -> Sequence[Backlog]:
        """See `Backend.backlog`."""
        return [Backlog(*one) for one in await self._ask(self.store.backlog)]

    async def next_wake(self) -> float | None:
        """See `Backend.next_wake`."""
        wake_at: float | None = await self._ask(self.store.next_wake)
        return wake_at

    async def doctor(self) -> dict[str, object]:
        """What an operator wants to know of the storage; may take long.

        Raises:
            BackendUnavailableError, SnapshotFormatError: It cannot be read.
        """
        return await asyncio.to_thread(self.store.report)

    async def close(self) -> None:
        """Finish what was asked for and let the storage go; further calls raise."""
        await asyncio.to_thread(self.store.close)
        with self._lock:
            landings = list(self._landings.values())
            self._landings.clear()
            self._last = None
        for landing in landings:
            landing.retire()


def _no_time() -> None:
    return None
