"""A damaged store: rows that changed by themselves, pages with flipped bits, files cut short.

Every mutation is made in a copy of one small store with work in every state. Whatever is read
afterwards is right or a typed error, every call is answered, nothing panics; and when the damage is
within one instance, that one is set aside or answered with an error, and all others come to the
right end.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import pytest

from sayiir import (
    BackendUnavailableError,
    DecodeError,
    InstanceNotFoundError,
    InvalidStateError,
    SnapshotFormatError,
    SqliteBackend,
    Worker,
    WorkflowCancelled,
    WorkflowClient,
    WorkflowFailed,
)
from sayiir.testing import HandWorker, VirtualClock, new_instance

from .picture import wal_of
from .recovery import KEEP
from .walk import (
    BROKEN,
    FLOWS,
    FORK,
    LEASE_S,
    NAP,
    PAYLOAD,
    RETRIED,
    START,
    STRAIGHT,
    TAGGED,
    WAIT,
    oracle,
    run_on,
)

TYPED = (BackendUnavailableError, SnapshotFormatError, DecodeError)
LONG = 30.0
GIVEN = 7
ROWS, PAGES = 200, 100
"""Mutations of rows and of pages with each change."""
WORK = {
    "done": STRAIGHT,
    "broken": BROKEN,
    "cancelled": NAP,
    "asked": FORK,
    "told": FORK,
    "napping": NAP,
    "waiting": WAIT,
    "woken": WAIT,
    "paused": NAP,
    "retried": RETRIED,
    "held": STRAIGHT,
    "half": TAGGED,
    "fresh": STRAIGHT,
    "forked": FORK,
}


async def make_base(path: Path) -> None:
    """One instance in each state; the times are long over when it is opened again."""
    clock = VirtualClock(START)
    backend = SqliteBackend(path, synchronous="normal", clock=clock, keep_events=KEEP)
    worker = HandWorker(backend, FLOWS, "w-1", lease_ttl=LEASE_S)
    client = WorkflowClient(backend)
    await client.send_event("told", "go", PAYLOAD, idempotency_key="k-1")
    for name, workflow in WORK.items():
        await backend.submit([new_instance(workflow, name, GIVEN)], "fail")
        if name == "fresh":
            continue
        held = await worker.claim_one(name)
        assert held is not None
        if name == "retried":
            await held.fail("not yet")
        elif name in ("held", "half"):
            await held.complete(GIVEN + 1)
        else:
            await run_on(held)
    await client.cancel("cancelled", "not wanted")
    await client.pause("paused")
    await client.send_event("woken", "go", PAYLOAD)
    await client.send_event("forked", "go", PAYLOAD, idempotency_key="k-2")
    await backend.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "base.db"
    asyncio.run(make_base(path))
    return path


# Judging.


async def judged(client: WorkflowClient, name: str, wait: float) -> str:
    """What an instance has come to; `right`, `error`, `open` or `cancelled`, or what is wrong."""
    answer = oracle(WORK[name].workflow_id, GIVEN)
    try:
        if wait == 0 and not (await client.status(name)).status.is_terminal:
            return "open"
        output = await client.result(name, wait or LONG)
    except (*TYPED, InstanceNotFoundError):
        return "error"
    except TimeoutError:
        return "open"
    except WorkflowCancelled:
        return "right" if name == "cancelled" else "cancelled"
    except WorkflowFailed as failure:
        if failure.status.error_type in ("SnapshotFormatError", "DecodeError"):
            return "error"
        return "right" if answer is None else f"{name}: {failure}"
    if name != "cancelled" and output == answer:
        return "right"
    return f"{name} came to {output!r} instead of {answer!r}"


async def read_everything(client: WorkflowClient) -> None:
    """Every way of reading gives something or a typed error."""
    for name, workflow in WORK.items():
        calls: tuple[Callable[[], Any], ...] = (
            partial(client.status, name),
            partial(client.history, name),
            partial(client.get_task_result, name, "one"),
            partial(client.list_instances, id_prefix=name),
        )
        for call in calls:
            try:
                found: Any = await call()
            except (*TYPED, InstanceNotFoundError):
                continue
            if isinstance(found, int) and workflow is not TAGGED:
                assert found == GIVEN + 1
    with contextlib.suppress(SnapshotFormatError):  # A page with a damaged row on it.
        await client.list_instances()


async def nudge(client: WorkflowClient) -> None:
    """Send the missing events and take the pause back; a damaged one may refuse."""
    for name in ("asked", "waiting"):
        try:
            await client.send_event(name, "go", PAYLOAD)
        except (*TYPED, InvalidStateError, InstanceNotFoundError):
            continue
    try:
        await client.unpause("paused")
    except (*TYPED, InvalidStateError, InstanceNotFoundError):
        return


# Rows.

UNTOUCHED = {"sqlite_sequence", "definitions", "counters"}
"""Tables of the whole store, not of one instance; they have tests of their own."""
HARMLESS = {
    ("instances", "id"),  # Another id is another instance.
    ("events", "id"),
}
MAY_WAIT = {
    # It was told to wait, for another thing or for longer; nobody can know that it was not.
    *(("instances", name) for name in ("status", "asked", "resume", "wake_us", "awaits", "tags")),
    *(("events", name) for name in ("event", "name", "key", "consumed", "early")),
    *(("workers", name) for name in ("lease_us", "expires_us", "look_us")),
}
HELD = ("held", "half")
"""Who belongs to the one worker in the store."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """What was changed."""

    table: str
    column: str
    owners: tuple[str, ...]
    """The instances it belongs to."""
    before: Any
    after: Any


def another(rng: Random, value: Any) -> Any:
    """Something else of the same kind."""
    match value:
        case bytes() if value:
            data = bytearray(value)
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at : at + 8] = rng.randbytes(8)
                case _:
                    data += rng.randbytes(1 + rng.randrange(20))
            return bytes(data) if bytes(data) != value else value[:-1]
        case str() if value:
            at = rng.randrange(len(value))
            return value[:at] + rng.choice("az09[]\"'~/\x7f\u00e9") + value[at + 1 :]
        case int():
            others = (0, 1, 2, value + 1, value - 1, -1, value ^ 1 << rng.randrange(40), 2**62)
            return rng.choice([other for other in others if other != value])
        case None:
            return rng.choice((0, 1, 2, 3))
        case _:
            return type(value)(b"x") if isinstance(value, bytes) else "x"


def mutate_row(path: Path, rng: Random) -> Mutation | None:
    """Change one column of one row; `None`: the schema itself did not let it."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if name not in UNTOUCHED
        ]
        ids: dict[int, str] = dict(connection.execute("SELECT instance, id FROM instances"))
        filled = [
            name
            for name in names
            if connection.execute(f"SELECT count(*) FROM {name}").fetchone() != (0,)
        ]
        table = rng.choices(filled, [4 if name == "instances" else 2 for name in filled])[0]
        columns = [about[1] for about in connection.execute(f"PRAGMA table_info({table})")]
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
        row = dict(zip(columns, rng.choice(rows), strict=True))
        column = rng.choice([name for name in columns if (table, name) not in HARMLESS])
        after = another(rng, row[column])
        match table:
            case "events":
                owners: tuple[str, ...] = (row["id"],)
            case "workers":
                owners = HELD
            case _:
                # A row that moves to another instance harms that one too.
                concerned = {row["instance"], after if column == "instance" else row["instance"]}
                owners = tuple(ids[number] for number in concerned if number in ids)
        key = " AND ".join(f'"{name}" IS ?' for name in columns)
        statement = f'UPDATE {table} SET "{column}" = ? WHERE {key}'
        try:
            assert connection.execute(statement, (after, *row.values())).rowcount == 1
        except sqlite3.IntegrityError:
            return None
        connection.commit()
        return Mutation(table, column, owners, row[column], after)


async def meet_a_row(path: Path, rng: Random) -> set[str] | None:
    """Change a row, let a worker meet it; what became of the damaged instances."""
    mutation = mutate_row(path, rng)
    if mutation is None:
        return None
    may_wait = (mutation.table, mutation.column) in MAY_WAIT
    backend = SqliteBackend(path, synchronous="normal", keep_events=KEEP)
    client = WorkflowClient(backend)
    try:
        async with asyncio.timeout(LONG * 2):
            await read_everything(client)
            async with Worker(backend, FLOWS, poll_interval="20ms", lease_ttl="2s"):
                await nudge(client)
                for name in WORK:
                    if name not in mutation.owners:
                        assert await judged(client, name, LONG) == "right", name
                wait = 0 if may_wait else LONG / 3
                fates = {await judged(client, name, wait) for name in mutation.owners}
            await read_everything(client)
            await backend.close()
        allowed = {"right", "error"} | ({"open", "cancelled"} if may_wait else set())
        assert fates <= allowed, fates
    except BaseException as error:
        error.add_note(f"{mutation}")
        raise
    return fates


def meet_rows(base: Path, folder: Path, rng: Random, count: int, seconds: float) -> list[str]:
    end = time.monotonic() + seconds
    fates: list[str] = []
    path = folder / "store.db"
    while len(fates) < count and time.monotonic() < end:
        shutil.copyfile(base, path)
        try:
            fate = asyncio.run(meet_a_row(path, rng))
        finally:
            wal_of(path).unlink(missing_ok=True)
            path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        if fate is not None:
            fates += sorted(fate)
    return fates


def test_a_damaged_row_harms_its_instance_at_most(
    base: Path, tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fates = meet_rows(base, tmp_path, Random(seed), ROWS, 200.0)
    assert "panicked" not in capfd.readouterr().err
    # Both happen, else the mutations are too tame or too wild.
    assert fates.count("error") > len(fates) // 20
    assert fates.count("right") > len(fates) // 20


@pytest.mark.soak
def test_very_many_damaged_rows(
    base: Path,
    tmp_path: Path,
    seed: int,
    soak_seconds: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    meet_rows(base, tmp_path, Random(seed), 5_000, soak_seconds / 2)
    assert "panicked" not in capfd.readouterr().err


# Pages.


def flip_bits(data: bytearray, rng: Random) -> None:
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    size = min(len(data) - at, rng.randrange(1, 64))
    data[at : at + size] = rng.randbytes(size)


def zero_a_page(data: bytearray, rng: Random) -> None:
    at = 4096 * rng.randrange(len(data) // 4096)
    data[at : at + 4096] = bytes(4096)


def exchange_pages(data: bytearray, rng: Random) -> None:
    pages = len(data) // 4096
    one, two = (4096 * rng.randrange(pages) for _ in range(2))
    data[one : one + 4096], data[two : two + 4096] = (
        data[two : two + 4096],
        data[one : one + 4096],
    )


def cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


HARMS: tuple[Callable[[bytearray, Random], None], ...] = (
    flip_bits,
    flip_bits,
    overwrite,
    zero_a_page,
    exchange_pages,
    cut,
)


async def meet_a_page(path: Path) -> set[str]:
    """Let a worker meet a damaged file; what became of the instances, `refused` for all of them."""
    fates: set[str] = set()
    with Naming(path, fates, "refused"):
        backend = SqliteBackend(path, synchronous="normal", keep_events=KEEP, timeout="2s")
    if fates:
        return fates
    client = WorkflowClient(backend)
    async with asyncio.timeout(LONG):
        with Naming(path, fates, "error"):
            await read_everything(client)
        with Naming(path, fates, "error"):
            await work_off(backend, client)
        fates |= {await judged(client, name, 0) for name in WORK}
        await backend.close()
    return fates


class Naming:
    """Takes an error that tells of damage; one that is about the file must name it."""

    def __init__(self, path: Path, fates: set[str], fate: str) -> None:
        self._path = path
        self._fates = fates
        self._fate = fate

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, DecodeError | InvalidStateError | InstanceNotFoundError):
            pass  # These name the payload, or the instance that was not found.
        elif not isinstance(error, TYPED):
            return False
        else:
            assert f"SQLite file '{self._path}': " in str(error)
        self._fates.add(self._fate)
        return True


async def work_off(backend: SqliteBackend, client: WorkflowClient) -> None:
    """Do by hand what can be claimed, until nothing can, or until it cannot be gone on with."""
    await nudge(client)
    worker = HandWorker(backend, FLOWS, "w-2")
    for _ in range(5 * len(WORK)):
        claims = await backend.claim(worker.claimant, 1)
        if not claims:
            return
        if claims[0].damage is not None:
            await backend.commit([claims[0].set_aside(claims[0].damage)])
            continue
        await backend.give_back(claims[0].instance_id, claims[0].fence)
        held = await worker.claim_one(claims[0].instance_id)
        if held is not None:
            await run_on(held)


def meet_pages(base: Path, folder: Path, rng: Random, count: int, seconds: float) -> list[str]:
    end = time.monotonic() + seconds
    fates: list[str] = []
    path = folder / "store.db"
    whole = base.read_bytes()
    for number in range(count):
        if time.monotonic() > end:
            break
        data = bytearray(whole)
        harm = rng.choice(HARMS)
        harm(data, rng)
        path.write_bytes(data)
        state = rng.getstate()
        try:
            met = asyncio.run(meet_a_page(path))
            assert met <= {"right", "error", "open", "refused"}
            fates += sorted(met)
        except BaseException as error:
            error.add_note(f"mutation {number}: {harm.__name__}")
            raise
        finally:
            rng.setstate(state)
            for file in (path, wal_of(path), path.with_name(f"{path.name}-shm")):
                file.unlink(missing_ok=True)
    return fates


def test_damaged_pages_give_typed_errors_and_never_another_value(
    base: Path, tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fates = meet_pages(base, tmp_path, Random(seed), PAGES, 120.0)
    assert "panicked" not in capfd.readouterr().err
    assert {"right", "error", "refused"} <= set(fates)


@pytest.mark.soak
def test_very_many_damaged_pages(
    base: Path,
    tmp_path: Path,
    seed: int,
    soak_seconds: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    meet_pages(base, tmp_path, Random(seed), 5_000, soak_seconds / 2)
    assert "panicked" not in capfd.readouterr().err


def test_an_instance_never_runs_another_definition(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    shutil.copyfile(base, path)
    with closing(sqlite3.connect(path)) as connection:
        number = "SELECT definition FROM instances WHERE id = 'broken'"
        connection.execute(f"UPDATE instances SET definition = ({number}) WHERE id = 'fresh'")
        connection.commit()

    async def main() -> str:
        backend = SqliteBackend(path, synchronous="normal", keep_events=KEEP)
        async with Worker(backend, FLOWS, poll_interval="20ms"):
            fate = await judged(WorkflowClient(backend), "fresh", LONG)
        await backend.close()
        return fate

    assert asyncio.run(main()) == "error"


def test_the_base_is_sound(base: Path, tmp_path: Path) -> None:
    """Without any damage everything comes to the right end, so that damage is what is seen."""
    path = tmp_path / "store.db"
    shutil.copyfile(base, path)

    async def main() -> set[str]:
        backend = SqliteBackend(path, synchronous="normal", keep_events=KEEP)
        client = WorkflowClient(backend)
        await read_everything(client)
        async with Worker(backend, FLOWS, poll_interval="20ms", lease_ttl="2s"):
            await nudge(client)
            fates = {await judged(client, name, LONG) for name in WORK}
        await backend.close()
        return fates

    assert asyncio.run(main()) == {"right"}
    assert not wal_of(path).exists()
