"""A picture of a store: every row of every table, as Python's own `sqlite3` reads it from a copy.

The copy is taken of the file and its log as they lie on the disk, without the shared memory, so
that reading it recovers the log as any process would that comes after a crash.
"""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """What stood in a store; equal pictures are of equal contents."""

    digests: dict[str, str]
    """Of each table, all of its rows."""
    instances: tuple[Row, ...] = field(compare=False)
    """The rows of this table, for the judges of the rest of the story."""
    places: dict[str, int] = field(compare=False)
    """Where in such a row each of its columns is."""

    def column(self, row: Row, name: str) -> Any:
        """A column of a row of `instances`."""
        return row[self.places[name]]


def wal_of(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def copy_store(path: Path, to: Path) -> Path:
    """Copy a file and its log, in another process: this one may have the store open."""
    to.mkdir(parents=True, exist_ok=True)
    files = [str(file) for file in (path, wal_of(path)) if file.exists()]
    subprocess.run(["cp", *files, str(to)], check=True)
    return to / path.name


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy that is recovered here; the copy must be sound."""
    with tempfile.TemporaryDirectory(prefix="sayiir-picture-") as folder:
        copy = copy_store(path, Path(folder))
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            yield connection


def tables(connection: sqlite3.Connection) -> list[str]:
    """The names of all tables."""
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


def take_picture(path: Path) -> Picture:
    """What stands in a store."""
    with opened(path) as connection:
        digests = {}
        for name in tables(connection):
            rows = sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            digests[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
        cursor = connection.execute("SELECT * FROM instances ORDER BY instance")
        places = {about[0]: place for place, about in enumerate(cursor.description)}
        return Picture(digests, tuple(cursor.fetchall()), places)


def difference(left: Path, right: Path) -> str:
    """Where two stores differ, row by row, for a reader."""
    found = []
    with opened(left) as one, opened(right) as two:
        for name in tables(one):
            rows = [set(each.execute(f'SELECT * FROM "{name}"')) for each in (one, two)]
            found += [f"{name} - {row}" for row in sorted(rows[0] - rows[1], key=repr)]
            found += [f"{name} + {row}" for row in sorted(rows[1] - rows[0], key=repr)]
    return "\n".join(found)
