"""From a workflow, an id and an input to a row that can be stored.

The ids, the encoding of inputs, and what is said when one cannot be encoded; and the order of the
steps when a submit is part of a transaction of the caller's. Whether an id is free is for the
backend to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from . import _clock
from ._argument import checked_name
from ._codec import to_rest
from ._errors import EncodeError
from ._tracing import tracing_here
from ._workflow import Workflow
from .backends import NewInstance
from .backends._caller import check_on, in_transaction_of
from .backends._connections import recognise

if TYPE_CHECKING:
    from ._core import AtRest
    from .backends import Backend, InstanceRow

__all__ = ["checked_items", "fresh_id", "new_instance", "submit_in_transaction"]

_DRAWN = 64
"""How many ids are drawn at once: asking the kernel takes longer than storing an instance does."""
# What makes random bytes 6 and 8 those of a UUID of version 7.
_VERSION = bytes(byte & 0x0F | 0x70 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))
_ids: list[str] = []


def fresh_id() -> str:
    """An id that no instance has: the 32 hexadecimal digits of a UUID of version 7 (RFC 9562).

    It begins with the time, in ms, and the rest is random. So ids come nearly in order, which keeps
    what a database's index of them is at together on a few pages.

    >>> import uuid
    >>> uuid.UUID(fresh_id()).version
    7
    """
    # Whoever pops has it alone, on any thread.
    try:
        return _ids.pop()
    except IndexError:
        drawn = _draw(_DRAWN)
        _ids.extend(drawn[1:])
        return drawn[0]


def _draw(count: int) -> list[str]:
    drawn = bytearray(os.urandom(16 * count))
    for place, byte in enumerate(int(_clock.now() * 1000).to_bytes(6, "big")):
        drawn[place::16] = bytes((byte,)) * count
    drawn[6::16] = drawn[6::16].translate(_VERSION)
    drawn[8::16] = drawn[8::16].translate(_VARIANT)
    digits = drawn.hex()
    return [digits[at : at + 32] for at in range(0, 32 * count, 32)]


# A forked process must not use the ids that its parent is going to use.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)


def new_instance(
    workflow: Workflow[Any, Any],
    instance_id: str,
    value: object,
    start_at: float | None,
    codec: AtRest | None,
) -> NewInstance:
    """The row to store.

    Raises:
        EncodeError: The input cannot be stored.
    """
    try:
        sealed = to_rest(codec, value, instance_id, "input")
    except EncodeError as failure:
        raise EncodeError(
            f"nothing was stored for instance {instance_id!r} of workflow "
            f"{workflow.workflow_id!r}: of its input, {failure}"
        ) from failure
    return NewInstance(instance_id, workflow.program, sealed, start_at)


async def submit_in_transaction(
    backend: object,
    connection: object,
    workflow: Workflow[Any, Any],
    instance_id: str,
    value: object,
    start_at: float | None,
    policy: str,
    codec: AtRest | None,
) -> InstanceRow | None:
    """Create an instance in the transaction that the caller's connection is in, as `submit` does.

    Returns:
        The existing instance, under `use_existing`.

    Raises:
        TypeError: The backend, or the connection, is not of a kind that this works with.
        ValueError: The connection cannot be used; see `backends._caller.submit_on`.
        InstanceAlreadyExistsError, DefinitionMismatchError, EncodeError: As `submit`.
    """
    there = in_transaction_of(backend)
    foreign = recognise(connection)
    try:
        new = new_instance(workflow, instance_id, value, start_at, codec)
    except EncodeError:
        # A conflict comes before the encoding. To find that out only now saves a statement in every
        # transaction whose input can be encoded.
        row = await check_on(foreign, there.schema, instance_id, workflow.program, policy)
        if row is None:
            raise
        return row
    submit = partial(there.submit_on, foreign, new, workflow.program, policy)
    if (tracing := tracing_here()) is None:
        return await submit()
    send = partial(there.send_event_on, foreign)
    now = cast("Backend", backend).now()
    return await tracing.submit_on(send, submit, instance_id, workflow.workflow_id, now)


def checked_items(items: object) -> list[tuple[str, Any]]:
    """The `(id, input)` pairs of a batch, with an id for each that has none.

    Raises:
        TypeError: It is not an iterable of pairs, or an id is not text.
        ValueError: An id is unacceptable, or comes twice.

    >>> checked_items([("a", 1), ("b", 2)])
    [('a', 1), ('b', 2)]
    """
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"items must be (instance_id, input) pairs, got {type(items).__name__}")
    pairs = []
    seen: set[str] = set()
    for position, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(f"items[{position}] must be a pair of instance_id and input")
        given, value = item
        name = (
            fresh_id() if given is None else checked_name(f"items[{position}]: instance_id", given)
        )
        if name in seen:
            raise ValueError(f"items[{position}]: instance_id {name!r} comes twice in the batch")
        seen.add(name)
        pairs.append((name, value))
    return pairs
