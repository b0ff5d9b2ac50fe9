"""What sayiir stores, outside of a run: values, snapshots of instances, and what any bytes are.

These are the very bytes that backends keep (`docs/format.md` describes them), for scripts, tests
and people who look into a database. Nothing here needs the code of a workflow.

>>> from sayiir.codec import decode_value, encode_value, inspect
>>> stored = encode_value({"order": 7})
>>> decode_value(stored)
{'order': 7}
>>> inspect(stored).kind
'value'
"""

from __future__ import annotations

from typing import Any

from ._codec import decode_payload, encode_payload
from ._inspect import Inspection, inspect
from ._snapshot import (
    Snapshot,
    SnapshotEvent,
    SnapshotRequest,
    SnapshotStep,
    decode_snapshot,
    encode_snapshot,
)

__all__ = [
    "Inspection",
    "Snapshot",
    "SnapshotEvent",
    "SnapshotRequest",
    "SnapshotStep",
    "decode_snapshot",
    "decode_value",
    "encode_snapshot",
    "encode_value",
    "inspect",
]


def encode_value(value: object) -> bytes:
    """A value as a payload: with the header that says what it is, and a checksum.

    Raises:
        EncodeError: It, or something in it, is of a type that cannot be stored, it is nested too
            deep, or too large.

    >>> encode_value(1)[:4]
    b'SYRS'
    """
    return encode_payload(value)


def decode_value(data: bytes) -> Any:
    """The value of a payload, also of what a join, a map or a route passes on.

    It comes back as it does without an annotation: a dataclass as a dict.

    Raises:
        TypeError: `data` is not bytes.
        DecodeError: They are damaged, cut, foreign or of a newer version, or no value.

    >>> decode_value(encode_value((1, "two")))
    (1, 'two')
    """
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    return decode_payload(data)
