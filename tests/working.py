"""What the tests of the worker share: the backends it is tried on, and how bodies are counted.

`BACKENDS` are the places every promise of a worker must hold on: the backend whose checkpoints stay
in Rust, and one in pure Python that takes the way of any other. `Gauge` counts bodies that run at
once, so that concurrency is a number and never a duration. Nothing here waits for a moment: `LONG`
is the time after which a test that cannot end is given up.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benches.python_backend import PythonBackend

from sayiir import InMemoryBackend, Worker, Workflow, WorkflowClient
from sayiir.backends import Backend

BACKENDS: dict[str, Callable[[], Backend]] = {"memory": InMemoryBackend, "python": PythonBackend}
LONG = 30.0
"""Seconds until a test that waits for a fact is a failed test."""
NEVER = "1h"
"""A poll interval or a wait that no test lives to see the end of."""


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
