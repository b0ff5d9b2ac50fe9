"""Workers in processes of their own, where a backend that is open here keeps its instances.

A process runs one worker for the bench workflow it is told until its standard input is closed, so
none outlives the bench whatever happens to it. It says `ready` once it works.

Run as `python -m benches.worker_process <url> <workflow> <concurrency> <poll interval>`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benches.store import url_of
from benches.workload import STARTED, WOKEN, chain
from sayiir import Worker, connect
from sayiir.backends import Backend

__all__ = ["worker_processes"]

WORKFLOWS = {workflow.workflow_id: workflow for workflow in (chain(3), STARTED, WOKEN)}
ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def worker_processes(
    backend: Backend, count: int, workflow_id: str, concurrency: int, *, poll_interval: str = "1s"
) -> AsyncIterator[None]:
    """So many worker processes beside a backend, from their being ready to their end.

    Raises:
        RuntimeError: A process did not start or ended badly.
    """
    async with AsyncExitStack() as stack:
        for _ in range(count):
            arguments = (url_of(backend), workflow_id, str(concurrency), poll_interval)
            await stack.enter_async_context(_one(*arguments))
        yield


@asynccontextmanager
async def _one(*arguments: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benches.worker_process", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"a worker process did not start: status {await process.wait()}")
        yield
    finally:
        process.stdin.close()
        status = await process.wait()
    if status != 0:
        raise RuntimeError(f"a worker process ended with status {status}")


async def serve(url: str, workflow_id: str, concurrency: str, poll_interval: str) -> None:
    """Work until standard input is closed."""
    backend = connect(url)
    worker = Worker(
        backend,
        [WORKFLOWS[workflow_id]],
        concurrency=int(concurrency),
        poll_interval=poll_interval,
    )
    try:
        async with worker:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
    finally:
        await backend.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
