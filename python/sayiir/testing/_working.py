"""Work done as soon as it is there: the environment's worker as a task beside the test.

It knows no time and no workflow: whenever the backend hints that something may be ready, it runs
all that can run. An error ends it and is raised where the block of its owner ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sayiir.backends import InMemoryBackend

__all__ = ["working_on"]


@asynccontextmanager
async def working_on(
    backend: InMemoryBackend, run_until_idle: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Call `run_until_idle` now and after every hint, until the block is left."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    heard.set()

    def hear(_kind: str, _about: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(heard.set)

    async def work() -> None:
        while True:
            await heard.wait()
            heard.clear()
            await run_until_idle()

    stop_listening = backend.listen(hear)
    try:
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(work())
            try:
                yield
            finally:
                worker.cancel()
    except* Exception as errors:
        raise _only(errors) from None
    finally:
        stop_listening()


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group of one."""
    found = errors.exceptions[0]
    return found if len(errors.exceptions) == 1 else errors
