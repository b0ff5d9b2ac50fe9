"""What a fresh process makes of a store that another one left: it brings all work to its end.

A real worker runs on the machine's clock, long after every lease of the walk has run out. Paused
instances are taken back, awaited events are sent; what everything came to goes to a file as JSON.
Judging is for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from sayiir import InstanceNotFoundError, InvalidStateError, SqliteBackend, Worker, WorkflowClient
from sayiir._codec import decode_payload
from sayiir.backends import Backend, InstanceRow

from .walk import FLOWS, PAYLOAD, SPOILED

KEEP = "20000d"
"""The walk took place years ago; nothing of it is to be forgotten now."""
ENDED = ("completed", "failed", "cancelled")


async def recover(path: Path, report: Path) -> None:
    """Finish everything that is in a file, and report."""
    await finish(SqliteBackend(path, synchronous="normal", keep_events=KEEP), report)


async def finish(backend: Backend, report: Path) -> None:
    """Finish everything, report the status and the value of each instance, and close."""
    client = WorkflowClient(backend)
    with contextlib.suppress(InstanceNotFoundError):
        await client.delete(SPOILED, force=True)
    rows = await everything(backend)
    inputs = {row.instance_id: decode_payload(await backend.input(row.instance_id)) for row in rows}
    async with Worker(backend, FLOWS, poll_interval="100ms"):
        for row in rows:
            if row.status not in ENDED and row.workflow_id in ("wait", "fork"):
                # One too many does no harm: they are all alike.
                with contextlib.suppress(InvalidStateError):  # It has ended in between.
                    await client.send_event(row.instance_id, "go", PAYLOAD)
        listener = asyncio.Event()
        stop = backend.listen(lambda *_: listener.set())
        while True:
            listener.clear()
            now = [await backend.get(row.instance_id) for row in rows]
            if all(row.status in ENDED for row in now):
                break
            paused = [row.instance_id for row in now if row.status == "paused"]
            for name in paused:
                await client.unpause(name)
            if not paused:
                with contextlib.suppress(TimeoutError):
                    # What a lease that runs out lets happen, nobody tells of.
                    await asyncio.wait_for(listener.wait(), 0.1)
        stop()
    found = {
        row.instance_id: {
            "workflow": row.workflow_id,
            "status": row.status,
            "input": inputs[row.instance_id],
            "output": None if row.output is None else decode_payload(row.output),
        }
        for row in now
    }
    await backend.close()
    await asyncio.to_thread(report.write_text, json.dumps(found))


async def everything(backend: Backend) -> list[InstanceRow]:
    """All instances."""
    page = await backend.find(limit=500)
    rows = list(page.rows)
    while page.cursor is not None:
        page = await backend.find(limit=500, cursor=page.cursor)
        rows += page.rows
    return rows
