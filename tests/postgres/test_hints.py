"""Hints are hints: switched off, swallowed, doubled or late, they change nothing but the waiting.

Where they come, however late and however often, nobody needs a poll. What is done without any of
them is found by polls, and how soon is counted in polls, never in time: no more than the one that
was under way, and the next. What was measured is kept as a figure.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pytest
from tests.crash.figures import keep
from tests.postgres.night import Blow, GroundAt, Hours, night
from tests.postgres.proxy import Hints, Proxy
from tests.postgres.server import Server

from sayiir import Flow, PostgresBackend, Worker, Workflow, WorkflowClient

LONG = 30.0
NEVER = "1h"
LATE_S = 0.2
POLL_S = 0.1
ROUNDS = 10
CLAIM = "taken AS MATERIALIZED"


@dataclass
class Stage:
    """A client and a worker with a backend each, and a proxy before both."""

    proxy: Proxy
    client: WorkflowClient
    flow: Workflow[Any, Any]
    ran: Counter[str] = field(default_factory=Counter)
    """How often each body ran."""
    begun: asyncio.Queue[tuple[float, int]] = field(default_factory=asyncio.Queue)
    """When first bodies began, on the monotonic clock, and how many claims had been asked for."""

    @property
    def claims(self) -> int:
        return self.proxy.count(CLAIM)


@asynccontextmanager
async def stage(
    url: str, poll: str | float, hints: Hints = "pass", *, notify: bool = True
) -> AsyncIterator[Stage]:
    with Proxy(url) as proxy:
        proxy.hints = hints
        theirs = PostgresBackend(proxy.url, notify=notify)
        ours = PostgresBackend(proxy.url, notify=notify)

        async def first(x: int) -> int:
            made.ran["first"] += 1
            made.begun.put_nowait((time.monotonic(), made.claims))
            return x + 1

        async def second(x: int) -> int:
            made.ran["second"] += 1
            return 2 * x

        flow = Flow("hinted").then(first).wait_for_event("go").then(second)
        made = Stage(proxy, WorkflowClient(ours), flow.delay("nap", "20ms").then(str).build())
        async with Worker(theirs, made.flow, poll_interval=poll, concurrency=1):
            yield made
        await theirs.close()
        await ours.close()


async def go_through(on: Stage, rounds: int = ROUNDS) -> None:
    """Submit, wait until it waits, send, wait until it ends; so often, one after the other."""
    async with asyncio.timeout(LONG):
        for number in range(rounds):
            name = f"one-{number}"
            handle = await on.client.submit(on.flow, name, number)
            await on.client.send_event(name, "go", number)
            assert await handle.result() == str(2 * number)
    assert on.ran == {"first": rounds, "second": rounds}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hints", ["pass", "twice", LATE_S])
async def test_whoever_hears_needs_no_poll(postgres_server: Server, hints: Hints) -> None:
    async with stage(postgres_server.fresh_database(), NEVER, hints) as on:
        await go_through(on)
        assert on.proxy.hints_seen > 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["off", "swallow"])
async def test_the_deaf_find_work_at_their_next_poll(postgres_server: Server, way: str) -> None:
    hints: Hints = "swallow" if way == "swallow" else "pass"
    polls, waits = [], []
    url = postgres_server.fresh_database()
    async with stage(url, POLL_S, hints, notify=way != "off") as on:
        for number in range(ROUNDS):
            await on.client.submit(on.flow, f"one-{number}", number)
            acknowledged, before = time.monotonic(), on.claims
            async with asyncio.timeout(LONG):
                at, claims = await on.begun.get()
            polls.append(claims - before)
            waits.append(at - acknowledged)
        if way == "swallow":
            assert on.proxy.hints_seen > 0
        else:
            assert on.proxy.hints_seen == 0
    # A claim that was asked for after the answer to the submit cannot miss it.
    assert max(polls) <= 2
    times = {
        "poll_ms": 1000 * POLL_S,
        "median_ms": 1000 * median(waits),
        "most_ms": 1000 * max(waits),
    }
    keep(f"hints-{way}", "postgresql://", 0, times)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["off", "swallow"])
async def test_the_deaf_come_to_the_same(postgres_server: Server, way: str) -> None:
    hints: Hints = "swallow" if way == "swallow" else "pass"
    url = postgres_server.fresh_database()
    async with stage(url, POLL_S, hints, notify=way != "off") as on:
        await go_through(on, rounds=5)


@pytest.mark.timeout(240)
async def test_garbled_hints_under_load(postgres_server: Server, ground_at: GroundAt) -> None:
    with Proxy(postgres_server.fresh_database()) as proxy:

        def turn(hints: Hints) -> Blow:
            async def fall() -> None:
                proxy.hints = hints

            return fall

        ways: list[Hints] = ["twice", "swallow", LATE_S, "pass", "swallow"]
        ground = ground_at(proxy.url)
        morning = await night(ground, map(turn, ways), len(ways), Hours())
        assert proxy.hints_seen > 0
    assert morning.tally.repeated == 0
