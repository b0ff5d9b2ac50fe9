"""The value codec on plain data against other codecs, which have fewer types to tell apart.

The budget is about `msgspec.msgpack`. The others are shown beside it: JSON knows no bytes, no
tuples and no keys but texts; pickle knows everything, and runs whatever the bytes say.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import ormsgpack

from benches.ledger import Ledger
from benches.stopwatch import interleave
from benches.workload import sized
from sayiir._core import decode_value, encode_value

SIZES = {"100 B": 100, "1 kB": 1_000, "10 kB": 10_000, "1 MB": 1_000_000}
BYTES_A_SAMPLE = 500_000

Codec = tuple[Callable[[object], Any], Callable[[Any], object]]
"""What it encodes to, bytes or text, it decodes."""


def codecs() -> dict[str, Codec]:
    """Encode and decode of each, ours first, each as its users would call it in a loop."""
    return {
        "ours": (encode_value, decode_value),
        "msgspec.msgpack": (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode),
        "msgspec.json": (msgspec.json.Encoder().encode, msgspec.json.Decoder().decode),
        "orjson": (orjson.dumps, orjson.loads),
        "ormsgpack": (ormsgpack.packb, ormsgpack.unpackb),
        "pickle": (pickle.dumps, pickle.loads),
        "json": (json.dumps, json.loads),
    }


def bench_codec(ledger: Ledger) -> None:
    """Encode and decode an order, or a list of them, of 100 B to 1 MB."""
    for name, size in SIZES.items():
        # Every order an object of its own: pickle writes one that it has seen only once.
        value = msgspec.msgpack.decode(msgspec.msgpack.encode(sized(size)))
        times = max(1, BYTES_A_SAMPLE // size)
        known = codecs()
        bytes_of = {which: len(encode(value)) for which, (encode, _) in known.items()}

        def both(codec: Codec, value: object = value, times: int = times) -> Callable[[], None]:
            encode, decode = codec

            def work() -> None:
                for _ in range(times):
                    decode(encode(value))

            return work

        samples = interleave({which: both(codec) for which, codec in known.items()}, rounds=15)
        best = {which: min(samples[which]) / times * 1e6 for which in known}
        mine = best.pop("ours")
        for which, theirs in best.items():
            judged = which == "msgspec.msgpack"
            ledger.enter(
                "codec",
                f"encode + decode, {name}, against {which}",
                mine,
                "µs",
                against=theirs,
                rival=which,
                **({"judged": mine / theirs, "at_most": 1.3, "budget": "≤ 1.3×"} if judged else {}),
            )
        # A microsecond for a byte is a megabyte in a second.
        ledger.enter("codec", f"throughput, {name}", bytes_of["ours"] / mine, "MB/s")
        for which in best:
            ledger.enter(
                "codec",
                f"size, {name}, against {which}",
                bytes_of["ours"],
                "B",
                against=bytes_of[which],
                rival=which,
            )
