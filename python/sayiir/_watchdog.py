"""Notices when a worker's event loop does not turn, and names the step that holds it.

The loop leaves a mark a few times a second; a thread looks whether the mark is fresh. When it is
not, the loop's own stack says who is at fault: the runner's frame on it has the step. Steps pay
nothing for being watched.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from types import FrameType

from . import _clock
from ._core import Step
from ._logging import fields_of
from ._runner import Drive

__all__ = ["Watchdog"]

_log = logging.getLogger("sayiir.worker")

_RUNNER = Drive._strand.__code__


class Watchdog:
    """Watches the loop it is made on, from `start` until it is closed.

    Args:
        limit: How long, in seconds, the loop may stand still before it is worth a warning.
    """

    def __init__(self, limit: float = 1.0) -> None:
        self._thread = threading.Thread(target=self._watch, name="sayiir-watchdog", daemon=True)
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._mark = _clock.monotonic()
        self._closed = threading.Event()
        self._handle = self._loop.call_soon(self._beat)

    def _beat(self) -> None:
        self._mark = _clock.monotonic()
        self._handle = self._loop.call_later(self._limit / 4, self._beat)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def _watch(self) -> None:
        """Look again and again; warn once for each time the loop stands still."""
        warned = None
        while not self._closed.wait(self._limit / 4):
            mark = self._mark
            stalled = _clock.monotonic() - mark
            if stalled > self._limit and warned != mark:
                warned = mark
                self._warn(stalled)

    def _warn(self, stalled: float) -> None:
        step, place = _culprit(sys._current_frames().get(self._thread_id))
        if step is None:
            _log.warning(
                "the worker's event loop has been blocked for %.1f s (at %s); no step is to blame",
                stalled,
                place,
            )
            return
        _log.warning(
            "task %r (step %r of instance %r) has blocked the worker's event loop for %.1f s "
            "(at %s); other instances wait meanwhile: await what takes time, or make it a plain "
            "def, which runs in a thread",
            step.task.name,
            step.path,
            step.instance_id,
            stalled,
            place,
            extra=fields_of(step),
        )

    def close(self) -> None:
        """Stop watching; on the loop's thread."""
        self._closed.set()
        self._handle.cancel()
        self._thread.join()


def _culprit(frame: FrameType | None) -> tuple[Step | None, str]:
    """The step whose function is on this stack, and where the innermost frame is."""
    place = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
    while frame is not None:
        if frame.f_code is _RUNNER:
            step = frame.f_locals.get("step")
            return (step if isinstance(step, Step) else None), place
        frame = frame.f_back
    return None, place
