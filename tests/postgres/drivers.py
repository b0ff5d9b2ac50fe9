"""A transaction of a caller's, opened with each of the libraries that `connection=` knows.

`opened(kind, url)` gives a `Transaction` with one way to say what they all can: run a statement,
commit, roll back, and do something in a nested transaction that is rolled back. What sayiir does
with the connection is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

BLOCKING = ("psycopg", "sqlalchemy", "session", "scoped_session")
AWAITED = (
    "psycopg_async",
    "asyncpg",
    "asyncpg_pool",
    "sqlalchemy_psycopg",
    "sqlalchemy_asyncpg",
    "session_psycopg",
    "session_asyncpg",
)
ALL = (*BLOCKING, *AWAITED)


class WrongTurn(Exception):
    """Ends a nested transaction, so that it is rolled back."""


@dataclass
class Transaction:
    """An open connection and the transaction it is in."""

    connection: Any
    run: Callable[[str], Awaitable[Any]]
    """Run a statement of the caller's own."""
    commit: Callable[[], Awaitable[None]]
    rollback: Callable[[], Awaitable[None]]
    nested: Callable[[], Any]
    """A context manager: a transaction within the transaction; asynchronous or not."""

    async def wrong_turn(self, inside: Callable[[], Awaitable[Any]]) -> None:
        """Do this in a nested transaction, and roll that back."""
        nested = self.nested()
        try:
            if hasattr(nested, "__aenter__"):
                async with nested:
                    await inside()
                    raise WrongTurn
            else:
                with nested:
                    await inside()
                    raise WrongTurn
        except WrongTurn:
            pass


def with_driver(url: str, driver: str) -> str:
    """The URL as SQLAlchemy takes it."""
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Transaction]:
    """A connection with a transaction; what is not committed at the end is rolled back."""
    async with AsyncExitStack() as stack:
        if kind == "psycopg":
            connection = stack.enter_context(closing(psycopg.connect(url)))
            yield _blocking(connection, connection.execute, connection.transaction)
        elif kind == "psycopg_async":
            awaited = await psycopg.AsyncConnection.connect(url)
            stack.push_async_callback(awaited.close)
            yield Transaction(
                awaited, awaited.execute, awaited.commit, awaited.rollback, awaited.transaction
            )
        elif kind == "asyncpg":
            direct = await asyncpg.connect(url)
            stack.push_async_callback(direct.close)
            yield await _begun(direct)
        elif kind == "asyncpg_pool":
            pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, max_size=1))
            yield await _begun(await stack.enter_async_context(pool.acquire()))
        elif kind in BLOCKING:
            engine = create_engine(with_driver(url, "psycopg"))
            stack.callback(engine.dispose)
            if kind == "sqlalchemy":
                core = stack.enter_context(engine.connect())
                yield _blocking(core, core.exec_driver_sql, core.begin_nested)
            else:
                registry = scoped_session(sessionmaker(engine))
                session = registry() if kind == "session" else registry
                stack.callback(registry.remove)

                def run(sql: str) -> Any:
                    return session.connection().exec_driver_sql(sql)

                yield _blocking(session, run, session.begin_nested)
        else:
            what, _, driver = kind.partition("_")
            async_engine = create_async_engine(with_driver(url, driver))
            stack.push_async_callback(async_engine.dispose)
            if what == "sqlalchemy":
                one = await stack.enter_async_context(async_engine.connect())
                yield Transaction(
                    one, one.exec_driver_sql, one.commit, one.rollback, one.begin_nested
                )
            else:
                of = await stack.enter_async_context(AsyncSession(async_engine))

                async def run_async(sql: str) -> Any:
                    return await (await of.connection()).exec_driver_sql(sql)

                yield Transaction(of, run_async, of.commit, of.rollback, of.begin_nested)


async def autocommitting(kind: str, url: str) -> tuple[Any, Callable[[], Any]]:
    """A connection whose statements are transactions of their own, and what closes it."""
    if kind == "psycopg":
        blocking = psycopg.connect(url, autocommit=True)
        return blocking, lambda: asyncio.to_thread(blocking.close)
    if kind == "psycopg_async":
        awaited = await psycopg.AsyncConnection.connect(url, autocommit=True)
        return awaited, awaited.close
    if kind == "asyncpg":
        direct = await asyncpg.connect(url)
        return direct, direct.close
    engine = create_async_engine(with_driver(url, kind.split()[1]), isolation_level="AUTOCOMMIT")
    core = await engine.connect()

    async def close() -> None:
        await core.close()
        await engine.dispose()

    return core, close


def _blocking(connection: Any, run: Callable[..., Any], nested: Callable[[], Any]) -> Transaction:
    async def ran(sql: str) -> Any:
        return run(sql)

    async def commit() -> None:
        connection.commit()

    async def rollback() -> None:
        connection.rollback()

    return Transaction(connection, ran, commit, rollback, nested)


async def _begun(connection: Any) -> Transaction:
    """With asyncpg transactions are objects; a connection without one commits each statement."""
    outer = connection.transaction()
    await outer.start()
    return Transaction(
        connection, connection.execute, outer.commit, outer.rollback, connection.transaction
    )
