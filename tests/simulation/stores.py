"""The stores that a simulated world may stand on.

`Store` is what the simulator asks of one: the storage contract with the time as an argument. The
memory store in Rust is one as it is; `Adapted` makes one of any backend written against
`sayiir.backends.Backend` whose clock can be set. `files` lends stores that are files, and `schemas`
schemas of a server, each opened by two at once and opened anew again and again, as by processes
that come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

from tests.working import Places

from sayiir._core import Claim, Claimant, Commit, MemoryStore, Program, Run, StepRow
from sayiir.backends import Backend, NewInstance

from .worker import Event, News

T = TypeVar("T")
Submitted = tuple[str, Program, bytes, float | None]


class Store(Protocol):
    """See `sayiir._core.MemoryStore`, whose methods these are."""

    def submit(self, instances: Sequence[Submitted], policy: str, now: float) -> Any: ...
    def claim(self, claimant: Claimant, limit: int, now: float) -> Sequence[Claim]: ...
    def renew(self, worker_id: str, lease_ttl: float, now: float) -> Sequence[str]: ...
    def release(self, worker_id: str, now: float) -> int: ...
    def give_back(self, instance_id: str, fence: int, now: float) -> bool: ...
    def commit(self, commit: Commit, now: float) -> tuple[str, list[Event]]: ...
    def news(self, instance_id: str, fence: int, names: Sequence[str], now: float) -> News: ...
    def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None, now: float
    ) -> bool: ...
    def cancel(self, instance_id: str, reason: str | None, by: str | None, now: float) -> str: ...
    def pause(self, instance_id: str, reason: str | None, by: str | None, now: float) -> str: ...
    def unpause(self, instance_id: str, now: float) -> str: ...
    def get(self, instance_id: str, now: float) -> Any: ...
    def history(self, instance_id: str) -> list[tuple[StepRow, str]]: ...
    def input(self, instance_id: str) -> bytes: ...
    def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]: ...
    def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]: ...
    def next_wake(self) -> float | None: ...


def memory_store() -> Store:
    """The store in Rust."""
    return MemoryStore()


class Adapted:
    """A backend as a store: its clock follows the calls.

    Args:
        make: Makes the backend, given its clock.
        done: Sees a call to its end; without it calls have to end at once.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], float]], Backend],
        done: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> None:
        self._now = 0.0
        self._opened = make(lambda: self._now)
        self._done = _at_once if done is None else done

    @property
    def _backend(self) -> Backend:
        """Who makes the next call."""
        return self._opened

    def _at(self, now: float, call: Coroutine[Any, Any, T]) -> T:
        self._now = now
        result: T = self._done(call)
        return result

    def submit(self, instances: Sequence[Submitted], policy: str, now: float) -> Any:
        return self._at(now, self._backend.submit([NewInstance(*new) for new in instances], policy))

    def claim(self, claimant: Claimant, limit: int, now: float) -> Sequence[Claim]:
        return self._at(now, self._backend.claim(claimant, limit))

    def renew(self, worker_id: str, lease_ttl: float, now: float) -> Sequence[str]:
        return self._at(now, self._backend.renew(worker_id, lease_ttl))

    def release(self, worker_id: str, now: float) -> int:
        return self._at(now, self._backend.release(worker_id))

    def give_back(self, instance_id: str, fence: int, now: float) -> bool:
        return self._at(now, self._backend.give_back(instance_id, fence))

    def commit(self, commit: Commit, now: float) -> tuple[str, list[Event]]:
        (reply,) = self._at(now, self._backend.commit([commit]))
        return reply.kind, [(event.seq, event.name, event.payload) for event in reply.events]

    def news(self, instance_id: str, fence: int, names: Sequence[str], now: float) -> News:
        news = self._at(now, self._backend.news(instance_id, fence, names))
        events = [(event.seq, event.name, event.payload) for event in news.events]
        return news.lost, news.cancel, news.pause, events

    def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None, now: float
    ) -> bool:
        return self._at(now, self._backend.send_event(instance_id, name, payload, key))

    def cancel(self, instance_id: str, reason: str | None, by: str | None, now: float) -> str:
        return self._at(now, self._backend.cancel(instance_id, reason, by))

    def pause(self, instance_id: str, reason: str | None, by: str | None, now: float) -> str:
        return self._at(now, self._backend.pause(instance_id, reason, by))

    def unpause(self, instance_id: str, now: float) -> str:
        return self._at(now, self._backend.unpause(instance_id))

    def get(self, instance_id: str, now: float) -> Any:
        return asdict(self._at(now, self._backend.get(instance_id)))

    def history(self, instance_id: str) -> list[tuple[StepRow, str]]:
        rows = self._done(self._backend.history(instance_id))
        return [(row.step, row.worker_id) for row in rows]

    def input(self, instance_id: str) -> bytes:
        sealed: bytes = self._done(self._backend.input(instance_id))
        return sealed

    def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]:
        rows: Sequence[StepRow] = self._done(self._backend.rows(instance_id, seqs))
        return rows

    def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]:
        ends: Sequence[tuple[str, bytes | None]] = self._done(
            self._backend.items(instance_id, group)
        )
        return ends

    def next_wake(self) -> float | None:
        wake_at: float | None = self._done(self._backend.next_wake())
        return wake_at


class Shared(Adapted):
    """A place that two have opened: they take turns with the calls, and are replaced in time.

    Args:
        places: Where it is made.
        done: Sees a call to its end.
        carry: Whether claims bring along what their holders need; else it is asked for, as it has
            to be where there is more of it than a claim brings.
        loyal: Whether a holder's checkpoints go the way that its claim went, or by what came in
            that one's place; else they take turns with these, too.
    """

    LIFE: ClassVar = {"sqlite": 40, "postgres": 150}
    """After so many calls whoever is next closes it and opens it anew; a server is slow at that."""

    def __init__(
        self,
        places: Places,
        done: Callable[[Coroutine[Any, Any, Any]], Any],
        *,
        carry: bool,
        loyal: bool,
    ) -> None:
        super().__init__(lambda clock: places(clock=clock), done)
        self._places = places
        self._carry = carry
        # Stays open: runs hand it their commits for as long as they live.
        self._own = places.again(self._opened)
        self._next = places.again(self._opened)
        self._calls = 0
        self._loyal = loyal
        self._claimed: dict[tuple[str, int], Backend] = {}

    @property
    def _backend(self) -> Backend:
        self._opened, self._next = self._next, self._opened
        self._calls += 1
        if self._calls % self.LIFE[self._places.kind] == 0:
            gone = self._opened
            self._done(gone.close())
            self._opened = self._places.again(self._next)
            heirs = {lease: self._opened for lease, by in self._claimed.items() if by is gone}
            self._claimed |= heirs
        return self._opened

    def claim(self, claimant: Claimant, limit: int, now: float) -> Sequence[Claim]:
        claims = super().claim(claimant, limit, now)
        for claim in claims:
            self._claimed[claim.instance_id, claim.fence] = self._opened
        return claims if self._carry else [_bare(claim) for claim in claims]

    def commit(self, commit: Commit, now: float) -> tuple[str, list[Event]]:
        lease = commit.instance_id, commit.fence
        if self._loyal and self._claimed.get(lease) is self._opened:
            # Whose turn it is not.
            self._opened, self._next = self._next, self._opened
        return super().commit(commit, now)

    def carried(self, claimant: Claimant, claim: Claim, now: float) -> Run:
        """A run of a claim that hands its commits to the storage thread by itself."""
        run: Run = self._done(self._carried(claimant, claim, now))
        return run

    async def _carried(self, claimant: Claimant, claim: Claim, now: float) -> Run:
        landing = self._own.landing(asyncio.get_running_loop())
        return Run.carried(claimant, claim, now, self._own.store, landing.port)

    def landed(self, ticket: int) -> tuple[str, list[Event]]:
        """What became of a commit that was handed over under this number."""
        reply: tuple[str, list[Event]] | None = self._done(self._landed(ticket))
        return ("ok", []) if reply is None else reply

    async def _landed(self, ticket: int) -> Any:
        loop = asyncio.get_running_loop()
        return await self._own.landing(loop).expect(loop, ticket)


def _bare(claim: Claim) -> Claim:
    """The claim without anything that it did not have to bring."""
    return Claim(
        claim.instance_id,
        claim.fence,
        claim.definition_hash,
        cursor=claim.cursor,
        cells=claim.cells,
        next_seq=claim.next_seq,
        next_strand=claim.next_strand,
        tags=claim.tags,
        priority=claim.priority,
    )


def files(*, carry: bool = True) -> AbstractContextManager[Callable[[], Store]]:
    """What makes stores that are files; they are gone afterwards. `carry`: see `Shared`."""
    return _shared("sqlite", carry)


def schemas(*, carry: bool = True) -> AbstractContextManager[Callable[[], Store]]:
    """As `files`, on the server of the run."""
    return _shared("postgres", carry)


@contextmanager
def _shared(kind: str, carry: bool) -> Iterator[Callable[[], Store]]:
    places, loop = Places(kind), asyncio.new_event_loop()
    try:
        yield lambda: Shared(places, loop.run_until_complete, carry=carry, loyal=kind == "postgres")
    finally:
        loop.run_until_complete(places.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    call.close()
    raise RuntimeError("this backend waits; a simulated world has nobody to wait for")
