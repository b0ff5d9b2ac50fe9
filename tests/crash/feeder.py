"""The feeder program: a client that submits and sends events, one errand for each line it reads.

`python -m tests.crash.feeder SETTINGS`. It takes down each call before and after it is made and
answers `done`, so that whoever reads the ledger knows what was acknowledged when it is killed in
between. An errand may come again after that: it is done under the same ids and keys.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from sayiir import InvalidStateError, WorkflowClient

from .ledger import Ledger
from .program import Settings, say
from .shapes import SHAPES


@dataclass(frozen=True, slots=True)
class Errand:
    """One instance to be submitted, and its events in the order of their sending."""

    instance: str
    shape: str
    given: Any
    events: tuple[str, ...]
    early: int
    """So many of the events are sent before the instance is submitted."""

    def to_json(self) -> str:
        """As the program takes it."""
        return json.dumps(asdict(self))


def errands_of(rng: Random, count: int) -> list[Errand]:
    """So many errands, every shape as often as any other."""
    errands = []
    for number in range(count):
        name = list(SHAPES)[number % len(SHAPES)]
        events = SHAPES[name].events
        if events:
            # One more than anybody waits for, and one sent twice under one key.
            events = (*events, rng.choice(events))
        errands.append(
            Errand(
                f"{name}-{number}",
                name,
                {"n": rng.randrange(10**6), "by": "client"},
                events,
                rng.randint(0, len(events)),
            )
        )
    rng.shuffle(errands)
    return errands


class Errands:
    """Does errands through one client."""

    def __init__(self, client: WorkflowClient, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger

    async def do(self, errand: Errand) -> None:
        """Submit the instance, and send its events before and after."""
        for place, name in enumerate(errand.events[: errand.early]):
            await self._send(errand.instance, name, place)
        detail = {"shape": errand.shape, "given": errand.given}
        self._ledger.note("submit", errand.instance, detail=detail)
        await self._client.submit(
            SHAPES[errand.shape].workflow,
            errand.instance,
            errand.given,
            conflict_policy="use_existing",
        )
        self._ledger.note("ack", errand.instance)
        for place, name in enumerate(errand.events[errand.early :], errand.early):
            await self._send(errand.instance, name, place)

    async def _send(self, instance: str, name: str, place: int) -> None:
        key = f"{name}.{place}"
        payload = {"n": 1000 + place, "by": f"{instance}/{key}"}
        detail = {"name": name, "key": key, "payload": payload}
        self._ledger.note("event", instance, detail=detail)
        kind = "event_ack"
        # Every other one is sent twice; its key must keep it single.
        for _ in range(1 + place % 2):
            try:
                await self._client.send_event(instance, name, payload, idempotency_key=key)
            except InvalidStateError:
                # The one that nobody waits for may find that all is over.
                kind = "event_refused"
        self._ledger.note(kind, instance, detail=detail)


async def main(settings: Settings) -> None:
    """Do one errand for each line, until there are no more lines."""
    ledger = Ledger(Path(settings.folder), settings.who)
    async with WorkflowClient.from_url(settings.url) as client:
        errands = Errands(client, ledger)
        while line := await asyncio.to_thread(sys.stdin.readline):
            fields = json.loads(line)
            fields["events"] = tuple(fields["events"])
            await errands.do(Errand(**fields))
            say("done")


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
