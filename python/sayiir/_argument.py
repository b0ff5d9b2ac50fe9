"""Checks of what users hand to a client, before anything is encoded or stored.

One function per kind of argument: each returns what the caller goes on with, and refuses the rest
with a sentence that names the argument; a wrong kind is a `TypeError`, a wrong value a
`ValueError`. Nothing is looked up: whether an instance exists is for the backend to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, cast
from weakref import WeakSet

from ._policy import check_name
from ._signature import Unresolved, types_of
from ._status import Status
from ._task import define_task, task_metadata
from ._workflow import Workflow
from .backends import Backend

__all__ = [
    "MAX_LIMIT",
    "MAX_NOTE_CHARS",
    "MAX_PATH_CHARS",
    "checked_backend",
    "checked_flag",
    "checked_limit",
    "checked_moment",
    "checked_name",
    "checked_note",
    "checked_output",
    "checked_prefix",
    "checked_status",
    "checked_statuses",
    "checked_step_count",
    "checked_task",
    "checked_workflow",
]

_BACKENDS: WeakSet[type] = WeakSet()
"""Classes whose instances have everything that a backend has."""

MAX_NOTE_CHARS = 4096
"""The longest reason or author, in characters."""
MAX_LIMIT = 1000
"""The most instances on one page."""
MAX_PATH_CHARS = 65_536
"""The longest path that can be asked for, in characters; names within it take 256 bytes each."""
_MAX_PREFIX_BYTES = 256
# Seconds this large are 30 µs apart; the last one that a datetime can show again.
_LAST_MOMENT = math.nextafter(datetime(9999, 12, 31, tzinfo=UTC).timestamp() + 86_400, 0)


def checked_name(what: str, value: object) -> str:
    """An id or a name: 1 to 256 bytes of UTF-8, no control characters, not only white space.

    >>> checked_name("instance_id", "order-1")
    'order-1'
    """
    return check_name(what, value)


def checked_note(what: str, value: object) -> str | None:
    """A reason or an author: free text of at most `MAX_NOTE_CHARS`, or none.

    >>> checked_note("reason", "no longer needed")
    'no longer needed'
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str or None, got {type(value).__name__}")
    if len(value) > MAX_NOTE_CHARS:
        raise ValueError(
            f"{what} is {len(value)} characters long; the limit is {MAX_NOTE_CHARS} characters"
        )
    return _storable(what, value)


def checked_prefix(what: str, value: object) -> str | None:
    """The beginning of an id; it may be empty, as everything begins with nothing.

    >>> checked_prefix("id_prefix", "")
    ''
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str or None, got {type(value).__name__}")
    if len(_storable(what, value).encode()) > _MAX_PREFIX_BYTES:
        raise ValueError(f"{what} is longer than an id can be, {_MAX_PREFIX_BYTES} bytes of UTF-8")
    return value


def checked_moment(what: str, value: object) -> float | None:
    """An aware datetime as seconds since 1970 UTC, or none.

    >>> from datetime import UTC
    >>> checked_moment("start_at", datetime(1970, 1, 2, tzinfo=UTC))
    86400.0
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{what} must be an aware datetime or None, got {type(value).__name__}")
    if value.utcoffset() is None:
        raise ValueError(
            f"{what} must be an aware datetime, got one without a time zone; "
            "give it one, such as tzinfo=datetime.UTC"
        )
    return min(value.timestamp(), _LAST_MOMENT)


def checked_limit(what: str, value: object) -> int:
    """A number of rows, 1 to `MAX_LIMIT`.

    >>> checked_limit("limit", 100)
    100
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int, got {type(value).__name__}")
    if not 1 <= value <= MAX_LIMIT:
        shown = value if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
        raise ValueError(f"{what} must be from 1 to {MAX_LIMIT}, got {shown}")
    return value


def checked_flag(what: str, value: object) -> bool:
    """A yes or a no and nothing that merely looks like one.

    >>> checked_flag("force", True)
    True
    """
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be a bool, got {type(value).__name__}")
    return value


def checked_status(what: str, value: object) -> Status | None:
    """A state or its text, or none.

    >>> checked_status("status", "paused")
    <Status.PAUSED: 'paused'>
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a Status, its text or None, got {type(value).__name__}")
    try:
        return Status(value)
    except ValueError:
        words = ", ".join(repr(str(status)) for status in Status)
        raise ValueError(f"{what} must be one of {words}, got {value[:80]!r}") from None


def checked_statuses(values: Sequence[object]) -> frozenset[Status]:
    """One or several states, or their texts.

    >>> checked_statuses(["paused"])
    frozenset({<Status.PAUSED: 'paused'>})
    """
    if not values:
        raise ValueError("at least one status to wait for must be given, such as 'completed'")
    found = {checked_status("status", value) for value in values}
    if None in found:
        raise TypeError("status must be a Status or its text, got NoneType")
    return frozenset(status for status in found if status is not None)


def checked_step_count(what: str, value: object) -> int:
    """How many steps: none, or any number of them.

    >>> checked_step_count("after", 0)
    0
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{what} must be 0 or more steps, got a negative number")
    return value


def checked_workflow(value: object) -> Workflow[Any, Any]:
    """A built workflow.

    >>> checked_workflow("order")
    Traceback (most recent call last):
    ...
    TypeError: workflow must be a built Workflow, got str; make one with Flow(…).build()
    """
    if isinstance(value, Workflow):
        return value
    raise TypeError(
        f"workflow must be a built Workflow, got {type(value).__name__}; "
        "make one with Flow(…).build()"
    )


def checked_backend(value: object) -> Backend:
    """An object with everything a backend has.

    >>> checked_backend("memory://")
    Traceback (most recent call last):
    ...
    TypeError: backend must be a backend object, got str; use from_url for a URL
    """
    if type(value) in _BACKENDS:
        # Whether an object fits a runtime protocol is asked anew each time, and slowly.
        return cast("Backend", value)
    if isinstance(value, type):
        raise TypeError(f"backend must be a backend object, got the class {value.__name__}")
    if not isinstance(value, Backend):
        hint = "; use from_url for a URL" if isinstance(value, str) else ""
        raise TypeError(f"backend must be a backend object, got {type(value).__name__}{hint}")
    _BACKENDS.add(type(value))
    return value


def checked_task(value: object) -> str:
    """What to look for when asked for a path, a name, or the function of a task.

    >>> checked_task("fork/left/charge"), checked_task(str.upper)
    ('fork/left/charge', 'upper')
    """
    if isinstance(value, str):
        if not value or value.isspace():
            raise ValueError("task must not be empty or only white space")
        if len(value) > MAX_PATH_CHARS:
            raise ValueError(
                f"task is {len(value)} characters long; the limit is {MAX_PATH_CHARS} characters"
            )
        return _storable("task", value)
    if not callable(value):
        raise TypeError(
            f"task must be a name, a path or a task's function, got {type(value).__name__}"
        )
    said = task_metadata(value).name
    return said or define_task(value, where="task", lambda_name=_refuse_lambda).name


def checked_output(fn: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """What makes a task's output of plain data, by its return annotation; `None` if it is plain.

    Raises:
        TypeError: The annotation cannot be honoured, or refers to a name that is not defined.

    >>> checked_output(str.upper) is None
    True
    """
    try:
        gives = types_of(fn).gives
    except Unresolved as late:
        raise late.refusal("task") from late
    except TypeError as refusal:
        raise TypeError(f"task: {refusal}") from refusal.__cause__
    return None if gives is None else gives.convert


def _refuse_lambda() -> NoReturn:
    raise ValueError("task is a lambda, which has no name of its own; give its name or path")


def _storable(what: str, text: str) -> str:
    """Text that every store can keep."""
    if "\0" in text:
        raise ValueError(f"{what} must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as failure:
        raise _surrogate(what, failure) from None
    return text


def _surrogate(what: str, failure: UnicodeEncodeError) -> ValueError:
    at = failure.start
    return ValueError(
        f"{what} must be text that UTF-8 can hold; "
        f"it has the lone surrogate U+{ord(failure.object[at]):04X} at position {at}"
    )
