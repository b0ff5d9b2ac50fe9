"""Bodies: what a task computes, and the note it leaves of every time it runs.

A body answers with a number that follows from what it was given, and with a mark of the very
execution that made it (`by`). So a second execution answers something else, and which of the two
was recorded, and which one the next body was given, can be told apart afterwards.

The same `Body` is asked by the oracle. It refuses to know paths, flows and stores.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from sayiir import EventTimeout, LoopResult, MapError, RetryPolicy, task
from sayiir._context import current
from sayiir._core import Step

from .ledger import Ledger, digest

PRIME = 1_000_003
RETRY_WAIT_S = 0.02


class Wobble(Exception):
    """A failure that another attempt gets past."""


class Broken(Exception):
    """A failure of every attempt."""


@dataclass(slots=True)
class Stage:
    """Where bodies run in this process: their ledger, and how long they take."""

    ledger: Ledger
    pace: float
    """Seconds that a body takes on average, in its sleep."""
    seed: int
    marks: itertools.count[int] = field(default_factory=itertools.count)


_stage: Stage | None = None


def set_stage(stage: Stage) -> None:
    """From now on bodies of this process run here."""
    global _stage
    _stage = stage


def number(given: Any) -> int:
    """One number of anything that a body may be given."""
    match given:
        case {"n": int(n), "by": str()}:
            return n
        case dict():
            return sum(zlib.crc32(key.encode()) % 97 * number(item) for key, item in given.items())
        case list():
            return sum(place * number(item) for place, item in enumerate(given, 1))
        case str():
            return zlib.crc32(given.encode())
        case MapError():
            return 7 + given.index
        case EventTimeout():
            return 11
        case _:
            raise TypeError(f"a body was given {given!r}")


@dataclass(frozen=True, slots=True)
class Body:
    """One task: what it makes of what it is given, and how it is called."""

    name: str
    act: Literal["mark", "list", "parity", "turn"] = "mark"
    calling: Literal["async", "thread", "inline"] = "async"
    fails: int = 0
    """So many attempts fail before one does not."""
    mood: Literal["fine", "broken", "picky"] = "fine"
    """Picky ones never take an odd number."""
    size: int = 0
    """Of the lists that it makes; 0: now three, now five."""

    @property
    def retries(self) -> int:
        """How many retries it is allowed."""
        return self.fails if self.mood == "fine" else 1

    def attempts(self, given: Any) -> int:
        """How many attempts it takes to get to its end, good or bad."""
        return 1 + (self.fails if self.answers(given) else self.retries)

    def answers(self, given: Any) -> bool:
        """Whether it ends well."""
        return self.mood == "fine" or (self.mood == "picky" and number(given) % 2 == 0)

    def answer(self, given: Any, attempt: int, by: str) -> Any:
        """What this attempt returns or raises; `by` marks the execution."""
        if not self.answers(given):
            raise Broken(f"{self.name} is broken")
        if attempt <= self.fails:
            raise Wobble(f"{self.name} wobbles")
        n = (31 * number(given) + zlib.crc32(self.name.encode())) % PRIME
        value = {"n": n, "by": by}
        match self.act:
            case "mark":
                return value
            case "list":
                size = self.size or 3 + n % 3
                return [{"n": (n + place) % PRIME, "by": by} for place in range(size)]
            case "parity":
                return "odd" if n % 2 else "even"
            case "turn":
                return LoopResult.done(value) if n % 4 == 0 else LoopResult.again(value)

    def task(self) -> Callable[[Any], Any]:
        """The function that a flow gets."""
        mark = task(
            name=self.name,
            retries=RetryPolicy(max_retries=self.retries, initial_delay_secs=RETRY_WAIT_S),
            run_in=None if self.calling == "async" else self.calling,
        )
        if self.calling == "async":

            async def run_async(given: Any) -> Any:
                entry = Entry(given)
                try:
                    await asyncio.sleep(entry.lasts)
                except asyncio.CancelledError:
                    entry.note("cut")
                    raise
                return entry.close(self)

            return mark(run_async)

        def run(given: Any) -> Any:
            entry = Entry(given)
            if self.calling == "thread":
                time.sleep(entry.lasts)
            return entry.close(self)

        return mark(run)


class Entry:
    """One execution, from its start on; made by the body itself, as the first thing it does."""

    __slots__ = ("_attempt", "_given", "_keys", "_ledger", "_mark", "lasts")

    def __init__(self, given: Any) -> None:
        stage, step = _stage, current.get()
        # A body outside of a worker program would leave no trace.
        assert stage is not None
        assert isinstance(step, Step)
        self._ledger = stage.ledger
        self._given = given
        self._mark = f"{stage.ledger.who}.{next(stage.marks)}"
        fence = step.run.fence
        self._attempt = step.attempt
        self._keys: dict[str, Any] = {
            "instance": step.instance_id,
            "path": step.path,
            "attempt": step.attempt,
            "fence": fence,
        }
        # The pace is kept whatever ran before, so that a seed gives the same bodies again.
        place = f"{stage.seed}/{step.instance_id}/{step.path}/{step.attempt}/{fence}"
        self.lasts = Random(place).uniform(0, 2 * stage.pace)
        self.note("start", digest=digest(given))

    def note(self, kind: str, **fields: Any) -> None:
        """Take something down about this execution."""
        self._ledger.note(kind, **self._keys, **fields)

    def close(self, body: Body) -> Any:
        """Come to the end of the body."""
        try:
            answer = body.answer(self._given, self._attempt, self._mark)
        except Exception as error:
            self.note("raised", detail=type(error).__name__)
            raise
        return self.leave(answer)

    def leave(self, answer: Any) -> Any:
        """The body ends with this answer."""
        self.note("end", digest=digest(answer))
        return answer
