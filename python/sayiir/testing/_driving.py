"""Runs all that can run of what a memory backend holds, and knows when nothing is left.

A worker waits for work; a test wants to be told that there is none. The `Driver` claims what is
ready, drives it as a worker would, and returns when every instance has ended or is parked. What
comes up meanwhile (a step submits, sends an event, wakes another instance) is part of it. Nothing
here looks at a clock: time is the backend's, and it is the caller who moves it.

It refuses to know workflows, mocks and tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sayiir._core import Claimant, Program, Run
from sayiir._invoke import Invoker, default_processes
from sayiir._runner import Drive, Runner
from sayiir.backends import InMemoryBackend

__all__ = ["Driver"]

NAME = "test-worker"
WIDTH = 64
"""How many steps of an instance run at once, and how many functions in threads."""
LEASE_TTL_S = 365 * 86_400.0
"""Nobody else is there to take an instance over; and the clock may jump while a step runs."""


class Driver:
    """Drives the instances of one backend on the event loop it is called on.

    Args:
        backend: Where the instances are.
        programs: Gives what it can run, asked whenever something is ready.
        patience: How many seconds of real time may pass without anything coming to an end.
    """

    def __init__(
        self,
        backend: InMemoryBackend,
        programs: Callable[[], Sequence[Program]],
        patience: float,
    ) -> None:
        self._backend = backend
        self._programs = programs
        self._patience = patience
        self._claimant: tuple[Sequence[Program], Claimant] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: Runner | None = None
        self._invoker: Invoker | None = None
        self._drives: dict[asyncio.Task[Drive], str] = {}
        # One for each call that is under way: what is driven belongs to all of them.
        self._calls: set[asyncio.Event] = set()

    def hold(self, seconds: float) -> None:
        """Before the clock goes on by so much: keep the leases of what is being driven."""
        if self._drives:
            self._backend.store.renew(NAME, seconds + LEASE_TTL_S, self._backend.now())

    async def run_until_idle(self) -> None:
        """Drive everything that is ready, and what becomes ready by that, until nothing is.

        Raises:
            TimeoutError: A step does not end.
            Exception: What went wrong in the engine; never what a task raised.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        runner = self._runner_here()

        def hear(kind: str, about: str) -> None:
            # On whatever thread the change was made; the last of them may outlive the loop.
            if loop.is_closed():
                return
            if kind == "news":
                loop.call_soon_threadsafe(runner.news, about)
            loop.call_soon_threadsafe(changed.set)

        stop_listening = self._backend.listen(hear)
        self._calls.add(changed)
        try:
            # Branches of held instances may have timers that are due by now.
            for instance_id in list(runner.active):
                runner.news(instance_id)
            while True:
                changed.clear()
                self._take_up(runner)
                if not self._drives:
                    return
                try:
                    async with asyncio.timeout(self._patience):
                        await changed.wait()
                except TimeoutError:
                    raise TimeoutError(self._stuck()) from None
                self._settle()
        except BaseException:
            if len(self._calls) == 1:
                await self._abandon(runner)
            # Else the other calls go on with what is being driven.
            raise
        finally:
            self._calls.discard(changed)
            stop_listening()

    def close(self) -> None:
        """Let threads and processes go. What is still running was left by an interrupted test."""
        if self._invoker is not None:
            self._invoker.close()
        self._runner = self._invoker = self._loop = None

    def _runner_here(self) -> Runner:
        """What drives on this loop; another one is made when a test comes with another loop."""
        loop = asyncio.get_running_loop()
        if self._runner is None or self._loop is not loop:
            if self._drives:
                # Left behind by a loop that was closed in the middle of it.
                self._drives.clear()
                self._backend.store.release(NAME, self._backend.now())
            self.close()
            self._loop = loop
            self._invoker = Invoker(
                threads=WIDTH, processes=default_processes(), name="sayiir-test"
            )
            self._runner = Runner(
                self._backend, self._invoker, worker_only=True, native=self._backend
            )
        return self._runner

    def _take_up(self, runner: Runner) -> None:
        """Begin to drive whatever is ready."""
        programs = self._programs()
        if not programs:
            return
        if self._claimant is None or self._claimant[0] != programs:
            made = Claimant(NAME, programs, lease_ttl=LEASE_TTL_S, width=WIDTH)
            self._claimant = programs, made
        claimant = self._claimant[1]
        while (run := self._claimed(claimant)) is not None:
            task = asyncio.get_running_loop().create_task(runner.drive(run))
            self._drives[task] = run.instance_id
            task.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[Drive]) -> None:
        for changed in self._calls:
            changed.set()

    def _claimed(self, claimant: Claimant) -> Run | None:
        return self._backend.store.claim_run(claimant, self._backend.now())

    def _settle(self) -> None:
        """Take note of what is no longer driven."""
        for task in [task for task in self._drives if task.done()]:
            del self._drives[task]
            task.result()

    def _stuck(self) -> str:
        names = ", ".join(repr(name) for name in sorted(self._drives.values())[:5])
        return (
            f"nothing has come to an end for {self._patience:g} s of real time, and {names} still "
            "runs a step: what it awaits is not under the control of the test's clock. Mock the "
            "task, or give the environment more patience"
        )

    async def _abandon(self, runner: Runner) -> None:
        """Stop what is being driven and give it back, so that the environment can go on."""
        drives = [*self._drives]
        self._drives.clear()
        runner.closing = True
        for task in drives:
            task.cancel()
        await asyncio.gather(*drives, return_exceptions=True)
        await self._backend.release(NAME)
        self.close()
