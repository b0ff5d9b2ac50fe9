"""What damaged, foreign and hostile bytes do to the value codec: a `DecodeError`, and nothing else.

No crash, no other exception, no memory for a length that is only claimed. The bytes of what is
carried, and that it is carried, are the subject of `test_value`.
"""

import gc
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Context, Decimal, localcontext
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayiir import DecodeError, EncodeError, EventTimeout, LoopResult, MapError
from sayiir._core import MAX_PAYLOAD_BYTES, MAX_VALUE_DEPTH, decode_value, encode_value

# One value with every form in it, to be damaged.
EVERYTHING = [
    {"plain": [None, True, False, 1, -1, 300, -300, 70_000, -70_000, 2**40, -(2**40), 2**63, 1.5]},
    ["text", "x" * 40, "é" * 200, b"raw", b"r" * 300, 10**40, -(10**40)],
    ((1, 2), (), {1, 2}, frozenset({"a", (1,)}), {(1, "k"): {2: [3]}}),
    [datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=ZoneInfo("Europe/Berlin")), datetime.now(UTC).date()],
    [time(1, 2, 3, tzinfo=UTC), timedelta(1, 2, 3), Decimal("-1.5E+9"), UUID(int=7)],
    [LoopResult.done({"a": 1}), EventTimeout("go"), MapError(1, "E", "m", "p"), tuple(range(300))],
]
VALID = encode_value(EVERYTHING)


def decode_or_refuse(data: bytes) -> None:
    """Decode, where `DecodeError` is the one refusal allowed; what decodes can be encoded again."""
    try:
        value = decode_value(data)
    except DecodeError:
        return
    # A text or number in a longer form than ours, and sets, come back in other bytes.
    assert type(decode_value(encode_value(value))) is type(value)


@given(st.binary(max_size=200))
@settings(max_examples=2_000)
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    decode_or_refuse(data)


@given(st.sampled_from([0xC7, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8]), st.integers(0, 20), st.binary())
@settings(max_examples=2_000)
def test_random_bodies_of_extensions_are_refused_or_read(
    marker: int, code: int, body: bytes
) -> None:
    head = bytes([marker, len(body) % 256, code]) if marker == 0xC7 else bytes([marker, code])
    decode_or_refuse(head + body)


def damaged(seed: int) -> bytes:
    """Flip, insert, delete, repeat or cut bytes of a valid encoding; the same for the same seed."""
    chance = random.Random(seed)
    data = bytearray(VALID)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice([0xC1, 0xDD, 0xDF, 0xC9, 0xDB, 0xFF, 0, 0x91, 0x81])
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 4))
            case 3:
                del data[at : at + chance.randint(1, 4)]
            case _:
                data[at:at] = data[at : at + chance.randint(1, 40)]
        if not data:
            break
    return bytes(data)


@given(st.integers(0, 2**32))
@settings(max_examples=2_000)
def test_damaged_bytes_are_refused_or_read(seed: int) -> None:
    decode_or_refuse(damaged(seed))


@pytest.mark.soak
def test_damaged_bytes_are_refused_or_read_in_the_long_run(
    soak_rounds: Callable[[int], Iterator[int]],
) -> None:
    for start in soak_rounds(2_000):
        for number in range(start, start + 100):
            try:
                decode_or_refuse(damaged(number))
            except BaseException as error:
                error.add_note(f"damaged({number}) brings it back")
                raise


def test_every_cut_is_refused_and_every_rest_too() -> None:
    for length in range(len(VALID)):
        with pytest.raises(DecodeError):
            decode_value(VALID[:length])
    for more in range(256):
        with pytest.raises(DecodeError, match="follow"):
            decode_value(VALID + bytes([more]))


def nan_key_map(count: int) -> bytes:
    return bytes([0x80 | count]) + (b"\xcb\x7f\xf8" + bytes(6) + b"\x01") * count


def extension(code: int, body: str) -> str:
    return f"c7{len(body) // 2:02x}{code:02x}{body}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "missing"),
        ("c1", "0xc1"),
        ("91c1", "0xc1"),
        ("cd01", "cut off"),
        ("a3c3a9", "cut off"),
        ("c403ffff", "cut off"),
        ("a1ff", "UTF-8"),
        ("a3eda080", "UTF-8"),
        ("81a1ff01", "UTF-8"),
        ("d9020000ff", "follow"),
        ("92c0", "claims 2 items"),
        ("9291c0", "claims 1 items"),
        ("81c0", "claims 2 items"),
        ("ddffffffff", "claims 4294967295 items"),
        ("dfffffffff", "claims 8589934590 items"),
        ("dbffffffff", "4294967295 bytes is cut off"),
        ("c6ffffffff", "4294967295 bytes is cut off"),
        ("c9ffffffff01", "4294967295 bytes is cut off"),
        ("c9ffffffff0290", "cut off"),
        ("819001", "key of a map"),
        ("818001", "key of a map"),
        ("81d5029190" + "01", "key of a map"),
        ("82a16101a16102", "two keys"),
        ("8201c0c3c0", "two keys"),
        ("d6ff00000000", "code -1"),
        ("d40000", "code 0"),
        ("d40b00", "code 11"),
        ("d47f00", "code 127"),
        # 1: big integers that have a shorter form
        (extension(1, ""), "big integer"),
        (extension(1, "01" * 8), "big integer"),
        (extension(1, "00ffffffffffffffff"), "big integer"),
        (extension(1, "0001ffffffffffffffff"), "big integer"),
        (extension(1, "ff8000000000000000"), "big integer"),
        # 2–4: bodies that are no array, or not just one
        (extension(2, ""), "missing"),
        (extension(2, "01"), "no array"),
        (extension(2, "9000"), "longer than the array"),
        (extension(2, "9201"), "claims 2 items"),
        ("92" + extension(2, "91") + "01", "claims 1 items"),
        (extension(3, "920101"), "two members"),
        (extension(3, "9201c3"), "two members"),
        (extension(3, "9190"), "no set"),
        (extension(4, "920101"), "two members"),
        (extension(4, "9180"), "no set"),
        (extension(3, "91" + extension(9, b"sNaN".hex())), "no set"),
        # 5–8: dates and times out of range
        (extension(5, "07e8021d" + "01020300000400"), "datetime"),
        (extension(5, "07e8021e" + "0102030000040000"), "no datetime"),
        (extension(5, "07e8021d" + "1802030000040000"), "no datetime"),
        (extension(5, "07e8021d" + "01020300000402" + "00"), "datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "04"), "datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "0000"), "datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "01" + "00" * 7), "datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "01" + "00" * 9), "datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "01" + "7f" * 8), "no datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "01" + "80" + "00" * 7), "no datetime"),
        (extension(5, "07e8021d" + "01020300000400" + "02" + "00" * 8 + "ff"), "datetime"),
        (extension(6, "0000021d"), "no date"),
        (extension(6, "27100101"), "no date"),
        (extension(6, "07e702" + "1d"), "no date"),
        (extension(6, "07e702"), "date"),
        (extension(7, "173b3b0f42400000"), "no time"),
        (extension(8, "00" * 11), "timedelta"),
        (extension(8, "3b9aca00" + "00" * 8), "timedelta"),
        (extension(8, "00000000" + "00015180" + "00000000"), "timedelta"),
        (extension(8, "00000000" + "00000000" + "000f4240"), "timedelta"),
        # 9: texts that Decimal would take but never writes
        *[
            (extension(9, text.encode().hex()), "Decimal")
            for text in ("", " 1", "1_0", "+1", "01E", "nan", "1e5", "1E5", "x", "٣", "0x1", "1\0")
        ],
        (extension(9, "ff"), "Decimal"),
        (extension(9, b"1E+9999999999999999999".hex()), "Decimal"),
        (extension(10, "00" * 15), "UUID"),
        # 16–18: fields that are not their own
        (extension(16, "91c3"), "LoopResult"),
        (extension(16, "920101"), "LoopResult"),
        (extension(17, "9101"), "EventTimeout"),
        (extension(18, "94c3a0a0a0"), "MapError"),
        (extension(18, "940101a0a0"), "MapError"),
    ],
)
def test_bytes_that_are_no_value_are_refused_with_a_reason(data: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_value(bytes.fromhex(data))


@pytest.mark.parametrize(
    "key",
    [
        *["", "/etc/passwd", "../../etc/passwd", "Europe/../UTC", "a//b", "Europe/", "a.b", "C:x"],
        *["x" * 256, "Europe/Berlin\0", "Zürich", "No/Such_Zone", "Europe"],
    ],
)
def test_a_stored_zone_key_opens_no_file_but_a_zone(key: str) -> None:
    body = "07e8021d" + "01020300000400" + "03" + key.encode().hex()
    size = len(body) // 2
    with pytest.raises(DecodeError, match="datetime") as refused:
        decode_value(b"\xc8" + size.to_bytes(2, "big") + b"\x05" + bytes.fromhex(body))
    assert key == "" or key not in str(refused.value)


def test_nonsense_in_a_decimal_is_no_nan_where_the_context_traps_nothing() -> None:
    with localcontext(Context(traps=[])), pytest.raises(DecodeError, match="Decimal"):
        decode_value(bytes.fromhex(extension(9, b"x".hex())))


def test_keys_that_are_nan_are_not_equal() -> None:
    assert len(decode_value(nan_key_map(3))) == 3


@pytest.mark.parametrize(
    "level",
    ["91", "81c0", "81a16b", "dc0001", "dd00000001", "de0001c0"],
)
def test_nesting_of_bytes_is_read_up_to_the_limit(level: str) -> None:
    one = bytes.fromhex(level)
    decode_value(one * MAX_VALUE_DEPTH + b"\xc0")
    for depth in (MAX_VALUE_DEPTH + 1, 100_000):
        with pytest.raises(DecodeError, match="nest deeper"):
            decode_value(one * depth + b"\xc0")


def test_nesting_of_extensions_stops_at_the_limit_in_a_small_stack() -> None:
    outcomes: list[str] = []

    def attempt() -> None:
        data = b"\xc0"
        for _ in range(MAX_VALUE_DEPTH + 1):
            data = b"\xc9" + (len(data) + 1).to_bytes(4, "big") + b"\x02\x91" + data
        try:
            decode_value(data)
        except DecodeError as error:
            outcomes.append(str(error))

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=attempt)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert "nest deeper" in outcomes[0]


LIES = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x02\xdd\xff\xff\xff\xff",
    # Every level claims all that is left, which one of them could have.
    b"".join(b"\xdd" + (100_000 - 5 * level).to_bytes(4, "big") for level in range(150))
    + bytes(100_000),
    b"\xc9\x00\x01\x86\xa0\x04\xdd\x00\x01\x86\x00" + bytes(99_994),
]


@pytest.mark.parametrize("data", LIES)
def test_a_claimed_length_takes_no_memory(data: bytes) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_value(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(data) + (1 << 20)


def test_a_claimed_length_takes_no_memory_outside_python_either() -> None:
    # tracemalloc sees Python's own memory alone. A process that may grow by 16 MiB and no more
    # would be ended by the allocator if the codec believed one of these lengths.
    program = f"""
import resource
from pathlib import Path
from sayiir import DecodeError
from sayiir._core import decode_value
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
refused = 0
for data in {LIES!r}:
    try:
        decode_value(data)
    except DecodeError:
        refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(len(LIES)), done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\x00\x03\x0d\x40" + b"\x05" * 200_000,
        b"\xdd\x00\x03\x0d\x40" + b"\x90" * 200_000,
        b"\xdd\x00\x03\x0d\x40" + b"\x80" * 200_000,
        b"\xdd\x00\x01\x86\xa0" + b"\xa2ab" * 100_000,
    ],
    ids=["ints", "lists", "dicts", "texts"],
)
def test_what_is_read_takes_the_memory_of_its_objects_and_little_more(data: bytes) -> None:
    def weight(value: object) -> int:
        own = sys.getsizeof(value)
        return own + (sum(map(weight, value)) if isinstance(value, list) else 0)

    gc.collect()
    tracemalloc.start()
    try:
        value = decode_value(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * weight(value) + 8 * len(data) + (1 << 20)


def test_more_bytes_than_a_payload_may_have_are_refused() -> None:
    with pytest.raises(DecodeError, match=str(MAX_PAYLOAD_BYTES)):
        decode_value(bytes(MAX_PAYLOAD_BYTES + 1))


def swap_keys(container: Any) -> None:
    """Change the keys of a dict and leave its size."""
    container[object()] = container.pop(next(iter(container)))


@pytest.mark.parametrize(
    ("container", "change"),
    [
        (dict, lambda it: it.update(more=1)),
        (dict, lambda it: it.popitem()),
        (dict, lambda it: it.clear()),
        (list, lambda it: it.append(1)),
        (list, lambda it: it.pop()),
        (list, lambda it: it.clear()),
        (set, lambda it: it.add("more")),
        (set, lambda it: it.pop()),
        (set, lambda it: it.clear()),
    ],
)
@pytest.mark.parametrize("moment", [0, 3, 9])
def test_a_container_that_changes_under_the_walk_is_refused(
    container: type[Any],
    change: Callable[[Any], object],
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Reading `is_done` runs Python code. Another thread may write in such a moment, and so may we.
    items = [LoopResult.again(number) for number in range(10)]
    shared = container(enumerate(items)) if container is dict else container(items)
    reads: list[object] = []

    def is_done(_: object) -> bool:
        if len(reads) == moment:
            change(shared)
        reads.append(None)
        return False

    monkeypatch.setattr(LoopResult, "is_done", property(is_done))
    with pytest.raises(EncodeError, match="changed while"):
        encode_value(shared)


def test_keys_that_change_under_the_walk_are_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[object, object] = {number: LoopResult.again(number) for number in range(10)}

    def is_done(_: object) -> bool:
        swap_keys(shared)
        return False

    monkeypatch.setattr(LoopResult, "is_done", property(is_done))
    with pytest.raises(EncodeError):
        encode_value(shared)


def test_threads_decode_side_by_side() -> None:
    texts = [{f"key{i}-{j}": j for j in range(50)} for i in range(8)]
    data = [encode_value(text) for text in texts]
    wrong: list[int] = []

    def work(turn: int) -> None:
        for step in range(200):
            which = (turn + step) % len(data)
            if decode_value(data[which]) != texts[which]:
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_interrupt_is_raised_and_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_value(LoopResult.done(1))
    original = LoopResult.done
    calls: list[object] = []

    def interrupted(value: object) -> object:
        calls.append(value)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(value)

    monkeypatch.setattr(LoopResult, "done", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        decode_value(data)
        calls.append("after")
    assert calls[:2] == [1, 1]
