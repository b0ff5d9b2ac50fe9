"""The stores that are measured, each opened afresh for a sample and removed after it.

It promises that no two samples share a file or a schema, and that other processes can be told by
URL where a backend of here keeps its instances. It says how much room a place uses, and times
nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

from benches.ground import ground
from benches.postgres_server import served
from benches.python_backend import PythonBackend
from sayiir import connect
from sayiir.backends import Backend

__all__ = [
    "MEMORY",
    "POSTGRES",
    "POSTGRES_RELAXED",
    "PYTHON",
    "SQLITE",
    "SQLITE_NORMAL",
    "Store",
    "space",
    "url_of",
]

_FILE = "sqlite:///"
# In a process of its own: the two copies of SQLite in this one do not see each other's locks, so
# that closing a file in Python's would take the log away from under the engine's.
_PAGES = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
names = ("page_count", "freelist_count", "page_size")
pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
print((pages - free) * size)
"""
_urls: dict[int, str] = {}
"""Where the open backends are, by their identity."""


@dataclass(frozen=True, slots=True)
class Store:
    """One kind of backend.

    >>> import asyncio
    >>> async def main():
    ...     async with MEMORY.opened() as backend:
    ...         return backend
    >>> asyncio.run(main())
    <InMemoryBackend with 0 instances>
    """

    name: str
    """What the tables call it."""
    place: Callable[[], AbstractContextManager[str]]
    """Makes an empty place, and removes it; gives its URL."""
    make: Callable[[str], Backend] = connect
    """Opens the backend of a URL."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Backend]:
        """A fresh backend, closed and removed afterwards."""
        with self.place() as url:
            backend = self.make(url)
            _urls[id(backend)] = url
            try:
                yield backend
            finally:
                del _urls[id(backend)]
                await backend.close()


def url_of(backend: Backend) -> str:
    """The URL of a backend that is open here.

    Raises:
        KeyError: No store opened it.
    """
    return _urls[id(backend)]


def space(url: str) -> int:
    """Bytes that the file or the schema of a URL uses on the disk, indexes and dead rows included.

    What only waits in a write-ahead log counts once, as the pages that it will be; pages that are
    free again do not. The place may be in use.

    Raises:
        RuntimeError: The file could not be read.
    """
    if url.startswith(_FILE):
        path = url.removeprefix(_FILE).partition("?")[0]
        done = subprocess.run(
            [sys.executable, "-c", _PAGES, path], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the pages of {path} could not be counted:\n{done.stderr}")
        return int(done.stdout)
    [[total]] = served().execute(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
        " WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
        (parse_qs(urlsplit(url).query)["schema"][0],),
    )
    return int(total)


@contextmanager
def _file(options: str = "") -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sayiir-bench-", dir=ground()) as folder:
        yield f"{_FILE}{folder}/bench.db{options}"


@contextmanager
def _schema(**parameters: str) -> Iterator[str]:
    server, name = served(), f"bench_{token_hex(6)}"
    try:
        yield server.url(schema=name, **parameters)
    finally:
        server.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


MEMORY = Store("memory", lambda: nullcontext("memory://"))
PYTHON = Store("Python backend", lambda: nullcontext(""), lambda _: PythonBackend())
SQLITE = Store("SQLite", _file)
SQLITE_NORMAL = Store("SQLite, synchronous=normal", partial(_file, "?synchronous=normal"))
POSTGRES = Store("Postgres", _schema)
POSTGRES_RELAXED = Store(
    "Postgres, synchronous_commit=off", partial(_schema, options="-c synchronous_commit=off")
)
"""For what a disk would hide; no promise is kept by it."""
