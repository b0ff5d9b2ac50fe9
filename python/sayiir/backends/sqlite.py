"""Instances in one SQLite file: durable, on one machine, for any number of processes.

The file is kept by two threads in Rust (`SqliteStore`), one that writes and one that reads. What
this module adds is the event loop's side: it hands calls over, waits for their answers, and gives
the hints that a change calls for. Hints of other processes come from the storage thread, which
notices their commits.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, ref

from sayiir import _clock
from sayiir._core import SqliteStore
from sayiir._duration import Duration, parse_duration

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
    from sayiir._core import Claim, Claimant, Commit, Program, StepRow

__all__ = ["SqliteBackend"]


class SqliteBackend:
    """A backend that keeps everything in one file, on a local disk.

    The file is made when it does not exist, with a write-ahead log beside it (`-wal`, `-shm`).
    Several processes may use it at once, and a process may be killed at any moment: what a call
    returned stays, and the instances of the dead go on elsewhere when their lease has run out. One
    object can be shared by any number of clients and workers, threads and event loops of its
    process. A child that was forked after the file was opened cannot use it: open backends after
    the fork, or start processes with the `spawn` method.

    Args:
        path: The file. Its folder must exist.
        synchronous: `"full"`: a commit is on the disk before it is answered, and survives a power
            cut. `"normal"`: it survives the death of any process, but a power cut or a crash of the
            operating system may take what was committed within the last second.
        keep_completed: How long ended instances are kept, as a duration; `None`: until deleted.
        keep_events: How long events wait for an instance that does not exist yet.
        timeout: How long to wait for a lock that another process holds.
        clock: Gives the time in seconds since 1970; the machine's, unless a test brings its own.

    Raises:
        TypeError: `path` is no path.
        ValueError: The path is empty, `synchronous` is another word, or a duration is malformed,
            negative or absurdly long.
        BackendUnavailableError: The folder is missing, the file cannot be read or written, the disk
            is full, or another process keeps it locked. The message names the file.
        SnapshotFormatError: It is no database, one of another program or of a newer version, or
            damaged.

    >>> import asyncio, tempfile
    >>> from sayiir import Flow, SqliteBackend, Worker, WorkflowClient
    >>> double = Flow("double").then(lambda x: x * 2).build()
    >>> async def main(folder):
    ...     backend = SqliteBackend(f"{folder}/work.db")
    ...     async with Worker(backend, [double]):
    ...         handle = await WorkflowClient(backend).submit(double, input=21)
    ...         answer = await handle.result()
    ...     await backend.close()
    ...     return answer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    42
    """

    __slots__ = (
        "__weakref__", "_clock", "_landings", "_last", "_lock", "_now", "_path", "hub", "store",
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal"] = "full",
        keep_completed: Duration | None = None,
        keep_events: Duration = "7d",
        timeout: Duration = "30s",
        clock: Callable[[], float] = _clock.now,
    ) -> None:
        self._path = _checked_path(path)
        if not isinstance(synchronous, str):
            raise TypeError(f"synchronous must be a str, got {type(synchronous).__name__}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous must be 'full' or 'normal', got {synchronous[:20]!r}")
        self._clock = clock
        # The storage thread reads the machine's clock itself, as late as it can.
        self._now: Callable[[], float | None] = _no_time if clock is _clock.now else clock
        self.store = SqliteStore(
            self._path,
            synchronous=synchronous,
            keep_completed=None
            if keep_completed is None
            else parse_duration(keep_completed, name="keep_completed", allow_zero=True),
            keep_events=parse_duration(keep_events, name="keep_events", allow_zero=True),
            timeout=parse_duration(timeout, name="timeout", allow_zero=True),
            own_clock=clock is _clock.now,
        )
        self.hub = Hub()
        self._lock = threading.Lock()
        self._landings: WeakKeyDictionary[asyncio.AbstractEventLoop, Landing] = WeakKeyDictionary()
        # The loop that asked last, which nearly always asks next; it must not be kept alive.
        self._last: tuple[ref[asyncio.AbstractEventLoop], Landing] | None = None

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._path

    def __repr__(self) -> str:
        return f"<SqliteBackend {self._path!r}>"

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
        rows = [(new.instance_id, new.program, new.input, new.start_at) for new in instances]
        found = await self._ask(self.store.submit, rows, policy)
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
        fresh: bool = await self._ask(self.store.send_event, instance_id, name, payload, key)
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
        """What an operator wants to know of the file; reads all of it, so it may take long.

        Returns:
            `path`, `bytes`, `wal_bytes`, `journal_mode`, `synchronous`, `schema_version`,
            `sqlite_version`, `integrity` ("ok", or what is wrong), `instances` (how many by
            status), `workers` (`worker_id`, `expires_at`, `held` each), `definitions`
            (`definition_hash`, `workflow_id`, `instances` each).

        Raises:
            BackendUnavailableError, SnapshotFormatError: The file cannot be read.
        """
        return await asyncio.to_thread(self.store.report)

    async def close(self) -> None:
        """Finish what was asked for and close the file; further calls raise."""
        await asyncio.to_thread(self.store.close)
        with self._lock:
            landings = list(self._landings.values())
            self._landings.clear()
            self._last = None
        for landing in landings:
            landing.retire()


def _no_time() -> None:
    return None


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("path must be text, not bytes")
    if not text:
        raise ValueError("path must not be empty; name a file such as 'sayiir.db'")
    if "\0" in text:
        raise ValueError("path must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("path must be text that UTF-8 can write") from None
    return os.path.abspath(text)  # noqa: PTH100 - a Path would resolve nothing more
