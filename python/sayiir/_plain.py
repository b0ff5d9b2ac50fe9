"""The plain form of a value: what is stored of an Enum, a NamedTuple, a dataclass or a model.

The codec walks plain data by itself and asks here about everything else. The form is chosen by what
the value is, never by what somebody expected it to be, and it is enough to make the value again:

* an Enum member gives its value, a NamedTuple a tuple, a dataclass the dict of its fields;
* a `msgspec.Struct` the dict (or list) of its fields under their encoded names, with its tag;
* a pydantic model what `model_dump` gives, under the names of the fields.

Only one layer is taken off, and the codec goes on with what is inside; pydantic takes off its own.
No library is imported for this: a value can be of a model only if its library is loaded. How a
value is made again is not known here, but in `_converter`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeAlias

__all__ = ["plain_form"]

Shape: TypeAlias = Callable[[Any], Any]

MAX_KNOWN = 1024
"""So many classes are remembered; a program that makes classes as it goes must not fill memory."""

# A class that is one of these as well has contents that its fields do not tell.
_CARRIED = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, BaseException)
_shapes: dict[type, Shape | None] = {}


def plain_form(value: object) -> Any:
    """One layer less of a value that the codec does not carry; `NotImplemented` if it has none.

    Raises:
        Exception: What the value's own code raises, such as a serializer of a model.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: int
    ...     y: int
    >>> plain_form(Point(1, 2)), plain_form(object())
    ({'x': 1, 'y': 2}, NotImplemented)
    """
    cls = type(value)
    try:
        shape = _shapes[cls]
    except KeyError:
        shape = _shape_of(cls)
        if len(_shapes) >= MAX_KNOWN:
            _shapes.clear()
        _shapes[cls] = shape
    return NotImplemented if shape is None else shape(value)


def _shape_of(cls: type) -> Shape | None:
    """How values of a class are made plain."""
    if issubclass(cls, Enum):
        return _enum
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and issubclass(cls, msgspec.Struct):
        return _struct(cls, msgspec.UNSET)
    # An instance of a model of pydantic 1 has neither of these.
    if hasattr(cls, "__pydantic_serializer__") and "pydantic" in sys.modules:
        return _model if hasattr(cls, "model_dump") else _serialized
    if issubclass(cls, tuple):
        return tuple if isinstance(getattr(cls, "_fields", None), tuple) else None
    if is_dataclass(cls) and not issubclass(cls, _CARRIED):
        return _dataclass(cls)
    return None


def _enum(value: Enum) -> Any:
    return value.value


def _model(value: Any) -> Any:
    # What a validator put there is judged by the one who validates it again, not by a warning here.
    return value.model_dump(round_trip=True, by_alias=False, warnings=False)


def _serialized(value: Any) -> Any:
    """A dataclass of pydantic, which has no method of its own for this."""
    return value.__pydantic_serializer__.to_python(
        value, round_trip=True, by_alias=False, warnings=False
    )


def _dataclass(cls: type) -> Shape:
    needed = tuple(field.name for field in fields(cls) if field.init)
    made = tuple(field.name for field in fields(cls) if not field.init)
    if not made:
        return lambda value: {name: getattr(value, name) for name in needed}

    def shape(value: Any) -> dict[str, Any]:
        plain = {name: getattr(value, name) for name in needed}
        # What `__init__` does not take may never have been set.
        plain.update((name, getattr(value, name)) for name in made if hasattr(value, name))
        return plain

    return shape


def _struct(cls: Any, unset: object) -> Shape:
    config = cls.__struct_config__
    names = cls.__struct_fields__
    encoded = tuple(zip(names, cls.__struct_encode_fields__, strict=True))
    if config.array_like:
        first = [] if config.tag is None else [config.tag]
        return lambda value: [*first, *(getattr(value, name) for name in names)]
    tag = {} if config.tag is None else {config.tag_field: config.tag}

    def shape(value: Any) -> dict[str, Any]:
        plain = dict(tag)
        for name, key in encoded:
            item = getattr(value, name)
            if item is not unset:
                plain[key] = item
        return plain

    return shape
