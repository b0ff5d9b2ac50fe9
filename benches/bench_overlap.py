"""Whether what may run at once does: one worker, bodies that only sleep, the wall clock.

The floor is the longest chain of sleeps that has to come one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

from benches.ledger import Ledger
from benches.store import MEMORY, SQLITE, Store
from benches.workload import chain
from sayiir import Flow, Worker, Workflow, WorkflowClient, task

STORES = (MEMORY, SQLITE)

NAP, LONG_NAP = 0.3, 0.5


@task
async def nap(value: Any) -> Any:
    await asyncio.sleep(NAP)
    return value


@task
def nap_in_thread(value: Any) -> Any:
    time.sleep(NAP)
    return value


@task
async def long_nap(value: Any) -> Any:
    await asyncio.sleep(LONG_NAP)
    return value


@task
def long_nap_in_thread(value: Any) -> Any:
    time.sleep(LONG_NAP)
    return value


def _drop(_: Any) -> None:
    return None


async def _seconds(
    store: Store, workflow: Workflow[Any, Any], instances: int, **worker: Any
) -> float:
    """From the first submit to the last result, with a worker that has been idle."""
    async with store.opened() as backend, Worker(backend, [workflow], **worker):
        client = WorkflowClient(backend)
        await asyncio.sleep(0.05)
        start = perf_counter()
        handles = [await client.submit(workflow, input=number) for number in range(instances)]
        for handle in handles:
            await handle.result()
        return perf_counter() - start


def _best(work: Callable[[], Awaitable[float]], rounds: int = 3) -> float:
    async def main() -> float:
        return min([await work() for _ in range(rounds)])

    return asyncio.run(main())


def bench_concurrency(ledger: Ledger) -> None:
    """Four sleeping tasks on one worker with four slots."""
    for store in STORES:
        for kind, body in (("async", nap), ("sync", nap_in_thread)):
            workflow = Flow(f"nap-{kind}").then(body).build()
            took = _best(partial(_seconds, store, workflow, 4, concurrency=4))
            ledger.enter(
                "overlap",
                f"{store.name}: four {kind} tasks of 0.3 s, concurrency 4",
                took,
                "s",
                against=NAP,
                rival="one sleep",
                judged=took,
                at_most=0.6,
                budget="< 0.6 s",
            )


def bench_branches(ledger: Ledger) -> None:
    """Two sleeping branches of one fork."""
    for store in STORES:
        for kind, body in (("async", long_nap), ("sync", long_nap_in_thread)):
            forked = Flow(f"fork-{kind}").fork().branch(body, name="l").branch(body, name="r")
            workflow = forked.join(_drop).build()
            took = _best(partial(_seconds, store, workflow, 1, concurrency=4))
            ledger.enter(
                "overlap",
                f"{store.name}: two {kind} branches of 0.5 s",
                took,
                "s",
                against=LONG_NAP,
                rival="one sleep",
                judged=took,
                at_most=0.7,
                budget="< 0.7 s",
            )


def bench_no_wait_for_polls(ledger: Ledger) -> None:
    """Three steps in a row on an idle worker that polls every 5 s."""
    workflow = chain(3)
    for store in STORES:
        took = _best(partial(_seconds, store, workflow, 1, concurrency=4, poll_interval="5s"))
        ledger.enter(
            "overlap",
            f"{store.name}: three steps, idle worker, poll interval 5 s",
            took,
            "s",
            judged=took,
            at_most=0.1,
            budget="< 0.1 s",
        )
