"""Random SIGKILL of workers and clients while instances of every kind of node run.

Nothing acknowledged is lost, nothing recorded changes, and only what was running when its process
was killed runs again. The long form kills for as long as it may.
"""

from __future__ import annotations

import time

import pytest

from .figures import keep
from .ground import Ground
from .storm import Weather, storm

REPEATED_PERCENT = 3.0
"""More repeated bodies than this would mean that a kill costs more than what was running."""


@pytest.mark.timeout(240)
async def test_four_workers_and_forty_kills(ground: Ground) -> None:
    begin = time.monotonic()
    tally = await storm(ground, Weather())
    keep("kills", ground.url, ground.seed, tally.figures() | _took(begin))
    assert tally.instances == 100
    assert tally.kills == 40
    assert tally.kills_that_hit > 0, "no kill hit anything: the test proves nothing"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ground", ["sqlite"], indirect=True)
async def test_two_workers_and_a_hundred_instances(ground: Ground) -> None:
    begin = time.monotonic()
    tally = await storm(ground, Weather(workers=2, kills=20, calm=(0.4, 1.4), concurrency=2))
    keep("kills-of-two", ground.url, ground.seed, tally.figures() | _took(begin))
    assert tally.instances == 100
    assert tally.kills_that_hit > 0, "no kill hit anything: the test proves nothing"


@pytest.mark.soak
async def test_a_thousand_kills(ground: Ground, soak_seconds: float) -> None:
    begin = time.monotonic()
    weather = Weather(kills=1_000, instances=2_000, seconds=soak_seconds)
    tally = await storm(ground, weather)
    keep("kills-long", ground.url, ground.seed, tally.figures() | _took(begin))
    assert tally.repeated_percent < REPEATED_PERCENT


def _took(begin: float) -> dict[str, float]:
    return {"seconds": time.monotonic() - begin}
