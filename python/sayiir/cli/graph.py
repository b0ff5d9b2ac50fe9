"""Where an instance stands within its flow, as a tree: what `runs show --graph` and `watch` draw.

It puts two things together: the nodes of a definition, and the history of an instance. What has
ended is told by the history; what goes on is where the history leaves off, with what the instance's
row says it waits for. A map or a loop is one line however often its steps ran. Promises to draw
something of every history, also without the definition: then the steps that ended, one per line.
Refuses to open a backend, and to know payloads: none is looked at.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sayiir import StepInfo
from sayiir.backends import InstanceRow
from sayiir.backends._view import moment
from sayiir.cli.terminal import safe, seconds, stamp

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["Graph", "Nodes", "graph_of", "tree_of"]

Nodes = Sequence[tuple[str, str]]
"""The paths and kinds of a definition's nodes, in the order they run in."""

_INDEX = re.compile(r"\[\d+\]")
_TURN = re.compile(r"#\d+(?=/|$)")
_CONTAINERS = frozenset({"fork", "map", "spread", "route", "loop", "child"})
_REPEATING = frozenset({"map", "spread", "loop"})
_WORDS = {
    "map": "map",
    "spread": "map",
    "loop": "loop",
    "route": "route",
    "fork": "fork",
    "child": "flow",
    "delay": "delay",
    "delay_until": "delay",
    "wait": "event",
}
# State → the sign before a line, the one where a stream has no such characters, and its style.
_SIGNS = {
    "done": ("✓", "v", "green"),
    "failed": ("✗", "x", "red"),
    "active": ("▶", ">", "cyan"),
    "waiting": ("…", "~", "yellow"),
    "none": ("·", ".", "dim"),
}


@dataclass(slots=True)
class Node:
    """One line of the tree. `state` is a key of `_SIGNS`, `words` say the rest."""

    path: str
    kind: str
    name: str
    children: list["Node"] = field(default_factory=list)
    state: str = "none"
    words: str = ""
    repeated: bool = False
    """Whether it stands inside of a map or a loop."""
    rows: dict[str, list[StepInfo]] = field(default_factory=dict)
    """What the history has of it, by the paths that its executions had."""

    def facts(self) -> dict[str, Any]:
        """It and what is below, as JSON."""
        return {
            "path": self.path,
            "kind": self.kind,
            "state": self.state,
            "words": self.words,
            "children": [child.facts() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Graph:
    """A tree of lines, and what its root says."""

    row: InstanceRow
    nodes: list[Node]

    def facts(self) -> list[dict[str, Any]]:
        """The lines as JSON, each with those below it."""
        return [node.facts() for node in self.nodes]


def graph_of(
    nodes: Nodes | None,
    history: Iterable[StepInfo],
    row: InstanceRow,
    *,
    at: int | None = None,
    sizes: Mapping[str, int] | None = None,
    items: Mapping[str, tuple[int, int]] | None = None,
) -> Graph:
    """Where an instance stands.

    Args:
        nodes: The definition's; without one the steps of the history are listed.
        history: Every execution of a step, in order.
        row: The instance.
        at: The number, counted among the outermost nodes, of the one it is at, if that is known.
        sizes: How many items a map has, by its path, where that is known.
        items: How many items of a spread map have ended, and how many were made, by its path.
    """
    by_path: dict[str, dict[str, list[StepInfo]]] = {}
    for step in history:
        found = by_path.setdefault(_defined(step.path), {})
        found.setdefault(step.path, []).append(step)
    spread = dict(items or {})
    if nodes is None:
        paths = [*by_path, *(path for path in spread if path not in by_path)]
        top = [Node(path, "spread" if path in spread else "step", path) for path in paths]
        for node in top:
            node.repeated = node.kind == "step" and ("[]" in node.path or "#" in node.path)
    else:
        top = _nested(nodes)
    for node in _all(top):
        node.rows = by_path.get(node.path, {})
    marker = _Marker(row, dict(sizes or {}), spread)
    if nodes is None:
        for node in top:
            marker.mark(node, over=bool(node.rows), active=node.kind == "spread")
    else:
        marker.block(top, over=row.status == "completed", active=True, front=at)
    return Graph(row, top)


def tree_of(graph: Graph) -> "Tree":
    """The tree as rich prints it, with nothing in it that a terminal obeys."""
    from rich.text import Text
    from rich.tree import Tree

    # A stream that knows few characters gets other signs, and escapes for names.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = not encoding.lower().replace("-", "").startswith("utf")

    def line(node: Node) -> Text:
        sign, ascii_sign, style = _SIGNS[node.state]
        text = Text(f"{ascii_sign if plain else sign} ", style)
        word = _WORDS.get(node.kind)
        name = safe(node.name)
        label = name if word is None or word == node.name else f"{word} {name}"
        text.append(label.encode(encoding, "backslashreplace").decode(encoding))
        if node.words:
            told = safe(node.words).encode(encoding, "backslashreplace").decode(encoding)
            text.append(f"  {told}", "dim" if node.state in ("none", "done") else style)
        return text

    row = graph.row
    shown = safe(f"{row.instance_id} ({row.workflow_id}): {row.status}")
    root = Tree(Text(shown.encode(encoding, "backslashreplace").decode(encoding), "bold"))

    # Nesting is bounded by the engine, so walking down into it may recurse.
    def hang(tree: Tree, nodes: Sequence[Node]) -> None:
        for node in nodes:
            hang(tree.add(line(node)), node.children)

    hang(root, graph.nodes)
    return root


def _defined(path: str) -> str:
    """The path in the definition of a step that ran: without the numbers of items and turns."""
    return _TURN.sub("#", _INDEX.sub("[]", path))


def _all(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _all(node.children)


def _nested(nodes: Nodes) -> list[Node]:
    """The nodes below one another; a branch, an arm and a body's only step have no node of theirs.

    Names never hold what separates them in a path: that is escaped there.
    """
    top: list[Node] = []
    open_: list[Node] = []
    for path, kind in nodes:
        while open_ and not path.startswith(
            (f"{open_[-1].path}/", f"{open_[-1].path}[]", f"{open_[-1].path}#")
        ):
            open_.pop()
        if not open_:
            node = Node(path, kind, unquote(path))
            top.append(node)
        else:
            above = open_[-1]
            rest = path[len(above.path) :].lstrip("[]#").lstrip("/")
            siblings = above.children
            if above.kind in ("fork", "route"):
                branch, _, rest = rest.partition("/")
                place = f"{above.path}/{branch}"
                if not siblings or siblings[-1].path != place:
                    shown = "otherwise" if branch == "~default" else unquote(branch)
                    siblings.append(Node(place, "branch", shown, repeated=above.repeated))
                siblings = siblings[-1].children
            node = Node(path, kind, unquote(rest) or "each one")
            node.repeated = above.repeated or above.kind in _REPEATING
            siblings.append(node)
        if kind in _CONTAINERS:
            open_.append(node)
    return top


@dataclass(frozen=True, slots=True)
class _Marker:
    """Gives each node its state and its words."""

    row: InstanceRow
    sizes: dict[str, int]
    items: dict[str, tuple[int, int]]

    def block(
        self, nodes: Sequence[Node], *, over: bool, active: bool, front: int | None = None
    ) -> None:
        """Nodes one after the other: those before the front are over, those behind untouched."""
        if front is None:
            begun = [number for number, node in enumerate(nodes) if _begun(node)]
            front = begun[-1] if begun else 0
            if begun and self.over(nodes[front]):
                front += 1
        for number, node in enumerate(nodes):
            passed = over or number < front
            self.mark(node, over=passed, active=active and not passed and number == front)

    def over(self, node: Node) -> bool:
        """Whether the history says that it is over; of a loop it never does."""
        match node.kind:
            case "fork":
                return all(self.over(branch) for branch in node.children)
            case "branch" | "child":
                return self.over(node.children[-1])
            case "route":
                return any(self.over(arm) for arm in node.children if _begun(arm))
            case "map":
                size = self.sizes.get(node.path)
                return size is not None and self._ended(node) >= size
            case "loop":
                return False
        return any(_ended_well(steps) for steps in node.rows.values())

    def mark(self, node: Node, *, over: bool, active: bool) -> None:
        """One node and those below it."""
        if over:
            node.state = "done"
        elif active:
            node.state = self._standing()
        match node.kind:
            case "map" | "loop" | "spread":
                self._many(node, over=over, active=active)
            case "fork" | "branch" | "child" if not node.repeated:
                below = (
                    [node.children]
                    if node.kind != "fork"
                    else [[branch] for branch in node.children]
                )
                for nodes in below:
                    self.block(nodes, over=over, active=active)
                if node.kind != "child" and not over and not _begun(node) and not active:
                    node.state = "none"
            case "route" if not node.repeated:
                self._route(node, over=over, active=active)
            case _ if node.repeated:
                self._repeated(node)
            case _:
                self._leaf(node, over=over, active=active)
        if node.repeated and node.kind in _CONTAINERS:
            for child in node.children:
                self.mark(child, over=False, active=False)

    def _standing(self) -> str:
        """The state of what holds the place at which the instance stands."""
        status = self.row.status
        if status == "in_progress":
            return "active"
        return {"failed": "failed", "cancelled": "none"}.get(status, "waiting")

    def _route(self, node: Node, *, over: bool, active: bool) -> None:
        taken = [arm for arm in node.children if _begun(arm)]
        if not node.rows:
            self._leaf(node, over=over, active=active)
        for arm in node.children:
            if arm in taken:
                self.mark(arm, over=over, active=active)
            elif taken:
                arm.words = "not taken"

    def _many(self, node: Node, *, over: bool, active: bool) -> None:
        """A map or a loop: how far it is, in one line."""
        ended = self._ended(node)
        size = self.sizes.get(node.path)
        if node.kind == "spread" and node.path in self.items:
            ended, size = self.items[node.path]
        if node.kind == "loop":
            if ended:
                node.words = f"{ended} turn{'s' if ended > 1 else ''}"
        elif size is not None and not over:
            node.words = f"{ended}/{size} items"
        elif ended:
            node.words = f"{ended} item{'s' if ended > 1 else ''}"
        bad = sum(1 for child in _all(node.children) for s in child.rows.values() if _failed(s))
        if bad:
            node.words += f"{', ' if node.words else ''}{bad} failed"
        if active and not node.repeated:
            self._stopped(node)
        for child in node.children:
            self.mark(child, over=False, active=False)
        if len(node.children) == 1 and not node.children[0].children:
            # The line above says all of it, but for what is waited for within.
            [only] = node.children
            inside = only.state == "waiting" or only.name != "each one"
            node.children = [only] if inside and node.kind != "spread" else []

    def _ended(self, node: Node) -> int:
        """How many items or turns have ended: those whose last step did, or any step for good."""
        last = node
        while last.children:
            last = last.children[-1]
        below = [child for child in _all(node.children) if child is not last]
        failed = sum(sum(map(_failed, child.rows.values())) for child in below)
        return failed + (0 if last is node else sum(map(_over, last.rows.values())))

    def _repeated(self, node: Node) -> None:
        """A step that runs for each item or turn: how often it did what."""
        histories = node.rows.values()
        done, bad = sum(map(_ended_well, histories)), sum(map(_failed, histories))
        again = len(histories) - done - bad
        told = [(done, "done"), (bad, "failed"), (again, "to be tried again")]
        node.words = ", ".join(f"{count} {word}" for count, word in told if count)
        node.state = "failed" if bad else "done" if done else "none"
        if again or self._is_at(node):
            node.state = "waiting"
        if self._is_at(node):
            node.words = ", ".join(filter(None, [node.words, self._waits()]))

    def _leaf(self, node: Node, *, over: bool, active: bool) -> None:
        steps = [step for found in node.rows.values() for step in found]
        if not steps:
            if over:
                node.state, node.words = "none", ""
            if active:
                self._front(node)
            return
        last = steps[-1]
        took = seconds((last.ended_at - last.started_at).total_seconds())
        tries = f", attempt {last.attempt}" if last.attempt > 1 else ""
        if last.outcome == "retried":
            node.state = "waiting"
            node.words = f"attempt {last.attempt} failed: {last.error_type}"
            if self.row.status == "waiting" and self.row.wake_at is not None:
                node.words += f", next {self._waits()}"
            elif self.row.status in ("failed", "cancelled"):
                node.state = "failed"
        elif last.outcome == "failed":
            node.state = "failed"
            node.words = f"failed: {last.error_type}{tries}, {took}"
        else:
            node.state = "done"
            timed_out = node.kind == "wait" and last.outcome == "elapsed"
            node.words = "its time was over" if timed_out else f"{took}{tries}"

    def _front(self, node: Node) -> None:
        """A node that nothing has ended of, at which the instance stands."""
        row = self.row
        if row.status == "in_progress":
            node.state = "active"
            node.words = "due" if row.worker_id is None else "running"
        elif row.status in ("waiting", "awaiting_signal"):
            node.state = "waiting"
            node.words = self._waits() if self._is_at(node) else "waiting"
            if node.kind == "wait" and not self._is_at(node):
                node.words = "awaits its event"
        else:
            self._stopped(node)

    def _stopped(self, node: Node) -> None:
        """A node at which an instance stands that does not go on."""
        status = self.row.status
        if status == "paused":
            node.state, node.words = "waiting", ", ".join(filter(None, [node.words, "paused"]))
        elif status in ("failed", "cancelled"):
            node.state = "failed" if status == "failed" else "none"
            node.words = ", ".join(filter(None, [node.words, f"{status} here"]))

    def _is_at(self, node: Node) -> bool:
        row = self.row
        at = row.signal_id if row.status == "awaiting_signal" else row.delay_id
        return row.status in ("waiting", "awaiting_signal") and (
            at is not None and _defined(at) == node.path
        )

    def _waits(self) -> str:
        row = self.row
        until = "" if row.wake_at is None else f"until {stamp(moment(row.wake_at))}"
        if row.status == "awaiting_signal":
            return f"awaits event {row.signal_name}{f', {until}' if until else ''}"
        return until


def _begun(node: Node) -> bool:
    return bool(node.rows) or any(_begun(child) for child in node.children)


def _ended_well(steps: Sequence[StepInfo]) -> bool:
    return steps[-1].outcome in ("completed", "elapsed")


def _failed(steps: Sequence[StepInfo]) -> bool:
    return steps[-1].outcome == "failed"


def _over(steps: Sequence[StepInfo]) -> bool:
    return steps[-1].outcome != "retried"
