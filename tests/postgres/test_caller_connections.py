"""Connections that cannot be used, those that are set up in their own way, and blocking clients."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import traceback
from collections.abc import AsyncIterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import dict_row
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.postgres import drivers
from tests.postgres.drivers import ALL, autocommitting, opened, with_driver
from tests.postgres.schema import ADD, ASK, LONG, OTHER, Schema, missing, until_locked

from sayiir import (
    Flow,
    InMemoryBackend,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    SyncWorkflowClient,
    WorkflowClient,
)
from sayiir.backends import _caller

CANARY = "canary-4711"
pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def schema() -> AsyncIterator[Schema]:
    async with Schema.fresh() as made:
        yield made


async def refused(schema: Schema, connection: object, kind: type[Exception], match: str) -> None:
    """Both calls refuse it, and nothing is stored."""
    client = schema.client()
    await client.backend.next_wake()
    with pytest.raises(kind, match=match):
        await client.submit(ADD, "one", 1, connection=connection)
    with pytest.raises(kind, match=match):
        await client.send_event("one", "go", 1, connection=connection)
    assert await schema.counts() == {}


async def test_what_is_no_connection(schema: Schema) -> None:
    engine = create_engine(with_driver(schema.url, "psycopg"))
    with psycopg.connect(schema.url) as connection, sqlite3.connect(":memory:") as other:
        for what in ("postgresql://", 0, other, psycopg.Connection, InMemoryBackend()):
            await refused(schema, what, TypeError, "connection must be a connection of psycopg 3")
        makers: tuple[object, ...] = (connection.cursor(), engine, sessionmaker(engine))
        for maker in makers:
            await refused(schema, maker, TypeError, "pass the connection itself")
    other.close()
    engine.dispose()


async def test_another_database_below_sqlalchemy(schema: Schema) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, Session(engine) as session:
        for what in (connection, session):
            await refused(schema, what, TypeError, "got one of sqlite with pysqlite")
    engine.dispose()


async def test_a_backend_that_no_connection_leads_to(schema: Schema) -> None:
    client = WorkflowClient(InMemoryBackend())
    with psycopg.connect(schema.url) as connection:
        with pytest.raises(TypeError, match=r"needs a PostgresBackend.*is a InMemoryBackend"):
            await client.submit(ADD, "one", 1, connection=connection)
        with pytest.raises(TypeError, match="needs a PostgresBackend"):
            await client.send_event("one", "go", 1, connection=connection)
    assert await missing(client, "one")


@pytest.mark.parametrize("kind", ["psycopg", "psycopg_async", "asyncpg", "sqlalchemy_asyncpg"])
async def test_a_closed_connection(schema: Schema, kind: str) -> None:
    async with opened(kind, schema.url) as mine:
        closed = mine.connection.close()
        if closed is not None:
            await closed
        await refused(schema, mine.connection, ValueError, "connection is closed")


@pytest.mark.parametrize("kind", ALL)
async def test_a_transaction_that_has_failed(schema: Schema, kind: str) -> None:
    async with opened(kind, schema.url) as mine:
        with pytest.raises(Exception, match="division by zero"):
            await mine.run("SELECT 1 / 0")
        await refused(schema, mine.connection, ValueError, "a transaction that has failed")


@pytest.mark.parametrize("kind", ALL)
async def test_a_database_without_the_schema(schema: Schema, kind: str) -> None:
    async with opened(kind, schema.server.fresh_database()) as mine:
        client = schema.client()
        with pytest.raises(ValueError, match=f"has no schema '{schema.name}'.*client's backend"):
            await client.submit(ADD, "one", 1, connection=mine.connection)
        await mine.rollback()


async def test_a_database_with_a_schema_of_its_own(schema: Schema) -> None:
    """The numbers of one mean something else in the other."""
    elsewhere = Schema(schema.server, schema.name, schema.made, schema.server.fresh_database())
    ours, theirs = schema.client(), elsewhere.client()
    await ours.submit(ADD, "one", 1)
    await theirs.submit(OTHER, "one", 1)
    async with opened("psycopg", elsewhere.url) as mine:
        with pytest.raises(ValueError, match="does not know workflow 'add' as the backend does"):
            await ours.submit(ADD, "two", 1, connection=mine.connection)
        await mine.commit()
    assert await missing(ours, "two")
    assert await missing(theirs, "two")


async def test_a_snapshot_from_before_the_definition(schema: Schema) -> None:
    client = schema.client()
    await client.backend.next_wake()
    async with opened("psycopg", schema.url) as mine:
        mine.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        await mine.run("SELECT 1")
        with pytest.raises(ValueError, match=r"at REPEATABLE READ and above.*has to begin again"):
            await client.submit(ADD, "one", 1, connection=mine.connection)
        await mine.rollback()
        await client.submit(ADD, "one", 1, connection=mine.connection)
        await client.submit(
            ADD, "one", 2, conflict_policy="terminate_existing", connection=mine.connection
        )
        await mine.commit()
    async with schema.working():
        assert await client.result("one", timeout=LONG) == 3


@pytest.mark.parametrize("kind", ALL)
async def test_errors_of_the_driver_come_as_they_are_and_without_the_payload(
    schema: Schema, kind: str
) -> None:
    client = schema.client()
    async with opened(kind, schema.url) as mine:
        await mine.run("SET TRANSACTION READ ONLY")
        with pytest.raises(Exception, match="read-only transaction") as failure:
            await client.submit(ADD, "one", CANARY, connection=mine.connection)  # type: ignore[misc]
        library = type(failure.value).__module__.partition(".")[0]
        assert library in ("psycopg", "asyncpg", "sqlalchemy")
        assert CANARY not in "".join(traceback.format_exception(failure.value))
        await mine.rollback()


@pytest.mark.parametrize(
    "kind", ["psycopg", "psycopg_async", "asyncpg", "sqlalchemy psycopg", "sqlalchemy asyncpg"]
)
async def test_without_a_transaction_it_is_committed_at_once(
    schema: Schema, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call is one transaction all the same: the old instance goes only if the new one comes."""
    client = schema.client()
    on, close = await autocommitting(kind, schema.url)
    await client.submit(ASK, "one", 1, connection=on)
    await client.send_event("one", "go", 1, connection=on)
    assert await schema.counts() == {"instances": 1, "inputs": 1, "events": 1}
    erase = _caller._erase

    async def stumble(*args: Any) -> None:
        await erase(*args)
        raise OSError("stumbled")

    async def replace() -> None:
        await client.submit(ADD, "one", 1, conflict_policy="terminate_existing", connection=on)

    with monkeypatch.context() as patch:
        patch.setattr(_caller, "_erase", stumble)
        with pytest.raises(OSError, match="stumbled"):
            await replace()
    assert (await client.status("one")).workflow_id == "ask"
    assert await schema.counts() == {"instances": 1, "inputs": 1, "events": 1}
    await replace()
    assert await schema.counts() == {"instances": 1, "inputs": 1, "garbage": 1}
    async with schema.working(ADD, ASK):
        assert await client.result("one", timeout=LONG) == 2
    await close()


async def test_connections_that_were_set_up_in_their_own_way(schema: Schema) -> None:
    class Record(asyncpg.Record):  # type: ignore[misc]
        pass

    client = schema.client()

    async def use(name: str, on: object) -> None:
        await client.submit(ADD, name, 1, connection=on)
        again = await client.submit(ADD, name, 1, conflict_policy="use_existing", connection=on)
        assert again.details.workflow_id == "add"
        await client.send_event(name, "go", 1, connection=on)

    with psycopg.connect(
        schema.url, row_factory=dict_row, cursor_factory=psycopg.RawCursor[Any]
    ) as connection:
        await use("dicts", connection)
    with psycopg.connect(schema.url, cursor_factory=psycopg.ClientCursor) as on_client:
        await use("on the client", on_client)
    direct = await asyncpg.connect(schema.url, record_class=Record, statement_cache_size=0)
    await use("records", direct)
    await direct.close()
    assert await schema.counts() == {"instances": 3, "inputs": 3, "events": 3}


def threads_of(session: Session) -> list[int]:
    """Where statements were made from now on, as it grows."""
    seen: list[int] = []
    connection = session.connection()

    @event.listens_for(connection, "before_cursor_execute")
    def note(*_: Any) -> None:
        seen.append(threading.get_ident())

    return seen


@pytest.mark.parametrize("kind", drivers.BLOCKING)
async def test_a_blocking_client(schema: Schema, kind: str) -> None:
    """Its connection is used on the thread that waits, and each refusal comes out there."""

    def use(connection: Any) -> None:
        with SyncWorkflowClient(schema.backend()) as client:
            handle = client.submit(ADD, "one", 1, connection=connection)
            client.send_event("two", "go", 5, connection=connection)
            client.submit(ASK, "two", connection=connection)
            with pytest.raises(InstanceNotFoundError):
                handle.refresh()
            with pytest.raises(InstanceAlreadyExistsError):
                client.submit(ADD, "one", 1, connection=connection)
            connection.rollback()
            client.submit(ADD, "one", 2, connection=connection)
            client.submit(ASK, "two", connection=connection)
            client.send_event("two", "go", 6, connection=connection)
            connection.commit()
            assert handle.result(LONG) == 3
            assert client.result("two", LONG) == 7

    async with schema.working(ADD, ASK), opened(kind, schema.url) as mine:
        if kind == "scoped_session":
            mine.connection.remove()  # The session of this thread is not the one that is meant.

            def use_own() -> None:
                try:
                    use(mine.connection)
                finally:
                    mine.connection.remove()

            await asyncio.to_thread(use_own)
        elif kind == "session":
            seen = threads_of(mine.connection)

            def known() -> int:
                use(mine.connection)
                return threading.get_ident()

            assert {await asyncio.to_thread(known)} == set(seen)
        else:
            await asyncio.to_thread(use, mine.connection)


async def test_a_session_of_the_thread_is_the_one_of_who_calls(schema: Schema) -> None:
    """Although its statements may be made on another thread, which would have a session too."""
    engine = create_engine(with_driver(schema.url, "psycopg"))
    registry = scoped_session(sessionmaker(engine))
    client = schema.client()
    await client.submit(ADD, "awaited", 1, connection=registry)
    registry.commit()
    assert await schema.counts() == {"instances": 1, "inputs": 1}

    def here() -> None:
        with SyncWorkflowClient(client.backend) as blocking:
            blocking.submit(ADD, "blocking", 1, connection=registry)
            registry.commit()
            registry.remove()

    await asyncio.to_thread(here)
    registry.remove()
    engine.dispose()
    assert await schema.counts() == {"instances": 2, "inputs": 2}


@pytest.mark.parametrize("kind", ["psycopg_async", "asyncpg", "session_asyncpg"])
async def test_a_blocking_client_refuses_what_is_awaited(schema: Schema, kind: str) -> None:
    async with opened(kind, schema.url) as mine:

        def use() -> None:
            with (
                SyncWorkflowClient(schema.backend()) as client,
                pytest.raises(TypeError, match=r"must be a blocking one.*use WorkflowClient"),
            ):
                client.submit(ADD, "one", 1, connection=mine.connection)

        await asyncio.to_thread(use)


async def test_a_blocking_client_that_is_closed_meanwhile(schema: Schema) -> None:
    client = SyncWorkflowClient(schema.backend())
    async with opened("psycopg", schema.url) as mine, opened("psycopg", schema.url) as theirs:

        def use(connection: object) -> None:
            client.submit(ADD, "one", 1, connection=connection)

        await asyncio.to_thread(use, theirs.connection)
        waiting = asyncio.ensure_future(asyncio.to_thread(use, mine.connection))
        await until_locked(schema)
        await asyncio.to_thread(client.close)
        await theirs.rollback()
        with pytest.raises(RuntimeError, match="closed while the call was under way"):
            await waiting
        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.to_thread(use, mine.connection)


async def test_an_interrupted_blocking_client(schema: Schema) -> None:
    """What is raised in the middle of a statement comes out, and the call ends with it."""

    class Interrupt(BaseException):
        pass

    engine = create_engine(with_driver(schema.url, "psycopg"))

    @event.listens_for(engine, "before_cursor_execute", once=True)
    def strike(*_: Any) -> None:
        raise Interrupt

    def use() -> None:
        with Session(engine) as session, SyncWorkflowClient(schema.backend()) as client:
            with pytest.raises(Interrupt):
                client.submit(ADD, "one", 1, connection=session)
            session.rollback()
            client.submit(ADD, "two", 1, connection=session)
            session.commit()

    await asyncio.to_thread(use)
    engine.dispose()
    assert await schema.counts() == {"instances": 1, "inputs": 1}


async def test_without_hints_nobody_is_told(schema: Schema) -> None:
    client = schema.client(notify=False)
    listener = await psycopg.AsyncConnection.connect(schema.url, autocommit=True)
    await listener.execute(f"LISTEN {schema.name}".encode())
    async with opened("psycopg_async", schema.url) as mine:
        await client.submit(ADD, "one", 1, connection=mine.connection)
        await client.send_event("one", "go", 1, connection=mine.connection)
        await mine.commit()
        told = schema.client()
        await told.submit(ADD, "two", 1, connection=mine.connection)
        await mine.run(f"NOTIFY {schema.name}, 'last'")
        await mine.commit()
    heard = []
    async for notice in listener.notifies(timeout=LONG):
        heard.append(notice.payload)
        if notice.payload == "last":
            break
    await listener.close()
    assert [word for word in heard if word in ("work", "last")] == ["work", "last"]


async def test_a_flow_may_submit_the_next_one_with_what_it_stores(schema: Schema) -> None:
    """The outbox without an outbox: a task's own rows, and the instance that follows from them."""
    client = schema.client()

    async def book(x: int) -> int:
        async with await psycopg.AsyncConnection.connect(schema.url) as connection:
            await connection.execute(f"CREATE TABLE {schema.name}.booked (x int)".encode())
            await client.submit(ADD, "next", x, connection=connection)
        return x

    booking = Flow("booking").then(book).build()
    async with schema.working(ADD, booking):
        await client.submit(booking, "first", 1)
        assert await client.result("first", timeout=LONG) == 1
        assert await client.result("next", timeout=LONG) == 2
