"""Bodies that take five times their lease, and what they keep from the rest of their process.

Some sleep, some compute without a pause, and some stay in one call of C that never lets go of the
interpreter, so that no other Python code of the process runs for that long. Each body says when it
starts and when it ends, like those of `bodies`.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from typing import Any

from sayiir import Flow, Workflow, task

from .bodies import Entry

Seconds = float


def sleep(seconds: Seconds) -> None:
    """A thread that waits, and lets the interpreter go."""
    time.sleep(seconds)


def count(seconds: Seconds) -> None:
    """A loop in Python; the interpreter is let go every few milliseconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def add(seconds: Seconds) -> None:
    """A sum, in one call that holds the interpreter throughout."""
    _one_call(seconds, lambda size: sum(range(100_000 * size)))


def match(seconds: Seconds) -> None:
    """A hopeless search, in one call that holds the interpreter throughout."""
    _one_call(seconds, lambda size: re.findall(r"(a+)+c", 16 * size * ("a" * 12 + "b")))


def power(seconds: Seconds) -> None:
    """A power of huge numbers, in one call that holds the interpreter throughout."""
    modulus = (1 << 2203) - 1
    _one_call(seconds, lambda size: pow(3, (1 << 256 * size) - 1, modulus))


def _one_call(seconds: Seconds, call: Callable[[int], object]) -> None:
    """Make a call whose time grows with its size, of the size that takes this long.

    The size is estimated from a small call; should that one have been slow, there are several.
    """
    end = time.monotonic() + seconds
    size = 1
    while (took := _time(call, size)) < 0.02:
        size *= 2
    while (left := end - time.monotonic()) > 0:
        call(math.ceil(size * left / took))


def _time(call: Callable[[int], object], size: int) -> Seconds:
    begin = time.monotonic()
    call(size)
    return time.monotonic() - begin


def _threaded(hog: Callable[[Seconds], None]) -> Callable[[Any], Any]:
    def run(given: Any) -> Any:
        entry = Entry(given)
        hog(given["seconds"])
        return entry.leave(given)

    return run


def _on_the_loop(hog: Callable[[Seconds], None]) -> Callable[[Any], Any]:
    async def run_async(given: Any) -> Any:
        entry = Entry(given)
        hog(given["seconds"])
        return entry.leave(given)

    return run_async


async def _asleep(given: Any) -> Any:
    entry = Entry(given)
    await asyncio.sleep(given["seconds"])
    return entry.leave(given)


_BODIES: dict[str, Callable[[Any], Any]] = {
    "sleep-async": _asleep,
    "sleep-thread": _threaded(sleep),
    "sleep-loop": _on_the_loop(sleep),
    "count-thread": _threaded(count),
    "count-loop": _on_the_loop(count),
    "count-inline": task(run_in="inline")(_threaded(count)),
    "add-thread": _threaded(add),
    "match-thread": _threaded(match),
    "match-loop": _on_the_loop(match),
    "power-thread": _threaded(power),
}
HOGS: dict[str, Workflow[Any, Any]] = {
    name: Flow(name).then(body, name="hog").build() for name, body in _BODIES.items()
}
