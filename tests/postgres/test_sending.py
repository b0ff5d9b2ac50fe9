"""Events that go out with other calls, as one statement of their transaction.

Whatever such an event meets, its answer is that of one that is sent alone; and a claim that goes
out with it finds what it woke.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.postgres.server import Server
from tests.postgres.waiting import together

from sayiir import Flow, InvalidStateError, PostgresBackend, Workflow, WorkflowClient
from sayiir._codec import decode_payload, encode_payload
from sayiir.backends import Event
from sayiir.testing import HandWorker, new_instance

WAIT: Workflow[Any, Any] = (
    Flow("wait").then(lambda x: x, name="before").wait_for_event("go").then(lambda x: x).build()
)


class Ground:
    """A database, and a worker that found it empty."""

    def __init__(self, url: str) -> None:
        self.backend = PostgresBackend(url)
        self.client = WorkflowClient(self.backend)
        self.worker = HandWorker(self.backend, [WAIT])
        self.near = psycopg.connect(url, autocommit=True)

    async def send(self, instance_id: str, payload: Any, key: str | None = None) -> bool:
        return await self.backend.send_event(instance_id, "go", encode_payload(payload), key)

    async def waits(self, *ids: str) -> None:
        """Instances that are parked at their wait."""
        await self.backend.submit([new_instance(WAIT, name, 1) for name in ids], "fail")
        for held in await self.worker.claim(len(ids)):
            await held.complete()
            assert held.state == "parked"

    def buffered(self, instance_id: str) -> list[Any]:
        rows = self.near.execute(
            "SELECT payload FROM sayiir.events WHERE id = %s ORDER BY event", [instance_id]
        )
        return [decode_payload(payload) for (payload,) in rows]

    async def close(self) -> None:
        await self.backend.close()
        self.near.close()


@pytest_asyncio.fixture
async def ground(postgres_server: Server) -> AsyncIterator[Ground]:
    made = Ground(postgres_server.fresh_database())
    await made.waits("warm")
    yield made
    await made.close()


def payloads(events: Sequence[Event]) -> list[Any]:
    return [decode_payload(event.payload) for event in events]


async def test_a_claim_finds_what_an_event_wakes_that_goes_out_with_it(ground: Ground) -> None:
    await ground.waits("one", "two")
    answers = await together(ground.backend, ground.send("one", "now"), ground.worker.claim_ids(5))
    assert answers == [True, ["one"]]
    made_together = ground.near.execute(
        "SELECT e.xmin = i.xmin FROM sayiir.events e JOIN sayiir.instances i USING (id)"
    )
    assert made_together.fetchall() == [(True,)]


async def test_a_claim_finds_what_parked_and_was_woken_in_its_own_transaction(
    ground: Ground,
) -> None:
    await ground.backend.submit([new_instance(WAIT, "one", 1)], "fail")
    [held] = await ground.worker.claim()
    _, _, claims = await together(
        ground.backend, held.complete(), ground.send("one", "now"), ground.worker.claim()
    )
    # Whoever came first: the event is consumed by somebody, and once.
    at_work = [one for one in (held, *claims) if one.state == "held"]
    if not at_work:
        at_work = await ground.worker.claim()
    [one] = at_work
    assert [step.input for step in one.steps] == ["now"]
    await one.complete("done")
    assert await ground.client.result("one", timeout=30) == "done"


async def test_events_of_one_instance_keep_their_order(ground: Ground) -> None:
    await ground.waits("one", "two")
    sent = [ground.send(name, n) for n in range(20) for name in ("one", "two", "not-yet")]
    assert await together(ground.backend, *sent) == [True] * 60
    for name in ("one", "two", "not-yet"):
        assert ground.buffered(name) == list(range(20))
    assert len(await ground.worker.claim_ids(5)) == 2


async def test_each_is_answered_as_if_it_were_alone(ground: Ground) -> None:
    await ground.waits("parked", "known", "paused", "ended")
    assert await ground.send("known", 1, "k")
    await ground.client.pause("paused")
    await ground.client.cancel("ended")
    await ground.backend.submit([new_instance(WAIT, "held", 1)], "fail")
    held = await ground.worker.claim_one("held")
    assert held is not None

    async def refused() -> str | None:
        with pytest.raises(InvalidStateError) as caught:
            await ground.send("ended", 2)
        return caught.value.state

    answers = await together(
        ground.backend,
        ground.send("parked", 2, "k"),
        ground.send("known", 2, "k"),
        ground.send("paused", 2),
        refused(),
        ground.send("held", 2),
        ground.send("early", 2),
    )
    assert answers == [True, False, True, "cancelled", True, True]
    for name in ("parked", "paused", "held", "early"):
        assert ground.buffered(name) == [2]
    assert ground.buffered("known") == [1]
    states = {name: (await ground.client.status(name)).status for name in ("parked", "paused")}
    assert states == {"parked": "in_progress", "paused": "paused"}
    news = await ground.backend.news("held", held.fence, ["go"])
    assert payloads(news.events) == [2]


async def test_an_instance_that_somebody_has_locked_keeps_nobody_else(ground: Ground) -> None:
    await ground.waits("locked", "free")
    with ground.near.transaction():
        ground.near.execute("SELECT 1 FROM sayiir.instances WHERE id = 'locked' FOR UPDATE")
        late = asyncio.ensure_future(ground.send("locked", 1))
        sent, ids = await together(
            ground.backend, ground.send("free", 1), ground.worker.claim_ids(1)
        )
        assert (sent, ids) == (True, ["free"])
        assert not late.done()
    assert await late
    assert await ground.worker.claim_ids(1) == ["locked"]
