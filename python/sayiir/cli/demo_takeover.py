"""The demo's course: a worker process is killed in the middle, another one goes on, books are kept.

Promises that the kill is a real SIGKILL of a real process, decided by what the store says and not
by time; that everything in the `Outcome` was counted, from the store's history and from the
workers' journal; and that no worker process is left behind, whatever happens. It starts processes
and watches the store; it never runs a step of the workflow, except once more, without the engine,
for the report to compare with. Refuses to know how any of it is shown.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sayiir import WorkflowClient
from sayiir._clock import monotonic
from sayiir.backends import InstanceRow, SqliteBackend
from sayiir.cli.census import ANALYSE, FIND, Report, Scan, analyse, census, find_files, report
from sayiir.cli.demo_journal import read_journal
from sayiir.cli.demo_process import WorkerProcess
from sayiir.cli.demo_worker import Order

__all__ = [
    "INSTANCE",
    "LEASE_TTL_S",
    "Kill",
    "Outcome",
    "Plan",
    "Watcher",
    "rehearse",
    "uninterrupted",
]

INSTANCE = "stdlib"
LEASE_TTL_S = 2.0
"""Much shorter than anyone should choose for work, so that the takeover is worth watching."""

_POLL_INTERVAL_S = 0.25
# How often the store is asked how far the work is: the price is one row.
_LOOK_EVERY_S = 0.02
_ENDED = frozenset({"completed", "failed", "cancelled"})
_FIRST, _SECOND = "worker-1", "worker-2"


class Watcher(Protocol):
    """Whoever shows the run; each call returns at once."""

    def say(self, line: str) -> None:
        """Something happened."""

    def progress(self, done: int, found: int) -> None:
        """So many of the files found are done; told again and again, changed or not."""

    def stand(self, what: str) -> None:
        """What is going on from now on, in a word or two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: count `scan` in the file `store`, with journals and errors in `folder`."""

    scan: Scan
    store: Path
    folder: Path
    concurrency: int
    kill: bool = True

    @property
    def journal(self) -> Path:
        """Where the workers write down what they begin."""
        return self.folder / "journal"


@dataclass(frozen=True, slots=True)
class Kill:
    """What was true when the first worker was dead, and what came of it."""

    pid: int
    successor_pid: int
    kept: int
    """Files whose result was in the store."""
    in_work: int
    """Files that had been begun and whose result was not."""
    lost: int
    """Files that were in the store and were begun again all the same. There must be none."""
    waited_s: float
    """From the death to the moment at which the other worker had taken over."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave; times are in seconds.

    >>> empty = report([])
    >>> Outcome(empty, empty, 0, 2, 0.5, None).broken_promises()
    []
    >>> Outcome(empty, report([analyse("no-such-file")]), 0, 2, 0.5, None).broken_promises()
    ['the report differs from the one computed without a kill, in files, unparsable']
    """

    report: Report
    expected: Report | None
    """The same report, computed without workers, store and kill; `None` without a kill."""
    twice: int
    """Files that were begun more than once."""
    checkpoints: int
    """Steps in the instance's history."""
    elapsed_s: float
    """From the submit to the end, by the times in the store."""
    kill: Kill | None

    def broken_promises(self) -> list[str]:
        """What did not come out as durability promises it; each as the rest of a sentence."""
        broken = []
        if self.expected is not None and self.expected != self.report:
            fields = [
                name for name, value in self.report.items() if self.expected.get(name) != value
            ]
            broken.append(
                f"the report differs from the one computed without a kill, in {', '.join(fields)}"
            )
        if self.kill is not None and self.kill.lost:
            broken.append(
                f"{self.kill.lost:,} of the {self.kill.kept:,} files that were done at the kill "
                "were analysed again"
            )
        return broken


async def rehearse(plan: Plan, watcher: Watcher) -> Outcome:
    """Run the census in worker processes as planned, and count what happened.

    Raises:
        WorkerGoneError: A worker ended by itself; its last words are in the message.
        BackendUnavailableError, SnapshotFormatError: The store cannot be opened or written.
        InstanceAlreadyExistsError: The store holds an earlier run.
        WorkflowFailed: A step failed, which a file's contents cannot bring about.
    """
    backend = SqliteBackend(plan.store)
    try:
        return await _Rehearsal(plan, watcher, backend).go()
    finally:
        await backend.close()


async def uninterrupted(scan: Scan) -> Report:
    """The report by plain calls: no worker, no store, no checkpoint, nobody killed."""
    # On a thread, where steps are run too: how deep an expression the parser takes depends on how
    # deep the calls already are.
    files = [await asyncio.to_thread(analyse, path) for path in find_files(scan)]
    return report(files)


class _Rehearsal:
    """One run: the store seen from outside of the workers, and what was noted on the way."""

    def __init__(self, plan: Plan, watcher: Watcher, backend: SqliteBackend) -> None:
        self._plan = plan
        self._watcher = watcher
        self._backend = backend
        self._client = WorkflowClient(backend)
        self._found: int | None = None
        self._done = 0

    async def go(self) -> Outcome:
        plan = self._plan
        handle = await self._client.submit(census(plan.concurrency), INSTANCE, input=plan.scan)
        kill: Kill | None = None
        comparison: asyncio.Task[Report] | None = None
        try:
            pid = await self._first_worker()
            if pid is not None:
                # Begun only now: it would have slowed down the worker that is to be killed.
                comparison = asyncio.create_task(uninterrupted(plan.scan))
                kill = await self._second_worker(pid)
            result = await handle.result()
            row = await self._backend.get(INSTANCE)
            if comparison is not None:
                self._watcher.stand("comparing")
            return Outcome(
                report=result,
                expected=None if comparison is None else await comparison,
                twice=self._begun_twice(),
                checkpoints=row.steps,
                elapsed_s=(row.ended_at or row.updated_at) - row.created_at,
                kill=kill,
            )
        finally:
            if comparison is not None and not comparison.done():
                comparison.cancel()
                with suppress(asyncio.CancelledError):
                    await comparison

    async def _first_worker(self) -> int | None:
        """Let a worker begin and kill it in the middle; its pid, or `None` if it was through."""
        with self._worker(_FIRST) as process:
            self._watcher.say(f"{_FIRST} began: process {process.pid}")
            self._watcher.stand("analysing")
            if not self._plan.kill:
                await self._watch(process)
                await process.leave()
                return None
            row = await self._watch(process, until=self._half_done)
            if row.status not in _ENDED:
                process.kill()
                # What it committed between the last look and its death counts as done.
                row = await self._look()
        if row.status in _ENDED:
            self._watcher.say(f"{_FIRST} was through before it was killed: take more files")
            return None
        return process.pid

    def _half_done(self, _: InstanceRow) -> bool:
        return self._found is not None and 0 < self._found <= 2 * self._done

    async def _second_worker(self, dead_pid: int) -> Kill:
        """Let another worker go on to the end; what became of everything the dead one had begun."""
        died = monotonic()
        dead = await self._look()
        items = f"{ANALYSE}["
        kept = {
            row.step.path
            for row in await self._backend.history(INSTANCE)
            if row.step.path.startswith(items)
        }
        in_work = read_journal(self._plan.journal).get(_FIRST, Counter()).keys() - kept
        self._watcher.say(
            f"{_FIRST} is dead: SIGKILL with {len(kept):,} of {self._found or 0:,} files in the "
            f"store and {len(in_work):,} in work"
        )
        with self._worker(_SECOND) as process:
            self._watcher.say(
                f"{_SECOND} began: process {process.pid}; the instance is its as soon as the dead "
                f"one's lease of {LEASE_TTL_S:g} s has run out"
            )
            self._watcher.stand("waiting for the lease")
            await self._watch(process, until=lambda row: row.fence > dead.fence)
            waited_s = monotonic() - died
            self._watcher.say(f"{_SECOND} took over {waited_s:.1f} s after the kill")
            self._watcher.stand("analysing")
            await self._watch(process)
            await process.leave()
        again = read_journal(self._plan.journal).get(_SECOND, Counter()).keys()
        return Kill(
            pid=dead_pid,
            successor_pid=process.pid,
            kept=len(kept),
            in_work=len(in_work),
            lost=len(again & kept),
            waited_s=waited_s,
        )

    async def _watch(
        self, process: WorkerProcess, until: Callable[[InstanceRow], bool] = lambda _: False
    ) -> InstanceRow:
        """Look at the store until the instance has ended or is as it should be."""
        while True:
            row = await self._look()
            if row.status in _ENDED or until(row):
                return row
            process.check()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> InstanceRow:
        """How far the instance is, told to the watcher as well."""
        row = await self._backend.get(INSTANCE)
        if self._found is None and row.steps:
            # Finding is the first step, so its output is there as soon as there is any step.
            paths: list[str] = await self._client.get_task_result(INSTANCE, FIND, [])
            self._found = len(paths)
        if self._found is not None:
            # The first step found the files and the last one reports.
            self._done = min(row.steps - 1, self._found)
            self._watcher.progress(self._done, self._found)
        return row

    def _begun_twice(self) -> int:
        begun: Counter[str] = Counter()
        for steps in read_journal(self._plan.journal).values():
            begun += steps
        return sum(times > 1 for times in begun.values())

    def _worker(self, name: str) -> WorkerProcess:
        plan = self._plan
        order = Order(
            store=str(plan.store),
            journal=str(plan.journal),
            worker=name,
            concurrency=plan.concurrency,
            lease_ttl_s=LEASE_TTL_S,
            poll_interval_s=_POLL_INTERVAL_S,
        )
        return WorkerProcess(order, plan.folder)
