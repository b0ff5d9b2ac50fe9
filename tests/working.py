"""What the tests of the worker share: the backends it is tried on, and how bodies are counted.

`BACKENDS` names the places every promise must hold on: the backend whose checkpoints stay in Rust,
one in pure Python that takes the way of any other, a file, and a schema of a server. `Places` makes
fresh ones of a kind and sees them closed and gone. `Gauge` counts bodies that run at once, so that
concurrency is a number and never a duration. Nothing here waits for a moment: `LONG` is the time
after which a test that cannot end is given up.
"""

import asyncio
import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benches.python_backend import PythonBackend
from tests.postgres import server

from sayiir import (
    InMemoryBackend,
    PostgresBackend,
    SqliteBackend,
    Worker,
    Workflow,
    WorkflowClient,
)
from sayiir.backends import Backend, StorageBackend

KINDS: dict[str, type[Any]] = {
    "memory": InMemoryBackend,
    "python": PythonBackend,
    "sqlite": SqliteBackend,
    "postgres": PostgresBackend,
}
BACKENDS = tuple(KINDS)
_numbers = itertools.count()
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
"""A folder whose files never wait for a disk, if there is one."""
LONG = 30.0
"""Seconds until a test that waits for a fact is a failed test."""
NEVER = "1h"
"""A poll interval or a wait that no test lives to see the end of."""

if TYPE_CHECKING:
    Altered = PythonBackend
else:
    Altered = object
"""What a class derives from that does some of a backend's methods otherwise, whatever the backend;
to the type checker it is one of them, so that `super()` has the methods."""


async def until(fact: Callable[[], bool]) -> None:
    """Let the loop run until something is so that tells nobody."""
    async with asyncio.timeout(LONG):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Places:
    """Fresh backends of one kind, each empty; at the end all are closed and their files gone.

    Files are kept in memory, where the machine has a folder for that, and written with
    `synchronous="normal"`: what a disk does, and what a power cut may take, is the matter of
    others.

    Args:
        kind: One of `BACKENDS`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._made: list[Backend] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._schemas: list[str] = []

    def __call__(self, *altered: type, **settings: Any) -> Backend:
        """One more.

        Args:
            altered: Classes whose methods go before the backend's own; see `Altered`.
            settings: What every backend takes, such as `clock`.
        """
        kind = KINDS[self.kind]
        if altered:
            kind = type(altered[0].__name__, (*altered, kind), {})
        if self.kind == "sqlite":
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="sayiir-", dir=IN_MEMORY)
            settings["path"] = Path(self._folder.name, f"{len(self._made)}.db")
            settings["synchronous"] = "normal"
        if self.kind == "postgres":
            settings["url"] = server.required(swift=True).url()
            settings["schema"] = f"test_{os.getpid()}_{next(_numbers)}"
            self._schemas.append(settings["schema"])
        backend: Backend = kind(**settings)
        self._made.append(backend)
        return backend

    def again(self, backend: Backend) -> StorageBackend:
        """The same place once more, opened as by another process; what is in memory cannot be."""
        other: StorageBackend
        if isinstance(backend, SqliteBackend):
            other = SqliteBackend(backend.path, synchronous="normal", clock=backend._clock)
        else:
            assert isinstance(backend, PostgresBackend)
            url = server.required(swift=True).url()
            other = PostgresBackend(url, schema=backend.schema, clock=backend._clock)
        self._made.append(other)
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close them and remove their files."""
        for backend in self._made:
            await backend.close()
        if self._folder is not None:
            self._folder.cleanup()
        if self._schemas:
            gone = "; ".join(f"DROP SCHEMA IF EXISTS {name} CASCADE" for name in self._schemas)
            await asyncio.to_thread(server.required(swift=True).execute, gone)


async def outcome(backend: Backend, workflow: Workflow[Any, Any], value: Any = None) -> Any:
    """What a fresh worker makes of one instance."""
    async with Worker(backend, workflow, concurrency=4, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=value)
        return await handle.result(timeout=LONG)


class Gauge:
    """How many bodies ran, and the most that ran at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.total = 0

    @contextmanager
    def body(self) -> Iterator[None]:
        """Around the body that is counted."""
        with self._lock:
            self._now += 1
            self.total += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1
