"""What SQLite alone takes for the work of an instance: the rows, the durability, and no engine.

A bare script might store three-step instances like this: Python's own `sqlite3`, a write-ahead log,
`synchronous` as asked, prepared statements run over whole batches. So many instances advance in
lock step, one transaction a round: submitted, claimed, and each of three steps committed with its
position, every write after the first under a fence. Nothing is encoded, decoded, looked for, waited
for or called.

It promises the durability of the backend it is compared with, on the same file system. It has no
index but the primary keys, and knows neither flows nor workers. What every row holds is made up
before the clock starts.

Run it alone as `python -m benches.sqlite_floor [folder]`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Literal, Self

__all__ = ["STEPS", "SqliteFloor", "fsync_seconds"]

STEPS = 3
"""Steps of an instance."""

Synchronous = Literal["full", "normal"]

CURSOR = b"c" * 60
PAYLOAD = b"p" * 100
HASH = b"h" * 32
NOW = 1_700_000_000_000_000
WORKER = "worker-1"

SCHEMA = """
CREATE TABLE instance (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, definition BLOB NOT NULL,
    status INTEGER NOT NULL, priority INTEGER NOT NULL, tags TEXT, cursor BLOB,
    next_seq INTEGER NOT NULL, fence INTEGER NOT NULL, holder TEXT, lease_us INTEGER,
    created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, wake_us INTEGER
);
CREATE TABLE input (instance INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE step (
    instance INTEGER NOT NULL, seq INTEGER NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL,
    attempt INTEGER NOT NULL, outcome INTEGER NOT NULL, started_us INTEGER NOT NULL,
    ended_us INTEGER NOT NULL, output BLOB, worker TEXT NOT NULL, PRIMARY KEY (instance, seq)
) WITHOUT ROWID;
"""
SUBMIT = (
    "INSERT INTO instance (key, id, definition, status, priority, next_seq, fence, created_us,"
    " updated_us) VALUES (?, ?, ?, 0, 3, 0, 0, ?, ?)"
)
INPUT = "INSERT INTO input (instance, payload) VALUES (?, ?)"
CLAIM = (
    "UPDATE instance SET fence = fence + 1, holder = ?, lease_us = ?, updated_us = ?"
    " WHERE key = ? AND fence = ?"
)
STEP = (
    "INSERT INTO step (instance, seq, path, name, attempt, outcome, started_us, ended_us, output,"
    " worker) VALUES (?, ?, ?, ?, 1, 0, ?, ?, ?, ?)"
)
ADVANCE = "UPDATE instance SET cursor = ?, next_seq = ?, updated_us = ? WHERE key = ? AND fence = ?"
COMPLETE = (
    "UPDATE instance SET cursor = ?, next_seq = ?, status = 4, holder = NULL, lease_us = NULL,"
    " updated_us = ? WHERE key = ? AND fence = ?"
)


class SqliteFloor:
    """A database of its own, in a folder that is there.

    >>> with tempfile.TemporaryDirectory() as folder, SqliteFloor(Path(folder)) as floor:
    ...     seconds = floor.instances(in_flight=4, count=8)
    ...     floor.stored()
    (8, 24)
    """

    def __init__(self, folder: Path, synchronous: Synchronous = "full") -> None:
        self._db = sqlite3.connect(folder / "floor.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {synchronous}")
        self._db.executescript(SCHEMA)
        self._next = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def instances(self, in_flight: int, count: int) -> float:
        """Seconds for each of `count` instances, from submit to completion."""
        took = 0.0
        for _ in range(count // in_flight):
            batch = _Batch(self._next, in_flight)
            self._next += in_flight
            start = perf_counter()
            batch.write(self._db)
            took += perf_counter() - start
        return took / (count // in_flight * in_flight)

    def commits(self, count: int) -> list[float]:
        """Seconds of each of `count` checkpoints of one held instance, a transaction each."""
        key, db = self._next, self._db
        self._next += 1
        db.execute(SUBMIT, (key, os.urandom(16).hex(), HASH, NOW, NOW))
        took = []
        for seq in range(count):
            row = (key, seq, f"step-{seq}", "noop", NOW, NOW, PAYLOAD, WORKER)
            start = perf_counter()
            db.execute("BEGIN IMMEDIATE")
            db.execute(ADVANCE, (CURSOR, seq + 1, NOW, key, 0))
            db.execute(STEP, row)
            db.execute("COMMIT")
            took.append(perf_counter() - start)
        return took

    def stored(self) -> tuple[int, int]:
        """How many instances have completed, and how many step rows there are."""
        query = (
            "SELECT (SELECT count(*) FROM instance WHERE status = 4), (SELECT count(*) FROM step)"
        )
        completed, steps = self._db.execute(query).fetchone()
        return completed, steps


class _Batch:
    """The rows of so many instances, in the order of their rounds."""

    def __init__(self, first: int, size: int) -> None:
        keys = range(first, first + size)
        # Random, as ids are: that is what an index on them has to take.
        self.submits = [(key, os.urandom(16).hex(), HASH, NOW, NOW) for key in keys]
        self.inputs = [(key, PAYLOAD) for key in keys]
        self.claims = [(WORKER, NOW, NOW, key, 0) for key in keys]
        self.steps = [
            [(key, seq, f"step-{seq}", "noop", NOW, NOW, PAYLOAD, WORKER) for key in keys]
            for seq in range(STEPS)
        ]
        self.advances = [[(CURSOR, seq + 1, NOW, key, 1) for key in keys] for seq in range(STEPS)]

    def write(self, db: sqlite3.Connection) -> None:
        many = db.executemany
        db.execute("BEGIN IMMEDIATE")
        many(SUBMIT, self.submits)
        many(INPUT, self.inputs)
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        many(CLAIM, self.claims)
        db.execute("COMMIT")
        for seq in range(STEPS):
            db.execute("BEGIN IMMEDIATE")
            many(STEP, self.steps[seq])
            many(ADVANCE if seq + 1 < STEPS else COMPLETE, self.advances[seq])
            db.execute("COMMIT")


def fsync_seconds(folder: Path, count: int) -> list[float]:
    """Seconds of each of `count` appended pages that were made durable, with no database at all."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            start = perf_counter()
            file.write(b"p" * 4096)
            os.fsync(file.fileno())
            took.append(perf_counter() - start)
    return took


def main(folder: Path) -> None:
    """Print the floors of this machine."""
    print(f"one fsync: {sorted(fsync_seconds(folder, 1_000))[500] * 1e3:.3f} ms (median)")
    synchronous: Synchronous
    for synchronous in ("full", "normal"):
        with (
            tempfile.TemporaryDirectory(dir=folder) as place,
            SqliteFloor(Path(place), synchronous) as floor,
        ):
            middle = sorted(floor.commits(1_000))[500] * 1e3
            print(f"{synchronous}: one commit {middle:.3f} ms (median)")
            for in_flight, count in ((1, 512), (16, 4_096), (64, 16_384), (256, 32_768)):
                rate = 1 / min(floor.instances(in_flight, count // 4) for _ in range(4))
                print(f"{synchronous}: {in_flight} in flight: {rate:,.0f} instances/s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()))
