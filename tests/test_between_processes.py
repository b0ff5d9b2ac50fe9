"""Two processes on one place: what one does reaches the other at once, and waiting costs little.

The worker's process polls once per hour, so all that it does it was told by a hint.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from tests.postgres.server import required

from sayiir import Worker, WorkflowCancelled, WorkflowClient, WorkflowFailed, connect

from .sqlite.orders import Program
from .sqlite.picture import opened
from .sqlite.served import ASK, ASK_TWICE, FAIL, NAP, PING, SERVED, STUCK

_numbers = itertools.count()
TABLES = ("instances", "inputs", "cells", "steps", "events")
PROMPT_S = 5.0
"""Far below the poll interval, and far above what a busy machine adds."""
LONG_S = 30.0
QUIET_S, IDLE_S = 5.0, 4.0
"""After the first it looks less often; over the second it is measured."""
IDLE_SHARE = 0.05
"""Of one processor; about 0.025 when the machine does nothing else."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a file, or of a schema, that nobody else has."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    schema = f"between_{os.getpid()}_{next(_numbers)}"
    server = required(swift=True)
    yield server.url(schema=schema)
    server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def server(url: str) -> Iterator[Program]:
    with Program("serve", url, "1h") as program:
        assert program.hear() == "ready"
        yield program
        assert program.ended() == 0


@pytest_asyncio.fixture
async def client(url: str, server: Program) -> AsyncIterator[WorkflowClient]:
    backend = connect(url)
    yield WorkflowClient(backend)
    await backend.close()


async def until(client: WorkflowClient, name: str, status: str) -> None:
    """Wait until another process has brought an instance into this status."""
    async with asyncio.timeout(PROMPT_S):
        while (await client.status(name)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0)  # Only its end is told of.


async def until_running(client: WorkflowClient, name: str) -> None:
    """Wait until a worker holds an instance."""
    async with asyncio.timeout(PROMPT_S):
        while (await client.backend.get(name)).worker_id is None:  # noqa: ASYNC110
            await asyncio.sleep(0)  # As above.


async def test_a_submitted_instance_runs_in_the_other_process(
    client: WorkflowClient, server: Program
) -> None:
    for _ in range(10):
        handle = await client.submit(PING)
        assert await handle.result(PROMPT_S) == server.pid


async def test_an_event_wakes_the_other_process(client: WorkflowClient) -> None:
    handle = await client.submit(ASK)
    await until(client, handle.instance_id, "awaiting_signal")
    await handle.send_event("go", "now")
    assert await handle.result(PROMPT_S) == ["now", 1]
    early = await client.submit(ASK_TWICE, "early")
    await client.send_event("early", "go", 1, idempotency_key="a")
    await client.send_event("early", "go", 1, idempotency_key="a")
    await client.send_event("early", "go", 2)
    assert await early.result(PROMPT_S) == 2


async def test_a_cancel_stops_a_body_in_the_other_process(client: WorkflowClient) -> None:
    handle = await client.submit(STUCK)
    await until_running(client, handle.instance_id)
    began = time.monotonic()
    await handle.cancel("enough", "me")
    with pytest.raises(WorkflowCancelled, match="enough"):
        await handle.result(PROMPT_S)
    assert time.monotonic() - began < PROMPT_S


async def test_a_pause_and_its_end_reach_the_other_process(
    client: WorkflowClient, server: Program
) -> None:
    handle = await client.submit(ASK)
    await until(client, handle.instance_id, "awaiting_signal")
    await client.pause(handle.instance_id)
    await handle.send_event("go", "meanwhile")
    assert (await client.status(handle.instance_id)).status == "paused"
    await client.unpause(handle.instance_id)
    assert await handle.result(PROMPT_S) == ["meanwhile", 1]
    nap = await client.submit(NAP)
    await until(client, nap.instance_id, "waiting")
    await client.pause(nap.instance_id)
    await client.unpause(nap.instance_id)
    assert await nap.result(PROMPT_S) == server.pid


async def test_a_timer_of_the_other_process_goes_off(
    client: WorkflowClient, server: Program
) -> None:
    assert await (await client.submit(NAP)).result(PROMPT_S) == server.pid


async def test_a_failure_in_the_other_process_is_heard_of(client: WorkflowClient) -> None:
    handle = await client.submit(FAIL, input=0)
    with pytest.raises(WorkflowFailed, match="ZeroDivisionError"):
        await handle.result(PROMPT_S)


async def test_many_wait_in_a_process_that_works_on_nothing(client: WorkflowClient) -> None:
    handles = await client.submit_many(ASK, [(f"i-{n}", None) for n in range(200)])
    results = [asyncio.create_task(handle.result(LONG_S)) for handle in handles]
    for handle in handles:
        await handle.send_event("go", handle.instance_id)
    assert [(await one)[0] for one in results] == [handle.instance_id for handle in handles]


async def test_two_workers_of_two_processes_share_the_work(
    client: WorkflowClient, server: Program
) -> None:
    async with Worker(client.backend, SERVED, poll_interval="1h", concurrency=2):
        handles = await client.submit_many(PING, [(f"p-{n}", n) for n in range(300)])
        ran = [await handle.result(LONG_S) for handle in handles]
    assert set(ran) <= {os.getpid(), server.pid}
    assert len(ran) == 300


async def test_the_work_of_a_killed_process_goes_on_in_another(url: str) -> None:
    backend = connect(url)
    client = WorkflowClient(backend)
    with Program("serve", url, "1h") as doomed:
        assert doomed.hear() == "ready"
        handle = await client.submit(STUCK)
        await until_running(client, handle.instance_id)
        doomed.kill()
    handles = [await client.submit(PING, f"after-{n}") for n in range(5)]
    with Program("serve", url, "200ms") as heir:
        assert heir.hear() == "ready"
        assert [await one.result(LONG_S) for one in handles] == [heir.pid] * 5
        async with asyncio.timeout(LONG_S):
            first = (await client.backend.get(handle.instance_id)).fence
            while (await client.backend.get(handle.instance_id)).fence == first:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(PROMPT_S)
        assert heir.ended() == 0
    await backend.close()


def test_an_idle_process_takes_little_time(url: str, server: Program) -> None:
    """Also with a second one, idle as well, and with work that is parked."""

    async def park() -> None:
        backend = connect(url)
        client = WorkflowClient(backend)
        for n in range(20):
            await client.submit(ASK, f"parked-{n}")
        for n in range(20):
            await until(client, f"parked-{n}", "awaiting_signal")
        await backend.close()

    asyncio.run(park())
    with Program("serve", url, "1s") as other:
        assert other.hear() == "ready"
        time.sleep(QUIET_S)  # Time is what is measured here.
        before = usage(server), usage(other)
        time.sleep(IDLE_S)
        after = usage(server), usage(other)
        for was, is_now in zip(before, after, strict=True):
            assert is_now - was < IDLE_S * IDLE_SHARE
        assert other.ended() == 0


def usage(program: Program) -> float:
    """Seconds of processor time that a program has had."""
    program.say("cpu")
    return float(program.hear()["cpu_s"])


async def test_what_another_process_deletes_is_gone(client: WorkflowClient, url: str) -> None:
    handle = await client.submit(PING)
    await handle.result(PROMPT_S)
    await client.delete(handle.instance_id)
    waiting = await client.submit(ASK)
    await until(client, waiting.instance_id, "awaiting_signal")
    await client.delete(waiting.instance_id, force=True)
    assert (await client.list_instances()).items == ()
    assert left(url) == dict.fromkeys(TABLES, 0)


def left(url: str) -> dict[str, int]:
    """How many rows there are in each table."""
    counts = {table: f"SELECT count(*) FROM {table}" for table in TABLES}
    if url.startswith("sqlite"):
        with opened(Path(url.removeprefix("sqlite:///"))) as connection:
            return {table: connection.execute(sql).fetchone()[0] for table, sql in counts.items()}
    schema = parse_qs(urlsplit(url).query)["schema"][0]
    # Histories go a little later; that they will is noted here.
    counts["steps"] += f" WHERE instance NOT IN (SELECT instance FROM {schema}.garbage)"
    execute = required(swift=True).execute
    return {
        table: execute(sql.replace(f"FROM {table}", f"FROM {schema}.{table}"))[0][0]
        for table, sql in counts.items()
    }
