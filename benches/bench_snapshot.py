"""Snapshots of whole instances, encoded and decoded, against what a program might use instead.

The rivals get the same rows with the same sealed payloads as plain dicts and lists; `orjson`, which
knows no bytes, gets them as base64, on its own time. None of them checks what it reads: no
checksum, no hash of the definition, no position that fits it. The budget is to be the fastest all
the same. Rows of a snapshot become Python objects when somebody asks for them, which moving an
instance does not; what that costs stands in a row of its own.
"""

from __future__ import annotations

import pickle
from base64 import b64decode, b64encode
from collections.abc import Callable
from inspect import signature
from typing import Any

import msgspec
import orjson

from benches.ledger import Ledger
from benches.stopwatch import interleave
from benches.workload import chain, sized
from sayiir import WorkflowClient, run_durable_workflow_async
from sayiir.backends import InMemoryBackend
from sayiir.codec import Snapshot, SnapshotStep, decode_snapshot, encode_snapshot

SHAPES = {"10 × 100 B": (10, 100), "100 × 1 kB": (100, 1_000)}
ROUNDS = 25
TIMES = 20

Work = Callable[[], object]


async def ended(steps: int, size: int) -> Snapshot:
    """An instance of so many steps, each with a result of so many bytes."""
    backend = InMemoryBackend()
    await run_durable_workflow_async(chain(steps), "ended", sized(size), backend)
    return decode_snapshot(await WorkflowClient(backend).export("ended"))


def as_plain(snapshot: Snapshot) -> dict[str, Any]:
    """Its fields, with dicts for its rows; it ended, so it has no events and nothing is asked."""
    fields = {name: getattr(snapshot, name) for name in signature(Snapshot).parameters}
    names = signature(SnapshotStep).parameters
    fields["steps"] = [{name: getattr(step, name) for name in names} for step in snapshot.steps]
    return fields


def with_texts(value: Any) -> Any:
    """The same with base64 in place of bytes."""
    match value:
        case bytes():
            return {"b": b64encode(value).decode()}
        case dict():
            return {key: with_texts(item) for key, item in value.items()}
        case list() | tuple():
            return [with_texts(item) for item in value]
        case _:
            return value


def with_bytes(value: Any) -> Any:
    """What `with_texts` was given, with lists in place of tuples.

    >>> with_bytes(with_texts({"output": b"x"}))
    {'output': b'x'}
    """
    match value:
        case {"b": str(text)} if len(value) == 1:
            return b64decode(text)
        case dict():
            return {key: with_bytes(item) for key, item in value.items()}
        case list():
            return [with_bytes(item) for item in value]
        case _:
            return value


def contenders(snapshot: Snapshot) -> dict[str, tuple[Work, int]]:
    """There and back by each codec, ours first, and how many bytes it makes."""
    plain = as_plain(snapshot)
    pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
    return {
        "ours": (
            lambda: decode_snapshot(encode_snapshot(snapshot)),
            len(encode_snapshot(snapshot)),
        ),
        "ours, rows read": (
            lambda: decode_snapshot(encode_snapshot(snapshot)).steps,
            len(encode_snapshot(snapshot)),
        ),
        "msgspec.msgpack": (lambda: unpack(pack(plain)), len(pack(plain))),
        "orjson": (
            lambda: with_bytes(orjson.loads(orjson.dumps(with_texts(plain)))),
            len(orjson.dumps(with_texts(plain))),
        ),
        "pickle": (lambda: pickle.loads(pickle.dumps(plain)), len(pickle.dumps(plain))),
    }


def often(work: Work) -> Work:
    def some() -> None:
        for _ in range(TIMES):
            work()

    return some


async def bench_snapshot(ledger: Ledger) -> None:
    """Encode and decode an ended instance of 10 small and of 100 larger results."""
    for name, (steps, size) in SHAPES.items():
        known = contenders(await ended(steps, size))
        samples = interleave({which: often(work) for which, (work, _) in known.items()}, ROUNDS)
        best = {which: min(taken) / TIMES * 1e6 for which, taken in samples.items()}
        (_, ours), mine = known.pop("ours"), best.pop("ours")
        read, _ = best.pop("ours, rows read"), known.pop("ours, rows read")
        ledger.enter(
            "snapshot", f"encode + decode, {name}, and every row made an object", read, "µs"
        )
        for which, (_, theirs) in known.items():
            ledger.enter(
                "snapshot",
                f"encode + decode, {name}; {ours:,} B to {theirs:,} B",
                mine,
                "µs",
                against=best[which],
                rival=which,
                judged=mine / best[which],
                at_most=1.0,
                budget="fastest",
            )
