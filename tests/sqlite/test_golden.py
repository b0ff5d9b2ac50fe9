"""The frozen store of every released schema opens, reads as it was written, and goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.golden import write_store as golden
from tests.golden.write_store import FLOWS, GIVEN, KEEP_EVENTS, NOON

from sayiir import SqliteBackend, Worker, WorkflowClient
from sayiir._codec import decode_payload
from sayiir._core import decode_error_record
from sayiir.testing import VirtualClock

from .schema import APPLICATION_ID, VERSION

LONG = 30.0
HOUR = 3600.0
FOLDERS = sorted(path.parent for path in golden.HERE.glob("*/store.json"))
MIGRATIONS = golden.HERE.parent.parent / "rust" / "store" / "src" / "sql"

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    return found


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(folder / "store.sqlite", tmp_path / "store.db"))


def open_at(path: Path, seconds: float) -> SqliteBackend:
    """The store so many seconds after everything in it took place."""
    return SqliteBackend(path, clock=VirtualClock(NOON + seconds), keep_events=KEEP_EVENTS)


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    return connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY 1, 2"
    ).fetchall()


def migrated(version: int) -> list[tuple[str, str, str | None]]:
    """What the numbered scripts make of an empty database."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for number in range(1, version + 1):
            script = MIGRATIONS / f"sqlite_{number:04}.sql"
            connection.executescript(script.read_text(encoding="utf-8"))
        return schema_of(connection)


def test_there_is_a_store_of_every_schema() -> None:
    assert {about(folder)["schema_version"] for folder in FOLDERS} == set(range(1, VERSION + 1))


@each_folder
def test_a_frozen_store_has_not_changed(folder: Path) -> None:
    data = (folder / "store.sqlite").read_bytes()
    assert hashlib.sha256(data).hexdigest() == about(folder)["sha256"]
    hashes = golden.hashes(about(folder)["schema_version"])
    assert hashes == about(folder)["definition_hashes"]
    with pytest.raises(SystemExit, match="frozen store already"):
        golden.write(folder)


@each_folder
def test_the_schema_is_frozen(folder: Path, tmp_path: Path) -> None:
    version = about(folder)["schema_version"]
    with closing(sqlite3.connect(copy_of(folder, tmp_path))) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert schema_of(connection) == migrated(version)


async def test_a_new_store_has_the_schema_of_the_scripts(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    await SqliteBackend(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert schema_of(connection) == migrated(VERSION)


STATES = {
    "completed": "completed",
    "failed": "failed",
    "waiting": "waiting",
    "cancelled": "cancelled",
    "paused": "paused",
    "awaiting": "awaiting_signal",
    "parked": "awaiting_signal",
    "ready": "in_progress",
    "retried": "waiting",
    "needy": "in_progress",
    "fresh": "in_progress",
    "held": "in_progress",
}
PARENTS = {"shared": "waiting", "shared-over": "in_progress", "shared-cancelled": "cancelled"}
"""Since version 2."""
ITEMS = {
    "shared": ["in_progress", "completed", "in_progress"],
    "shared-over": ["completed"] * 3,
    "shared-cancelled": ["cancelled"] * 3,
}


def states(folder: Path) -> dict[str, str]:
    """Those of the instances that a client submitted."""
    return STATES | (PARENTS if about(folder)["schema_version"] > 1 else {})


@each_folder
async def test_a_frozen_store_gets_the_schema_of_today(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path)
    backend = open_at(path, 5)
    await backend.find()
    await backend.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert schema_of(connection) == migrated(VERSION)


@each_folder
async def test_a_frozen_store_reads_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    backend = open_at(copy_of(folder, tmp_path), 5)
    client = WorkflowClient(backend)
    rows = {row.instance_id: row for row in (await backend.find()).rows}
    items = {name: row for name, row in rows.items() if "~" in name}
    for name in items:
        del rows[name]
    assert {name: row.status for name, row in rows.items()} == states(folder)
    for parent in rows.keys() & ITEMS.keys():
        own = sorted(name for name in items if name.startswith(f"{parent}~"))
        assert [items[name].status for name in own] == ITEMS[parent]
        given = [decode_payload(await backend.input(name)) for name in own]
        assert given == [GIVEN, GIVEN + 1, GIVEN + 2]
    hashes = about(folder)["definition_hashes"]
    assert all(row.definition_hash == hashes[row.workflow_id] for row in rows.values())
    for name in rows:
        assert decode_payload(await backend.input(name)) == GIVEN
    assert (rows["completed"].created_at, rows["failed"].created_at) == (NOON, NOON + 1)
    assert decode_payload(rows["completed"].output or b"") == GIVEN + 2
    error = decode_error_record(rows["failed"].error or b"")
    assert (error["error_type"], error["message"]) == ("ValueError", f"{GIVEN + 1} is refused")
    assert (rows["cancelled"].reason, rows["cancelled"].by) == ("no longer wanted", "ann")
    assert (rows["paused"].reason, rows["paused"].by) == ("for the night", "bob")
    assert (rows["waiting"].wake_at, rows["waiting"].delay_id) == (NOON + 1 + HOUR, "rest")
    assert rows["awaiting"].signal_name == rows["parked"].signal_name == "go"
    assert (list(rows["needy"].tags), rows["needy"].priority) == (["gpu"], 1)
    assert (rows["held"].worker_id, rows["held"].reason) == ("w-1", "soon")
    assert await client.get_task_result("parked", "both/left/more") == GIVEN + 3
    assert await client.get_task_result("parked", "both/right/one") == "first"
    history = await backend.history("failed")
    assert [(row.step.path, row.step.outcome) for row in history] == [
        ("first", "completed"),
        ("refuse", "failed"),
    ]
    assert {row.worker_id for row in history} == {"w-1"}
    # The keys of events stay known, of those that were consumed too.
    for name, key in (("parked", "key-1"), ("ready", "key-2"), ("early", "key-3")):
        assert await backend.send_event(name, "go", b"", key) is False
    await backend.close()


@each_folder
async def test_parked_work_of_a_frozen_store_goes_on(folder: Path, tmp_path: Path) -> None:
    backend = open_at(copy_of(folder, tmp_path), 2 * HOUR)
    client = WorkflowClient(backend)
    async with Worker(backend, FLOWS, poll_interval="50ms"):
        await client.unpause("paused")
        await client.send_event("awaiting", "go", "answer")
        await client.send_event("parked", "go", "second")
        early = await client.submit(golden.ASKED, "early")
        assert await early.result(LONG) == {"came": "early"}
        assert (await client.status("held")).status == "paused"
        await client.unpause("held")
        outputs = {
            "completed": GIVEN + 2,
            "waiting": GIVEN + 2,
            "paused": GIVEN + 2,
            "awaiting": "answer",
            "parked": [GIVEN + 3, "second"],
            "ready": [GIVEN + 3, "too"],
            "retried": GIVEN + 1,
            "needy": GIVEN + 2,
            "fresh": GIVEN + 2,
            "held": GIVEN + 2,
        }
        if about(folder)["schema_version"] > 1:
            outputs |= dict.fromkeys(("shared", "shared-over"), 3 * GIVEN + 6)
        # What is new runs in an old file, too.
        await client.submit(golden.SHARED, "fresh-shared", GIVEN)
        outputs["fresh-shared"] = 3 * GIVEN + 6
        found = {name: await client.result(name, LONG) for name in outputs}
    assert found == outputs
    await backend.close()
