"""Two worker processes share 2,000 instances of mixed shapes, and nothing is executed twice.

Both are at work before the first instance is there. Bodies note their starts in the ledger of their
process, outside of the store; the checker holds them against what was recorded, so outputs are
judged as well. Once both live to the end; once one of them is killed when half is done, and then
only what it had under way begins a second time. Random kills in large number are in `storm`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any

import pytest

from sayiir import connect

from .checker import Tally
from .feeder import Errand, Errands, errands_of
from .figures import keep
from .fleet import Fleet
from .ground import Eye, Ground
from .ledger import Ledger, Record, read

INSTANCES = 2_000
NAMES = ("one", "two")
FAIR = 0.1
"""The share of what was begun that each worker must have begun, at least."""
CONCURRENCY = 64
"""Instances that a worker advances at once, and so the most that a kill can hit."""
PACE_S = 0.015
"""Seconds that a body takes on average, so that a kill meets some that have not ended."""
LEASE_S = 3.0
"""Where one is killed, and the other one has to wait for its end."""
LONG_LEASE_S = 30.0
"""Where none is: no disk keeps a renewal waiting for so long."""
PATIENCE_S = 60.0
SPREAD = ("spread", "lots")
"""Shapes that multiply into instances nobody submitted; they are shared in `test_spread`."""


Step = tuple[str, str, int]
"""Instance, path and attempt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one sharing came to."""

    tally: Tally
    starts: Sequence[Record]
    """The start of every body, in order of time."""
    workers: tuple[str, ...]
    kills: Sequence[float]
    """When the first of the workers was killed, if it was."""
    seconds: float

    def begun_by(self) -> Counter[str]:
        """How many bodies each process began while there were two."""
        until = min(self.kills, default=inf)
        return Counter(record.who for record in self.starts if record.at < until)

    def judge_fairness(self) -> None:
        """Both did a fair part.

        Raises:
            AssertionError: One of them idled.
        """
        begun = self.begun_by()
        assert set(begun) == set(self.workers)
        assert min(begun.values()) >= FAIR * begun.total(), begun

    def judge_repeats(self) -> None:
        """What began twice was under way in the killed one: it began there, and then elsewhere.

        Raises:
            AssertionError: A step began twice for another reason, or more often.
        """
        doomed, heir = self.workers
        begun: defaultdict[Step, list[Record]] = defaultdict(list)
        for record in self.starts:
            begun[record.instance, record.path, record.attempt].append(record)
        repeated = {step: ran for step, ran in begun.items() if len(ran) > 1}
        for step, ran in repeated.items():
            assert [record.who for record in ran] == [doomed, heir], step
            assert ran[1].at > self.kills[0], step
        assert len({instance for instance, _, _ in repeated}) <= CONCURRENCY, repeated

    def figures(self) -> dict[str, Any]:
        """All of it as plain data."""
        begun = self.begun_by()
        return {
            **self.tally.figures(),
            "seconds": self.seconds,
            "least_share": min(begun.values()) / begun.total(),
        }


async def sharing(ground: Ground, *, kill: bool) -> Outcome:
    """Let two processes share the instances, and check; one is killed if that is wanted.

    Raises:
        BreachError: A promise was broken.
    """
    settings = ground.settings(
        pace=PACE_S,
        concurrency=CONCURRENCY,
        lease_ttl=LEASE_S if kill else LONG_LEASE_S,
        poll_interval=0.5,
    )
    begin = time.monotonic()
    async with Fleet(settings) as fleet:
        workers = await fleet.start_ready(*NAMES)
        backend = connect(ground.url)
        eye = Eye(backend)
        await submit(eye, ground, mixture(Random(ground.seed)))
        if kill:
            await eye.some_ended(INSTANCES // 2, PATIENCE_S)
            await fleet.kill(workers[0])
        await eye.all_ended(PATIENCE_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        await backend.close()
        assert fleet.complaints() == []
    records = read(ground.folder)
    starts = [record for record in records if record.kind == "start"]
    kills = [record.at for record in records if record.kind == "kill"]
    names = tuple(program.who for program in workers)
    return Outcome(tally, starts, names, kills, time.monotonic() - begin)


def mixture(rng: Random) -> list[Errand]:
    """As many errands as there are to be instances, of every shape that is one instance."""
    errands = errands_of(rng, 2 * INSTANCES)
    return [errand for errand in errands if errand.shape not in SPREAD][:INSTANCES]


async def submit(eye: Eye, ground: Ground, errands: Sequence[Errand]) -> None:
    """Submit all of them at once, with their events, and watch them from then on."""
    ledger = Ledger(ground.folder, "client")
    feeder = Errands(eye.client, ledger)
    await asyncio.gather(*(feeder.do(errand) for errand in errands))
    for errand in errands:
        eye.watch(errand.instance)
    ledger.close()


@pytest.mark.timeout(120)
async def test_two_workers_share_2_000_instances(ground: Ground) -> None:
    outcome = await sharing(ground, kill=False)
    keep("sharing", ground.url, ground.seed, outcome.figures())
    assert outcome.tally.instances == INSTANCES
    begun = Counter((one.instance, one.path, one.attempt) for one in outcome.starts)
    assert [step for step, times in begun.items() if times > 1] == []
    outcome.judge_fairness()


@pytest.mark.timeout(120)
async def test_one_of_two_workers_is_killed_at_half(ground: Ground) -> None:
    outcome = await sharing(ground, kill=True)
    keep("sharing-killed", ground.url, ground.seed, outcome.figures())
    assert outcome.tally.instances == INSTANCES
    assert outcome.tally.kills_that_hit == 1, "the kill hit nothing: the test proves nothing"
    outcome.judge_repeats()
    outcome.judge_fairness()
