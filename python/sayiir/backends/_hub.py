"""Hints: who wants to hear that something may have happened.

A hint is never the truth, only a reason to look: it may be late, doubled or lost, and polling must
still find everything. Listeners are called on whatever thread the change was made on, without any
lock held; they must return quickly and not raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

__all__ = ["Hub", "Listener"]

_ENDED = frozenset({"completed", "failed", "cancelled"})

Listener = Callable[[str, str], None]
"""Called with a kind and an instance id. Kinds: `work` (something may be claimable, now or at a new
time), `news` (a held instance has a pending cancel, pause or event), `ended` (an instance
completed, failed or was cancelled)."""

EndListener = Callable[[str, bytes], None]
"""Called with the id and the sealed output of an instance that completed in this process."""


class Hub:
    """The listeners of one backend.

    >>> hub, heard = Hub(), []
    >>> stop = hub.listen(lambda kind, instance_id: heard.append((kind, instance_id)))
    >>> hub.tell("work", "order-1"); stop(); hub.tell("work", "order-2"); heard
    [('work', 'order-1')]
    """

    __slots__ = ("_end_listeners", "_listeners", "_lock")

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._end_listeners: tuple[EndListener, ...] = ()
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; what comes back removes it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop

    def listen_ends(self, listener: EndListener) -> Callable[[], None]:
        """Add a listener for outputs, which hears them before the hint `ended` is given."""
        with self._lock:
            self._end_listeners = (*self._end_listeners, listener)

        def stop() -> None:
            with self._lock:
                self._end_listeners = tuple(
                    one for one in self._end_listeners if one is not listener
                )

        return stop

    def tell(self, kind: str, instance_id: str) -> None:
        """Call every listener."""
        for listener in self._listeners:
            listener(kind, instance_id)

    # What each call of a backend gives reason to look for.

    def completed(self, instance_id: str, output: bytes | None) -> None:
        """An instance completed in this process, durably, with this sealed output, if known."""
        if output is not None:
            for listener in self._end_listeners:
                listener(instance_id, output)
        self.tell("ended", instance_id)

    def submitted(self, ids: Iterable[str], policy: str) -> None:
        """Instances were created, or replaced."""
        for instance_id in ids:
            if policy == "terminate_existing":
                self.tell("news", instance_id)
            self.tell("work", instance_id)

    def committed(self, instance_id: str, kind: str, intended: str) -> None:
        """A commit that intended this was answered with this kind."""
        if kind == "cancelled" or (kind == "ok" and intended in _ENDED):
            self.tell("ended", instance_id)
        elif intended in ("park", "hand_over"):
            self.tell("work", instance_id)

    def given_back(self, instance_id: str) -> None:
        """A lease was given back; with an empty id, several."""
        self.tell("work", instance_id)

    def event_sent(self, instance_id: str) -> None:
        """An event was buffered."""
        self.tell("work", instance_id)
        self.tell("news", instance_id)

    def asked(self, instance_id: str, status: str) -> None:
        """A cancel or pause left the instance in this status."""
        self.tell("ended" if status in _ENDED else "news", instance_id)

    def unpaused(self, instance_id: str) -> None:
        """A pause was taken back."""
        self.tell("work", instance_id)

    def deleted(self, instance_id: str) -> None:
        """A holder has lost it, and a waiter has nothing to wait for."""
        self.tell("news", instance_id)
        self.tell("ended", instance_id)
