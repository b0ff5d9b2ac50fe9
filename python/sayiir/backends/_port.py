"""Waiting for a storage thread without waiting: calls out, answers in, one wake-up for many.

A `Landing` is the end of a storage thread's port on one event loop. A call is handed over with a
number and comes back as a future; the loop wakes once for a whole batch of answers and resolves all
their futures in one go. What those who waited for them call next goes out in one go too, when the
last of them has been resumed: so instances that move together keep sharing their transactions. It
does not know what the calls mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from sayiir._core import Port

if TYPE_CHECKING:
    from sayiir._core import Storage

    from ._hub import Listener

__all__ = ["Landing"]


_Arrival: TypeAlias = "tuple[int, Any, BaseException | None]"

TURNS = 4
"""How many turns of the loop calls are gathered for once answers have landed: a step's answer
resumes its instance, the last one's then whoever waits for the result, and that lets the next one
submit. A turn in which nobody has anything to do costs some microseconds."""
SPLIT = 32
"""From so many answers on that are all there is, they are dealt with in two halves, so that the
storage thread and its disk have the first half's calls while the loop is at the second. Two halves
stay two: who lands while the other half is dealt with waits for that. Smaller ones would cost more
transactions than the waiting costs time."""


class Landing:
    """The answers for one event loop; only touched on its thread, but for `retire`.

    It does not hold the loop, which holds it as long as it is open.
    """

    __slots__ = (
        "__weakref__", "_early", "_later", "_loop", "_store", "_waiting", "listeners", "port",
        "settling",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Storage) -> None:
        self.port: Port = Port()
        self._store = store
        self.listeners: tuple[Listener, ...] = ()
        """Who on this loop wants to hear of other processes."""
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        # Answers that landed before anybody expected them.
        self._early: dict[int, tuple[Any, BaseException | None]] = {}
        self._loop = ref(loop)
        self.settling: bool = False
        """Whether those who were answered are still at it."""
        self._later: list[_Arrival] = []
        loop.add_reader(self.port.fileno(), self._land)

    def ask(
        self,
        loop: asyncio.AbstractEventLoop,
        call: Callable[..., int],
        now: float | None,
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Hand a call over; its answer is the future's result, or its exception."""
        return self.expect(loop, call(self.port, now, *args))

    def expect(self, loop: asyncio.AbstractEventLoop, ticket: int) -> asyncio.Future[Any]:
        """The answer to a call that was handed over under this number."""
        future: asyncio.Future[Any] = loop.create_future()
        if self._early and (landed := self._early.pop(ticket, None)) is not None:
            _resolve(future, *landed)
        else:
            self._waiting[ticket] = future
        return future

    def _land(self) -> None:
        if not self.settling:
            self._take(self.port.drain())

    def _take(self, arrivals: list[_Arrival]) -> None:
        half = len(arrivals) // 2
        if len(arrivals) >= SPLIT and len(self._waiting) < len(arrivals) + half:
            self._later = arrivals[half:]
            del arrivals[half:]
        self._answer(arrivals)
        loop = self._loop()
        if loop is not None:
            self.settling = True
            self._settle(loop, TURNS)

    def _answer(self, arrivals: list[_Arrival]) -> None:
        waiting = self._waiting
        for ticket, answer, failure in arrivals:
            if ticket == 0:
                for listener in self.listeners:
                    listener(*answer)
                continue
            future = waiting.pop(ticket, None)
            if future is None:
                self._early[ticket] = answer, failure
            elif not future.done():
                # Else whoever asked was cancelled; what was asked is done all the same.
                _resolve(future, answer, failure)

    def _settle(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Flush after so many turns of the loop."""
        if turns:
            loop.call_soon(self._settle, loop, turns - 1)
            return
        self.settling = False
        self._store.flush(self.port)
        if self._later:
            self._take(self._all())

    def _all(self) -> list[_Arrival]:
        """What is still to be dealt with, and what has arrived since."""
        later, self._later = self._later, []
        return later + self.port.drain()

    def retire(self) -> None:
        """Take the last answers in and leave the loop, from any thread."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return

        def leave() -> None:
            self._answer(self._all())
            self._store.flush(self.port)
            loop.remove_reader(self.port.fileno())

        with contextlib.suppress(RuntimeError):  # It was closed in between.
            loop.call_soon_threadsafe(leave)


def _resolve(future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
    if failure is None:
        future.set_result(answer)
    else:
        future.set_exception(failure)
