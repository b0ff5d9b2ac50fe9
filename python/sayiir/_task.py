"""Tasks: the decorator, and what the engine needs to know to call a function.

`@task` writes its words on the function and leaves it what it was, so a task can be called, tested
and pickled like any function. `TaskDef` is one use of a callable in a flow: how many arguments it
takes, whether it is asynchronous, and where it runs are found out here, once, when the flow is
made. This module never calls a task.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast, overload

from ._duration import Duration
from ._errors import DecodeError, NonRetryable, RetryAfter
from ._policy import DEFAULT_PRIORITY, RetryPolicy, RunIn, TaskMetadata, check_name
from ._signature import (
    Types,
    Unresolved,
    Unsuited,
    calling_signature,
    input_parameter,
    types_of,
    unfit_value,
)

__all__ = [
    "MODE_ASYNC",
    "MODE_INLINE",
    "MODE_PROCESS",
    "MODE_THREAD",
    "RetryPolicy",
    "RunIn",
    "TaskDef",
    "TaskMetadata",
    "define_task",
    "task",
    "task_metadata",
]

F = TypeVar("F", bound=Callable[..., Any])

MODE_ASYNC = 0
"""A coroutine function, awaited on the event loop."""
MODE_INLINE = 1
"""A plain function, called on the event loop."""
MODE_THREAD = 2
"""A plain function, called in a thread."""
MODE_PROCESS = 3
"""A plain function, called in a process of its own."""

_MODES = {None: MODE_THREAD, "thread": MODE_THREAD, "inline": MODE_INLINE, "process": MODE_PROCESS}
_ATTRIBUTE = "__sayiir_task__"


@overload
def task(
    fn: F,
    /,
    *,
    name: str | None = None,
    timeout: Duration | None = None,
    timeout_secs: float | None = None,
    retries: int | RetryPolicy | None = None,
    tags: Iterable[str] | None = None,
    priority: int | None = None,
    description: str | None = None,
    version: str | None = None,
    run_in: RunIn | None = None,
) -> F: ...
@overload
def task(
    fn: str | None = None,
    /,
    *,
    name: str | None = None,
    timeout: Duration | None = None,
    timeout_secs: float | None = None,
    retries: int | RetryPolicy | None = None,
    tags: Iterable[str] | None = None,
    priority: int | None = None,
    description: str | None = None,
    version: str | None = None,
    run_in: RunIn | None = None,
) -> Callable[[F], F]: ...
def task(
    fn: Callable[..., Any] | str | None = None,
    /,
    *,
    name: str | None = None,
    timeout: Duration | None = None,
    timeout_secs: float | None = None,
    retries: int | RetryPolicy | None = None,
    tags: Iterable[str] | None = None,
    priority: int | None = None,
    description: str | None = None,
    version: str | None = None,
    run_in: RunIn | None = None,
) -> Any:
    """Say how a function is to be run as a task. The function itself stays what it is.

    Works as `@task`, as `@task("name", …)` and as `@task(name=…, …)`, on `def` and `async def`.

    Args:
        fn: The function, or the task's name.
        name: The task's name; the function's own if not given.
        timeout: The longest one attempt may take, in any form a duration may have.
        timeout_secs: An older spelling of `timeout`.
        retries: How many times to try again (waiting 1 s, 2 s, 4 s …), or a `RetryPolicy`.
        tags: What a worker must offer to run it; at most 20, of at most 64 characters each.
        priority: 1 (first) to 5 (last); 3 if not given.
        description: What it does, for people.
        version: Which edition of its code this is, for people.
        run_in: Where a `def` runs: `"thread"` (if not given), `"inline"` on the event loop itself
            (for code that returns at once), or `"process"` (it can then be killed at its timeout;
            the function must be importable by name).

    What the function takes and returns may be annotated with dataclasses, Enums, NamedTuples,
    TypedDicts, models of msgspec and pydantic, and containers and unions of them: it then gets
    such values, made from the plain data that was stored. See `docs/values.md`.

    Raises:
        TypeError: An argument is of the wrong kind, what is decorated is not a function, or an
            annotation of it cannot be honoured.
        ValueError: An argument is out of range, or `run_in` does not suit the function.

    >>> @task("add-one", timeout="30s", retries=3)
    ... def add_one(x: int) -> int:
    ...     return x + 1
    >>> add_one(1)
    2
    """
    if isinstance(fn, str):
        if name is not None:
            raise ValueError(f"@task: two names were given, {fn!r} and {name!r}; keep one")
        name = fn
    if timeout is not None and timeout_secs is not None:
        raise ValueError("@task: give timeout or its older spelling timeout_secs, not both")
    said = TaskMetadata(
        name=name,
        # The metadata checks and normalises; it accepts what the signature above accepts.
        timeout_secs=timeout if timeout is not None else timeout_secs,  # type: ignore[arg-type]
        retries=retries,  # type: ignore[arg-type]
        tags=() if tags is None else tags,  # type: ignore[arg-type]
        priority=priority,
        description=description,
        version=version,
        run_in=run_in,
    )
    if fn is None or isinstance(fn, str):
        return functools.partial(_decorate, said)
    return _decorate(said, fn)


def task_metadata(fn: object) -> TaskMetadata:
    """What `@task` was told about this callable; the defaults if it was never decorated.

    >>> task_metadata(task(tags=["gpu"])(lambda x: x)).tags
    ('gpu',)
    """
    found = getattr(fn, _ATTRIBUTE, None)
    return found if isinstance(found, TaskMetadata) else TaskMetadata()


def _decorate(said: TaskMetadata, fn: F) -> F:
    """The function with the metadata on it."""
    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError(f"@task goes below @{type(fn).__name__}, next to the function")
    if isinstance(fn, type) or not callable(fn):
        raise TypeError(f"@task decorates functions, got {fn!r}")
    if said.name is None:
        own = _own_name(fn)
        said = said if own is None else replace(said, name=own)
    place = f"task {said.name!r}" if said.name else "@task"
    _mode(fn, said, place)
    _check_types(fn, place)
    if _ATTRIBUTE in getattr(fn, "__dict__", {}) or _published(fn) is fn:
        # Others know this function, as it is or as another task: it stays so, and a twin is marked.
        fn = _twin(fn)
    try:
        setattr(fn, _ATTRIBUTE, said)
    except AttributeError:
        raise TypeError(
            f"@task cannot mark {fn!r}; give it to the flow as it is, or wrap it in a function"
        ) from None
    return fn


def _check_types(fn: Callable[..., Any], place: str) -> None:
    """Refuse annotations that cannot be honoured; names may still be defined until `build`.

    What cannot be called with one argument is no task as it stands, such as a method that is
    decorated where its class is written: its annotations are read when a flow takes it.
    """
    with contextlib.suppress(Unresolved, Unsuited):
        calling_signature(fn)
        _types(fn, place)


def _types(fn: Callable[..., Any], place: str) -> Types:
    """What the annotations ask for; a refusal names the task."""
    try:
        return types_of(fn)
    except TypeError as refusal:
        raise TypeError(f"{place}: {refusal}") from refusal.__cause__


def _twin(fn: F) -> F:
    """A second function object of the same code."""
    if not isinstance(fn, types.FunctionType):
        return copy.copy(fn)
    twin = types.FunctionType(
        fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__
    )
    twin.__kwdefaults__ = fn.__kwdefaults__
    functools.update_wrapper(twin, fn)
    # It is an equal, not a wrapper, so it says about wrapping what its model says.
    del twin.__dict__["__wrapped__"]
    twin.__dict__.update(fn.__dict__)
    return cast("F", twin)


@dataclass(frozen=True, slots=True)
class TaskDef:
    """One use of a callable in a flow: everything the engine needs in order to run it."""

    name: str
    """The task's name."""
    call: Callable[[Any], Any]
    """What takes exactly one positional argument, of the type that it is annotated with."""
    original: Callable[..., Any]
    """What the author gave."""
    mode: int
    """Where to call it: one of the `MODE_…` numbers."""
    metadata: TaskMetadata
    """What was said in `@task(…)`, with the name filled in."""
    place: str
    """How messages name it."""
    timeout: float | None = field(init=False)
    """The longest an attempt may take, in seconds."""
    max_retries: int = field(init=False)
    """Attempts after the first."""
    initial_delay: float = field(init=False)
    """The wait before the first retry, in seconds."""
    multiplier: float = field(init=False)
    """The factor from one wait to the next."""
    max_delay: float | None = field(init=False)
    """The longest wait, in seconds."""
    jitter: float = field(init=False)
    """The random share of a wait, 0 to 1."""
    tags: tuple[str, ...] = field(init=False)
    """What a worker must offer."""
    priority: int = field(init=False)
    """1 (first) to 5 (last)."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        metadata = self.metadata
        retries = metadata.retries or _ONCE
        put(self, "timeout", metadata.timeout_secs)
        put(self, "max_retries", retries.max_retries)
        put(self, "initial_delay", retries.initial_delay_secs)
        put(self, "multiplier", retries.backoff_multiplier)
        put(self, "max_delay", retries.max_delay_secs)
        put(self, "jitter", retries.jitter)
        put(self, "tags", metadata.tags)
        put(self, "priority", metadata.priority or DEFAULT_PRIORITY)

    @property
    def fn(self) -> Callable[[Any], Any]:
        """What to call, always with exactly one positional argument: a plain value.

        Raises:
            TypeError: An annotation refers to a name that is not defined, or cannot be honoured.
        """
        form = self.types.takes
        if form is None:
            return self.call
        convert = form.convert
        assert convert is not None
        # Not the module's own: what a task without annotations needs is small.
        from ._form import Misfit

        call, what = self.call, f"the input of task {self.name!r}"

        def typed(value: Any) -> Any:
            try:
                made = convert(value)
            except Misfit as misfit:
                raise unfit_value(misfit, what) from misfit.cause
            return call(made)

        return typed

    @property
    def types(self) -> Types:
        """What its annotations ask for. Raises as `fn`."""
        try:
            return _types(self.original, self.place)
        except Unresolved as late:
            raise late.refusal(self.place) from late

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskDef, (
            self.name, self.call, self.original, self.mode, self.metadata, self.place,
        )  # fmt: skip

    def is_retryable(self, error: BaseException) -> bool:
        """Whether this failure is worth another attempt, as long as retries are left."""
        if isinstance(error, NonRetryable):
            return False
        if isinstance(error, DecodeError) and error.__dict__.get("final"):
            # The input does not fit; it will not the next time.
            return False
        if isinstance(error, RetryAfter):
            return True
        return (self.metadata.retries or _ONCE).covers(error)


_ONCE = RetryPolicy(max_retries=0)


def define_task(
    fn: Callable[..., Any],
    *,
    where: str,
    name: str | None = None,
    lambda_name: Callable[[], str] | None = None,
) -> TaskDef:
    """Look at a callable and describe how to run it.

    Args:
        fn: Any callable that can be called with one positional argument, or with none.
        where: How messages name the place, such as `"flow 'order'"`.
        name: A name for this use; otherwise the decorated one, otherwise the function's own.
        lambda_name: Gives the next name for a callable that has none.

    Raises:
        TypeError: It is not callable, needs more than one argument, is a generator function, or
            has annotations that cannot be honoured.
        ValueError: The name is unacceptable, or it cannot run where its decorator says.
    """
    if not callable(fn):
        raise TypeError(f"{where}: a step must be callable, got {fn!r}"[:500])
    said = task_metadata(fn)
    chosen = name if name is not None else said.name or _own_name(fn)
    if chosen is None:
        chosen = "lambda" if lambda_name is None else lambda_name()
    chosen = check_name(f"{where}: task name", chosen)
    place = f"{where}, task {chosen!r}"
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{place}: a generator cannot be a task; return a list instead")
    mode = _mode(fn, said, place)
    if mode == MODE_PROCESS:
        _require_importable(fn, place)
    defined = TaskDef(
        name=chosen,
        call=fn if _takes_input(fn, place) else _WithoutInput(fn),
        original=fn,
        mode=mode,
        metadata=said if said.name == chosen else replace(said, name=chosen),
        place=place,
    )
    # A name that is not defined yet may be until the flow is built, which asks for `fn`.
    with contextlib.suppress(Unresolved):
        _types(fn, place)
    return defined


class _WithoutInput:
    """A function of no parameters, callable with the previous output, which it does not see.

    A class and not a closure, so that it can be pickled for a process of its own.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def __call__(self, _: object) -> Any:
        return self.call()


def _own_name(fn: Callable[..., Any]) -> str | None:
    """What the callable calls itself; `None` for a lambda, which says nothing."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return None if name == "<lambda>" else str(name)


def _is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives an awaitable, also for partials and objects with `__call__`."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    return not isinstance(fn, type) and inspect.iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004 - asks what kind of thing it is
    )


def _mode(fn: Callable[..., Any], said: TaskMetadata, place: str) -> int:
    """Where to run it, from what it is and what was said."""
    if _is_async(fn):
        if said.run_in is not None:
            raise ValueError(
                f"{place}: run_in={said.run_in!r} is for def; an async def runs on the event loop"
            )
        return MODE_ASYNC
    if said.run_in == "process":
        qualname = getattr(fn, "__qualname__", "<object>")
        if "<" in qualname:
            raise ValueError(
                f"{place}: run_in='process' needs a function that can be imported by name, "
                f"got {qualname}; define it at the top level of a module"
            )
    return _MODES[said.run_in]


def _published(fn: Callable[..., Any]) -> object:
    """What stands under the function's own name in its module, if anything."""
    found: Any = sys.modules.get(getattr(fn, "__module__", None) or "")
    for part in getattr(fn, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found


def _require_importable(fn: Callable[..., Any], place: str) -> None:
    """Refuse a function that a fresh process would not find under its name."""
    found = _published(fn)
    # Methods are made afresh at each access, so they are equal but not identical.
    if found is not fn and found != fn:
        raise ValueError(
            f"{place}: run_in='process' needs a function that can be imported by name, but "
            f"{fn.__module__}.{getattr(fn, '__qualname__', '?')} is something else; "
            "decorate it under its own name"
        )


def _takes_input(fn: Callable[..., Any], place: str) -> bool:
    """Whether to call it with the previous output (`True`) or with nothing (`False`)."""
    try:
        signature = calling_signature(fn)
    except Unsuited as refusal:
        raise TypeError(
            f"{place}: a task is called with one argument, the previous output, but this one "
            f"requires {refusal}; give the others defaults or bind them with functools.partial"
        ) from None
    # Some built-ins do not tell; one argument is what a task gets.
    return signature is None or input_parameter(signature) is not None
