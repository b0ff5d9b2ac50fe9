"""The flow of the overload test: two cheap steps, so that only the queue is too much."""

from __future__ import annotations

from typing import Any

from sayiir import Flow, Workflow, task


@task(run_in="inline")
def double(x: int) -> int:
    """Twice the number."""
    return 2 * x


async def increase(x: int) -> int:
    """The next number."""
    return x + 1


BURST: Workflow[Any, Any] = Flow("burst").then(double).then(increase).build()


def outcome(x: int) -> int:
    """What an instance must come to."""
    return 2 * x + 1
