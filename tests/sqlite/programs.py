"""Programs that other processes run: each is a function, and speaks and listens in lines of JSON.

`python -m tests.sqlite.programs NAME ARGUMENTS`; the other end is `orders.Program`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sqlite3
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sayiir import SqliteBackend, Worker, WorkflowClient, WorkflowFailed, connect

from .forked import ECHO, forking, forking_in_time, spawning
from .labour import MIX
from .served import SERVED
from .speech import fault, hear, heard, say
from .walk import FORK, PAYLOAD, WAIT


def lock(path: str, whole: bool) -> None:
    """Keep the write lock of a file, or with `whole` all of it, until told to let go."""
    connection = sqlite3.connect(path, isolation_level=None)
    if whole:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    say("locked")
    hear()
    connection.execute("ROLLBACK")
    connection.close()
    say("free")


async def bounded(path: str) -> None:
    """Work while no file may grow, then when it may again."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    backend = SqliteBackend(path)
    client = WorkflowClient(backend)
    async with Worker(backend, ECHO, poll_interval="50ms"):
        handles = [await client.submit(ECHO, f"before-{n}", n) for n in range(10)]
        wal = os.stat(f"{path}-wal").st_size  # noqa: PTH116 - it takes no time
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal, hard))
        refused = []
        for n in range(5):
            try:
                await client.submit(ECHO, f"during-{n}", n)
            except Exception as error:
                refused.append(fault(error))
        say(refused)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        handles += [await client.submit(ECHO, f"after-{n}", n) for n in range(10)]
        say([await handle.result(20) for handle in handles])
    await backend.close()


async def opener(path: str) -> None:
    """Open a file at a moment that another process chooses, and do something with it."""
    say("ready")
    await heard()
    try:
        backend = SqliteBackend(path)
        async with Worker(backend, ECHO, poll_interval="50ms"):
            handle = await WorkflowClient(backend).submit(ECHO, input=os.getpid())
            say(await handle.result(30))
        await backend.close()
    except Exception as error:
        say(fault(error))


async def powered(path: str, synchronous: Any, count: int) -> None:
    """Work, and take down between the writes of the disk which calls were acknowledged."""
    log = os.open(os.environ["SAYIIR_DISK_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    backend = SqliteBackend(path, synchronous=synchronous)
    client = WorkflowClient(backend)

    async def one(number: int) -> None:
        workflow = MIX[number % len(MIX)]
        name = f"{workflow.workflow_id}-{number}"
        await client.submit(workflow, name, number)
        os.write(log, f"a submit/{name}\n".encode())
        if workflow in (FORK, WAIT):
            await client.send_event(name, "go", PAYLOAD)
            os.write(log, f"a event/{name}\n".encode())
        with contextlib.suppress(WorkflowFailed):
            await client.result(name)
        os.write(log, f"a end/{name}\n".encode())

    async with Worker(backend, MIX, poll_interval="50ms"):
        for first in range(0, count, 8):
            await asyncio.gather(*(one(number) for number in range(first, first + 8)))
    say("done")
    await heard()
    await backend.close()
    say("closed")


async def serve(url: str, poll_interval: str) -> None:
    """Work with nothing but hints, until told to stop; `cpu` asks how much time that takes."""
    backend = connect(url)
    async with Worker(backend, SERVED, poll_interval=poll_interval, lease_ttl="5s"):
        say("ready")
        while (word := await heard()) is not None:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            say({"word": word, "cpu_s": usage.ru_utime + usage.ru_stime})
    await backend.close()


PROGRAMS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (lock, bounded, opener, powered, forking, forking_in_time, spawning, serve)
}


def main(programs: Mapping[str, Callable[..., Any]]) -> None:
    """Run what was asked for."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    program = programs[sys.argv[1]](*json.loads(sys.argv[2]))
    if asyncio.iscoroutine(program):
        asyncio.run(program)


if __name__ == "__main__":
    main(PROGRAMS)
