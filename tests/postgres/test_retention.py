"""What is no longer kept goes by itself, a little at a time, on the database's own clock.

Time does not pass here: rows are made older instead, past the store, by the server's own hand.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.postgres.server import Server, required
from tests.sqlite.walk import BROKEN, DAY, FORK, NAP, PAYLOAD, STRAIGHT, WAIT, run_on

from sayiir import Flow, InstanceNotFoundError, PostgresBackend, Worker, WorkflowClient
from sayiir.testing import HandWorker, new_instance

LONG_S = 30.0
PIECE = 5_000
"""So many steps of deleted histories go at once."""
ITEMS = 3_000
TABLES = (*("instances", "inputs", "steps", "cells", "events", "garbage", "item_groups", "items"),)
MANY = (
    Flow("many")
    .then(lambda count: list(range(count)), name="list")
    .map(lambda n: n, name="each", spread=True)
    .wait_for_event("go")
    .build()
)
PIECES = """
CREATE TABLE {schema}.pieces (tx xid8 NOT NULL, gone bigint NOT NULL);
CREATE FUNCTION {schema}.piece() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.pieces SELECT pg_current_xact_id(), count(*) FROM gone;
    RETURN NULL;
END $$;
CREATE TRIGGER piece AFTER DELETE ON {schema}.items
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {schema}.piece();
"""
"""Has the server note how many items each transaction deletes."""
_numbers = itertools.count()


class Schema:
    """A schema of a test's own, and what stands in it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"retention_{os.getpid()}_{next(_numbers)}"

    def backend(self, **settings: Any) -> PostgresBackend:
        """One more that has it open."""
        return PostgresBackend(self.server.url(), schema=self.name, **settings)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """A statement whose tables are this schema's."""
        return self.server.execute(f"SET search_path = {self.name}; {sql}")

    def age(self, table: str, column: str, days: float, where: str = "true") -> None:
        """Make rows older."""
        self.execute(
            f"UPDATE {table} SET {column} = {column} - {int(days * DAY * 1e6)} WHERE {where}"
        )

    def count(self, table: str, where: str = "true") -> int:
        """How many rows there are."""
        sql = f"SELECT count(*) FROM {self.name}.{table} WHERE {where}"
        return int(self.server.execute(sql)[0][0])

    async def until_gone(self, table: str, where: str = "true") -> None:
        """Wait until there are no such rows; nothing tells of what is forgotten."""
        async with asyncio.timeout(LONG_S):
            while await asyncio.to_thread(self.count, table, where):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def schema() -> Iterator[Schema]:
    made = Schema(required(swift=True))
    yield made
    made.server.execute(f"DROP SCHEMA IF EXISTS {made.name} CASCADE")


async def run(backend: PostgresBackend, workflow: Any, name: str, given: Any = 1) -> None:
    """Submit an instance and do what can be done of it."""
    await backend.submit([new_instance(workflow, name, given)], "fail")
    held = await HandWorker(backend, [workflow]).claim_one(name)
    assert held is not None
    await run_on(held)


async def exists(backend: PostgresBackend, name: str) -> bool:
    try:
        await backend.get(name)
    except InstanceNotFoundError:
        return False
    return True


async def test_what_ended_is_kept_as_long_as_it_was_said(schema: Schema) -> None:
    backend = schema.backend(keep_completed="7d")
    for name, workflow in (("done", STRAIGHT), ("broken", BROKEN), ("nap", NAP), ("fork", FORK)):
        await run(backend, workflow, name)
    await backend.cancel("nap", None, None)
    await run(backend, STRAIGHT, "younger")
    schema.age("instances", "ended_us", 6.9, "id = 'younger'")
    schema.age("instances", "created_us", 100)
    schema.age("instances", "ended_us", 7.1, "id <> 'younger'")
    await schema.until_gone("instances", "id IN ('done', 'broken', 'nap')")
    # What has not ended stays for ever, and what ended later stays longer.
    assert await exists(backend, "fork")
    assert await exists(backend, "younger")
    await schema.until_gone("garbage")
    left = f"instance NOT IN (SELECT instance FROM {schema.name}.instances)"
    assert [schema.count(table, left) for table in ("steps", "inputs", "cells")] == [0, 0, 0]
    await backend.close()


async def test_without_a_limit_everything_is_kept(schema: Schema) -> None:
    before = schema.backend()
    await run(before, STRAIGHT, "done")
    await before.send_event("nobody", "go", b"", None)
    await before.close()
    schema.age("instances", "ended_us", 50 * 365)
    schema.age("events", "came_us", 50 * 365)
    backend = schema.backend()
    await backend.release("nobody")
    # The event shows that there was a sweep.
    await schema.until_gone("events")
    assert await exists(backend, "done")
    await backend.close()


async def test_an_idle_process_forgets_by_itself(schema: Schema) -> None:
    backend = schema.backend(keep_completed=0.0)
    for n in range(50):
        await run(backend, STRAIGHT, f"i-{n}")
        await run(backend, WAIT, f"w-{n}")
        await backend.send_event(f"w-{n}", "other", b"", "k")
        await backend.cancel(f"w-{n}", None, None)
    for table in TABLES:
        await schema.until_gone(table)
    await backend.close()


async def test_a_long_history_goes_later_and_the_id_is_free_at_once(schema: Schema) -> None:
    backend = schema.backend(keep_completed="1d")
    await run(backend, STRAIGHT, "long")
    schema.execute(
        "INSERT INTO steps SELECT instance, 0, 0, 10 + n, 1, NULL, NULL, 'p', NULL, NULL, NULL"
        f" FROM instances, generate_series(1, {3 * PIECE}) AS n"
    )
    await backend.delete("long", False)
    await run(backend, STRAIGHT, "long")
    assert len(await backend.history("long")) == 2
    await schema.until_gone("garbage")
    assert schema.count("steps") == 2
    await backend.close()


async def test_items_are_kept_until_their_parent_goes(schema: Schema) -> None:
    backend = schema.backend(keep_completed="7d")
    client = WorkflowClient(backend)
    async with Worker(backend, MANY, concurrency=64, poll_interval="1h"):
        handle = await client.submit(MANY, "many", ITEMS)
        async with asyncio.timeout(LONG_S):
            while (await handle.refresh()).status != "awaiting_signal":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await backend.send_event("early", "go", b"", None)
        schema.age("instances", "created_us", 100)
        schema.age("instances", "updated_us", 100)
        schema.age("events", "came_us", 100)
        # The event shows that there was a sweep.
        await schema.until_gone("events", "id = 'early'")
        assert schema.count("items") == ITEMS
        assert schema.count("instances") == ITEMS + 1
        await client.send_event("many", "go", PAYLOAD)
        await handle.result(timeout=LONG_S)
    schema.age("instances", "ended_us", 8)
    for table in TABLES:
        await schema.until_gone(table)
    await backend.close()


async def test_a_deleted_parent_takes_its_items_along_in_pieces(schema: Schema) -> None:
    backend = schema.backend(keep_completed="7d")
    client = WorkflowClient(backend)
    async with Worker(backend, MANY, concurrency=64, poll_interval="1h"):
        handle = await client.submit(MANY, "many", ITEMS)
        async with asyncio.timeout(LONG_S):
            while (await handle.refresh()).status != "awaiting_signal":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    # The server itself notes what each transaction took: who polls may miss some under load.
    with psycopg.connect(schema.server.url(), autocommit=True) as eye:
        eye.execute(PIECES.format(schema=schema.name).encode())
        await backend.delete("many", True)
        await schema.until_gone("items")
        sizes = [
            size
            for (size,) in eye.execute(
                f"SELECT sum(gone)::bigint FROM {schema.name}.pieces GROUP BY tx".encode()
            ).fetchall()
        ]
    assert sum(sizes) == ITEMS
    assert len(sizes) > 3, sizes
    for table in TABLES:
        await schema.until_gone(table)
    await backend.close()


async def test_what_was_left_is_swept_by_the_next_process(schema: Schema) -> None:
    backend = schema.backend()
    await run(backend, STRAIGHT, "done")
    await backend.delete("done", False)
    await backend.close()
    # Whether it was swept before is as it may be: there is more of it now.
    schema.execute("INSERT INTO garbage VALUES (1) ON CONFLICT DO NOTHING")
    schema.execute("INSERT INTO steps VALUES (1, 0, 0, 99, 1, NULL, NULL, 'p', NULL, NULL, NULL)")
    heir = schema.backend()
    await heir.release("nobody")
    await schema.until_gone("garbage")
    assert schema.count("steps") == 0
    await heir.close()


async def test_early_events_wait_a_week_and_no_longer(schema: Schema) -> None:
    backend = schema.backend()
    client = WorkflowClient(backend)
    await client.send_event("in-time", "go", PAYLOAD)
    await client.send_event("late", "go", PAYLOAD, idempotency_key="k")
    schema.age("events", "came_us", 6.9, "id = 'in-time'")
    schema.age("events", "came_us", 7.1, "id = 'late'")
    await run(backend, WAIT, "in-time")
    assert (await backend.get("in-time")).status == "completed"
    await run(backend, WAIT, "late")
    assert (await backend.get("late")).status == "awaiting_signal"
    # An event for an instance that is there waits as long as it takes, and its key is new again.
    assert await backend.send_event("late", "other", b"", "k")
    schema.age("events", "came_us", 100)
    await client.send_event("late", "go", PAYLOAD, idempotency_key="k")
    held = await HandWorker(backend, [WAIT]).claim_one("late")
    assert held is not None
    await run_on(held)
    assert (await backend.get("late")).status == "completed"
    await backend.close()
    assert schema.count("events") == 0


async def test_very_many_early_events_are_forgotten(schema: Schema) -> None:
    backend = schema.backend(keep_completed="1d")
    calls = (backend.send_event(f"e-{n}", "go", b"", None) for n in range(600))
    await asyncio.gather(*calls)
    schema.age("events", "came_us", 8)
    await schema.until_gone("events")
    await backend.close()
