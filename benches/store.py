"""The stores that are measured, each opened afresh for a sample and removed after it.

Files lie where a disk is to be expected: in `SAYIIR_BENCH_DIR`, else in `/var/tmp`, which outlives
a reboot and is therefore seldom in memory, else in the folder for temporary files. On a file system
in memory durable commits cost nothing and their figures say nothing; `file_system` tells.

It promises that no two samples share a file. It measures nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.python_backend import PythonBackend
from sayiir import InMemoryBackend, SqliteBackend
from sayiir.backends import Backend

__all__ = ["MEMORY", "PYTHON", "SQLITE", "SQLITE_NORMAL", "Store", "file_system", "ground"]


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
    make: Callable[[Path], Backend]
    """Opens it on a file that does not exist yet."""
    durable: bool = True
    """Whether there is a file at all."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Backend]:
        """A fresh backend, closed and removed afterwards."""
        if not self.durable:
            yield self.make(Path())
            return
        with tempfile.TemporaryDirectory(prefix="sayiir-bench-", dir=ground()) as folder:
            backend = self.make(Path(folder) / "bench.db")
            try:
                yield backend
            finally:
                await backend.close()


MEMORY = Store("memory", lambda _: InMemoryBackend(), durable=False)
PYTHON = Store("Python backend", lambda _: PythonBackend(), durable=False)
SQLITE = Store("SQLite", SqliteBackend)
SQLITE_NORMAL = Store(
    "SQLite, synchronous=normal", lambda path: SqliteBackend(path, synchronous="normal")
)


def ground() -> Path:
    """The folder below which files are made."""
    if given := os.environ.get("SAYIIR_BENCH_DIR"):
        return Path(given)
    lasting = Path("/var/tmp")
    return lasting if os.access(lasting, os.W_OK) else Path(tempfile.gettempdir())


def file_system() -> str:
    """The kind of file system that the files lie on; empty where the system does not tell.

    >>> isinstance(file_system(), str)
    True
    """
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    folder = ground().resolve()
    kinds = {Path(point): kind for _, point, kind, *_ in (line.split() for line in lines)}
    return next((kinds[at] for at in (folder, *folder.parents) if at in kinds), "")
