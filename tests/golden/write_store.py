"""Freeze a SQLite store of the released schema: `python -m tests.golden.write_store v1`.

Run by hand, once for each schema version, with the folder of the format version that it was
released with. The file holds an instance in every state, at times that this script makes; beside it
`store.json` says what must be read from it. What exists is never written again.

Refuses to know what later versions make of the file; that is for `tests/sqlite/test_golden.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sayiir import Flow, RetryPolicy, SqliteBackend, Workflow, WorkflowClient, task
from sayiir.testing import HandWorker, Held, VirtualClock, new_instance

HERE = Path(__file__).resolve().parent
NOON = 1_893_499_200.0
"""2030-01-01 12:00 UTC, when everything in the store took place."""
KEEP_EVENTS = "20000d"
GIVEN = 5
Whole = Workflow[Any, Any]


def add(x: int) -> int:
    return x + 1


def refuse(x: int) -> int:
    raise ValueError(f"{x} is refused")


def named(name: str, function: Any = add, **settings: Any) -> Any:
    """A function as a task of this name."""
    return task(name=name, **settings)(function)


PLAIN: Whole = Flow("plain").then(named("first")).then(named("second")).build()
BROKEN: Whole = Flow("broken").then(named("first")).then(named("refuse", refuse)).build()
DELAYED: Whole = (
    Flow("delayed").then(named("first")).delay("rest", "1h").then(named("second")).build()
)
ASKED: Whole = Flow("asked").wait_for_event("go").build()
FORKED: Whole = (
    Flow("forked")
    .then(named("first"))
    .fork(name="both")
    .branch(named("left"), named("more"), name="left")
    .branch(
        Flow("right").wait_for_event("go", node="one").wait_for_event("go", node="two").build(),
        name="right",
    )
    .join(named("join", lambda both: [both["left"], both["right"]]))
    .build()
)
RETRIED: Whole = (
    Flow("retried")
    .then(named("flaky", retries=RetryPolicy(max_retries=3, initial_delay_secs=60.0)))
    .build()
)
NEEDY: Whole = (
    Flow("needy").then(named("first")).then(named("draw", tags=["gpu"], priority=1)).build()
)
SHARED: Whole = (
    Flow("shared")
    .then(named("list", lambda x: [x, x + 1, x + 2]))
    .map(named("each"), spread=True)
    .then(named("sum", lambda items: sum(items)))
    .build()
)
FLOWS = (PLAIN, BROKEN, DELAYED, ASKED, FORKED, RETRIED, NEEDY, SHARED)
NEW_IN = {SHARED.workflow_id: 2}
"""The schema version that a flow came with, if it was not the first."""


def hashes(version: int) -> dict[str, str]:
    """Those of the flows that a store of this schema version has."""
    known = (flow for flow in FLOWS if NEW_IN.get(flow.workflow_id, 1) <= version)
    return {flow.workflow_id: flow.definition_hash for flow in known}


async def run_on(held: Held) -> None:
    """Run every step that it has, until it has none."""
    while held.steps:
        step = held.steps[0]
        try:
            value = step.fn(step.input)
        except ValueError as error:
            await held.fail(str(error), step.task.name)
        else:
            await held.complete(value, step.task.name)


async def fill(path: Path) -> None:
    """One instance in each state."""
    clock = VirtualClock(NOON)
    backend = SqliteBackend(path, clock=clock, keep_events=KEEP_EVENTS)
    worker = HandWorker(backend, FLOWS, "w-1")
    client = WorkflowClient(backend)

    async def begin(name: str, workflow: Whole) -> Held:
        await backend.submit([new_instance(workflow, name, GIVEN)], "fail")
        held = await worker.claim_one(name)
        assert held is not None
        return held

    await run_on(await begin("completed", PLAIN))
    clock.advance(1)
    await run_on(await begin("failed", BROKEN))
    await run_on(await begin("waiting", DELAYED))
    await run_on(await begin("cancelled", DELAYED))
    await client.cancel("cancelled", "no longer wanted", "ann")
    await run_on(await begin("paused", DELAYED))
    await client.pause("paused", "for the night", "bob")
    await run_on(await begin("awaiting", ASKED))
    clock.advance(1)
    await run_on(await begin("parked", FORKED))
    await client.send_event("parked", "go", "first", idempotency_key="key-1")
    held = await worker.claim_one("parked")
    assert held is not None
    await run_on(held)
    await run_on(await begin("ready", FORKED))
    await client.send_event("ready", "go", "kept", idempotency_key="key-2")
    await client.send_event("ready", "go", "too")
    await (await begin("retried", RETRIED)).fail("not yet")
    held = await begin("needy", NEEDY)
    await held.complete(GIVEN + 1)
    await backend.submit([new_instance(PLAIN, "fresh", GIVEN)], "fail")
    await client.send_event("early", "go", {"came": "early"}, idempotency_key="key-3")
    held = await begin("held", PLAIN)
    await held.complete(GIVEN + 1)
    await client.pause("held", "soon", None)
    await fill_families(backend, worker, begin)
    await backend.close()


async def fill_families(
    backend: SqliteBackend, worker: HandWorker, begin: Callable[[str, Whole], Awaitable[Held]]
) -> None:
    """Parents of three items each: with one that has ended, with all, and one that is cancelled."""

    async def items_of(name: str) -> list[str]:
        page = await backend.find(id_prefix=f"{name}~")
        return sorted(row.instance_id for row in page.rows)

    async def run(item: str) -> None:
        held = await worker.claim_one(item)
        assert held is not None
        await run_on(held)

    for name in ("shared", "shared-over", "shared-cancelled"):
        await run_on(await begin(name, SHARED))
    for item in (*(await items_of("shared"))[1:2], *await items_of("shared-over")):
        await run(item)
    held = await worker.claim_one((await items_of("shared"))[2])
    assert held is not None
    await backend.cancel("shared-cancelled", None, None)


def write(folder: Path) -> None:
    """Freeze the store in a folder."""
    path, manifest = folder / "store.sqlite", folder / "store.json"
    if path.exists() or manifest.exists():
        raise SystemExit(f"{folder.name} has a frozen store already; a new schema needs a new one")
    folder.mkdir(exist_ok=True)
    asyncio.run(fill(path))
    with closing(sqlite3.connect(path)) as connection:
        # One file without a log beside it; opening it brings the log back.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
        [version] = connection.execute("PRAGMA user_version").fetchone()
    about = {
        "schema_version": version,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "definition_hashes": hashes(version),
    }
    manifest.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).name != sys.argv[1]:
        raise SystemExit("usage: python -m tests.golden.write_store FOLDER   (for example v1)")
    write(HERE / sys.argv[1])
    sys.stdout.write(f"a store was frozen in {sys.argv[1]}\n")
