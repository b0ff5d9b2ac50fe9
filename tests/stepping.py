"""A worker's side of the storage contract, one move at a time, for tests of the client's side.

`Stage` holds a backend whose clock stands still until it is told to go on, a client, and a worker
that does nothing by itself: a test brings an instance into the state it is about, and looks. It
promises to go through the public contract only (`claim_one`, `commit`, …), so that it serves every
backend. It refuses to know threads, timers and retries; those belong to the real worker.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from sayiir import Flow, Workflow, WorkflowClient
from sayiir._codec import describe_error
from sayiir._core import Claimant, Run, Step, Turn
from sayiir.backends import Backend

START = 1_700_000_000.0
HOUR = 3600.0
STATES = (
    "in_progress",
    "waiting",
    "awaiting_signal",
    "paused",
    "completed",
    "failed",
    "cancelled",
)


def first(value: Any) -> Any:
    """Fails when it is told to."""
    if value == "fail":
        raise ValueError("told to fail")
    return [value]


def last(event: Any) -> dict[str, Any]:
    return {"event": event}


TOUR: Workflow[Any, dict[str, Any]] = (
    Flow("tour").then(first).delay("rest", "1h").wait_for_event("go").then(last).build()
)
"""A workflow that can be brought into every state."""


def here(answer: Step | Turn | int) -> Step | Turn:
    """The answer of a run whose commits its caller writes."""
    assert not isinstance(answer, int)
    return answer


class Held:
    """An instance that the stage's worker holds, with what it is to do next."""

    def __init__(self, stage: "Stage", run: Run, answer: Step | Turn) -> None:
        self.stage = stage
        self.run = run
        self.answer = answer

    @property
    def steps(self) -> Sequence[Step]:
        return [self.answer] if isinstance(self.answer, Step) else self.answer.steps

    @property
    def state(self) -> str:
        return "held" if isinstance(self.answer, Step) else self.answer.state

    async def settle(self) -> None:
        """Write what is to be written before anything else is done."""
        while isinstance(self.answer, Turn) and self.answer.commit is not None:
            [reply] = await self.stage.backend.commit([self.answer.commit])
            events = [(event.seq, event.name, event.payload) for event in reply.events]
            self.answer = here(self.run.committed(reply.kind, events, self.stage.now))

    async def do(self, step: Step) -> None:
        """Run one step and write down how it went."""
        now = self.stage.now
        try:
            value = step.fn(step.input)
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:
            text = describe_error(error)
            self.answer = here(
                self.run.failed(
                    step,
                    text.error_type,
                    text.message,
                    text.traceback,
                    text.causes,
                    step.task.is_retryable(error),
                    None,
                    0.0,
                    now,
                )
            )
        else:
            self.answer = here(self.run.completed(step, value, now))
        await self.settle()

    async def finish(self) -> str:
        """Go on until the instance ends, parks or is taken away; how it was let go."""
        while self.state == "held":
            await self.do(self.steps[0])
        return self.state


class Stage:
    """See the module's opening.

    Args:
        make: Makes the backend, given its `clock`.
        workflows: What its worker can do besides the `TOUR`.
    """

    def __init__(self, make: Callable[..., Backend], *workflows: Workflow[Any, Any]) -> None:
        self.now = START
        self.backend = make(clock=lambda: self.now)
        self.client = WorkflowClient(self.backend)
        programs = [workflow.program for workflow in (TOUR, *workflows)]
        self.claimant = Claimant("stage", programs, lease_ttl=10 * HOUR)

    async def take(self, instance_id: str) -> Held:
        """Claim an instance that is ready, and look what is to be done."""
        backend = self.backend
        claim = await backend.claim_one(self.claimant, instance_id)
        assert claim is not None, f"{instance_id} is not ready"
        rows = await backend.rows(instance_id, claim.referenced())
        run = Run(self.claimant, claim, rows, await backend.input(instance_id), self.now)
        news = await backend.news(instance_id, run.fence, run.awaits())
        events = [(event.seq, event.name, event.payload) for event in news.events]
        answer = run.attend(
            self.now, lost=news.lost, cancel=news.cancel, pause=news.pause, events=events
        )
        held = Held(self, run, here(answer))
        await held.settle()
        return held

    async def run(self, instance_id: str) -> str:
        """Advance a ready instance as far as it goes; how it was let go."""
        return await (await self.take(instance_id)).finish()

    async def reach(self, state: str, instance_id: str = "i") -> str:
        """Submit a `TOUR` and bring it into this state; its id."""
        client = self.client
        await client.submit(TOUR, instance_id, "fail" if state == "failed" else "in")
        if state in ("waiting", "awaiting_signal", "completed", "failed"):
            await self.run(instance_id)
        if state in ("awaiting_signal", "completed"):
            self.now += HOUR
            await self.run(instance_id)
        if state == "completed":
            await client.send_event(instance_id, "go", "out")
            await self.run(instance_id)
        if state == "paused":
            await client.pause(instance_id, "a break", "ops")
        if state == "cancelled":
            await client.cancel(instance_id, "no need", "ops")
        assert (await client.status(instance_id)).status == state
        return instance_id


Stages = Callable[..., Stage]
"""Makes stages, given the workflows; what the fixture `stages` is."""

__all__ = ["HOUR", "START", "STATES", "TOUR", "Held", "Stage", "Stages", "first", "last"]
