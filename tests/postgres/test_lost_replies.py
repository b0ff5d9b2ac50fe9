"""The answer to one commit is lost, or the commit itself: each call is done, and done once.

A proxy loses exactly the transaction of the call that is on trial, cuts its connection there, and
says so afterwards, so that no test passes without its loss. Nothing else is ever retried for the
call: what it returns to its caller is what it would have returned on a good day.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.postgres.proxy import Loss, Peace, Proxy, Trap
from tests.postgres.server import Server

from sayiir import (
    ConflictPolicy,
    Flow,
    InstanceAlreadyExistsError,
    InvalidStateError,
    PostgresBackend,
    Worker,
    Workflow,
    WorkflowCancelled,
    WorkflowClient,
)
from sayiir.testing import HandWorker, new_instance

LONG = 30.0
POLL = "50ms"
PARTS = pytest.mark.parametrize("part", ["request", "reply"])

SUBMIT = ".inputs (instance, id, token"
EVENT = ".events (id, event"
CHANGE = ".instances i SET"
REMOVE = ".instances i WHERE"
LOCK = "FOR UPDATE OF i"
CLAIM = "taken AS MATERIALIZED"
CHECKPOINT = ".steps (instance, seq"
RENEWAL = ".workers w SET lease_us"
ARRIVAL = ".workers (worker, name"
ITEMS_MADE = ".items (parent, item_group"
ITEM_ENDED = ".item_groups o SET remaining"
ITEMS_OVER = ".item_groups g SET remaining = 0"

bodies: Counter[tuple[str, Any]] = Counter()
"""How often each body was given what."""


def first(x: int) -> int:
    bodies["first", x] += 1
    return x + 1


async def second(x: int) -> int:
    bodies["second", x] += 1
    return 10 * x


WAIT: Workflow[Any, Any] = Flow("wait").wait_for_event("go").then(first).build()
SPREAD: Workflow[Any, Any] = (
    Flow("spread")
    .then(lambda n: list(range(n)), name="list")
    .map(second, spread=True, name="each")
    .then(sum)
    .build()
)
ROW: Workflow[Any, Any] = Flow("row").then(first).then(second).then(first, name="third").build()


class Line:
    """A store, reached through a proxy that loses what a test wants lost."""

    def __init__(self, url: str) -> None:
        self.url = url
        """Past the proxy."""
        self.proxy = Proxy(url)
        self.backend = PostgresBackend(self.proxy.url)
        self.client = WorkflowClient(self.backend)
        self._near = psycopg.connect(url, autocommit=True)

    def lose(self, *words: str, part: Loss, then: int = 0) -> Trap:
        """From now on: the first commit that has these words, and so many transactions more."""
        trap = Trap(*words, part=part, then=then)
        self.proxy.judge = trap
        return trap

    def count(self, sql: str, *parameters: Any) -> int:
        """What a count says, asked past the proxy."""
        row = self._near.execute(f"SELECT count(*) FROM sayiir.{sql}".encode(), parameters)
        [number] = row.fetchone() or [0]
        assert isinstance(number, int)
        return number

    async def warm(self) -> None:
        """Everything that comes before the first call is behind it: schema, definitions, lanes."""
        for workflow in (WAIT, ROW, SPREAD):
            await self.client.submit(workflow, f"warm-{workflow.workflow_id}", 0)
            await self.client.cancel(f"warm-{workflow.workflow_id}")
        await self.client.send_event("warm-early", "go", 0)

    async def close(self) -> None:
        await self.backend.close()
        self._near.close()
        self.proxy.close()


@pytest_asyncio.fixture
async def line(postgres_server: Server) -> AsyncIterator[Line]:
    bodies.clear()
    made = Line(postgres_server.fresh_database())
    await made.warm()
    yield made
    await made.close()


@PARTS
@pytest.mark.parametrize("policy", list(ConflictPolicy))
@pytest.mark.parametrize("then", [0, 4])
async def test_a_submit(line: Line, part: Loss, policy: ConflictPolicy, then: int) -> None:
    trap = line.lose(SUBMIT, part=part, then=then)
    handle = await line.client.submit(ROW, "one", 7, conflict_policy=policy)
    assert trap.sprung()
    assert handle.status == "in_progress"
    assert line.count("instances WHERE id = 'one'") == 1
    # One input for each instance that there is.
    assert line.count("inputs") == line.count("instances")
    with pytest.raises(InstanceAlreadyExistsError):
        await line.client.submit(ROW, "one", 8, conflict_policy="fail")
    async with Worker(line.backend, ROW, poll_interval=POLL):
        assert await handle.result(timeout=LONG) == 81


@PARTS
async def test_a_submit_that_replaces(line: Line, part: Loss) -> None:
    await line.client.submit(ROW, "one", 1)
    await line.client.send_event("one", "go", 1)
    trap = line.lose(SUBMIT, part=part)
    handle = await line.client.submit(ROW, "one", 7, conflict_policy="terminate_existing")
    assert trap.sprung()
    assert line.count("instances WHERE id = 'one'") == 1
    assert line.count("events WHERE id = 'one'") == 0
    async with Worker(line.backend, ROW, poll_interval=POLL):
        assert await handle.result(timeout=LONG) == 81
    assert bodies["first", 1] == 0


@PARTS
@pytest.mark.parametrize("then", [0, 4])
async def test_an_import(line: Line, part: Loss, then: int) -> None:
    await line.client.submit(WAIT, "one", 1)
    await line.client.send_event("one", "go", 4, idempotency_key="k")
    data = await line.client.export("one")
    trap = line.lose(SUBMIT, part=part, then=then)
    assert await line.client.import_(data, "two") == "two"
    assert trap.sprung()
    assert line.count("instances WHERE id = 'two'") == 1
    assert line.count("events WHERE id = 'two'") == 1
    assert line.count("inputs") == line.count("instances")
    with pytest.raises(InstanceAlreadyExistsError):
        await line.client.import_(data, "two")
    async with Worker(line.backend, WAIT, poll_interval=POLL):
        assert await line.client.result("two", timeout=LONG) == 5


@PARTS
async def test_many_submits_in_one_batch(line: Line, part: Loss) -> None:
    trap = line.lose(SUBMIT, part=part)
    items = [(f"many-{n}", n) for n in range(50)]
    handles = await line.client.submit_many(ROW, items)
    assert trap.sprung()
    assert [handle.status for handle in handles] == ["in_progress"] * 50
    assert line.count("instances WHERE id LIKE %s", "many-%") == 50
    assert line.count("inputs") == line.count("instances")


@PARTS
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("then", [0, 4])
async def test_an_event(line: Line, part: Loss, key: str | None, early: bool, then: int) -> None:
    if not early:
        await line.client.submit(WAIT, "one")
    trap = line.lose(EVENT, part=part, then=then)
    await line.client.send_event("one", "go", 4, idempotency_key=key)
    assert trap.sprung()
    assert line.count("events WHERE id = 'one'") == 1
    # The next one is another one, unless it has the key.
    await line.client.send_event("one", "go", 5, idempotency_key=key)
    assert line.count("events WHERE id = 'one'") == (2 if key is None else 1)
    await line.client.submit(WAIT, "one", conflict_policy="use_existing")
    async with Worker(line.backend, WAIT, poll_interval=POLL):
        assert await line.client.result("one", timeout=LONG) == 5
    assert bodies == {("first", 4): 1}


@pytest.mark.parametrize("deed", ["event", "unpause"])
async def test_what_it_set_going_ends_before_it_is_asked_again(line: Line, deed: str) -> None:
    await line.client.submit(WAIT, "one")
    if deed == "unpause":
        await line.client.send_event("one", "go", 4)
        await line.client.pause("one")
    # All that goes through the proxy is lost, until somebody says stop.
    trap = line.lose(EVENT if deed == "event" else CHANGE, part="reply", then=1_000_000)
    asked = asyncio.ensure_future(
        line.client.send_event("one", "go", 4) if deed == "event" else line.client.unpause("one")
    )
    near = PostgresBackend(line.url)
    async with Worker(near, WAIT, poll_interval=POLL):
        assert await WorkflowClient(near).result("one", timeout=LONG) == 5
    await near.close()
    assert trap.lost
    assert not asked.done()
    line.proxy.judge = Peace()
    await asked
    assert bodies == {("first", 4): 1}


@pytest.mark.parametrize("deed", ["event", "unpause"])
async def test_who_asks_after_the_end_is_refused_however_often(line: Line, deed: str) -> None:
    await line.client.submit(WAIT, "one")
    await line.client.send_event("one", "go", 4)
    async with Worker(line.backend, WAIT, poll_interval=POLL):
        assert await line.client.result("one", timeout=LONG) == 5
    # A refusal changes nothing; so it goes with a call that does, and both are lost.
    await line.client.submit(WAIT, "other")
    await line.client.cancel("other")
    trap = line.lose("DELETE", REMOVE, part="request")
    changes, refused = await asyncio.gather(
        line.client.delete("other"),
        line.client.send_event("one", "go", 5) if deed == "event" else line.client.unpause("one"),
        return_exceptions=True,
    )
    assert changes is None
    assert isinstance(refused, InvalidStateError)
    assert "completed" in str(refused)
    assert sum(LOCK in statement for statement in trap.lost[0].statements) == 2


@PARTS
async def test_a_cancel(line: Line, part: Loss) -> None:
    await line.client.submit(WAIT, "one")
    trap = line.lose(CHANGE, part=part)
    await line.client.cancel("one", reason="enough", cancelled_by="me")
    assert trap.sprung()
    status = await line.client.status("one")
    assert (status.status, status.reason, status.cancelled_by) == ("cancelled", "enough", "me")
    with pytest.raises(WorkflowCancelled):
        await line.client.result("one", timeout=LONG)


@PARTS
async def test_pause_and_unpause(line: Line, part: Loss) -> None:
    await line.client.submit(ROW, "one", 7)
    trap = line.lose(CHANGE, part=part)
    await line.client.pause("one", reason="lunch", paused_by="me")
    assert trap.sprung()
    assert (await line.client.status("one")).status == "paused"
    trap = line.lose(CHANGE, part=part)
    await line.client.unpause("one")
    assert trap.sprung()
    assert (await line.client.status("one")).status == "in_progress"
    with pytest.raises(InvalidStateError):
        await line.client.unpause("one")
    async with Worker(line.backend, ROW, poll_interval=POLL):
        assert await line.client.result("one", timeout=LONG) == 81


@PARTS
async def test_a_delete(line: Line, part: Loss) -> None:
    await line.client.submit(ROW, "one", 7)
    await line.client.cancel("one")
    trap = line.lose("DELETE", REMOVE, part=part)
    await line.client.delete("one")
    assert trap.sprung()
    assert line.count("instances WHERE id = 'one'") == 0


@PARTS
@pytest.mark.parametrize("words", [CLAIM, CHECKPOINT, ARRIVAL])
@pytest.mark.parametrize("then", [0, 4])
async def test_a_worker(line: Line, part: Loss, words: str, then: int) -> None:
    trap = line.lose(words, part=part, then=then)
    async with Worker(line.backend, ROW, poll_interval=POLL):
        # Nobody has to wait for a lease to run out.
        handle = await line.client.submit(ROW, "one", 7)
        assert await handle.result(timeout=LONG / 2) == 81
        if words == ARRIVAL:
            # It arrived before it had anything to do; later it arrives no more.
            assert trap.lost
        else:
            assert trap.sprung()
    assert bodies == {("first", 7): 1, ("second", 8): 1, ("first", 80): 1}
    steps = await line.client.history("one")
    assert [(step.attempt, step.outcome) for step in steps] == [(1, "completed")] * 3
    assert line.count("workers") == 0
    assert line.count("instances WHERE holder IS NOT NULL") == 0


@PARTS
@pytest.mark.parametrize("then", [0, 4])
async def test_a_submit_and_the_claim_that_takes_it(line: Line, part: Loss, then: int) -> None:
    worker = HandWorker(line.backend, [ROW])
    assert await worker.claim_ids(5) == []
    trap = line.lose(SUBMIT, CLAIM, part=part, then=then)
    # While this one is under way, the others gather.
    other = asyncio.ensure_future(line.client.send_event("nobody", "go", 0))
    await asyncio.sleep(0)
    new = new_instance(ROW, "one", 7)
    _, taken = await asyncio.gather(line.backend.submit([new], "fail"), worker.claim(5))
    await other
    assert trap.sprung()
    # If nothing was committed, the claim may have been made again before the submit was.
    [held] = taken or await worker.claim(5)
    for output in (8, 80, 81):
        await held.complete(output)
    assert await line.client.result("one", timeout=LONG) == 81
    assert [step.attempt for step in await line.client.history("one")] == [1, 1, 1]
    assert line.count("inputs") == line.count("instances")


@PARTS
@pytest.mark.parametrize("words", [ITEMS_MADE, ITEM_ENDED, ITEMS_OVER])
@pytest.mark.parametrize("then", [0, 4])
async def test_items_of_a_spread_map(line: Line, part: Loss, words: str, then: int) -> None:
    trap = line.lose(words, part=part, then=then)
    async with Worker(line.backend, SPREAD, poll_interval=POLL):
        handle = await line.client.submit(SPREAD, "one", 5)
        assert await handle.result(timeout=LONG / 2) == 100
        assert trap.sprung()
    assert bodies == {("second", n): 1 for n in range(5)}
    steps = await line.client.history("one")
    assert [(step.path, step.outcome) for step in steps] == [
        ("list", "completed"),
        ("each", "completed"),
        ("sum", "completed"),
    ]
    assert line.count("items") == 5
    assert line.count("item_groups WHERE remaining <> 0") == 0
    assert line.count("events WHERE id = 'one'") == 0
    assert line.count("instances WHERE holder IS NOT NULL") == 0


@PARTS
@pytest.mark.parametrize("deed", ["cancel", "delete", "terminate_existing"])
async def test_an_end_of_a_parent(line: Line, part: Loss, deed: str) -> None:
    await line.client.submit(SPREAD, "one", 5)
    [parent] = await HandWorker(line.backend, [SPREAD]).claim()
    await parent.complete([1, 2, 3])
    trap = line.lose(ITEMS_OVER, part=part)
    match deed:
        case "cancel":
            await line.client.cancel("one")
        case "delete":
            await line.client.delete("one", force=True)
        case _:
            await line.client.submit(SPREAD, "one", 2, conflict_policy="terminate_existing")
    assert trap.sprung()
    gone = 3 if deed == "cancel" else 0
    assert line.count("instances WHERE id LIKE %s AND status = 6", "one~%") == gone
    assert line.count("items") == gone
    assert line.count("item_groups WHERE remaining <> 0") == 0
    if deed == "terminate_existing":
        async with Worker(line.backend, SPREAD, poll_interval=POLL):
            assert await line.client.result("one", timeout=LONG) == 10
        assert bodies == {("second", 0): 1, ("second", 1): 1}


@PARTS
async def test_a_renewal(line: Line, part: Loss) -> None:
    trap = line.lose(RENEWAL, part=part, then=3)

    async def hog(x: int) -> int:
        bodies["hog", x] += 1
        assert await asyncio.to_thread(trap.sprung, LONG)
        # Its lease is over by now, unless it was renewed after all.
        await asyncio.sleep(2 * 0.9)
        return x

    workflow = Flow("hog").then(hog).build()
    async with (
        Worker(line.backend, workflow, lease_ttl="900ms", poll_interval=POLL),
        Worker(line.backend, workflow, lease_ttl="900ms", poll_interval=POLL),
    ):
        handle = await line.client.submit(workflow, "one", 7)
        assert await handle.result(timeout=LONG) == 7
    assert bodies == {("hog", 7): 1}


@PARTS
async def test_a_cancel_of_a_running_body(line: Line, part: Loss) -> None:
    begun, cut = asyncio.Event(), asyncio.Event()

    async def endless(x: int) -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        return x

    workflow = Flow("endless").then(endless).build()
    async with Worker(line.backend, workflow, poll_interval=POLL), asyncio.timeout(LONG):
        handle = await line.client.submit(workflow, "one", 7)
        await begun.wait()
        trap = line.lose("asked", CHANGE, part=part)
        await line.client.cancel("one", reason="enough")
        await cut.wait()
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert trap.sprung()
    assert (await line.client.status("one")).reason == "enough"
