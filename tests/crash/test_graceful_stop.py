"""SIGTERM and SIGINT under load: what runs may end, all is given back, and nothing runs twice.

Whoever is told to stop ends the bodies it has, records them, gives its instances back and exits
with 0. A second signal does not wait for the bodies: they are cut, and run again elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from random import Random

import pytest

from sayiir import WorkflowClient, connect

from .feeder import errands_of
from .figures import keep
from .fleet import Fleet
from .ground import Eye, Ground
from .hogs import HOGS
from .ledger import Record, read
from .storm import DRAIN_S, Feeding

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def stop_and_go(
    ground: Ground, stops: int, instances: int, seconds: float = 1e9
) -> dict[str, float]:
    """Stop one of two workers under load, so often; what was counted.

    Raises:
        AssertionError: A body ran twice, a lease was left over, or a worker did not end well.
    """
    rng = Random(ground.seed)
    errands = errands_of(rng, instances)
    begin, ordered, slowest, stopped = time.monotonic(), 0, 0.0, 0
    async with Fleet(ground.settings(pace=0.1, lease_ttl=30.0)) as fleet:
        workers = await fleet.start_ready("worker-a", "worker-b")
        backend = connect(ground.url)
        eye = Eye(backend)
        feeding = Feeding(fleet, eye)
        for number in range(stops):
            if time.monotonic() - begin > seconds:
                break
            due = instances * (number + 1) // stops
            feeding.order(errands[ordered:due])
            ordered = due
            # The moment is random; nothing is waited for.
            await asyncio.sleep(rng.uniform(0.2, 0.8))
            victim = workers.pop(0)
            await victim.ready()
            asked = time.monotonic()
            fleet.ask_to_stop(victim, SIGNALS[number % 2])
            # It says so when it has stopped taking more, and ends when it has given all back.
            await victim.until("stopping")
            assert await victim.ended() == 0, victim.complaint()
            slowest, stopped = max(slowest, time.monotonic() - asked), stopped + 1
            held = {
                row.instance_id
                for row in await eye.client.list_instances(limit=1000)
                if row.worker_id == victim.settings.name
            }
            assert held == set()
            workers.append(await fleet.start("worker", f"worker-{number}"))
        await feeding.all_done()
        await eye.all_ended(DRAIN_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        await backend.close()
        assert fleet.complaints() == []
    in_grace = _ended_in_grace(read(ground.folder))
    assert in_grace > 0, "no body was running when its worker was told to stop"
    # The leases outlive the test: what was not given back could not have ended.
    assert tally.repeated == 0
    return {
        **tally.figures(),
        "graceful_stops": stopped,
        "ended_in_grace": in_grace,
        "slowest_stop_s": slowest,
    }


def _ended_in_grace(records: list[Record]) -> int:
    """How many bodies ended after their worker was told to stop."""
    asked = {record.detail: record.at for record in records if record.kind == "asked_to_stop"}
    ends = (record for record in records if record.kind in ("end", "raised"))
    return sum(record.at > asked[record.who] for record in ends if record.who in asked)


@pytest.mark.timeout(180)
async def test_ten_stops_under_load_repeat_nothing(ground: Ground) -> None:
    figures = await stop_and_go(ground, stops=10, instances=60)
    keep("graceful-stop", ground.url, ground.seed, figures)
    assert (figures["graceful_stops"], figures["instances"]) == (10, 60)


@pytest.mark.soak
async def test_two_hundred_stops_repeat_nothing(ground: Ground, soak_seconds: float) -> None:
    figures = await stop_and_go(ground, 200, 1_200, soak_seconds)
    keep("graceful-stop-long", ground.url, ground.seed, figures)


async def starts(ground: Ground, count: int) -> None:
    """Wait until the ledgers tell of so many starts."""
    while Counter(record.kind for record in read(ground.folder))["start"] < count:  # noqa: ASYNC110
        # Files have no event to wait for; the test's own timeout ends this.
        await asyncio.sleep(0.01)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["sleep-async", "sleep-thread"])
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_second_signal_stops_at_once(
    ground: Ground, kind: str, number: signal.Signals
) -> None:
    settings = ground.settings(repertoire="hogs", lease_ttl=60.0)
    async with Fleet(settings) as fleet:
        [first] = await fleet.start_ready("first")
        async with WorkflowClient(connect(ground.url)) as client:
            # Far longer than the test may take: only being cut can end it.
            await client.submit(HOGS[kind], "held", {"seconds": 600.0})
            await starts(ground, 1)
            first.send(number)
            await first.until("stopping")
            first.send(number)
            assert await first.ended() == 0, first.complaint()
            assert "second signal" in first.complaint()
            [row] = await client.list_instances()
            assert (row.status, row.worker_id) == ("in_progress", None)
            assert await client.history("held") == []
            # Its lease would have run for a minute; given back, it begins again at once.
            await fleet.start_ready("second")
            await starts(ground, 2)
            await client.backend.close()
        assert fleet.complaints() == []
