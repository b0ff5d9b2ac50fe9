"""Waiting for a fact that nobody announces, such as the end of another process."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 30.0
"""Seconds until what did not come about is taken never to."""
GLANCE_S = 0.01


def until(fact: Callable[[], bool], what: str) -> None:
    """Look again and again, until it is so.

    Raises:
        AssertionError: It never was.

    >>> until(lambda: True, "a fact")
    """
    end = time.monotonic() + LONG
    while not fact():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(GLANCE_S)
