"""The worker program: `python -m tests.crash.worker SETTINGS`, with the settings as JSON.

It says on its standard output where it stands (`ready`, `stopping`, `over`), so that whoever
started it can wait for that; what its bodies do goes to its ledger. It is a plain use of `Worker`:
nothing between it and the backend, so that what is tested is what users run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Self

from sayiir import Worker, Workflow, connect

from .bodies import Stage, set_stage
from .burst import BURST, SHARED
from .hogs import HOGS
from .ledger import Ledger
from .program import Settings, say
from .shapes import SHAPES

REPERTOIRES: dict[str, list[Workflow[Any, Any]]] = {
    "shapes": [shape.workflow for shape in SHAPES.values()],
    "hogs": list(HOGS.values()),
    "burst": [BURST, SHARED],
}


def die_with_parent() -> None:
    """End at once when whoever started this program is gone, and so will never end it."""

    def wait() -> None:
        # Read past Python's own buffer, whose lock would be in the way of an orderly exit.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(3)

    threading.Thread(target=wait, name="parent", daemon=True).start()


class Told(Worker):
    """A worker that says where it stands."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        say("ready")
        return self

    async def aclose(self) -> None:
        """Stop, and say so first."""
        say("stopping")
        await super().aclose()


async def main(settings: Settings) -> None:
    """Work until a signal comes."""
    ledger = Ledger(Path(settings.folder), settings.who)
    ledger.note("hello", detail=settings.name)
    set_stage(Stage(ledger, settings.pace, settings.seed))
    backend = connect(settings.url)
    worker = Told(
        backend,
        REPERTOIRES[settings.repertoire],
        worker_id=settings.name,
        concurrency=settings.concurrency,
        lease_ttl=settings.lease_ttl,
        poll_interval=settings.poll_interval,
        grace=settings.grace,
    )
    await worker.run()
    await backend.close()
    say("over")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    die_with_parent()
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
