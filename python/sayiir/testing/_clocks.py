"""A clock that stands still until it is moved.

What a test needs instead of sleeping: give it to a backend and say what time it is.
"""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """The time in seconds since 1970, as its owner sets it; call it to read it.

    Args:
        start: The first time it shows.

    >>> clock = VirtualClock()
    >>> start = clock()
    >>> clock.advance(90)
    >>> clock() - start
    90.0
    """

    __slots__ = ("time",)

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.time: float = start
        """What it shows; set it to go anywhere, backwards too."""

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.time += seconds

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.time}>"
