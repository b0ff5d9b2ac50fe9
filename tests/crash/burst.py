"""The flows of the tests of large numbers: cheap steps, so that only the number is too much."""

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


def numbers(count: int) -> list[int]:
    """So many items."""
    return list(range(count))


BURST: Workflow[Any, Any] = Flow("burst").then(double).then(increase).build()
SHARED: Workflow[Any, Any] = (
    Flow("shared")
    .then(numbers)
    .map(Flow("part").then(double).then(increase).build(), name="part", spread=True)
    .then(sum)
    .build()
)


def outcome(x: int) -> int:
    """What an instance must come to."""
    return 2 * x + 1


def total(count: int) -> int:
    """What a shared one must come to, that has so many items."""
    return sum(map(outcome, range(count)))
