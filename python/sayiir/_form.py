"""What a value must look like to fit an annotation, and how it is made from plain data.

A `Form` is one annotation understood: the types of plain data that may stand for it, and a function
that checks a plain value and gives what the annotation promises. Here are forms that need nothing
but themselves, and forms of containers; classes with fields are in `_fields`, unions in `_union`,
models of other libraries in `_models`. Which annotation asks for which form is decided in
`_annotation`.

What comes in has crossed the codec, so it holds exact plain types, is finite and at most 200 levels
deep. A refusal is a `Misfit`, which grows the path to the place on its way up and never shows the
value itself: what is stored may be secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ._values import LoopResult

__all__ = [
    "ANYTHING",
    "Convert",
    "Form",
    "Late",
    "Misfit",
    "exactly",
    "items_of",
    "key_part",
    "loop_result_of",
    "mapping_of",
    "optional",
    "scalar",
    "tuple_of",
    "type_word",
]

Convert: TypeAlias = Callable[[Any], Any]


class Misfit(Exception):
    """A value does not fit what is expected of it; `cause` is what the value's class raised, if so.

    >>> print(Misfit("int", "3").at("[0]").at(".sizes"))
    at $.sizes[0]: expected int, got str
    """

    def __init__(self, expected: str, value: object = None, *, problem: str | None = None) -> None:
        super().__init__()
        self.problem = problem or f"expected {expected}, got {type_word(value)}"
        self.parts: list[str] = []
        self.cause: BaseException | None = None

    def at(self, part: str) -> Misfit:
        """The same, seen from one level further out."""
        self.parts.append(part)
        return self

    def __str__(self) -> str:
        return f"at ${''.join(reversed(self.parts))}: {self.problem}"


def type_word(value: object) -> str:
    """What a message calls the type of a value.

    >>> type_word(None), type_word([1])
    ('None', 'list')
    """
    return "None" if value is None else type(value).__name__


def key_part(key: object) -> str:
    """The part of a path that a dict's key adds.

    >>> key_part("size"), key_part(3), key_part((1, 2))
    ("['size']", '[3]', '[<a key of type tuple>]')
    """
    if isinstance(key, str):
        return f"[{key if len(key) <= 40 else key[:40] + '…'!r}]"
    return f"[{key}]" if type(key) is int else f"[<a key of type {type(key).__name__}>]"


@dataclass(slots=True, eq=False)
class Form:
    """One annotation, understood."""

    word: str
    """How messages name what is expected."""
    convert: Convert | None
    """Checks a plain value and gives the one that is meant; `None` when anything will do."""
    types: frozenset[type] | None
    """The exact types of plain values that can stand for it; `None` when any can."""
    also: frozenset[type] = frozenset()
    """Types that stand for it where nothing else in a union claims them."""
    changes: bool = False
    """Whether values become something else than the plain ones they were."""
    keys: tuple[frozenset[str], frozenset[str]] | None = None
    """For dicts with fields: those that must be there, and all."""
    lengths: range | None = None
    """For tuples: how many items."""
    values: frozenset[tuple[type, Any]] | None = None
    """For Enum and Literal: the plain values, with their types."""
    tags: dict[str, frozenset[tuple[type, Any]]] = field(default_factory=dict)
    """For dicts with fields: those that can have certain values only."""
    leaf: frozenset[type] | None = None
    """For scalars: the types that are all that is asked for."""
    joint: tuple[str, Any] | None = None
    """The library that decides among several of its own in a union, and its type."""


ANYTHING = Form("anything", None, None)


class Late:
    """A converter that is not there yet, for a type that contains itself."""

    __slots__ = ("convert",)

    def __init__(self) -> None:
        self.convert: Convert | None = None

    def __call__(self, value: Any) -> Any:
        """Convert, once it is known how."""
        assert self.convert is not None
        return self.convert(value)


def scalar(word: str, *types: type, also: Iterable[type] = ()) -> Form:
    """Plain values of some types, as they are.

    >>> scalar("int", int, also=[bool]).convert(3)
    3
    """
    accepted = frozenset(types)
    every = accepted | frozenset(also)

    def convert(value: Any) -> Any:
        if type(value) in every:
            return value
        raise Misfit(word, value)

    return Form(word, convert, accepted, every - accepted, leaf=every)


def exactly(values: Iterable[tuple[Any, Any]], word: str) -> Form:
    """One of a few values; pairs of what is stored and what it stands for.

    >>> exactly([("a", "a"), (1, 1)], "Literal['a', 1]").convert("a")
    'a'
    """
    known = {(type(plain), plain): meant for plain, meant in values}

    def convert(value: Any) -> Any:
        try:
            return known[type(value), value]
        except (KeyError, TypeError):
            if type(value) in types:
                raise Misfit(
                    word, problem=f"expected {word}, got another {type_word(value)}"
                ) from None
            raise Misfit(word, value) from None

    types = frozenset(kind for kind, _ in known)
    changes = any(plain is not meant for (_, plain), meant in known.items())
    return Form(word, convert, types, changes=changes, values=frozenset(known))


def items_of(
    word: str, make: type | None, item: Form, *types: type, also: Iterable[type] = ()
) -> Form:
    """A container of items of one kind, made as `make`, or as what it was.

    >>> items_of("list[int]", None, scalar("int", int), list).convert([1, 2])
    [1, 2]
    """
    accepted = frozenset(types)
    every = accepted | frozenset(also)
    inner, leaf = item.convert, item.leaf
    # Members of a set have no place.
    numbered = not accepted & {set, frozenset}

    def convert(value: Any) -> Any:
        kind = type(value)
        if kind not in every:
            raise Misfit(word, value)
        made: Any = make or kind
        if inner is None or (leaf is not None and leaf.issuperset(map(type, value))):
            return value if kind is made else made(value)
        out: list[Any] = []
        add = out.append
        try:
            for one in value:
                add(inner(one))
        except Misfit as misfit:
            raise misfit.at(f"[{len(out)}]" if numbered else "<member>") from None
        if made is list:
            return out
        try:
            return made(out)
        except TypeError:
            raise Misfit(word, problem=f"an item cannot be a member of a {word}") from None

    return Form(word, convert, accepted, every - accepted, item.changes)


def tuple_of(word: str, items: list[Form]) -> Form:
    """A tuple with a form for each place; a list of that length will do.

    >>> tuple_of("tuple[int]", [scalar("int", int)]).convert((1,))
    (1,)
    """
    steps = [item.convert for item in items]
    size = len(steps)

    def convert(value: Any) -> Any:
        if type(value) is not tuple and type(value) is not list:
            raise Misfit(word, value)
        return tuple(converted(word, value, steps, size, size))

    changes = any(item.changes for item in items)
    lengths = range(size, size + 1)
    both = frozenset((tuple,)), frozenset((list,))
    return Form(word, convert, *both, changes=changes, lengths=lengths)


def converted(
    word: str, value: Iterable[Any], steps: list[Convert | None], least: int, most: int
) -> list[Any]:
    """Items converted place by place."""
    given = list(value)
    if not least <= len(given) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise Misfit(word, problem=f"expected {word} of {wanted} items, got {len(given)}")
    for index, one in enumerate(given):
        step = steps[index]
        if step is not None:
            try:
                given[index] = step(one)
            except Misfit as misfit:
                raise misfit.at(f"[{index}]") from None
    return given


def mapping_of(word: str, key: Form, value: Form) -> Form:
    """A dict whose keys and values are of one kind each.

    >>> mapping_of("dict[str, int]", ANYTHING, scalar("int", int)).convert({"a": 1})
    {'a': 1}
    """
    of_key, of_value = key.convert, value.convert

    def convert(given: Any) -> Any:
        if type(given) is not dict:
            raise Misfit(word, given)
        out = {}
        for name, one in given.items():
            try:
                # Both may be wrong; the key is told of first.
                made = name if of_key is None else of_key(name)
            except Misfit as misfit:
                raise misfit.at("<key>") from None
            try:
                out[made] = one if of_value is None else of_value(one)
            except Misfit as misfit:
                raise misfit.at(key_part(name)) from None
            except TypeError:
                raise Misfit(word, problem=f"a key of {word} cannot be hashed") from None
        return out

    return Form(word, convert, frozenset((dict,)), changes=key.changes or value.changes)


def optional(inner: Form) -> Form:
    """A form, or `None`.

    >>> optional(scalar("int", int)).convert(None) is None
    True
    """
    step = inner.convert
    if step is None or (inner.types is not None and type(None) in inner.types):
        return inner
    assert inner.types is not None or inner.joint is not None

    def convert(value: Any) -> Any:
        return None if value is None else step(value)

    def convert_late(value: Any) -> Any:
        # A long chain, such as a linked list, must not take more frames than it has to.
        return None if value is None else inner.convert(value)  # type: ignore[misc]

    types = None if inner.types is None else inner.types | {type(None)}
    chosen = convert_late if isinstance(step, Late) else convert
    return Form(f"{inner.word} | None", chosen, types, inner.also, inner.changes)


def loop_result_of(inner: Form) -> Form:
    """A `LoopResult` with a value of a form.

    >>> loop_result_of(scalar("int", int)).convert(LoopResult.done(1))
    LoopResult.done(1)
    """
    step = inner.convert
    word = f"LoopResult[{inner.word}]"

    def convert(value: Any) -> Any:
        if type(value) is not LoopResult:
            raise Misfit(word, value)
        if step is None:
            return value
        try:
            made = step(value.value)
        except Misfit as misfit:
            raise misfit.at(".value") from None
        return LoopResult("done" if value.is_done else "again", made)

    return Form(word, convert, frozenset((LoopResult,)), changes=inner.changes)
