"""The real thing beside the model of `test_model.py`: its flows, its backends, its workers.

A `Side` is one backend with a client and workers of its own; what the model calls by name is built
here from the public parts. `facts_of` and `facts_at` say the same of a record and of a backend, so
that they can be compared. Nothing is judged here.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from sayiir import Flow, InMemoryBackend, RetryPolicy, Workflow, WorkflowClient, task
from sayiir._core import Run
from sayiir.testing import HandWorker, Held

from .model import PRIORITIES, TTL, Record


def step(name: str, **options: Any) -> Any:
    """A task that nobody calls: the machine says what it returned."""
    return task(name, **options)(lambda value: value)


BUILT: dict[str, Workflow[Any, Any]] = {
    "tour": Flow("tour")
    .then(
        step("first", priority=PRIORITIES["tour"], retries=RetryPolicy(1, initial_delay_secs=10.0))
    )
    .delay("rest", 100)
    .wait_for_event("go", node="door")
    .then(step("last", priority=PRIORITIES["tour"]))
    .build(),
    "patient": Flow("patient")
    .wait_for_event("go", node="one", timeout=50, on_timeout="continue")
    .wait_for_event("go", node="two")
    .then(step("last"))
    .build(),
    "pair": Flow("pair")
    .fork()
    .branch(step("left"))
    .branch(step("right"))
    .join(step("join"))
    .build(),
}


class NativeHeld(Held):
    """An instance whose checkpoints never leave Rust."""

    def __init__(self, worker: HandWorker, run: Run) -> None:
        self.worker, self._run = worker, run
        self.instance_id, self.fence, self.state = run.instance_id, run.fence, "held"
        self.steps, self.replies = [], []

    async def attend(self) -> None:
        """The engine looks into the store by itself."""
        await self._settle(self.run.attend(self.backend.now()))


class NativeWorker(HandWorker):
    """A worker that takes the way that real ones take with an `InMemoryBackend`."""

    async def claim(self, limit: int = 1) -> list[Held]:
        """Claim one instance, if there is one."""
        assert isinstance(self.backend, InMemoryBackend)
        run = self.backend.store.claim_run(self.claimant, self.backend.now())
        if run is None:
            return []
        held = NativeHeld(self, run)
        await held.attend()
        return [held]


class Side:
    """One backend, with a client and workers of its own.

    Args:
        backend: The backend.
        kind: Of which kind the workers are.
        elsewhere: The same place, opened once more for the workers, as in another process.
    """

    def __init__(
        self, backend: Any, kind: type[HandWorker] = HandWorker, elsewhere: Any = None
    ) -> None:
        self.backend = backend
        self.kind = kind
        self._elsewhere = elsewhere or backend
        self.client = WorkflowClient(backend)
        self.workers: dict[str, HandWorker] = {}

    def worker(self, name: str) -> HandWorker:
        """The worker of this name; a new name is a new worker."""
        if name not in self.workers:
            self.workers[name] = self.kind(
                self._elsewhere, list(BUILT.values()), name, lease_ttl=TTL
            )
        return self.workers[name]


@dataclass
class Hold:
    """What a worker believes to hold, on every side; perhaps it was taken away long ago."""

    worker: str
    record: Record
    fence: int
    held: list[Held]
    running: list[str]


def facts_of(one: Record) -> dict[str, Any]:
    """What a status, a row and a history must show."""
    asked = one.asked
    parked = one.parked if one.status in ("waiting", "awaiting_signal", "paused") else None
    return {
        "status": one.status,
        "output": one.output if one.status == "completed" else None,
        "failed": one.status == "failed",
        "reason": None if asked is None else asked.reason,
        "by": None if asked is None else asked.by,
        "wake_at": one.wake_at if one.status in ("waiting", "awaiting_signal", "paused") else None,
        "delay_id": "rest" if parked is not None and parked.kind == "delay" else None,
        "signal_id": parked.names[0] if parked is not None and parked.kind == "wait" else None,
        "worker": one.worker,
        "history": one.history,
    }


async def facts_at(side: Side, name: str) -> dict[str, Any]:
    """The same facts, as a client and the backend show them."""
    status, row, history = await asyncio.gather(
        side.client.status(name), side.backend.get(name), side.client.history(name)
    )
    assert len(history) == row.steps
    assert (status.signal_name == "go") is (status.signal_id is not None)
    return {
        "status": str(status.status),
        "output": status.output,
        "failed": status.error_type == "ValueError",
        "reason": row.reason,
        "by": row.by,
        "wake_at": row.wake_at,
        "delay_id": status.delay_id,
        "signal_id": status.signal_id,
        "worker": row.worker_id,
        "history": [(one.task, one.attempt, one.outcome) for one in history],
    }
