"""Forms of unions: which member a plain value is meant to be.

The type of the value decides; where several members are stored as the same type, their fields, the
values of a `Literal` or Enum, or the number of items do. What would have to be guessed is refused
when the annotation is read: a dict could be an `Order` or a `dict[str, Any]`, and no look at it
tells which.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from ._fields import Unfit
from ._form import ANYTHING, Convert, Form, Misfit

__all__ = ["union_of"]


def union_of(word: str, forms: list[Form]) -> Form:
    """One of several forms.

    Raises:
        Unfit: Two of them could be meant by one value.

    >>> from ._form import scalar
    >>> union_of("int | None", [scalar("int", int), scalar("None", type(None))]).convert(3)
    3
    """
    changes = any(form.changes for form in forms)
    if any(form.types is None for form in forms):
        if not changes:
            return ANYTHING
        raise Unfit(f"in {word} any value at all could be meant by one member; name its type")
    claims: dict[type, list[Form]] = {}
    for form in forms:
        for kind in form.types or ():
            claims.setdefault(kind, []).append(form)
    spare: dict[type, list[Form]] = {}
    for form in forms:
        for kind in form.also - claims.keys():
            spare.setdefault(kind, []).append(form)
    steps = {kind: _decide(word, kind, claiming) for kind, claiming in claims.items()}
    for kind, claiming in spare.items():
        if len(claiming) == 1 and claiming[0].convert is not None:
            steps[kind] = claiming[0].convert

    def convert(value: Any) -> Any:
        step = steps.get(type(value))
        if step is None:
            raise Misfit(word, value)
        return step(value)

    every = [form.values for form in forms]
    values = frozenset[Any]().union(*(one for one in every if one is not None))
    return Form(
        word,
        convert,
        frozenset(claims),
        frozenset(steps) - frozenset(claims),
        changes,
        values=None if None in every else values,
    )


def _decide(word: str, kind: type, forms: list[Form]) -> Convert:
    """How a value of one plain type is understood."""
    if len(forms) == 1:
        assert forms[0].convert is not None
        return forms[0].convert
    if not any(form.changes for form in forms):
        return _whichever(word, forms)
    if kind is dict and all(form.keys is not None for form in forms):
        return _by_fields(word, forms)
    if kind is tuple and all(form.lengths is not None for form in forms):
        return _by_length(word, forms)
    if all(form.values is not None for form in forms):
        return _by_value(word, forms)
    raise _ambiguous(word, forms[0], forms[1], f"a stored {kind.__name__} could be either")


def _ambiguous(word: str, one: Form, other: Form, why: str) -> Unfit:
    return Unfit(f"in {word}, {one.word} and {other.word} cannot be told apart: {why}")


def _whichever(word: str, forms: list[Form]) -> Convert:
    """Plain values stay what they are, so it does not matter whose they are."""
    steps = [form.convert for form in forms]

    def convert(value: Any) -> Any:
        for step in steps:
            try:
                return value if step is None else step(value)
            except Misfit:
                continue
        raise Misfit(word, problem=f"expected {word}, got a {type(value).__name__} like none of it")

    return convert


def _chosen(word: str, choose: Callable[[Any], list[Form]], none: str) -> Convert:
    """Convert as the only form that is chosen for a value."""

    def convert(value: Any) -> Any:
        found = choose(value)
        if len(found) != 1:
            several = " and ".join(form.word for form in found)
            problem = f"it could be {several}" if found else none
            raise Misfit(word, problem=f"expected {word}, and {problem}")
        step = found[0].convert
        return value if step is None else step(value)

    return convert


def _by_length(word: str, forms: list[Form]) -> Convert:
    for one, other in combinations(forms, 2):
        if set(one.lengths or ()) & set(other.lengths or ()):
            raise _ambiguous(word, one, other, "both can have the same number of items")

    def choose(value: Any) -> list[Form]:
        return [form for form in forms if form.lengths is not None and len(value) in form.lengths]

    return _chosen(word, choose, "none of it has so many items")


def _by_value(word: str, forms: list[Form]) -> Convert:
    for one, other in combinations(forms, 2):
        if (one.values or frozenset()) & (other.values or frozenset()):
            raise _ambiguous(word, one, other, "both have a member that is stored as the same")

    def choose(value: Any) -> list[Form]:
        return [form for form in forms if form.values and (type(value), value) in form.values]

    return _chosen(word, choose, "it is no value of any of them")


def _by_fields(word: str, forms: list[Form]) -> Convert:
    for one, other in combinations(forms, 2):
        assert one.keys is not None
        assert other.keys is not None
        tagged = any(
            not values & other.tags[name] for name, values in one.tags.items() if name in other.tags
        )
        if one.keys[1] == other.keys[1] and not tagged:
            raise _ambiguous(
                word,
                one,
                other,
                "they have the same fields; give each a field of a Literal type with another value",
            )

    def choose(value: Any) -> list[Form]:
        keys = value.keys()
        fitting = [form for form in forms if _tags_fit(form, value)]
        named = [form for form in fitting if form.tags.keys() & keys]
        if len(named) == 1:
            # It may still lack a field, of which its own converter tells best.
            return named
        fitting = [form for form in fitting if form.keys and form.keys[0] <= keys <= form.keys[1]]
        exact = [form for form in fitting if form.keys and keys == form.keys[1]]
        return exact or fitting

    return _chosen(word, choose, "its fields are those of none of them")


def _tags_fit(form: Form, value: dict[Any, Any]) -> bool:
    for name, values in form.tags.items():
        if name in value:
            try:
                if (type(value[name]), value[name]) not in values:
                    return False
            except TypeError:
                return False
    return True
