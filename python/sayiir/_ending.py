"""Waiting for the end of instances, without asking all the time.

One `Endings` per client listens to its backend's hints and wakes whoever waits for the instance
that ended, on whatever thread the hint came and on whatever loop the waiter runs. A hint may be
late or lost, so every waiter also looks by itself now and then; no wake-up is missed, since a
waiter first registers, then looks, then waits. What an end means to those who waited is not known
here.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING

from ._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backends import Backend, InstanceRow

__all__ = ["Endings"]

FIRST_LOOK_S = 1.0
"""How long a waiter that hears nothing waits before it looks again."""
LAST_LOOK_S = 5.0
"""The longest such wait; each is twice the one before."""

_ENDED = frozenset(str(status) for status in Status if status.is_terminal)
_Waiting = dict[str, tuple["asyncio.Future[None]", ...]]


class Endings:
    """Those who wait for an end, on any number of threads and loops.

    >>> from sayiir import InMemoryBackend
    >>> Endings(InMemoryBackend()).waiting
    0
    """

    __slots__ = ("__weakref__", "_backend", "_closed", "_lock", "_stop", "_waiting")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: _Waiting = {}
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
        patience = FIRST_LOOK_S
        while True:
            woken = loop.create_future()
            self._add(instance_id, woken)
            try:
                row = await self._backend.get(instance_id)
                if row.status in _ENDED:
                    return row
                if self._closed:
                    raise RuntimeError(
                        f"the client was closed while it waited for instance {instance_id!r}, "
                        f"which is {row.status} and goes on; ask another client for its result"
                    )
                longest = patience
                if deadline is not None:
                    left = deadline - loop.time()
                    if left <= 0:
                        raise TimeoutError(
                            f"instance {instance_id!r} of workflow {row.workflow_id!r} has not "
                            f"ended within {limit:g} s: it is {row.status} and goes on; "
                            "ask for its result again, or cancel it"
                        )
                    longest = min(longest, left)
                timer = loop.call_later(longest, _wake, woken)
                try:
                    await woken
                finally:
                    timer.cancel()
            finally:
                self._remove(instance_id, woken)
            patience = min(patience * 2, LAST_LOOK_S)

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

    def _add(self, instance_id: str, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            if self._stop is None and not self._closed:
                # The listener knows the waiters only, so that it keeps no client alive.
                self._stop = self._backend.listen(partial(_hear, self._waiting))
            self._waiting[instance_id] = (*self._waiting.get(instance_id, ()), waiter)

    def _remove(self, instance_id: str, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            others = tuple(one for one in self._waiting[instance_id] if one is not waiter)
            if others:
                self._waiting[instance_id] = others
            else:
                del self._waiting[instance_id]


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
            _wake(waiter)
            continue
        try:
            loop.call_soon_threadsafe(_wake, waiter)
        except RuntimeError:
            # Its loop was closed, so nobody waits there any more.
            continue


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _loop_of_this_thread() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
