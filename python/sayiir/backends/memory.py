"""Instances in the memory of this process: for tests, and for work that may be lost with it.

Everything is kept in Rust, and every call is done when it returns; the methods are asynchronous
only because the contract is. The engine also has a way in that checkpoints without leaving Rust
(`store.claim_run`); it goes through the same store and the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sayiir import _clock
from sayiir._core import MemoryStore
from sayiir._duration import Duration, parse_duration

from ._hub import Hub, Listener
from ._rows import Backlog, Event, HistoryRow, InstanceRow, NewInstance, News, Page, Reply
from ._view import codec_argument, page_number

if TYPE_CHECKING:
    from sayiir._core import Claim, Claimant, Commit, Program, StepRow
    from sayiir.codecs import Codec, PayloadCodec

__all__ = ["InMemoryBackend"]


class InMemoryBackend:
    """A backend without a disk.

    One object can be shared by any number of clients and workers, on any number of threads and
    event loops of the process.

    Args:
        keep_completed: How long ended instances are kept, as a duration; `None`: until deleted.
        keep_events: How long events wait for an instance that does not exist yet.
        codec: How payloads are stored, a `sayiir.codecs.Codec`, so that a program's tests do what
            its deployment does; `None`: as plain MessagePack, by a shorter way.
        clock: Gives the time in seconds since 1970; the machine's, unless a test brings its own.

    Raises:
        TypeError: `codec` is no codec.
        ValueError: A duration is malformed, negative or absurdly long.

    >>> import asyncio
    >>> from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
    >>> double = Flow("double").then(lambda x: x * 2).build()
    >>> async def main():
    ...     backend = InMemoryBackend()
    ...     async with Worker(backend, [double]):
    ...         handle = await WorkflowClient(backend).submit(double, input=21)
    ...         return await handle.result()
    >>> asyncio.run(main())
    42
    """

    __slots__ = ("__weakref__", "clock", "codec", "hub", "store")

    def __init__(
        self,
        *,
        keep_completed: Duration | None = None,
        keep_events: Duration = "7d",
        codec: Codec | PayloadCodec | None = None,
        clock: Callable[[], float] = _clock.now,
    ) -> None:
        self.store: MemoryStore = MemoryStore(
            keep_completed=None
            if keep_completed is None
            else parse_duration(keep_completed, name="keep_completed", allow_zero=True),
            keep_events=parse_duration(keep_events, name="keep_events", allow_zero=True),
        )
        self.hub: Hub = Hub()
        self.codec: Codec | None = codec_argument(codec)
        self.clock: Callable[[], float] = clock

    def __repr__(self) -> str:
        return f"<InMemoryBackend with {len(self.store)} instances>"

    def now(self) -> float:
        """The clock's time."""
        return self.clock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener for hints; what comes back removes it."""
        return self.hub.listen(listener)

    def tell(self) -> None:
        """Give the hints about instances that calls for others had to do with: items, parents."""
        for kind, instance_id in self.store.told():
            self.hub.tell(kind, instance_id)

    async def check_submit(
        self, instance_id: str, program: Program, policy: str
    ) -> InstanceRow | None:
        """See `Backend.check_submit`."""
        found = self.store.check_submit(instance_id, program, policy, self.clock())
        return None if found is None else InstanceRow(**found)

    async def submit(
        self, instances: Sequence[NewInstance], policy: str
    ) -> Sequence[InstanceRow | None]:
        """See `Backend.submit`."""
        found = self.store.submit(instances, policy, self.clock())
        self.hub.submitted([new.instance_id for new in instances], policy)
        self.tell()
        return [None if row is None else InstanceRow(**row) for row in found]

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        """See `Backend.claim`."""
        return self.store.claim(claimant, limit, self.clock())

    async def claim_one(self, claimant: Claimant, instance_id: str) -> Claim | None:
        """See `Backend.claim_one`."""
        return self.store.claim_one(claimant, instance_id, self.clock())

    async def renew(self, worker_id: str, lease_ttl: float) -> Sequence[str]:
        """See `Backend.renew`."""
        return self.store.renew(worker_id, lease_ttl, self.clock())

    async def release(self, worker_id: str) -> int:
        """See `Backend.release`."""
        count = self.store.release(worker_id, self.clock())
        if count:
            self.hub.given_back("")
            self.tell()
        return count

    async def give_back(self, instance_id: str, fence: int) -> bool:
        """See `Backend.give_back`."""
        held = self.store.give_back(instance_id, fence, self.clock())
        if held:
            self.hub.given_back(instance_id)
            self.tell()
        return held

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        """See `Backend.commit`."""
        replies = []
        for commit in commits:
            kind, events = self.store.commit(commit, self.clock())
            replies.append(Reply(kind, tuple(Event(*event) for event in events)))
            self.hub.committed(commit.instance_id, kind, commit.next)
        self.tell()
        return replies

    async def news(self, instance_id: str, fence: int, names: Sequence[str]) -> News:
        """See `Backend.news`."""
        lost, cancel, pause, events = self.store.news(instance_id, fence, list(names), self.clock())
        return News(lost, cancel, pause, tuple(Event(*event) for event in events))

    async def input(self, instance_id: str) -> bytes:
        """See `Backend.input`."""
        return self.store.input(instance_id)

    async def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]:
        """See `Backend.rows`."""
        return self.store.rows(instance_id, list(seqs))

    async def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        """See `Backend.send_event`."""
        fresh = self.store.send_event(instance_id, name, payload, key, self.clock())
        self.hub.event_sent(instance_id)
        return fresh

    async def cancel(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """See `Backend.cancel`."""
        status = self.store.cancel(instance_id, reason, by, self.clock())
        self.hub.asked(instance_id, status)
        self.tell()
        return status

    async def pause(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """See `Backend.pause`."""
        status = self.store.pause(instance_id, reason, by, self.clock())
        self.hub.asked(instance_id, status)
        return status

    async def unpause(self, instance_id: str) -> str:
        """See `Backend.unpause`."""
        status = self.store.unpause(instance_id, self.clock())
        self.hub.unpaused(instance_id)
        return status

    async def get(self, instance_id: str) -> InstanceRow:
        """See `Backend.get`."""
        return InstanceRow(**self.store.get(instance_id, self.clock()))

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
        rows, following = self.store.find(
            limit,
            page_number(cursor),
            self.clock(),
            status=status,
            workflow=workflow,
            id_prefix=id_prefix,
            created_after=created_after,
            created_before=created_before,
        )
        return Page(
            tuple(InstanceRow(**row) for row in rows),
            None if following is None else str(following),
        )

    async def history(self, instance_id: str) -> Sequence[HistoryRow]:
        """See `Backend.history`."""
        return [HistoryRow(step, worker) for step, worker in self.store.history(instance_id)]

    async def step(self, instance_id: str, path_or_name: str) -> StepRow | None:
        """See `Backend.step`."""
        return self.store.step(instance_id, path_or_name)

    async def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]:
        """See `Backend.items`."""
        return self.store.items(instance_id, group)

    async def export(self, instance_id: str) -> bytes:
        """See `Backend.export`."""
        return self.store.export(instance_id, self.clock())

    async def import_(self, snapshot: bytes, instance_id: str) -> None:
        """See `Backend.import_`."""
        self.store.import_(snapshot, instance_id, self.clock())
        self.hub.submitted([instance_id], "fail")

    async def delete(self, instance_id: str, force: bool) -> None:
        """See `Backend.delete`."""
        self.store.delete(instance_id, force, self.clock())
        self.hub.deleted(instance_id)
        self.tell()

    async def backlog(self) -> Sequence[Backlog]:
        """See `Backend.backlog`."""
        return [Backlog(*one) for one in self.store.backlog(self.clock())]

    async def next_wake(self) -> float | None:
        """See `Backend.next_wake`."""
        return self.store.next_wake()

    async def close(self) -> None:
        """Nothing to give up."""
