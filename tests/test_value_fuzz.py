"""The value decoder under random damage, by number: every execution is refused or read (T13).

It lives in the extension, needs Python to make its values, and so is reached as users reach it:
through `decode_value`. Begins with the frozen values of `tests/golden`, changes bytes, puts
parts of one value into another, and decodes. `test_value_hostile` has the damage that is worth a
sentence; here the number counts, and `make soak` comes to ten million. What is decoded may hold no
more memory than a small multiple of the bytes.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.crash.figures import keep

from sayiir import DecodeError
from sayiir._core import decode_value

HEADER = 12
ROUND = 10_000
MOST_EXECUTIONS = 10_000_000

# Markers, and numbers at which lengths change their meaning.
ODD = bytes([0, 1, 0x7F, 0x80, 0x90, 0x91, 0xC1, 0xC7, 0xD4, 0xD9, 0xDD, 0xDF, 0xFF])


def frozen() -> list[bytes]:
    """The bodies of the values that are frozen, in a fixed order."""
    found = Path(__file__).parent.joinpath("golden", "v1").glob("value-*.bin")
    return sorted(file.read_bytes()[HEADER:] for file in found)


def damaged(good: list[bytes], seed: int) -> Iterator[bytes]:
    """So many changed values that a round is full; the same for the same seed."""
    chance = Random(seed)
    below = chance.random
    for _ in range(ROUND):
        data = bytearray(good[int(below() * len(good))])
        for _ in range(1 + int(below() * 3)):
            at = int(below() * (len(data) or 1))
            kind = int(below() * 6)
            if kind < 2 and data:
                data[at] ^= 1 << int(below() * 8)
            elif kind == 2 and data:
                data[at] = ODD[int(below() * len(ODD))]
            elif kind == 3:
                data.insert(at, int(below() * 256))
            elif kind == 4:
                del data[at : at + 1 + int(below() * 3)]
            else:
                other = good[int(below() * len(good))]
                data[at:at] = other[int(below() * len(other)) :]
        yield bytes(data)


def decode_all(good: list[bytes], seed: int) -> int:
    """One round; how many were read. All but a `DecodeError` is raised, with what brought it."""
    taken = 0
    for data in damaged(good, seed):
        try:
            decode_value(data)
            taken += 1
        except DecodeError:
            continue
        except BaseException as error:
            error.add_note(f"a round of seed {seed}, bytes {data.hex()}")
            raise
    return taken


def test_damaged_frozen_values_are_refused_or_read() -> None:
    seed = Random().randrange(2**32)
    # Damage that never gets in, or always, would show nothing.
    assert 0 < decode_all(frozen(), seed) < ROUND, f"seed {seed}"


def test_what_damaged_values_hold_is_in_proportion_to_their_bytes() -> None:
    good, seed = frozen(), Random().randrange(2**32)
    for data in list(damaged(good, seed))[:1_000]:
        gc.collect(0)
        tracemalloc.start()
        try:
            decode_value(data)
        except DecodeError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak <= 8 * len(data) + (1 << 20), f"seed {seed}, bytes {data.hex()}"


@pytest.mark.soak
def test_damaged_frozen_values_in_the_long_run(soak_seconds: float) -> None:
    good, first = frozen(), Random().randrange(2**32)
    began = time.monotonic()
    executions = taken = 0
    while executions < MOST_EXECUTIONS:
        taken += decode_all(good, first + executions // ROUND)
        executions += ROUND
        if time.monotonic() - began > soak_seconds:
            break
    figures = {"executions": executions, "read": taken, "seconds": time.monotonic() - began}
    keep("fuzz-value", "memory://", first, figures)
