"""What a step costs, and whether it costs more when there are many of them.

A short instance is subtracted from a long one, so that submitting, claiming and ending are left
out: what remains is steps. The floor in memory is the bare awaited call.

On SQLite and PostgreSQL a step waits for the disk, and disks have moods, so that a difference
between two runs would tell of those. There, and where little is to be told apart, the history of
one instance says when each of its steps ended. The floor is one durable commit of the same two rows
by a bare script, because the next step may not start before the checkpoint of the one before it is
on the disk.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from benches.ground import ground
from benches.ledger import Ledger
from benches.postgres_floor import PostgresFloor
from benches.postgres_server import served
from benches.sqlite_floor import SqliteFloor, Synchronous
from benches.stopwatch import best_stretch, interleave_async
from benches.store import (
    MEMORY,
    POSTGRES,
    POSTGRES_RELAXED,
    PYTHON,
    SQLITE,
    SQLITE_NORMAL,
    Store,
)
from benches.workload import (
    PAYLOAD,
    bare,
    chain,
    fork,
    loop,
    mapped,
    noop_inline,
    noop_thread,
    sized,
    toy,
)
from sayiir import Workflow, run_workflow_async
from sayiir._codec import decode_payload, encode_payload
from sayiir._submission import fresh_id
from sayiir.backends import Backend

Timed = Callable[[], Awaitable[float]]
Script = Callable[[], Awaitable[list[float]]]
"""Commits by a bare script, and says how long each took."""

LONG, SHORT = 1_010, 10
ROUNDS = 120
"""Enough for a quiet moment to be among them, which is what the best sample is after."""
STEPS = LONG - SHORT
DURABLE_ROUNDS = 8
GROWTH_ROUNDS = 16
WARM = 2
"""Rounds that do not count, after which the write-ahead log has its length and is written over."""
STRETCH = 100
KINDS: tuple[tuple[Store, Synchronous], ...] = ((SQLITE, "full"), (SQLITE_NORMAL, "normal"))
SHAPES: dict[str, tuple[Callable[[int], Workflow[Any, Any]], Callable[[int], Any]]] = {
    "steps": (chain, lambda _: PAYLOAD),
    "turns": (loop, lambda count: count),
    "branches": (fork, lambda _: PAYLOAD),
    "items": (lambda _: mapped(), lambda count: [PAYLOAD] * count),
}
"""What there may be many of: a workflow of so many, and its input."""
FAN_OUT_ROUNDS = {MEMORY: 20, SQLITE: 8, POSTGRES: 8}


def runs(
    workflow: Workflow[Any, Any], value: Any = PAYLOAD, times: int = 1, store: Store = MEMORY
) -> Timed:
    """A contender that runs the workflow on a fresh store and says how long one run took."""

    async def timed() -> float:
        async with store.opened() as backend:
            start = perf_counter()
            for _ in range(times):
                await run_workflow_async(workflow, value, backend=backend)
            return (perf_counter() - start) / times

    return timed


async def _moments(backend: Backend, workflow: Workflow[Any, Any], value: Any) -> list[float]:
    """When each step of one instance alone ended, in order, as its history says."""
    name = fresh_id()
    await run_workflow_async(workflow, value, instance_id=name, backend=backend)
    return sorted(row.step.ended_at for row in await backend.history(name))


def calls(work: Callable[[int], Awaitable[object]], times: int) -> Timed:
    """A contender that does without the engine."""

    async def timed() -> float:
        start = perf_counter()
        await work(times)
        return perf_counter() - start

    return timed


async def _codec_alone(times: int) -> None:
    for _ in range(times):
        decode_payload(encode_payload(PAYLOAD))


def bench_chain(ledger: Ledger) -> None:
    """A step of each kind, above the bare awaited call."""
    kinds = {"async": chain(LONG), "sync inline": chain(LONG, noop_inline)}
    short = {"async": chain(SHORT), "sync inline": chain(SHORT, noop_inline)}
    contenders: dict[str, Timed] = {
        "bare": calls(bare, STEPS),
        "toy": calls(toy, STEPS),
        "codec": calls(_codec_alone, STEPS),
        "nothing long": runs(kinds["async"], None),
        "nothing short": runs(short["async"], None),
    }
    for kind, workflow in kinds.items():
        contenders[f"{kind} long"] = runs(workflow)
        contenders[f"{kind} short"] = runs(short[kind])
    best = {
        name: min(times)
        for name, times in asyncio.run(interleave_async(contenders, ROUNDS)).items()
    }
    for kind in kinds:
        above = (best[f"{kind} long"] - best[f"{kind} short"] - best["bare"]) / STEPS * 1e6
        ledger.enter(
            "step",
            f"{kind} no-op, 100 B, above the bare call",
            above,
            "µs",
            against=best["bare"] / STEPS * 1e6,
            rival="bare call",
            judged=above,
            at_most=1.0,
            budget="≤ 1 µs",
        )
        ledger.enter(
            "step",
            "  the same, as the first release has to show it",
            above,
            "µs",
            judged=above,
            at_most=2.0,
            budget="≤ 2 µs",
        )
    nothing = (best["nothing long"] - best["nothing short"] - best["bare"]) / STEPS * 1e6
    ledger.enter("step", "async no-op that passes None on, above the bare call", nothing, "µs")
    ledger.enter(
        "step",
        "encode + decode alone, 100 B",
        best["codec"] / STEPS * 1e6,
        "µs",
        against=best["toy"] / STEPS * 1e6,
        rival="msgspec chain without a promise",
    )


def bench_length(ledger: Ledger) -> None:
    """Whole runs of 1 to 1,000 steps, and of steps with 10 kB, by the step."""
    cases = [(length, PAYLOAD, "100 B") for length in (1, 10, 100, 1_000)]
    cases.append((100, sized(10_000), "10 kB"))
    for length, value, size in cases:
        times = max(1, 200 // length)
        contenders = {
            "ours": runs(chain(length), value, times),
            "python": runs(chain(length), value, times, PYTHON),
        }
        samples = asyncio.run(interleave_async(contenders, 20))
        best = {name: min(taken) / length * 1e6 for name, taken in samples.items()}
        ledger.enter(
            "step",
            f"memory: {length:,} steps run alone, {size}, start and end included, per step",
            best["ours"],
            "µs",
            against=best["python"],
            rival="Python backend",
        )


def bench_thread(ledger: Ledger) -> None:
    """A sync step in the thread pool."""
    steps = 200
    contenders = {
        "long": runs(chain(steps + SHORT, noop_thread)),
        "short": runs(chain(SHORT, noop_thread)),
        "bare": calls(_to_thread, steps),
    }
    best = {
        name: min(times) for name, times in asyncio.run(interleave_async(contenders, 10)).items()
    }
    ledger.enter(
        "step",
        "sync no-op in a thread, 100 B",
        (best["long"] - best["short"]) / steps * 1e6,
        "µs",
        against=best["bare"] / steps * 1e6,
        rival="asyncio.to_thread",
    )


async def _to_thread(times: int) -> None:
    value: Any = PAYLOAD
    for _ in range(times):
        value = await asyncio.to_thread(noop_thread, value)


@asynccontextmanager
async def _sqlite_script(synchronous: Synchronous) -> AsyncIterator[Script]:
    with (
        tempfile.TemporaryDirectory(prefix="sayiir-floor-", dir=ground()) as folder,
        SqliteFloor(Path(folder), synchronous) as floor,
    ):

        async def commits() -> list[float]:
            return floor.commits(STEPS)

        yield commits


@asynccontextmanager
async def _postgres_script() -> AsyncIterator[Script]:
    async with PostgresFloor(served().url()) as floor:
        yield lambda: floor.commits(STEPS)


async def _alone(
    store: Store, opened: Callable[[], AbstractAsyncContextManager[Script]]
) -> tuple[float, float]:
    """Seconds of a step of one instance alone, and of a commit by a bare script, in turn."""
    workflow = chain(STEPS)
    steps, commits = [], []
    async with opened() as script, store.opened() as backend:
        for _ in range(WARM + DURABLE_ROUNDS):
            ended = await _moments(backend, workflow, PAYLOAD)
            steps.append(best_stretch([b - a for a, b in pairwise(ended)], STRETCH))
            commits.append(best_stretch(await script(), STRETCH))
    return min(steps[WARM:]), min(commits[WARM:])


def bench_alone(ledger: Ledger) -> None:
    """One instance alone on SQLite, step after step, each checkpoint durable before the next.

    Of a thousand steps and of a thousand commits the best hundred in a row count.
    """
    for store, synchronous in KINDS:
        step, commit = asyncio.run(_alone(store, partial(_sqlite_script, synchronous)))
        _enter_alone(ledger, store, step, commit, judged=synchronous == "full")


def bench_served_alone(ledger: Ledger) -> None:
    """The same on PostgreSQL."""
    step, commit = asyncio.run(_alone(POSTGRES, _postgres_script))
    _enter_alone(ledger, POSTGRES, step, commit, judged=True)


def _enter_alone(ledger: Ledger, store: Store, step: float, commit: float, *, judged: bool) -> None:
    ledger.enter(
        "step",
        f"{'' if judged else '  '}{store.name}: async no-op, 100 B, one instance alone",
        step * 1e3,
        "ms",
        against=commit * 1e3,
        rival="one commit by a bare script",
        judged=step / commit if judged else None,
        at_most=1.5 if judged else None,
        budget="≤ 1.5×" if judged else "",
    )


def bench_growth(ledger: Ledger) -> None:
    """One more step, turn, branch or item near the thousandth against the two hundredth.

    Both within one long instance: two hundred up to the 990th, and two hundred up to the 300th.
    Below 100 the start of as many coroutines as may run at once would hide what is looked for; the
    tenth is compared by bytes, in `bench_stored`.
    """
    # A stretch in memory takes less than a turn of the machine's moods.
    _growth(ledger, MEMORY, 12 * GROWTH_ROUNDS)


def bench_durable_growth(ledger: Ledger) -> None:
    """The same on SQLite; without fsync, whose moods would hide it."""
    _growth(ledger, SQLITE_NORMAL, GROWTH_ROUNDS)


def bench_served_growth(ledger: Ledger) -> None:
    """The same on PostgreSQL, where no commit waits for the disk either."""
    _growth(ledger, POSTGRES_RELAXED, GROWTH_ROUNDS)


async def _late_and_early(
    store: Store, workflow: Workflow[Any, Any], value: Any, rounds: int
) -> tuple[float, float]:
    """Seconds of one more step near the thousandth and near the two hundredth."""
    late, early = [], []
    async with store.opened() as backend:
        for _ in range(WARM + rounds):
            ended = await _moments(backend, workflow, value)
            late.append((ended[990] - ended[790]) / 200)
            early.append((ended[300] - ended[100]) / 200)
    return min(late[WARM:]), min(early[WARM:])


def _growth(ledger: Ledger, store: Store, rounds: int) -> None:
    for shape, (make, value) in SHAPES.items():
        late, early = asyncio.run(_late_and_early(store, make(1_000), value(1_000), rounds))
        _enter_growth(ledger, store, shape, late, early)


def _enter_growth(ledger: Ledger, store: Store, shape: str, late: float, early: float) -> None:
    ledger.enter(
        "growth",
        f"{store.name}: one more of 1,000 {shape}",
        late * 1e6,
        "µs",
        against=early * 1e6,
        rival="of 200",
        judged=late / early,
        at_most=1.1,
        budget="≤ 1.1×",
    )


@pytest.mark.parametrize("store", FAN_OUT_ROUNDS, ids=lambda store: store.name)
def bench_fan_out(ledger: Ledger, store: Store) -> None:
    """A branch and an item against a plain step, each less an instance of one step."""
    long = 1_000 if ledger.quick else 10_000
    contenders = {
        "one": runs(chain(1), PAYLOAD, 5, store),
        "chain": runs(chain(1_001), store=store),
        "fork": runs(fork(100), PAYLOAD, 5, store),
        "map": runs(mapped(), [PAYLOAD] * 1_000, store=store),
    }
    samples = asyncio.run(interleave_async(contenders, FAN_OUT_ROUNDS[store]))
    # Few will do: so many items take long enough for moods to even out.
    many = {"long map": runs(mapped(), [PAYLOAD] * long, store=store)}
    samples |= asyncio.run(interleave_async(many, 2))
    best = {name: min(times) for name, times in samples.items()}
    step = (best["chain"] - best["one"]) / 1_000 * 1e6
    for name, what, count in (
        ("fork", "fork of 100", 100),
        ("map", "map of 1,000", 1_000),
        ("long map", f"map of {long:,}", long),
    ):
        each = (best[name] - best["one"]) / count * 1e6
        judged = name != "long map"
        ledger.enter(
            "fan-out",
            f"{store.name}: {what}, per item",
            each,
            "µs",
            against=step,
            rival="plain step",
            judged=each / step if judged else None,
            at_most=2.0 if judged else None,
            budget="≤ 2×" if judged else "",
        )
