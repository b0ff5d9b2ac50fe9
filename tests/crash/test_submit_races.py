"""Eight processes submit one id at the same time, under each policy: exactly one creates it.

They are let go together, one line to each, and nobody is let go again before all have answered.
No error of the database ever reaches any of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from random import Random

import pytest

from sayiir import Worker, WorkflowClient, connect
from sayiir._codec import decode_payload

from .figures import keep
from .fleet import Fleet
from .ground import Ground
from .ledger import read
from .racer import RACE

RACERS = 8
EXPECTED = {
    "fail": {"created": 1, "refused": RACERS - 1},
    "use_existing": {"created": 1, "found": RACERS - 1},
    "terminate_existing": {"created": RACERS},
}


async def race(ground: Ground, ids: int, seconds: float = 1e9) -> dict[str, float]:
    """Race for so many ids; how many there were, and how long a race took on average.

    Raises:
        AssertionError: A race had more than one winner, or none, or another outcome.
    """
    rng = Random(ground.seed)
    begin = time.monotonic()
    policies: dict[str, str] = {}
    async with Fleet(ground.settings()) as fleet:
        racers = [await fleet.start("racer") for _ in range(RACERS)]
        for racer in racers:
            await racer.ready()
        for number in range(ids):
            if time.monotonic() - begin > seconds:
                break
            policy = rng.choice(list(EXPECTED))
            policies[f"race-{number}"] = policy
            rng.shuffle(racers)
            await asyncio.gather(*(racer.tell(f"race-{number} {policy}") for racer in racers))
            for racer in racers:
                await racer.until("done")
        raced = time.monotonic() - begin
        for racer in racers:
            assert await racer.finish() == 0, racer.complaint()
        names = {racer.who for racer in racers}
    _judge_outcomes(ground, policies)
    await _judge_store(ground, policies, names)
    return {"ids": len(policies), "race_ms": 1000 * raced / len(policies)}


def _judge_outcomes(ground: Ground, policies: dict[str, str]) -> None:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for record in read(ground.folder):
        outcomes[record.instance][record.detail] += 1
    wrong = {
        name: (policy, dict(outcomes[name]))
        for name, policy in policies.items()
        if outcomes[name] != EXPECTED[policy]
    }
    assert wrong == {}


async def _judge_store(ground: Ground, policies: dict[str, str], racers: set[str]) -> None:
    """Each id is there once, with the input of one who said that it created it, and can run."""
    created = {
        (record.instance, record.who)
        for record in read(ground.folder)
        if record.detail == "created"
    }
    backend = connect(ground.url)
    client = WorkflowClient(backend)
    found: list[str] = []
    cursor = None
    while True:
        page = await client.list_instances(limit=1000, cursor=cursor)
        found += [row.instance_id for row in page]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(found) == sorted(policies)
    inputs = {name: decode_payload(await backend.input(name)) for name in policies}
    assert set(inputs.items()) <= created
    async with Worker(backend, RACE, concurrency=32):
        outputs = {name: await client.result(name, timeout="1m") for name in policies}
    assert outputs == inputs
    await client.close()
    await backend.close()


@pytest.mark.timeout(180)
async def test_one_of_eight_creates(ground: Ground) -> None:
    figures = await race(ground, ids=500)
    keep("submit-races", ground.url, ground.seed, figures)


@pytest.mark.soak
async def test_ten_thousand_races(ground: Ground, soak_seconds: float) -> None:
    figures = await race(ground, ids=10_000, seconds=soak_seconds)
    keep("submit-races-long", ground.url, ground.seed, figures)
