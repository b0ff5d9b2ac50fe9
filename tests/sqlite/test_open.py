"""Opening a file: what is refused and with which words, odd paths, and many openers at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sayiir import SnapshotFormatError, SqliteBackend, Worker, WorkflowClient

from .forked import ECHO
from .orders import Program
from .picture import opened
from .schema import APPLICATION_ID, VERSION

LONG = 30.0
OPENERS = 20


async def works(path: Path) -> None:
    """The file opens, and an instance goes through."""
    backend = SqliteBackend(path)
    assert backend.path == str(path)
    async with Worker(backend, ECHO):
        assert await (await WorkflowClient(backend).submit(ECHO, input="x")).result(LONG) == "x"
    await backend.close()


async def a_store(path: Path) -> None:
    """A file of ours, closed."""
    await works(path)


def sql(path: Path, *statements: str) -> None:
    """Let another program write into a file that nobody has open."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def refused(path: Path, *words: str) -> None:
    """The file is no store of ours, the error says which and why, and it stays as it is."""
    before = path.read_bytes()
    with pytest.raises(SnapshotFormatError) as caught:
        SqliteBackend(path)
    text = str(caught.value)
    assert text.startswith(f"SQLite file '{path}': ")
    for word in words:
        assert word in text
    assert path.read_bytes() == before
    assert not path.with_name(f"{path.name}-wal").exists()


# Not ours.


@pytest.mark.parametrize(
    "content",
    [
        b"These are my notes, and not a database. " * 100,
        b"xy",
        Random(1).randbytes(100_000),
        b"SQLite format 2\0" + bytes(4080),
        bytes(8192),
    ],
    ids=["text", "two-letters", "random", "nearly", "zeros"],
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    refused(path, "not a SQLite database")


@pytest.mark.parametrize("pages", [0.1, 1, 2.5, 10])
async def test_a_database_without_its_end_is_refused(tmp_path: Path, pages: float) -> None:
    path = tmp_path / "store.db"
    await a_store(path)
    os.truncate(path, int(pages * 4096))
    with pytest.raises(SnapshotFormatError) as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(f"SQLite file '{path}': ")


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    await works(path)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE mine (x)"],
        ["PRAGMA application_id = 7"],
        ["PRAGMA application_id = 7", "CREATE TABLE mine (x)", "PRAGMA user_version = 1"],
        ["PRAGMA user_version = 1", "CREATE TABLE mine (x)"],
        ["CREATE TABLE instances (x)"],
    ],
    ids=["table", "application", "both", "version", "our-name"],
)
def test_the_database_of_another_program_is_refused(tmp_path: Path, statements: list[str]) -> None:
    path = tmp_path / "theirs.db"
    sql(path, *statements)
    refused(path, "another program")


@pytest.mark.parametrize("version", [VERSION + 1, 99, 2**31 - 1])
async def test_a_newer_schema_is_refused_by_its_number(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store.db"
    await a_store(path)
    sql(path, f"PRAGMA user_version = {version}")
    refused(path, str(version), "newer sayiir", f"up to {VERSION}")


@pytest.mark.parametrize("version", [-1, 0])
async def test_a_version_that_was_never_released_is_refused(tmp_path: Path, version: int) -> None:
    """Tables without a version, or with a negative one: nobody but a forger makes these."""
    path = tmp_path / "store.db"
    await a_store(path)
    sql(path, f"PRAGMA user_version = {version}")
    with pytest.raises(SnapshotFormatError) as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(f"SQLite file '{path}': ")


async def test_a_store_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await a_store(path)
    with opened(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Arguments.


@pytest.mark.parametrize("path", [None, 7, b"store.db", ["store.db"], object()])
def test_a_path_of_another_kind_is_refused(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be"):
        SqliteBackend(path)


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800b"], ids=["empty", "nul", "surrogate"])
def test_a_path_that_no_file_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path must"):
        SqliteBackend(path)


SETTINGS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"synchronous": "off"}, ValueError),
    ({"synchronous": "FULL"}, ValueError),
    ({"synchronous": None}, TypeError),
    ({"synchronous": 1}, TypeError),
    *(
        ({name: value}, kind)
        for name in ("keep_completed", "keep_events", "timeout")
        for value, kind in (
            (-1, ValueError),
            (float("nan"), ValueError),
            (float("inf"), ValueError),
            (1e300, ValueError),
            ("soon", ValueError),
            ([], TypeError),
        )
    ),
    ({"keep_events": None}, TypeError),
    ({"timeout": None}, TypeError),
]


@pytest.mark.parametrize(("settings", "kind"), SETTINGS, ids=str)
def test_wrong_settings_are_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], kind: type[Exception]
) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(kind, match=next(iter(settings))):
        SqliteBackend(path, **settings)
    assert not path.exists()


@pytest.mark.parametrize("synchronous", ["full", "normal"])
async def test_both_ways_of_writing_work(tmp_path: Path, synchronous: Any) -> None:
    backend = SqliteBackend(tmp_path / "store.db", synchronous=synchronous)
    async with Worker(backend, ECHO):
        assert await (await WorkflowClient(backend).submit(ECHO, input=1)).result(LONG) == 1
    assert (await backend.doctor())["synchronous"] == synchronous
    await backend.close()


# Paths.


@pytest.mark.parametrize(
    "name",
    [
        "work.db?mode=memory&cache=shared",
        "50%20off%.db",
        "#1 fragment#.db",
        'it\'s "quoted" `here`.db',
        "\u043f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d \U0001f980.db",
        " leading and trailing ",
        "file:odd",
        ":memory:",
        "-dash",
        "a;DROP TABLE instances;--",
        "new\nline",
        "x" * 240,
    ],
    ids=lambda name: name[:12].strip().replace("\n", " "),
)
async def test_an_odd_path_is_that_file_and_no_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    await works(path)
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (1,)


def test_a_path_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "/".join(["y" * 200] * 30)):
        with pytest.raises(ConnectionError) as caught:
            SqliteBackend(path)
        assert str(caught.value).startswith(f"SQLite file '{path}': ")


async def test_a_relative_path_stays_where_it_was_opened(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = SqliteBackend("store.db")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert backend.path == str(tmp_path / "store.db")
    monkeypatch.chdir(elsewhere)
    await WorkflowClient(backend).submit(ECHO, "kept", 1)
    await backend.doctor()
    await backend.close()
    assert os.listdir(elsewhere) == []  # noqa: PTH208


async def test_a_link_leads_to_the_same_store(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "store.db")
    await works(link)
    async with Worker(backend := SqliteBackend(tmp_path / "store.db"), ECHO):
        assert len((await WorkflowClient(backend).list_instances()).items) == 1
    await backend.close()


# Many at once.


def test_twenty_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    programs = [Program("opener", path) for _ in range(OPENERS)]
    try:
        for program in programs:
            assert program.hear() == "ready"
        for program in programs:
            program.say()
        answers = [program.hear() for program in programs]
        assert answers == [program.pid for program in programs]
        assert [program.ended() for program in programs] == [0] * OPENERS
    finally:
        for program in programs:
            program.__exit__(None, None, None)
    with opened(path) as connection:
        count = "SELECT count(*) FROM instances WHERE status = 4"
        assert connection.execute(count).fetchone() == (OPENERS,)
        assert connection.execute("SELECT count(*) FROM counters").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM definitions").fetchone() == (1,)


async def test_many_backends_of_one_process_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    backends = [SqliteBackend(path) for _ in range(5)]
    async with Worker(backends[0], ECHO):
        handles = [
            await WorkflowClient(one).submit(ECHO, input=n) for n, one in enumerate(backends)
        ]
        assert [await handle.result(LONG) for handle in handles] == list(range(5))
    for backend in backends:
        await backend.close()


CLOSED: list[Callable[[WorkflowClient], Any]] = [
    lambda client: client.submit(ECHO, "late", 1),
    lambda client: client.status("there"),
    lambda client: client.cancel("there"),
    lambda client: client.list_instances(),
]


@pytest.mark.parametrize("call", CLOSED, ids=["submit", "status", "cancel", "list"])
async def test_a_closed_backend_says_so(
    tmp_path: Path, call: Callable[[WorkflowClient], Any]
) -> None:
    path = tmp_path / "store.db"
    backend = SqliteBackend(path)
    client = WorkflowClient(backend)
    await client.submit(ECHO, "there", 1)
    await backend.close()
    await backend.close()
    with pytest.raises(ConnectionError, match="closed") as caught:
        await call(client)
    assert str(path) in str(caught.value)
