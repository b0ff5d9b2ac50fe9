"""A workflow as a picture: SVG text, for notebooks, pages and pull requests.

It reads the same tree of nodes that the engine runs, and lays it out itself: each node becomes a
piece that knows its size, and a piece is put together from the pieces inside of it. The same tree
gives the same text, to the byte. It refuses to know fonts: text is monospaced and its width is
counted in columns.

A picture is for looking at, so it is bounded: of a row of more than 100 steps the first ones and
the last are drawn, of more than 8 branches or keys the first 7, and after 400 nodes nothing more
is opened; what is left out is said in its place. Names over 28 columns are cut, and whole in the
tooltip. Nesting is bounded by the engine (64 blocks), so walking down into it may recurse; a row
of steps never does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ._draw import Block, Node, lasting

__all__ = ["to_svg"]

_MAX_STEPS = 100
_MAX_BRANCHES = 8
_MAX_NODES = 400
_MAX_COLUMNS = 28

_MARGIN, _GAP, _SPACE, _PAD = 12, 26, 24, 14
_CHAR, _SMALL = 8, 7  # One column of 13 px and of 11 px text, rounded up.
_SYMBOL = 20

_STYLE = (
    ".sayiir-flow{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    # Alone, the picture is a document of its own and follows the reader's scheme; inside of a
    # page it is not `:root` and takes the colour of the text around it.
    ".sayiir-flow:root{color:#1f2328}"
    "@media (prefers-color-scheme:dark){.sayiir-flow:root{color:#e6edf3}}"
    ".sayiir-flow text{fill:currentColor;stroke:none}"
    ".sayiir-flow .small{font-size:11px;opacity:.8}"
    ".sayiir-flow .line{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.75}"
    ".sayiir-flow .head{fill:currentColor;opacity:.75}"
    ".sayiir-flow .bar{fill:none;stroke:currentColor;stroke-width:4}"
    ".sayiir-flow .shape{stroke:currentColor;stroke-width:1.2;fill-opacity:.16}"
    ".sayiir-flow .frame{stroke:currentColor;stroke-opacity:.6;fill-opacity:.05}"
    ".sayiir-flow .dashed{stroke-dasharray:5 4}"
)

_COLOURS = {
    "task": "#2f81f7",
    "fork": "#a371f7",
    "route": "#a371f7",
    "delay": "#d29922",
    "delay_until": "#d29922",
    "wait": "#2ea043",
    "map": "#1b9e9e",
    "spread": "#1b9e9e",
    "loop": "#db6d28",
    "child": "#6e7681",
    "end": "#6e7681",
}

# Each is drawn with strokes into a square of 14, so that no font needs to have it.
_SYMBOLS = {
    "fork": "M7 1V6M2 13V6H12V13",
    "route": "M7 1L13 7L7 13L1 7Z",
    "delay": "M13 7A6 6 0 1 1 1 7A6 6 0 1 1 13 7M7 3V7L10 9",
    "delay_until": "M1 3H13V13H1ZM1 6H13M4 1V4M10 1V4",
    "wait": "M1 3H13V12H1ZM1 3L7 8L13 3",
    "map": "M1 5H9V13H1ZM4 5V2H12V10H9",
    "spread": "M1 7H13M5 7L12 2M5 7L12 12",
    "loop": "M12 7A5 5 0 1 1 9 2.5M9 0V3H6",
    "child": "M1 1H13V13H1ZM4 4H10V10H4Z",
}

# What XML 1.0 cannot hold even as a reference.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_svg(name: str, block: Sequence[Node]) -> str:
    """The picture of a workflow: an SVG element, ready for a file or for the inside of a page.

    >>> svg = to_svg("order", [("task", "charge", 0), ("delay", "cool-off", 30.0)])
    >>> svg.startswith("<svg xmlns=")
    True
    >>> "charge" in svg and "30 s" in svg
    True
    """
    drawn = _Drawing().chain(block)
    end = [_box("end", "end", "", "end", rounded=True)]
    whole = _stack([_box("end", name, "", f"workflow {name}", rounded=True), drawn, *end])
    width, height = whole.width + 2 * _MARGIN, whole.height + 2 * _MARGIN
    return "".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" class="sayiir-flow" role="img" '
                f'aria-label="{_escaped(f"Workflow {name}")}" width="{width}" height="{height}" '
                f'viewBox="0 0 {width} {height}">'
            ),
            f"<title>{_escaped(f'Workflow {name}')}</title><style>{_STYLE}</style>",
            *_at(_MARGIN, _MARGIN, whole),
            "</svg>",
        ]
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something drawn with its corner at 0, 0: entered at `axis`, 0 and left at `axis`, `height`.

    All lengths are whole pixels.
    """

    width: int
    height: int
    axis: int
    parts: list[str] = field(default_factory=list)


class _Drawing:
    """Turns nodes into pieces, and knows how many more it may open."""

    def __init__(self) -> None:
        self.left = _MAX_NODES

    def chain(self, block: Sequence[Node]) -> _Piece:
        return _stack(self.row(block))

    def row(self, block: Sequence[Node]) -> list[_Piece]:
        """The pieces of steps that run one after the other."""
        long = len(block) > _MAX_STEPS
        pieces: list[_Piece] = []
        for node in block[: _MAX_STEPS - 2] if long else block:
            if self.left <= 0:
                break
            pieces.append(self.node(node))
        skipped = len(block) - len(pieces)
        ends = skipped > 1 and bool(pieces) and self.left > 0
        if skipped:
            pieces.append(_note(_left_out(skipped - ends, bool(pieces), "step")))
        if ends:
            pieces.append(self.node(block[-1]))
        return pieces

    def node(self, node: Node) -> _Piece:
        self.left -= 1
        kind, name = node[0], node[1]
        if kind == "fork":
            head = _box("fork", name, "", f"fork {name}")
            return _parallel(head, self.columns(node[2]), joined=True)
        if kind == "route":
            columns = self.columns(node[3], node[4])
            return _parallel(_box("route", name, "", f"route {name}"), columns, joined=False)
        if kind == "map":
            limit = "" if node[3] is None else f", {node[3]} at once"
            return _frame("map", name, f"for each item{limit}", self.chain(node[2]))
        if kind == "spread":
            return _frame("spread", name, "for each item, spread", self.chain(node[2]))
        if kind == "loop":
            return _frame("loop", name, f"up to {_times(node[3])}", self.chain(node[2]))
        if kind == "child":
            detail = "child workflow" if name == node[2] else f"child workflow {node[2]}"
            return _frame("child", name, detail, self.chain(node[3]))
        detail = _detail(node)
        return _box(kind, name, detail, f"{kind} {name} {detail}".rstrip(), rounded=kind != "task")

    def columns(
        self, branches: Sequence[tuple[str, Block]], otherwise: Block | None = None
    ) -> list[_Piece]:
        """A column for each branch or key, headed by its name."""
        many = len(branches) > _MAX_BRANCHES
        shown = branches[: _MAX_BRANCHES - 1] if many else branches
        columns = [_stack([_word(key), *self.row(body)]) for key, body in shown]
        if many:
            columns.append(_note(_left_out(len(branches) - len(shown), True, "branch")))
        if otherwise is not None:
            columns.append(_stack([_word("otherwise"), *self.row(otherwise)]))
        return columns


def _detail(node: Node) -> str:
    """The second line of a node that waits."""
    kind = node[0]
    if kind == "delay":
        return lasting(node[2])
    if kind == "delay_until":
        return datetime.fromtimestamp(int(node[2]), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if kind == "wait":
        limit = "" if node[3] is None else f", {lasting(node[3])} at most"
        return f"event{'' if node[2] == node[1] else ' ' + node[2]}{limit}"
    return ""


def _times(turns: int) -> str:
    return "1 turn" if turns == 1 else f"{turns:,} turns"


def _left_out(count: int, more: bool, noun: str) -> str:
    plural = {"step": "steps", "branch": "branches"}[noun]
    return f"… {count:,}{' more' if more else ''} {noun if count == 1 else plural}"


def _stack(pieces: Sequence[_Piece]) -> _Piece:
    """Pieces one below the other, an arrow from each to the next."""
    left = max((piece.axis for piece in pieces), default=0)
    right = max((piece.width - piece.axis for piece in pieces), default=0)
    parts: list[str] = []
    y = 0
    for piece in pieces:
        if y:
            parts += _arrow(f"M{left} {y}V{y + _GAP - 5}", left, y + _GAP)
            y += _GAP
        parts += _at(left - piece.axis, y, piece)
        y += piece.height
    return _Piece(left + right, y, left, parts)


def _parallel(head: _Piece, columns: Sequence[_Piece], *, joined: bool) -> _Piece:
    """Columns side by side below a head: with bars where all of them run, else with lines."""
    across = sum(column.width for column in columns) + _SPACE * (len(columns) - 1)
    width = max(across, head.width)
    axis, x = width // 2, (width - across) // 2
    rail = head.height + _PAD
    top = rail + _PAD
    merge = top + max(column.height for column in columns) + _PAD
    parts = _at(axis - head.axis, 0, head)
    parts.append(_line(f"M{axis} {head.height}V{rail}"))
    ends = []
    for column in columns:
        at = x + column.axis
        ends.append(at)
        turn = "" if joined else f"M{axis} {rail}H{at}"
        parts.append(_line(f"{turn}M{at} {rail}V{top}"))
        parts += _at(x, top, column)
        parts.append(_line(f"M{at} {top + column.height}V{merge}{'' if joined else f'H{axis}'}"))
        x += column.width + _SPACE
    if joined:
        start, stop = min(*ends, axis) - 20, max(*ends, axis) + 20
        parts += [f'<path class="bar" d="M{start} {y}H{stop}"/>' for y in (rail, merge)]
        if start < 0 or stop > width:
            return _widened(_Piece(width, merge + 2, axis, parts), -start, stop - width)
        return _Piece(width, merge + 2, axis, parts)
    parts.append(f'<circle class="head" cx="{axis}" cy="{merge}" r="4"/>')
    return _Piece(width, merge + 4, axis, parts)


def _widened(piece: _Piece, left: int, right: int) -> _Piece:
    """The piece with room at its sides; less than none is none."""
    left, right = max(left, 0), max(right, 0)
    return _Piece(piece.width + left + right, piece.height, piece.axis + left, _at(left, 0, piece))


def _frame(kind: str, name: str, detail: str, body: _Piece) -> _Piece:
    """A frame around the body of a node that runs it many times, or as its own workflow."""
    shown = _cut(name)
    detail_shown = _cut(detail)
    header = 2 * _PAD + _SYMBOL + max(_CHAR * _columns(shown), _SMALL * _columns(detail_shown))
    # A loop's way back runs at the right; the same room at the left keeps the body in the middle.
    side = _PAD + (_SPACE if kind == "loop" else 0)
    inner = body.width + 2 * side
    width = max(inner, header)
    x = (width - inner) // 2 + side
    axis, top = x + body.axis, 44 + (_PAD if kind == "loop" else 6)
    bottom = top + body.height
    height = bottom + _PAD + (8 if kind == "loop" else 0)
    look = "frame dashed" if kind in ("loop", "spread") else "frame"
    parts = [f"<g><title>{_escaped(f'{kind} {name}, {detail}')}</title>"]
    fill = f'fill="{_COLOURS[kind]}"'
    extra = 0
    if kind in ("map", "spread"):  # A second sheet behind the first: there are many.
        extra = 5
        edge = f"M5 {height}V{height + 5}H{width + 5}V5H{width}"
        parts.append(f'<path class="line" d="{edge}"/>')
    parts.append(
        f'<rect class="{look}" {fill} x="0" y="0" width="{width}" height="{height}" rx="6"/>'
    )
    if kind == "child":  # A border inside of the border.
        parts.append(
            f'<rect class="frame" fill="none" x="4" y="4" width="{width - 8}" '
            f'height="{height - 8}" rx="4"/>'
        )
    parts.append(_symbol(kind, _PAD, 12))
    parts.append(_text(_PAD + _SYMBOL, 21, shown, "start"))
    parts.append(_text(_PAD + _SYMBOL, 37, detail_shown, "start", small=True))
    parts.append("</g>")
    parts += _at(x, top, body)
    if kind == "loop":
        out = x + body.width + _SPACE - 4
        back = f"M{axis} {bottom}V{bottom + 9}H{out}V{top - 9}H{axis}V{top - 5}"
        parts += _arrow(back, axis, top)
    return _Piece(width + extra, height + extra, axis, parts)


def _box(kind: str, name: str, detail: str, title: str, *, rounded: bool = False) -> _Piece:
    """A node without anything inside of it."""
    shown, below = _cut(name), _cut(detail)
    symbol = _SYMBOL if kind in _SYMBOLS else 0
    room = max(_CHAR * _columns(shown), _SMALL * _columns(below))
    width = max(72, 2 * (_PAD + (6 if rounded else 0)) + symbol + room)
    width += width % 2
    height = 46 if below else 32
    middle = (width + symbol) // 2
    radius = height // 2 if rounded else 4
    outline = (
        f'<rect class="shape" fill="{_COLOURS[kind]}" x="0" y="0" width="{width}" '
        f'height="{height}" rx="{radius}"/>'
    )
    if kind in ("fork", "route"):  # Pointed at its sides: the way parts here.
        edge = f"M10 0H{width - 10}L{width} {height // 2}L{width - 10} {height}H10L0 {height // 2}Z"
        outline = f'<path class="shape" fill="{_COLOURS[kind]}" d="{edge}"/>'
    parts = [f"<g><title>{_escaped(title)}</title>", outline]
    if symbol:
        parts.append(_symbol(kind, middle - room // 2 - _SYMBOL, height // 2 - 7))
    parts.append(_text(middle, 20, shown, "middle"))
    if below:
        parts.append(_text(middle, 37, below, "middle", small=True))
    return _Piece(width, height, width // 2, [*parts, "</g>"])


def _word(key: str) -> _Piece:
    """The name of a branch or the key of an arm, on its line."""
    shown = _cut(key)
    width = _SMALL * _columns(shown) + 8
    width += width % 2
    text = _text(width // 2, 12, shown, "middle", small=True)
    return _Piece(width, 17, width // 2, [f"<g><title>{_escaped(key)}</title>", text, "</g>"])


def _note(words: str) -> _Piece:
    """What stands in the place of something left out."""
    return _word(words)


def _arrow(way: str, x: int, y: int) -> list[str]:
    """A line, and a head that points down at `x`, `y`."""
    return [_line(way), f'<path class="head" d="M{x} {y}l-4 -7h8z"/>']


def _line(way: str) -> str:
    return f'<path class="line" d="{way}"/>'


def _symbol(kind: str, x: int, y: int) -> str:
    return f'<path class="line" transform="translate({x} {y})" d="{_SYMBOLS[kind]}"/>'


def _text(x: int, y: int, words: str, anchor: str, *, small: bool = False) -> str:
    look = ' class="small"' if small else ""
    return f'<text{look} x="{x}" y="{y}" text-anchor="{anchor}">{_escaped(words)}</text>'


def _at(x: int, y: int, piece: _Piece) -> list[str]:
    return [f'<g transform="translate({x} {y})">', *piece.parts, "</g>"]


def _columns(words: Iterable[str]) -> int:
    """How many columns of a monospaced font the text takes, roughly: emoji and CJK take two."""
    return sum(_column(char) for char in words)


def _column(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(words: str) -> str:
    """The text, or as much of it as fits with a sign that there is more.

    >>> _cut("a" * 40)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaa…'
    """
    # Marks that take no column are counted too, or a name of nothing else would never be cut.
    if _columns(words) <= _MAX_COLUMNS and len(words) <= 2 * _MAX_COLUMNS:
        return words
    kept, room = "", _MAX_COLUMNS - 1
    for char in words[: 2 * _MAX_COLUMNS]:
        room -= _column(char)
        if room < 0:
            break
        kept += char
    return kept + "…"


def _escaped(words: str) -> str:
    """Text for the inside of an element or of a quoted attribute.

    >>> _escaped('a<b & "c"')
    'a&lt;b &amp; &quot;c&quot;'
    """
    words = _NOT_XML.sub("\ufffd", words).replace("&", "&amp;").replace("<", "&lt;")
    return words.replace(">", "&gt;").replace('"', "&quot;").replace("'", "&#39;")
