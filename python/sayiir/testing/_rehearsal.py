"""One run of one instance in memory and in virtual time, with a worker that dies if it is told to.

The worker dies at a commit: before it or behind it, nothing of its own is done any more. Then its
lease runs out and another one goes on. Steps that were in a thread when it died are waited for, so
that no body of a dead worker runs beside those of the living.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sayiir._client import WorkflowClient
from sayiir._codec import read_error
from sayiir._context import get_task_context
from sayiir._core import Claimant, Commit
from sayiir._invoke import Invoker
from sayiir._runner import Runner
from sayiir._task import TaskDef
from sayiir._worker import take_up
from sayiir._workflow import Workflow
from sayiir.backends import InMemoryBackend, InstanceRow, Reply

from ._clocks import VirtualClock
from ._comparing import Outcome
from ._mocking import stand_in, with_tasks

__all__ = ["Crash", "Rehearsal"]

INSTANCE = "crash-test"
LEASE_TTL_S = 30.0
WIDTH = 64
ENDED = ("completed", "failed", "cancelled", "paused")


@dataclass(frozen=True, slots=True)
class Crash:
    """When the first worker dies."""

    number: int
    """At which commit, from 1."""
    moment: Literal["before", "after"]


class Died(BaseException):
    """The worker is dead. Not an `Exception`, so that no step takes it for its own."""


class Rehearsal:
    """One run. See the module's opening.

    Args:
        workflow: What is run.
        input: Its input.
        events: Sent right after the submit.
        crash: When the worker dies; `None`: it lives.
    """

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        events: Sequence[tuple[str, Any]],
        crash: Crash | None,
    ) -> None:
        self._outcome = Outcome()
        self._clock = VirtualClock()
        self._backend = _Mortal(self._clock, self._outcome, crash)
        self._input = input
        self._events = events
        self._lock = threading.Lock()
        self._at_work = 0
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        watched = {at: stand_in(task, self._watch(task)) for at, task in enumerate(workflow.tasks)}
        self._workflow = with_tasks(workflow, watched)

    async def run(self) -> Outcome:
        """Run it to its end, through its crash.

        Raises:
            AssertionError: It awaits an event that does not come.
        """
        backend = self._backend
        client = WorkflowClient(backend)
        await client.submit(self._workflow, INSTANCE, self._input)
        for name, payload in self._events:
            await client.send_event(INSTANCE, name, payload)
        name = "worker-1"
        while True:
            try:
                await self._work(name)
            except Died:
                name = "worker-2"
                self._clock.advance(LEASE_TTL_S + 1.0)
                continue
            row = await backend.get(INSTANCE)
            if row.status in ENDED:
                return await self._note(row)
            wake = await backend.next_wake()
            if wake is None or wake <= self._clock.time:
                raise AssertionError(_stranded(self._workflow.workflow_id, row))
            self._clock.time = wake

    async def _work(self, name: str) -> None:
        """Do all that is ready, as one worker.

        Raises:
            Died: It is the worker that was to die.
        """
        claimant = Claimant(name, [self._workflow.program], lease_ttl=LEASE_TTL_S, width=WIDTH)
        invoker = Invoker(threads=WIDTH, processes=1, name="sayiir-crash-test")
        runner = Runner(self._backend, invoker, worker_only=True)
        others = asyncio.all_tasks()
        try:
            while claims := await self._backend.claim(claimant, 1):
                for claim in claims:
                    run = await take_up(self._backend, claimant, claim)
                    if run is not None:
                        await runner.drive(run)
        except Died:
            # What a process takes with it when it dies.
            left = asyncio.all_tasks() - others
            runner.closing = True
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._quiet()
            raise
        finally:
            invoker.close()

    def _watch(self, task: TaskDef) -> Callable[[Any], Any]:
        """The task's function, with a note of every call and of those under way in threads."""

        def call(value: Any) -> Any:
            context = get_task_context()
            assert context is not None
            with self._lock:
                self._at_work += 1
                self._outcome.bodies.append((context.path, context.attempt))
            try:
                return task.call(value)
            finally:
                with self._lock:
                    self._at_work -= 1
                self._loop.call_soon_threadsafe(self._idle.set)

        return call

    async def _quiet(self) -> None:
        """Wait for the threads of a dead worker."""
        while self._at_work:
            self._idle.clear()
            if self._at_work:
                await self._idle.wait()

    async def _note(self, row: InstanceRow) -> Outcome:
        """What it came to."""
        outcome = self._outcome
        outcome.status = row.status
        outcome.output = row.output
        if row.error is not None:
            text = read_error(row.error)
            outcome.error = f"{text.error_type} of {text.path!r}: {text.message}"
        for entry in await self._backend.history(INSTANCE):
            if entry.step.output is not None:
                outcome.steps[entry.step.path] = entry.step.output
        return outcome


class _Mortal(InMemoryBackend):
    """A memory backend under whose commits a worker dies.

    With that the worker's engine has a commit that was never answered, so it sends no other.
    """

    __slots__ = ("_crash", "_outcome")

    def __init__(self, clock: VirtualClock, outcome: Outcome, crash: Crash | None) -> None:
        super().__init__(clock=clock)
        self._outcome = outcome
        self._crash = crash

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        crash = self._crash
        for commit in commits:
            self._outcome.commits.append(tuple(step.path for step in commit.steps))
        dies = crash is not None and len(self._outcome.commits) == crash.number
        if dies:
            self._crash = None
            if crash is not None and crash.moment == "before":
                raise Died
        replies = await super().commit(commits)
        if dies:
            raise Died
        return replies


def _stranded(workflow: str, row: InstanceRow) -> str:
    """Why a rehearsal does not end."""
    if row.signal_name is not None:
        return (
            f"workflow {workflow!r} awaits event {row.signal_name!r}, which does not come; give "
            f"events=[({row.signal_name!r}, …)]"
        )
    return (
        f"workflow {workflow!r} is {row.status}, and nothing is due that could bring it to an end"
    )
