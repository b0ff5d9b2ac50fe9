"""What may be said about a task besides its code: name, timeout, retries, tags, priority.

`RetryPolicy` and `TaskMetadata` check themselves when they are made, so whoever holds one holds a
sensible one. They decide nothing: when an attempt is made again is the engine's business. None of
it is part of a workflow's definition hash, so all of it may be tuned while instances run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from . import _core
from ._duration import parse_duration

__all__ = [
    "DEFAULT_PRIORITY",
    "RetryPolicy",
    "RunIn",
    "TaskMetadata",
    "check_name",
    "whole_number",
]

RunIn: TypeAlias = Literal["thread", "inline", "process"]
"""Where a `def` task runs: in a thread, on the event loop itself, or in a process of its own."""

DEFAULT_PRIORITY = 3
"""The priority of a task that says nothing; 1 goes first, 5 last."""

_RUN_IN = ("thread", "inline", "process")
_MAX_DESCRIPTION_CHARS = 10_000
_MAX_TAGS = 20
_MAX_TAG_CHARS = 64
_MAX_RETRIES = 1_000_000
_MAX_MULTIPLIER = 1_000_000.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed task is tried again.

    A task runs at most `max_retries + 1` times. The wait before retry *k* is
    `initial_delay_secs * backoff_multiplier ** (k - 1)`, at most `max_delay_secs`, spread by
    `± jitter`. It is a durable timer: it survives a crash and holds no thread.

    Raises:
        TypeError: A field is of the wrong kind.
        ValueError: A number is negative, not finite or absurdly large, or `jitter` is over 1.

    >>> RetryPolicy(max_retries=5, initial_delay_secs=0.5, max_delay_secs=60).backoff_multiplier
    2.0
    """

    max_retries: int = 2
    """Attempts after the first; 0 means the task runs once."""
    initial_delay_secs: float = 1.0
    """The wait before the first retry, in seconds."""
    backoff_multiplier: float = 2.0
    """The factor from one wait to the next."""
    max_delay_secs: float | None = None
    """The longest wait, in seconds."""
    jitter: float = 0.0
    """The share of a wait that is random, from 0 to 1; keeps many retries from coming at once."""
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    """The failures worth another attempt."""
    give_up_on: tuple[type[BaseException], ...] = ()
    """Failures not worth another attempt, though `retry_on` covers them."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        retries = whole_number("RetryPolicy: max_retries", self.max_retries, 0, _MAX_RETRIES)
        put(self, "max_retries", retries)
        delay = parse_duration(self.initial_delay_secs, name="RetryPolicy: initial_delay_secs")
        put(self, "initial_delay_secs", delay)
        factor = _number(
            "RetryPolicy: backoff_multiplier", self.backoff_multiplier, _MAX_MULTIPLIER
        )
        put(self, "backoff_multiplier", factor)
        if self.max_delay_secs is not None:
            cap = parse_duration(self.max_delay_secs, name="RetryPolicy: max_delay_secs")
            put(self, "max_delay_secs", cap)
        put(self, "jitter", _number("RetryPolicy: jitter", self.jitter, 1.0))
        put(self, "retry_on", _exceptions("RetryPolicy: retry_on", self.retry_on))
        put(self, "give_up_on", _exceptions("RetryPolicy: give_up_on", self.give_up_on))

    def covers(self, error: BaseException) -> bool:
        """Whether this failure is worth another attempt, as far as its class says.

        >>> policy = RetryPolicy(retry_on=(OSError,), give_up_on=(FileNotFoundError,))
        >>> policy.covers(ConnectionError()), policy.covers(FileNotFoundError())
        (True, False)
        """
        return isinstance(error, self.retry_on) and not isinstance(error, self.give_up_on)


@dataclass(frozen=True, slots=True)
class TaskMetadata:
    """What `@task(…)` was told about a task.

    Raises:
        TypeError: A field is of the wrong kind.
        ValueError: A number is out of range, a text is empty or too long, or there are too many
            tags.

    >>> TaskMetadata("charge", timeout_secs=30, tags=("gpu",)).tags
    ('gpu',)
    """

    name: str | None = None
    """The task's name; `None` when the flow has yet to choose one, as for a lambda."""
    timeout_secs: float | None = None
    """The longest an attempt may take, in seconds."""
    retries: RetryPolicy | None = None
    """How often and when it is tried again; `None` means it runs once."""
    tags: tuple[str, ...] = ()
    """What a worker must offer to run it."""
    priority: int | None = None
    """1 (first) to 5 (last); `None` counts as 3."""
    description: str | None = None
    """What it does, for people."""
    version: str | None = None
    """Which edition of its code this is, for people."""
    run_in: RunIn | None = None
    """Where a `def` runs; `None` is a thread for `def` and the event loop for `async def`."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        where = "@task" if self.name is None else f"task {self.name!r}"
        if self.name is not None:
            put(self, "name", check_name("task name", self.name))
        if self.timeout_secs is not None:
            limit = parse_duration(self.timeout_secs, name=f"{where}: timeout", allow_zero=False)
            put(self, "timeout_secs", limit)
        put(self, "retries", _retries(where, self.retries))
        put(self, "tags", _tags(where, self.tags))
        if self.priority is not None:
            put(self, "priority", whole_number(f"{where}: priority", self.priority, 1, 5))
        if self.description is not None:
            _description(where, self.description)
        if self.version is not None:
            put(self, "version", check_name(f"{where}: version", self.version))
        if self.run_in is not None and self.run_in not in _RUN_IN:
            raise ValueError(
                f"{where}: run_in must be 'thread', 'inline' or 'process', got {self.run_in!r}"
            )

    @property
    def display_name(self) -> str | None:
        """The same as `name`.

        >>> TaskMetadata("charge").display_name
        'charge'
        """
        return self.name


def check_name(what: str, name: object) -> str:
    """The name as a plain `str`, if it is one that can be stored, shown and put into a path.

    Args:
        what: How to call it in a message.
        name: 1 to 256 bytes of UTF-8 without control characters, not only white space.

    Raises:
        TypeError: It is no text.
        ValueError: It breaks one of the rules above.

    >>> check_name("task name", "charge-card")
    'charge-card'
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, got {type(name).__name__}")
    try:
        # The rule itself is the engine's: one for every name, in every place.
        _core.check_name(what, name)
    except UnicodeEncodeError as failure:
        at = failure.start
        raise ValueError(
            f"{what} must be text that UTF-8 can hold; "
            f"it has the lone surrogate U+{ord(name[at]):04X} at position {at}"
        ) from None
    # A subclass, such as a member of a string enum, is stored as the text it stands for.
    return str.__str__(name)


def _retries(where: str, retries: object) -> RetryPolicy | None:
    if retries is None or isinstance(retries, RetryPolicy):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(
            f"{where}: retries must be an int or a RetryPolicy, got {type(retries).__name__}"
        )
    return RetryPolicy(max_retries=whole_number(f"{where}: retries", retries, 0, _MAX_RETRIES))


def _tags(where: str, tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"{where}: tags must be a list of str, got {type(tags).__name__}")
    found: dict[str, None] = {}
    for count, tag in enumerate(tags, 1):
        if count > _MAX_TAGS:
            raise ValueError(f"{where}: more than {_MAX_TAGS} tags")
        if not isinstance(tag, str):
            raise TypeError(
                f"{where}: tags must be a list of str, got a {type(tag).__name__} in it"
            )
        if len(tag) > _MAX_TAG_CHARS:
            raise ValueError(
                f"{where}: a tag has at most {_MAX_TAG_CHARS} characters, got {len(tag)}"
            )
        found[check_name(f"{where}: tag", tag)] = None
    return tuple(found)


def _description(where: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{where}: description must be a str, got {type(text).__name__}")
    if len(text) > _MAX_DESCRIPTION_CHARS:
        raise ValueError(
            f"{where}: description has at most {_MAX_DESCRIPTION_CHARS} characters, got {len(text)}"
        )


def whole_number(what: str, value: object, low: int, high: int) -> int:
    """An int within bounds; a bool is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{what} must be between {low} and {high}, got {_shown(value)}")
    return int(value)


def _number(what: str, value: object, high: float) -> float:
    """A finite number from 0 to `high`; a bool is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number, got {type(value).__name__}")
    if not 0 <= value <= high or math.isnan(value):
        raise ValueError(f"{what} must be between 0 and {high:g}, got {_shown(value)}")
    return float(value)


def _shown(value: float) -> str:
    """A number for a message; one of a million digits must not flood a log."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def _exceptions(what: str, classes: object) -> tuple[type[BaseException], ...]:
    """A tuple of exception classes; a single class counts as one of them."""
    found = tuple(classes) if isinstance(classes, (tuple, list)) else (classes,)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"{what} must hold exception classes, got {one!r}")
    return found
