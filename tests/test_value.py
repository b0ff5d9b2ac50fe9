"""What the value codec carries: every declared type comes back equal and of the same type.

Also what it refuses, and how it says so. What damaged and hostile bytes do to it is in
`test_value_hostile`.
"""

import math
import struct
import threading
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from enum import IntEnum, StrEnum
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sayiir import EncodeError, EventTimeout, LoopResult, MapError
from sayiir._core import MAX_PAYLOAD_BYTES, MAX_VALUE_DEPTH, decode_value, encode_value

ZONES = [ZoneInfo(key) for key in ("Europe/Berlin", "America/New_York", "Etc/GMT+5", "UTC")]


def shape(value: object) -> object:
    """Describe a value so that two descriptions are equal only if nothing at all differs.

    `==` will not do: 1 == True == 1.0, NaN != NaN, 0.0 == -0.0, and dicts forget their order.
    """
    kind = type(value).__name__
    match value:
        case float():
            return kind, struct.pack(">d", value)
        case list() | tuple():
            return kind, [shape(item) for item in value]
        case set() | frozenset():
            return kind, sorted(map(shape, value), key=repr)
        case dict():
            return kind, [(shape(key), shape(item)) for key, item in value.items()]
        case datetime() | time():
            return kind, value.replace(tzinfo=None).isoformat(), value.fold, zone(value.tzinfo)
        case Decimal():
            return kind, value.as_tuple()
        case LoopResult():
            return kind, value.is_done, shape(value.value)
    return kind, value


def zone(tz: tzinfo | None) -> object:
    if isinstance(tz, ZoneInfo):
        return "ZoneInfo", tz.key
    # A timezone shows its offset and its name, though equality looks at the offset alone.
    return type(tz).__name__, repr(tz)


def assert_carried(value: object) -> None:
    assert shape(decode_value(encode_value(value))) == shape(value)


def hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


offsets = st.builds(
    timezone,
    st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)),
)
named_offsets = st.builds(timezone, st.sampled_from([timedelta(0), timedelta(hours=2)]), st.text())
zones = st.none() | st.just(UTC) | offsets | named_offsets | st.sampled_from(ZONES)
folds = st.integers(0, 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([1, -1]).flatmap(lambda sign: st.integers(60, 600).map(lambda n: sign << n)),
    st.floats(),
    st.text(),
    st.binary(),
    st.dates(),
    st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), zones, folds),
    st.builds(lambda d, z, f: d.replace(tzinfo=z, fold=f), st.datetimes(), zones, folds),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.builds(EventTimeout, st.text()),
    st.builds(MapError, st.integers(0), st.text(), st.text(), st.text()),
)
keys = st.recursive(
    scalars.filter(hashable),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    scalars | keys,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=6).map(tuple),
        st.dictionaries(st.text(), inner, max_size=6),
        st.dictionaries(keys, inner, max_size=6),
        st.sets(keys, max_size=6),
        st.builds(LoopResult.done, inner),
        st.builds(LoopResult.again, inner),
    ),
    max_leaves=25,
)


@given(values)
@settings(max_examples=2_000)
def test_any_value_of_the_declared_types_comes_back_as_it_was(value: object) -> None:
    assert_carried(value)


@pytest.mark.soak
def test_any_value_comes_back_in_the_long_run(
    soak_rounds: Callable[[int], Iterator[int]],
) -> None:
    for number in soak_rounds(50):

        @seed(number)
        @settings(max_examples=2_000)
        @given(values)
        def carried(value: object) -> None:
            assert_carried(value)

        carried()


NAN = float("nan")
NOON = datetime(2024, 10, 27, 2, 30, 15, 999_999)


@pytest.mark.parametrize(
    "value",
    [
        *[True, False, 1, 0, 1.0, 0.0, -0.0, None, "", b"", [], (), {}, set(), frozenset()],
        *[math.inf, -math.inf, NAN, -NAN, 5e-324, 1.7976931348623157e308],
        struct.unpack(">d", bytes.fromhex("7ff8000000000abc"))[0],
        # Both sides of each width that an integer may have.
        *[
            sign * 2**n + d
            for n in (5, 7, 8, 15, 16, 31, 32)
            for sign in (1, -1)
            for d in (-1, 0, 1)
        ],
        *[2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 2**71, -(2**71)],
        *[10**40, -(10**40), 10**400, 2**20_000],
        # Both sides of each width that a length may have.
        *["x" * n for n in (31, 32, 255, 256, 65_535, 65_536)],
        *[b"x" * n for n in (255, 256, 65_535, 65_536)],
        *[list(range(n)) for n in (15, 16, 65_535, 65_536)],
        *[tuple("x" * n) for n in (1, 3, 7, 15, 16, 250, 300, 70_000)],
        *[{f"k{i}": i for i in range(n)} for n in (15, 16, 65_535, 65_536)],
        *["k" * 32, {"k" * 31: 1, "k" * 32: 2, "k" * 33: 3}],
        *["größe", "世界", "🙂", "\0", "\x7f\x80", "\u200f", "\ufeff", "\uffff"],
        list({"a": 1, "b": 2}.items()),
        [["a", [49, 50]]],
        {"b": 1, "a": 2, "c": {"z": 0, "y": 0}},
        {1: "int", "1": "str", 2.5: "float", None: "none", (1, (2, "x")): "tuple", b"1": "bytes"},
        {True: "bool"},
        {NAN: 1, float("nan"): 2},
        {frozenset({1, frozenset({2})}): [{3}], (): ()},
        [(1, [2, (3,)]), {4, (5, 6)}, frozenset({"a", None})],
        {"_loop": "done", "value": 1},
        {"branch": "x", "result": {"__tuple__": [1]}},
        NOON,
        *[NOON.replace(tzinfo=ZONES[0], fold=fold) for fold in (0, 1)],
        *[datetime.min, datetime.max, datetime.max.replace(tzinfo=UTC), date.min, date.max],
        NOON.replace(tzinfo=timezone(timedelta(hours=5, minutes=30))),
        NOON.replace(tzinfo=timezone(timedelta(seconds=-1, microseconds=1))),
        NOON.replace(tzinfo=timezone(timedelta(0), "UTC")),
        *[time(23, 59, 59, 999_999, fold=1), time(1, tzinfo=ZONES[1]), time.min],
        *[timedelta.min, timedelta.max, timedelta(microseconds=-1), timedelta(0)],
        *map(Decimal, ["NaN", "-NaN", "sNaN", "sNaN12", "Infinity", "-Infinity", "-0", "0E-10"]),
        *map(Decimal, ["1.10", "1E+1000000", "1E-1000000", "0.1" + "3" * 200, "-0E+7"]),
        *[UUID(int=0), UUID(int=2**128 - 1), UUID("12345678-1234-5678-1234-567812345678")],
        *[LoopResult.done(None), LoopResult.again((1, {2})), LoopResult.done(LoopResult.again(1))],
        *[EventTimeout("approved"), MapError(17, "ValueError", "no", "parse[17]")],
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_an_edge_of_a_type_comes_back_as_it_was(value: object) -> None:
    assert_carried(value)


def test_a_zone_comes_back_as_the_same_object() -> None:
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZONES[0])
    back = decode_value(encode_value(moment))
    assert back.tzinfo is ZONES[0]
    assert back.utcoffset() == moment.utcoffset() == timedelta(hours=1)
    assert decode_value(encode_value(datetime.now(UTC))).tzinfo is UTC


def test_plain_values_have_the_bytes_of_messagepack() -> None:
    value = {"id": 300, "ok": True, "items": [1, -1, 2.5, None, "é"], "raw": b"\x00"}
    assert encode_value(value) == bytes.fromhex(
        "84a26964cd012ca26f6bc3a56974656d739501ffcb4004000000000000c0a2c3a9a3726177c40100"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**64, "c70901010000000000000000"),
        (-(2**63) - 1, "c70901ff7fffffffffffffff"),
        (-(2**71), "c70901800000000000000000"),
        ((), "d40290"),
        ((1, 2), "c70302920102"),
        ({1}, "d5039101"),
        (frozenset({1}), "d5049101"),
        (datetime(2024, 2, 29, 1, 2, 3, 4), "c70c0507e8021d01020300000400" + "00"),
        (date(2024, 2, 29), "d60607e8021d"),
        (time(1, 2, 3, 4, fold=1), "d7070102030000040100"),
        (time(1, tzinfo=UTC), "d807" + "01000000000000" + "01" + "0000000000000000"),
        (time(1, tzinfo=ZONES[3]), "c70b07" + "01000000000000" + "03555443"),
        (timedelta(-1, 2, 3), "c70c08ffffffff0000000200000003"),
        (Decimal("-1.5E+9"), "c70709" + b"-1.5E+9".hex()),
        (UUID(int=1), "d80a" + "00" * 15 + "01"),
        (LoopResult.done(7), "c7031092c307"),
        (EventTimeout("go"), "d61191a2676f"),
        (MapError(1, "E", "m", "p"), "d71294" + "01a145a16da170"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_bytes_of_an_extension_are_frozen(value: object, expected: str) -> None:
    assert encode_value(value).hex() == expected
    assert shape(decode_value(bytes.fromhex(expected))) == shape(value)


def test_a_loop_dict_is_stored_as_the_result_it_stands_for() -> None:
    back = decode_value(encode_value([LoopResult.again([1]).to_dict()]))
    assert shape(back) == shape([LoopResult.again([1])])


def test_the_bytes_of_a_decimal_do_not_depend_on_the_context() -> None:
    value = Decimal("-1E+20")
    expected = encode_value(value)
    with localcontext(Context(prec=2, capitals=0, traps=[])):
        assert encode_value(value) == expected
        assert shape(decode_value(expected)) == shape(value)


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    ONE = "one"


class Moment(datetime):
    pass


class Foreign(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return "foreign"


class Text(str):
    __slots__ = ()


Pair = namedtuple("Pair", "a b")
CYCLE: list[Any] = []
CYCLE.append({"again": CYCLE})


def generate() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (object(), "$", "object"),
        ([1, len], "$[1]", "builtin_function_or_method"),
        ({"a": [0, 0, 0, generate()]}, "$['a'][3]", "generator"),
        ({"a": {7: math}}, "$['a'][7]", "module"),
        ({(1, 2): shape}, "$<value of key 0>", "function"),
        ({1: 0, ("x", len): 0}, "$<key 1>[1]", "builtin_function_or_method"),
        ({"f": {frozenset({len})}}, "$['f']<member><member>", "builtin_function_or_method"),
        ({"it's\n": 1j}, "$['it\\'s\\n']", "complex"),
        ([OrderedDict(a=1)], "$[0]", "collections.OrderedDict"),
        (defaultdict(list), "$", "collections.defaultdict"),
        ({Text("k"): 1}, "$<key 0>", "Text"),
        (Moment(2024, 1, 1), "$", "Moment"),
        ([datetime(2024, 1, 1, tzinfo=Foreign())], "$[0].tzinfo", "Foreign"),
        ({"t": time(1, tzinfo=Foreign())}, "$['t'].tzinfo", "Foreign"),
        (UTC, "$", "datetime.timezone"),
        (bytearray(b"x"), "$", "bytearray"),
        (["ok", "\ud800"], "$[1]", "str"),
        ({"\udfff": 1}, "$<key 0>", "str"),
        (LoopResult.done([len]), "$.value[0]", "builtin_function_or_method"),
        (EventTimeout(3), "$.name", "int"),  # type: ignore[arg-type]
        (MapError(True, "", "", ""), "$.index", "bool"),
        (ValueError("no"), "$", "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_carried_is_refused_by_place_and_type(
    value: object, path: str, type_name: str
) -> None:
    with pytest.raises(EncodeError) as refused:
        encode_value(value)
    text = str(refused.value)
    assert path in text
    assert type_name in text


def test_a_cycle_is_refused_and_its_path_stays_short() -> None:
    with pytest.raises(EncodeError, match="contains itself") as refused:
        encode_value(CYCLE)
    assert len(str(refused.value)) < 600


def test_a_long_key_is_cut_in_the_message() -> None:
    with pytest.raises(EncodeError) as refused:
        encode_value({"k" * 10_000: len})
    assert len(str(refused.value)) < 600


def in_a_small_thread(call: Callable[[], object]) -> object:
    """Run `call` in a thread with a stack of 512 KiB and hand back what it returned or raised."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def nested(wrap: Callable[[Any], object], depth: int) -> Any:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"k": inner},
        lambda inner: {(inner,)} if inner == 1 else [inner],
        lambda inner: frozenset({inner}),
        LoopResult.done,
    ],
    ids=["list", "tuple", "dict", "set", "frozenset", "LoopResult"],
)
def test_nesting_is_carried_up_to_the_limit_and_refused_beyond(
    wrap: Callable[[Any], object],
) -> None:
    # The set in the fourth case is two deep at once.
    extra = 1 if isinstance(wrap(1), set) else 0
    deepest = nested(wrap, MAX_VALUE_DEPTH - extra)
    # Only what is ours runs on the small stack: to free and to compare such values takes CPython
    # more than that, from 3.13 on.
    carried = in_a_small_thread(lambda: decode_value(encode_value(deepest)))
    assert shape(carried) == shape(deepest)
    for beyond in (wrap(deepest), nested(wrap, 5_000)):
        with pytest.raises(EncodeError, match="nest deeper"):
            in_a_small_thread(partial(encode_value, beyond))


@pytest.mark.parametrize(
    ("fitting", "beyond"),
    [
        (b"x" * (MAX_PAYLOAD_BYTES - 5), b"x" * (MAX_PAYLOAD_BYTES - 4)),
        ("x" * (MAX_PAYLOAD_BYTES - 5), "x" * (MAX_PAYLOAD_BYTES - 4)),
    ],
    ids=["bytes", "str"],
)
def test_a_payload_may_reach_its_limit_and_not_pass_it(fitting: object, beyond: object) -> None:
    encoded = encode_value(fitting)
    assert len(encoded) == MAX_PAYLOAD_BYTES
    assert decode_value(encoded) == fitting
    with pytest.raises(EncodeError, match=str(MAX_PAYLOAD_BYTES)):
        encode_value(beyond)


@pytest.mark.parametrize(
    "value",
    [
        [b"x" * (1 << 20)] * 65,
        {"k": ["y" * (1 << 20)] * 65},
        ("z" * (1 << 20),) * 65,
        [1.5] * (MAX_PAYLOAD_BYTES // 9 + 1),
        1 << (8 * MAX_PAYLOAD_BYTES),
    ],
    ids=["list", "dict", "tuple", "floats", "int"],
)
def test_a_payload_that_is_too_large_in_all_is_refused(value: object) -> None:
    with pytest.raises(EncodeError, match=str(MAX_PAYLOAD_BYTES)):
        encode_value(value)
