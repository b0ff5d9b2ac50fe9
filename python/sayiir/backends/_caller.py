"""Submits and events in a transaction of the caller's, on the caller's own connection.

The instance, or the event, exists if and only if the caller commits, together with whatever else
the transaction holds; workers hear of it with the commit. The definition's row must be there and
committed before, so that the caller's transaction never holds a lock on a row that others need: it
locks what it makes, and under `terminate_existing` the instance that has to go. Refusals of ours
come before anything is written and leave the transaction as it was; errors of the driver come as
they are. Nothing here knows how statements get to the database (`_connections`), nor what
workers make of the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sayiir import _core
from sayiir._errors import (
    BackendError,
    DefinitionMismatchError,
    InstanceAlreadyExistsError,
    InvalidStateError,
)

from ._connections import Foreign, recognise
from ._rows import InstanceRow, NewInstance

if TYPE_CHECKING:
    from sayiir._core import Program

__all__ = ["InTransaction", "check_on", "in_transaction_of", "send_event_on", "submit_on"]

WEEK_S = 7 * 24 * 60 * 60.0
MOST_TRIES = 100
"""How often an id may be taken when it is tried, and free when it is looked at."""

_STATUSES = (
    "in_progress", "waiting", "awaiting_signal", "paused", "completed", "failed", "cancelled",
)  # fmt: skip
_PARKED = ("waiting", "awaiting_signal", "paused")
_ENDED = 4
"""The first number of a state that is an end."""

CREATE = """\
WITH t AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
known AS MATERIALIZED (SELECT d.definition, l.lane FROM sayiir.definitions d
  JOIN sayiir.lanes l ON l.definition = d.definition
  WHERE d.definition = $2::integer AND d.hash = $3::bytea AND l.lane = $4::integer),
c AS MATERIALIZED (SELECT nextval('sayiir.instance_numbers') AS instance, known.definition,
  known.lane, t.now, CASE WHEN $6::bigint > t.now THEN $6::bigint END AS later_us FROM known, t),
made AS (INSERT INTO sayiir.inputs (instance, id, token, input)
  SELECT c.instance, $1::text, $7::bigint, $8::bytea FROM c
  ON CONFLICT (id) DO NOTHING RETURNING instance, id),
stored AS (INSERT INTO sayiir.instances (instance, id, definition, lane, status, priority, order_us,
    fence, created_us, updated_us, start_at_us, wake_us, next_seq, next_strand, steps, events)
  SELECT c.instance, $1::text, c.definition, c.lane,
    CASE WHEN c.later_us IS NULL THEN 0 ELSE 1 END, $5::smallint,
    coalesce(c.later_us, c.now) + ($5::smallint - 1) * 30000000::bigint,
    c.instance << 20, c.now, c.now, c.later_us, c.later_us, 0, 1, 0,
    EXISTS (SELECT 1 FROM sayiir.events e WHERE e.id = $1::text AND e.early
      AND e.came_us > c.now - $9::bigint)
  FROM c JOIN made ON made.instance = c.instance),
adopted AS (UPDATE sayiir.events e SET early = false, fresh = false FROM made, t
  WHERE e.id = made.id AND e.early AND e.came_us > t.now - $9::bigint),
late AS (DELETE FROM sayiir.events e USING made, t
  WHERE e.id = made.id AND e.early AND e.came_us <= t.now - $9::bigint)
SELECT (SELECT count(*) FROM known), (SELECT count(*) FROM made)"""

# The instance's row is read and never locked: a worker that holds it must not wait for the caller.
# An event that nobody has looked at yet is fresh, and the next claim looks at it.
SEND = """\
WITH i AS MATERIALIZED (SELECT x.status FROM sayiir.instances x
  WHERE x.instance = (SELECT n.instance FROM sayiir.inputs n WHERE n.id = $1::text)),
made AS (INSERT INTO sayiir.events (id, event, name, key, token, came_us, early, fresh, payload)
  SELECT $1::text, nextval('sayiir.event_numbers'), $2::text, $3::text, $4::bigint,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NOT EXISTS (SELECT 1 FROM i), true,
    $5::bytea
  WHERE NOT EXISTS (SELECT 1 FROM i WHERE i.status >= 4)
  ON CONFLICT (id, name, key) WHERE key IS NOT NULL DO NOTHING RETURNING event)
SELECT (SELECT i.status FROM i), (SELECT count(*) FROM made)"""

TELL = "SELECT pg_notify($1::text, 'work')"
STATEMENTS = {"caller.create": CREATE, "caller.send": SEND, "caller.tell": TELL}
"""Every statement of this module's own; the others are the store's."""


@runtime_checkable
class InTransaction(Protocol):
    """What a backend has that can work in a transaction of the caller's."""

    @property
    def schema(self) -> str:
        """The name of the schema that everything is in."""

    async def submit_on(
        self, connection: object, new: NewInstance, program: Program, policy: str
    ) -> InstanceRow | None:
        """As `Backend.submit`, of one instance, on this connection."""

    async def send_event_on(
        self, connection: object, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        """As `Backend.send_event`, on this connection."""


def in_transaction_of(backend: object) -> InTransaction:
    """The backend, if its instances are where a connection can lead.

    Raises:
        TypeError: They are not.

    >>> from sayiir import InMemoryBackend
    >>> in_transaction_of(InMemoryBackend())
    Traceback (most recent call last):
    ...
    TypeError: connection= needs a PostgresBackend, …
    """
    if isinstance(backend, InTransaction):
        return backend
    raise TypeError(
        "connection= needs a PostgresBackend, whose instances are in the database that the "
        f"connection leads to; this client's backend is a {type(backend).__name__}, so leave "
        "the argument out"
    )


async def submit_on(
    connection: object,
    schema: str,
    numbers: tuple[int, int],
    new: NewInstance,
    policy: str,
    *,
    keep_events: float = WEEK_S,
    notify: bool = True,
) -> InstanceRow | None:
    """Create an instance; `None`, or the existing row under `use_existing`.

    Args:
        connection: Whose transaction it is made in; see `recognise`.
        schema: The schema's name.
        numbers: Those of the definition and of its first lane, which are committed.
        new: The instance.
        policy: A word of `ConflictPolicy`.
        keep_events: How long an event that came before waits for its instance, in seconds.
        notify: Whether workers are told with the commit; else they find it with their next poll.

    Raises:
        TypeError: The connection is of no known kind.
        ValueError: It is closed, its transaction has failed, or it leads to another database.
        InstanceAlreadyExistsError: The id is taken, under `fail`.
        DefinitionMismatchError: It is taken by another definition, under `fail` or `use_existing`.
        BackendError: The id was taken and freed again and again while it was tried.
    """
    place = _Place(recognise(connection), schema)
    keep_us = round(keep_events * 1e6)
    for _ in range(MOST_TRIES):
        if await _create(place, numbers, new, keep_us):
            break
        if policy == "terminate_existing":
            async with _whole(place):
                await _erase(place, new.instance_id)
                if await _create(place, numbers, new, keep_us):
                    break
        else:
            row = await check_on(place.foreign, schema, new.instance_id, new.program, policy)
            if row is not None:
                return row
    else:
        raise BackendError(
            f"the id {new.instance_id!r} was taken and freed {MOST_TRIES} times while it was "
            "submitted; find out who submits and deletes it, and submit it again",
            instance_id=new.instance_id,
        )
    if notify:
        await place.ask(TELL, schema)
    return None


async def check_on(
    connection: object, schema: str, instance_id: str, program: Program, policy: str
) -> InstanceRow | None:
    """What a submit would meet, as `Backend.check_submit`; arguments and errors as `submit_on`."""
    place = _Place(recognise(connection), schema)
    if policy == "terminate_existing":
        return None
    rows = await place.ask(_of_store("instance.row"), instance_id)
    if not rows:
        return None
    row = _row_of(rows[0])
    if row.definition_hash != program.definition_hash:
        raise DefinitionMismatchError(
            f"instance '{instance_id}' belongs to another definition of its workflow; let it "
            "finish with the old code, or replace it with the conflict policy 'terminate_existing'",
            expected=program.definition_hash,
            found=row.definition_hash,
            instance_id=instance_id,
        )
    if policy == "use_existing":
        return row
    raise InstanceAlreadyExistsError(
        f"instance '{instance_id}' already exists and is {row.status}; choose another id, or "
        "the conflict policy 'use_existing' or 'terminate_existing'",
        instance_id=instance_id,
    )


async def send_event_on(
    connection: object,
    schema: str,
    instance_id: str,
    name: str,
    payload: bytes,
    key: str | None,
    *,
    keep_events: float = WEEK_S,
    notify: bool = True,
) -> bool:
    """Buffer an event, for an instance that may not exist yet; `False`: the key was known.

    Args:
        connection: Whose transaction it is made in; see `recognise`.
        schema: The schema's name.
        instance_id: The instance.
        name: The event's name.
        payload: The sealed payload.
        key: An event of the same name and key has no effect a second time.
        keep_events: As for `submit_on`.
        notify: As for `submit_on`.

    Raises:
        TypeError, ValueError: As `submit_on`.
        InvalidStateError: The instance has ended.
    """
    place = _Place(recognise(connection), schema)
    values = (instance_id, name, key, _token(), payload)
    [[status, made]] = await place.ask(SEND, *values)
    if status is not None and status >= _ENDED:
        word = _STATUSES[status]
        raise InvalidStateError(
            f"cannot send an event to instance '{instance_id}': it is {word}; it has ended",
            state=word,
            instance_id=instance_id,
        )
    if not made and status is None:
        # The key may be that of an event which has waited too long, and counts no more.
        await place.ask(_of_store("event.late"), instance_id, None, round(keep_events * 1e6))
        [[_, made]] = await place.ask(SEND, *values)
    if made and notify:
        await place.ask(TELL, schema)
    return bool(made)


class _Place:
    """A schema, as a connection gets to it."""

    __slots__ = ("foreign", "schema")

    def __init__(self, foreign: Foreign, schema: str) -> None:
        self.foreign = foreign
        self.schema = schema

    async def ask(self, sql: str, *values: object) -> Any:
        """All rows of a statement.

        Raises:
            ValueError: This transaction, or this database, cannot give any.
        """
        try:
            return await self.foreign.fetch(_in_schema(sql, self.schema), values)
        except Exception as failure:
            refusal = self._refusal(_sqlstate(failure))
            if refusal is None:
                raise
            raise ValueError(refusal) from failure

    def _refusal(self, sqlstate: str | None) -> str | None:
        """What we say instead of the driver, where it cannot know what is wrong."""
        match sqlstate:
            case "25P02":  # in_failed_sql_transaction
                return (
                    "connection is in a transaction that has failed, so nothing can be added to "
                    "it: roll it back, find the statement that failed, and begin again"
                )
            case "3F000" | "42P01":  # invalid_schema_name, undefined_table
                return self.elsewhere(f"has no schema {self.schema!r} with this package's tables")
            case _:
                return None

    @staticmethod
    def elsewhere(lack: str) -> str:
        return (
            f"connection leads to a database that {lack}; it must be the one that the client's "
            "backend is connected to"
        )


@asynccontextmanager
async def _whole(place: _Place) -> AsyncIterator[None]:
    """All or nothing, also where each statement would be a transaction of its own."""
    alone = await place.foreign.commits_at_once()
    if not alone:
        yield
        return
    await place.ask("BEGIN")
    try:
        yield
    except BaseException:
        await place.ask("ROLLBACK")
        raise
    await place.ask("COMMIT")


async def _create(place: _Place, numbers: tuple[int, int], new: NewInstance, keep_us: int) -> bool:
    """Insert it; `False`: the id is taken."""
    definition, lane = numbers
    [[known, made]] = await place.ask(
        CREATE,
        new.instance_id,
        definition,
        bytes.fromhex(new.program.definition_hash),
        lane,
        new.program.entry[1],
        None if new.start_at is None else round(new.start_at * 1e6),
        _token(),
        new.input,
        keep_us,
    )
    if not known:
        raise ValueError(
            place.elsewhere(f"does not know workflow {new.program.name!r} as the backend does")
            + ", or, at REPEATABLE READ and above, its transaction began before the workflow was "
            "first submitted and has to begin again"
        )
    return bool(made)


async def _erase(place: _Place, instance_id: str) -> None:
    """Remove the former instance with all that belongs to it; its history goes a piece at a time.

    Its row is locked first, so that the statements behind see everything its holder wrote.
    """
    for row in await place.ask(_of_store("instance.lock"), instance_id):
        gone = [row[0]]
        for name in ("delete.instance", "delete.cells", "delete.garbage"):
            await place.ask(_of_store(name), gone)
        for name in ("delete.input", "delete.events"):
            await place.ask(_of_store(name), [instance_id])


def _token() -> int:
    """What tells this row from another that is made for the same id; 63 random bits."""
    return int.from_bytes(os.urandom(8)) >> 1


def _row_of(row: Any) -> InstanceRow:
    """A row of the store's statement `instance.row`, as its own reader would give it."""
    (
        _, instance_id, workflow, definition_hash, number, created_us, updated_us, start_at_us,
        wake_us, delay_id, signal_id, signal_name, asked, reason, by, tags, priority, worker,
        fence, steps, result,
    ) = row  # fmt: skip
    status = _STATUSES[number]
    parked = status in _PARKED
    return InstanceRow(
        instance_id,
        workflow,
        bytes(definition_hash).hex(),
        status,
        created_us / 1e6,
        updated_us / 1e6,
        ended_at=updated_us / 1e6 if number >= _ENDED else None,
        start_at=None if start_at_us is None else start_at_us / 1e6,
        wake_at=wake_us / 1e6 if parked and wake_us is not None else None,
        delay_id=delay_id if parked else None,
        signal_id=signal_id if parked else None,
        signal_name=signal_name if parked else None,
        reason=None if asked is None else reason,
        by=None if asked is None else by,
        output=bytes(result) if status == "completed" and result is not None else None,
        error=bytes(result) if status == "failed" and result is not None else None,
        tags=json.loads(tags),
        priority=priority,
        worker_id=worker,
        fence=fence,
        steps=steps,
    )


@cache
def _of_store(name: str) -> str:
    """A statement of the store's, by its name."""
    return _core.postgres_statements()[name]


@lru_cache(maxsize=256)
def _in_schema(sql: str, schema: str) -> str:
    """The statement for this schema, whose name needs no escaping.

    >>> print(_in_schema("SELECT nextval('sayiir.event_numbers')", "jobs"))
    SELECT nextval('"jobs".event_numbers')
    """
    return sql.replace("sayiir.", f'"{schema}".')


def _sqlstate(failure: BaseException) -> str | None:
    """The code that PostgreSQL gave with an error, whatever library it came through."""
    origin = getattr(failure, "orig", None) or failure
    code: object = getattr(origin, "sqlstate", None)
    return code if isinstance(code, str) else None
