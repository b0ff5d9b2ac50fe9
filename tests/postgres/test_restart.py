"""The server goes away under load and comes back: workers carry on by themselves.

It is shut down in order, at once, and killed; connections are cut, stalled and refused; answers to
commits are lost. Nothing that was acknowledged is lost, no body runs twice, and no process ends or
tells of an error that nobody caught.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from random import Random

import pytest
from tests.crash.figures import keep
from tests.postgres.night import Blow, GroundAt, Hours, Morning, night
from tests.postgres.proxy import Bandit, Proxy
from tests.postgres.server import LocalServer, Mode

MODES: tuple[Mode, ...] = ("fast", "immediate", "kill")
LEASE_S = 3.0
BANDIT_SHARE = 0.03
"""Of the commits that are lost, on their way or on the way back."""


def restart(server: LocalServer, mode: Mode) -> Blow:
    """It is ended in this way, and starts again at once."""

    async def fall() -> None:
        await asyncio.to_thread(server.restart, mode)

    return fall


def outage(server: LocalServer, mode: Mode, seconds: float) -> Blow:
    """It is away for so long."""

    async def fall() -> None:
        await asyncio.to_thread(server.stop, mode)
        # The outage itself.
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)

    return fall


def cut(proxy: Proxy, rng: Random) -> Blow:
    """Half of the connections are cut, in the middle of whatever they say."""

    async def fall() -> None:
        proxy.cut(rng, 0.5)

    return fall


def stall(proxy: Proxy, seconds: float) -> Blow:
    """Nothing passes for so long."""

    async def fall() -> None:
        with proxy.stalled():
            await asyncio.sleep(seconds)

    return fall


def refuse(proxy: Proxy, seconds: float) -> Blow:
    """Connections are cut, and new ones refused for so long."""

    async def fall() -> None:
        with proxy.closed():
            await asyncio.sleep(seconds)

    return fall


def rob(proxy: Proxy, bandit: Bandit) -> Blow:
    """From now on commits are lost."""

    async def fall() -> None:
        proxy.judge = bandit

    return fall


def figures(morning: Morning, begin: float) -> dict[str, object]:
    """What is kept of a night."""
    took = {"blows": morning.blows, "seconds": time.monotonic() - begin}
    return morning.tally.figures() | took


@pytest.mark.timeout(240)
async def test_three_restarts_under_load(own_server: LocalServer, ground_at: GroundAt) -> None:
    begin = time.monotonic()
    ground = ground_at(own_server.fresh_database())
    blows = [restart(own_server, mode) for mode in MODES]
    morning = await night(ground, blows, len(blows), Hours())
    keep("restarts", ground.url, ground.seed, figures(morning, begin))
    assert morning.blows == 3
    assert morning.tally.repeated == 0


@pytest.mark.timeout(240)
async def test_an_outage_longer_than_the_leases(
    own_server: LocalServer, ground_at: GroundAt
) -> None:
    begin = time.monotonic()
    ground = ground_at(own_server.fresh_database())
    blows = [outage(own_server, mode, 1.5 * LEASE_S) for mode in ("fast", "kill")]
    morning = await night(ground, blows, len(blows), Hours(instances=30, lease_ttl=LEASE_S))
    keep("outages", ground.url, ground.seed, figures(morning, begin))
    assert morning.blows == 2


@pytest.mark.timeout(240)
async def test_a_bad_line_under_load(own_server: LocalServer, ground_at: GroundAt) -> None:
    begin = time.monotonic()
    with Proxy(own_server.fresh_database()) as proxy:
        ground = ground_at(proxy.url)
        rng = Random(ground.seed)
        bandit = Bandit(ground.seed, BANDIT_SHARE)
        blows = [
            *[cut(proxy, rng)] * 4,
            stall(proxy, LEASE_S / 3),
            refuse(proxy, LEASE_S / 3),
        ]
        rng.shuffle(blows)
        blows.insert(0, rob(proxy, bandit))
        morning = await night(ground, blows, len(blows), Hours(lease_ttl=LEASE_S))
    lost = {f"lost_{part}": count for part, count in bandit.lost.items()}
    keep("bad-line", ground.url, ground.seed, figures(morning, begin) | lost)
    assert bandit.lost["request"] > 0
    assert bandit.lost["reply"] > 0
    assert morning.blows == len(blows)
    assert morning.tally.repeated == 0


@pytest.mark.soak
async def test_a_long_night(
    own_server: LocalServer, ground_at: GroundAt, soak_seconds: float
) -> None:
    begin = time.monotonic()
    with Proxy(own_server.fresh_database()) as proxy:
        ground = ground_at(proxy.url)
        rng = Random(ground.seed)

        def blows() -> Iterator[Blow]:
            yield rob(proxy, Bandit(ground.seed, BANDIT_SHARE))
            while True:
                yield rng.choice(
                    [
                        *(restart(own_server, mode) for mode in MODES),
                        outage(own_server, rng.choice(MODES), rng.uniform(0.5, 2 * LEASE_S)),
                        cut(proxy, rng),
                        stall(proxy, rng.uniform(0.1, LEASE_S / 3)),
                        refuse(proxy, rng.uniform(0.1, LEASE_S / 3)),
                    ]
                )

        most = 2_000
        hours = Hours(instances=most * 5, lease_ttl=LEASE_S, seconds=soak_seconds)
        morning = await night(ground, itertools.islice(blows(), most), most, hours)
    keep("long-night", ground.url, ground.seed, figures(morning, begin))
    assert morning.blows > 0
