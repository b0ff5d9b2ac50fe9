"""Values that travel between a task and the engine with a meaning of their own.

A loop body says with `LoopResult` whether to go on; `EventTimeout` and `MapError` stand in for a
value that never came. They are data: equal when their contents are equal, immutable, and known to
the value codec by class, so that no ordinary dict or tuple can be mistaken for one. How they are
stored and when they arise is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

__all__ = ["EventTimeout", "LoopDict", "LoopResult", "MapError", "OnError", "OnMax", "OnTimeout"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class OnMax(StrEnum):
    """What a loop does when it has made `max_iterations` turns and its body still says *again*.

    >>> OnMax("exit_with_last") is OnMax.EXIT_WITH_LAST
    True
    """

    FAIL = "fail"
    """The instance fails."""
    EXIT_WITH_LAST = "exit_with_last"
    """The loop ends and passes on the value of its last turn."""


class OnError(StrEnum):
    """What a map does when one of its items fails for good.

    >>> OnError.COLLECT == "collect"
    True
    """

    FAIL = "fail"
    """The instance fails."""
    COLLECT = "collect"
    """A `MapError` takes the place of the item's output and the others go on."""


class OnTimeout(StrEnum):
    """What a wait for an event does when its time is over.

    >>> OnTimeout.CONTINUE == "continue"
    True
    """

    FAIL = "fail"
    """The instance fails."""
    CONTINUE = "continue"
    """The flow goes on with an `EventTimeout`."""


class LoopResult(Generic[T_co]):
    """What the last step of a loop body returns: go round again, or be done.

    Make one with `again` or `done`; both carry the value that the next turn, or the step after
    the loop, receives.

    >>> LoopResult.again(3)
    LoopResult.again(3)
    >>> LoopResult.done("ok").is_done
    True
    """

    __slots__ = ("_done", "_value")
    __match_args__ = ("is_done", "value")

    _done: bool
    _value: T_co

    def __init__(self, tag: str, value: T_co) -> None:
        if tag not in ("again", "done"):
            raise ValueError(f"a LoopResult is 'again' or 'done', got {tag!r}")
        object.__setattr__(self, "_done", tag == "done")
        object.__setattr__(self, "_value", value)

    @staticmethod
    def again(value: T) -> LoopResult[T]:
        """Another turn, which receives `value`."""
        return LoopResult("again", value)

    @staticmethod
    def done(value: T) -> LoopResult[T]:
        """The end of the loop, which passes on `value`."""
        return LoopResult("done", value)

    @property
    def is_done(self) -> bool:
        """Whether the loop ends here."""
        return self._done

    @property
    def is_again(self) -> bool:
        """Whether the loop takes another turn."""
        return not self._done

    @property
    def value(self) -> T_co:
        """The value for the next turn or for the step after the loop."""
        return self._value

    def to_dict(self) -> LoopDict:
        """The same as a dict, for a body that is declared to return one.

        >>> LoopResult.done(1).to_dict()
        {'_loop': 'done', 'value': 1}
        """
        return LoopDict(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a LoopResult does not change; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a LoopResult does not change; cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LoopResult):
            return NotImplemented
        return self._done == other._done and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((self._done, self._value))

    def __repr__(self) -> str:
        return f"LoopResult.{'done' if self._done else 'again'}({self._value!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return LoopResult, ("done" if self._done else "again", self._value)


class LoopDict(dict[str, Any]):
    """The dict that `LoopResult.to_dict` returns.

    It reads like `{"_loop": "again" | "done", "value": …}` and remembers which `LoopResult` it
    stands for. The engine recognises it by its class: a plain dict of the same shape is just a
    dict, because nothing is guessed from the shape of a value.

    >>> LoopResult.again(2).to_dict().loop_result
    LoopResult.again(2)
    """

    __slots__ = ("loop_result",)

    loop_result: LoopResult[Any]

    def __init__(self, loop_result: LoopResult[Any]) -> None:
        tag = "done" if loop_result.is_done else "again"
        super().__init__(_loop=tag, value=loop_result.value)
        self.loop_result = loop_result

    def __reduce__(self) -> tuple[Any, ...]:
        return LoopDict, (self.loop_result,)


@dataclass(frozen=True, slots=True)
class EventTimeout:
    """Passed on by a wait with `on_timeout="continue"` when the event did not come in time.

    >>> EventTimeout("approved").name
    'approved'
    """

    name: str
    """The name of the event that did not come."""


@dataclass(frozen=True, slots=True)
class MapError:
    """Takes the place of a failed item's output in a map with `on_error="collect"`.

    >>> MapError(17, "ValueError", "no such file", "parse[17]").index
    17
    """

    index: int
    """Position of the item in the list, from 0."""
    error_type: str
    """Name of the exception's class."""
    message: str
    """Text of the exception."""
    path: str
    """Path of the step that failed."""
