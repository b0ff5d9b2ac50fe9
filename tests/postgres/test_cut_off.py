"""Connections are cut again and again while every kind of call is made: none of them fails.

A call waits for the connection to come back and is made again; what it changes is changed once. The
moments of the cuts are random, so that every statement is cut off sooner or later: as it is sent,
as it is answered, and while a new connection is being made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from tests.postgres.proxy import Bandit, Proxy
from tests.postgres.server import Server
from tests.postgres.waiting import until

from sayiir import Flow, PostgresBackend, Worker, Workflow, WorkflowClient

LONG = 60.0
CALLERS = 4
CUTS = 15
CALM_S = (0.05, 0.4)
"""From one cut to the next; longer than it takes to connect, most of the time."""
SHARE = 0.7
"""Of the connections that a cut meets."""

bodies: Counter[tuple[str, int]] = Counter()


def first(x: int) -> int:
    bodies["first", x] += 1
    return x + 1


async def second(x: int) -> int:
    bodies["second", x] += 1
    return 2 * x


FLOW: Workflow[Any, Any] = (
    Flow("cut-off").then(first).wait_for_event("go").then(second).delay("nap", "10ms").build()
)
ASIDE: Workflow[Any, Any] = Flow("aside").then(first).build()
"""One that no worker has, so that whatever befalls it comes from a client."""


class Caller:
    """Makes one call after the other, until it is over; `steps` says which were made."""

    def __init__(self, client: WorkflowClient, number: int) -> None:
        self._client = client
        self._number = number
        self.submitted: dict[str, int] = {}

    async def call(self, over: asyncio.Event) -> None:
        while not over.is_set():
            value = self._number + CALLERS * len(self.submitted)
            name = f"one-{value}"
            self.submitted[name] = value
            await self._client.submit(FLOW, name, value)
            await self._client.send_event(name, "go", value)
            status = await self._client.status(name)
            assert not status.is_failed()
            assert len(await self._client.list_instances(limit=1, id_prefix=name)) == 1
            await self._client.history(name)
            await self._client.get_task_result(name, "first", default=None)
            await self._client.submit_many(ASIDE, [(f"{name}-a", value), (f"{name}-b", value)])
            await self._client.pause(f"{name}-a")
            await self._client.unpause(f"{name}-a")
            for other in ("a", "b"):
                await self._client.cancel(f"{name}-{other}")
                assert (await self._client.status(f"{name}-{other}")).is_cancelled()
                await self._client.delete(f"{name}-{other}")


@pytest.mark.parametrize("known", ["reading", "writing"])
@pytest.mark.parametrize("call", ["read", "write"])
async def test_who_was_connected_waits(postgres_server: Server, known: str, call: str) -> None:
    with Proxy(postgres_server.fresh_database()) as proxy:
        backend = PostgresBackend(proxy.url)
        client = WorkflowClient(backend)
        if known == "reading":
            await client.list_instances()
        else:
            await client.submit(ASIDE, "zero", 0)
        with proxy.closed():
            knocks = proxy.refused
            asked = client.list_instances() if call == "read" else client.submit(ASIDE, "one", 1)
            waiting = asyncio.ensure_future(asked)
            # It knocked more than once, so it did not give up.
            await asyncio.to_thread(until, lambda: proxy.refused > knocks + 2, "it tries again")
            assert not waiting.done()
        async with asyncio.timeout(LONG):
            await waiting
        await backend.close()


@asynccontextmanager
async def cutting(proxy: Proxy, rng: Random, cuts: int) -> AsyncIterator[asyncio.Event]:
    """Cuts meanwhile; the event comes when there are no more."""
    over = asyncio.Event()

    async def cut() -> None:
        for _ in range(cuts):
            await asyncio.sleep(rng.uniform(*CALM_S))
            proxy.cut(rng, SHARE)
        over.set()

    at_it = asyncio.create_task(cut())
    try:
        yield over
    finally:
        at_it.cancel()


@pytest.mark.timeout(120)
async def test_no_call_fails_and_each_is_done_once(
    postgres_server: Server, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    bodies.clear()
    rng = Random(seed)
    with Proxy(postgres_server.fresh_database()) as proxy, caplog.at_level(logging.ERROR, "sayiir"):
        backend, theirs = PostgresBackend(proxy.url), PostgresBackend(proxy.url)
        client = WorkflowClient(backend)
        # What was never connected may give up.
        for number, one in enumerate([client, WorkflowClient(theirs)]):
            await one.list_instances()
            await one.submit(ASIDE, f"warm-{number}", 0)
        callers = [Caller(client, number) for number in range(CALLERS)]
        async with (
            asyncio.timeout(LONG),
            Worker(theirs, FLOW, poll_interval="100ms"),
            cutting(proxy, rng, CUTS) as over,
        ):
            proxy.judge = bandit = Bandit(seed, 0.02)
            await asyncio.gather(*(caller.call(over) for caller in callers))
            results = [client.result(name) for caller in callers for name in caller.submitted]
            outputs = await asyncio.gather(*results)
        submitted = {name: n for caller in callers for name, n in caller.submitted.items()}
        assert outputs == [2 * value for value in submitted.values()]
        assert bandit.lost.total() > 0
        for value in submitted.values():
            assert bodies["second", value] == 1
        await theirs.close()
        await backend.close()
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio"] == []
