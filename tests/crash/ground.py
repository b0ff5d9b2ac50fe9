"""What a crash test stands on: the store's URL, the ledgers' folder, the seed; and the eye on it.

The eye waits for instances to end, and photographs each of them when it has and once more when all
is over, for the checker to compare.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sayiir import InstanceNotFoundError, WorkflowClient, WorkflowFailed
from sayiir.backends import Backend

from .checker import Checker, Tally
from .ledger import read
from .program import Settings
from .replay import Photograph
from .shapes import SHAPES


@dataclass(frozen=True, slots=True)
class Ground:
    """See the module's opening."""

    url: str
    folder: Path
    seed: int

    def settings(self, **given: Any) -> Settings:
        """Settings for programs of this test."""
        return Settings(url=self.url, folder=str(self.folder), seed=self.seed, **given)


class Eye:
    """Watches instances through a client of its own."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.client = WorkflowClient(backend)
        self._first: dict[str, Photograph] = {}
        self._watched: dict[str, asyncio.Task[None]] = {}

    def watch(self, instance: str) -> None:
        """From now on; the instance is there."""
        if instance not in self._watched:
            self._watched[instance] = asyncio.create_task(self._watch(instance))

    async def _watch(self, instance: str) -> None:
        # Some are meant to fail; the checker knows which, and sees who is missing.
        with contextlib.suppress(WorkflowFailed, InstanceNotFoundError):
            await self.client.result(instance)
        with contextlib.suppress(InstanceNotFoundError):
            self._first[instance] = await self.photograph(instance)

    async def photograph(self, instance: str) -> Photograph:
        """What the store says of it now."""
        return Photograph(
            await self.backend.get(instance), tuple(await self.backend.history(instance))
        )

    @property
    def ended(self) -> int:
        """How many of the watched have ended."""
        return len(self._first)

    @property
    def waiting(self) -> int:
        """How many of the watched have not ended."""
        return len(self._watched) - len(self._first)

    async def some_ended(self, count: int, seconds: float) -> None:
        """Wait until so many of the watched have ended.

        Raises:
            TimeoutError: They had not by then.
            Exception: Whatever a call of the client raised.
        """
        async with asyncio.timeout(seconds):
            for place, ended in enumerate(asyncio.as_completed(self._watched.values()), 1):
                await ended
                if place == count:
                    return

    async def all_ended(self, seconds: float) -> None:
        """Wait until all that are watched have ended, or give up; the checker sees which did not.

        Raises:
            Exception: Whatever a call of the client raised.
        """
        tasks = list(self._watched.values())
        if not tasks:
            return
        done, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    async def check(self, folder: Path, instances: Iterable[str] | None = None) -> Tally:
        """Photograph everything once more, and prove all clauses.

        Raises:
            BreachError: Some do not hold.
        """
        names = list(self._watched) if instances is None else list(instances)
        last = {}
        for name in names:
            with contextlib.suppress(InstanceNotFoundError):
                last[name] = await self.photograph(name)
        # Items of spread maps are instances too, which nobody submitted.
        cursor: str | None = None
        while True:
            page = await self.backend.find(limit=500, cursor=cursor)
            items = [row.instance_id for row in page.rows if "~" in row.instance_id]
            last |= {name: await self.photograph(name) for name in items}
            cursor = page.cursor
            if cursor is None:
                break
        return Checker(read(folder), SHAPES, self._first, last).prove()
