"""The wall clocks of workers and clients are off by an hour and by a day, ahead and behind.

The database's clock counts. So nothing wakes early, nothing waits for a day, no body is repeated,
no lease is lost, and the times that are stored are right. How long things took is measured on the
monotonic clock, which no wrong date touches and all processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from tests.crash.feeder import errands_of
from tests.crash.fleet import PATHS, ROOT, Fleet
from tests.crash.ground import Eye, Ground
from tests.crash.ledger import Ledger, Record, read
from tests.crash.storm import DRAIN_S, PACE_S, Feeding
from tests.postgres.night import GroundAt
from tests.postgres.server import Server, give_up
from tests.postgres.wrong_clock import build, shifted

from sayiir import connect

HOUR, DAY = 3600, 86400
SHIFTS = (-DAY, -HOUR, HOUR, DAY)
INSTANCES = 44
LEASE_S = 1.0
LATER_S = 2.0
"""One instance is submitted to be started so much later."""
SLACK_S = 0.001
"""Two right clocks may differ by this over a moment."""
AMISS_S = 600.0
"""A stored time that is off by more than this comes from a wrong clock."""


LATER = """
import asyncio, json, sys
from datetime import UTC, datetime
from sayiir import WorkflowClient
from tests.crash.shapes import SHAPES

async def main(url, moment, given):
    async with WorkflowClient.from_url(url) as client:
        at = datetime.fromtimestamp(float(moment), UTC)
        workflow = SHAPES["row"].workflow
        handle = await client.submit(workflow, "later", json.loads(given), start_at=at)
        print(handle.status)

asyncio.run(main(*sys.argv[1:]))
"""


async def submit_later(ground: Ground) -> float:
    """Submit `later` from a process of its own; when it is due, on the monotonic clock."""
    given = {"n": 1, "by": "client"}
    ledger = Ledger(ground.folder, "later")
    ledger.note("submit", "later", detail={"shape": "row", "given": given})
    moment, due = time.time() + LATER_S, time.monotonic() + LATER_S
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LATER, ground.url, repr(moment), json.dumps(given)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)},
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.split() == [b"waiting"]
    ledger.note("ack", "later")
    ledger.close()
    return due


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build(tmp_path_factory.mktemp("clock"))
    if built is None:
        give_up("a process with a wrong clock needs Linux and a C compiler")
    return built


@pytest.mark.parametrize("seconds", SHIFTS)
def test_a_clock_is_wrong_where_it_should_be(library: Path, seconds: int) -> None:
    say = "import time; print(time.time(), time.monotonic())"
    with shifted(library, seconds):
        done = subprocess.run([sys.executable, "-c", say], capture_output=True, check=True)
    wall, monotonic = map(float, done.stdout.split())
    assert abs(wall - time.time() - seconds) < AMISS_S
    assert abs(monotonic - time.monotonic()) < AMISS_S


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("workers", "client"),
    [((-DAY, HOUR), DAY), ((DAY, -HOUR), -DAY), ((0, DAY), -HOUR), ((-HOUR, 0), HOUR)],
)
async def test_wrong_clocks_change_nothing(
    postgres_server: Server,
    ground_at: GroundAt,
    library: Path,
    workers: tuple[int, ...],
    client: int,
) -> None:
    ground = ground_at(postgres_server.fresh_database())
    begin = time.time()
    async with Fleet(ground.settings(pace=PACE_S, lease_ttl=LEASE_S)) as fleet:
        for number, seconds in enumerate(workers):
            with shifted(library, seconds):
                await fleet.start_ready(f"worker-{number}")
        backend = connect(ground.url)
        eye = Eye(backend)
        feeding = Feeding(fleet, eye)
        errands = errands_of(Random(ground.seed), INSTANCES)
        with shifted(library, client):
            due = await submit_later(ground)
            eye.watch("later")
            feeding.order(errands)
            await feeding.all_done()
        await eye.all_ended(DRAIN_S)
        await fleet.retire()
        tally = await eye.check(ground.folder)
        for name in ["later", *(errand.instance for errand in errands)]:
            photograph = await eye.photograph(name)
            row = photograph.row
            assert row.ended_at is not None
            stored = [row.created_at, row.updated_at, row.ended_at]
            for line in photograph.history:
                stored += [line.step.started_at, line.step.ended_at]
            assert begin - AMISS_S < min(stored)
            assert max(stored) < time.time() + AMISS_S
        await backend.close()
        assert fleet.complaints() == []
    assert tally.instances == INSTANCES + 1
    assert tally.repeated == 0
    naps = [errand.instance for errand in errands if errand.shape == "delay"]
    assert naps
    records = read(ground.folder)
    starts = [one.at for one in records if (one.instance, one.kind) == ("later", "start")]
    assert min(starts) >= due - SLACK_S
    for name in naps:
        assert between(records, name, "d1", "d2") >= 0.060 - SLACK_S
        # An event that never comes is waited for until its time is over.
        assert between(records, name, "d3", "d4") >= 0.050 - SLACK_S
    for errand in errands:
        if errand.shape == "retries":
            tries = [one for one in records if one.instance == errand.instance and one.path == "t2"]
            ends = [one.at for one in tries if one.kind == "raised"]
            starts = [one.at for one in tries if one.kind == "start"]
            waits = [start - end for start, end in zip(starts[1:], ends, strict=True)]
            assert min(waits) >= 0.020 - SLACK_S


def between(records: list[Record], instance: str, one: str, other: str) -> float:
    """Seconds from the end of one body to the start of another."""
    mine = [record for record in records if record.instance == instance]
    [end] = [record.at for record in mine if (record.path, record.kind) == (one, "end")]
    [start] = [record.at for record in mine if (record.path, record.kind) == (other, "start")]
    return start - end
