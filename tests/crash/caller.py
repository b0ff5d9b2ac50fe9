"""The caller program: a client that asks one thing after the other while others have their burst.

`python -m tests.crash.caller SETTINGS`. It asks until it has nothing more to read, then waits for
the instances it submitted itself, and takes down how long each kind of call took (`asked`), in
milliseconds. Being a process of its own it is slowed by the store alone, not by anybody's loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from statistics import median

from sayiir import WorkflowClient, connect

from .burst import BURST, outcome
from .ledger import Ledger
from .program import Settings, say


class Caller:
    """Asks through one client; `took` has the seconds that each call took, by its name."""

    def __init__(self, client: WorkflowClient) -> None:
        self._client = client
        self.took: dict[str, list[float]] = {}

    async def ask(self, over: asyncio.Future[str]) -> None:
        """Go on asking until it is over, and then wait for what was submitted here."""
        client = self._client
        names: list[str] = []
        while not over.done():
            names.append(name := f"aside-{len(names)}")
            await self._time("submit", client.submit(BURST, name, 1))
            await self._time("status", client.status(name))
            # To one that is never submitted, so that it cannot have ended.
            await self._time("send_event", client.send_event(f"{name}-later", "hello", 1))
            await self._time("list", client.list_instances(limit=100))
            await self._time("history", client.history(name))
        for name in names:
            assert await client.result(name, timeout="10m") == outcome(1)

    async def _time(self, call: str, answer: Awaitable[object]) -> None:
        begin = time.monotonic()
        await answer
        self.took.setdefault(call, []).append(time.monotonic() - begin)

    def figures(self) -> dict[str, float]:
        """The usual and the longest time of each call, in milliseconds."""
        usual = {f"{call}_median_ms": 1000 * median(took) for call, took in self.took.items()}
        most = {f"{call}_most_ms": 1000 * max(took) for call, took in self.took.items()}
        return usual | most


async def main(settings: Settings) -> None:
    """Ask until there is nothing more to read."""
    ledger = Ledger(Path(settings.folder), settings.who)
    backend = connect(settings.url)
    caller = Caller(WorkflowClient(backend))
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    say("ready")
    await caller.ask(over)
    ledger.note("asked", detail=caller.figures())
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
