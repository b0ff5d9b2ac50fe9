"""A workflow as a picture: Mermaid text, for documents and pull requests.

It reads the same tree of nodes that the engine runs and knows nothing else about a workflow.
Names are escaped, so none of them can end a label or smuggle markup into the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

__all__ = ["Block", "Node", "lasting", "to_mermaid"]

Node: TypeAlias = tuple[Any, ...]
"""A node as the engine takes it: its kind, its name, and what its kind needs."""
Block: TypeAlias = list[Node]
"""Nodes that run one after the other."""

_Tail: TypeAlias = tuple[str, str | None]
# Control characters too: a new line would end the statement, and the rest be read as markup.
_SPECIAL = {
    code: f"#{code};" for code in (*map(ord, '"#&<>\\`;\u2028\u2029'), *range(32), *range(127, 160))
}
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
_SHAPES = {
    "task": ('["', '"]'),
    "fork": ('{{"', '"}}'),
    "map": ('{{"', '"}}'),
    "spread": ('{{"', '"}}'),
    "route": ('{"', '"}'),
    "loop": ('{{"', '"}}'),
    "delay": ('(["', '"])'),
    "delay_until": ('(["', '"])'),
    "wait": ('[/"', '"/]'),
    "child": ('[["', '"]]'),
}


def to_mermaid(name: str, block: Sequence[Node]) -> str:
    """The drawing of a workflow.

    >>> print(to_mermaid("order", [("task", "charge", 0), ("delay", "cool-off", 30.0)]))
    flowchart TD
        start(["order"])
        n1["charge"]
        start --> n1
        n2(["cool-off: 30 s"])
        n1 --> n2
        finish(["end"])
        n2 --> finish
    """
    drawing = _Drawing()
    drawing.put("start", '(["', name, '"])')
    tails = drawing.block(block, [("start", None)])
    drawing.put("finish", '(["', "end", '"])')
    drawing.join(tails, "finish")
    return "\n".join(["flowchart TD", *drawing.lines])


def lasting(seconds: float) -> str:
    """A length of time as a person reads it, in the largest units that say it exactly.

    >>> lasting(30.0), lasting(5400.0), lasting(2_592_000.0), lasting(0.25)
    ('30 s', '1 h 30 min', '30 d', '0.25 s')
    """
    words, rest = [], round(seconds, 3)
    for unit, length in _UNITS:
        if rest >= length:
            words.append(f"{int(rest // length)} {unit}")
            rest = round(rest % length, 3)
    if rest or not words:
        words.append(f"{rest:g} s")
    return " ".join(words)


class _Drawing:
    """The lines so far. A *tail* is a drawn node that the next one hangs on, with a word."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def put(self, ident: str, left: str, label: str, right: str) -> None:
        self.lines.append(f"    {ident}{left}{label.translate(_SPECIAL)}{right}")

    def join(self, tails: Sequence[_Tail], ident: str, arrow: str = "-->") -> None:
        for tail, word in tails:
            label = "" if word is None else f'|"{word.translate(_SPECIAL)}"|'
            self.lines.append(f"    {tail} {arrow}{label} {ident}")

    def block(self, block: Sequence[Node], tails: list[_Tail]) -> list[_Tail]:
        for node in block:
            tails = self.node(node, tails)
        return tails

    def node(self, node: Node, tails: list[_Tail]) -> list[_Tail]:
        kind = node[0]
        self.count += 1
        ident = f"n{self.count}"
        self.put(ident, _SHAPES[kind][0], _label(node), _SHAPES[kind][1])
        self.join(tails, ident)
        if kind == "fork":
            return [
                tail for branch, body in node[2] for tail in self.block(body, [(ident, branch)])
            ]
        if kind == "route":
            arms = list(node[3]) + ([("otherwise", node[4])] if node[4] is not None else [])
            return [tail for key, body in arms for tail in self.block(body, [(ident, key)])]
        if kind in ("map", "spread"):
            return self.block(node[2], [(ident, "each item")])
        if kind == "loop":
            tails = self.block(node[2], [(ident, None)])
            self.join([(tail, "again") for tail, _ in tails], ident, "-.->")
            return [(tail, "done") for tail, _ in tails]
        if kind == "child":
            return self.block(node[3], [(ident, None)])
        return [(ident, None)]


def _label(node: Node) -> str:
    """What a node's shape says."""
    kind, name = node[0], node[1]
    if kind == "delay":
        return f"{name}: {lasting(node[2])}"
    if kind == "wait":
        return f"event {node[2]}" if name == node[2] else f"{name}: event {node[2]}"
    if kind == "spread":
        return f"map {name}, spread"
    if kind in ("map", "loop", "child") and name != kind:
        return f"{kind} {name}"
    return str(name)
