"""A simulated worker: what it holds, what it owes the store, and how it runs a body.

Plain state without any rule of its own: `simulator` moves it, `fate` decides when.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sayiir._context import current
from sayiir._core import Claim, Claimant, Commit, Run, Step, Turn

from .books import Book, Tenure, Violation

Answer: TypeAlias = Step | Turn | int | None
Event: TypeAlias = tuple[int, str, bytes]
Ends: TypeAlias = list[tuple[int, list[tuple[str, bytes | None]]]]
News: TypeAlias = tuple[bool, bool, bool, list[Event]]


@dataclass(eq=False, slots=True)
class Held:
    """One instance in the hands of a worker, and the call that is due for it."""

    tenure: Tenure
    claim: Claim | None
    run: Run | None = None
    commit: Commit | None = None
    reply: tuple[str, list[Event]] | None = None
    news: News | None = None
    native: bool = False
    gathering: set[int] = field(default_factory=set)
    """Groups of items of which is to be found out how they ended."""
    ends: Ends | None = None
    """What was found out, on its way to the run."""
    wake_at: float | None = None
    running: list[Step] = field(default_factory=list)
    unwanted: list[Step] = field(default_factory=list)
    stop_asked: bool = False
    gone: bool = False

    @property
    def book(self) -> Book:
        return self.tenure.book


@dataclass(eq=False, slots=True)
class Worker:
    """One life of a worker."""

    name: str
    skew: float
    claimant: Claimant
    asleep_until: float = 0.0
    held: list[Held] = field(default_factory=list)
    broken: list[Held] = field(default_factory=list)
    """What it cannot go on with since a call to the store failed: leases to be given back."""


def here(answer: Answer) -> Step | Turn:
    """The answer of a run that hands its commits to nobody but its caller."""
    if answer is None or isinstance(answer, int):
        raise Violation(f"a run without a store of its own answered {answer!r}")
    return answer


def call(step: Step) -> Any:
    """What the body of a step returns, here and now."""

    def body() -> Any:
        current.set(step)
        answer = step.fn(step.input)
        if not asyncio.iscoroutine(answer):
            return answer
        try:
            answer.send(None)
        except StopIteration as stop:
            return stop.value
        raise Violation(f"{step.path} waits for something that is not simulated")

    return contextvars.copy_context().run(body)
