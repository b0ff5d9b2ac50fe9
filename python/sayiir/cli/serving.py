"""One worker at work in this process, until signals or a parent's orders tell it to stop.

The first SIGTERM or SIGINT drains: nothing new is begun, running steps may end within the grace.
The second stops at once, the third ends the process where it stands, even if user code hogs the
interpreter. A supervised worker has a pipe besides, the lifeline: its parent writes orders to it,
and when the parent is gone, however it went, the pipe closes and the worker drains. Orders and
signals do not add up: a service manager that tells both parent and child to stop has told each of
them once.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from sayiir import Worker
from sayiir.cli.health import Address
from sayiir.cli.probes import Pulse, serving_pages, worker_pages

__all__ = ["DRAIN", "FORCE", "FORCED", "serve"]

FORCED = 3
"""The exit code when running steps were cut short."""
DRAIN = b"d"
"""The order to drain, on the lifeline. Repeating it changes nothing."""
FORCE = b"f"
"""The order to stop at once."""

_CLOSING_S = 5.0
"""How long the backend may take to close when there is no time to lose."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("sayiir.cli")


async def serve(
    worker: Worker, place: str, lifeline: int | None, http: Address | None = None
) -> None:
    """Work until told to stop, then close the backend.

    Returns when everything drained. When steps were cut short the process ends here and now with
    `FORCED`, since threads in user code may never end by themselves.

    Args:
        worker: Not yet running.
        place: Where its instances are, for the log.
        lifeline: The file descriptor on which orders come, if there is a parent.
        http: Where it tells how it is, if anywhere.

    Raises:
        Refused: It cannot listen there.
    """
    orders = _Orders()
    previous = {number: signal.signal(number, orders.signalled) for number in _SIGNALS}
    pulse = Pulse(worker, lambda: orders.told)
    http_server = None
    try:
        if lifeline is not None:
            orders.follow(lifeline)
        if http is not None:
            http_server = serving_pages(worker_pages(pulse), http)
            pulse.start()
        names = ", ".join(sorted({workflow.workflow_id for workflow in worker.workflows}))
        _log.info(
            "worker %s: takes instances of %s from %s, %d at once",
            *(worker.worker_id, names, place, worker.concurrency),
        )
        drained = await worker.run_until(orders.drain, orders.force)
        if not drained:
            with suppress(Exception):
                await asyncio.wait_for(worker.backend.close(), _CLOSING_S)
            _end_now()
        await worker.backend.close()
    finally:
        orders.close()
        pulse.close()
        if http_server is not None:
            http_server.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Orders:
    """What the worker was told, by signals and on the lifeline, as two events of the loop."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.force = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._signals = 0
        self._lifeline: int | None = None

    @property
    def told(self) -> bool:
        """Whether it was told to stop, even if the loop has had no turn to hear of it."""
        return self._signals > 0 or self.drain.is_set()

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """Runs between two instructions of whatever the main thread is at, user code included."""
        self._signals += 1
        if self._signals > 2:
            _end_now()
        name = signal.Signals(number).name
        if self._signals == 1:
            self._loop.call_soon_threadsafe(
                self._drain, f"{name}: finishing what runs; a second signal stops at once"
            )
        else:
            self._loop.call_soon_threadsafe(self._force, f"{name} again: stopping at once")

    def follow(self, lifeline: int) -> None:
        """Take orders from this pipe."""
        # A task's own processes must not keep it.
        os.set_inheritable(lifeline, False)
        os.set_blocking(lifeline, False)
        self._lifeline = lifeline
        self._loop.add_reader(lifeline, self._read)

    def _read(self) -> None:
        assert self._lifeline is not None
        try:
            orders = os.read(self._lifeline, 64)
        except BlockingIOError:
            return
        if not orders:
            self.close()
            self._drain("the parent process is gone: finishing what runs")
        if DRAIN in orders:
            self._drain("told to stop: finishing what runs")
        if FORCE in orders:
            self._force("told to stop at once")

    def _drain(self, why: str) -> None:
        if not self.drain.is_set():
            _log.info("%s", why)
            self.drain.set()

    def _force(self, why: str) -> None:
        if not self.force.is_set():
            _log.warning("%s; steps that run now run again elsewhere", why)
            self.drain.set()
            self.force.set()

    def close(self) -> None:
        """Take no more orders."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            self._loop.remove_reader(lifeline)
            os.close(lifeline)


def _end_now() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(FORCED)
