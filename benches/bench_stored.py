"""Bytes that a checkpoint costs: late in a long instance against early in it.

Time can hide a cursor that grows with what is already done; bytes cannot. Three things are counted:
what commits hand to a backend, seen by a Python backend; what is then in the rows of a SQLite file
or of a PostgreSQL schema; and what was written on the way there, pages and all. The first two are
the same on every machine.

Of a server it is also counted how many transactions it took, and what whole instances leave behind.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from benches.ledger import Ledger
from benches.postgres_server import effort, served
from benches.python_backend import PythonBackend
from benches.store import POSTGRES, SQLITE, space
from benches.workload import PAYLOAD, WOKEN, chain, fork, loop, mapped
from sayiir import (
    PostgresBackend,
    SqliteBackend,
    Worker,
    Workflow,
    WorkflowClient,
    connect,
    run_workflow_async,
)
from sayiir._core import Commit
from sayiir.backends import Reply

Shape = Callable[[int], tuple[Workflow[Any, Any], Any]]

SHAPES: dict[str, Shape] = {
    "steps": lambda count: (chain(count), PAYLOAD),
    "turns": lambda count: (loop(count), count),
    "branches": lambda count: (fork(count), PAYLOAD),
    "items": lambda count: (mapped(), [PAYLOAD] * count),
}
THREE = chain(3)
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


def _costs(make: Shape, count: int) -> tuple[int, int]:
    """Bytes in the rows of a file after one instance of this size, and bytes written for it."""
    workflow, value = make(count)
    with SQLITE.place() as url:
        before = _written()
        path = asyncio.run(_left_behind(url, workflow, value))
        written = _written() - before
        # Not before the backend is closed: reading would write the log back into the file.
        return _content(path), written


async def _left_behind(url: str, workflow: Workflow[Any, Any], value: Any) -> str:
    """Run one instance and close the backend; the file it leaves."""
    backend = connect(url)
    assert isinstance(backend, SqliteBackend)
    await run_workflow_async(workflow, value, backend=backend)
    await backend.close()
    return backend.path


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
        costs = {size: _costs(make, size) for size in (10, 100, 910, 1_000)}
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


async def _rows_of(make: Shape, count: int) -> int:
    """Bytes in the rows of a schema after one instance of this size."""
    workflow, value = make(count)
    async with POSTGRES.opened() as backend:
        await run_workflow_async(workflow, value, backend=backend)
        assert isinstance(backend, PostgresBackend)
        return _content_of(backend.schema)


def _content_of(schema: str) -> int:
    # Payloads as they were handed over: the server packs large ones, and equal ones very well.
    columns = served().execute(
        "SELECT table_name, string_agg(format(CASE data_type WHEN 'bytea' THEN"
        " 'coalesce(octet_length(%%I), 0)' ELSE 'coalesce(pg_column_size(%%I), 0)' END,"
        " column_name), ' + ') FROM information_schema.columns JOIN pg_tables"
        " ON tablename = table_name AND schemaname = table_schema"
        " WHERE table_schema = %s AND table_name <> %s GROUP BY table_name",
        (schema, DEFINITIONS),
    )
    total = 0
    for table, lengths in columns:
        [[more]] = served().execute(f"SELECT coalesce(sum({lengths}), 0) FROM {schema}.{table}")
        total += int(more)
    return total


def bench_served_rows(ledger: Ledger) -> None:
    """What a step leaves in a schema, late against early."""
    for shape, make in SHAPES.items():
        costs = {size: asyncio.run(_rows_of(make, size)) for size in (10, 100, 910, 1_000)}
        late = (costs[1_000] - costs[910]) / 90
        early = (costs[100] - costs[10]) / 90
        _enter(ledger, f"{POSTGRES.name}: bytes in the rows of a schema, {shape}", late, early)


async def _complete(url: str, in_flight: int, count: int) -> None:
    """So many instances of three steps, from submit to result, by one worker."""
    backend = connect(url)
    client = WorkflowClient(backend)

    async def submitter() -> None:
        for _ in range(count // in_flight):
            await (await client.submit(THREE, input=PAYLOAD)).result()

    async with Worker(backend, [THREE], concurrency=in_flight):
        await asyncio.gather(*(submitter() for _ in range(in_flight)))
    await backend.close()


def bench_served_effort(ledger: Ledger) -> None:
    """Transactions of a server, and bytes in its log, for a step of instances of three steps."""
    for in_flight, count in ((1, 512), (64, 8_192)):
        with POSTGRES.place() as url:
            asyncio.run(_complete(url, in_flight, count // 4))  # Warm.
            before = effort()
            asyncio.run(_complete(url, in_flight, count))
            spent = effort() - before
        judged = in_flight == 64
        each = {
            "transactions": (spent.transactions / count / 3, "", 0.05),
            "bytes in the log": (spent.wal_bytes / count / 3, "B", 700.0),
        }
        for what, (figure, unit, most) in each.items():
            ledger.enter(
                "stored",
                f"{POSTGRES.name}: {what} for a step, submit and claim included, "
                f"{in_flight} in flight",
                figure,
                unit,
                judged=figure if judged else None,
                at_most=most if judged else None,
                budget=f"≤ {most:g} {unit}".rstrip() if judged else "",
            )


async def _park(url: str, count: int) -> None:
    """So many instances that wait for an event."""
    backend = connect(url)
    async with Worker(backend, [WOKEN], concurrency=64, poll_interval="50ms"):
        await WorkflowClient(backend).submit_many(WOKEN, [(None, PAYLOAD)] * count)
        while (await backend.find(status="in_progress", limit=1)).rows:  # noqa: ASYNC110 - parking is silent
            await asyncio.sleep(0.01)
    await backend.close()


def bench_served_space(ledger: Ledger) -> None:
    """What an ended and a parked instance take on a server's disk, with indexes and dead rows."""
    count = 8_192
    leavers: dict[str, Callable[[str, int], Coroutine[Any, Any, None]]] = {
        "an ended instance of three steps": lambda url, more: _complete(url, 64, more),
        "an instance that waits for an event": _park,
    }
    for what, leave in leavers.items():
        with POSTGRES.place() as url:
            asyncio.run(leave(url, 64))
            before = space(url)
            asyncio.run(leave(url, count))
            each = (space(url) - before) / count
        ledger.enter("stored", f"{POSTGRES.name}: {what}, 100 B, on the disk", each, "B")


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
