"""Forms of classes whose values are put together from parts: dataclasses and their like, and Enums.

Each function gets the class and the forms of its fields and gives the function that makes a value.
The class itself is called, so `__post_init__` runs and its refusals are told; what a field is not
annotated to hold is refused before. A field that the class does not have is refused too: dropping
it would change the value, as when a subclass came where its base is expected.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from enum import Enum, Flag
from typing import Any

from ._form import Convert, Form, Misfit, converted, type_word

__all__ = ["Unfit", "dataclass_fields", "enum_form", "named_tuple_form", "typed_dict_fields"]


class Unfit(TypeError):
    """An annotation cannot be honoured; says why, but not whose annotation it is."""


def dataclass_fields(cls: type, word: str, forms: Mapping[str, Form], into: Form) -> Convert:
    """How a dataclass is made of a dict; `into` gets to know its fields.

    Raises:
        Unfit: The class cannot be called with its fields.
    """
    fields = dataclasses.fields(cls)
    made = frozenset(field.name for field in fields if not field.init)
    needed = frozenset(
        field.name
        for field in fields
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    _require_callable(cls, word, [field.name for field in fields if field.init])
    steps = {name: form.convert for name, form in forms.items()}
    into.keys = needed, frozenset(steps)
    into.tags = _tags(forms)

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(word, value)
        given: dict[str, Any] = {}
        for name, one in value.items():
            try:
                step = steps[name]
            except KeyError:
                raise _unknown(word, name) from None
            if step is None:
                given[name] = one
                continue
            try:
                given[name] = step(one)
            except Misfit as misfit:
                raise misfit.at(f".{name}") from None
        if not needed <= given.keys():
            raise _missing(word, needed - given.keys())
        later = {name: given.pop(name) for name in made if name in given} if made else None
        try:
            out = cls(**given)
        except Exception as failure:
            raise _refused(word, failure) from failure
        if later:
            for name, one in later.items():
                # The field takes no part in `__init__`; what it was is more than what is computed.
                object.__setattr__(out, name, one)
        return out

    return convert


def typed_dict_fields(
    word: str, forms: Mapping[str, Form], needed: frozenset[str], into: Form
) -> Convert:
    """How the values of a TypedDict are made; keys that it does not name stay as they are."""
    steps = {name: form.convert for name, form in forms.items()}
    into.keys = needed, frozenset(steps)
    into.tags = _tags(forms)

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(word, value)
        out = {}
        for name, one in value.items():
            step = steps.get(name)
            if step is None:
                out[name] = one
                continue
            try:
                out[name] = step(one)
            except Misfit as misfit:
                raise misfit.at(f"[{name!r}]") from None
        if not needed <= out.keys():
            raise _missing(word, needed - out.keys())
        return out

    return convert


def named_tuple_form(cls: Any, word: str, forms: list[Form], into: Form) -> Convert:
    """How a NamedTuple is made of a tuple, or of a list."""
    most = len(forms)
    least = most - len(getattr(cls, "_field_defaults", {}))
    steps = [form.convert for form in forms]
    into.lengths = range(least, most + 1)

    def convert(value: Any) -> Any:
        if type(value) is not tuple and type(value) is not list:
            raise Misfit(word, value)
        items = converted(word, value, steps, least, most)
        try:
            return cls(*items)
        except Exception as failure:
            raise _refused(word, failure) from failure

    return convert


def enum_form(cls: type[Enum], word: str) -> Form:
    """A member of an Enum, from its value.

    Raises:
        Unfit: A member has a value by which it cannot be found again.

    >>> from enum import Enum
    >>> enum_form(Enum("Size", {"SMALL": "s", "LARGE": "l"}), "Size").convert("s")
    <Size.SMALL: 's'>
    """
    members = list(cls)
    if not members:
        raise Unfit(f"{word} has no members")
    for member in members:
        if not _is_plain(member.value):
            raise Unfit(
                f"{word}.{member.name} has a value of type {type_word(member.value)}, by which a "
                "stored member could not be found again; give it a number or a text for a value"
            )
    types = frozenset(type(member.value) for member in members)
    found = {member.value: member for member in members}
    plain = frozenset((type(value), value) for value in found)
    if issubclass(cls, Flag):
        # Any combination is a value.
        types |= {int}

    def convert(value: Any) -> Any:
        if type(value) not in types:
            raise Misfit(word, value)
        member = found.get(value)
        if member is not None:
            return member
        try:
            # Combined flags, and what the class looks up in a way of its own.
            return cls(value)
        except (ValueError, KeyError, TypeError):
            problem = f"expected {word}, got {_article(value)} that is no value of it"
            raise Misfit(word, problem=problem) from None

    values = None if issubclass(cls, Flag) else plain
    return Form(word, convert, types, changes=True, values=values)


def _article(value: object) -> str:
    word = type_word(value)
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _is_plain(value: object) -> bool:
    """Whether a value comes back from the codec equal, of the same type, and can be hashed."""
    if type(value) is tuple:
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str, bytes)


def _missing(word: str, names: frozenset[str]) -> Misfit:
    listed = ", ".join(repr(name) for name in sorted(names))
    return Misfit(word, problem=f"{word} lacks {listed}")


def _unknown(word: str, name: object) -> Misfit:
    shown = repr(name[:40]) if isinstance(name, str) else f"of type {type_word(name)}"
    return Misfit(word, problem=f"{word} has no field {shown}")


def _refused(word: str, failure: Exception) -> Misfit:
    misfit = Misfit(word, problem=f"{word} refused its fields: {type(failure).__name__}")
    misfit.cause = failure
    return misfit


def _require_callable(cls: type, word: str, names: list[str]) -> None:
    """Refuse a class whose `__init__` does not take its fields by name, or needs more."""
    try:
        parameters = inspect.signature(cls).parameters
    except (ValueError, TypeError):
        return
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in names:
        known = parameters.get(name)
        if not takes_all and (known is None or known.kind is known.POSITIONAL_ONLY):
            raise Unfit(f"{word} cannot be made again: its __init__ does not take {name!r} by name")
    for name, parameter in parameters.items():
        if name in names or parameter.default is not parameter.empty:
            continue
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise Unfit(
                f"{word} cannot be made again: its __init__ needs {name!r}, which is no field and "
                "is not kept; give it a default"
            )


def _tags(forms: Mapping[str, Form]) -> dict[str, frozenset[tuple[type, Any]]]:
    """Fields that can have a few values only, by which one class may be told from another."""
    return {name: form.values for name, form in forms.items() if form.values is not None}
