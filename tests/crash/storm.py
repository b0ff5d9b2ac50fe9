"""The storm: instances of every shape go through workers that are killed again and again.

A feeder submits, workers work, and at random moments one process of them all gets a SIGKILL and is
replaced at once. It is fed in step with the kills, so that there is work in flight at each of them.
When all that was begun has ended, the checker has the word.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from sayiir import connect

from .checker import Tally
from .feeder import Errand, errands_of
from .fleet import Fleet, Gone, Program
from .ground import Eye, Ground

PACE_S = 0.08
"""Seconds that a body takes on average."""
DRAIN_S = 60.0
"""Seconds that what is in flight may take after the last kill."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How many of everything, and the seconds between two kills."""

    workers: int = 4
    kills: int = 40
    instances: int = 100
    calm: tuple[float, float] = (0.3, 1.3)
    lease_ttl: float = 3.0
    """Seconds; far longer than any disk keeps a renewal waiting."""
    feeder_share: float = 0.15
    """The part of the kills that hits the client."""
    concurrency: int = 4
    """Instances that a worker advances at once; the fewer, the longer all of them are busy."""
    seconds: float = float("inf")
    """No more kills after so long."""


class Feeding:
    """A feeder program and its errands; whoever is killed over one leaves it to the next."""

    def __init__(self, fleet: Fleet, eye: Eye) -> None:
        self._fleet = fleet
        self._eye = eye
        self._program: Program | None = None
        self._errands: asyncio.Queue[Errand] = asyncio.Queue()
        self._task = asyncio.create_task(self._feed())

    def order(self, errands: Iterable[Errand]) -> None:
        """More to do."""
        for errand in errands:
            self._errands.put_nowait(errand)

    async def _feed(self) -> None:
        while True:
            errand = await self._errands.get()
            while not await self._done(errand):
                # Its process is dead: the next one does it again.
                self._program = None
            self._eye.watch(errand.instance)
            self._errands.task_done()

    async def _done(self, errand: Errand) -> bool:
        if self._program is None:
            self._program = await self._fleet.start("feeder")
        program = self._program
        try:
            await program.tell(errand.to_json())
            await program.until("done")
        except Gone:
            if not self._fleet.was_killed(program):
                raise
            return False
        return True

    async def kill(self) -> None:
        """SIGKILL to the feeder, whatever it is doing."""
        if self._program is not None:
            await self._fleet.kill(self._program)

    async def all_done(self) -> None:
        """Wait until nothing is left to do, and end."""
        joined = asyncio.create_task(self._errands.join())
        await asyncio.wait({joined, self._task}, return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._program is not None:
            # It ends when there is nothing more to read.
            code = await self._program.finish()
            assert code == 0 or self._fleet.was_killed(self._program), self._program.complaint()


async def storm(ground: Ground, weather: Weather) -> Tally:
    """Let it rage, and check.

    Raises:
        BreachError: A promise was broken.
    """
    rng = Random(ground.seed)
    errands = errands_of(rng, weather.instances)
    begin, ordered = time.monotonic(), 0
    settings = ground.settings(
        pace=PACE_S, concurrency=weather.concurrency, lease_ttl=weather.lease_ttl
    )
    async with Fleet(settings) as fleet:
        workers = await fleet.start_ready(*["worker"] * weather.workers)
        backend = connect(ground.url)
        eye = Eye(backend)
        feeding = Feeding(fleet, eye)
        for kill in range(weather.kills):
            if time.monotonic() - begin > weather.seconds:
                break
            due = weather.instances * (kill + 1) // weather.kills
            feeding.order(errands[ordered:due])
            ordered = due
            # Nothing is waited for here: the moment of the kill is random.
            await asyncio.sleep(rng.uniform(*weather.calm))
            if rng.random() < weather.feeder_share:
                await feeding.kill()
                continue
            place = rng.randrange(len(workers))
            await fleet.kill(workers[place])
            workers[place] = await fleet.start()
        await feeding.all_done()
        await eye.all_ended(DRAIN_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        await backend.close()
        assert fleet.complaints() == []
    return tally
