"""Instances in a PostgreSQL database: durable, on many machines.

The database is spoken to by one thread in Rust; the loop's side of it is `StorageBackend`. This
module knows what may be said about a server and a schema, and what can be done within the caller's
own transaction.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sayiir import _clock
from sayiir._core import Storage
from sayiir._duration import Duration, parse_duration

from . import _caller
from ._storage import StorageBackend
from ._view import codec_argument

if TYPE_CHECKING:
    from sayiir._core import Program
    from sayiir.codecs import Codec, PayloadCodec

    from ._rows import InstanceRow, NewInstance

__all__ = ["PostgresBackend"]

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LEAST_CONNECTIONS = 2
_MOST_CONNECTIONS = 100


class PostgresBackend(StorageBackend):
    """A backend that keeps everything in one schema of a PostgreSQL database.

    Any number of processes on any number of machines may use the schema at once; the database's
    clock counts, for leases and for timers. One object can be shared by any number of clients and
    workers, threads and event loops of its process, and keeps within its budget of connections.
    Nothing is connected before the first call; from then on a server that goes away is waited for.
    A child that was forked after the object was made cannot use it.

    Args:
        url: `postgresql://user:password@host:5432/database?sslmode=verify-full`, as libpq reads it,
            with its environment variables and its password file.
        schema: The schema, of its own for sayiir: lower-case letters, digits and underscores.
        max_connections: How many connections this object opens at most, at least 2.
        statement_timeout: How long one statement may take.
        connect_timeout: How long one attempt to connect may take.
        timeout: How long a call waits for a server that went away, or for a row that somebody
            else keeps locked.
        keep_completed: How long ended instances are kept, as a duration; `None`: until deleted.
        keep_events: How long events wait for an instance that does not exist yet.
        notify: Whether processes tell each other what happens, through `LISTEN` and `NOTIFY`.
            Without it they find out by polling; for connections that are pooled per transaction.
        migrate: Whether the schema is made, or brought to this version, with the first
            connection.
        codec: How payloads are stored, a `sayiir.codecs.Codec`; `None`: as plain MessagePack.
        clock: Gives the time in seconds since 1970; the database's, unless a test brings its own.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The URL is malformed, the schema's name has other characters, a number is out of
            range, or a duration is malformed, negative or absurdly long.

    The first call raises `BackendUnavailableError` when the server cannot be reached, refuses the
    user or lacks the database or a right, and `SnapshotFormatError` when the schema is of a newer
    version. No message holds a password.

    >>> PostgresBackend("postgresql://app:secret@db.example/shop")
    <PostgresBackend postgresql://app@db.example:5432/shop>
    """

    __slots__ = ("_keep_events", "_notify", "_schema")

    def __init__(
        self,
        url: str,
        *,
        schema: str = "sayiir",
        max_connections: int = 4,
        statement_timeout: Duration = "30s",
        connect_timeout: Duration = "10s",
        timeout: Duration = "30s",
        keep_completed: Duration | None = None,
        keep_events: Duration = "7d",
        notify: bool = True,
        migrate: bool = True,
        codec: Codec | PayloadCodec | None = None,
        clock: Callable[[], float] = _clock.now,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, got {type(url).__name__}")
        if not isinstance(schema, str):
            raise TypeError(f"schema must be a str, got {type(schema).__name__}")
        if not _SCHEMA.fullmatch(schema):
            raise ValueError(
                "schema must be a name of at most 63 lower-case letters, digits and underscores "
                f"that does not begin with a digit, got {schema[:80]!r}"
            )
        if isinstance(max_connections, bool) or not isinstance(max_connections, int):
            raise TypeError(f"max_connections must be an int, got {type(max_connections).__name__}")
        if not _LEAST_CONNECTIONS <= max_connections <= _MOST_CONNECTIONS:
            raise ValueError(
                f"max_connections must be {_LEAST_CONNECTIONS} to {_MOST_CONNECTIONS}, got "
                f"{max_connections}: one writes, one reads and listens"
            )
        for name, value in (("notify", notify), ("migrate", migrate)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {type(value).__name__}")
        self._schema = schema
        self._notify = notify
        self._keep_events = parse_duration(keep_events, name="keep_events", allow_zero=True)
        checked = codec_argument(codec)
        store = Storage.postgres(
            url,
            schema=schema,
            max_connections=max_connections,
            statement_timeout=parse_duration(
                statement_timeout, name="statement_timeout", allow_zero=False
            ),
            connect_timeout=parse_duration(
                connect_timeout, name="connect_timeout", allow_zero=False
            ),
            timeout=parse_duration(timeout, name="timeout", allow_zero=True),
            keep_completed=None
            if keep_completed is None
            else parse_duration(keep_completed, name="keep_completed", allow_zero=True),
            keep_events=self._keep_events,
            notify=notify,
            migrate=migrate,
            own_clock=clock is _clock.now,
        )
        super().__init__(store, clock, checked)

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self._schema

    def __repr__(self) -> str:
        return f"<PostgresBackend {self.store.shown()}>"

    def now(self) -> float:
        """The database's clock, as far as it is known; the given one in tests."""
        now = self.store.now()
        return self._clock() if now is None else now

    async def prepare(self, program: Program) -> tuple[int, int]:
        """Make sure that the definition of a workflow is known to the database.

        Returns:
            Its number, and that of the lane which its first step waits in.

        Raises:
            BackendUnavailableError: The database cannot be used.
        """
        numbers: tuple[int, int] = await self._ask(self.store.enlist, program)
        return numbers

    async def submit_on(
        self, connection: object, new: NewInstance, program: Program, policy: str
    ) -> InstanceRow | None:
        """As `submit`, of one instance, in the transaction of a connection of the caller's."""
        numbers = await self.prepare(program)
        return await _caller.submit_on(
            connection,
            self._schema,
            numbers,
            new,
            policy,
            keep_events=self._keep_events,
            notify=self._notify,
        )

    async def send_event_on(
        self, connection: object, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        """As `send_event`, in the transaction of a connection of the caller's."""
        return await _caller.send_event_on(
            connection,
            self._schema,
            instance_id,
            name,
            payload,
            key,
            keep_events=self._keep_events,
            notify=self._notify,
        )

    async def schema_version(self) -> int:
        """The version of the schema that is there; 0 when there is none.

        Raises:
            BackendUnavailableError: The database cannot be used.
        """
        return await asyncio.to_thread(self.store.schema_version)

    async def migrate(self) -> tuple[int, int]:
        """Make the schema, or bring it to this version; workers may go on meanwhile.

        Returns:
            The version it had, 0 for none, and the one that it has now.

        Raises:
            BackendUnavailableError: The database cannot be used, or a right is missing.
            SnapshotFormatError: The schema is of a newer version.
        """
        return await asyncio.to_thread(self.store.migrate)

    async def doctor(self) -> dict[str, object]:
        """What an operator wants to know of the database; counts all instances, so it takes long.

        Returns:
            `server` (without password), `schema`, `schema_version`, `server_version`,
            `database_bytes`, `clock_skew` (seconds by which this machine is ahead), `connections`,
            `dead_rows`, `ready_oldest_age` (seconds, when something is ready), `instances` (how
            many by status), `workers` (`worker_id`, `expires_at`, `held` each), `definitions`
            (`definition_hash`, `workflow_id`, `instances` each).

        Raises:
            BackendUnavailableError, SnapshotFormatError: The database cannot be used.
        """
        return await super().doctor()
