"""Durations as people write them, turned into seconds.

Every argument of the package that is a length of time goes through `parse_duration`, so the same
forms are accepted everywhere and refused with the same sentence. It does not know what the
duration is for; the caller says the argument's name.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

__all__ = ["MAX_DURATION_SECS", "Duration", "parse_duration"]

Duration: TypeAlias = timedelta | int | float | str
"""What may be given as a duration: a `timedelta`, a number of seconds, or text such as "1h30m"."""

MAX_DURATION_SECS = 100 * 365.25 * 86_400
"""The longest duration accepted anywhere: 100 years."""

_MAX_TEXT = 64
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", re.IGNORECASE | re.ASCII)
_FORMS = 'write seconds as a number, a timedelta, or text like "100ms", "30s", "5m", "1h30m", "2d"'


def parse_duration(value: Duration, *, name: str = "duration", allow_zero: bool = True) -> float:
    """Turn a duration into seconds.

    Args:
        value: A `timedelta`, a number of seconds, or text made of parts like `"100ms"`, `"30s"`,
            `"5m"`, `"2h"`, `"1d"`, from the largest unit to the smallest. Case and white space
            do not matter.
        name: What to call the argument in an error message.
        allow_zero: Whether a duration of nothing is acceptable.

    Raises:
        TypeError: The value is of another kind (a `bool` counts as one).
        ValueError: It is negative, zero where that makes no sense, not a number, infinite, longer
            than 100 years, or text of another form.

    >>> parse_duration("1h30m")
    5400.0
    >>> parse_duration(timedelta(milliseconds=250))
    0.25
    >>> parse_duration(-1, name="delay")
    Traceback (most recent call last):
    ...
    ValueError: delay must be 0 or more seconds, got -1
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a duration, got the bool {value}; {_FORMS}")
    if isinstance(value, str):
        seconds = _parse_text(value, name)
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int):
        # An int may be too large for a float; the limits below are exact for both.
        seconds = float(max(-1, min(value, int(MAX_DURATION_SECS) + 1)))
    elif isinstance(value, float):
        seconds = float(value)
    else:
        raise TypeError(f"{name} must be a duration, got {type(value).__name__}; {_FORMS}")
    shown = _shown(value)
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds, got {shown}")
    if seconds < 0 or (seconds == 0 and not allow_zero):
        floor = "0 or more" if allow_zero else "more than 0"
        raise ValueError(f"{name} must be {floor} seconds, got {shown}")
    if seconds > MAX_DURATION_SECS:
        raise ValueError(f"{name} must be at most 100 years, got {shown}")
    return seconds


def _parse_text(text: str, name: str) -> float:
    """The seconds in a text such as `"1h 30m"`; each unit at most once, the largest first."""
    seconds = 0.0
    smallest = math.inf
    position = 0
    while len(text) <= _MAX_TEXT and (part := _PART.match(text, position)):
        unit = _UNITS[part[2].lower()]
        if unit >= smallest:
            break
        smallest = unit
        seconds += float(part[1]) * unit
        position = part.end()
    if position == 0 or position != len(text):
        raise ValueError(f"{name}: {_shown(text)} is not a duration; {_FORMS}")
    return seconds


def _shown(value: Duration) -> str:
    """The value for a message, shortened so that a hostile one cannot flood a log."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"a text of {len(value)} characters"
    return repr(value) if isinstance(value, str) else str(value)
