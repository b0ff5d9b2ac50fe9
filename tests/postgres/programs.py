"""Programs that other processes run on a schema; see `tests/sqlite/programs.py`.

`python -m tests.postgres.programs NAME ARGUMENTS`; the other end is `tests.sqlite.orders.Program`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from pathlib import Path

from tests.sqlite.forked import ECHO, every_call, in_child, read
from tests.sqlite.programs import main
from tests.sqlite.speech import fault, say

from sayiir import Worker, WorkflowClient, connect
from sayiir.backends import StorageBackend


async def use(url: str) -> list[str]:
    """Open a schema and let an instance go through; the error instead, if there is one."""
    backend = connect(url)
    try:
        async with Worker(backend, ECHO):
            answer = await (await WorkflowClient(backend).submit(ECHO, input=7)).result(10)
        return ["ok", str(answer)]
    except Exception as error:
        return fault(error)
    finally:
        await backend.close()


async def forking(url: str, folder: str, way: str, what: str) -> None:
    """Fork in the middle of work, then go on with it."""
    backend = connect(url)
    assert isinstance(backend, StorageBackend)
    client = WorkflowClient(backend)

    def inherited(report: Path) -> None:
        report.write_text(json.dumps(asyncio.run(every_call(backend))))

    def anew(report: Path) -> None:
        report.write_text(json.dumps(asyncio.run(use(url))))

    deed = {"inherited": inherited, "anew": anew}[what]
    report = Path(folder, "report")
    async with Worker(backend, ECHO):
        handles = [await client.submit(ECHO, f"i-{n}", n) for n in range(10)]
        code = in_child(way, deed, report)
        say({"code": code, "told": read(report)})
        handles += [await client.submit(ECHO, f"i-{n}", n) for n in range(10, 20)]
        say([await handle.result(20) for handle in handles])
    await backend.close()


def spawned(url: str, report: str) -> None:
    """In a child with nothing of its parent's."""
    Path(report).write_text(json.dumps(asyncio.run(use(url))))


async def spawning(url: str, folder: str) -> None:
    """Spawn in the middle of work, then go on with it."""
    backend = connect(url)
    client = WorkflowClient(backend)
    report = Path(folder, "report")
    async with Worker(backend, ECHO):
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=spawned, args=(url, str(report)))
        child.start()
        await asyncio.to_thread(child.join)
        say(read(report))
        handles = [await client.submit(ECHO, f"i-{n}", n) for n in range(5)]
        say([await handle.result(20) for handle in handles])
    await backend.close()


PROGRAMS = {function.__name__: function for function in (forking, spawning)}

if __name__ == "__main__":
    main(PROGRAMS)
