"""The lines of `docs/postgres.md` that work in a transaction of the reader's own, as they are.

What the page leaves to the reader (a pool, an engine, a table of orders, a worker) is given here.
"""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.papers import ROOT, Block, blocks
from tests.postgres.drivers import with_driver
from tests.postgres.schema import LONG, Schema

from sayiir import Flow, SyncWorkflowClient

PAGE = ROOT / "docs/postgres.md"
ASYNC, BLOCKING = (
    block for block in blocks(PAGE.read_text(encoding="utf-8")) if block.word == "transaction"
)
pytestmark = pytest.mark.timeout(120)


def deliver(order: str) -> str:
    return f"{order} is on its way"


DELIVER = Flow("deliver").then(deliver).build()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)


class Pool:
    """What a pool of psycopg does with a connection: it commits, and rolls back after an error."""

    def __init__(self, url: str) -> None:
        self.url = url

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            yield connection


async def run(block: Block, names: dict[str, Any]) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block.code, str(PAGE), "exec", flags=flags)
    if code.co_flags & inspect.CO_COROUTINE:
        await asyncio.wait_for(eval(code, names), LONG)
    else:
        await asyncio.to_thread(exec, code, names)


async def test_an_order_and_its_workflow_are_stored_together() -> None:
    async with Schema.fresh() as schema, schema.working(DELIVER) as client:
        await client.backend.next_wake()  # Which makes the schema.
        await schema.rows("CREATE TABLE sayiir.orders (id text PRIMARY KEY)")
        pool = Pool(make_conninfo(schema.url, options=f"-csearch_path={schema.name}"))
        names: dict[str, Any] = {"client": client, "pool": pool, "deliver": DELIVER}
        await run(ASYNC, names | {"order_id": "order-1", "order": "a lamp"})
        assert await client.result("order-1") == "a lamp is on its way"
        assert await schema.rows("SELECT id FROM sayiir.orders") == [("order-1",)]
        # The order is there already: neither is stored.
        await schema.rows("INSERT INTO sayiir.orders VALUES ('order-2')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await run(ASYNC, names | {"order_id": "order-2", "order": "a lamp"})
        assert [row.instance_id for row in await client.list_instances()] == ["order-1"]


async def test_an_order_of_sqlalchemy_and_its_workflow_are_stored_together() -> None:
    async with Schema.fresh() as schema, schema.working(DELIVER) as watching:
        await watching.backend.next_wake()  # Which makes the schema.
        await schema.rows("CREATE TABLE sayiir.orders (id text PRIMARY KEY)")
        search = {"options": f"-csearch_path={schema.name}"}
        engine = create_engine(with_driver(schema.url, "psycopg"), connect_args=search)
        client = SyncWorkflowClient(schema.backend())
        names: dict[str, Any] = {
            "client": client,
            "deliver": DELIVER,
            "engine": engine,
            "order": "a lamp",
            "order_id": "order-1",
            "Order": Order,
            "Session": Session,
        }
        await run(BLOCKING, names)
        assert await watching.result("order-1", timeout=LONG) == "a lamp is on its way"
        assert await schema.rows("SELECT id FROM sayiir.orders") == [("order-1",)]
        await asyncio.to_thread(client.close)
        engine.dispose()
