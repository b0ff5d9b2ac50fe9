"""What is there while nothing runs: memory of parked instances, and the price of the import.

Each figure is taken in a process of its own, so that nothing else counts: memory as what the
process holds (resident), before and after; the import as the whole run of an interpreter that does
nothing else, against one that does nothing at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benches.ledger import Ledger
from benches.stopwatch import interleave

PARK = """
import asyncio, gc, sys
from pathlib import Path
from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient

PAGE = 4096

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

async def main(count, step):
    flow = Flow("parked").wait_for_event("go").build()
    backend = InMemoryBackend()
    client = WorkflowClient(backend)
    async def parked(until):
        while (await backend.find(status="in_progress", limit=1)).rows:
            await asyncio.sleep(0.005)
        assert (await backend.get(f"parked-{until - 1:07d}")).status == "awaiting_signal"
    async with Worker(backend, [flow], concurrency=16, poll_interval="50ms"):
        await client.submit_many(flow, [(f"warm-{n:07d}", n) for n in range(step)])
        while (await backend.find(status="in_progress", limit=1)).rows:
            await asyncio.sleep(0.005)
        before = resident()
        for start in range(0, count, step):
            items = [(f"parked-{n:07d}", n) for n in range(start, start + step)]
            await client.submit_many(flow, items)
            del items
            await parked(start + step)
        print((resident() - before) / count)

asyncio.run(main(int(sys.argv[1]), 1_000))
"""


def _bytes_each(count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PARK, str(count)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the process that parks instances failed:\n{done.stderr}")
    return float(done.stdout)


def bench_parked(ledger: Ledger) -> None:
    """Instances that wait for an event, with an id of 14 bytes and a small number as input."""
    counts = (100_000,) if ledger.quick else (100_000, 1_000_000)
    for count in counts:
        each = _bytes_each(count)
        ledger.enter(
            "footprint",
            f"a parked instance, of {count:,}",
            each,
            "B",
            judged=each,
            at_most=500.0,
            budget="≤ 500 B",
        )


def bench_import(ledger: Ledger) -> None:
    """`import sayiir` over an interpreter that starts and ends."""
    with tempfile.TemporaryDirectory() as compiled:
        # As after an install: byte code is there, wherever this interpreter may write it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def python(code: str) -> None:
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)

        python("import sayiir")
        samples = interleave(
            {
                "bare": lambda: python("pass"),
                "asyncio": lambda: python("import asyncio"),
                "sayiir": lambda: python("import sayiir"),
            },
            rounds=20,
        )
    best = {name: min(times) * 1e3 for name, times in samples.items()}
    over = best["sayiir"] - best["bare"]
    ledger.enter(
        "footprint",
        "import sayiir, over bare Python",
        over,
        "ms",
        against=best["asyncio"] - best["bare"],
        rival="import asyncio",
        judged=over,
        at_most=30.0,
        budget="≤ 30 ms",
    )
