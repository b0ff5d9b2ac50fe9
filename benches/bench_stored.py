"""Bytes that a checkpoint costs: late in a long instance against early in it.

Time can hide a cursor that grows with what is already done; bytes cannot. Three things are counted:
what commits hand to a backend, seen by a Python backend; what is then in the rows of a SQLite file;
and what the process wrote on the way there, pages and all. The first two are the same on every
machine.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from benches.ledger import Ledger
from benches.python_backend import PythonBackend
from benches.store import SQLITE
from benches.workload import PAYLOAD, chain, fork, loop, mapped
from sayiir import SqliteBackend, Workflow, run_workflow_async
from sayiir._core import Commit
from sayiir.backends import Reply

Shape = Callable[[int], tuple[Workflow[Any, Any], Any]]

SHAPES: dict[str, Shape] = {
    "steps": lambda count: (chain(count), PAYLOAD),
    "turns": lambda count: (loop(count), count),
    "branches": lambda count: (fork(count), PAYLOAD),
    "items": lambda count: (mapped(), [PAYLOAD] * count),
}
IO = Path("/proc/self/io")
DEFINITIONS = "definitions"
"""The table whose rows are there once for all instances."""


class CountingBackend(PythonBackend):
    """Notes how many bytes every commit hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[float] = []
        """Bytes for each step, in order; the steps of one commit share it."""
        self._more = 0

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        for commit in commits:
            self._more += _size(commit)
            if steps := len(commit.steps):
                self.sizes.extend([self._more / steps] * steps)
                self._more = 0
        return await super().commit(commits)


def _size(commit: Commit) -> int:
    rows = sum(len(row.output or b"") + len(row.error or b"") for row in commit.steps)
    return len(commit.cursor or b"") + sum(len(cell) for _, cell in commit.cells) + rows


def bench_bytes(ledger: Ledger) -> None:
    """What a step adds near the thousandth step, turn, branch or item, against near the tenth."""
    for shape, make in SHAPES.items():
        workflow, value = make(1_000)
        backend = CountingBackend()
        asyncio.run(run_workflow_async(workflow, value, backend=backend))
        sizes = backend.sizes
        _enter(ledger, f"bytes committed, {shape}", fmean(sizes[900:990]), fmean(sizes[5:95]))


async def _costs(make: Shape, count: int) -> tuple[int, int]:
    """Bytes in the rows of a file after one instance of this size, and bytes written for it."""
    workflow, value = make(count)
    async with SQLITE.opened() as backend:
        assert isinstance(backend, SqliteBackend)
        before = _written()
        await run_workflow_async(workflow, value, backend=backend)
        return _content(backend.path), _written() - before


def _content(path: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        total = 0
        for (table,) in tables:
            if table == DEFINITIONS:
                continue
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            lengths = " + ".join(f'coalesce(length(CAST("{n}" AS BLOB)), 0)' for n in names)
            total += db.execute(f"SELECT coalesce(sum({lengths}), 0) FROM {table}").fetchone()[0]
        return total


def _written() -> int:
    """Bytes that this process gave the system to write; 0 where the system does not tell."""
    try:
        lines = IO.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def bench_file(ledger: Ledger) -> None:
    """What a step leaves in a file, late against early; and what is written for one of 1,000."""
    for shape, make in SHAPES.items():
        costs = {size: asyncio.run(_costs(make, size)) for size in (10, 100, 910, 1_000)}
        late = (costs[1_000][0] - costs[910][0]) / 90
        early = (costs[100][0] - costs[10][0]) / 90
        _enter(ledger, f"{SQLITE.name}: bytes in the rows of a file, {shape}", late, early)
        # Written are whole pages, now into the log and at times back into the file, so that a
        # difference between two sizes would tell of the log's length more than of the steps.
        if written := (costs[1_000][1] - costs[10][1]) / 990:
            ledger.enter(
                "stored",
                f"  pages and all, written for one of 1,000 {shape}",
                written,
                "B",
                against=late,
                rival="in the rows",
            )


def _enter(ledger: Ledger, what: str, late: float, early: float) -> None:
    ledger.enter(
        "stored",
        f"{what} near the 1,000th",
        late,
        "B",
        against=early,
        rival="near the 10th",
        judged=late / early,
        at_most=1.1,
        budget="≤ 1.1×",
    )
