"""Forms of types that another library understands: `msgspec.Struct` and the models of pydantic.

The library itself converts, so its own rules hold: constraints, aliases, validators, tagged unions.
Both are optional; each is imported when the first annotation needs it, and what is missing is said
then. Their messages are kept as far as they do not show the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._fields import Unfit
from ._form import Convert, Form, Misfit, key_part

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["is_model", "is_struct", "model_form", "struct_form"]

_PYDANTIC = (2, 11)
"""The first version that takes fields by name whatever their aliases."""

_QUOTED = re.compile(r"^(Invalid (?:enum )?value)\b.*", re.DOTALL)
_RELAXED = {"is_instance_of", "enum", "model_type", "dataclass_type", "dataclass_exact_type"}
"""What a strict model says of a field whose plain form is not of the field's own class."""


def is_struct(cls: type) -> bool:
    """Whether it is a class of `msgspec.Struct`.

    >>> is_struct(int)
    False
    """
    return hasattr(cls, "__struct_fields__") and hasattr(cls, "__struct_config__")


def is_model(cls: type) -> bool:
    """Whether it is a model or a dataclass of pydantic, of any version.

    >>> is_model(int)
    False
    """
    module = next((base.__module__ for base in cls.__mro__ if base.__name__ == "BaseModel"), "")
    return hasattr(cls, "__pydantic_validator__") or module.partition(".")[0] == "pydantic"


def struct_form(
    annotation: Any, word: str, types: frozenset[type] | None, inner: Callable[[Any], Form]
) -> Form:
    """A `msgspec.Struct`, a union of such, or a type with a `msgspec.Meta`.

    Args:
        annotation: The type.
        word: How messages name it.
        types: The types of plain values that stand for it.
        inner: Gives the form of a type that msgspec does not know.

    Raises:
        Unfit: msgspec is missing, or cannot decode the type.
        NameError: The type refers to one that is not defined yet.
    """
    try:
        import msgspec
        import msgspec.inspect
    except ImportError as missing:
        raise _missing("msgspec", word) from missing
    try:
        info = msgspec.inspect.type_info(annotation)
    except NameError:
        raise
    except Exception as refusal:
        raise Unfit(f"msgspec cannot decode {word}: {refusal}") from refusal
    custom: dict[Any, Convert] = {}
    for cls in _custom_types(info):
        step = inner(cls).convert
        if step is not None:
            custom[cls] = step
    validation_error = msgspec.ValidationError
    build = msgspec.convert
    hook = _hook(custom) if custom else None

    def convert(value: Any) -> Any:
        try:
            return build(value, annotation, dec_hook=hook)
        except validation_error as refusal:
            text, _, place = str(refusal).partition(" - at `$")
            misfit = Misfit(word, problem=_QUOTED.sub(r"\1", text))
            misfit.cause = refusal.__cause__
        except Exception as failure:
            misfit = Misfit(word, problem=f"{word} refused its fields: {type(failure).__name__}")
            misfit.cause, place = failure, ""
        raise misfit.at(place.rstrip("`")) if place else misfit

    return Form(word, convert, types, changes=True, joint=("msgspec", annotation))


def _hook(custom: Mapping[Any, Convert]) -> Callable[[type, Any], Any]:
    def hook(cls: type, value: Any) -> Any:
        step = custom.get(cls)
        try:
            return value if step is None else step(value)
        except Misfit as misfit:
            # msgspec adds its own path in front of the text of a ValueError.
            place = "".join(reversed(misfit.parts))
            raise ValueError(f"{place}: {misfit.problem}" if place else misfit.problem) from None

    return hook


def _custom_types(info: Any) -> Iterator[Any]:
    """The types somewhere in it that msgspec leaves to others."""
    import msgspec

    seen: set[int] = set()
    waiting = [info]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple | list):
            waiting.extend(node)
        elif isinstance(node, msgspec.inspect.CustomType):
            yield node.cls
        elif type(node).__module__ == "msgspec.inspect" and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(getattr(node, name) for name in type(node).__struct_fields__)


def model_form(
    annotation: Any, word: str, types: frozenset[type] | None, names: Callable[[], dict[str, Any]]
) -> Form:
    """A pydantic model, a union of such, or a type with a `pydantic.Field`.

    Args:
        annotation: The type.
        word: How messages name it.
        types: The types of plain values that stand for it.
        names: What names mean where the annotation stands.

    Raises:
        Unfit: pydantic is missing, too old, or cannot validate the type.
        NameError: The type refers to one that is not defined yet.
    """
    try:
        import pydantic
    except ImportError as missing:
        raise _missing("pydantic", word) from missing
    found = pydantic.VERSION
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _PYDANTIC:
        raise Unfit(
            f"{word} needs pydantic 2.11 or newer, and this is {found}; "
            "pip install --upgrade 'sayiir[pydantic]'"
        )
    try:
        if not getattr(annotation, "__pydantic_complete__", True):
            annotation.model_rebuild(_types_namespace=names())
        adapter = pydantic.TypeAdapter[Any](annotation)
        if not adapter.pydantic_complete:
            adapter.rebuild(force=True, _types_namespace=names())
    except NameError:
        raise
    except Exception as refusal:
        raise Unfit(f"pydantic cannot validate {word}: {refusal}") from refusal
    _refuse_swapped_names(annotation, word)
    validate = adapter.validate_python
    validation_error = pydantic.ValidationError

    def convert(value: Any) -> Any:
        try:
            return validate(value, by_alias=True, by_name=True)
        except validation_error as refusal:
            errors = _errors(refusal)
        except Exception as failure:
            misfit = Misfit(word, problem=f"{word} refused its fields: {type(failure).__name__}")
            misfit.cause = failure
            raise misfit from None
        if all(error["type"] in _RELAXED for error in errors):
            # All else has been found strictly right; what a strict model cannot see is that an
            # Enum's value is the form in which it has put the member itself.
            try:
                return validate(value, strict=False, by_alias=True, by_name=True)
            except validation_error as refusal:
                errors = _errors(refusal)
        raise _misfit(word, errors)

    return Form(word, convert, types, changes=True, joint=("pydantic", annotation))


def _errors(refusal: Any) -> list[ErrorDetails]:
    found: list[ErrorDetails] = refusal.errors(
        include_url=False, include_context=False, include_input=False
    )
    return found


def _misfit(word: str, errors: list[ErrorDetails]) -> Misfit:
    # What a strict model cannot see is not what is wrong, if there is more.
    first = next((error for error in errors if error["type"] not in _RELAXED), errors[0])
    said = first["msg"]
    if first["type"] == "union_tag_invalid":
        said = "The tag is none of the expected ones"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    misfit = Misfit(word, problem=f"{said}, says {word}{more}")
    for part in reversed(first["loc"]):
        misfit.at(f".{part}" if isinstance(part, str) and part.isidentifier() else key_part(part))
    return misfit


def _refuse_swapped_names(annotation: Any, word: str) -> None:
    """Refuse a model in which a name means one field, and as an alias another."""
    fields = getattr(annotation, "__pydantic_fields__", {})
    for name, field in fields.items():
        alias = field.validation_alias or field.alias
        if isinstance(alias, str) and alias != name and alias in fields:
            raise Unfit(
                f"the alias {alias!r} of {word}.{name} is the name of another field, so that a "
                "stored value could be taken for that; give it another alias"
            )


def _missing(library: str, word: str) -> Unfit:
    return Unfit(
        f"{word} needs {library}, which is not installed here; pip install 'sayiir[{library}]'"
    )
