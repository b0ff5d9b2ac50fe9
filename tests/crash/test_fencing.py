"""Workers that stand still for three leases and go on as if nothing had happened.

While one is stopped others take its instances over; when it goes on it knows nothing of that, ends
its bodies and wants to record them. All of it must be refused. Two of the workers have one name, so
that a name alone is never taken for a lease.
"""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from sayiir import connect

from .checker import Tally
from .feeder import errands_of
from .figures import keep
from .fleet import Fleet
from .ground import Eye, Ground
from .storm import DRAIN_S, Feeding

NAMES = ("one", "twin", "twin", "two")
TTL_S = 1.0
PACE_S = 0.35
"""Bodies are long, so that an instance is still in other hands when the stopped one goes on."""
AT_ONCE = 2
"""So many stand still at one time; as many go on working."""


async def freeze(ground: Ground, stops: int, instances: int, seconds: float = 1e9) -> Tally:
    """Stop random workers, two at a time, so often in all; check."""
    rng = Random(ground.seed)
    errands = errands_of(rng, instances)
    begin, ordered, rounds = time.monotonic(), 0, stops // AT_ONCE
    async with Fleet(ground.settings(pace=PACE_S, lease_ttl=TTL_S)) as fleet:
        workers = await fleet.start_ready(*NAMES)
        backend = connect(ground.url)
        eye = Eye(backend)
        feeding = Feeding(fleet, eye)
        for number in range(rounds):
            if time.monotonic() - begin > seconds:
                break
            due = instances * (number + 1) // rounds
            feeding.order(errands[ordered:due])
            ordered = due
            for worker in rng.sample(workers, AT_ONCE):
                # The moments are random; nothing is waited for.
                await asyncio.sleep(rng.uniform(0.0, 0.4))
                fleet.stop(worker)
            await asyncio.sleep(3 * TTL_S)
            fleet.cont()
        await feeding.all_done()
        await eye.all_ended(DRAIN_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        await backend.close()
        assert fleet.complaints() == []
    return tally


@pytest.mark.timeout(180)
async def test_nothing_that_was_taken_over_is_recorded_late(swift_ground: Ground) -> None:
    begin = time.monotonic()
    tally = await freeze(swift_ground, stops=20, instances=40)
    took = {"seconds": time.monotonic() - begin}
    keep("fencing", swift_ground.url, swift_ground.seed, tally.figures() | took)
    assert tally.stops == 20
    # The checker saw to it that none of these was recorded.
    assert tally.contested > 0, "no late result was put to the proof"


@pytest.mark.soak
async def test_two_hundred_stops(swift_ground: Ground, soak_seconds: float) -> None:
    begin = time.monotonic()
    tally = await freeze(swift_ground, stops=200, instances=400, seconds=soak_seconds)
    took = {"seconds": time.monotonic() - begin}
    keep("fencing-long", swift_ground.url, swift_ground.seed, tally.figures() | took)
    assert tally.contested > 0, "no late result was put to the proof"
