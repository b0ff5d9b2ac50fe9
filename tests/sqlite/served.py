"""The flows that one process runs while another one watches and controls them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from sayiir import Flow, Workflow, get_task_context

Whole = Workflow[Any, Any]


async def forever(x: Any) -> Any:
    """Never returns by itself."""
    await asyncio.Event().wait()
    return x


def where(x: Any) -> int:
    """Which process it runs in."""
    return os.getpid()


def stamped(x: Any) -> list[Any]:
    """What it was given, and which attempt this is."""
    context = get_task_context()
    assert context is not None
    return [x, context.attempt]


PING: Whole = Flow("ping").then(where).build()
ASK: Whole = Flow("ask").wait_for_event("go").then(stamped).build()
ASK_TWICE: Whole = (
    Flow("twice").wait_for_event("go", node="first").wait_for_event("go", node="second").build()
)
STUCK: Whole = Flow("stuck").then(forever).then(where).build()
NAP: Whole = Flow("nap").delay("rest", "300ms").then(where).build()
FAIL: Whole = Flow("fail").then(lambda x: 1 / x, name="divide").build()
SERVED = (PING, ASK, ASK_TWICE, STUCK, NAP, FAIL)
