"""What is there while nothing runs: memory of parked instances, the price of imports, and files.

Each figure is taken in a process of its own, so that nothing else counts: memory as what the
process holds (resident), before and after; the import as the whole run of an interpreter that does
nothing else, against one that does nothing at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import sayiir
from benches.ledger import Ledger
from benches.stopwatch import interleave
from benches.store import MEMORY, PYTHON, Store

PARK = """
import asyncio, gc, sys
from time import perf_counter
from pathlib import Path
from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
from benches.python_backend import PythonBackend

PAGE = 4096

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

async def main(kind, count, step):
    flow = Flow("parked").wait_for_event("go").build()
    backend = {"memory": InMemoryBackend, "Python backend": PythonBackend}[kind]()
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
        few = range(0, count, 100)
        start = perf_counter()
        async def wake(name):
            await client.send_event(name, "go", 1)
            await client.result(name)
        await asyncio.gather(*(wake(f"parked-{n:07d}") for n in few))
        print((perf_counter() - start))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), 1_000))
"""
ROOT = Path(__file__).parents[1]
FEWER = 100_000
IMPORTS = {
    "import sayiir": True,
    "from sayiir import Flow, task": False,
    "from sayiir import Worker, WorkflowClient": False,
}
"""What a program begins with, and whether the budget is about it."""


def _parked(store: Store, count: int) -> tuple[float, float]:
    """Bytes of each, and seconds until one in a hundred was woken and has ended."""
    done = subprocess.run(
        [sys.executable, "-c", PARK, store.name, str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the process that parks instances failed:\n{done.stderr}")
    each, woken = map(float, done.stdout.split())
    return each, woken


def bench_parked(ledger: Ledger) -> None:
    """Instances that wait for an event, with an id of 14 bytes and a small number as input."""
    counts = (FEWER,) if ledger.quick else (FEWER, 1_000_000)
    theirs, woken_there = _parked(PYTHON, FEWER)
    for count in counts:
        each, woken = _parked(MEMORY, count)
        # A million of theirs would take minutes and no other figure.
        beside = count == FEWER
        ledger.enter(
            "footprint",
            f"a parked instance, of {count:,}",
            each,
            "B",
            against=theirs if beside else None,
            rival=PYTHON.name if beside else "",
            judged=each,
            at_most=500.0,
            budget="≤ 500 B",
        )
        ledger.enter(
            "crowd",
            f"memory: 1 % of {count:,} parked woken and ended",
            woken,
            "s",
            against=woken_there if beside else None,
            rival=PYTHON.name if beside else "",
        )
        ledger.enter("crowd", "  of them in a second", count / 100 / woken, "/s")


def bench_import(ledger: Ledger) -> None:
    """Imports over an interpreter that starts and ends."""
    with tempfile.TemporaryDirectory() as compiled:
        # As after an install: byte code is there, wherever this interpreter may write it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def python(code: str) -> None:
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)

        codes = ("pass", "import asyncio", *IMPORTS)
        for code in codes:
            python(code)
        samples = interleave({code: partial(python, code) for code in codes}, rounds=20)
    best = {name: min(times) * 1e3 for name, times in samples.items()}
    for code, judged in IMPORTS.items():
        over = best[code] - best["pass"]
        ledger.enter(
            "footprint",
            f"{code}, over bare Python",
            over,
            "ms",
            against=best["import asyncio"] - best["pass"],
            rival="import asyncio",
            judged=over if judged else None,
            at_most=30.0 if judged else None,
            budget="≤ 30 ms" if judged else "",
        )


def bench_size(ledger: Ledger) -> None:
    """What is downloaded, if this environment's wheel is at hand, and what is then on the disk."""
    package = Path(sayiir.__file__).parent
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    wheels = sorted(Path(sys.prefix, "wheel").glob("sayiir-*.whl"))
    for wheel in wheels[-1:]:
        size = wheel.stat().st_size / 1e6
        ledger.enter("footprint", "wheel", size, "MB", judged=size, at_most=8.0, budget="≤ 8 MB")
    installed = sum(path.stat().st_size for path in files) / 1e6
    ledger.enter("footprint", "installed, without byte code", installed, "MB")
