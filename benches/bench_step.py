"""What a step costs in memory, and whether it costs more when there are many of them.

A short instance is subtracted from a long one, so that submitting, claiming and ending are left
out: what remains is steps. The floor is the bare awaited call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from benches.ledger import Ledger
from benches.stopwatch import interleave_async
from benches.workload import (
    PAYLOAD,
    bare,
    chain,
    fork,
    loop,
    mapped,
    noop_inline,
    noop_thread,
    toy,
)
from sayiir import InMemoryBackend, Workflow, run_workflow_async
from sayiir._codec import decode_payload, encode_payload

Timed = Callable[[], Awaitable[float]]

LONG, SHORT = 1_010, 10
ROUNDS = 120
"""Enough for a quiet moment to be among them, which is what the best sample is after."""
STEPS = LONG - SHORT


def runs(workflow: Workflow[Any, Any], value: Any = PAYLOAD, times: int = 1) -> Timed:
    """A contender that runs the workflow in memory and says how long one run took."""

    async def timed() -> float:
        start = perf_counter()
        for _ in range(times):
            await run_workflow_async(workflow, value, backend=InMemoryBackend())
        return (perf_counter() - start) / times

    return timed


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


def bench_growth(ledger: Ledger) -> None:
    """One more step, turn, branch or item: near the thousandth against near the two hundredth.

    The marginal cost between 800 and 1,000 is divided by the one between 100 and 300. Below 100 the
    start of as many coroutines as may run at once would hide what is looked for; the tenth is
    compared by bytes, in `bench_stored`.
    """
    sizes = (100, 300, 800, 1_000)
    times = {100: 6, 300: 2, 800: 1, 1_000: 1}
    turns, items = loop(1_000), mapped()
    shapes: dict[str, Callable[[int], Timed]] = {
        "steps": lambda n: runs(chain(n), PAYLOAD, times[n]),
        "turns": lambda n: runs(turns, n, times[n]),
        "branches": lambda n: runs(fork(n), PAYLOAD, times[n]),
        "items": lambda n: runs(items, [PAYLOAD] * n, times[n]),
    }
    for shape, make in shapes.items():
        contenders = {str(size): make(size) for size in sizes}
        samples = asyncio.run(interleave_async(contenders, 30))
        best = {int(size): min(times) for size, times in samples.items()}
        late = (best[1_000] - best[800]) / 200 * 1e6
        early = (best[300] - best[100]) / 200 * 1e6
        ledger.enter(
            "growth",
            f"one more of 1,000 {shape}",
            late,
            "µs",
            against=early,
            rival="of 200",
            judged=late / early,
            at_most=1.1,
            budget="≤ 1.1×",
        )


def bench_fan_out(ledger: Ledger) -> None:
    """A branch and an item against a plain step, each less an instance of one step."""
    contenders = {
        "one": runs(chain(1), PAYLOAD, 5),
        "chain": runs(chain(1_001)),
        "fork": runs(fork(100), PAYLOAD, 5),
        "map": runs(mapped(), [PAYLOAD] * 1_000),
    }
    samples = asyncio.run(interleave_async(contenders, 20))
    best = {name: min(times) for name, times in samples.items()}
    step = (best["chain"] - best["one"]) / 1_000 * 1e6
    for name, what, count in (("fork", "fork of 100", 100), ("map", "map of 1,000", 1_000)):
        each = (best[name] - best["one"]) / count * 1e6
        ledger.enter(
            "fan-out",
            f"{what}, per item",
            each,
            "µs",
            against=step,
            rival="plain step",
            judged=each / step,
            at_most=2.0,
            budget="≤ 2×",
        )
