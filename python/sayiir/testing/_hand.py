"""A worker driven by hand: the smallest thing that advances an instance through a backend.

A `HandWorker` claims; a `Held` is one claimed instance. Facts are reported one at a time, in the
order a test chooses, and every checkpoint goes to the backend as a real worker's would. It runs no
function: the test says what a step returned. It never waits; its time is the backend's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sayiir._core import Claim, Claimant, Commit, Run, Step, Turn
from sayiir._workflow import Workflow
from sayiir.backends import Backend, Reply

__all__ = ["HandWorker", "Held"]


class HandWorker:
    """A worker that does only what it is told.

    Args:
        backend: Where it claims.
        workflows: What it can run.
        name: Its worker id.
        tags: The tags it offers; `None`: all.
        lease_ttl: How long its leases last, in seconds.

    >>> import asyncio
    >>> from sayiir import Flow, InMemoryBackend
    >>> from sayiir.testing import HandWorker, new_instance
    >>> double = Flow("double").then(lambda x: x * 2, name="twice").build()
    >>> async def main():
    ...     backend = InMemoryBackend()
    ...     await backend.submit([new_instance(double, "d-1", 21)], "fail")
    ...     [held] = await HandWorker(backend, [double]).claim()
    ...     await held.complete(42)
    ...     return (await backend.get("d-1")).status
    >>> asyncio.run(main())
    'completed'
    """

    def __init__(
        self,
        backend: Backend,
        workflows: Sequence[Workflow[Any, Any]],
        name: str = "worker-1",
        *,
        tags: Sequence[str] | None = None,
        lease_ttl: float = 30.0,
    ) -> None:
        self.backend = backend
        self.name = name
        self.lease_ttl = lease_ttl
        self.claimant: Claimant = Claimant(
            name, [workflow.program for workflow in workflows], tags=tags, lease_ttl=lease_ttl
        )

    async def claim(self, limit: int = 1) -> list[Held]:
        """Claim up to `limit` instances and take them up."""
        claims = await self.backend.claim(self.claimant, limit)
        return [await self._take_up(claim) for claim in claims]

    async def claim_ids(self, limit: int = 1) -> list[str]:
        """Claim up to `limit` instances; their ids, in the order they were given out."""
        return [claim.instance_id for claim in await self.backend.claim(self.claimant, limit)]

    async def claim_one(self, instance_id: str) -> Held | None:
        """Claim this instance and take it up, if it is ready and free."""
        claim = await self.backend.claim_one(self.claimant, instance_id)
        return None if claim is None else await self._take_up(claim)

    async def renew(self) -> list[str]:
        """Prolong the leases by their whole length; ids with a pending cancel or pause, sorted."""
        return sorted(await self.backend.renew(self.name, self.lease_ttl))

    async def _take_up(self, claim: Claim) -> Held:
        held = Held(self, claim)
        await held.begin()
        return held


class Held:
    """One claimed instance and where it stands with its holder."""

    def __init__(self, worker: HandWorker, claim: Claim) -> None:
        self.worker = worker
        self.claim = claim
        self.instance_id: str = claim.instance_id
        self.fence: int = claim.fence
        self.state: str = "held"
        """The last turn's: `held parked handed_over completed failed cancelled paused lost`."""
        self.steps: list[Step] = []
        """Steps that were started and whose end was not reported."""
        self.replies: list[Reply] = []
        """What the backend answered to the commits, oldest first."""
        self._run: Run | None = None

    @property
    def backend(self) -> Backend:
        """Where it is stored."""
        return self.worker.backend

    @property
    def run(self) -> Run:
        """The engine's view of it.

        Raises:
            RuntimeError: It was not begun.
        """
        if self._run is None:
            raise RuntimeError(f"instance {self.instance_id!r} was claimed but not begun")
        return self._run

    @property
    def kinds(self) -> list[str]:
        """The kinds of the replies, oldest first."""
        return [reply.kind for reply in self.replies]

    async def begin(self) -> None:
        """Load what the engine needs, take the instance up and see what is to be done."""
        rows = await self.backend.rows(self.instance_id, self.claim.referenced())
        sealed = await self.backend.input(self.instance_id)
        now = self.backend.now()
        self._run = Run(self.worker.claimant, self.claim, rows, sealed, now)
        await self.attend()

    async def attend(self) -> None:
        """Ask the backend for news and let the engine act on it and on the time."""
        news = await self.backend.news(self.instance_id, self.fence, self.run.awaits())
        answer = self.run.attend(
            self.backend.now(),
            lost=news.lost,
            cancel=news.cancel,
            pause=news.pause,
            events=[(event.seq, event.name, event.payload) for event in news.events],
        )
        await self._settle(answer)

    async def complete(self, value: object = None, name: str | None = None) -> str | None:
        """Report that a step returned; the kind of the last reply, `None` without a commit.

        Args:
            value: What it returned.
            name: The step's task; the oldest running one if not given.
        """
        step = self._end(name)
        return await self._settle(self.run.completed(step, value, self.backend.now()))

    async def fail(self, message: str = "broken", name: str | None = None) -> str | None:
        """Report that a step raised a `ValueError`; the kind of the last reply."""
        step, now = self._end(name), self.backend.now()
        answer = self.run.failed(step, "ValueError", message, "", [], True, None, 0.0, now)
        return await self._settle(answer)

    async def drain(self) -> str | None:
        """Start nothing new and give the instance back when its running steps have ended."""
        return await self._settle(self.run.drain(self.backend.now()))

    def completion(self, value: object = None, name: str | None = None) -> Commit:
        """The commit of a step's return, not sent: for commits that come late, or not at all.

        Raises:
            AssertionError: The step's end calls for no commit.
        """
        answer = self.run.completed(self._end(name), value, self.backend.now())
        if not isinstance(answer, Turn) or answer.commit is None:
            raise AssertionError(f"the end of a step of {self.instance_id!r} made no commit")
        return answer.commit

    async def send(self, commit: Commit) -> str:
        """Hand a commit to the backend and nothing else; the kind of the reply."""
        [reply] = await self.backend.commit([commit])
        return reply.kind

    def _end(self, name: str | None) -> Step:
        for at, step in enumerate(self.steps):
            if name is None or step.task.name == name:
                return self.steps.pop(at)
        raise AssertionError(
            f"instance {self.instance_id!r} is {self.state} and runs no step {name or 'at all'};"
            f" running: {[step.path for step in self.steps]}"
        )

    async def _gathered(self, groups: Sequence[int]) -> Step | Turn | int:
        """Tell the engine how the items ended of groups that are over."""
        items = self.backend.items
        ends = [(group, list(await items(self.instance_id, group))) for group in groups]
        return self.run.gathered(ends, self.backend.now())

    async def _settle(self, answer: Step | Turn | int) -> str | None:
        """Start what may start, gather and commit what there is, until the engine waits."""
        kind = None
        while isinstance(answer, Turn):
            self.state = answer.state
            self.steps += answer.steps
            if answer.commit is None:
                if not answer.gather or answer.state != "held":
                    return kind
                answer = await self._gathered(answer.gather)
                continue
            [reply] = await self.backend.commit([answer.commit])
            self.replies.append(reply)
            kind = reply.kind
            events = [(event.seq, event.name, event.payload) for event in reply.events]
            answer = self.run.committed(kind, events, self.backend.now())
        assert not isinstance(answer, int), "only a storage thread's runs commit by themselves"
        self.state = "held"
        self.steps.append(answer)
        return kind
