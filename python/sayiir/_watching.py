"""Following an instance while it goes on: its row whenever that has changed, its steps as they end.

A `Sight` looks at one instance again and again. It looks at once when its backend hints at the
instance; soon when it hints at changes by another process, to whatever instance; and by itself
every now and then, since a hint may be lost and steps that end one after the other are not hinted
at. How often follows what happens: soon
after a change, then ever more rarely, and never so often that reading the history takes more than a
fifth of the time. Nothing has to be closed: who stops asking costs nothing more once it is dropped.
What a state means to those who wait for it is not known here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ._errors import InstanceNotFoundError, InvalidStateError
from ._listing import StepInfo, step_of
from ._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Self

    from .backends import Backend, InstanceRow

__all__ = ["Sight", "Sights", "Steps"]

SOONEST_S = 0.05
"""The time from a change to the next look that nothing hinted at; it doubles while none is seen."""
LATEST_S = 1.0
"""The most time between two looks at an instance that a worker may be busy with."""
PARKED_S = 2.0
"""The most time between two looks at one that waits, or is paused."""
VAGUE_S = 0.25
"""The least time from a look to one that a hint about nobody in particular brings about."""
REST_S = 0.01
"""The least time between two looks, however many hints come."""
SHARE = 4
"""For each second that reading the history takes, so many pass before the next look."""


class Sights:
    """All who follow instances by one client.

    >>> from sayiir import InMemoryBackend
    >>> Sights(InMemoryBackend()).following
    0
    """

    __slots__ = ("_backend", "_bells", "closed")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._bells: dict[int, _Bell] = {}
        self.closed = False

    @property
    def following(self) -> int:
        """How many there are."""
        return len(self._bells)

    def on(self, instance_id: str) -> Sight:
        """One more, who follows this instance."""
        return Sight(self._backend, self, instance_id)

    async def until(
        self, instance_id: str, wanted: Collection[Status], limit: float | None
    ) -> InstanceRow:
        """The instance's row once it is in one of these states. See `WorkflowClient.wait_until`."""
        loop = asyncio.get_running_loop()
        begun, left = loop.time(), limit
        sight = self.on(instance_id)
        while True:
            try:
                row = await sight.look(left)
            except TimeoutError:
                assert sight.row is not None
                row = sight.row
                raise TimeoutError(
                    f"instance {instance_id!r} of workflow {row.workflow_id!r} is {row.status} "
                    f"after {limit:g} s, not {_either(wanted)}; it goes on: ask again, or see what "
                    "holds it up in its history"
                ) from None
            if row.status in wanted:
                return row
            if Status(row.status).is_terminal:
                raise InvalidStateError(
                    f"instance {instance_id!r} of workflow {row.workflow_id!r} is {row.status}, "
                    f"and so will never be {_either(wanted)}; its status and history say why",
                    state=row.status,
                    instance_id=instance_id,
                )
            left = None if limit is None else max(0.0, begun + limit - loop.time())

    def close(self) -> None:
        """Send those who wait away; they raise `RuntimeError`."""
        self.closed = True
        # Made at once: others may come and go meanwhile, on any thread.
        for bell in tuple(self._bells.values()):
            bell.ring()

    def add(self, bell: _Bell) -> Callable[[], None]:
        """Let the bell hear hints and the end of the client; what comes back takes it away."""
        self._bells[id(bell)] = bell
        # The backend knows the bell only, so that it keeps nobody alive who waits for it.
        stop = self._backend.listen(partial(_hear, bell))

        def leave() -> None:
            stop()
            self._bells.pop(id(bell), None)

        return leave


class Sight:
    """One who looks at an instance until it has seen enough. For one caller at a time."""

    __slots__ = ("_backend", "_bell", "_gap", "_leave", "_looked", "_rest", "_sights", "row")

    row: InstanceRow | None
    """What was seen last."""

    def __init__(self, backend: Backend, sights: Sights, instance_id: str) -> None:
        self._backend = backend
        self._sights = sights
        self._bell = _Bell(instance_id)
        self._leave: Callable[[], None] | None = None
        self._gap = SOONEST_S
        self._rest = REST_S
        self._looked = 0.0
        self.row = None

    def __del__(self) -> None:
        if self._leave is not None:
            self._leave()

    async def look(self, limit: float | None = None) -> InstanceRow:
        """The instance's row: at once the first time, then as soon as it differs from the last.

        Args:
            limit: How long to wait for that, in seconds; `None`: for as long as it takes.

        Raises:
            InstanceNotFoundError: There is no such instance, or no longer, or another of its id.
            TimeoutError: Nothing has changed in time.
            RuntimeError: The client was closed.
        """
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit
        bell = self._bell
        if self._leave is None:
            self._leave = self._sights.add(bell)
        while True:
            self._refuse_if_closed()
            bell.rung = bell.nudged = False
            self._looked = loop.time()
            row = await self._backend.get(bell.instance_id)
            before, self.row = self.row, row
            if before is None or _facts(before) != _facts(row):
                self._refuse_another(before, row)
                self._gap = SOONEST_S
                return row
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise TimeoutError
            gap = self._gap if left is None else min(self._gap, left)
            await bell.wait(gap, self._looked + VAGUE_S)
            longest = LATEST_S if row.status == Status.IN_PROGRESS else PARKED_S
            self._gap = min(self._gap * 2, longest)
            if (rest := self._looked + self._rest - loop.time()) > 0:
                await asyncio.sleep(rest if left is None else min(rest, left))

    async def steps(self, after: int) -> list[StepInfo]:
        """The history from its `after`-th step on. Raises `InstanceNotFoundError`."""
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        rows = await self._backend.history(self._bell.instance_id)
        self._rest = max(REST_S, SHARE * (loop.time() - begun))
        return [step_of(row) for row in rows[after:]]

    def _refuse_if_closed(self) -> None:
        if self._sights.closed:
            raise RuntimeError(
                f"the client was closed; to go on following instance {self._bell.instance_id!r}, "
                "ask another client"
            )

    def _refuse_another(self, before: InstanceRow | None, row: InstanceRow) -> None:
        if before is not None and (before.created_at != row.created_at or before.steps > row.steps):
            raise InstanceNotFoundError(
                f"instance {row.instance_id!r} was replaced by another one of its id while it was "
                "followed; ask again to follow that one",
                instance_id=row.instance_id,
            )


class Steps:
    """The steps of one instance as they end: what `WorkflowClient.watch` gives."""

    __slots__ = ("_due", "_over", "_ready", "_seen", "_sight")

    def __init__(self, sight: Sight, after: int) -> None:
        self._sight = sight
        self._seen = after
        self._ready: deque[StepInfo] = deque()
        # A row whose steps are still to be read, should the caller have been interrupted before.
        self._due: InstanceRow | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StepInfo:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            try:
                # The row before the history: what has ended gets no more steps.
                row = self._due = self._due or await self._sight.look()
                if row.steps > self._seen:
                    self._ready.extend(await self._sight.steps(self._seen))
                    self._seen += len(self._ready)
            except InstanceNotFoundError:
                self._over = True
                raise
            self._due = None
            self._over = Status(row.status).is_terminal
        return self._ready.popleft()


class _Bell:
    """What wakes one who waits, from any thread.

    Each side first sets its own flag and then reads the other's, so that of a ring and a wait which
    begin at the same moment one always notices the other.
    """

    __slots__ = ("_open", "instance_id", "nudged", "rung", "waiter")

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.rung = self.nudged = False
        """Whether there was a hint about the instance, or about nobody in particular."""
        self.waiter: asyncio.Future[None] | None = None
        self._open = False

    async def wait(self, gap: float, soon: float) -> None:
        """Until it rings, or has; until it is nudged, or has been, but not before the time `soon`.

        At the longest so many seconds.
        """
        loop = asyncio.get_running_loop()
        self._open = False
        self.waiter = waiter = loop.create_future()
        timers = loop.call_later(gap, _wake, waiter), loop.call_at(soon, self._admit, waiter)
        try:
            if not self.rung:
                await waiter
        finally:
            for timer in timers:
                timer.cancel()
            self.waiter = None

    def _admit(self, waiter: asyncio.Future[None]) -> None:
        self._open = True
        if self.nudged:
            _wake(waiter)

    def ring(self) -> None:
        """Wake whoever waits, or keep it from waiting."""
        self.rung = True
        self._wake_there()

    def nudge(self) -> None:
        """Likewise, unless it has looked just now."""
        if not self.nudged:
            self.nudged = True
            if self._open:
                self._wake_there()

    def _wake_there(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            # A closed loop has nobody who waits.
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)


def _hear(bell: _Bell, _kind: str, instance_id: str) -> None:
    """A hint came, on any thread."""
    if instance_id == bell.instance_id:
        bell.ring()
    elif not instance_id:
        bell.nudge()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _facts(row: InstanceRow) -> tuple[Any, ...]:
    """What makes a row another one to those who look at it."""
    return (
        *(row.status, row.steps, row.created_at, row.worker_id, row.wake_at),
        *(row.delay_id, row.signal_id, row.signal_name, row.reason, row.by),
    )


def _either(wanted: Collection[Status]) -> str:
    return " or ".join(str(status) for status in Status if status in wanted)
