"""What bytes are that sayiir stored, or why they are none, in words and numbers for people.

Promises that nothing raises whatever the bytes are, and that no value is shown unless it was asked
for: then it is abbreviated. Reads the header by itself, so that it can also tell of bytes that the
engine refuses; everything behind it is read by the engine.
"""

from __future__ import annotations

import reprlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ._codec import decode_payload, read_error
from ._core import explain_cell, explain_definition
from ._errors import SayiirError
from ._snapshot import Snapshot, decode_snapshot

__all__ = ["Inspection", "inspect"]

HEADER = 12
VERSION = 1
KINDS = {
    1: "value",
    2: "named",
    3: "list",
    4: "branch",
    5: "error",
    6: "cell",
    7: "definition",
    8: "snapshot",
    9: "items",
}
CODECS = {0: "none", 1: "msgpack", 2: "json", 3: "pickle"}
DONE = {1: "compressed", 2: "encrypted", 4: "turned into a form of the user's own"}
"""What flags say was done to a payload at rest."""
MOST_SHOWN = 100
"""So many steps, nodes and events are listed; the rest is counted."""

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 80
_brief.maxdict = _brief.maxlist = _brief.maxtuple = _brief.maxset = 8
_brief.maxlevel = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found out. As text it is several lines for people."""

    size: int
    """How many bytes there are."""
    kind: str | None = None
    """What the body is: `value`, `snapshot` …; `None` if nobody can tell."""
    version: int | None = None
    """Of the format."""
    codec: str | None = None
    """How a value is written."""
    checksum_ok: bool | None = None
    """Whether the bytes are as they were written; `None` where there is no header."""
    problem: str | None = None
    """Why they cannot be read, if they cannot."""
    contents: Mapping[str, Any] = field(default_factory=dict)
    """What is inside, as plain data."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON.

        >>> inspect(b"nothing").as_dict()["size"]
        7
        """
        return {
            "kind": self.kind,
            "version": self.version,
            "codec": self.codec,
            "size": self.size,
            "checksum_ok": self.checksum_ok,
            "problem": self.problem,
            "contents": dict(self.contents),
        }

    def __str__(self) -> str:
        head = f"{self.kind or 'unknown'}, {self.size:,} bytes"
        if self.version is not None:
            head += f", format version {self.version}"
        if self.codec not in (None, "none"):
            head += f", {self.codec}"
        if self.checksum_ok is not None:
            head += ", checksum ok" if self.checksum_ok else ", CHECKSUM WRONG"
        lines = [head]
        if self.problem is not None:
            lines.append(f"cannot be read: {self.problem}")
        lines.extend(_lines(self.contents, ""))
        return "\n".join(lines)


def inspect(data: bytes, *, values: bool = False) -> Inspection:
    """Tell what any bytes are that sayiir may have stored; never raises for what is in them.

    Args:
        data: A payload, an error record, a position, a definition, a snapshot, or anything else.
        values: Whether values and the texts of errors are shown, abbreviated. They may be secret,
            so without it only their types and sizes are.

    Raises:
        TypeError: `data` is not bytes.

    >>> from sayiir.codec import encode_value
    >>> print(inspect(encode_value([1, 2, 3])))
    value, 16 bytes, format version 1, msgpack, checksum ok
    type: list
    items: 3
    >>> print(inspect(encode_value([1, 2, 3]), values=True).contents["value"])
    [1, 2, 3]
    >>> print(inspect(b"PK"))
    unknown, 2 bytes
    cannot be read: these bytes are not sayiir's: the mark SYRS is missing
    """
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    size = len(data)
    if data[:4] != b"SYRS":
        return Inspection(size, problem="these bytes are not sayiir's: the mark SYRS is missing")
    if size < HEADER:
        return Inspection(size, problem=f"the bytes end within the header, which takes {HEADER}")
    version, number, codec = data[4], data[5], data[6]
    right = zlib.crc32(data[HEADER:], zlib.crc32(data[4:8])) == int.from_bytes(data[8:12], "little")
    kind = KINDS.get(number)
    problem = None
    contents: dict[str, Any] = {}
    if not right:
        problem = "the bytes are damaged or cut: their checksum does not match"
    elif version != VERSION:
        problem = f"format version {version} is not the one that this program reads ({VERSION})"
    elif kind is None:
        problem = f"the kind {number} is unknown to this program; update sayiir"
    else:
        try:
            contents = _at_rest(data) or _contents(kind, data, values)
        except SayiirError as failure:
            problem = str(failure)
    return Inspection(
        size,
        kind or f"kind {number}",
        version,
        CODECS.get(codec, f"codec {codec}"),
        right,
        problem,
        contents,
    )


def _contents(kind: str, data: bytes, values: bool) -> dict[str, Any]:
    if kind in ("value", "named", "list", "branch"):
        return _value(decode_payload(data), values)
    if kind == "error":
        return _error(data, values)
    if kind == "cell":
        return {"position": explain_cell(data)}
    if kind == "snapshot":
        return _snapshot(decode_snapshot(data), values)
    name, digest, nodes, item = explain_definition(data)
    shown: dict[str, Any] = {
        "workflow": name,
        "definition_hash": digest,
        "nodes": [f"{path} ({word})" for path, word in nodes[:MOST_SHOWN]],
    }
    if item:
        shown["runs"] = "the items of a spread map"
    return shown | _more("nodes", len(nodes))


def _at_rest(data: bytes) -> dict[str, Any]:
    """Of a payload that only its backend's codec can open; nothing here has keys or unpickles."""
    flags, codec = data[7], data[6]
    if not flags and codec not in (2, 3):
        return {}
    done = [word for flag, word in DONE.items() if flags & flag]
    return {"at_rest": ", ".join(done) or "plain", "body_length": len(data) - HEADER}


def _value(value: object, values: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(value).__name__}
    if isinstance(value, str | bytes | bytearray):
        told["length"] = len(value)
    elif isinstance(value, list | tuple | dict | set | frozenset):
        told["items"] = len(value)
    if values:
        told["value"] = _brief.repr(value)
    return told


def _error(data: bytes, values: bool) -> dict[str, Any]:
    record = read_error(data)
    told: dict[str, Any] = {
        "error_type": record.error_type,
        "task": record.task,
        "path": record.path,
        "message_length": len(record.message),
        "traceback_length": len(record.traceback),
        "causes": [name for name, _ in record.causes],
    }
    if values:
        told["message"] = record.message
        told["traceback"] = record.traceback
    return told


def _payload(data: bytes | None, values: bool) -> str | None:
    """A payload or a record within something else, in one line."""
    if data is None:
        return None
    found = inspect(data, values=values)
    if found.problem is not None:
        return f"{len(data):,} bytes, {found.problem}"
    if found.kind == "error":
        text = str(found.contents["error_type"])
        return f"{text}: {found.contents['message'][:200]}" if values else text
    if values:
        return str(found.contents["value"])
    return f"{found.contents['type']}, {len(data):,} bytes"


def _snapshot(one: Snapshot, values: bool) -> dict[str, Any]:
    asked = one.asked
    told: dict[str, Any] = {
        "instance_id": one.instance_id,
        "workflow": one.workflow_id,
        "definition_hash": one.definition_hash,
        "status": one.status,
        "created_at": _when(one.created_at),
        "updated_at": _when(one.updated_at),
        "wake_at": _when(one.wake_at),
        "delay": one.delay_id,
        "awaits": list(one.awaits),
        "tags": list(one.tags),
        "priority": one.priority,
        "input": _payload(one.input, values),
        "result": _payload(one.result, values),
    }
    if asked is not None:
        verb = "cancel" if asked.cancel else "pause"
        told["asked"] = f"{verb}, {'pending' if asked.pending else 'in effect'}"
        told["reason"], told["by"] = asked.reason, asked.by
    if one.cursor is not None:
        told["position"] = explain_cell(one.cursor)
    told["strands"] = len(one.cells)
    told["steps"] = [
        {
            "path": step.path,
            "attempt": step.attempt,
            "outcome": step.outcome,
            "worker": step.worker_id,
            "started_at": _when(step.started_at),
            "seconds": round(step.ended_at - step.started_at, 6),
            "output": _payload(step.output, values),
            "error": _payload(step.error, values),
        }
        for step in one.steps[:MOST_SHOWN]
    ]
    told["events"] = [
        {
            "name": event.name,
            "key": event.key,
            "came_at": _when(event.came_at) if event.payload is not None else None,
            "payload": _payload(event.payload, values) or "consumed",
        }
        for event in one.events[:MOST_SHOWN]
    ]
    found = {name: value for name, value in told.items() if value not in (None, [])}
    return found | _more("steps", len(one.steps)) | _more("events", len(one.events))


def _more(what: str, count: int) -> dict[str, int]:
    return {f"{what}_in_all": count} if count > MOST_SHOWN else {}


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return f"{seconds} s from 1970"


def _lines(contents: Mapping[str, Any], indent: str) -> Iterable[str]:
    for name, value in contents.items():
        if isinstance(value, list):
            yield f"{indent}{name}:"
            for one in value:
                if isinstance(one, Mapping):
                    parts = (f"{key} {_line(it)}" for key, it in one.items() if it is not None)
                    yield f"{indent}  - {', '.join(parts)}"
                else:
                    yield f"{indent}  - {_line(one)}"
        else:
            yield f"{indent}{name}: {_line(value)}"


def _line(value: object) -> str:
    """Text that cannot steer a terminal or imitate a line of ours."""
    text = str(value)
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
