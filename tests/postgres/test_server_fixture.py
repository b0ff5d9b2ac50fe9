"""The server that tests stand on is on trial itself: what it promises, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.postgres import server as module
from tests.postgres.binaries import find_binaries, newest_first
from tests.postgres.server import LocalServer, Mode, NoServerError, Server, required, shared
from tests.postgres.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent


def ask(url: str, sql: str) -> Any:
    """The one value that a statement gives."""
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_what_was_committed_outlives_a_restart(own_server: LocalServer, mode: Mode) -> None:
    url = own_server.fresh_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        own_server.restart(mode)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT n FROM kept")
    assert ask(url, "SELECT n FROM kept") == 7


def test_a_stopped_server_takes_nobody(own_server: LocalServer) -> None:
    own_server.stop("kill")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        own_server.execute("SELECT 1")
    own_server.start()
    assert own_server.execute("SELECT 1") == [(1,)]


def test_what_it_writes_is_on_the_disk(own_server: LocalServer) -> None:
    assert own_server.execute("SHOW fsync") == [("on",)]
    assert own_server.execute("SHOW synchronous_commit") == [("on",)]
    assert own_server.version >= 13


def test_only_who_knows_the_password_gets_in(own_server: LocalServer) -> None:
    wrong = own_server.url().replace(own_server._password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    assert ask(own_server.socket_url(), "SELECT 1") == 1
    assert own_server.folder.stat().st_mode & 0o077 == 0


def test_databases_are_apart_and_go(own_server: LocalServer) -> None:
    other = Server(own_server.url())
    urls = {other.fresh_database(), other.fresh_database()}
    names = {ask(url, "SELECT current_database()") for url in urls}
    assert len(names) == 2
    other.close()
    there = {name for (name,) in own_server.execute("SELECT datname FROM pg_database")}
    assert there & names == set()


def test_a_start_that_fails_shows_the_log() -> None:
    shared_binaries()
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1 as it started.*no_such_setting"):
        LocalServer(no_such_setting="1")


def test_a_killed_run_leaves_nothing() -> None:
    shared_binaries()
    program = (
        "import sys; from tests.postgres.server import LocalServer\n"
        "server = LocalServer()\n"
        "pid = (server.data / 'postmaster.pid').read_text().split()[0]\n"
        "print(server.folder, pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as run:
        assert run.stdout is not None
        folder, pid = run.stdout.readline().split()
        run.send_signal(signal.SIGKILL)
    until(lambda: not Path(folder).exists(), "the folder goes")
    until(lambda: not is_running(int(pid)), "the server goes")


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def shared_binaries() -> None:
    """Skip where no server can be started."""
    if find_binaries() is None:
        module.give_up("no PostgreSQL server on this machine")


def test_the_shared_one_is_one() -> None:
    assert required() is required()


def test_the_one_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", {})
    monkeypatch.setenv(
        module.URL_VARIABLE, "postgresql://me:secret@far.example/work?sslmode=require"
    )
    assert shared() is shared(swift=True)
    assert type(shared()) is Server
    assert shared().url() == "postgresql://me:secret@far.example/work?sslmode=require"
    found = shared().url("a b", application_name="x&y")
    assert found == (
        "postgresql://me:secret@far.example/a%20b?sslmode=require&application_name=x%26y"
    )


def test_no_server_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", {})
    monkeypatch.setattr(module, "find_binaries", lambda: None)
    monkeypatch.delenv(module.URL_VARIABLE, raising=False)
    with pytest.raises(NoServerError, match=module.URL_VARIABLE):
        shared()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL server"):
        required()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no PostgreSQL server"):
        required()


def test_the_newest_server_comes_first() -> None:
    folders = [Path(f"/usr/lib/postgresql/{version}/bin") for version in ("9.6", "13", "18", "15")]
    versions = [folder.parent.name for folder in newest_first(folders)]
    assert versions == ["18", "15", "13", "9.6"]
