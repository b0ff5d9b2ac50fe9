"""What the annotations of a callable ask for: of what it takes, and of what it gives.

They are read once, when the task is defined. Most ask for nothing (`int`, `dict[str, Any]`): such a
callable is called as it is. A name that is not defined yet makes them `Unresolved`; whoever asks
then asks again later. Names are looked up where the callable was written: in its module, among the
variables it closes over, and in the functions that are running around it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ._errors import DecodeError

if TYPE_CHECKING:
    from ._form import Form, Misfit

__all__ = [
    "Types",
    "Unresolved",
    "Unsuited",
    "calling_signature",
    "input_parameter",
    "types_of",
    "unfit_value",
]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Nothing has to be done for these, and nearly all tasks have no others.
_PLAIN = {
    inspect.Parameter.empty, Any, object, None, bool, int, float, str, bytes, list, dict, tuple,
    set, frozenset, "Any", "object", "None", "bool", "int", "float", "str", "bytes", "list", "dict",
    "tuple", "set", "frozenset", "dict[str, Any]", "list[str]", "list[int]", "list[Any]",
}  # fmt: skip


class Unresolved(Exception):
    """An annotation refers to a name that is not defined yet; `name` if it is known which."""

    def __init__(self, what: str, annotation: object, name: str | None) -> None:
        super().__init__(what, annotation, name)
        self.what = what
        self.annotation = annotation
        self.name = name

    def refusal(self, place: str) -> TypeError:
        """The error when it is too late."""
        shown = self.annotation if isinstance(self.annotation, str) else "it"
        hint = "define it, or import it outside of `if TYPE_CHECKING:`, before the flow is built"
        if self.name in ("msgspec", "pydantic"):
            hint = f"import it; without it, pip install 'sayiir[{self.name}]'"
        name = "a name in it" if self.name is None else repr(self.name)
        return TypeError(
            f"{place}: {self.what} is annotated {shown!r}, but {name} is not defined; {hint}"
        )


@dataclass(frozen=True, slots=True)
class Types:
    """What a callable's annotations ask for."""

    takes: Form | None
    """What it gets, if that has to be made from plain data."""
    gives: Form | None
    """What it returns, likewise."""


_NOTHING = Types(None, None)
_known: WeakKeyDictionary[Callable[..., Any], Types] = WeakKeyDictionary()


def types_of(fn: Callable[..., Any]) -> Types:
    """What the annotations of a callable ask for.

    Raises:
        Unresolved: They refer to a name that is not defined yet.
        TypeError: They cannot be honoured; says which and why.

    >>> types_of(len).takes is None
    True
    """
    try:
        return _known[fn]
    except (KeyError, TypeError):
        pass
    found = _read(fn)
    if isinstance(fn, types.FunctionType):
        _known[fn] = found
    return found


class Unsuited(Exception):
    """A callable cannot be called with one argument or none; says what it requires."""


def calling_signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature by which a callable can be called with one argument or none.

    `None` if it does not tell, as some built-ins.

    Raises:
        Unsuited: It needs more.
    """
    refusal = ""
    # A wrapper that supplies an argument itself still shows its inner function's signature, so
    # when that one does not fit, its own is asked.
    for follow in (True, False):
        try:
            signature = _signature(fn, follow)
        except (ValueError, TypeError):
            return None
        required = [p for p in signature.parameters.values() if p.default is p.empty]
        named = [p.name for p in required if p.kind is p.KEYWORD_ONLY]
        needed = [p.name for p in required if p.kind in _POSITIONAL]
        if not named and len(needed) <= 1:
            return signature
        what = f"the keyword {named[0]!r}" if named else f"{len(needed)} arguments {tuple(needed)}"
        refusal = refusal or what
    raise Unsuited(refusal)


def input_parameter(signature: inspect.Signature) -> inspect.Parameter | None:
    """The parameter that gets the previous output, if there is one."""
    parameters = signature.parameters.values()
    return next((p for p in parameters if p.kind in (*_POSITIONAL, p.VAR_POSITIONAL)), None)


def _signature(fn: Callable[..., Any], follow: bool) -> inspect.Signature:
    """The signature, without evaluating annotations that are not there yet."""
    try:
        return inspect.signature(fn, follow_wrapped=follow)
    except NameError:
        if sys.version_info >= (3, 14):
            import annotationlib

            text = annotationlib.Format.STRING
            return inspect.signature(fn, follow_wrapped=follow, annotation_format=text)
        raise


def unfit_value(misfit: Misfit, what: str) -> DecodeError:
    """The error for a value that does not fit; it is raised from `misfit.cause`, if there is one.

    Args:
        misfit: Why and where.
        what: What the value is, such as `"the input of task 'charge'"`.
    """
    error = DecodeError(f"{what} does not fit its annotation: {misfit}")
    # The same value would come again.
    error.__dict__["final"] = True
    return error


def _read(fn: Callable[..., Any]) -> Types:
    if isinstance(fn, type) and fn.__module__ == "builtins":
        return _NOTHING
    try:
        signature = calling_signature(fn)
    except Unsuited:
        return _NOTHING
    if signature is None:
        return _NOTHING
    taken = input_parameter(signature)
    raw_taken = inspect.Parameter.empty if taken is None else taken.annotation
    raw_given = fn if isinstance(fn, type) else signature.return_annotation
    if _is_plain(raw_taken) and _is_plain(raw_given):
        return _NOTHING
    # Not before it is needed: most programs never do.
    from ._annotation import Reader

    owner = _owner(fn)
    reader = Reader(functools.partial(_names, owner))
    takes = gives = None
    if taken is not None and not _is_plain(raw_taken):
        takes = _form(reader, owner, raw_taken, f"its parameter {taken.name!r}")
    if isinstance(fn, type):
        gives = _made(reader, fn)
    elif not _is_plain(raw_given):
        gives = _form(reader, owner, raw_given, "what it returns")
    return Types(takes, gives)


def _is_plain(annotation: object) -> bool:
    try:
        return annotation in _PLAIN
    except TypeError:
        return False


def _form(reader: Any, owner: Any, raw: Any, what: str) -> Form | None:
    """The form of one annotation; `None` if it asks for nothing."""
    from ._annotation import word_of
    from ._fields import Unfit

    try:
        annotation = _evaluated(owner, raw)
        origin = typing.get_origin(annotation)
        if what == "what it returns" and origin in _AWAITED:
            annotation = typing.get_args(annotation)[-1]
        form: Form = reader.form(annotation)
    except NameError as missing:
        raise Unresolved(what, raw, missing.name) from missing
    except Unfit as refusal:
        shown = raw if isinstance(raw, str) else word_of(raw)
        raise TypeError(f"{what} is annotated {shown}, which cannot be honoured: {refusal}") from (
            refusal.__cause__
        )
    return form if form.changes else None


_AWAITED = (Awaitable, Coroutine)


def _made(reader: Any, cls: type) -> Form | None:
    """The form of what a class gives when it is the task itself."""
    from ._fields import Unfit

    try:
        form: Form = reader.form(cls)
    except Unfit:
        # Its instances may be stored in a way of their own; nobody has annotated anything.
        return None
    except NameError as missing:
        raise Unresolved("what it returns", cls.__name__, missing.name) from missing
    return form if form.changes else None


def _evaluated(owner: Any, raw: Any) -> Any:
    """An annotation with the names in it looked up.

    Raises:
        NameError: One is not defined.
        TypeError: It is no annotation.
    """

    def holder() -> None: ...

    holder.__annotations__ = {"it": raw}
    places = getattr(owner, "__globals__", None)
    if places is None:
        places = vars(sys.modules.get(getattr(owner, "__module__", None) or "", types))
    try:
        try:
            return typing.get_type_hints(holder, places, include_extras=True)["it"]
        except NameError:
            names = _names(owner)
            return typing.get_type_hints(holder, places, names, include_extras=True)["it"]
    except AttributeError as missing:
        # Of a module that is still being imported, as it is where two import one another.
        raise NameError(str(missing), name=missing.name) from missing
    except (SyntaxError, TypeError) as failure:
        from ._fields import Unfit

        raise Unfit(f"it cannot be evaluated: {failure}") from failure


def _owner(fn: Any) -> Any:
    """The function whose module says what the names in a signature mean."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif isinstance(fn, type):
            made = getattr(fn, "__init__", None)
            return made if isinstance(made, types.FunctionType) else fn
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif isinstance(fn, types.FunctionType):
            return fn
        else:
            call = getattr(type(fn), "__call__", None)  # noqa: B004 - its annotations are meant
            return call if isinstance(call, types.FunctionType) else fn


def _names(owner: Any) -> dict[str, Any]:
    """Names that a function sees besides those of its module, the nearest ones first."""
    names: dict[str, Any] = {}
    places = getattr(owner, "__globals__", None)
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        # A function that is running in the same module may be the one it is written in.
        if frame.f_globals is places and frame.f_locals is not places:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    code = getattr(owner, "__code__", None)
    for name, cell in zip(
        getattr(code, "co_freevars", ()), getattr(owner, "__closure__", None) or (), strict=False
    ):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue
    return names
