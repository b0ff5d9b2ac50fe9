"""Forks: a child cannot use what its parent had open, is told so at once, and harms nothing.

The children here are forked from a process that has only what it needs for it (`programs.py`),
never from the one that runs the tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .orders import Program
from .picture import opened

CALLS = ("submit", "status", "cancel", "send_event", "list_instances", "worker", "doctor")


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_forked_child_cannot_use_the_backend_of_its_parent(tmp_path: Path, way: str) -> None:
    path = tmp_path / "store.db"
    with Program("forking", path, way, "inherited") as program:
        report = program.hear()
        assert report["code"] == 0
        assert set(report["told"]) == set(CALLS)
        for call, (kind, text) in report["told"].items():
            assert kind == "BackendUnavailableError", call
            assert text.startswith(
                f"SQLite file '{path}' was opened before this process was forked"
            )
            assert "spawn" in text
        assert program.hear() == list(range(20))
        assert program.ended() == 0
    with opened(path) as connection:
        done = "SELECT count(*) FROM instances WHERE status = 4"
        assert connection.execute(done).fetchone() == (20,)


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_forked_child_cannot_open_the_file_that_its_parent_has_open(
    tmp_path: Path, way: str
) -> None:
    path = tmp_path / "store.db"
    with Program("forking", path, way, "anew") as program:
        report = program.hear()
        assert report["code"] == 0
        kind, text = report["told"]["open"]
        assert kind == "BackendUnavailableError"
        assert "before this process was forked" in text
        # Another file is no matter, however the first one is named.
        assert report["told"]["other"] == ["ok", "7"]
        assert report["told"]["linked"][0] == "BackendUnavailableError"
        assert program.hear() == list(range(20))
        assert program.ended() == 0


def test_a_child_that_was_forked_before_or_after_may_open_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Program("forking_in_time", path) as program:
        assert program.hear() == {"before": ["ok", "7"], "closed": ["ok", "7"]}
        assert program.ended() == 0


def test_a_spawned_child_may_open_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Program("spawning", path) as program:
        assert program.hear() == ["ok", "7"]
        assert program.hear() == list(range(5))
        assert program.ended() == 0
