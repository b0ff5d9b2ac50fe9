"""Work that cannot be done does not hold up work that can: unknown, changed and failing instances.

That nothing is held up is counted, in bodies that ran before the last good instance was done, and
not measured in time.
"""

import asyncio
import logging
from typing import Any

import pytest

from sayiir import Flow, RetryPolicy, Status, Worker, WorkflowClient, WorkflowFailed, task
from sayiir.backends import Backend

from .working import LONG, NEVER, Gauge


def good(x: int) -> int:
    return x + 1


def later_good(x: int) -> int:
    return x * 10


GOOD = Flow("good").then(good).then(later_good).build()


async def test_good_work_is_done_among_the_impossible_and_the_failing(backend: Backend) -> None:
    bodies = Gauge()

    @task(retries=RetryPolicy(max_retries=5, initial_delay_secs=3600.0))
    async def fails_slowly(x: int) -> int:
        with bodies.body():
            raise ValueError("try again in an hour")

    async def fails(x: int) -> int:
        with bodies.body():
            raise ValueError("no")

    unknown = Flow("unknown").then(good).build()
    failing = Flow("failing").then(fails).build()
    retried = Flow("retried").then(fails_slowly).build()
    client = WorkflowClient(backend)
    await client.submit_many(unknown, [(f"u-{n}", n) for n in range(1000)])
    bad = await client.submit_many(failing, [(f"f-{n}", n) for n in range(100)])
    await client.submit_many(retried, [(f"r-{n}", n) for n in range(100)])
    async with Worker(backend, [GOOD, failing, retried], concurrency=4, poll_interval=NEVER):
        handles = await client.submit_many(GOOD, [(f"g-{n}", n) for n in range(100)])
        outputs = [await handle.result(timeout=LONG) for handle in handles]
        for handle in bad:
            with pytest.raises(WorkflowFailed):
                await handle.result(timeout=LONG)
    assert outputs == [(n + 1) * 10 for n in range(100)]
    # Each failing body ran once: neither the failed nor the parked came back.
    assert bodies.total == 200
    for number in (0, 500, 999):
        status = await client.status(f"u-{number}")
        assert status.status is Status.IN_PROGRESS
        assert await client.history(f"u-{number}") == []


class Looks:
    """Counts how often a worker asks for the backlog, which it does once per poll."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        self._enough = asyncio.Event()
        self._left = 4
        backlog = type(backend).backlog

        async def counted(of: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._enough.set()
            return await backlog(of)

        monkeypatch.setattr(type(backend), "backlog", counted)

    async def enough(self) -> None:
        async with asyncio.timeout(LONG):
            await self._enough.wait()


async def test_an_unknown_definition_is_said_once(
    backend: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Flow("unknown").then(good).build()
    client = WorkflowClient(backend)
    await client.submit_many(unknown, [(f"u-{n}", n) for n in range(50)])
    looks = Looks(backend, monkeypatch)
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, GOOD, poll_interval="10ms"):
            await looks.enough()
    [record] = [r for r in caplog.records if "unknown" in r.getMessage()]
    assert "50" in record.getMessage()
    assert unknown.definition_hash[:12] in record.getMessage()
    # One that has it finds everything as it was.
    async with Worker(backend, unknown, poll_interval=NEVER):
        assert await client.result("u-49", timeout=LONG) == 50


async def test_a_changed_workflow_of_the_same_name_waits_for_its_own_worker(
    backend: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Flow("order").then(good).build()
    new = Flow("order").then(good).then(later_good).build()
    client = WorkflowClient(backend)
    await client.submit(old, "old", 1)
    looks = Looks(backend, monkeypatch)
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, new, poll_interval="10ms"):
            assert await (await client.submit(new, "new", 1)).result(timeout=LONG) == 20
            await looks.enough()
    assert await client.history("old") == []
    [record] = [r for r in caplog.records if "order" in r.getMessage()]
    assert "the structure was changed" in record.getMessage()
    # Code that has both serves both.
    async with Worker(backend, [old, new], poll_interval=NEVER):
        assert await client.result("old", timeout=LONG) == 2


async def test_timers_of_unknown_work_do_not_hide_timers_of_known_work(backend: Backend) -> None:
    unknown = Flow("unknown").delay("rest", "1ms").then(good).build()
    resting = Flow("resting").delay("rest", "50ms").then(good).build()
    client = WorkflowClient(backend)
    async with Worker(backend, unknown, poll_interval=NEVER):
        handles = await client.submit_many(unknown, [(f"u-{n}", n) for n in range(20)])
        await handles[-1].result(timeout=LONG)
    parked = Flow("parked").delay("rest", "20ms").then(good).build()
    elsewhere = Worker(backend, parked, poll_interval=NEVER)
    async with elsewhere:
        await client.submit_many(parked, [(f"p-{n}", n) for n in range(20)])
    # Nobody here knows `parked`, some of which is due or soon will be.
    async with Worker(backend, resting, concurrency=2, poll_interval=NEVER):
        handles = await client.submit_many(resting, [(f"r-{n}", n) for n in range(20)])
        assert [await h.result(timeout=LONG) for h in handles] == list(range(1, 21))
