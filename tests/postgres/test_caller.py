"""Submits and events in the caller's transaction: there if and only if the caller commits.

Every library is tried with a real server. Workers have a backend object of their own and never
poll, so a test that ends is one whose worker was woken by the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.postgres.drivers import ALL, Transaction, opened
from tests.postgres.schema import (
    ADD,
    ASK,
    LONG,
    OTHER,
    Schema,
    double,
    increase,
    missing,
    until_locked,
    until_parked,
)

from sayiir import (
    ConflictPolicy,
    DefinitionMismatchError,
    EncodeError,
    Flow,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    Status,
    WorkflowFailed,
)
from sayiir.backends import _caller

EACH = ("session", "psycopg_async", "asyncpg")
"""One that blocks, and two that are awaited and take their parameters in different ways."""
in_all_ways = pytest.mark.parametrize("mine", ALL, indirect=True)
"""With everything that a library calls a connection."""
pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def schema() -> AsyncIterator[Schema]:
    async with Schema.fresh() as made:
        yield made


@pytest_asyncio.fixture(params=EACH)
async def mine(request: pytest.FixtureRequest, schema: Schema) -> AsyncIterator[Transaction]:
    """A transaction of the caller's: a test that uses it runs once with each library."""
    async with opened(request.param, schema.url) as transaction:
        yield transaction


@in_all_ways
async def test_a_commit_makes_it_run_and_wakes_a_worker(schema: Schema, mine: Transaction) -> None:
    table = f"{schema.name}.orders"
    client = schema.client()
    async with schema.working() as theirs:
        await theirs.backend.next_wake()  # The schema is there.
        await mine.run(f"CREATE TABLE {table} (id text)")
        await mine.run(f"INSERT INTO {table} VALUES ('o-1')")
        named = await client.submit(ADD, "o-1", 41, connection=mine.connection)
        unnamed = await client.submit(ADD, input=1, connection=mine.connection)
        assert named.status == unnamed.status == Status.IN_PROGRESS
        assert await missing(client, "o-1", unnamed.instance_id)
        with pytest.raises(InstanceNotFoundError):
            await named.result(timeout=0)
        await mine.commit()
        assert await named.result(timeout=LONG) == 42
        assert await unnamed.result(timeout=LONG) == 2
    assert await schema.rows(f"SELECT id FROM {table}") == [("o-1",)]


@in_all_ways
async def test_a_rollback_leaves_nothing(schema: Schema, mine: Transaction) -> None:
    client = schema.client()
    await client.submit(ADD, "gone", 1, connection=mine.connection)
    await client.send_event("gone", "go", 1, connection=mine.connection)
    await client.send_event("never", "go", 1, connection=mine.connection, idempotency_key="k")
    await mine.rollback()
    assert await missing(client, "gone", "never")
    assert await schema.counts() == {}
    await client.submit(ADD, "gone", 2)
    async with schema.working():
        assert await client.result("gone", timeout=LONG) == 3


@in_all_ways
async def test_a_nested_rollback_takes_its_own_along(schema: Schema, mine: Transaction) -> None:
    client = schema.client()
    await client.submit(ADD, "outer", 1, connection=mine.connection)

    async def inside() -> None:
        await client.submit(ADD, "inner", 1, connection=mine.connection)
        await client.send_event("outer", "go", 1, connection=mine.connection)

    await mine.wrong_turn(inside)
    await client.submit(ADD, "after", 1, connection=mine.connection)
    await mine.commit()
    assert await missing(client, "inner")
    assert await schema.counts() == {"instances": 2, "inputs": 2}


@pytest.mark.parametrize("here", [True, False], ids=["own", "committed"])
async def test_conflicts_are_ours_and_leave_the_transaction_as_it_was(
    schema: Schema, mine: Transaction, here: bool
) -> None:
    """With an instance that is committed, or that the transaction itself made before."""
    on = mine.connection
    client = schema.client()
    await client.submit(ADD, "one", 1, connection=on if here else None)
    with pytest.raises(InstanceAlreadyExistsError, match="'one' already exists and is in_progress"):
        await client.submit(ADD, "one", 2, connection=on)
    for policy in (ConflictPolicy.FAIL, ConflictPolicy.USE_EXISTING):
        with pytest.raises(DefinitionMismatchError) as mismatch:
            await client.submit(OTHER, "one", 2, conflict_policy=policy, connection=on)
    assert mismatch.value.expected == OTHER.definition_hash
    assert mismatch.value.found == ADD.definition_hash
    nothing: Any = object()
    # A conflict comes before the encoding, and an existing instance needs no input.
    with pytest.raises(InstanceAlreadyExistsError):
        await client.submit(ADD, "one", nothing, connection=on)
    for value in (3, nothing):
        same = await client.submit(ADD, "one", value, conflict_policy="use_existing", connection=on)
        assert same.status == Status.IN_PROGRESS
        assert same.details.created_at is not None
    with pytest.raises(EncodeError, match="nothing was stored for instance 'two'"):
        await client.submit(ADD, "two", nothing, connection=on)
    await client.submit(ADD, "three", 3, connection=on)
    await mine.commit()
    assert await missing(client, "two")
    async with schema.working(ADD, OTHER):
        assert await client.result("one", timeout=LONG) == 2
        assert await client.result("three", timeout=LONG) == 4


@pytest.mark.parametrize("here", [True, False], ids=["own", "committed"])
async def test_the_former_instance_goes_with_all_that_belongs_to_it(
    schema: Schema, mine: Transaction, here: bool
) -> None:
    on = mine.connection if here else None
    client = schema.client()
    await client.submit(ASK, "one", 1, connection=on)
    await client.send_event("one", "other", 1, connection=on, idempotency_key="k")
    await client.submit(
        ADD, "one", 9, conflict_policy="terminate_existing", connection=mine.connection
    )
    if not here:
        assert (await client.status("one")).workflow_id == "ask"
    await mine.commit()
    assert (await client.status("one")).workflow_id == "add"
    assert await schema.counts() == {"instances": 1, "inputs": 1, "garbage": 1}
    async with schema.working(ADD, ASK):
        assert await client.result("one", timeout=LONG) == 10


async def test_an_event_wakes_its_instance_with_the_commit(
    schema: Schema, mine: Transaction
) -> None:
    client = schema.client()
    handle = await client.submit(ASK, "one")
    async with schema.working(ASK):
        await until_parked(client, "one")
        await client.send_event("one", "go", 1, connection=mine.connection)
        await mine.rollback()
        if "asyncpg" in type(mine.connection).__module__:
            # Its transactions are objects, and this one is over: each statement commits now.
            await client.send_event("one", "go", 2, connection=mine.connection)
        else:
            await client.send_event("one", "go", 2, connection=mine.connection)
            assert (await client.status("one")).status == Status.AWAITING_SIGNAL
            await mine.commit()
        assert await handle.result(timeout=LONG) == 3


async def test_events_before_their_instance_and_in_its_transaction(
    schema: Schema, mine: Transaction
) -> None:
    """In order, once per key, whichever came with a transaction of the sender's own."""
    on = mine.connection
    twice = Flow("twice").wait_for_event("go").then(str).wait_for_event("go").then(double).build()
    client = schema.client()
    await client.send_event("one", "go", 1, idempotency_key="a")
    await client.send_event("one", "go", 5, connection=on, idempotency_key="a")
    await client.submit(twice, "one", connection=on)
    await client.send_event("one", "go", 6, connection=on, idempotency_key="a")
    await client.send_event("one", "go", 2, connection=on, idempotency_key="b")
    await client.send_event("one", "go", 7, connection=on, idempotency_key="b")
    await client.send_event("one", "go", 3, connection=on)
    await mine.commit()
    async with schema.working(twice):
        assert await client.result("one", timeout=LONG) == 4
    assert [step.path for step in await client.history("one")][-1] == "double"


async def test_an_event_for_an_ended_instance_is_refused(schema: Schema, mine: Transaction) -> None:
    client = schema.client()
    await client.submit(ASK, "one")
    await client.cancel("one")
    with pytest.raises(
        InvalidStateError, match="cannot send an event to instance 'one'"
    ) as refused:
        await client.send_event("one", "go", 1, connection=mine.connection)
    assert refused.value.state == "cancelled"
    assert refused.value.instance_id == "one"
    await client.send_event("two", "go", 1, connection=mine.connection)
    await mine.commit()
    assert await schema.counts() == {"instances": 1, "inputs": 1, "events": 1}


async def test_an_early_event_that_waited_too_long_does_not_count(
    schema: Schema, mine: Transaction
) -> None:
    client = schema.client(keep_events=0)
    on = mine.connection
    await client.send_event("one", "go", 1, idempotency_key="k")
    await client.send_event("one", "go", 2, connection=on, idempotency_key="k")
    await client.submit(ASK, "one", connection=on)
    await mine.commit()
    assert await schema.counts() == {"instances": 1, "inputs": 1}


async def test_a_later_start(schema: Schema, mine: Transaction) -> None:
    client = schema.client()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    yesterday = tomorrow - timedelta(days=2)
    later = await client.submit(ADD, "later", 1, start_at=tomorrow, connection=mine.connection)
    await client.submit(ADD, "now", 1, start_at=yesterday, connection=mine.connection)
    assert later.status == Status.WAITING
    await mine.commit()
    status = await client.status("later")
    assert status.status == Status.WAITING
    assert status.wake_at is not None
    assert abs(status.wake_at - tomorrow) < timedelta(milliseconds=1)
    assert (await client.status("now")).status == Status.IN_PROGRESS


async def test_nobody_waits_for_an_open_transaction(schema: Schema, mine: Transaction) -> None:
    """It submitted, and sent events to instances that wait and that run; all go on regardless."""
    client = schema.client()
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(x: int) -> int:
        began.set()
        await go_on.wait()
        return x

    running = Flow("running").then(slow).then(increase).wait_for_event("go").build()
    async with schema.working(ADD, ASK, running) as theirs:
        await theirs.submit(running, "running", 1)
        await theirs.submit(ASK, "parked", 1)
        await until_parked(client, "parked")
        async with asyncio.timeout(LONG):
            await began.wait()
        on = mine.connection
        await client.submit(ADD, "mine", 1, connection=on)
        await client.submit(ASK, "mine too", 1, connection=on)
        await client.send_event("running", "go", "in time", connection=on)
        await client.send_event("parked", "go", 1, connection=on)
        go_on.set()
        many = await theirs.submit_many(ADD, [(None, n) for n in range(50)])
        assert [await one.result(timeout=LONG) for one in many] == list(range(1, 51))
        await until_parked(client, "running")
        await theirs.send_event("parked", "go", 5)
        assert await client.result("parked", timeout=LONG) == 6
        assert await missing(client, "mine", "mine too")
        await mine.commit()
        assert await client.result("mine", timeout=LONG) == 2
        assert await client.result("running", timeout=LONG) == "in time"


async def test_of_two_transactions_the_second_waits_for_the_first(
    schema: Schema, mine: Transaction
) -> None:
    client = schema.client()
    async with opened("psycopg_async", schema.url) as theirs:
        await client.submit(ADD, "rolled back", 1, connection=theirs.connection)
        await client.submit(ADD, "committed", 1, connection=theirs.connection)
        waiting = asyncio.ensure_future(
            client.submit(ADD, "rolled back", 2, connection=mine.connection)
        )
        await until_locked(schema)
        await theirs.rollback()
        await waiting
        await client.submit(ADD, "committed", 1, connection=theirs.connection)
        waiting = asyncio.ensure_future(
            client.submit(ADD, "committed", 2, connection=mine.connection)
        )
        await until_locked(schema)
        await theirs.commit()
        with pytest.raises(InstanceAlreadyExistsError):
            await waiting
    await mine.commit()
    assert await client.backend.input("rolled back") != await client.backend.input("committed")


@in_all_ways
async def test_an_abandoned_call_leaves_the_connection_to_its_owner(
    schema: Schema, mine: Transaction
) -> None:
    client = schema.client()
    async with opened("psycopg_async", schema.url) as theirs:
        await client.submit(ADD, "one", 1, connection=theirs.connection)
        waiting = asyncio.ensure_future(client.submit(ADD, "one", 2, connection=mine.connection))
        await until_locked(schema)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await mine.rollback()
        assert not await schema.rows("SELECT 1 FROM pg_locks WHERE NOT granted")
        await client.submit(ADD, "two", 2, connection=mine.connection)


async def test_rows_are_as_the_backend_makes_and_reads_them(schema: Schema) -> None:
    """Column by column, so that no later column is forgotten on one of the two sides."""
    client = schema.client()

    def broken(x: int) -> int:
        raise ValueError(x)

    napping = Flow("nap").delay("nap", "1h").then(increase).build()
    failing = Flow("fail").then(broken).build()
    start_at = datetime.now(UTC) + timedelta(days=1)
    with psycopg.connect(schema.url) as connection:
        for workflow, at in ((ADD, None), (ASK, start_at)):
            pair = []
            for on in (None, connection):
                await client.send_event(f"{workflow.workflow_id} {on is None}", "go", 1)
                handle = await client.submit(
                    workflow, f"{workflow.workflow_id} {on is None}", 1, start_at=at, connection=on
                )
                connection.commit()
                for table in ("instances", "inputs", "events"):
                    key = "id" if table == "events" else "instance"
                    [row] = await schema.rows(
                        f"SELECT to_jsonb(t) FROM sayiir.{table} t WHERE t.{key} = (SELECT i.{key} "
                        f"FROM sayiir.instances i WHERE i.id = '{handle.instance_id}')"
                    )
                    pair.append(row[0])
            ours, theirs = pair[:3], pair[3:]
            assert [likeness(row) for row in ours] == [likeness(row) for row in theirs]
        await client.submit(ASK, "asks", 1)
        await client.submit(napping, "naps", 1)
        await client.submit(failing, "fails", 1)
        await client.submit(ADD, "adds", 1)
        await client.submit(ASK, "stops", 1)
        await client.submit(OTHER, "rests", 1)
        await client.pause("rests", "tired", "me")
        async with schema.working(ADD, ASK, napping, failing):
            await until_parked(client, "asks")
            await until_parked(client, "stops")
            await client.cancel("stops", "enough", "me")
            await client.result("adds", timeout=LONG)
            with pytest.raises(WorkflowFailed):
                await client.result("fails", timeout=LONG)
        programs = {"asks": ASK, "naps": napping, "fails": failing, "adds": ADD, "stops": ASK}
        seen = set()
        for name, workflow in (programs | {"rests": OTHER, "ask False": ASK}).items():
            there = await client.backend.get(name)
            found = await _caller.check_on(
                connection, schema.name, name, workflow.program, "use_existing"
            )
            assert found == there
            seen.add(there.status)
    assert {*seen, "in_progress"} == {str(status) for status in Status}


def likeness(row: dict[str, Any]) -> dict[str, Any]:
    """What two rows that were made alike have in common, and how their times stand together."""
    alike = dict(row)
    if "created_us" in row:
        alike["later"] = (row["order_us"] - (row["start_at_us"] or row["created_us"])) / 1_000_000
        alike["at once"] = row["created_us"] == row["updated_us"]
        alike["starts"] = row["start_at_us"] is not None
        alike["wakes"] = row["wake_us"] == row["start_at_us"]
        alike["fence"] = row["fence"] == row["instance"] << 20
    if "token" in row:
        assert row["token"] >= 0
    own = ("instance", "id", "event", "token", "created_us", "updated_us", "order_us", "came_us")
    for column in (*own, "start_at_us", "wake_us"):
        alike.pop(column, None)
    return alike
