"""How programs talk to whoever started them: lines of JSON, in and out."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def say(word: object) -> None:
    """A line to whoever started this program."""
    sys.stdout.write(f"{json.dumps(word)}\n")
    sys.stdout.flush()


def hear() -> Any:
    """The next line of whoever started it; `None` when there are no more."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


async def heard() -> Any:
    """As `hear`, while the event loop goes on."""
    return await asyncio.to_thread(hear)


def fault(error: BaseException) -> list[str]:
    """An error as it crosses between processes."""
    return [type(error).__name__, str(error)]
