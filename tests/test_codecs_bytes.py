"""The bytes of payloads at rest: values in JSON, compressed ones, and what hostile bytes do.

JSON is read here with Python's own reader, which knows nothing of ours, so that what is written is
what anybody else would read. How payloads get to a store is in `test_codecs`.
"""

import json
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayiir import DecodeError, EventTimeout, LoopResult, MapError
from sayiir._core import MAX_PAYLOAD_BYTES, MAX_VALUE_DEPTH, AtRest, decode_payload
from sayiir.codecs import Codec, KeyRing

from .golden import layout
from .test_value import shape, values

PLACE = ("i", "input", "")
JSON = Codec("json").at_rest
SMALL = Codec(compress_above=0).at_rest
KEYS = Codec(keys=KeyRing({"k": bytes(32)})).at_rest
ALL = Codec("json", compress_above=0, keys=KeyRing({"k": bytes(32)})).at_rest
OTHERS = Codec().at_rest
HEADER = 12
PLAIN, MSGPACK_CODEC, JSON_CODEC = 0, 1, 2
COMPRESSED, ENCRYPTED = 1, 2


def sealed(codec: int, flags: int, body: bytes, *, kind: int = 1) -> bytes:
    """A body behind a header with the right checksum."""
    about = bytes([1, kind, codec, flags])
    return b"SYRS" + about + struct.pack("<I", zlib.crc32(about + body)) + body


def text_of(value: object) -> str:
    """The JSON text of a value."""
    payload = JSON.encode(value, *PLACE)
    assert payload[4:8] == bytes([1, 1, JSON_CODEC, 0])
    return payload[HEADER:].decode()


def read(text: str | bytes) -> Any:
    """The value of a JSON text."""
    body = text if isinstance(text, bytes) else text.encode()
    return OTHERS.decode(sealed(JSON_CODEC, 0, body), *PLACE)


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@given(values)
@settings(max_examples=1_000)
def test_any_value_comes_back_as_it_was(value: object) -> None:
    for codec in (JSON, SMALL, KEYS, ALL):
        assert shape(codec.decode(codec.encode(value, *PLACE), *PLACE)) == shape(value)


@given(values)
@settings(max_examples=500)
def test_the_text_is_strict_json(value: object) -> None:
    json.loads(text_of(value), parse_constant=refuse_constant)


NAN_WITH_CONTENT = struct.unpack(">d", bytes.fromhex("7ff80000000000ff"))[0]
HALF_HOUR = timedelta(hours=-3, minutes=-30)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-1, "-1"),
        (2**63 - 1, "9223372036854775807"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, '{"$int":"0x10000000000000000"}'),
        (-(2**63), "-9223372036854775808"),
        (-(2**63) - 1, '{"$int":"-0x8000000000000001"}'),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e300, "1e300"),
        (5e-324, "5e-324"),
        (float("nan"), '{"$float":"nan"}'),
        (NAN_WITH_CONTENT, '{"$float":"0x7ff80000000000ff"}'),
        (float("-inf"), '{"$float":"-inf"}'),
        ('a"\\\n\t\r\b\0é', '"a\\"\\\\\\n\\t\\r\\u0008\\u0000é"'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        ([1, [2]], "[1,[2]]"),
        ({}, "{}"),
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
        ({"a": 1, 2: 3}, '{"$dict":[["a",1],[2,3]]}'),
        ({"$int": "0x1"}, '{"$dict":[["$int","0x1"]]}'),
        ({"a": 1, "$b": 2}, '{"$dict":[["a",1],["$b",2]]}'),
        ((), '{"$tuple":[]}'),
        ((1, (2,)), '{"$tuple":[1,{"$tuple":[2]}]}'),
        ({1}, '{"$set":[1]}'),
        (frozenset("a"), '{"$frozenset":["a"]}'),
        (date(2024, 1, 2), '{"$date":"2024-01-02"}'),
        (clock(2, 30), '{"$time":"02:30:00"}'),
        (clock(2, 30, 0, 250, fold=1), '{"$time":"02:30:00.000250[fold=1]"}'),
        (datetime(1, 1, 1), '{"$datetime":"0001-01-01T00:00:00"}'),
        (datetime(2024, 1, 2, tzinfo=UTC), '{"$datetime":"2024-01-02T00:00:00+00:00"}'),
        (
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            '{"$datetime":"2024-10-27T02:30:00[fold=1][Europe/Berlin]"}',
        ),
        (clock(1, tzinfo=timezone(HALF_HOUR)), '{"$time":"01:00:00-03:30"}'),
        (clock(1, tzinfo=timezone(timedelta(0), "x]")), '{"$time":"01:00:00+00:00[name=x]]"}'),
        (
            clock(1, tzinfo=timezone(timedelta(microseconds=1))),
            '{"$time":"01:00:00+00:00:00.000001"}',
        ),
        (timedelta(days=-1, microseconds=5), '{"$timedelta":[-1,0,5]}'),
        (Decimal("-1.20E+3"), '{"$decimal":"-1.20E+3"}'),
        (UUID(int=2**127 + 5), '{"$uuid":"80000000-0000-0000-0000-000000000005"}'),
        (LoopResult.done([1]), '{"$loop":[true,[1]]}'),
        (EventTimeout("go"), '{"$event_timeout":["go"]}'),
        (MapError(3, "E", "no", "a/b"), '{"$map_error":[3,"E","no","a/b"]}'),
    ],
    ids=repr,
)
def test_a_value_has_this_text(value: object, text: str) -> None:
    assert text_of(value) == text
    assert shape(read(text)) == shape(value)


def test_white_space_and_escapes_of_others_are_read() -> None:
    assert read(' { "a" : [ 1 , 2.5e0 ] , "\\u00e9\\ud83d\\ude00" : "\\/" } ') == {
        "a": [1, 2.5],
        "é😀": "/",
    }
    assert read("[-0, 1E2, 1e-2]") == [0, 100.0, 0.01]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "nul", "nullx", "truefalse", "NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1",
        "1e999", "18446744073709551616", "-9223372036854775809", "[", "[1", "[1,]", "[1 2]", "]",
        "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{1:2}", '{"a":1,"a":2}', '"', '"\\', '"\\x"',
        '"\\u12"', '"\\u+123"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"', '"\n"', "1 2",
        '{"$no":1}', '{"$tuple":1}', '{"$tuple":[1]', '{"$tuple":[1],"b":1}', '{"a":1,"$tuple":[]}',
        '{"$set":[1,1]}', '{"$set":[[]]}', '{"$int":"0x1"}', '{"$int":"5"}', '{"$int":"0x"}',
        '{"$int":"0xg"}', '{"$int":5}', '{"$float":"1.5"}', '{"$float":"0x3ff0000000000000"}',
        '{"$float":"0x+ff800000000000"}', '{"$bytes":"A"}', '{"$bytes":"AP8"}', '{"$bytes":[]}',
        '{"$dict":[[1]]}', '{"$dict":[[1,2,3]]}', '{"$dict":[[[],2]]}', '{"$dict":{}}',
        '{"$date":"2024-13-01"}', '{"$date":"2024-1-1"}', '{"$date":"2024-01-01x"}',
        '{"$time":"24:00:00"}', '{"$time":"1:00:00"}', '{"$time":"01:00:00.5"}',
        '{"$time":"01:00:00[]"}', '{"$time":"01:00:00[../x]"}', '{"$time":"01:00:00+25:00"}',
        '{"$time":"01:00:00[No/Where]"}', '{"$datetime":"2024-01-01"}', '{"$datetime":1}',
        '{"$timedelta":[1,2]}', '{"$timedelta":[1,2,3,4]}', '{"$timedelta":[1,86400,0]}',
        '{"$timedelta":[9999999999,0,0]}', '{"$decimal":"one"}', '{"$uuid":"00"}',
        '{"$uuid":"é0000000-0000-0000-0000-00000000000"}', '{"$loop":[1,2]}', '{"$loop":[true]}',
        '{"$loop":[true,1,2]}', '{"$event_timeout":[1]}', '{"$map_error":["x"]}', '{"$ext":[5]}',
        '{"$ext":[200,""]}', '{"$ext":[77,""]}',
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        read(text)
    assert "the input of instance 'i' cannot be read" in str(refused.value) or (
        "the stored value is damaged" in str(refused.value)
    )


@pytest.mark.parametrize("text", [b'"\xff"', b"\xef\xbb\xbf1", b'{"\xff":1}', b"\0"])
def test_what_is_not_utf_8_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        read(text)


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("wrap", "text"),
    [
        (lambda v: [v], "[{}]"),
        (lambda v: {"a": v}, '{{"a":{}}}'),
        (lambda v: {1: v}, '{{"$dict":[[1,{}]]}}'),
        (lambda v: (v,), '{{"$tuple":[{}]}}'),
        (LoopResult.done, '{{"$loop":[true,{}]}}'),
    ],
    ids=["list", "dict", "pairs", "tuple", "loop"],
)
def test_nesting_has_one_limit(wrap: Callable[[Any], Any], text: str) -> None:
    deepest = nested(MAX_VALUE_DEPTH, wrap)
    assert repr(read(text_of(deepest))) == repr(deepest)
    too_deep = nested(MAX_VALUE_DEPTH + 1, lambda inner: text.format(inner))
    with pytest.raises(DecodeError, match="nest"):
        read(too_deep)
    with pytest.raises(DecodeError, match="nest"):
        read(text.format("").partition("]")[0].partition("}")[0] * 50_000)


def test_what_is_too_large_for_a_reader_stays_messagepack() -> None:
    large = "x" * (16 << 20)
    payload = JSON.encode(large, *PLACE)
    assert payload[6] == MSGPACK_CODEC
    assert JSON.decode(payload, *PLACE) == large
    fits = "x" * ((16 << 20) - 100)
    assert JSON.encode(fits, *PLACE)[6] == JSON_CODEC
    escaped = "\0" * (4 << 20)
    assert JSON.encode(escaped, *PLACE)[6] == MSGPACK_CODEC


def test_composites_are_read_as_what_they_mean() -> None:
    one, two = (sealed(MSGPACK_CODEC, 0, body) for body in (b"\x01", b"\xc7\x02\x02\x91\x02"))
    for whole in (
        layout.named({"a": one, "b": two}),
        layout.listed([one, two]),
        layout.branch("a", layout.listed([two])),
        layout.branch("$a", one),
    ):
        assert OTHERS.decode(whole, *PLACE) == decode_payload(whole)


# Compression.


def test_a_value_is_compressed_above_its_size_and_where_it_helps() -> None:
    codec = Codec(compress_above=1000).at_rest
    assert codec.encode("x" * 900, *PLACE)[7] == PLAIN
    assert codec.encode("x" * 1100, *PLACE)[7] == COMPRESSED
    assert len(codec.encode("x" * 100_000, *PLACE)) < 200
    noise = random.Random(5).randbytes(5000)
    assert codec.encode(noise, *PLACE)[7] == PLAIN
    largest = b"x" * (MAX_PAYLOAD_BYTES - 5)
    payload = codec.encode(largest, *PLACE)
    assert len(payload) < 10_000
    assert codec.decode(payload, *PLACE) == largest


def uint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


FRAME = SMALL.encode("x" * 10_000, *PLACE)[HEADER:]
LENGTH, FRAME = FRAME[:2], FRAME[2:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 11,
        uint(10_003),
        LENGTH,
        LENGTH + FRAME[:-1],
        LENGTH + FRAME[:5],
        LENGTH + FRAME + b"\0",
        LENGTH + FRAME + FRAME,
        uint(10_002) + FRAME,
        uint(10_004) + FRAME,
        uint(0) + FRAME,
        uint(MAX_PAYLOAD_BYTES) + FRAME,
        uint(MAX_PAYLOAD_BYTES + 1) + FRAME,
        uint(2**64 - 1) + FRAME,
        LENGTH + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + FRAME,
        LENGTH + b"\x28\xb5\x2f\xfd\x00\xff" + FRAME[6:],
    ],
    ids=range(16),
)
def test_a_frame_that_is_not_what_it_claims_is_refused(body: bytes) -> None:
    assert OTHERS.decode(sealed(MSGPACK_CODEC, COMPRESSED, LENGTH + FRAME), *PLACE) == "x" * 10_000
    with pytest.raises(DecodeError):
        OTHERS.decode(sealed(MSGPACK_CODEC, COMPRESSED, body), *PLACE)


# Hostile bytes.


@given(
    st.binary(max_size=300),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([JSON, SMALL, KEYS, ALL, OTHERS]),
)
@settings(max_examples=2_000)
def test_no_bytes_do_harm(body: bytes, kind_and_codec: int, flags: int, codec: AtRest) -> None:
    kind, number = kind_and_codec & 15, kind_and_codec >> 4
    for what in (flags, flags & 7, 0):
        try:
            codec.decode(sealed(number, what, body, kind=kind), *PLACE)
        except DecodeError:
            continue


@given(values, st.data())
@settings(max_examples=500)
def test_damage_behind_a_right_checksum_does_no_harm(value: object, data: st.DataObject) -> None:
    for codec in (JSON, SMALL, ALL):
        payload = codec.encode(value, *PLACE)
        body = bytearray(payload[HEADER:])
        for _ in range(data.draw(st.integers(1, 3))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        bad = sealed(payload[6], payload[7], bytes(body))
        try:
            OTHERS.decode(bad, *PLACE)
            codec.decode(bad, *PLACE)
        except DecodeError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b"[[]," * 250_000,
        b"[" + b"[]," * 333_333 + b"[]",
        b'{"$tuple":' * 100_000,
        b'{"$dict":[[' * 90_000,
        b'"' + b"\\u0041" * 166_000,
        b'{"$int":"0x' + b"f" * 1_000_000 + b'"',
        b'{"$bytes":"' + b"A" * 1_000_000,
        b"1" * 1_000_000,
        b"1e" + b"9" * 1_000_000,
        b"0." + b"1" * 1_000_000 + b"x",
        b" " * 1_000_000,
    ],
    ids=range(12),
)
def test_the_cost_of_hostile_text_is_bounded(text: bytes) -> None:
    payload = sealed(JSON_CODEC, 0, text)
    began = time.process_time()
    with pytest.raises(DecodeError):
        OTHERS.decode(payload, *PLACE)
    # A thousand times what it takes, so that only what grows out of bounds fails.
    assert time.process_time() - began < 10


MEASURE = """
import resource, sys
from pathlib import Path
from sayiir import DecodeError
from sayiir.codecs import Codec
codec = Codec().at_rest
payload = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    codec.decode(payload, "i", "input", "")
except DecodeError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory_for(payload: bytes, folder: Path) -> int:
    """How many bytes a process takes in addition to refuse a payload."""
    file = folder / "payload"
    file.write_bytes(payload)
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, file], capture_output=True, text=True, check=True
    )
    return int(said.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_hostile_bytes_take_no_more_memory_than_a_small_multiple(tmp_path: Path) -> None:
    largest = SMALL.encode(b"\0" * (MAX_PAYLOAD_BYTES - 5), *PLACE)[HEADER:]
    frame = largest[len(uint(MAX_PAYLOAD_BYTES)) :]
    # It says that 100 bytes come out, and 64 MiB would.
    grows = sealed(MSGPACK_CODEC, COMPRESSED, uint(100) + frame)
    assert memory_for(grows, tmp_path) < 8 << 20
    # It says that 64 MiB come out, and next to nothing does.
    claims = sealed(MSGPACK_CODEC, COMPRESSED, uint(MAX_PAYLOAD_BYTES) + FRAME)
    assert memory_for(claims, tmp_path) < 8 << 20
    size = 4 << 20
    for text in (b"[[]," * (size // 4), b'"' + b"\\n" * (size // 2), b"[" + b"0.5," * (size // 4)):
        assert memory_for(sealed(JSON_CODEC, 0, text), tmp_path) < 8 * size + (1 << 20)


def test_a_size_is_told_by_what_comes_and_not_by_what_is_claimed() -> None:
    claimed = sealed(MSGPACK_CODEC, COMPRESSED, uint(MAX_PAYLOAD_BYTES) + FRAME)
    for _ in range(200):
        with pytest.raises(DecodeError, match="its length is not the one that it claims"):
            OTHERS.decode(claimed, *PLACE)


@pytest.mark.parametrize("number", [4, 5, 77, 254])
def test_unknown_codecs_and_flags_are_refused_by_their_number(number: int) -> None:
    with pytest.raises(DecodeError, match=f"codec {number}"):
        OTHERS.decode(sealed(number, 0, b"\x01"), *PLACE)
    for flags in (8, 16, 128, 255):
        with pytest.raises(DecodeError, match=f"the flags 0x{flags:02x} are unknown"):
            OTHERS.decode(sealed(MSGPACK_CODEC, flags, b"\x01"), *PLACE)


def test_what_could_not_be_read_when_it_came_says_why() -> None:
    why = sealed(255, 0, b"the key was lost")
    with pytest.raises(DecodeError, match="the key was lost"):
        decode_payload(why)
    for codec in (JSON, ALL):
        with pytest.raises(DecodeError, match="the key was lost"):
            codec.decode(why, *PLACE)
