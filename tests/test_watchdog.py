"""The watchdog: a body that holds the worker's loop up is named in the log, once.

A body that blocks does so for longer than the limit, which no machine makes shorter.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient, task
from sayiir._watchdog import Watchdog
from sayiir.backends import Backend

from .working import LONG, NEVER

BLOCKED = "has blocked the worker's event loop"


@pytest.fixture
def backend() -> Backend:
    # A loop that stands still does so in front of any backend.
    return InMemoryBackend()


def block(x: int) -> int:
    time.sleep(1.9)
    return x


async def later_block(x: int) -> int:
    return block(x)


BLOCKING: dict[str, Callable[..., Any]] = {
    "async def": task("blocks")(later_block),
    "async def with a timeout": task("blocks", timeout="1m")(later_block),
    "inline": task("blocks", run_in="inline")(block),
    "lambda around an async def": lambda x: later_block(x),
}


@pytest.mark.parametrize("kind", BLOCKING)
async def test_a_step_that_blocks_the_loop_is_named_once(
    backend: Backend, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    workflow = Flow("f").then(BLOCKING[kind], name="blocks").build()
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, workflow, poll_interval=NEVER):
            handle = await WorkflowClient(backend).submit(workflow, "slow-1", 1)
            assert await handle.result(timeout=LONG) == 1
    [record] = [r for r in caplog.records if BLOCKED in r.getMessage()]
    message = record.getMessage()
    assert "task 'blocks'" in message
    assert "instance 'slow-1'" in message
    # Where it stands, for whoever has to find it.
    assert "test_watchdog.py" in message
    assert (vars(record)["sayiir_instance"], vars(record)["sayiir_path"]) == ("slow-1", "blocks")


async def test_a_blocked_branch_is_named(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async def waits(x: int) -> int:
        await asyncio.sleep(0)
        return x

    fork = Flow("f").fork().branch(waits).branch(later_block).join(dict).build()
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, fork, poll_interval=NEVER):
            handle = await WorkflowClient(backend).submit(fork, "i", 1)
            await handle.result(timeout=LONG)
    [record] = [r for r in caplog.records if BLOCKED in r.getMessage()]
    assert "task 'later_block'" in record.getMessage()


async def test_threads_and_waits_block_nobody(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async def waits(x: int) -> int:
        await asyncio.sleep(1.3)
        return x

    fork = Flow("f").fork().branch(block).branch(waits).join(dict).build()
    with caplog.at_level(logging.WARNING, "sayiir"):
        async with Worker(backend, fork, poll_interval=NEVER):
            handle = await WorkflowClient(backend).submit(fork, "i", 1)
            await handle.result(timeout=LONG)
    assert BLOCKED not in caplog.text


async def test_what_is_no_step_is_not_blamed_on_one(caplog: pytest.LogCaptureFixture) -> None:
    warned = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warned.set()

    logger = logging.getLogger("sayiir.worker")
    handler = Handler()
    logger.addHandler(handler)
    watchdog = Watchdog(limit=0.05)
    watchdog.start()
    try:
        await asyncio.sleep(0)
        # Blocks the loop until the warning has come.
        assert warned.wait(LONG)
    finally:
        watchdog.close()
        logger.removeHandler(handler)
    assert "no step is to blame" in caplog.text
    assert "test_watchdog.py" in caplog.text or "threading.py" in caplog.text


async def test_a_closed_watchdog_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    watchdog = Watchdog(limit=0.05)
    watchdog.start()
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"sayiir-watchdog"}
    watchdog.close()
    assert set(threading.enumerate()) <= before
