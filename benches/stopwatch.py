"""Timing several ways of doing one thing so that the figures can be divided by each other.

A machine that is busy, or changes its clock rate, slows down whatever happens to run just then.
Samples are therefore taken in turn: one of each contender, then the next round in the opposite
order, so that a slow minute falls on all of them. The best sample counts, because noise only ever
adds.

What it promises: the garbage of one sample is never collected on another's time, and no
contender is always first. It knows nothing of what it times, and judges nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import fmean, median
from time import perf_counter
from typing import TypeVar

__all__ = ["Samples", "best_stretch", "interleave", "interleave_async", "quantile"]

W = TypeVar("W")

Samples = dict[str, list[float]]
"""Seconds for each sample of each contender."""


def interleave(contenders: Mapping[str, Callable[[], object]], rounds: int) -> Samples:
    """Call every contender once a round, in alternating order.

    >>> samples = interleave({"a": lambda: sum(range(10)), "b": lambda: None}, rounds=3)
    >>> [len(samples[name]) for name in "ab"]
    [3, 3]
    """
    samples: Samples = {name: [] for name in contenders}
    for name, work in _in_turn(contenders, rounds):
        gc.collect()
        start = perf_counter()
        work()
        samples[name].append(perf_counter() - start)
    return samples


async def interleave_async(
    contenders: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> Samples:
    """As `interleave`, on a running loop; each contender says itself how many seconds it took.

    So it can set up and tear down, a worker for instance, without that being counted.
    """
    samples: Samples = {name: [] for name in contenders}
    for name, work in _in_turn(contenders, rounds):
        gc.collect()
        samples[name].append(await work())
    return samples


def _in_turn(contenders: Mapping[str, W], rounds: int) -> list[tuple[str, W]]:
    forth = list(contenders.items())
    return [
        contender
        for number in range(rounds)
        for contender in (forth[::-1] if number % 2 else forth)
    ]


def best_stretch(samples: Sequence[float], length: int) -> float:
    """The mean of the best so many samples in a row: what a quiet moment of a long run looks like.

    >>> best_stretch([9.0, 1.0, 2.0, 9.0], 2)
    1.5
    """
    starts = range(0, len(samples) - length + 1, max(length // 2, 1))
    return min(fmean(samples[start : start + length]) for start in starts)


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which this share of them lies; 0.5 is the median.

    >>> quantile([3.0, 1.0, 2.0], 0.5), quantile(list(range(100)), 0.99)
    (2.0, 99)
    """
    if share == 0.5:
        return median(samples)
    return sorted(samples)[min(int(len(samples) * share), len(samples) - 1)]
