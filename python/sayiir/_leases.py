"""Keeps a worker's leases alive while it lives, without the help of user code or of its event loop.

The backends of the package have a thread in Rust for it, which needs no interpreter. For any other
backend a thread with an event loop of its own calls `Backend.renew`; a body of Python code that
never waits still lets it run, because the interpreter switches threads.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _clock
from ._core import Claimant, Keeper
from .backends import InMemoryBackend, StorageBackend

if TYPE_CHECKING:
    from .backends import Backend

__all__ = ["keep_leases"]

_log = logging.getLogger("sayiir.worker")


def keep_leases(
    backend: Backend, claimant: Claimant, news: Callable[[str], None]
) -> Callable[[], None]:
    """Renew the claimant's leases from now on; what comes back stops it.

    `news` is called, on any thread, with the ids of instances that have a pending cancel or pause.
    """
    if isinstance(backend, InMemoryBackend) and backend.clock is _clock.now:
        return Keeper(backend.store, claimant).close
    if isinstance(backend, StorageBackend) and (stop := backend.keep_leases(claimant)) is not None:
        return stop
    renewer = _Renewer(backend, claimant, news)
    renewer.start()
    return renewer.close


class _Renewer:
    def __init__(self, backend: Backend, claimant: Claimant, news: Callable[[str], None]) -> None:
        self._thread = threading.Thread(target=self._renew, name="sayiir-leases", daemon=True)
        self._backend = backend
        self._claimant = claimant
        self._news = news
        self._stop_asked = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def _renew(self) -> None:
        with asyncio.Runner() as runner:
            ttl = self._claimant.lease_ttl
            while not self._stop_asked.is_set():
                try:
                    for instance_id in runner.run(
                        self._backend.renew(self._claimant.worker_id, ttl)
                    ):
                        self._news(instance_id)
                except Exception:
                    _log.exception(
                        "worker %s could not renew its leases; they run out in %g s",
                        self._claimant.worker_id,
                        ttl,
                    )
                self._stop_asked.wait(ttl / 3)

    def close(self) -> None:
        self._stop_asked.set()
        self._thread.join()
