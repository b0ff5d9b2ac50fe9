"""The value codec on plain data against `msgspec.msgpack`, which has fewer types to tell apart."""

from __future__ import annotations

import msgspec

from benches.ledger import Ledger
from benches.stopwatch import interleave
from benches.workload import sized
from sayiir._core import decode_value, encode_value

SIZES = {"100 B": 100, "1 kB": 1_000, "10 kB": 10_000, "1 MB": 1_000_000}
BYTES_A_SAMPLE = 1_000_000


def bench_codec(ledger: Ledger) -> None:
    """Encode and decode an order, or a list of them, of 100 B to 1 MB."""
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
    for name, size in SIZES.items():
        value = sized(size)
        times = max(1, BYTES_A_SAMPLE // size)

        def ours(value: object = value, times: int = times) -> None:
            for _ in range(times):
                decode_value(encode_value(value))

        def rival(value: object = value, times: int = times) -> None:
            for _ in range(times):
                decode(encode(value))

        samples = interleave({"ours": ours, "rival": rival}, rounds=25)
        mine, theirs = (min(samples[which]) / times * 1e6 for which in ("ours", "rival"))
        ledger.enter(
            "codec",
            f"encode + decode, {name}",
            mine,
            "µs",
            against=theirs,
            rival="msgspec.msgpack",
            judged=mine / theirs,
            at_most=1.3,
            budget="≤ 1.3×",
        )
