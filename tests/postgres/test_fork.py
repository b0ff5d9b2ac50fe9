"""Forks: a child cannot use the backend of its parent, is told so at once, and harms nothing.

A child that makes a backend of its own is as good as any other process. The children here are
forked from a process that has only what it needs for it (`programs.py`), never from the one that
runs the tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.postgres.server import Server, required
from tests.sqlite.orders import Program

CALLS = {"submit", "status", "cancel", "send_event", "list_instances", "worker", "doctor"}
PROGRAMS = "tests.postgres.programs"


@pytest.fixture(scope="module")
def server() -> Server:
    return required(swift=True)


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_forked_child_cannot_use_the_backend_of_its_parent(
    server: Server, tmp_path: Path, way: str
) -> None:
    url = server.fresh_database()
    with Program("forking", url, tmp_path, way, "inherited", module=PROGRAMS) as program:
        report = program.hear()
        assert report["code"] == 0
        assert set(report["told"]) == CALLS
        for call, (kind, text) in report["told"].items():
            assert kind == "BackendUnavailableError", call
            assert "was made before this process was forked" in text
            assert "spawn" in text
        # The connections are whole: what the child inherited of them it has left alone.
        assert program.hear() == list(range(20))
        assert program.ended() == 0
    database = url.rpartition("/")[2]
    done = "SELECT count(*) FROM sayiir.instances WHERE status = 4"
    assert server.execute(done, database=database) == [(20,)]


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_forked_child_may_make_a_backend_of_its_own(
    server: Server, tmp_path: Path, way: str
) -> None:
    url = server.fresh_database()
    with Program("forking", url, tmp_path, way, "anew", module=PROGRAMS) as program:
        assert program.hear() == {"code": 0, "told": ["ok", "7"]}
        assert program.hear() == list(range(20))
        assert program.ended() == 0


def test_a_spawned_child_may_make_one(server: Server, tmp_path: Path) -> None:
    with Program("spawning", server.fresh_database(), tmp_path, module=PROGRAMS) as program:
        assert program.hear() == ["ok", "7"]
        assert program.hear() == list(range(5))
        assert program.ended() == 0
