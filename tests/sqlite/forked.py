"""Programs that fork while a store is open, see `test_fork.py`."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sayiir import Flow, SqliteBackend, Worker, WorkflowClient
from sayiir.backends import StorageBackend

from .speech import fault, say

ECHO = Flow("echo").then(lambda x: x, name="only").build()
PATIENCE_S = 20
"""A child that hangs dies by SIGALRM."""


def in_child(way: str, deed: Callable[[Path], None], report: Path) -> int:
    """Do something in a forked child; its exit code."""
    if way == "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=guarded, args=(deed, report))
        child.start()
        child.join()
        assert child.exitcode is not None
        return child.exitcode
    pid = os.fork()
    if pid == 0:
        try:
            guarded(deed, report)
        finally:
            os._exit(0 if report.exists() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def guarded(deed: Callable[[Path], None], report: Path) -> None:
    """With an alarm, so that nothing waits for a child that hangs."""
    signal.alarm(PATIENCE_S)
    deed(report)


def read(report: Path) -> Any:
    """What a child has left; nothing if it did not come so far."""
    return json.loads(report.read_text()) if report.exists() else {}


async def use(path: str) -> list[str]:
    """Open a file and let an instance go through."""
    backend = SqliteBackend(path)
    async with Worker(backend, ECHO):
        answer = await (await WorkflowClient(backend).submit(ECHO, input=7)).result(10)
    await backend.close()
    return ["ok", str(answer)]


def attempt(path: str) -> list[str]:
    """As `use`, with the error instead if there is one."""
    try:
        return asyncio.run(use(path))
    except Exception as error:
        return fault(error)


async def every_call(backend: StorageBackend) -> dict[str, list[str]]:
    """What each call comes to that is made in a child, on the backend of its parent."""
    client = WorkflowClient(backend)

    async def told(call: Callable[[], Awaitable[Any]]) -> list[str]:
        try:
            await call()
        except Exception as error:
            return fault(error)
        return ["ok", ""]

    async def worker() -> None:
        async with Worker(backend, ECHO):
            pass

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "submit": lambda: client.submit(ECHO, "child", 1),
        "status": lambda: client.status("i-0"),
        "cancel": lambda: client.cancel("i-0"),
        "send_event": lambda: client.send_event("i-0", "go", 1),
        "list_instances": client.list_instances,
        "worker": worker,
        "doctor": backend.doctor,
    }
    found = {name: await told(call) for name, call in calls.items()}
    await backend.close()  # It has nothing to close, and says nothing.
    return found


async def forking(path: str, way: str, what: str) -> None:
    """Fork in the middle of work, then go on with it."""
    backend = SqliteBackend(path)
    client = WorkflowClient(backend)
    report = Path(f"{path}.report")

    def inherited(report: Path) -> None:
        report.write_text(json.dumps(asyncio.run(every_call(backend))))

    def anew(report: Path) -> None:
        link = f"{path}.link"
        Path(link).symlink_to(path)
        found = {"open": attempt(path), "other": attempt(f"{path}.other"), "linked": attempt(link)}
        report.write_text(json.dumps(found))

    deed = {"inherited": inherited, "anew": anew}[what]
    async with Worker(backend, ECHO):
        handles = [await client.submit(ECHO, f"i-{n}", n) for n in range(10)]
        code = in_child(way, deed, report)
        say({"code": code, "told": read(report)})
        handles += [await client.submit(ECHO, f"i-{n}", n) for n in range(10, 20)]
        say([await handle.result(20) for handle in handles])
    await backend.close()


def forking_in_time(path: str) -> None:
    """Fork before the file is opened, and after it was closed."""
    reports = {name: Path(f"{path}.{name}") for name in ("before", "closed")}

    def deed(report: Path) -> None:
        report.write_text(json.dumps(attempt(path)))

    assert in_child("os.fork", deed, reports["before"]) == 0
    assert attempt(path) == ["ok", "7"]
    assert in_child("os.fork", deed, reports["closed"]) == 0
    say({name: json.loads(report.read_text()) for name, report in reports.items()})


def spawned(path: str, report: str) -> None:
    """In a child with nothing of its parent's."""
    Path(report).write_text(json.dumps(attempt(path)))


async def spawning(path: str) -> None:
    """Spawn in the middle of work, then go on with it."""
    backend = SqliteBackend(path)
    client = WorkflowClient(backend)
    report = f"{path}.report"
    async with Worker(backend, ECHO):
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=spawned, args=(path, report))
        child.start()
        await asyncio.to_thread(child.join)
        say(read(Path(report)))
        handles = [await client.submit(ECHO, f"i-{n}", n) for n in range(5)]
        say([await handle.result(20) for handle in handles])
    await backend.close()
