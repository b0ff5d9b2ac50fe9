"""The one place in Python where time is read.

Everything that needs to know the time asks here, so that a test can hold the clock still and a
search for clocks finds one file. This module knows nothing about leases, timers or workflows.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["monotonic", "now"]


now: Callable[[], float] = time.time
"""The wall clock: seconds since 1970-01-01 UTC.

It may jump when the machine's clock is set. Use it for what is stored and shown, and
`monotonic` for measuring how long something took.

>>> now() > 1_600_000_000
True
"""


def monotonic() -> float:
    """Seconds on a clock that never goes back; only differences mean anything.

    >>> start = monotonic()
    >>> monotonic() >= start
    True
    """
    return time.monotonic()
