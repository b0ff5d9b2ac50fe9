"""From a type, as an annotation says it, to the form that values must have.

Every type is either understood wholly, or refused with a sentence; what cannot be a value of a step
(a socket, a generator) is refused as well. Types may contain themselves. Names are resolved where
the class or the function stands, which is the business of `_signature`; nothing is known here of
tasks, and nothing is evaluated but the annotations of classes.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import re
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ._fields import Unfit, dataclass_fields, enum_form, named_tuple_form, typed_dict_fields
from ._form import (
    ANYTHING,
    Form,
    Late,
    exactly,
    items_of,
    loop_result_of,
    mapping_of,
    optional,
    scalar,
    tuple_of,
)
from ._models import is_model, is_struct, model_form, struct_form
from ._union import union_of
from ._values import EventTimeout, LoopDict, LoopResult, MapError

__all__ = ["Names", "Reader", "word_of"]

Names = Callable[[], dict[str, Any]]
"""Gives what names mean where an annotation stands, beyond its own module."""

NONE = type(None)
_SCALARS: dict[Any, Form] = {
    NONE: scalar("None", NONE),
    bool: scalar("bool", bool),
    int: scalar("int", int, also=[bool]),
    # The numeric tower of annotations: an int is good where a float is asked for.
    float: scalar("float", float, also=[int, bool]),
    str: scalar("str", str),
    typing.LiteralString: scalar("str", str),
    bytes: scalar("bytes", bytes),
    datetime.datetime: scalar("datetime", datetime.datetime),
    datetime.date: scalar("date", datetime.date, also=[datetime.datetime]),
    datetime.time: scalar("time", datetime.time),
    datetime.timedelta: scalar("timedelta", datetime.timedelta),
    decimal.Decimal: scalar("Decimal", decimal.Decimal),
    uuid.UUID: scalar("UUID", uuid.UUID),
    EventTimeout: scalar("EventTimeout", EventTimeout),
    MapError: scalar("MapError", MapError),
    Any: ANYTHING,
    object: ANYTHING,
    inspect.Parameter.empty: ANYTHING,
    typing.NoReturn: ANYTHING,
    typing.Never: ANYTHING,
    # The engine keeps what it stands for.
    LoopDict: ANYTHING,
}
# What is made of them, the types that may stand for them, and those that may for want of others.
_LISTLIKE: dict[Any, tuple[type | None, tuple[type, ...], tuple[type, ...]]] = {
    **dict.fromkeys((list, abc.MutableSequence), (list, (list,), (tuple,))),
    **dict.fromkeys(
        (abc.Sequence, abc.Collection, abc.Iterable, abc.Container, abc.Reversible),
        (None, (list, tuple), ()),
    ),
    tuple: (tuple, (tuple,), (list,)),
    **dict.fromkeys((set, abc.MutableSet), (set, (set,), (list, frozenset))),
    frozenset: (frozenset, (frozenset,), (list, set)),
    abc.Set: (None, (set, frozenset), ()),
}
_DICTS = {dict, abc.Mapping, abc.MutableMapping}
_NO_VALUES = {
    abc.Callable, abc.Iterator, abc.Generator, abc.Awaitable, abc.Coroutine, abc.AsyncIterable,
    abc.AsyncIterator, abc.AsyncGenerator, type,
}  # fmt: skip
_UNIONS = {typing.Union, types.UnionType}
_MARKS = {typing.Required, typing.NotRequired, typing.Final, typing.ClassVar}


def word_of(annotation: Any) -> str:
    """What a message calls a type: without the modules it comes from.

    >>> word_of(int), word_of(list[decimal.Decimal]), word_of(int | None)
    ('int', 'list[Decimal]', 'int | None')
    """
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "None" if annotation is NONE else annotation.__name__
    # The repr of an Enum's member, in a Literal, begins with "<" and stays whole.
    return re.sub(r"(?<![\w<'\"])(?:(?:\w+|<locals>)\.)+(?=\w)", "", str(annotation))[:200]


class Reader:
    """Reads the annotations of one place.

    Args:
        names: What names mean there, asked only when a class refers to one that its module lacks.

    >>> Reader(dict).form(list[uuid.UUID]).changes
    False
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[Any, Form] = {}
        self._open: list[Any] = []

    def form(self, annotation: Any) -> Form:
        """The form that an annotation asks for.

        Raises:
            Unfit: It cannot be honoured.
            NameError: It refers to a name that is not defined yet.
        """
        try:
            found = _SCALARS.get(annotation) or self._known.get(annotation)
        except TypeError:
            # A Literal or an Annotated with something in it that cannot be hashed.
            return self._read(annotation)
        if found is None:
            found = self._read(annotation)
            # A class with fields has put itself there before it came to its fields.
            self._known.setdefault(annotation, found)
        return found

    def _read(self, annotation: Any) -> Form:
        if annotation is None:
            return _SCALARS[NONE]
        if isinstance(annotation, typing.TypeVar):
            # What it stands for is known to the type checker alone, but within its bound.
            return ANYTHING if annotation.__bound__ is None else self.form(annotation.__bound__)
        if isinstance(annotation, str | typing.ForwardRef):
            name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            raise NameError(f"name {name!r} is not defined", name=name)
        if (supertype := getattr(annotation, "__supertype__", None)) is not None:
            return self.form(supertype)
        if type(annotation).__name__ == "TypeAliasType":
            return self._alias(annotation)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(annotation, arguments)
        if origin is typing.Literal:
            return self._literal(annotation, arguments)
        if origin in _UNIONS:
            return self._union(annotation, arguments)
        if origin in _MARKS or str(origin).endswith(".ReadOnly"):
            return self.form(arguments[0])
        cls = annotation if origin is None else origin
        if annotation is typing.Self:
            raise Unfit("Self is not followed; write the name of the class itself")
        if not isinstance(cls, type):
            raise Unfit(f"{word_of(annotation)} is no type whose values could be told")
        return self._container(annotation, cls, arguments) or self._class(
            annotation, cls, arguments
        )

    def _alias(self, annotation: Any) -> Form:
        """`type Name = …`, which may refer to itself."""
        if annotation in self._open:
            raise Unfit(
                f"{word_of(annotation)} contains itself; of types that do, only classes can be "
                "honoured"
            )
        self._open.append(annotation)
        try:
            return self.form(annotation.__value__)
        except Unfit:
            if self._is_plain_alias(annotation):
                return ANYTHING
            raise
        finally:
            self._open.remove(annotation)

    def _is_plain_alias(self, annotation: Any) -> bool:
        """Whether nothing in a recursive alias, such as that of JSON, needs to be made."""
        waiting, seen = [annotation], []
        while waiting:
            part = waiting.pop()
            if type(part).__name__ == "TypeAliasType":
                if part not in seen:
                    seen.append(part)
                    waiting.append(part.__value__)
            elif typing.get_origin(part) is not typing.Literal and typing.get_args(part):
                waiting.extend(one for one in typing.get_args(part) if one is not ...)
            elif self.form(part).changes:
                return False
        return True

    def _annotated(self, annotation: Any, arguments: tuple[Any, ...]) -> Form:
        """A type with notes; those of the two libraries are theirs to keep."""
        for note in arguments[1:]:
            library = type(note).__module__.partition(".")[0]
            if library == "msgspec":
                return struct_form(annotation, word_of(arguments[0]), None, self.form)
            if library == "pydantic":
                return model_form(annotation, word_of(arguments[0]), None, self._names)
        return self.form(arguments[0])

    def _literal(self, annotation: Any, arguments: tuple[Any, ...]) -> Form:
        pairs = [(one.value if isinstance(one, enum.Enum) else one, one) for one in arguments]
        return exactly(pairs, word_of(annotation))

    def _union(self, annotation: Any, arguments: tuple[Any, ...]) -> Form:
        word = word_of(annotation)
        others = [one for one in arguments if one is not NONE]
        if len(others) == 1:
            return optional(self.form(others[0]))
        forms = [self.form(one) for one in arguments]
        for library in ("msgspec", "pydantic"):
            # Among its own, each library decides itself, unless what is stored tells them apart.
            own = [form for form in forms if form.joint is not None and form.joint[0] == library]
            every = [kind for form in own for kind in form.types or (None,)]
            if len(every) == len(set(every)):
                continue
            forms = [form for form in forms if form not in own] + [self._joint(library, own)]
        if len(forms) == 1:
            return forms[0]
        if len(forms) == 2 and NONE in arguments:
            return optional(next(form for form in forms if form is not _SCALARS[NONE]))
        return union_of(word, forms)

    def _joint(self, library: str, forms: list[Form]) -> Form:
        """Several types of one library as one."""
        joint: Any = typing.Union[tuple(form.joint[1] for form in forms if form.joint)]  # noqa: UP007
        word = " | ".join(form.word for form in forms)
        types = [form.types for form in forms]
        every = None if None in types else frozenset[type]().union(*(one or () for one in types))
        if library == "msgspec":
            return struct_form(joint, word, every, self.form)
        return model_form(joint, word, every, self._names)

    def _container(self, annotation: Any, cls: type, arguments: tuple[Any, ...]) -> Form | None:
        """A list, a tuple, a set, a dict, or what stands for one of them."""
        word = word_of(annotation)
        if cls in _DICTS:
            key, value = (self.form(one) for one in arguments or (Any, Any))
            return mapping_of(word, key, value)
        if cls is LoopResult:
            return loop_result_of(self.form(arguments[0] if arguments else Any))
        if cls is tuple and arguments and arguments[-1] is not ...:
            return tuple_of(word, [self.form(one) for one in arguments])
        if annotation == tuple[()]:
            return tuple_of(word, [])
        kinds = _LISTLIKE.get(cls)
        if kinds is None:
            return None
        make, types, also = kinds
        item = self.form(arguments[0]) if arguments else ANYTHING
        return items_of(word, make, item, *types, also=also)

    def _class(self, annotation: Any, cls: type, arguments: tuple[Any, ...]) -> Form:
        """A class of the user's, or one that no value of a step is of."""
        word = word_of(annotation)
        if issubclass(cls, enum.Enum):
            return enum_form(cls, word)
        if is_struct(cls):
            array = getattr(cls, "__struct_config__").array_like  # noqa: B009 - of no known class
            return struct_form(annotation, word, frozenset((list if array else dict,)), self.form)
        if is_model(cls):
            root = getattr(cls, "__pydantic_root_model__", False)
            types = None if root else frozenset((dict,))
            return model_form(annotation, word, types, self._names)
        if dataclasses.is_dataclass(cls):
            form = self._begin(annotation, word, dict)
            forms = self._dataclass(cls, self._meanings(cls, arguments))
            return self._finish(form, dataclass_fields(cls, word, forms, form))
        if typing.is_typeddict(cls):
            form = self._begin(annotation, word, dict)
            forms, needed = self._typed_dict(cls, self._meanings(cls, arguments))
            return self._finish(form, typed_dict_fields(word, forms, needed, form))
        if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
            form = self._begin(annotation, word, tuple, also=list)
            hints = self._hints(cls)
            meanings = self._meanings(cls, arguments)
            names = cls._fields  # type: ignore[attr-defined]
            items = [self.form(_meant(hints.get(name, Any), meanings)) for name in names]
            return self._finish(form, named_tuple_form(cls, word, items, form))
        if cls in _NO_VALUES:
            raise Unfit(f"a value of type {word} cannot be stored between steps")
        if getattr(cls, "_is_protocol", False) or inspect.isabstract(cls):
            # Whatever a value can do; which plain values can is not told by their type.
            return ANYTHING
        raise Unfit(
            f"values of type {word} are not carried from step to step; annotate plain data, a "
            "dataclass, an Enum, a NamedTuple, a TypedDict, or a model of msgspec or pydantic"
        )

    def _begin(self, annotation: Any, word: str, kind: type, also: type | None = None) -> Form:
        """The form of a class before its fields are known, which may be of that class."""
        form = Form(word, Late(), frozenset((kind,)), changes=True)
        if also is not None:
            form.also = frozenset((also,))
        self._known[annotation] = form
        return form

    def _finish(self, form: Form, convert: Callable[[Any], Any]) -> Form:
        late = form.convert
        assert isinstance(late, Late)
        late.convert = form.convert = convert
        return form

    def _dataclass(self, cls: type, meanings: Mapping[Any, Any]) -> dict[str, Form]:
        hints = self._hints(cls)
        forms = {}
        for field in dataclasses.fields(cls):
            form = self._field(cls, field.name, _meant(hints.get(field.name, Any), meanings))
            # `name: str = None` says that None will do, if not in so many words.
            forms[field.name] = optional(form) if field.default is None else form
        return forms

    def _typed_dict(
        self, cls: Any, meanings: Mapping[Any, Any]
    ) -> tuple[dict[str, Form], frozenset[str]]:
        hints = self._hints(cls)
        needed = set(cls.__required_keys__)
        for name, hint in hints.items():
            # Annotations that were texts when the class was made are not in __required_keys__.
            while (origin := typing.get_origin(hint)) is typing.Annotated:
                hint = typing.get_args(hint)[0]
            if origin is typing.NotRequired:
                needed.discard(name)
            elif origin is typing.Required:
                needed.add(name)
        forms = {
            name: self._field(cls, name, _meant(hint, meanings)) for name, hint in hints.items()
        }
        return forms, frozenset(needed)

    def _field(self, cls: type, name: str, hint: Any) -> Form:
        try:
            return self.form(hint)
        except Unfit as refusal:
            raise Unfit(f"{cls.__name__}.{name}: {refusal}") from None

    def _hints(self, cls: type) -> dict[str, Any]:
        """The annotations of a class and its bases."""
        try:
            return typing.get_type_hints(cls, include_extras=True)
        except NameError:
            names = {cls.__name__: cls, **self._names()}
            return typing.get_type_hints(cls, localns=names, include_extras=True)

    def _meanings(self, cls: type, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """What the type variables of a generic class and of its bases stand for."""
        found = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
        for base in getattr(cls, "__orig_bases__", ()):
            origin = typing.get_origin(base)
            if isinstance(origin, type) and origin is not typing.Generic:
                given = tuple(_meant(one, found) for one in typing.get_args(base))
                found = {**self._meanings(origin, given), **found}
        return found


def _meant(annotation: Any, meanings: Mapping[Any, Any]) -> Any:
    """An annotation with type variables replaced by what they stand for."""
    if isinstance(annotation, typing.TypeVar):
        return meanings.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not meanings or not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(meanings.get(one, one) for one in parameters)]
