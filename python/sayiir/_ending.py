"""Waiting for the end of instances, without asking all the time.

One `Endings` per client listens to its backend's hints and wakes whoever waits for the instance
that ended, on whatever thread the hint came and on whatever loop the waiter runs. A hint may be
late or lost, so a pulse makes every waiter look by itself now and then; no wake-up is missed, since
a waiter first registers, then looks, then waits. What an end means to those who waited is not known
here.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backends import Backend, InstanceRow

__all__ = ["Endings"]

BEAT_S = 1.0
"""The time between two beats of a pulse; a waiter that hears nothing looks at the next beat, and
then 2, 4, 5, 5 … beats later."""
MOST_BEATS = 5
"""The most beats between two looks."""

_ENDED = frozenset(str(status) for status in Status if status.is_terminal)
_Waiter = asyncio.Future[bool]
"""Its result: whether there was a hint."""
_Waiting = dict[str, tuple[_Waiter, ...]]


class Endings:
    """Those who wait for an end, on any number of threads and loops.

    >>> from sayiir import InMemoryBackend
    >>> Endings(InMemoryBackend()).waiting
    0
    """

    __slots__ = ("__weakref__", "_backend", "_closed", "_lock", "_pulses", "_stop", "_waiting")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: _Waiting = {}
        self._pulses: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pulse] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many instances someone waits for."""
        return len(self._waiting)

    async def wait(self, instance_id: str, limit: float | None) -> InstanceRow:
        """The instance's row as soon as it has ended.

        Args:
            instance_id: The instance.
            limit: How long to wait, in seconds; `None`: for as long as it takes.

        Raises:
            InstanceNotFoundError: There is no such instance, or no longer.
            TimeoutError: It has not ended in time.
            RuntimeError: `close` was called meanwhile.
        """
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit
        beats = 1
        while True:
            waiter = loop.create_future()
            pulse = self._add(instance_id, waiter, loop)
            try:
                row = await self._backend.get(instance_id)
                if row.status in _ENDED:
                    return row
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
                        raise TimeoutError(
                            f"instance {instance_id!r} of workflow {row.workflow_id!r} has not "
                            f"ended within {limit:g} s: it is {row.status} and goes on; "
                            "ask for its result again, or cancel it"
                        )
                finally:
                    bucket.discard(waiter)
            finally:
                self._remove(instance_id, waiter)
            if self._closed:
                # The backend may be closed as well, so the last look has to do.
                raise RuntimeError(
                    f"the client was closed while it waited for instance {instance_id!r}, "
                    f"which is {row.status} and goes on; ask another client for its result"
                )
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
            _hear(self._waiting, "ended", instance_id)

    def __del__(self) -> None:
        # A client that was never closed must not burden its backend for ever.
        if self._stop is not None:
            self._stop()

    def _add(self, instance_id: str, waiter: _Waiter, loop: asyncio.AbstractEventLoop) -> _Pulse:
        with self._lock:
            if self._stop is None and not self._closed:
                # The listener knows the waiters only, so that it keeps no client alive.
                self._stop = self._backend.listen(partial(_hear, self._waiting))
            others = self._waiting.get(instance_id)
            self._waiting[instance_id] = (waiter,) if others is None else (*others, waiter)
            pulse = self._pulses.get(loop)
            if pulse is None:
                pulse = self._pulses[loop] = _Pulse()
            return pulse

    def _remove(self, instance_id: str, waiter: _Waiter) -> None:
        with self._lock:
            waiters = self._waiting[instance_id]
            if len(waiters) == 1:
                del self._waiting[instance_id]
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
        """Wake the waiter after so many beats, unless it is taken out of the set before."""
        if not self._beating:
            self._beating = True
            loop.call_later(BEAT_S, self._tick, loop)
        at = self._beat + beats
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


def _hear(waiting: _Waiting, kind: str, instance_id: str) -> None:
    """A hint came, on any thread. Tuples never change, so that reading them needs no lock."""
    if kind != "ended":
        return
    waiters = waiting.get(instance_id)
    if waiters is None:
        return
    here = _loop_of_this_thread()
    for waiter in waiters:
        loop = waiter.get_loop()
        if loop is here:
            _wake(waiter, True)
            continue
        try:
            loop.call_soon_threadsafe(_wake, waiter, True)
        except RuntimeError:
            # Its loop was closed, so nobody waits there any more.
            continue


def _wake(waiter: _Waiter, hinted: bool) -> None:
    if not waiter.done():
        waiter.set_result(hinted)


def _loop_of_this_thread() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
