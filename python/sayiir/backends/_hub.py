"""Hints: who wants to hear that something may have happened.

A hint is never the truth, only a reason to look: it may be late, doubled or lost, and polling must
still find everything. Listeners are called on whatever thread the change was made on, without any
lock held; they must return quickly and not raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Hub", "Listener"]

Listener = Callable[[str, str], None]
"""Called with a kind and an instance id. Kinds: `work` (something may be claimable, now or at a new
time), `news` (a held instance has a pending cancel, pause or event), `ended` (an instance
completed, failed or was cancelled)."""


class Hub:
    """The listeners of one backend.

    >>> hub, heard = Hub(), []
    >>> stop = hub.listen(lambda kind, instance_id: heard.append((kind, instance_id)))
    >>> hub.tell("work", "order-1"); stop(); hub.tell("work", "order-2"); heard
    [('work', 'order-1')]
    """

    __slots__ = ("_listeners", "_lock")

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; what comes back removes it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop

    def tell(self, kind: str, instance_id: str) -> None:
        """Call every listener."""
        for listener in self._listeners:
            listener(kind, instance_id)
