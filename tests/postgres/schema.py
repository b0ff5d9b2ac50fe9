"""A schema of its own for each test of `connection=`: who uses it, and what is in its tables.

Workers made here never poll, so that what they do was told to them. Waiting is for facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import pytest
from tests.postgres.server import Server, required

from sayiir import (
    Flow,
    InstanceNotFoundError,
    PostgresBackend,
    Status,
    Worker,
    Workflow,
    WorkflowClient,
)

LONG = 30.0
NEVER = "1h"
TABLES = ("instances", "inputs", "events", "cells", "garbage", "item_groups", "items")
_numbers = count()


def increase(x: int) -> int:
    return x + 1


def double(x: int) -> int:
    return 2 * x


ADD = Flow("add").then(increase).build()
OTHER = Flow("add").then(double).then(increase).build()
ASK = Flow("ask").wait_for_event("go").then(increase).build()


@dataclass
class Schema:
    """A schema on the server, and who uses it."""

    server: Server
    name: str
    made: list[PostgresBackend] = field(default_factory=list)
    elsewhere: str | None = None
    """The URL of another database than the server's own."""

    @classmethod
    @asynccontextmanager
    async def fresh(cls) -> AsyncIterator[Self]:
        """One that is empty, and goes at the end."""
        schema = cls(required(swift=True), f"caller_{next(_numbers)}")
        try:
            yield schema
        finally:
            for backend in schema.made:
                await backend.close()
            await schema.rows(f"DROP SCHEMA IF EXISTS {schema.name} CASCADE")

    @property
    def url(self) -> str:
        return self.server.url() if self.elsewhere is None else self.elsewhere

    def backend(self, **settings: Any) -> PostgresBackend:
        """One more object for it, as another process would have it."""
        backend = PostgresBackend(self.url, schema=self.name, **settings)
        self.made.append(backend)
        return backend

    def client(self, **settings: Any) -> WorkflowClient:
        return WorkflowClient(self.backend(**settings))

    @asynccontextmanager
    async def working(self, *workflows: Workflow[Any, Any]) -> AsyncIterator[WorkflowClient]:
        """While a worker of these runs; a client of its own backend object."""
        backend = self.backend()
        async with Worker(backend, workflows or (ADD,), poll_interval=NEVER):
            yield WorkflowClient(backend)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Of a statement on these tables, as everybody else sees them."""
        text = sql.replace("sayiir.", f"{self.name}.")
        return await asyncio.to_thread(self.server.execute, text)

    async def counts(self) -> dict[str, int]:
        """How many rows each table has, if it has any."""
        columns = ", ".join(f"(SELECT count(*) FROM sayiir.{table})" for table in TABLES)
        [row] = await self.rows(f"SELECT {columns}")
        return {table: n for table, n in zip(TABLES, row, strict=True) if n}


async def until(fact: Callable[[], Awaitable[object]]) -> None:
    """Wait until this gives something true."""
    async with asyncio.timeout(LONG):
        while not await fact():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def missing(client: WorkflowClient, *ids: str) -> bool:
    """Whether nobody else sees any of these."""
    for instance_id in ids:
        with pytest.raises(InstanceNotFoundError):
            await client.status(instance_id)
    return True


async def until_parked(client: WorkflowClient, instance_id: str) -> None:
    """Wait until an instance waits for its event."""

    async def parked() -> bool:
        return (await client.status(instance_id)).status == Status.AWAITING_SIGNAL

    await until(parked)


async def until_locked(schema: Schema) -> None:
    """Wait until somebody waits for somebody else's lock."""
    await until(lambda: schema.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))
