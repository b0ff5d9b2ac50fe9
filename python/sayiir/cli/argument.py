"""Kinds of arguments: durations, moments, and values as JSON, in a file or on stdin.

Promises that what comes back has been checked, and that a mistake is a usage error which names the
argument. Nothing is opened here but the file that an argument names.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sayiir import _clock, parse_duration
from sayiir.cli.terminal import safe

__all__ = ["Length", "Moment", "read_bytes", "read_json"]

MAX_INPUT_BYTES = 64 * 1024 * 1024
"""The most that is read of a file or of stdin. A backend may take less."""

if TYPE_CHECKING:
    _LengthType = click.ParamType[float]
    _MomentType = click.ParamType[datetime]
else:
    # Older versions of click have it without a parameter.
    _LengthType = _MomentType = click.ParamType


class Length(_LengthType):
    """A duration such as `30s` or `1h30m`, or a bare number of seconds.

    >>> Length().convert("1h30m", None, None), Length().convert("2.5", None, None)
    (5400.0, 2.5)
    """

    name = "duration"

    def __init__(self, *, allow_zero: bool = True) -> None:
        self._allow_zero = allow_zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The duration in seconds."""
        try:
            given: float | str = float(value)
        except ValueError:
            given = str(value)
        try:
            return parse_duration(given, name="it", allow_zero=self._allow_zero)
        except ValueError as mistake:
            self.fail(safe(str(mistake)), param, ctx)


class Moment(_MomentType):
    """A date and time of ISO 8601, in UTC unless it says otherwise; or how long ago it was.

    >>> Moment().convert("2024-01-02", None, None)
    datetime.datetime(2024, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)
    >>> Moment().convert("2h", None, None) < datetime.fromtimestamp(_clock.now(), UTC)
    True
    """

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment, aware."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        except ValueError:
            pass
        try:
            ago = timedelta(seconds=parse_duration(value))
            return datetime.fromtimestamp(_clock.now(), UTC) - ago
        except (ValueError, OverflowError):
            self.fail(
                safe(
                    f"{value[:80]!r} is no time; write 2024-01-31, 2024-01-31T12:00:00Z, or how "
                    "long ago it was, such as 2h"
                ),
                param,
                ctx,
            )


def read_json(given: str | None, what: str) -> Any:
    """The value of an argument: JSON itself, `@file`, or `-` for stdin; without one `None`.

    Raises:
        click.UsageError: It cannot be read, or is no JSON.

    >>> read_json('{"number": 5}', "--input"), read_json(None, "--input")
    ({'number': 5}, None)
    """
    if given is None:
        return None
    try:
        return json.loads(_text_of(given, what), parse_constant=_refuse_constant)
    except RecursionError:
        raise click.UsageError(f"{what} is no JSON that can be read: too deeply nested") from None
    except ValueError as mistake:
        direct = given != "-" and not given.startswith("@")
        hint = "; text needs its quotes, as in '\"text\"'" if direct else ""
        raise click.UsageError(safe(f"{what} is no JSON: {mistake}{hint}")) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def read_bytes(given: str, what: str) -> bytes:
    """All bytes of a file, or of stdin for `-`.

    Raises:
        click.UsageError: They cannot be read, or are too many.
    """
    origin = "stdin" if given == "-" else repr(given)
    try:
        if given == "-":
            raw = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with Path(given).open("rb") as file:
                raw = file.read(MAX_INPUT_BYTES + 1)
    except OSError as failure:
        raise click.UsageError(
            safe(f"{what}: {origin} cannot be read: {failure.strerror or failure}")
        ) from None
    except ValueError as failure:
        raise click.UsageError(safe(f"{what}: {origin} cannot be read: {failure}")) from None
    if len(raw) > MAX_INPUT_BYTES:
        raise click.UsageError(safe(f"{what}: {origin} has more than {MAX_INPUT_BYTES:,} bytes"))
    return raw


def _text_of(given: str, what: str) -> str:
    if given != "-" and not given.startswith("@"):
        return given
    name = given if given == "-" else given[1:]
    try:
        return read_bytes(name, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        origin = "stdin" if given == "-" else repr(name)
        raise click.UsageError(safe(f"{what}: {origin} is not UTF-8 text")) from None
