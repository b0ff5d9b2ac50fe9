"""Values to bytes and back, and the error records of failed steps.

The codec itself is Rust (`rust/py/src/value`); this module makes known to it the package's own
value classes, and whom to ask for the plain forms of others, and is the one place where Python
turns payloads and records around. What is done to a payload at rest is said by its backend's codec
(`sayiir.codecs`). What a payload means, and where it is stored, is not known here.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from ._core import (
    AtRest,
    decode_error_record,
    decode_payload,
    decode_stored,
    encode_payload,
    register_plain_form,
    register_values,
)
from ._plain import plain_form
from ._values import EventTimeout, LoopDict, LoopResult, MapError

__all__ = [
    "ErrorText",
    "at_rest_of",
    "decode_payload",
    "describe_error",
    "encode_payload",
    "from_rest",
    "read_error",
    "to_rest",
]

MAX_ERROR_TEXT = 64 * 1024
"""The most characters kept of a message and of a traceback."""
MAX_CAUSES = 16
_PACKAGE = __file__.removesuffix("_codec.py")

register_values(LoopResult, LoopDict, EventTimeout, MapError)
register_plain_form(plain_form)


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What is kept of an exception: text, never the object."""

    error_type: str
    message: str
    traceback: str
    causes: tuple[tuple[str, str], ...] = ()
    task: str = ""
    path: str = ""


def at_rest_of(backend: object) -> AtRest | None:
    """What a backend's codec does to payloads; `None` when it has none.

    A backend of one's own has a codec when it has an attribute of that name.

    Raises:
        TypeError: The attribute is no codec.

    >>> from sayiir import InMemoryBackend
    >>> at_rest_of(InMemoryBackend()) is None
    True
    """
    codec: object = getattr(backend, "codec", None)
    if codec is None:
        return None
    from .codecs import checked_codec

    checked = checked_codec(codec)
    return None if checked is None else checked.at_rest


def to_rest(
    codec: AtRest | None, value: object, instance_id: str, role: str, name: str = ""
) -> bytes:
    """A value as a backend stores it at this place; see `codecs.Place`.

    Raises:
        EncodeError: It cannot be stored.
    """
    if codec is None:
        return encode_payload(value)
    return codec.encode(value, instance_id, role, name)


def from_rest(
    codec: AtRest | None, data: bytes, instance_id: str, role: str, name: str = ""
) -> Any:
    """The value of what a backend has at this place.

    Raises:
        DecodeError: It is damaged, does not belong there, or needs a codec that is not given.

    >>> from_rest(None, to_rest(None, [1], "i", "input"), "i", "input")
    [1]
    """
    if codec is None:
        return decode_stored(data, instance_id, role, name)
    return codec.decode(data, instance_id, role, name)


def read_error(record: bytes) -> ErrorText:
    """The parts of a stored error record.

    Raises:
        DecodeError: The bytes are no error record.
    """
    fields = decode_error_record(record)
    return ErrorText(
        fields["error_type"],
        fields["message"],
        fields["traceback"],
        tuple(fields["causes"]),
        fields["task"],
        fields["path"],
    )


def describe_error(error: BaseException) -> ErrorText:
    """What is worth keeping of an exception, bounded and cleaned; never raises.

    >>> describe_error(ValueError("no funds")).message
    'no funds'
    """
    causes: list[tuple[str, str]] = []
    at = _cause(error)
    while at is not None and at is not error and len(causes) < MAX_CAUSES:
        causes.append((_name(at), _message(at)))
        at = _cause(at)
    return ErrorText(_name(error), _message(error), _trace(error), tuple(causes))


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(error: BaseException) -> str:
    return _clean(type(error).__name__)


def _message(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except Exception as failure:
        return f"(its text cannot be had: {type(failure).__name__} in __str__)"


def _trace(error: BaseException) -> str:
    begin = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        # How the engine came to call the task is of no use to whoever reads this.
        begin = begin.tb_next
    if begin is None:
        return ""
    try:
        lines = traceback.format_exception(type(error), error, begin)
    except Exception:
        lines = traceback.format_list(traceback.extract_tb(begin))
    return _clean("".join(lines), keep_end=True)


def _clean(text: str, *, keep_end: bool = False) -> str:
    """Bounded text that every store can keep: no NUL, no lone surrogates."""
    if len(text) > MAX_ERROR_TEXT:
        note = f"… ({len(text) - MAX_ERROR_TEXT} more characters) …"
        half = MAX_ERROR_TEXT // 2
        text = text[:half] + note + text[-half:] if keep_end else text[:MAX_ERROR_TEXT] + note
    return text.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")
