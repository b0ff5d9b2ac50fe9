"""The night: two workers at work, a client that feeds them, and blows to the database in between.

A blow is anything that befalls the server or the way to it: a restart, a cut, a stall. Workers and
client are processes of `tests.crash`, plain users of the package, and nothing befalls *them*: so
the checker excuses no repeated body. The first blow falls when all are at work, since a process
that was never connected may give up; after the last one instances are fed until every worker has
begun something since, which shows that all of them carried on by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.crash.checker import Tally
from tests.crash.feeder import Errand, errands_of
from tests.crash.fleet import Fleet
from tests.crash.ground import Eye, Ground
from tests.crash.ledger import read
from tests.crash.storm import DRAIN_S, PACE_S, Feeding

from sayiir import connect

Blow = Callable[[], Awaitable[None]]
GroundAt = Callable[[str], Ground]
"""What processes stand on when their store is at a URL; a fixture."""


@dataclass(frozen=True, slots=True)
class Hours:
    """How many of everything; times in seconds."""

    workers: int = 2
    instances: int = 40
    """That are fed before the last blow."""
    calm: tuple[float, float] = (0.5, 1.5)
    """From one blow to the next."""
    lease_ttl: float = 3.0
    poll_interval: float = 0.2
    seconds: float = float("inf")
    """No more blows after so long."""


@dataclass(frozen=True, slots=True)
class Morning:
    """What the night came to."""

    blows: int
    tally: Tally


async def night(ground: Ground, blows: Iterable[Blow], count: int, hours: Hours) -> Morning:
    """Let it pass, and check.

    Args:
        ground: Its URL is the workers' and the client's.
        blows: They fall in this order, at random moments.
        count: How many there are, at most.
        hours: How long, and how much work.

    Raises:
        BreachError: A promise was broken.
    """
    rng = Random(ground.seed)
    errands = endless(rng, hours.instances)
    begin, struck, fed = time.monotonic(), 0, 0
    settings = ground.settings(
        pace=PACE_S, lease_ttl=hours.lease_ttl, poll_interval=hours.poll_interval
    )
    async with Fleet(settings) as fleet:
        await fleet.start_ready(*(f"worker-{number}" for number in range(hours.workers)))
        backend = connect(ground.url)
        eye = Eye(backend)
        feeding = Feeding(fleet, eye)
        await _feed_all(fleet, feeding, eye, errands, ground.folder)
        for blow in blows:
            if time.monotonic() - begin > hours.seconds:
                break
            due = hours.instances * (struck + 1) // count
            feeding.order(next(errands) for _ in range(due - fed))
            fed = due
            # Nothing is waited for here: the moment of the blow is random.
            await asyncio.sleep(rng.uniform(*hours.calm))
            await blow()
            struck += 1
        await _feed_all(fleet, feeding, eye, errands, ground.folder)
        await feeding.all_done()
        await eye.all_ended(DRAIN_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        await backend.close()
        told = fleet.complaints()
        assert not told, "\n".join(told)
    return Morning(struck, tally)


async def _feed_all(
    fleet: Fleet, feeding: Feeding, eye: Eye, errands: Iterator[Errand], folder: Path
) -> None:
    """Feed a little at a time until every worker has begun a body since this was called.

    Raises:
        AssertionError: One of them did not, or the client hangs.
    """
    since = time.monotonic()
    workers = {program.who for program in fleet.programs if "worker" in program.who}
    await eye.client.list_instances(limit=1)
    while True:
        records = [record for record in read(folder) if record.at > since]
        active = {record.who for record in records if record.kind == "start"}
        if workers <= active:
            return
        fed = sum(record.kind == "ack" for record in records)
        assert time.monotonic() - since < DRAIN_S, (
            f"{sorted(workers - active)} did not carry on by themselves; the client got {fed}"
            f" submits done meanwhile, {eye.waiting} instances have not ended"
        )
        feeding.order(next(errands) for _ in range(2))
        await asyncio.sleep(0.2)


def endless(rng: Random, size: int) -> Iterator[Errand]:
    """Errands without end, each with an id of its own."""
    generation = 0
    while True:
        for errand in errands_of(rng, size):
            yield Errand(
                f"{errand.instance}-{generation}",
                errand.shape,
                errand.given,
                errand.events,
                errand.early,
            )
        generation += 1
