"""Instances that are made in the hands of a worker: what a claim gets that goes out with submits.

Which of them were made so can be read off the rows: such a row is as the statement left it that
made it, and was not touched by a claim. What a claim may be given, and what it may not, holds
however the calls happen to share their transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import psycopg
import pytest_asyncio
from tests.postgres.server import Server
from tests.postgres.waiting import together

from sayiir import Flow, PostgresBackend, Workflow, WorkflowClient, task
from sayiir.testing import HandWorker, new_instance


@task(priority=3)
def plain(x: int) -> int:
    return x


@task(priority=1)
def urgent(x: int) -> int:
    return x


@task(tags=["gpu"])
def special(x: int) -> int:
    return x


PLAIN: Workflow[Any, Any] = Flow("plain").then(plain).build()
URGENT: Workflow[Any, Any] = Flow("urgent").then(urgent).build()
SPECIAL: Workflow[Any, Any] = Flow("special").then(special).build()
WAITS: Workflow[Any, Any] = Flow("waits-for-go").wait_for_event("go").then(plain).build()
ALL = (PLAIN, URGENT, SPECIAL, WAITS)


class Ground:
    """A database that everything was done in once, and a worker that found it empty."""

    def __init__(self, url: str) -> None:
        self.backend = PostgresBackend(url)
        self.elsewhere = PostgresBackend(url)
        self.worker = HandWorker(self.backend, ALL, tags=["cpu"])
        self.near = psycopg.connect(url, autocommit=True)

    async def warm(self) -> None:
        for backend in (self.backend, self.elsewhere):
            client = WorkflowClient(backend)
            for workflow in ALL:
                handle = await client.submit(workflow, input=0)
                await handle.cancel()
        await self.content()

    async def content(self) -> None:
        """The worker's last claim took all there was."""
        assert await self.worker.claim_ids(5) == []

    async def together(self, *calls: Awaitable[Any]) -> list[Any]:
        return await together(self.backend, *calls)

    async def submit(self, workflow: Workflow[Any, Any], instance_id: str) -> None:
        await self.backend.submit([new_instance(workflow, instance_id, 1)], "fail")

    def granted(self) -> set[str]:
        """Ids of held instances whose row is as it was made."""
        rows = self.near.execute(
            "SELECT i.id FROM sayiir.instances i JOIN sayiir.inputs n ON n.instance = i.instance "
            "WHERE i.holder IS NOT NULL AND i.xmin = n.xmin AND i.cmin = n.cmin"
        )
        return {name for (name,) in rows}

    def held(self) -> set[str]:
        rows = self.near.execute("SELECT id FROM sayiir.instances WHERE holder IS NOT NULL")
        return {name for (name,) in rows}

    async def close(self) -> None:
        await self.backend.close()
        await self.elsewhere.close()
        self.near.close()


@pytest_asyncio.fixture
async def ground(postgres_server: Server) -> AsyncIterator[Ground]:
    made = Ground(postgres_server.fresh_database())
    await made.warm()
    yield made
    await made.close()


async def test_a_claim_gets_what_goes_out_with_it(ground: Ground) -> None:
    *_, ids = await ground.together(
        *[ground.submit(PLAIN, f"p-{n}") for n in range(3)], ground.worker.claim_ids(5)
    )
    assert ids == ["p-0", "p-1", "p-2"]
    assert ground.granted() == ground.held() == {"p-0", "p-1", "p-2"}
    assert await ground.worker.claim_ids(5) == []


async def test_it_goes_on_as_any_other_does(ground: Ground) -> None:
    _, [held] = await ground.together(ground.submit(PLAIN, "one"), ground.worker.claim(1))
    assert ground.granted() == {"one"}
    await held.complete(7)
    row = await ground.backend.get("one")
    assert (row.status, held.state) == ("completed", "completed")
    [step] = await WorkflowClient(ground.backend).history("one")
    assert step.worker_id == ground.worker.name
    assert ground.held() == set()


async def test_its_events_come_with_it(ground: Ground) -> None:
    workflow = Flow("waits").wait_for_event("go").build()
    worker = HandWorker(ground.backend, [workflow])
    client = WorkflowClient(ground.backend)
    await (await client.submit(workflow, input=0)).cancel()
    assert await worker.claim_ids(5) == []
    await client.send_event("one", "go", "early")
    _, [held] = await ground.together(ground.submit(workflow, "one"), worker.claim(5))
    assert held.state == "completed"
    assert await client.result("one", timeout=30) == "early"


async def test_no_more_than_it_wanted(ground: Ground) -> None:
    *_, ids = await ground.together(
        *[ground.submit(PLAIN, f"p-{n}") for n in range(4)], ground.worker.claim_ids(2)
    )
    assert ids == ["p-0", "p-1"]
    assert ground.held() == {"p-0", "p-1"}
    assert await ground.worker.claim_ids(5) == ["p-2", "p-3"]


async def test_who_was_submitted_before_is_not_passed_over(ground: Ground) -> None:
    await ground.submit(PLAIN, "first")
    _, ids = await ground.together(ground.submit(PLAIN, "second"), ground.worker.claim_ids(1))
    assert ids == ["first"]
    assert await ground.worker.claim_ids(5) == ["second"]


async def test_who_was_woken_before_is_not_passed_over(ground: Ground) -> None:
    client = WorkflowClient(ground.backend)
    for deed in ("event", "unpause"):
        await ground.submit(WAITS, deed)
        if deed == "unpause":
            await client.pause(deed)
        else:
            [held] = await ground.worker.claim(1)
            assert held.state == "parked"
    await ground.content()
    for number, deed in enumerate(("event", "unpause")):
        if deed == "event":
            await client.send_event(deed, "go", None)
        else:
            await client.unpause(deed)
        _, ids = await ground.together(
            ground.submit(PLAIN, f"later-{number}"), ground.worker.claim_ids(1)
        )
        assert ids == [deed]
        assert await ground.worker.claim_ids(5) == [f"later-{number}"]


async def test_the_most_urgent_first(ground: Ground) -> None:
    *_, ids = await ground.together(
        ground.submit(PLAIN, "p"),
        ground.submit(PLAIN, "q"),
        ground.submit(URGENT, "u"),
        ground.worker.claim_ids(1),
    )
    assert ids == ["u"]
    assert ground.granted() == {"u"}


async def test_nothing_that_it_cannot_do_or_that_is_not_due(ground: Ground) -> None:
    later = new_instance(PLAIN, "later", 1, start_at=4e9)
    *_, ids = await ground.together(
        ground.submit(SPECIAL, "special"),
        ground.backend.submit([later], "fail"),
        ground.submit(PLAIN, "p"),
        ground.worker.claim_ids(5),
    )
    assert ids == ["p"]
    assert ground.held() == {"p"}
    assert (await ground.backend.get("later")).status == "waiting"


async def test_an_id_that_is_taken_is_not_given(ground: Ground) -> None:
    await ground.elsewhere.submit([new_instance(SPECIAL, "taken", 1)], "fail")
    refused, _, ids = await ground.together(
        asyncio.ensure_future(_outcome(ground.submit(PLAIN, "taken"))),
        ground.submit(PLAIN, "p"),
        ground.worker.claim_ids(5),
    )
    assert refused == "DefinitionMismatchError"
    assert ids == ["p"]
    assert ground.held() == {"p"}


async def test_what_waits_elsewhere_waits_for_one_claim_at_most(ground: Ground) -> None:
    await ground.elsewhere.submit([new_instance(URGENT, "elsewhere", 1)], "fail")
    # Nobody told the worker of it yet; its claim was content before.
    *_, ids = await ground.together(
        *[ground.submit(PLAIN, f"p-{n}") for n in range(2)], ground.worker.claim_ids(2)
    )
    assert set(ids) <= {"p-0", "p-1", "elsewhere"}
    *_, more = await ground.together(
        *[ground.submit(PLAIN, f"q-{n}") for n in range(2)], ground.worker.claim_ids(2)
    )
    assert "elsewhere" in {*ids, *more}
    # Room that is left over is for what was there first.
    await ground.worker.claim_ids(9)
    await ground.content()
    await ground.elsewhere.submit([new_instance(URGENT, "again", 1)], "fail")
    *_, ids = await ground.together(ground.submit(PLAIN, "r"), ground.worker.claim_ids(2))
    assert set(ids) == {"again", "r"}


async def test_a_claim_that_left_nothing_is_followed_by_one_that_is_given_what_is_new(
    ground: Ground,
) -> None:
    for name in ("p", "q"):
        await ground.submit(PLAIN, name)
    assert await ground.worker.claim_ids(2) == ["p", "q"]
    # It came back full, so there may be more.
    _, ids = await ground.together(ground.submit(PLAIN, "r"), ground.worker.claim_ids(1))
    assert (ids, ground.granted()) == (["r"], set())
    # There was not.
    _, ids = await ground.together(ground.submit(PLAIN, "s"), ground.worker.claim_ids(1))
    assert (ids, ground.granted()) == (["s"], {"s"})
    *_, ids = await ground.together(
        ground.submit(PLAIN, "t"), ground.submit(PLAIN, "u"), ground.worker.claim_ids(1)
    )
    assert ids == ["t"]
    _, ids = await ground.together(ground.submit(PLAIN, "v"), ground.worker.claim_ids(1))
    assert (ids, ground.granted()) == (["u"], {"s", "t"})


async def test_a_worker_whose_row_is_gone_gets_nothing(ground: Ground) -> None:
    ground.near.execute("DELETE FROM sayiir.workers")
    *_, ids = await ground.together(ground.submit(PLAIN, "one"), ground.worker.claim_ids(5))
    assert ids == []
    assert ground.held() == set()
    assert (await ground.backend.get("one")).status == "in_progress"
    other = HandWorker(ground.elsewhere, ALL, "worker-2")
    assert await other.claim_ids(5) == ["one"]


async def _outcome(call: Awaitable[Any]) -> str:
    try:
        await call
    except Exception as refusal:
        return type(refusal).__name__
    return "done"
