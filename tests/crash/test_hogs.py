"""Bodies that take five leases: each starts once, whatever it keeps from its own process.

Three workers have nothing to do; two bodies begin, and somebody who could take them over is always
looking for work. Leases are renewed without the interpreter, so nobody ever may.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from random import Random

import pytest

from sayiir import WorkflowClient, connect

from .figures import keep
from .fleet import Fleet
from .ground import Ground
from .hogs import HOGS
from .ledger import read

TTL_S = 1.2
HELD_S = 5 * TTL_S
AT_ONCE = 2


async def hog(ground: Ground, rounds: int, seconds: float = 1e9) -> dict[str, float]:
    """Let every hog have its way, two at a time, so often; what was counted.

    Raises:
        AssertionError: A body began twice, or was taken over, or took less than five leases.
    """
    rng = Random(ground.seed)
    begin = time.monotonic()
    settings = ground.settings(repertoire="hogs", lease_ttl=TTL_S, poll_interval=0.05)
    submitted: list[str] = []
    async with Fleet(settings) as fleet:
        await fleet.start_ready("one", "two", "three")
        async with WorkflowClient(connect(ground.url)) as client:
            for round_ in range(rounds):
                kinds = list(HOGS)
                rng.shuffle(kinds)
                for place in range(0, len(kinds), AT_ONCE):
                    pair = kinds[place : place + AT_ONCE]
                    if time.monotonic() - begin > seconds:
                        break
                    names = [f"{kind}-{round_}" for kind in pair]
                    given = {"seconds": HELD_S}
                    handles = [
                        await client.submit(HOGS[kind], name, given)
                        for kind, name in zip(pair, names, strict=True)
                    ]
                    await asyncio.gather(*(handle.result(timeout="2m") for handle in handles))
                    submitted += names
            for name in submitted:
                [step] = await client.history(name)
                assert (step.outcome, step.attempt) == ("completed", 1), name
            await client.backend.close()
        await fleet.retire()
        assert fleet.complaints() == []
    records = read(ground.folder)
    starts = Counter(record.instance for record in records if record.kind == "start")
    assert starts == dict.fromkeys(submitted, 1)
    began = {record.instance: record for record in records if record.kind == "start"}
    ended = {record.instance: record for record in records if record.kind == "end"}
    lasted = {name: ended[name].at - began[name].at for name in submitted}
    assert min(lasted.values()) >= HELD_S
    return {"bodies": len(submitted), "starts": starts.total(), "longest_s": max(lasted.values())}


@pytest.mark.timeout(180)
async def test_ten_hogs_start_once(swift_ground: Ground) -> None:
    figures = await hog(swift_ground, rounds=1)
    keep("hogs", swift_ground.url, swift_ground.seed, figures)
    assert figures["bodies"] == 10


@pytest.mark.soak
async def test_fifty_hogs_start_once(swift_ground: Ground, soak_seconds: float) -> None:
    figures = await hog(swift_ground, 5, soak_seconds)
    keep("hogs-long", swift_ground.url, swift_ground.seed, figures)
