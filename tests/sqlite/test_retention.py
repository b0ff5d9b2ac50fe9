"""What is no longer kept goes by itself, a little at a time, and its space is used again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sayiir import (
    Flow,
    InstanceNotFoundError,
    LoopResult,
    SqliteBackend,
    Worker,
    WorkflowClient,
    task,
)
from sayiir.testing import HandWorker, VirtualClock, new_instance

from .picture import opened
from .walk import BROKEN, DAY, FORK, HOUR, NAP, PAYLOAD, STRAIGHT, WAIT, run_on

LONG = 30.0
PIECE = 1_000
"""Steps of a deleted history go in pieces of this size."""


def rows_of(path: Path, table: str) -> int:
    """How many rows a table has."""
    with opened(path) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def run(backend: SqliteBackend, workflow: Any, name: str, given: Any = 1) -> None:
    """Submit an instance and do what can be done of it."""
    await backend.submit([new_instance(workflow, name, given)], "fail")
    held = await HandWorker(backend, [workflow]).claim_one(name)
    assert held is not None
    await run_on(held)


async def exists(backend: SqliteBackend, name: str) -> bool:
    try:
        await backend.get(name)
    except InstanceNotFoundError:
        return False
    return True


async def test_what_ended_is_kept_as_long_as_it_was_said(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = VirtualClock()
    backend = SqliteBackend(path, synchronous="normal", clock=clock, keep_completed="7d")
    for name, workflow in (("done", STRAIGHT), ("broken", BROKEN), ("nap", NAP), ("fork", FORK)):
        await run(backend, workflow, name)
    await backend.cancel("nap", None, None)
    clock.advance(7 * DAY - 1)
    await run(backend, STRAIGHT, "younger")
    assert [await exists(backend, name) for name in ("done", "broken", "nap")] == [True] * 3
    clock.advance(2)
    await backend.send_event("nobody", "go", b"", None)  # Any write sweeps.
    assert [await exists(backend, name) for name in ("done", "broken", "nap")] == [False] * 3
    # What has not ended stays for ever, and what ended later stays longer.
    assert await exists(backend, "fork")
    assert await exists(backend, "younger")
    assert [row.instance_id for row in (await backend.find()).rows] == ["younger", "fork"]
    await backend.close()
    with opened(path) as connection:
        left = connection.execute("SELECT DISTINCT instance FROM steps ORDER BY 1").fetchall()
        assert left == connection.execute("SELECT instance FROM instances ORDER BY 1").fetchall()


async def test_without_a_limit_everything_is_kept(tmp_path: Path) -> None:
    clock = VirtualClock()
    backend = SqliteBackend(tmp_path / "store.db", synchronous="normal", clock=clock)
    await run(backend, STRAIGHT, "done")
    clock.advance(50 * 365 * DAY)
    await run(backend, STRAIGHT, "another")
    assert await exists(backend, "done")
    await backend.close()


async def test_an_idle_process_forgets_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    backend = SqliteBackend(path, synchronous="normal", keep_completed=0.0)
    for n in range(200):
        await run(backend, STRAIGHT, f"i-{n}")
    async with asyncio.timeout(LONG):
        while (await backend.find(limit=1)).rows:  # noqa: ASYNC110
            await asyncio.sleep(0)  # Nothing tells of what is forgotten.
    await backend.close()
    for table in ("instances", "inputs", "steps", "cells", "events", "garbage"):
        assert rows_of(path, table) == 0, table


TURNS = 3_500


def turn(x: int) -> LoopResult[int]:
    return LoopResult.done(x) if x >= TURNS else LoopResult.again(x + 1)


LONG_FLOW = Flow("long").loop(task(turn), max_iterations=TURNS + 1, name="again").build()


async def test_a_long_history_goes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = VirtualClock()
    backend = SqliteBackend(path, synchronous="normal", clock=clock)
    await run(backend, LONG_FLOW, "long", 0)
    clock.advance(1)
    before = rows_of(path, "steps")
    assert before == TURNS + 1
    await backend.delete("long", False)
    assert not await exists(backend, "long")
    counts = [before, rows_of(path, "steps")]
    while counts[-1] > 0 and len(counts) < 20:
        clock.advance(1)
        await backend.send_event("nobody", "go", b"", "always the same")
        counts.append(rows_of(path, "steps"))
    assert counts[-1] == 0
    pieces = [was - is_now for was, is_now in pairwise(counts)]
    # The first transaction deletes a piece, and sweeps one like all others.
    assert pieces[0] <= 2 * PIECE
    assert max(pieces[1:]) <= PIECE
    # The id is free at once, and the new one keeps its own.
    await run(backend, STRAIGHT, "long")
    assert len(await backend.history("long")) == 2
    await backend.close()
    assert rows_of(path, "garbage") == 0


async def test_pieces_that_were_left_are_swept_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    backend = SqliteBackend(path, synchronous="normal", clock=VirtualClock())
    await run(backend, LONG_FLOW, "long", 0)
    await backend.delete("long", False)
    await backend.close()
    assert rows_of(path, "garbage") == 1
    backend = SqliteBackend(path, synchronous="normal")
    async with asyncio.timeout(LONG):
        while rows_of(path, "garbage"):  # noqa: ASYNC110
            await asyncio.sleep(0)  # As above.
    await backend.close()
    assert rows_of(path, "steps") == 0


ITEMS = 3_000
FIRST_PIECE, PIECE_OF_ITEMS = 1_000, 64
"""So many items go together with their parent, and so many with each sweep after that."""
MANY = (
    Flow("many")
    .then(lambda count: list(range(count)), name="list")
    .map(lambda n: n, name="each", spread=True)
    .wait_for_event("go")
    .build()
)


async def with_items(path: Path, clock: VirtualClock) -> SqliteBackend:
    """A store where all items of a parent have ended, and the parent waits for an event."""
    backend = SqliteBackend(path, synchronous="normal", clock=clock, keep_completed="7d")
    async with Worker(backend, MANY, concurrency=64, poll_interval="1h"):
        await backend.submit([new_instance(MANY, "many", ITEMS)], "fail")
        async with asyncio.timeout(LONG):
            while (await backend.get("many")).status != "awaiting_signal":  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Nothing tells of the wait of somebody else.
    return backend


class Reader:
    """Counts rows in a process of its own, which may have the file open beside this one."""

    def __init__(self, path: Path, *tables: str) -> None:
        counts = ", ".join(f"(SELECT count(*) FROM {name})" for name in tables)
        program = "import sqlite3, sys\nfor _ in sys.stdin: print(*sqlite3.connect(sys.argv[1])"
        program += f".execute('SELECT {counts}').fetchone(), flush=True)"
        command = [sys.executable, "-c", program, str(path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def counts(self) -> list[int]:
        """Of each table."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [int(count) for count in self._process.stdout.readline().split()]

    def close(self) -> None:
        """There is nothing more to count."""
        self._process.communicate()


async def pieces_of(backend: SqliteBackend, path: Path, clock: VirtualClock) -> list[int]:
    """How many items go with each write, until there are none."""
    reader = Reader(path, "items", "instances", "inputs")
    pieces: list[int] = []
    left = reader.counts()[0]
    while left > 0 and len(pieces) < ITEMS:
        clock.advance(1)
        await backend.send_event("nobody", "go", b"", "always the same")
        now, instances, inputs = reader.counts()
        assert now == instances == inputs
        pieces.append(left - now)
        left = now
    reader.close()
    return pieces


async def test_items_are_kept_until_their_parent_goes_and_go_in_pieces(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.db", VirtualClock()
    backend = await with_items(path, clock)
    clock.advance(100 * DAY)
    await run(backend, STRAIGHT, "younger")
    assert rows_of(path, "items") == ITEMS
    assert rows_of(path, "instances") == ITEMS + 2
    await WorkflowClient(backend).send_event("many", "go", PAYLOAD)
    async with Worker(backend, MANY, poll_interval="1h"):
        await WorkflowClient(backend).result("many", timeout=LONG)
    await backend.delete("younger", False)
    clock.advance(8 * DAY)
    pieces = await pieces_of(backend, path, clock)
    assert sum(pieces) == ITEMS
    # The transaction that removes the parent sweeps like all others.
    assert pieces[0] <= FIRST_PIECE + PIECE_OF_ITEMS
    assert max(pieces[1:]) <= PIECE_OF_ITEMS
    clock.advance(1)
    await backend.release("nobody")
    await backend.close()
    for table in ("instances", "inputs", "steps", "items", "item_groups", "garbage"):
        assert rows_of(path, table) == 0, table


async def test_a_deleted_parent_takes_its_items_along(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.db", VirtualClock()
    backend = await with_items(path, clock)
    await backend.delete("many", True)
    # Its id is free at once; what comes under it has nothing of the former one's.
    await run(backend, MANY, "many", 2)
    page = await backend.find(id_prefix="many", limit=500)
    status = {row.instance_id: row.status for row in page.rows}
    assert status["many"] == "waiting"
    assert rows_of(path, "items") < ITEMS
    await backend.delete("many", True)
    pieces = await pieces_of(backend, path, clock)
    assert max(pieces) <= PIECE_OF_ITEMS
    clock.advance(1)
    await backend.release("nobody")
    await backend.close()
    for table in ("instances", "inputs", "steps", "items", "item_groups", "garbage"):
        assert rows_of(path, table) == 0, table


@pytest.mark.parametrize("kept", ["instances", "events"])
async def test_the_file_does_not_grow_in_the_steady_state(tmp_path: Path, kept: str) -> None:
    """Twice as many rounds need no more space."""
    path = tmp_path / "store.db"
    clock = VirtualClock()

    async def rounds(count: int) -> int:
        backend = SqliteBackend(
            path, synchronous="normal", clock=clock, keep_completed="1h", keep_events="1h"
        )
        client = WorkflowClient(backend)
        for _ in range(count):
            clock.advance(HOUR / 4)
            at = int(clock())
            for n in range(20):
                if kept == "instances":
                    await run(backend, STRAIGHT, f"i-{at}-{n}")
                    await run(backend, WAIT, f"w-{at}-{n}")
                    await client.send_event(f"w-{at}-{n}", "go", PAYLOAD)
                    held = await HandWorker(backend, [WAIT]).claim_one(f"w-{at}-{n}")
                    assert held is not None
                    await run_on(held)
                else:
                    await client.send_event(f"e-{at}-{n}", "go", "x" * 500, idempotency_key="k")
        await backend.close()
        return path.stat().st_size

    await rounds(8)  # Until the first are forgotten.
    once = await rounds(15)
    twice = await rounds(30)
    assert twice <= once * 1.1 + 4 * 4096


async def test_early_events_wait_a_week_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = VirtualClock()
    backend = SqliteBackend(path, synchronous="normal", clock=clock)
    client = WorkflowClient(backend)
    await client.send_event("in-time", "go", PAYLOAD)
    await client.send_event("late", "go", PAYLOAD, idempotency_key="k")
    clock.advance(7 * DAY - 1)
    await run(backend, WAIT, "in-time")
    assert (await backend.get("in-time")).status == "completed"
    clock.advance(2)
    await run(backend, WAIT, "late")
    assert (await backend.get("late")).status == "awaiting_signal"
    # An event for an instance that is there waits as long as it takes, and its key is new again.
    clock.advance(100 * DAY)
    assert await backend.send_event("late", "other", b"", "k")
    await client.send_event("late", "go", PAYLOAD, idempotency_key="k")
    held = await HandWorker(backend, [WAIT]).claim_one("late")
    assert held is not None
    await run_on(held)
    assert (await backend.get("late")).status == "completed"
    await backend.close()
    assert rows_of(path, "events") == 0


async def test_very_many_early_events_are_forgotten_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = VirtualClock()
    backend = SqliteBackend(path, synchronous="normal", clock=clock)
    calls = (backend.send_event(f"e-{n}", "go", b"", None) for n in range(500))
    await asyncio.gather(*calls)
    clock.advance(8 * DAY)
    counts = [500]
    while counts[-1] > 0 and len(counts) < 50:
        clock.advance(1)
        await backend.release("nobody")
        counts.append(rows_of(path, "events"))
    assert counts[-1] == 0
    assert len(counts) > 3
    await backend.close()
