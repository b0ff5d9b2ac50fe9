"""What is frozen: one case per golden file, with the bytes it has today and what they must mean.

A case is never changed or removed, for its file is out in the world; a new one is added, and
`write.py` freezes it. The expected meanings are written out here, not computed.
"""

import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sayiir import EventTimeout, LoopResult, MapError, Workflow
from sayiir._core import Program, encode_payload
from sayiir.codecs import Codec, KeyRing, PickleWarning, Place

from . import layout
from .flows import FLOWS, ITEMS


@dataclass(frozen=True)
class Case:
    """One golden file."""

    name: str
    holds: str
    write: Callable[[], bytes]
    means: Any = None
    """The value, for what is one; the fields, for an error record."""
    workflow: Workflow[Any, Any] | Program | None = None
    """For a definition, also that of items."""


NAN_WITH_A_PAYLOAD = struct.unpack(">d", bytes.fromhex("7ff80000000000ff"))[0]
BERLIN = ZoneInfo("Europe/Berlin")
CEST = timezone(timedelta(hours=2), "CEST")
ODD_OFFSET = timezone(-timedelta(hours=3, minutes=30, microseconds=1))

VALUES: dict[str, tuple[str, Any]] = {
    "none": ("None", None),
    "bool": ("both bools", [False, True]),
    "int": (
        "ints at both ends of every form",
        [
            *(0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, 2**63),
            *(2**64 - 1, -1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1),
            -(2**63),
        ],
    ),
    "int-big": (
        "ints beyond 64 bits",
        [2**64, -(2**63) - 1, 2**71 - 1, 2**71, -(2**71), -(2**71) - 1, 10**40, -(10**700)],
    ),
    "float": (
        "floats, signed zeros, infinities, two NaNs",
        [0.0, -0.0, 1.5, -1e300, 5e-324, *map(float, ("inf", "-inf", "nan")), NAN_WITH_A_PAYLOAD],
    ),
    "str": (
        "texts at both ends of the short forms",
        ["", "a", "é🎉\0", *map("x".__mul__, (31, 32, 255, 256))],
    ),
    "bytes": (
        "bytes at both ends of the short form",
        [b"", b"\0\xff", *map(b"x".__mul__, (255, 256))],
    ),
    "list": (
        "lists, nested and at both ends of the short form",
        [[], [[1], [2, [3]]], [0] * 15, [0] * 16],
    ),
    "wide": (
        "a list, a text, bytes and a tuple too long for 16 bits of length",
        [[0] * 65_536, "x" * 65_536, b"x" * 65_536, (b"x" * 65_536,)],
    ),
    "tuple": ("tuples, nested", ((), (1,), (1, (2, [3])), tuple(range(300)))),
    "dict": (
        "dicts with keys of every kind, in their order",
        {
            "b": 1,
            "a": {},
            None: 0,
            True: 1,
            2: 2,
            2.5: 3,
            b"k": 4,
            (1, "t"): 5,
            frozenset({1}): 6,
            date(2024, 2, 29): 7,
            Decimal("1.10"): 8,
            UUID(int=1): 9,
            timedelta(1): 10,
            "sixteen": dict.fromkeys(range(16)),
        },
    ),
    # One member at most: sets have no order of their own.
    "set": ("sets", [set(), {1}, {("a",)}]),
    "frozenset": ("frozensets", [frozenset(), frozenset({1}), frozenset({frozenset({"a"})})]),
    "datetime": (
        "datetimes: naive, fold, UTC, offset, named offset, ZoneInfo, first and last",
        [
            datetime(2024, 2, 29, 23, 59, 58, 999_999),
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
            datetime(2024, 1, 2, tzinfo=UTC),
            datetime(2024, 1, 2, 3, 4, tzinfo=ODD_OFFSET),
            datetime(2024, 6, 2, 3, 4, tzinfo=CEST),
            datetime.min,
            datetime.max,
        ],
    ),
    "date": ("dates: a leap day, first and last", [date(2024, 2, 29), date.min, date.max]),
    "time": (
        "times: naive, fold, UTC, ZoneInfo",
        [time(1, 2, 3, 4), time(1, fold=1), time(23, 59, 59, 999_999, UTC), time(6, tzinfo=BERLIN)],
    ),
    "timedelta": (
        "timedeltas: negative, smallest and largest",
        [
            timedelta(0),
            timedelta(1, 2, 3),
            timedelta(microseconds=-1),
            timedelta.min,
            timedelta.max,
        ],
    ),
    "decimal": (
        "decimals with their exponents, infinities, NaNs",
        [
            Decimal(text)
            for text in (
                "0",
                "-0.00",
                "1.10",
                "1E+9",
                "-1.5E-400",
                "Infinity",
                "-Infinity",
                "NaN",
                "-sNaN12",
            )
        ],
    ),
    "uuid": ("UUIDs", [UUID(int=0), UUID("12345678-1234-5678-9abc-def012345678")]),
    "loop-result": (
        "a LoopResult that is done, with another one in it",
        LoopResult.done([1, LoopResult.again(None)]),
    ),
    "event-timeout": ("an EventTimeout", EventTimeout("paid")),
    "map-error": ("a MapError", MapError(17, "ValueError", "no such file", "parse[17]")),
    "nested": (
        "a value as tasks pass it on",
        {
            "order": 7,
            "items": [("pen", Decimal("1.20"), 3)],
            "at": datetime(2024, 1, 2, tzinfo=UTC),
            "tags": {"new"},
        },
    ),
}


def payload(body: str) -> bytes:
    """A value whose MessagePack is spelled out in hexadecimal."""
    return layout.sealed(layout.VALUE, layout.MSGPACK, bytes.fromhex(body))


def values() -> Iterator[Case]:
    for name, (holds, value) in VALUES.items():
        yield Case(f"value-{name}", holds, partial(encode_payload, value), value)
    # What the engine writes itself, without a Python value at hand, has longer heads.
    yield Case(
        "engine-event-timeout",
        "an EventTimeout as a wait writes it",
        partial(payload, "c70611 91a470616964"),
        EventTimeout("paid"),
    )
    yield Case(
        "engine-map-error",
        "a MapError as a map writes it",
        partial(payload, "c71a12 94ce00000011 a145 ac6e6f20737563682066696c65 a470617468"),
        MapError(17, "E", "no such file", "path"),
    )
    yield Case(
        "foreign-forms",
        "forms of MessagePack that are read and never written",
        partial(
            payload,
            "dd00000009 cc01 cd0001 ce00000001 cf0000000000000001 d001 d30000000000000001"
            "ca3fc00000 da000161 c80002029101",
        ),
        [1, 1, 1, 1, 1, 1, 1.5, "a", (1,)],
    )


ONE, TWO = payload("01"), payload("02")


def composites() -> Iterator[Case]:
    two = {"left": ONE, "größe": TWO}
    yield Case("named", "what a join receives", partial(layout.named, two), {"left": 1, "größe": 2})
    yield Case("list", "what a map passes on", partial(layout.listed, [ONE, TWO]), [1, 2])
    yield Case("list-empty", "what a map of nothing passes on", partial(layout.listed, []), [])
    yield Case(
        "branch",
        "what a route passes on",
        partial(layout.branch, "a/b", ONE),
        {"branch": "a/b", "result": 1},
    )
    mimic = payload("a6535952530101")
    inside = layout.listed([layout.branch("k", ONE), layout.named({"n": TWO}), mimic])
    yield Case(
        "composite-nested",
        "composites in a composite, and a text that looks like one",
        partial(layout.named, {"all": inside}),
        {"all": [{"branch": "k", "result": 1}, {"n": 2}, "SYRS\x01\x01"]},
    )


ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "error": (
        "the failure of a task with two causes",
        {
            "error_type": "PaymentError",
            "message": "no funds: 12 €",
            "traceback": 'Traceback (most recent call last):\n  File "pay.py", line 3\n',
            "task": "charge",
            "path": "fork/left/charge",
            "retryable": True,
            "causes": [("OSError", "connection reset"), ("TimeoutError", "")],
        },
    ),
    "error-of-the-engine": (
        "a failure without a traceback and without causes",
        {
            "error_type": "LoopLimit",
            "message": "m" * 200,
            "traceback": "",
            "task": "",
            "path": "again",
            "retryable": False,
            "causes": [],
        },
    ),
}


def errors() -> Iterator[Case]:
    for name, (holds, fields) in ERRORS.items():
        yield Case(name, holds, partial(layout.error, **fields), fields)


NOON_US = 1_893_499_200_000_000
"""2030-01-01 12:00 UTC."""
FIRST, DEEP = [(0, 0, 0)], [(2, 0, 0), (1, 300, 0), (0, 1, 70_000)]
FAR = layout.region(node=3, base=200, count=100_000, low=200)

CELLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "ready": ("at the first node, with the input", (FIRST, layout.READY, 0, layout.INPUT)),
    "backoff": ("a third attempt is due", (DEEP, layout.backoff(NOON_US), 2, layout.step(299))),
    "sleeping": ("in a delay, before 1970", (FIRST, layout.sleeping(-1), 0, layout.step(0))),
    "awaiting": ("without a limit", (FIRST, layout.AWAITING, 0, layout.step(5))),
    "awaiting-until": ("with one", (FIRST, layout.awaiting_until(NOON_US), 0, layout.step(5))),
    "joining": ("parked on 100,000 strands", (FIRST, layout.joining(1, 100_000), 0, layout.INPUT)),
    "spread": (
        "at a spread map, with two batches of ten made",
        (FIRST, layout.spread(7, 2_000, 10_000), 0, layout.step(3)),
    ),
    "done": ("ended, after every frame", ([], layout.DONE, 0, layout.step(127))),
    "failed": ("ended by the failure in row 128", (FIRST, layout.failed(128), 0, layout.INPUT)),
    "ref-inner": ("in a LoopResult", (FIRST, layout.READY, 0, layout.inner(layout.step(1)))),
    "ref-item": ("an item of the input", (FIRST, layout.READY, 0, layout.item(300, layout.INPUT))),
    "ref-region": ("the outputs of a map", (FIRST, layout.READY, 0, FAR)),
    "ref-arm": ("what a route passes on", (FIRST, layout.READY, 0, layout.arm(4, layout.step(9)))),
    "ref-nested": (
        "all references in one",
        (DEEP, layout.READY, 1, layout.arm(4, layout.inner(layout.item(0, FAR)))),
    ),
}


KEY_ID, KEY = "k-2026", bytes(range(32))
PLACE = ("order-1", "step", "charge")
"""What the encrypted ones are bound to."""


class Backwards:
    """A codec of somebody's own."""

    id = 7

    def encode(self, payload: bytes, place: Place) -> bytes:
        return payload[::-1]

    def decode(self, payload: bytes, place: Place) -> bytes:
        return payload[::-1]


def reader() -> Codec:
    """What reads all that is done to payloads at rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PickleWarning)
        return Codec(keys=KeyRing({KEY_ID: KEY}), pickle="read", own=Backwards())


def rested(codec: int, flags: int, body: bytes) -> bytes:
    return layout.sealed(layout.VALUE, codec, body, flags=flags)


EVERY_TAG = (
    '{"$dict":[[null,[true,-1,18446744073709551615,1.5,-0.0,1e300,"\\u0000\\n\\"\\\\é"]],'
    '[{"$tuple":[1]},{"$set":[2]}],[{"$frozenset":["a"]},{"$bytes":"AP8="}],'
    '["int",[{"$int":"0x10000000000000000"},{"$int":"-0x8000000000000001"}]],'
    '["float",[{"$float":"nan"},{"$float":"inf"},{"$float":"-inf"},'
    '{"$float":"0x7ff80000000000ff"}]],'
    '["when",[{"$date":"2024-02-29"},{"$time":"02:30:00.000250[fold=1]"},'
    '{"$datetime":"2024-10-27T02:30:00[fold=1][Europe/Berlin]"},'
    '{"$datetime":"2024-01-02T00:00:00+02:00[name=CEST]"},'
    '{"$time":"01:00:00-03:30:00.000001"},{"$timedelta":[-1,86399,5]}]],'
    '["rest",[{"$decimal":"1.20"},{"$uuid":"00000000-0000-0000-0000-000000000007"},'
    '{"$loop":[true,1]},{"$event_timeout":["go"]},{"$map_error":[17,"E","m","p"]}]],'
    '["$own",{"a":{}}]]}'
)
EVERY_VALUE = {
    None: [True, -1, 2**64 - 1, 1.5, -0.0, 1e300, '\0\n"\\é'],
    (1,): {2},
    frozenset("a"): b"\0\xff",
    "int": [2**64, -(2**63) - 1],
    "float": [*map(float, ("nan", "inf", "-inf")), NAN_WITH_A_PAYLOAD],
    "when": [
        date(2024, 2, 29),
        time(2, 30, 0, 250, fold=1),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        datetime(2024, 1, 2, tzinfo=CEST),
        time(1, tzinfo=ODD_OFFSET),
        timedelta(-1, 86_399, 5),
    ],
    "rest": [
        Decimal("1.20"),
        UUID(int=7),
        LoopResult.done(1),
        EventTimeout("go"),
        MapError(17, "E", "m", "p"),
    ],
    "$own": {"a": {}},
}
ORDER_TEXT = (
    '{"order":7,"items":[{"$tuple":["pen",{"$decimal":"1.20"},3]}],'
    '"at":{"$datetime":"2024-01-02T00:00:00+00:00"},"tags":{"$set":["new"]}}'
)
# How small a frame gets, which nonce is drawn and what a pickle says is not settled by the format.
FRAME = "28b52ffd602f005d000020da012c780100282a2002"
PICKLE = (
    "80059522000000000000008c096672616374696f6e73948c084672616374696f6e9493944b014b03869452942e"
)
NONCE, TEXT = "d6f2f8157ab70d3b668ee6f5", "a98f428bea6630171f998ea815680922eb09601fd099"
NONCE_OF_ALL = "b6d48c3fc1aff0badb9972b0"
TEXT_OF_ALL = (
    "36da75ca9f97cccc1430d265ddb819c622879e0564c459d61293071d111898e079bd4692272aa6c7478e6d8bce"
    "36988a3dd7e85b1158f3"
)

RESTED: dict[str, tuple[str, Any, int, int, bytes]] = {
    "json": ("a value as JSON", VALUES["nested"][1], layout.JSON, 0, ORDER_TEXT.encode()),
    "json-tags": ("everything that JSON lacks", EVERY_VALUE, layout.JSON, 0, EVERY_TAG.encode()),
    "pickle": (
        "a list with a pickle in it",
        [Fraction(1, 3)],
        layout.PICKLED,
        0,
        b"\x91\xc7\x2d\x13" + bytes.fromhex(PICKLE),
    ),
    "zstd": (
        "a compressed text",
        "x" * 300,
        layout.MSGPACK,
        layout.COMPRESSED,
        layout.compressed(303, bytes.fromhex(FRAME)),
    ),
    "aes": (
        f"the output of step {PLACE[2]!r} of instance {PLACE[0]!r}, encrypted",
        [1, "two"],
        layout.MSGPACK,
        layout.ENCRYPTED,
        layout.encrypted(KEY_ID, KEY, bytes.fromhex(NONCE), bytes.fromhex(TEXT)),
    ),
    "all": (
        "the same place, as JSON, compressed and encrypted",
        ["x" * 300, (1,)],
        layout.JSON,
        layout.COMPRESSED | layout.ENCRYPTED,
        layout.encrypted(KEY_ID, KEY, bytes.fromhex(NONCE_OF_ALL), bytes.fromhex(TEXT_OF_ALL)),
    ),
    "own": (
        "what a codec of somebody's own made of a payload: its bytes backwards",
        1,
        layout.MSGPACK,
        layout.OWN,
        b"\x07" + ONE[::-1],
    ),
}


def at_rest() -> Iterator[Case]:
    for name, (holds, means, codec, flags, body) in RESTED.items():
        yield Case(f"rest-{name}", holds, partial(rested, codec, flags, body), means)


def cells() -> Iterator[Case]:
    for name, (holds, parts) in CELLS.items():
        yield Case(f"cell-{name}", f"a position: {holds}", partial(layout.cell, *parts))


def definitions() -> Iterator[Case]:
    for name, workflow in FLOWS.items():
        yield Case(
            f"definition-{name}",
            f"the definition of {workflow.workflow_id!r}",
            partial(layout.definition, workflow),
            workflow=workflow,
        )


def items() -> Iterator[Case]:
    for name, (flow, maps) in ITEMS.items():
        workflow = FLOWS[flow]
        [made] = workflow.program.items
        for _ in maps[1:]:
            [made] = made.items
        yield Case(
            name,
            f"what the items of a spread map of {workflow.workflow_id!r} run",
            partial(layout.items, workflow, *maps),
            workflow=made,
        )


ONE, TWO = (layout.sealed(layout.VALUE, layout.MSGPACK, bytes([n])) for n in (1, 2))
BROKEN = layout.error(
    error_type="OSError",
    message="not yet",
    traceback="",
    task="step",
    path="both/right/step",
    retryable=True,
    causes=[],
)
SNAPSHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fresh": (
        "to which nothing has happened",
        {"workflow": FLOWS["task"], "status": 0, "updated_us": NOON_US},
    ),
    "paused": (
        "paused while it awaited an event, with one of another name and the key of a third",
        {
            "workflow": FLOWS["wait"],
            "status": 3,
            "updated_us": NOON_US + 5_000_000,
            "start_us": NOON_US + 1,
            "priority": 2,
            "tags": ["eu", "größe"],
            "next_row": 1,
            "wake_us": NOON_US + 9_000_000,
            "wait": "paid",
            "event": "paid",
            "awaits": ["paid"],
            "asked": (3, 2, "too early", "ops"),
            "root": layout.cell([(1, 0, 0)], layout.AWAITING, 0, layout.step(0)),
            "steps": [
                layout.history(
                    *(0, "payment", "payment", 1, 3, "w-1", NOON_US, NOON_US + 1_000_000), ONE
                )
            ],
            "events": [
                layout.kept("paid", "seen", NOON_US, None),
                layout.kept("other", None, NOON_US + 2, TWO),
            ],
        },
    ),
    "forked": (
        "in the middle of a fork: one branch is between its steps, the other is to try again",
        {
            "workflow": FLOWS["fork"],
            "status": 0,
            "updated_us": NOON_US + 7,
            "next_row": 2,
            "next_strand": 3,
            "cells_from": 1,
            "root": layout.cell(FIRST, layout.joining(1, 2), 0, layout.INPUT),
            "cells": {
                1: layout.cell([(1, 0, 0)], layout.READY, 0, layout.step(0)),
                2: layout.cell(FIRST, layout.backoff(NOON_US + 8), 1, layout.INPUT),
            },
            "steps": [
                layout.history(0, "both/left/step", "step", 1, 0, "w-1", NOON_US, NOON_US + 4, TWO),
                layout.history(
                    *(1, "both/right/step", "step", 1, 1, "w-2", NOON_US, NOON_US + 7, None, BROKEN)
                ),
            ],
        },
    ),
    "completed": (
        "that has ended with a value",
        {
            "workflow": FLOWS["task"],
            "status": 4,
            "updated_us": NOON_US + 3,
            "next_row": 1,
            "result": TWO,
            "steps": [layout.history(0, "step", "step", 1, 0, "w", NOON_US, NOON_US + 3, TWO)],
        },
    ),
    "failed": (
        "that has ended with a failure",
        {
            "workflow": FLOWS["task"],
            "status": 5,
            "updated_us": NOON_US + 3,
            "next_row": 1,
            "result": BROKEN,
            "steps": [
                layout.history(0, "step", "step", 1, 2, "w", NOON_US, NOON_US + 3, None, BROKEN)
            ],
        },
    ),
    "cancelled": (
        "that somebody cancelled",
        {
            "workflow": FLOWS["delay"],
            "status": 6,
            "updated_us": NOON_US + 3,
            "asked": (4, 6, None, "ops"),
        },
    ),
}


def snapshots() -> Iterator[Case]:
    whole: dict[str, Any] = {"instance_id": "i-1", "created_us": NOON_US, "input": ONE}
    for name, (holds, parts) in SNAPSHOTS.items():
        yield Case(
            f"snapshot-{name}",
            f"an instance {holds}",
            partial(layout.snapshot, **whole, **parts),
            parts,
        )


CASES = {
    case.name: case
    for group in (values, composites, errors, at_rest, cells, definitions, items, snapshots)
    for case in group()
}
