"""Connections of other libraries, told apart and asked: psycopg 3, asyncpg, SQLAlchemy.

A `Foreign` is a connection that belongs to the caller. It is asked one SQL statement at a time and
gives all of its rows. A library is never imported here: a connection of its own can only be at hand
if somebody else has imported it. Connections are neither opened nor closed, and transactions
neither begun nor ended. What the statements say is not known here.

Statements are written as asyncpg takes them (`$1`), with a cast for each parameter, and are
translated for the others.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Protocol

__all__ = ["Errand", "Foreign", "Place", "on_a_thread", "recognise"]

Rows = Sequence[Sequence[Any]]
Errand = Callable[[], Any]
"""One statement on a connection that blocks the thread it is asked on; what it gives are rows."""


class Place(Protocol):
    """Where errands are run; a second argument makes one that is under way fail soon."""

    def __call__(self, errand: Errand, interrupt: Callable[[], None], /) -> Awaitable[Any]:
        """Run it, and give what it gives or raises."""


_DRIVERS = ("asyncpg", "psycopg")
_IDLE = 0
_PARAMETER = re.compile(r"\$(\d+)")
_TAKEN = (
    "a connection of psycopg 3 (Connection, AsyncConnection), of asyncpg, or of SQLAlchemy "
    "(Connection, Session, AsyncConnection, AsyncSession)"
)


class Foreign(Protocol):
    """A connection of the caller's."""

    blocking: bool
    """Whether a statement blocks the thread that it is made on."""

    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        """All rows of a statement; none if it has none. Its driver's errors come as they are."""

    async def commits_at_once(self) -> bool:
        """Whether each statement is a transaction of its own; known after the first one."""


async def on_a_thread(errand: Errand, interrupt: Callable[[], None]) -> Any:
    """The place of errands that must not keep an event loop waiting.

    Who gives up on an errand gets the connection back only when nothing runs on it any more.
    """
    running = asyncio.ensure_future(asyncio.to_thread(errand))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        interrupted = asyncio.ensure_future(asyncio.to_thread(interrupt))
        while not (running.done() and interrupted.done()):
            with suppress(asyncio.CancelledError):
                await asyncio.wait((running, interrupted))
        # What became of them is no longer asked for; whoever cancelled will look at the connection.
        _ = running.cancelled() or running.exception(), interrupted.exception()
        raise


def recognise(connection: object, place: Place = on_a_thread) -> Foreign:
    """The connection in a form that can be asked, whatever its library.

    Args:
        connection: The connection; what this function made comes back as it is.
        place: Where statements are run that block their thread.

    Raises:
        TypeError: It is of no kind that is known.
        ValueError: It is closed.

    >>> recognise("postgresql://host/db")
    Traceback (most recent call last):
    ...
    TypeError: connection must be a connection of psycopg 3 …, got str
    """
    if isinstance(connection, _Blocking | _Waiting):
        return connection
    for module, name, make in _KINDS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is None or not isinstance(connection, kind):
            continue
        if name in _REGISTRIES:
            # Each thread, or task, has a session of its own: the one of who calls is meant.
            return recognise(connection(), place)
        if _is_closed(connection):
            raise ValueError(
                f"connection is closed ({_described(connection)}); open another one, "
                "and begin its transaction again"
            )
        return make(connection, place)
    hint = ""
    if isinstance(connection, type):
        hint = "; it is the class itself"
    elif type(connection).__module__.partition(".")[0] in {*_DRIVERS, "psycopg_pool", "sqlalchemy"}:
        hint = "; pass the connection itself, not what gives connections, nor what belongs to one"
    elif type(connection).__module__.partition(".")[0] == "psycopg2":
        hint = "; it is of psycopg2, so open it with psycopg 3"
    raise TypeError(f"connection must be {_TAKEN}, got {_described(connection)}{hint}")


class _Blocking:
    """A connection whose statements block their thread."""

    blocking = True

    def __init__(self, connection: Any, place: Place) -> None:
        self._connection = connection
        self._place = place

    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        rows: Rows = await self._place(partial(self._ask, sql, values), self._interrupt)
        return rows

    async def commits_at_once(self) -> bool:
        return _is_idle(self._driver())

    def _ask(self, sql: str, values: Sequence[object]) -> Rows:
        raise NotImplementedError

    def _driver(self) -> Any:
        return self._connection

    def _interrupt(self) -> None:
        self._driver().cancel()


class _Waiting:
    """A connection whose statements are awaited, on the loop it was opened on."""

    blocking = False

    def __init__(self, connection: Any, place: Place) -> None:
        self._connection = connection

    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        raise NotImplementedError

    async def commits_at_once(self) -> bool:
        return _is_idle(self._connection)


class _Psycopg(_Blocking):
    def _ask(self, sql: str, values: Sequence[object]) -> Rows:
        with _of("psycopg", "Cursor")(self._connection, row_factory=_tuples()) as cursor:
            cursor.execute(_pyformat(sql).encode(), _named(values))
            rows: Rows = cursor.fetchall() if cursor.description is not None else ()
        return rows


class _AsyncPsycopg(_Waiting):
    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        made = _of("psycopg", "AsyncCursor")(self._connection, row_factory=_tuples())
        async with made as cursor:
            await cursor.execute(_pyformat(sql).encode(), _named(values))
            rows: Rows = await cursor.fetchall() if cursor.description is not None else ()
        return rows


class _Asyncpg(_Waiting):
    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        rows: Rows = await self._connection.fetch(sql, *values)
        return rows


class _Alchemy(_Blocking):
    """A `Connection`."""

    def __init__(self, connection: Any, place: Place) -> None:
        super().__init__(connection, place)
        self._dialect = _checked_dialect(self._engine())

    def _ask(self, sql: str, values: Sequence[object]) -> Rows:
        try:
            result = self._core().exec_driver_sql(*_driver_sql(self._dialect, sql, values))
            rows: Rows = result.fetchall() if result.returns_rows else ()
        except _of("sqlalchemy.exc", "StatementError") as failure:
            failure.hide_parameters = True  # One of them is the payload.
            raise
        return rows

    def _engine(self) -> Any:
        return self._connection

    def _core(self) -> Any:
        return self._connection

    def _driver(self) -> Any:
        return self._core().connection.driver_connection


class _AlchemySession(_Alchemy):
    """A `Session`: its connection is the one of the transaction that it is in, or begins now."""

    def _engine(self) -> Any:
        return self._connection.get_bind()

    def _core(self) -> Any:
        return self._connection.connection()


class _AsyncAlchemy(_Waiting):
    """An `AsyncConnection`."""

    def __init__(self, connection: Any, place: Place) -> None:
        super().__init__(connection, place)
        self._dialect = _checked_dialect(self._engine())

    async def fetch(self, sql: str, values: Sequence[object]) -> Rows:
        connection = await self._core()
        try:
            result = await connection.exec_driver_sql(*_driver_sql(self._dialect, sql, values))
        except _of("sqlalchemy.exc", "StatementError") as failure:
            failure.hide_parameters = True
            raise
        rows: Rows = result.fetchall() if result.returns_rows else ()
        return rows

    async def commits_at_once(self) -> bool:
        connection = await self._core()
        return _is_idle((await connection.get_raw_connection()).driver_connection)

    def _engine(self) -> Any:
        return self._connection.engine

    async def _core(self) -> Any:
        return self._connection


class _AsyncAlchemySession(_AsyncAlchemy):
    """An `AsyncSession`."""

    def _engine(self) -> Any:
        return self._connection.get_bind()

    async def _core(self) -> Any:
        return await self._connection.connection()


_KINDS: tuple[tuple[str, str, Callable[[Any, Place], _Blocking | _Waiting]], ...] = (
    ("psycopg", "Connection", _Psycopg),
    ("psycopg", "AsyncConnection", _AsyncPsycopg),
    ("asyncpg", "Connection", _Asyncpg),
    ("asyncpg.pool", "PoolConnectionProxy", _Asyncpg),
    ("sqlalchemy.engine", "Connection", _Alchemy),
    ("sqlalchemy.orm", "Session", _AlchemySession),
    ("sqlalchemy.orm", "scoped_session", _AlchemySession),
    ("sqlalchemy.ext.asyncio", "AsyncConnection", _AsyncAlchemy),
    ("sqlalchemy.ext.asyncio", "AsyncSession", _AsyncAlchemySession),
    ("sqlalchemy.ext.asyncio", "async_scoped_session", _AsyncAlchemySession),
)
"""Where a class can be found, once it is loaded."""
_REGISTRIES = ("scoped_session", "async_scoped_session")


def _of(module: str, name: str) -> Any:
    """A name of a library that is loaded, since there is a connection of it."""
    return getattr(sys.modules[module], name)


def _tuples() -> Any:
    """Rows as tuples, whatever the connection gives its owner."""
    return _of("psycopg.rows", "tuple_row")


def _described(connection: object) -> str:
    kind = type(connection)
    place = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{place}{kind.__qualname__}"


def _is_closed(connection: Any) -> bool:
    """A session has no such state: it opens again when it is used."""
    is_closed = getattr(connection, "is_closed", None)
    closed: object = is_closed() if callable(is_closed) else getattr(connection, "closed", False)
    return closed is True


def _is_idle(driver: Any) -> bool:
    """Whether a driver's connection, after a statement, is in no transaction."""
    in_transaction = getattr(driver, "is_in_transaction", None)
    if callable(in_transaction):
        return not in_transaction()
    return bool(driver.info.transaction_status == _IDLE)


@lru_cache(maxsize=64)
def _pyformat(sql: str) -> str:
    """The text with named parameters, each of which may come more than once.

    >>> _pyformat("SELECT $1::text, $2::text, $1::text")
    'SELECT %(p1)s::text, %(p2)s::text, %(p1)s::text'
    """
    return _PARAMETER.sub(r"%(p\1)s", sql.replace("%", "%%"))


def _named(values: Sequence[object]) -> Mapping[str, object]:
    """The values by the names that `_pyformat` gives them.

    >>> _named(["a", 1])
    {'p1': 'a', 'p2': 1}
    """
    return {f"p{number}": value for number, value in enumerate(values, 1)}


def _checked_dialect(engine: Any) -> Any:
    """What SQLAlchemy says to the database, before there is a connection to any.

    Raises:
        TypeError: It is another driver, or another database.
    """
    dialect = engine.dialect
    if dialect.driver not in _DRIVERS:
        raise TypeError(
            f"connection must be SQLAlchemy's with the driver {' or '.join(_DRIVERS)} for "
            f"PostgreSQL, got one of {dialect.name} with {dialect.driver}"
        )
    return dialect


def _driver_sql(dialect: Any, sql: str, values: Sequence[object]) -> tuple[str, Any]:
    """What SQLAlchemy's `exec_driver_sql` takes, for the driver below it."""
    if dialect.paramstyle == "pyformat":
        return _pyformat(sql), _named(values)
    return sql, tuple(values)
