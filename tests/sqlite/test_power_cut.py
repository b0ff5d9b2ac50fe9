"""Power cuts: what is lost of a log that lost its end, and of a disk that was not synced.

No machine is switched off here. Either the log of a killed process is cut, or all that a process
did to its disk is taken down, and disks are made of it that a power cut could have left: everything
synced is there, of the rest any sector may be missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from .disk_log import Entry, build_watch, cut_power, read_log
from .orders import Nursery, Program
from .picture import copy_store, opened, wal_of
from .walk import oracle

COUNT = 48
"""Instances of the process whose disk is watched."""
CUTS, RECOVERED = 80, 12
SYNCED_WITHIN_S = 1.0
SLACK_S = 3.0
"""For a machine that is busy."""
WAL_HEADER, FRAME = 32, 24 + 4096


def judge_recovery(nursery: Nursery, path: Path, told: str) -> None:
    """A fresh process brings everything that is there to the right end."""
    report = path.with_name("report")
    assert nursery.order("recover", path, report) == 0, told
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    for name, fate in found.items():
        answer = oracle(fate["workflow"], fate["input"])
        wanted = ("failed" if answer is None else "completed", answer)
        assert (fate["status"], fate["output"]) == wanted, f"{told}: {name}"


def steps_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The history of every instance, if its schema is there at all."""
    with opened(path) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            return {}
        found: dict[str, list[tuple[Any, ...]]] = {
            name: [] for (name,) in connection.execute("SELECT id FROM instances")
        }
        rows = "SELECT i.id, s.* FROM steps s JOIN instances i USING (instance) ORDER BY s.seq"
        for name, *row in connection.execute(rows):
            found[name].append(tuple(row))
        return found


# A log without its end.


def test_a_log_that_is_cut_anywhere_leaves_an_earlier_moment(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    path = tmp_path / "work" / "store.db"
    path.parent.mkdir()
    with Nursery() as nursery:
        died = nursery.order("labour", path, tmp_path / "log", kill_after=1.0)
        assert died == -signal.SIGKILL
        whole = steps_of(path)
        size = wal_of(path).stat().st_size
        frames = (size - WAL_HEADER) // FRAME
        assert frames > 50
        places = [0, 7, WAL_HEADER, size - 1]
        places += [WAL_HEADER + FRAME * rng.randrange(frames) for _ in range(10)]
        places += [rng.randrange(size) for _ in range(16)]
        for number, place in enumerate(places):
            copy = copy_store(path, tmp_path / f"cut-{number}")
            os.truncate(wal_of(copy), place)
            left = steps_of(copy)
            for name, rows in left.items():
                assert rows == whole[name][: len(rows)], f"cut at {place}: {name}"
            if number % 2 == 0:
                judge_recovery(nursery, copy, f"cut at {place}")
            shutil.rmtree(copy.parent)


def test_a_log_with_a_broken_frame_ends_before_it(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    path = tmp_path / "work" / "store.db"
    path.parent.mkdir()
    with Nursery() as nursery:
        nursery.order("labour", path, tmp_path / "log", kill_after=0.5)
        whole = steps_of(path)
        size = wal_of(path).stat().st_size
        for number in range(12):
            copy = copy_store(path, tmp_path / f"broken-{number}")
            with wal_of(copy).open("r+b") as log:
                log.seek(rng.randrange(size - 8))
                log.write(rng.randbytes(8))
            for name, rows in steps_of(copy).items():
                assert rows == whole[name][: len(rows)], name
            if number % 3 == 0:
                judge_recovery(nursery, copy, f"broken {number}")
            shutil.rmtree(copy.parent)


# A disk that was not synced.


@dataclass(frozen=True, slots=True)
class Watched:
    """What a process did to its disk until it had ended all its work."""

    entries: list[Entry]
    """Until its work was done; it was still open."""
    rest: list[Entry]
    """Until it was closed."""


@pytest.fixture(scope="module", params=["full", "normal"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, mode: str) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    library = build_watch(folder)
    if library is None:
        assert "CI" not in os.environ, "a C compiler is needed to watch the disk"
        pytest.skip("no C compiler: the disk cannot be watched")
    log = folder / "disk.log"
    env = {"LD_PRELOAD": str(library), "SAYIIR_DISK_LOG": str(log)}
    with Program("powered", folder / "store.db", mode, COUNT, env=env) as program:
        assert program.hear() == "done"
        deadline = time.monotonic() + SYNCED_WITHIN_S + 2 * SLACK_S
        while unsynced(entries := read_log(log)) and time.monotonic() < deadline:
            os.sched_yield()
        program.say()
        assert program.hear() == "closed"
    return Watched(entries, read_log(log)[len(entries) :])


def unsynced(entries: Sequence[Entry]) -> bool:
    """Whether the log was written to after it was synced."""
    kinds = [entry.kind for entry in entries if entry.name == "store.db-wal"]
    return "s" not in kinds or "w" in kinds[len(kinds) - kinds[::-1].index("s") :]


def acknowledged(entries: Sequence[Entry], what: str) -> set[str]:
    """Who was told of a submit, an event, or an end."""
    names = (entry.name.split("/") for entry in entries if entry.kind == "a")
    return {name for kind, name in names if kind == what}


def missing(entries: Sequence[Entry], path: Path) -> list[str]:
    """What was acknowledged and is not there."""
    if not path.exists():
        return sorted(acknowledged(entries, "submit"))
    left = steps_of(path)
    lost = sorted(acknowledged(entries, "submit") - left.keys())
    if left:
        with opened(path) as connection:
            ended = {
                name for (name,) in connection.execute("SELECT id FROM instances WHERE status > 3")
            }
            sent = ended | {name for (name,) in connection.execute("SELECT id FROM events")}
            passed = {
                name
                for (name,) in connection.execute(
                    "SELECT i.id FROM steps s JOIN instances i USING (instance) "
                    "WHERE s.path LIKE '%go'"
                )
            }
        lost += sorted(acknowledged(entries, "end") - ended)
        lost += sorted(acknowledged(entries, "event") - sent - passed)
    return lost


def test_a_power_cut_takes_nothing_that_was_acknowledged(
    watched: Watched, mode: str, tmp_path: Path, seed: int
) -> None:
    """With `normal` it may take the last second, and nothing older, and nothing by halves."""
    rng = Random(seed)
    entries = watched.entries
    moments = [*sorted(rng.sample(range(len(entries)), CUTS)), len(entries)]
    losses = 0
    with Nursery() as nursery:
        for number, moment in enumerate(moments):
            folder = tmp_path / f"cut-{number}"
            cut_power(entries[:moment], rng if number % 3 else None, folder)
            path = folder / "store.db"
            lost = missing(entries[:moment], path)
            losses += bool(lost)
            told = f"cut after {moment} of {len(entries)} records"
            if mode == "full":
                assert not lost, f"{told}: {lost}"
            else:
                before = last_whole(entries[:moment])
                assert not missing(before, path), told
            if path.exists() and number % (CUTS // RECOVERED) == 0:
                judge_recovery(nursery, path, told)
            shutil.rmtree(folder)
    if mode == "normal":
        assert losses > 0, "nothing was ever lost: the cuts are too tame"


def last_whole(entries: Sequence[Entry]) -> Sequence[Entry]:
    """What had happened when the log was last synced."""
    for number in range(len(entries) - 1, -1, -1):
        if entries[number].kind == "s" and entries[number].name == "store.db-wal":
            # What was acknowledged while it was being synced may have come after its writes.
            end = number
            while end > 0 and entries[end - 1].kind == "a":
                end -= 1
            return entries[:end]
    return []


def test_each_commit_is_synced_before_it_is_answered(watched: Watched, mode: str) -> None:
    """With `full`; `normal` syncs about once a second, and when it is closed."""
    log = [entry.kind for entry in watched.entries if entry.name == "store.db-wal"]
    commits = commits_of(watched.entries)
    assert commits > 20
    if mode == "full":
        assert log.count("s") >= commits
    else:
        assert log.count("s") < commits / 2


def commits_of(entries: Sequence[Entry]) -> int:
    """How many transactions were written: a frame that ends one says how large the file is."""
    heads = [entry.data for entry in entries if entry.kind == "w" and len(entry.data) == 24]
    return sum(struct.unpack(">I", head[4:8]) != (0,) for head in heads)


def test_what_was_written_is_synced_within_a_second(watched: Watched) -> None:
    mine = [entry for entry in watched.entries if entry.name == "store.db-wal"]
    assert not unsynced(watched.entries)
    last_write = max(entry.at_us for entry in mine if entry.kind == "w")
    first_sync = min(
        entry.at_us for entry in mine if entry.kind == "s" and entry.at_us >= last_write
    )
    assert first_sync - last_write <= (SYNCED_WITHIN_S + SLACK_S) * 1e6


def test_a_closed_file_is_whole_and_synced(watched: Watched, tmp_path: Path) -> None:
    entries = [*watched.entries, *watched.rest]
    cut_power(entries, None, tmp_path / "closed")
    assert missing(entries, tmp_path / "closed" / "store.db") == []
