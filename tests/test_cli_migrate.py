"""`sayiir migrate`: what it changes, what it only says, and with which exit code.

On SQLite with files, on Postgres with a server, a schema of its own for each test. A newer version
is made up; how older ones are brought forward is told by the golden files.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.postgres.server import Server, required

from sayiir import Flow, SyncWorkflowClient, _core
from sayiir.cli import main

ONE = Flow("one").then(lambda x: x).build()
NEWEST = _core.postgres_migrations()[-1][0]


def sayiir(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, args, env={"SAYIIR_DATABASE_URL": "memory://"})
    assert result.exit_code == code, result.output
    return result


def migrate(url: str, *args: str, code: int = 0) -> Any:
    """What is said with --json: one object, and nothing else on stdout."""
    return json.loads(sayiir("migrate", "--json", "--url", url, *args, code=code).stdout)


# SQLite.


LATEST = 2
"""The version of both schemas."""


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_made_and_then_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    assert migrate(url, "--dry-run", code=3)["from"] == 0
    assert everything(tmp_path) == {}
    made = migrate(url)
    assert (made["database"], made["from"], made["to"]) == (
        f"{tmp_path}/app.db",
        0,
        version(tmp_path / "app.db"),
    )
    before = everything(tmp_path)
    again = migrate(url, "--dry-run")
    assert again == {**made, "from": made["to"], "dry_run": True, "sql": ""}
    assert everything(tmp_path) == before
    assert migrate(url)["from"] == made["to"]
    said = sayiir("migrate", "--url", url).stdout
    assert said == f"{tmp_path}/app.db: has version {made['to']}; there is nothing to do\n"


def test_a_file_that_is_in_use(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    # By a process of its own: two copies of SQLite must not have a file open in one.
    command = [sys.executable, "-m", "sayiir", "migrate", "--json", "--dry-run", "--url", url]
    with SyncWorkflowClient.from_url(url) as client:
        client.submit(ONE, "a", 1)
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told = json.loads(said)
        assert told["from"] == told["to"]
        assert client.status("a").status == "in_progress"


def test_an_empty_file_would_be_made(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    said = sayiir("migrate", "--dry-run", "--url", f"sqlite:///{tmp_path}/app.db", code=3).stdout
    assert said == f"{tmp_path}/app.db: would be made, version {LATEST}\n"


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path, args: tuple[str, ...]) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    migrate(url)
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        db.execute("PRAGMA user_version = 99")
    refused = migrate(url, *args, code=1)
    assert refused["type"] == "SnapshotFormatError"
    assert "version 99" in refused["error"]
    assert f"{tmp_path}/app.db" in refused["error"]
    assert version(tmp_path / "app.db") == 99


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, args: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        db.execute("CREATE TABLE t (a)")
    before = everything(tmp_path)
    refused = migrate(f"sqlite:///{tmp_path}/app.db", *args, code=1)
    assert refused["type"] == "SnapshotFormatError"
    assert "another program" in refused["error"]
    assert everything(tmp_path) == before


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_what_is_no_database_is_refused(tmp_path: Path, args: tuple[str, ...]) -> None:
    (tmp_path / "app.db").write_text("no database at all\n" * 100)
    refused = migrate(f"sqlite:///{tmp_path}/app.db", *args, code=1)
    assert refused["type"] in ("SnapshotFormatError", "BackendUnavailableError")
    assert f"{tmp_path}/app.db" in refused["error"]


# Elsewhere.


def test_memory_has_no_schema() -> None:
    for args in ((), ("--dry-run",)):
        assert sayiir("migrate", *args).stdout == "memory: there is no schema to migrate\n"
        assert migrate("memory://", *args)["to"] == 0


@pytest.mark.parametrize("url", ["sqlite://", "mysql://user:hunter2@host/db", "nonsense"])
def test_a_bad_url_is_a_wrong_argument(url: str) -> None:
    told = migrate(url, code=2)
    assert told["type"] == "ValueError"
    assert "hunter2" not in told["error"]


# PostgreSQL.


@pytest.fixture
def server() -> Server:
    return required(swift=True)


@pytest.fixture
def schema(server: Server) -> Iterator[str]:
    name = f"migrate_{token_hex(6)}"
    yield name
    server.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def relations(server: Server, schema: str) -> list[tuple[Any, ...]]:
    return server.execute(
        "SELECT c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s ORDER BY 1",
        (schema,),
    )


def test_a_schema_is_made_and_then_left_alone(server: Server, schema: str) -> None:
    url = server.url(schema=schema)
    planned = migrate(url, "--dry-run", code=3)
    assert (planned["from"], planned["to"]) == (0, NEWEST)
    assert relations(server, schema) == []
    made = migrate(url)
    assert (made["from"], made["to"]) == (0, NEWEST)
    assert ("instances", "r") in relations(server, schema)
    assert migrate(url, "--dry-run") == {
        **made,
        "from": NEWEST,
        "dry_run": True,
        "sql": "",
    }
    with SyncWorkflowClient.from_url(url) as client:
        client.submit(ONE, "a", 1)
        assert migrate(url)["from"] == NEWEST
        assert client.status("a").status == "in_progress"


def test_what_a_dry_run_prints_is_what_would_run(server: Server, schema: str) -> None:
    url = server.url(schema=schema)
    result = sayiir("migrate", "--dry-run", "--url", url, code=3)
    assert "would be made, version" in result.stderr
    other = f"{schema}_by_hand"
    try:
        server.execute(f"CREATE SCHEMA IF NOT EXISTS {other}")
        sql = result.stdout.replace(schema, other)
        with psycopg.connect(server.url()) as connection:
            connection.execute(sql.encode())
        migrate(url)
        by_hand, made = (
            {name for name, _ in relations(server, one)} - {"schema_version", "schema_version_pkey"}
            for one in (other, schema)
        )
        assert by_hand == made
    finally:
        server.execute(f"DROP SCHEMA {other} CASCADE")


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_a_newer_schema_is_refused_and_left_alone(
    server: Server, schema: str, args: tuple[str, ...]
) -> None:
    url = server.url(schema=schema)
    migrate(url)
    server.execute(f"UPDATE {schema}.schema_version SET version = 99")
    refused = migrate(url, *args, code=1)
    assert refused["type"] == "SnapshotFormatError"
    assert "99" in refused["error"]
    assert server.execute(f"SELECT version FROM {schema}.schema_version") == [(99,)]


@pytest.mark.parametrize("command", [["runs", "list"], ["runs", "show", "a"], ["doctor"]])
def test_looking_makes_no_schema(server: Server, schema: str, command: list[str]) -> None:
    result = sayiir(*command, "--url", server.url(schema=schema), code=1)
    assert "sayiir migrate" in result.stderr
    assert relations(server, schema) == []


def test_a_server_that_is_not_there(server: Server) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/shop"
    for args in ((), ("--dry-run",)):
        refused = migrate(url, *args, code=1)
        assert refused["type"] == "BackendUnavailableError"
        assert "127.0.0.1:1" in refused["error"]
        assert "hunter2" not in json.dumps(refused)


def test_no_password_is_shown(server: Server, schema: str) -> None:
    url = server.url(schema=schema)
    password = url.partition("@")[0].rpartition(":")[2]
    for args in (("--dry-run",), ()):
        result = CliRunner().invoke(main, ["migrate", "--url", url, *args])
        assert password not in result.output
        assert schema in result.output
