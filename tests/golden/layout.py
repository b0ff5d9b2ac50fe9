"""The stored format a second time, written from `docs/format.md`.

It is slow, small and plain, and shares no code with what it checks: where it and the engine agree
on a golden file, both did what the page says. It only writes; it refuses to know how to read,
and it knows nothing of MessagePack, whose payloads it takes as finished bytes.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sayiir import Workflow

MAGIC = b"SYRS"
VERSION = 1
VALUE, NAMED, LIST, BRANCH, ERROR, CELL, DEFINITION = range(1, 8)
SNAPSHOT, ITEMS = 8, 9
NO_CODEC, MSGPACK, JSON, PICKLED = range(4)
COMPRESSED, ENCRYPTED, OWN = 1, 2, 4

NODE_KINDS = {
    "task": 1,
    "fork": 2,
    "map": 3,
    "route": 4,
    "loop": 5,
    "delay": 6,
    "delay_until": 7,
    "wait": 8,
    "child": 9,
    "spread": 10,
}
RULES = {"fail": 0, "collect": 1, "exit_with_last": 1, "continue": 1}

INPUT = b"\x00"
READY, AWAITING, DONE = b"\x00", b"\x03", b"\x06"


def sealed(kind: int, codec: int, body: bytes, version: int = VERSION, *, flags: int = 0) -> bytes:
    """The body behind its header of twelve bytes."""
    about = bytes([version, kind, codec, flags])
    return MAGIC + about + struct.pack("<I", zlib.crc32(about + body)) + body


def uint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the high bit says that more follow."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def sint(number: int) -> bytes:
    """The integers in the order 0, −1, 1, −2, 2 … as 0, 1, 2, 3, 4 and so on."""
    return uint(2 * number if number >= 0 else -2 * number - 1)


def framed(content: bytes) -> bytes:
    return uint(len(content)) + content


def text(content: str) -> bytes:
    return framed(content.encode())


def counted(items: Sequence[bytes]) -> bytes:
    return uint(len(items)) + b"".join(items)


def optional(content: bytes | None) -> bytes:
    return b"\x00" if content is None else b"\x01" + content


def micros(seconds: float) -> bytes:
    return sint(round(seconds * 1e6))


def named(items: Mapping[str, bytes]) -> bytes:
    body = counted([text(name) + framed(payload) for name, payload in items.items()])
    return sealed(NAMED, NO_CODEC, body)


def listed(items: Sequence[bytes]) -> bytes:
    return sealed(LIST, NO_CODEC, counted([framed(payload) for payload in items]))


def branch(key: str, payload: bytes) -> bytes:
    return sealed(BRANCH, NO_CODEC, text(key) + framed(payload))


def error(
    *,
    error_type: str,
    message: str,
    traceback: str,
    task: str,
    path: str,
    retryable: bool,
    causes: Sequence[tuple[str, str]],
) -> bytes:
    body = b"".join(map(text, (error_type, message, traceback, task, path)))
    pairs = [text(kind) + text(words) for kind, words in causes]
    return sealed(ERROR, NO_CODEC, body + bytes([retryable]) + counted(pairs))


# What is done to a body before it is stored.


def compressed(length: int, frame: bytes) -> bytes:
    return uint(length) + frame


def encrypted(key_id: str, key: bytes, nonce: bytes, text_and_tag: bytes) -> bytes:
    check = hashlib.sha256(b"sayiir key check" + key).digest()[:4]
    return text(key_id) + check + nonce + text_and_tag


# Positions: the references to values, the phases, and the cell that has them.
def step(row: int) -> bytes:
    return b"\x01" + uint(row)


def inner(of: bytes) -> bytes:
    return b"\x02" + of


def item(index: int, of: bytes) -> bytes:
    return b"\x03" + uint(index) + of


def region(node: int, base: int, count: int, low: int) -> bytes:
    return b"\x04" + uint(node) + uint(base) + uint(count) + uint(low)


def arm(key: int, of: bytes) -> bytes:
    return b"\x05" + uint(key) + of


def backoff(until_us: int) -> bytes:
    return b"\x01" + sint(until_us)


def sleeping(until_us: int) -> bytes:
    return b"\x02" + sint(until_us)


def awaiting_until(until_us: int) -> bytes:
    return b"\x04" + sint(until_us)


def joining(base: int, count: int) -> bytes:
    return b"\x05" + uint(base) + uint(count)


def failed(row: int) -> bytes:
    return b"\x07" + uint(row)


def spread(group: int, made: int, count: int) -> bytes:
    return b"\x08" + uint(group) + uint(made) + uint(count)


def cell(frames: Sequence[tuple[int, int, int]], phase: bytes, attempt: int, value: bytes) -> bytes:
    levels = [uint(at) + uint(extra) + uint(key) for at, extra, key in frames]
    return sealed(CELL, NO_CODEC, counted(levels) + phase + uint(attempt) + value)


# Snapshots.


def maybe(content: bytes | None) -> bytes:
    return optional(None if content is None else framed(content))


def maybe_text(content: str | None) -> bytes:
    return optional(None if content is None else text(content))


def maybe_time(us: int | None) -> bytes:
    return optional(None if us is None else sint(us))


def moment(us: int) -> bytes:
    return struct.pack("<q", us)


def snapshot(
    *,
    instance_id: str,
    workflow: Workflow[Any, Any],
    status: int,
    created_us: int,
    updated_us: int,
    input: bytes,
    start_us: int | None = None,
    priority: int = 3,
    tags: Sequence[str] = (),
    next_row: int = 0,
    next_strand: int = 1,
    cells_from: int | None = None,
    wake_us: int | None = None,
    delay: str | None = None,
    wait: str | None = None,
    event: str | None = None,
    awaits: Sequence[str] = (),
    asked: tuple[int, int, str | None, str | None] | None = None,
    result: bytes | None = None,
    root: bytes | None = None,
    cells: Mapping[int, bytes] | None = None,
    steps: Sequence[bytes] = (),
    events: Sequence[bytes] = (),
) -> bytes:
    """A whole instance; steps are those of `history`, events those of `kept`."""
    about = b"".join(
        (
            text(instance_id) + bytes([status]) + sint(created_us) + sint(updated_us),
            maybe_time(start_us) + bytes([priority]) + counted([text(tag) for tag in tags]),
            uint(next_row) + uint(next_strand),
            optional(None if cells_from is None else uint(cells_from)),
            maybe_time(wake_us) + maybe_text(delay) + maybe_text(wait) + maybe_text(event),
            counted([text(name) for name in awaits]),
        )
    )
    if asked is None:
        about += b"\x00"
    else:
        request, resume, reason, by = asked
        about += bytes([request, resume]) + maybe_text(reason) + maybe_text(by)
    strands = [uint(strand) + framed(at) for strand, at in (cells or {}).items()]
    body = framed(about) + framed(definition(workflow)) + framed(input) + maybe(result)
    body += maybe(root) + counted(strands)
    body += counted([framed(row) for row in steps]) + counted([framed(one) for one in events])
    return sealed(SNAPSHOT, NO_CODEC, body)


def history(
    row: int,
    path: str,
    name: str,
    attempt: int,
    outcome: int,
    worker: str,
    started_us: int,
    ended_us: int,
    output: bytes | None = None,
    failure: bytes | None = None,
) -> bytes:
    """A step of a snapshot."""
    begin = uint(row) + text(path) + text(name) + uint(attempt) + bytes([outcome]) + text(worker)
    return begin + moment(started_us) + moment(ended_us) + maybe(output) + maybe(failure)


def kept(name: str, key: str | None, came_us: int, payload: bytes | None) -> bytes:
    """An event of a snapshot."""
    return text(name) + maybe_text(key) + moment(came_us) + maybe(payload)


# Definitions.


def definition(workflow: Workflow[Any, Any]) -> bytes:
    return _definition(DEFINITION, workflow.workflow_id, workflow, workflow.inlined(0))


def items(workflow: Workflow[Any, Any], *maps: str) -> bytes:
    """What the items run of a spread map of this name in the root block, and of one in its body."""
    return _definition(ITEMS, *_items(workflow, maps))


def _items(
    workflow: Workflow[Any, Any], maps: Sequence[str]
) -> tuple[str, Workflow[Any, Any], Sequence[tuple[Any, ...]]]:
    """Name, workflow and root block of what the items run."""
    name, block = workflow.workflow_id, workflow.inlined(0)
    for one in maps:
        [body] = [node[2] for node in block if node[:2] == ("spread", one)]
        name, block = f"{name}/{_segment(one)}", body
        if len(name.encode()) > 256:
            tail = "~" + hashlib.sha256(name.encode()).hexdigest()[:16]
            name = name.encode()[: 256 - len(tail)].decode(errors="ignore") + tail
    return name, workflow, block


def _definition(
    kind: int, name: str, workflow: Workflow[Any, Any], block: Sequence[tuple[Any, ...]]
) -> bytes:
    body = framed(text(name)) + counted([framed(_task(task)) for task in workflow.tasks])
    return sealed(kind, NO_CODEC, body + _block(block))


def _task(task: Any) -> bytes:
    longest = None if task.max_delay is None else struct.pack("<d", task.max_delay)
    return b"".join(
        (
            text(task.name),
            uint(task.max_retries),
            struct.pack("<dd", task.initial_delay, task.multiplier),
            optional(longest),
            struct.pack("<d", task.jitter),
            optional(None if task.timeout is None else micros(task.timeout)),
            counted([text(tag) for tag in sorted(set(task.tags))]),
            bytes([task.priority]),
        )
    )


def _block(nodes: Sequence[tuple[Any, ...]]) -> bytes:
    return counted([_node(*node) for node in nodes])


def _branches(branches: Iterable[tuple[str, Any]]) -> bytes:
    return b"".join(framed(text(name)) + _block(body) for name, body in branches)


def _node(kind: str, name: str, *rest: Any) -> bytes:
    fields, blocks = b"", b""
    match kind, rest:
        case "task", (task,):
            fields = uint(task)
        case "fork", (branches,):
            fields, blocks = uint(len(branches)), _branches(branches)
        case "map", (body, concurrency, on_error):
            fields = optional(None if concurrency is None else uint(concurrency))
            fields, blocks = fields + bytes([RULES[on_error]]), _block(body)
        case "spread", (body, on_error):
            fields, blocks = bytes([RULES[on_error]]), _block(body)
        case "route", (key, arms, default):
            fields = uint(key) + uint(len(arms)) + bytes([default is not None])
            blocks = _branches(arms) + (b"" if default is None else _block(default))
        case "loop", (body, turns, on_max):
            fields, blocks = uint(turns) + bytes([RULES[on_max]]), _block(body)
        case "delay" | "delay_until", (seconds,):
            fields = micros(seconds)
        case "wait", (event, timeout, on_timeout):
            limit = optional(None if timeout is None else micros(timeout))
            fields = text(event) + limit + bytes([RULES[on_timeout]])
        case "child", (workflow, body):
            fields, blocks = text(workflow), _block(body)
        case _:
            raise ValueError(f"a node of kind {kind!r} has no layout yet: see docs/format.md")
    return framed(bytes([NODE_KINDS[kind]]) + text(name) + fields) + blocks


# The hash of a definition.


def fingerprint(workflow: Workflow[Any, Any], *maps: str) -> str:
    """Of a workflow, or of what the items run of its spread maps; see `items`."""
    structure = _wide_text("sayiir item 1" if maps else "sayiir definition 1")
    name, _, block = _items(workflow, maps)
    tasks = [task.name for task in workflow.tasks]
    structure += _wide_text(name) + _hashed_block(block, tasks)
    return hashlib.sha256(structure).hexdigest()


def _wide(number: int) -> bytes:
    return struct.pack("<Q", number)


def _wide_text(content: str) -> bytes:
    return _wide(len(content.encode())) + content.encode()


def _segment(name: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in "/[]#~%" else c for c in name)


def _hashed_block(nodes: Sequence[tuple[Any, ...]], tasks: list[str]) -> bytes:
    out, seen = _wide(len(nodes)), dict[str, int]()
    for kind, name, *rest in nodes:
        segment = _segment(name)
        seen[segment] = uses = seen.get(segment, 0) + 1
        out += _wide_text(kind) + _wide_text(segment if uses == 1 else f"{segment}~{uses}")
        out += _hashed_node(kind, rest, tasks)
    return out


def _hashed_node(kind: str, rest: Sequence[Any], tasks: list[str]) -> bytes:
    match kind, rest:
        case "task", (task,):
            return _wide_text(tasks[task])
        case "fork", (branches,):
            return _hashed_branches(branches, tasks)
        case "map" | "spread" | "loop", (body, *_):
            return _hashed_block(body, tasks)
        case "route", (key, arms, default):
            last = [] if default is None else [_hashed_block(default, tasks)]
            return b"".join(
                (
                    _wide_text(tasks[key]),
                    _hashed_branches(arms, tasks),
                    _wide(len(last)),
                    *last,
                )
            )
        case "wait", (event, *_):
            return _wide_text(event)
        case "child", (workflow, body):
            return _wide_text(workflow) + _hashed_block(body, tasks)
        case _:  # a delay: all there is to it may be tuned
            return b""


def _hashed_branches(branches: Sequence[tuple[str, Any]], tasks: list[str]) -> bytes:
    out = _wide(len(branches))
    for name, body in branches:
        out += _wide_text(name) + _hashed_block(body, tasks)
    return out
