"""What commands say: text, JSON and tables that no stored name can turn into something else.

Promises that control characters, and the marks that reverse the direction of text, reach no
terminal as such; that markup is shown as it was written; that JSON is one value with a line end
behind it; that tables are drawn on a terminal and are plain aligned columns anywhere else. Refuses
to know what the words mean.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = [
    "draw",
    "draw_tree",
    "note",
    "safe",
    "say",
    "say_json",
    "say_output",
    "seconds",
    "stamp",
    "to_json",
]

# C0 and C1 controls, delete, line and paragraph separators, the marks that override direction, and
# halves of surrogate pairs. Joiners stay: without them an emoji falls apart.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_GAP = "  "


def safe(text: str, *, lines: bool = False) -> str:
    r"""Text that a terminal shows and does not obey.

    Args:
        text: Anything.
        lines: Whether it may have lines and tabs, as a traceback has.

    >>> print(safe("a\x1b[2Jb\nc"))
    a\x1b[2Jb\nc
    >>> print(safe("one\r\ntwo", lines=True))
    one\r
    two
    """
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def say(text: str, *, lines: bool = False) -> None:
    """A line on stdout."""
    _write(safe(text, lines=lines), sys.stdout)


def note(text: str, *, lines: bool = False) -> None:
    """A line on stderr, for the reader and not for a pipe."""
    _write(safe(text, lines=lines), sys.stderr)


def _write(text: str, stream: IO[str]) -> None:
    # A stream that knows few characters gets escapes in place of the others, and no traceback.
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def to_json(value: object) -> str:
    r"""One line of JSON that a terminal does not obey either.

    Raises:
        TypeError: It holds something that JSON does not have, such as a set or a key that is a
            number.
        ValueError: It holds a number that JSON does not have, or itself.
        RecursionError: It is nested too deeply.

    >>> print(to_json({"name": "a\x9bb", "when": (1, None)}))
    {"name": "a\u009bb", "when": [1, null]}
    >>> to_json({1: "one"})
    Traceback (most recent call last):
    ...
    TypeError: a key of type int
    """
    _check_keys(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_refuse)
    # What is unsafe is inside of a string by now, where JSON has an escape for it.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _refuse(value: object) -> Any:
    raise TypeError(f"a value of type {type(value).__name__}")


def _check_keys(value: object) -> None:
    """The encoder would quietly make text of a key that is a number."""
    pending = [value]
    seen: set[int] = set()
    while pending:
        at = pending.pop()
        if not isinstance(at, dict | list | tuple) or id(at) in seen:
            continue
        seen.add(id(at))
        if isinstance(at, dict):
            for key in at:
                if not isinstance(key, str):
                    raise TypeError(f"a key of type {type(key).__name__}")
        pending.extend(at.values() if isinstance(at, dict) else at)


def say_json(value: object) -> None:
    """One line of JSON on stdout. Raises as `to_json`, and then has written nothing."""
    text = to_json(value)
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    if not encoding.startswith("utf"):
        text = json.dumps(json.loads(text))
    click.echo(text)


def say_output(instance_id: str, output: object, as_json: bool) -> None:
    """The output of a completed instance on stdout: as JSON, or as Python writes it.

    >>> say_output("sum-1", [1, 2], as_json=False)
    [1, 2]
    """
    facts = {"instance_id": instance_id, "status": "completed"}
    try:
        say_json({**facts, "output": output} if as_json else output)
    except (TypeError, ValueError, RecursionError) as refusal:
        note(f"The output is no JSON ({refusal}). Here it is as Python writes it.")
        if as_json:
            say_json({**facts, "repr": repr(output)})
        else:
            say(repr(output))


def stamp(moment: datetime | None) -> str | None:
    """A moment for people and for machines alike: ISO 8601 in UTC.

    >>> stamp(datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC))
    '2024-01-02T03:04:05.678Z'
    """
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def seconds(length: float) -> str:
    """A length of time for people, in seconds or milliseconds.

    >>> seconds(0.01234), seconds(61.0)
    ('12.3 ms', '61.0 s')
    """
    return f"{length * 1000:.3g} ms" if length < 0.9995 else f"{length:.1f} s"


def draw(columns: Mapping[str, bool], rows: Iterable[Sequence[str | None]]) -> None:
    """A table on stdout: drawn on a terminal, plain aligned columns elsewhere.

    Args:
        columns: The name of each, and whether it may be folded where a terminal is narrow.
        rows: As many cells each; nothing shows as a dash.
    """
    cells = [[safe(cell) if cell else "-" for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw_table(columns, cells)
    else:
        _write_columns(list(columns), cells)


def draw_tree(tree: "Tree") -> None:
    """A tree on stdout: in colour on a terminal, as plain lines elsewhere."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False, width=shutil.get_terminal_size().columns).print(tree)
    else:
        # Lines are as long as they are; nobody folds them here.
        Console(highlight=False, color_system=None, width=10_000).print(tree)


def _draw_table(columns: Mapping[str, bool], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for column, folds in columns.items():
        table.add_column(column, overflow="fold", no_wrap=not folds)
    for row in cells:
        # As Text, since a name may hold what looks like markup.
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False, width=shutil.get_terminal_size().columns).print(table)


def _write_columns(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say(_GAP.join(padded).rstrip())
