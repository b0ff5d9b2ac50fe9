"""A parent and its worker processes: starts them, starts crashed ones again, stops them together.

Each child is a fresh interpreter, never a fork, so that nothing that is open is shared. Each hangs
on a pipe, its lifeline (`serving`), which carries the orders and closes when the parent dies in
whatever way. Children are in process groups of their own, so that Ctrl-C reaches them through the
parent, once. A child that crashes is replaced after a pause that doubles; one that keeps crashing
ends everything, loudly. What a child does is not known here.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from sayiir import _clock
from sayiir.cli.serving import DRAIN, FORCE, FORCED

__all__ = ["Supervisor"]

FIRST_PAUSE_S = 0.5
"""The pause before a crashed child is replaced for the first time; it doubles each time."""
LONGEST_PAUSE_S = 30.0
SOUND_AFTER_S = 60.0
"""A child that lived this long begins with the first pause again."""
MOST_CRASHES = 5
"""More crashes of one child within `CRASHES_WITHIN_S` end everything."""
CRASHES_WITHIN_S = 60.0
FORCED_S = 5.0
"""How long children may take to stop at once; then they are killed."""

_FAILED = 1
_USAGE = 2
_log = logging.getLogger("sayiir.cli")


class Supervisor:
    """Keeps one process running for each command.

    Args:
        commands: For each child, what makes its command line from the file descriptor of its
            lifeline.
        patience_s: How long draining may take; children that have not ended by then are killed.
    """

    def __init__(
        self, commands: Sequence[Callable[[int], Sequence[str]]], patience_s: float
    ) -> None:
        self._commands = commands
        self._patience_s = patience_s
        self._lifelines: dict[int, int] = {}
        self._children: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._codes: list[int] = []

    @property
    def draining(self) -> bool:
        """Whether the children were told to stop."""
        return self._stopping.is_set()

    async def run(self) -> int:
        """Supervise until a signal comes, or a child cannot be kept running; the exit code.

        0: all drained; 1: a child failed; 2: a child refused its arguments; 3: running steps were
        cut short.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        keepers = [loop.create_task(self._keep(slot)) for slot in range(len(self._commands))]
        try:
            await asyncio.gather(*keepers)
        finally:
            # An error here closes the lifelines, and the children drain by themselves.
            for keeper in keepers:
                keeper.cancel()
            for timer in self._timers:
                timer.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return next((code for code in (_USAGE, _FAILED, FORCED) if code in self._codes), 0)

    async def _keep(self, slot: int) -> None:
        """Keep one child running; returns when there is to be none any more."""
        crashes: deque[float] = deque()
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = _clock.monotonic()
            code = await self._live(slot)
            if self._stopping.is_set():
                self._note_end(slot, code)
                return
            now = _clock.monotonic()
            if now - began >= SOUND_AFTER_S:
                pause = FIRST_PAUSE_S
            crashes.append(now)
            while now - crashes[0] > CRASHES_WITHIN_S:
                crashes.popleft()
            if code == _USAGE:
                self._give_up(slot, _USAGE, "it refuses its arguments")
            elif len(crashes) > MOST_CRASHES:
                last = f"it ended {len(crashes)} times within {CRASHES_WITHIN_S:g} s"
                self._give_up(slot, _FAILED, f"{last}, the last time it {_how(code)}")
            else:
                _log.error(
                    "worker process %d %s; starting another in %g s", slot + 1, _how(code), pause
                )
                await self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _live(self, slot: int) -> int:
        """Run one child to its end; its exit code, negative for a signal."""
        theirs, ours = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._commands[slot](theirs), stdin=DEVNULL, pass_fds=(theirs,), process_group=0
            )
        except OSError as failure:
            os.close(ours)
            _log.error("worker process %d cannot be started: %s", slot + 1, failure)
            return _FAILED
        finally:
            os.close(theirs)
        self._lifelines[slot], self._children[slot] = ours, child
        try:
            _log.info("worker process %d is pid %d", slot + 1, child.pid)
            if self._stopping.is_set():
                _order(ours, DRAIN)
            return await child.wait()
        finally:
            del self._lifelines[slot], self._children[slot]
            os.close(ours)

    async def _rest(self, pause: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()

    def _note_end(self, slot: int, code: int) -> None:
        """A child ended while everything ends."""
        # One that had not begun to work yet dies of the signal itself, and leaves nothing behind.
        if code in (0, -signal.SIGTERM, -signal.SIGINT):
            return
        self._codes.append(FORCED if code in (FORCED, -signal.SIGKILL) else _FAILED)
        _log.warning("worker process %d %s", slot + 1, _how(code))

    def _give_up(self, slot: int, code: int, why: str) -> None:
        if not self._stopping.is_set():
            _log.error("worker process %d is given up: %s; stopping the others", slot + 1, why)
        self._codes.append(code)
        self._stop()

    def _signalled(self, name: str) -> None:
        self._signals += 1
        if self._signals == 1:
            _log.info(
                "%s: the worker processes finish what runs; a second signal stops at once", name
            )
            self._stop()
        elif self._signals == 2:
            _log.warning("%s again: stopping at once", name)
            self._order_all(FORCE)
            self._kill_after(FORCED_S)
        else:
            self._kill()

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._order_all(DRAIN)
            self._kill_after(self._patience_s)

    def _order_all(self, order: bytes) -> None:
        for lifeline in self._lifelines.values():
            _order(lifeline, order)

    def _kill_after(self, delay: float) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay, self._kill))

    def _kill(self) -> None:
        for slot, child in self._children.items():
            _log.warning("worker process %d does not stop and is killed", slot + 1)
            with suppress(ProcessLookupError):
                child.kill()


def _order(lifeline: int, order: bytes) -> None:
    # A child that has just died reads nothing.
    with suppress(OSError):
        os.write(lifeline, order)


def _how(code: int) -> str:
    """How a process ended, in words.

    >>> _how(-9), _how(1), _how(0)
    ('was killed by SIGKILL', 'ended with exit code 1', 'ended without being asked')
    """
    if code == 0:
        return "ended without being asked"
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
