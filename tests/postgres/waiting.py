"""Waiting for a fact that nobody announces, such as the end of another process, or for company."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sayiir import PostgresBackend

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


async def together(backend: PostgresBackend, *calls: Awaitable[Any]) -> list[Any]:
    """These calls wait while another one is under way, and go out as one transaction."""
    other = asyncio.ensure_future(backend.send_event("nobody", "go", b"", None))
    await asyncio.sleep(0)
    answers = await asyncio.gather(*calls)
    await other
    return list(answers)
