"""A process at work: it submits, sends events and works, as fast as it can, until it is killed.

What was answered is noted in a log outside of the store. Every life of such a process has ids of
its own.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

from sayiir import SqliteBackend, Worker, WorkflowClient

from .walk import BROKEN, FORK, NAP, PAYLOAD, RETRIED, STRAIGHT, WAIT

MIX = (STRAIGHT, FORK, NAP, WAIT, RETRIED, BROKEN)
IN_THE_AIR = 24
"""So many instances are begun before the first of them has to end."""


async def labour(path: Path, log: Path) -> None:
    """Work without end."""
    diary = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    backend = SqliteBackend(path, synchronous="normal")
    client = WorkflowClient(backend)
    life = uuid.uuid4().hex[:8]
    handles = []
    async with Worker(backend, MIX, lease_ttl="1s", poll_interval="100ms"):
        number = 0
        while True:
            workflow = MIX[number % len(MIX)]
            name = f"{workflow.workflow_id}-{life}-{number}"
            os.write(diary, f"submit {name}\n".encode())
            handle = await client.submit(workflow, name, number)
            os.write(diary, f"ack {name}\n".encode())
            if workflow in (FORK, WAIT):
                await client.send_event(name, "go", PAYLOAD, idempotency_key="once")
            handles.append(handle)
            number += 1
            if len(handles) >= IN_THE_AIR:
                # Some are meant to fail.
                results = (handle.result() for handle in handles)
                await asyncio.gather(*results, return_exceptions=True)
                handles.clear()
