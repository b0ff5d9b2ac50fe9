"""Waiting for the end of instances, without asking all the time.

One `Endings` per client listens to its backend's hints and wakes whoever waits for the instance
that ended, on whatever thread the hint came and on whatever loop the waiter runs. A hint may be
late or lost, so a pulse makes every waiter look by itself now and then; no wake-up is missed, since
a waiter first registers, then looks, then waits. Who submitted the instance here may leave the
first look out as long as no end of it was heard since (`mark`), and an instance that completes in
this process hands its output over with the hint. What an end means to those who waited is not known
here.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._status import Status
from .backends import Hub

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backends import Backend, InstanceRow

__all__ = ["Endings"]

BEAT_S = 0.5
"""The time between two beats of a pulse; a waiter that hears nothing looks after a whole beat, and
then after 2, 4, 8, 10, 10 … more."""
MOST_BEATS = 10
"""The most whole beats between two looks."""

_ENDED = frozenset(str(status) for status in Status if status.is_terminal)
MOST_RECENT = 2048
"""Of so many ends at least it is remembered that they were among the latest, so that whoever waits
for another one need not look."""
_Waiter = asyncio.Future[bool | bytes]
"""Its result: whether there was a hint, or the output that came with it."""
_Waiting = dict[str, tuple[_Waiter, ...]]


class Endings:
    """Those who wait for an end, on any number of threads and loops.

    >>> from sayiir import InMemoryBackend
    >>> Endings(InMemoryBackend()).waiting
    0
    """

    __slots__ = (
        "__weakref__", "_backend", "_closed", "_lock", "_pulses", "_recent", "_stop", "_waiting",
        "_watch",
    )  # fmt: skip

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # A backend of several processes looks out for the ends that somebody waits for.
        self._watch: Callable[[str, bool], None] | None = getattr(backend, "watch", None)
        self._waiting: _Waiting = {}
        self._recent = _Recent()
        self._pulses: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pulse] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many instances someone waits for."""
        return len(self._waiting)

    def mark(self) -> int | None:
        """The present moment, before which no instance that is submitted now can have ended.

        `None` as long as nobody has ever waited, since then nobody listens.
        """
        return None if self._stop is None else self._recent.round

    async def wait(
        self, instance_id: str, limit: float | None, since: int | None = None
    ) -> InstanceRow | bytes:
        """The instance's row as soon as it has ended, or its output when a hint brought that along.

        Args:
            instance_id: The instance.
            limit: How long to wait, in seconds; `None`: for as long as it takes.
            since: What `mark` said right before the instance was created.

        Raises:
            InstanceNotFoundError: There is no such instance, or no longer.
            TimeoutError: It has not ended in time.
            RuntimeError: `close` was called meanwhile.
        """
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit
        beats = 1
        row = None
        while True:
            waiter: _Waiter = loop.create_future()
            pulse = self._add(instance_id, waiter, loop)
            try:
                if since is None or limit is not None or self._recent.may_hold(instance_id, since):
                    row = await self._backend.get(instance_id)
                    if row.status in _ENDED:
                        return row
                since = None
                bucket = pulse.join(loop, waiter, beats)
                try:
                    if deadline is None:
                        hinted = await waiter
                    elif (left := deadline - loop.time()) > 0:
                        timer = loop.call_later(left, _wake, waiter, False)
                        try:
                            hinted = await waiter
                        finally:
                            timer.cancel()
                    else:
                        assert row is not None
                        waits = f" for event {row.signal_name!r}" if row.signal_name else ""
                        raise TimeoutError(
                            f"instance {instance_id!r} of workflow {row.workflow_id!r} has not "
                            f"ended within {limit:g} s: it is {row.status}{waits} and goes on; "
                            "ask for its result again, or cancel it"
                        )
                finally:
                    bucket.discard(waiter)
            finally:
                self._remove(instance_id, waiter)
            if self._closed:
                # The backend may be closed as well, so the last look has to do.
                state = "" if row is None else f"is {row.status} and "
                raise RuntimeError(
                    f"the client was closed while it waited for instance {instance_id!r}, "
                    f"which {state}goes on; ask another client for its result"
                )
            if isinstance(hinted, bytes):
                return hinted
            if hinted:
                # Nearly always true, so that there is no need to register before looking.
                row = await self._backend.get(instance_id)
                if row.status in _ENDED:
                    return row
            beats = min(beats * 2, MOST_BEATS)

    def close(self) -> None:
        """Stop listening, and send those who still wait away."""
        with self._lock:
            self._closed = True
            stop, self._stop = self._stop, None
            ids = list(self._waiting)
        if stop is not None:
            stop()
        for instance_id in ids:
            _wake_all(self._waiting, instance_id, True)

    def __del__(self) -> None:
        # A client that was never closed must not burden its backend for ever.
        if self._stop is not None:
            self._stop()

    def _listen(self) -> None:
        if self._stop is not None or self._closed:
            return
        # The listeners know the waiters only, so that they keep no client alive.
        stops = [self._backend.listen(partial(_hear, self._waiting, self._recent))]
        hub = getattr(self._backend, "hub", None)
        if isinstance(hub, Hub):
            stops.append(hub.listen_ends(partial(_hear_output, self._waiting)))

        def stop() -> None:
            for one in stops:
                one()

        self._stop = stop

    def _add(self, instance_id: str, waiter: _Waiter, loop: asyncio.AbstractEventLoop) -> _Pulse:
        with self._lock:
            self._listen()
            others = self._waiting.get(instance_id)
            self._waiting[instance_id] = (waiter,) if others is None else (*others, waiter)
            if others is None and self._watch is not None:
                self._watch(instance_id, True)
            pulse = self._pulses.get(loop)
            if pulse is None:
                pulse = self._pulses[loop] = _Pulse()
            return pulse

    def _remove(self, instance_id: str, waiter: _Waiter) -> None:
        with self._lock:
            waiters = self._waiting[instance_id]
            if len(waiters) == 1:
                del self._waiting[instance_id]
                if self._watch is not None:
                    self._watch(instance_id, False)
            else:
                self._waiting[instance_id] = tuple(one for one in waiters if one is not waiter)


class _Pulse:
    """The safety net of one loop: one timer for all who wait on it, and none when nobody does.

    It is touched on its loop's thread only, and does not hold the loop.
    """

    __slots__ = ("_beat", "_beating", "_due")

    def __init__(self) -> None:
        self._beat = 0
        self._beating = False
        self._due: dict[int, set[_Waiter]] = {}

    def join(self, loop: asyncio.AbstractEventLoop, waiter: _Waiter, beats: int) -> set[_Waiter]:
        """Wake the waiter after so many whole beats, unless it is taken out of the set before."""
        if not self._beating:
            self._beating = True
            loop.call_later(BEAT_S, self._tick, loop)
        # Into the present beat it comes anywhere.
        at = self._beat + beats + 1
        bucket = self._due.get(at)
        if bucket is None:
            bucket = self._due[at] = set()
        bucket.add(waiter)
        return bucket

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat += 1
        for waiter in self._due.pop(self._beat, ()):
            _wake(waiter, False)
        self._beating = bool(self._due)
        if self._beating:
            loop.call_later(BEAT_S, self._tick, loop)


class _Recent:
    """Which instances have ended lately, as far as hints told; written on any thread.

    When too many have, a new round begins. Those of the round before are remembered still; of what
    ended earlier those who marked an earlier round know nothing.
    """

    __slots__ = ("_former", "_ids", "round")

    def __init__(self) -> None:
        self.round = 0
        self._ids: set[str] = set()
        self._former: set[str] = set()

    def note(self, instance_id: str) -> None:
        if len(self._ids) >= MOST_RECENT:
            # The round first: whoever compares it last must not miss what is forgotten here.
            self.round += 1
            self._former = self._ids
            self._ids = set()
        self._ids.add(instance_id)

    def may_hold(self, instance_id: str, since: int) -> bool:
        return instance_id in self._ids or instance_id in self._former or self.round - since > 1


def _hear(waiting: _Waiting, recent: _Recent, kind: str, instance_id: str) -> None:
    """A hint came, on any thread. Tuples never change, so that reading them needs no lock."""
    if kind == "ended":
        recent.note(instance_id)
        _wake_all(waiting, instance_id, True)


def _hear_output(waiting: _Waiting, instance_id: str, output: bytes) -> None:
    _wake_all(waiting, instance_id, output)


def _wake_all(waiting: _Waiting, instance_id: str, found: bool | bytes) -> None:
    waiters = waiting.get(instance_id)
    if waiters is None:
        return
    here = _loop_of_this_thread()
    for waiter in waiters:
        loop = waiter.get_loop()
        if loop is here:
            _wake(waiter, found)
            continue
        try:
            loop.call_soon_threadsafe(_wake, waiter, found)
        except RuntimeError:
            # Its loop was closed, so nobody waits there any more.
            continue


def _wake(waiter: _Waiter, found: bool | bytes) -> None:
    if not waiter.done():
        waiter.set_result(found)


def _loop_of_this_thread() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
