"""Small tables for notebooks: what `_repr_html_` gives of a status, a handle, a page, a history.

Promises that every cell is escaped and kept from changing the direction of what stands beside it,
and that a table has 100 rows at most and says what it leaves out. It has no style of its own, so
that it looks like the notebook around it. What is told in it, its callers choose: as a notebook is
saved and shared with what it shows, they choose no payload and no text of an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

__all__ = ["facts_table", "moment_text", "rows_table", "span_text"]

MOST_ROWS = 100
_MARKUP = {
    ord(char): f"&{name};" for char, name in zip('&<>"', ("amp", "lt", "gt", "quot"), strict=True)
}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """Names and what is true, one below the other; what is `None` or empty is left out.

    >>> facts_table("order-1", {"status": "waiting", "reason": None})
    '<table><caption><bdi>order-1</bdi></caption><tr><th>status</th><td><bdi>waiting</bdi></td></tr></table>'
    """
    lines = [
        f"<tr><th>{name.translate(_MARKUP)}</th><td>{_cell(value)}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    return f"<table>{_caption(title)}{''.join(lines)}</table>"


def rows_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    left_out: int = 0,
) -> str:
    """Rows below the names of their columns.

    Args:
        title: What stands above.
        columns: Their names.
        rows: As many cells each, `MOST_ROWS` at most; `None` shows as nothing.
        left_out: How many more there are, which is said below.

    >>> rows_table("1 step", ["path"], [["<b>"]], left_out=2).partition("<tr><td>")[2]
    '<bdi>&lt;b&gt;</bdi></td></tr><tr><td colspan="1">… 2 more</td></tr></table>'
    """
    head = "".join(f"<th>{name.translate(_MARKUP)}</th>" for name in columns)
    lines = ["".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows]
    if left_out:
        lines.append(f'<td colspan="{len(columns)}">… {left_out:,} more</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{_caption(title)}<tr>{head}</tr>{body}</table>"


def moment_text(moment: datetime | None) -> str | None:
    """A moment to the second, in UTC.

    >>> moment_text(datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    '2024-01-02 03:04:05 UTC'
    """
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span_text(seconds: float) -> str:
    """A length of time.

    >>> span_text(0.01234), span_text(61.0)
    ('12.3 ms', '61.0 s')
    """
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _caption(title: str) -> str:
    return f"<caption>{_cell(title)}</caption>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"<bdi>{_CONTROLS.sub('�', str(value)).translate(_MARKUP)}</bdi>"
