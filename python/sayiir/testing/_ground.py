"""What every part of the contract suite stands on: the fixtures and a few ways of looking.

It promises a fresh backend and a clock of its own to each test, and to close the backend after it.
"""

# Asserting is what a suite does.

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from sayiir.backends import Backend, InstanceRow

from ._clocks import VirtualClock
from ._flows import ONE, Anything, new_instances
from ._hand import HandWorker, Held

__all__ = ["Ground", "end_as", "everything", "held_by", "start", "submit"]


class Ground:
    """The fixtures `clock` and `backend`, and the one method that a subclass must give."""

    pytestmark: pytest.MarkDecorator = pytest.mark.asyncio

    async def make_backend(self, clock: VirtualClock) -> Backend:
        """An empty backend whose `now()`, leases and timers follow the clock.

        Raises:
            NotImplementedError: The subclass does not say how.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_backend(self, clock)")

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """The time that the backend goes by."""
        return VirtualClock()

    @pytest_asyncio.fixture
    async def backend(self, clock: VirtualClock) -> AsyncIterator[Backend]:
        """An empty backend."""
        backend = await self.make_backend(clock)
        yield backend
        await backend.close()


async def submit(backend: Backend, workflow: Anything, *ids: str) -> None:
    """Create instances with these ids."""
    await backend.submit(new_instances(workflow, ids), "fail")


async def held_by(worker: HandWorker, instance_id: str) -> Held:
    """Let the worker claim this instance, which must be free and ready."""
    held = await worker.claim_one(instance_id)
    assert held is not None, f"{instance_id!r} is not to be had"
    return held


async def start(
    backend: Backend, workflow: Anything, instance_id: str = "i-1", name: str = "worker-1"
) -> Held:
    """Create an instance and claim it."""
    await submit(backend, workflow, instance_id)
    return await held_by(HandWorker(backend, [workflow], name), instance_id)


async def end_as(backend: Backend, status: str, instance_id: str = "i-1") -> None:
    """Create an instance and bring it to this end: `completed`, `failed` or `cancelled`."""
    held = await start(backend, ONE, instance_id)
    if status == "completed":
        await held.complete("done")
    elif status == "failed":
        await held.fail("broken")
    else:
        await backend.release(held.worker.name)
        await backend.cancel(instance_id, "enough", "ops")
    assert (await backend.get(instance_id)).status == status


async def everything(backend: Backend, instance_id: str) -> tuple[InstanceRow, bytes, list[Any]]:
    """All that can be read of an instance, in a form that can be compared."""
    history = [
        (
            row.worker_id,
            row.step.seq,
            row.step.path,
            row.step.name,
            row.step.attempt,
            row.step.outcome,
            row.step.output,
            row.step.error,
            row.step.started_at,
            row.step.ended_at,
        )
        for row in await backend.history(instance_id)
    ]
    return await backend.get(instance_id), await backend.input(instance_id), history
