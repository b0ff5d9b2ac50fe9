"""What the benches run: bodies that do nothing, values of known size, flows of any length.

A body that does nothing shows what the engine costs; the floors below do the same work with less.
Nothing here measures anything.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import msgspec

from sayiir import Flow, LoopResult, Workflow, task

__all__ = [
    "ORDER",
    "PAYLOAD",
    "STARTED",
    "WOKEN",
    "bare",
    "chain",
    "fork",
    "loop",
    "mapped",
    "noop",
    "noop_inline",
    "noop_thread",
    "sized",
    "toy",
]

PAYLOAD: dict[str, Any] = {
    "order": "a-1234567",
    "amount": 1250,
    "customer": "Ann Example, 12 Long Lane, Shortwood",
    "paid": True,
    "rate": 0.25,
}
"""What goes from step to step: a flat dict of about 100 bytes."""

ORDER: dict[str, Any] = {
    "order": "a-1234567",
    "amount": 1250,
    "lines": ["x-1", "x-2", "x-3"],
    "customer": {"id": 77, "name": "Ann Example"},
    "paid": True,
    "rate": 0.25,
}
"""About 100 bytes too, but nested: what larger values are made of."""


async def noop(value: Any) -> Any:
    return value


@task(run_in="inline")
def noop_inline(value: Any) -> Any:
    return value


def noop_thread(value: Any) -> Any:
    return value


def chain(length: int, body: Any = noop) -> Workflow[Any, Any]:
    """One step after the other.

    >>> len(list(chain(3).iter_nodes()))
    3
    """
    flow: Flow[Any, Any] = Flow(f"chain-{length}")
    for _ in range(length):
        flow = flow.then(body)
    return flow.build()


def fork(branches: int) -> Workflow[Any, Any]:
    """Branches of one step each; the join drops what they return."""
    forked = Flow(f"fork-{branches}").fork()
    for number in range(branches):
        forked = forked.branch(noop, name=f"b{number}")
    return forked.join(_drop).build()


def mapped(name: str = "map") -> Workflow[Any, Any]:
    """One step for each item of the list that is the input."""
    return Flow(name).map(noop).build()


def loop(most: int) -> Workflow[Any, Any]:
    """As many turns as the input says."""
    return Flow("loop").loop(_turn, max_iterations=most).build()


async def _drop(_: Any) -> None:
    return None


async def _turn(left: int) -> LoopResult[int]:
    return LoopResult.again(left - 1) if left > 1 else LoopResult.done(0)


async def _mark(_: Any) -> float:
    return perf_counter()


STARTED: Workflow[Any, float] = Flow("started").then(_mark).build()
"""Returns when its task began, by the machine's own clock, which all its processes share."""
WOKEN: Workflow[Any, float] = Flow("woken").wait_for_event("go").then(_mark).build()
"""The same after an event."""


async def bare(calls: int) -> None:
    """The floor of a chain: the awaited calls alone."""
    value = PAYLOAD
    for _ in range(calls):
        value = await noop(value)


async def toy(calls: int) -> dict[str, Any]:
    """A chain as a script might do it: encode, keep, decode, and no other promise kept."""
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
    kept: dict[str, list[bytes]] = {"instance": [encode(PAYLOAD)]}
    value = PAYLOAD
    for _ in range(calls):
        value = decode(kept["instance"][-1])
        kept["instance"].append(encode(await noop(value)))
    return value


def sized(size: int) -> dict[str, Any]:
    """A plain value that takes about so many bytes when encoded.

    >>> 0.8 < len(msgspec.msgpack.encode(sized(10_000))) / 10_000 < 1.2
    True
    """
    one = len(msgspec.msgpack.encode(ORDER))
    return ORDER if size <= one * 2 else {"orders": [ORDER] * round(size / one)}
