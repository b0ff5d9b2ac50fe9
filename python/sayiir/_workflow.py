"""A built workflow: immutable, shareable, ready to be submitted and run.

It holds the definition that the engine interprets and the functions that go with it, each use of a
function by its own index. It runs nothing and knows no instance.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from ._core import Program
from ._draw import Block, Node, to_mermaid
from ._policy import RetryPolicy
from ._task import TaskDef

__all__ = ["NodeInfo", "Workflow", "shifted"]

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node of a workflow, as `Workflow.iter_nodes` lists it.

    >>> NodeInfo("charge", "task").predecessor_id is None
    True
    """

    id: str
    """The node's path; `[]` and `#` stand for every item of a map and every turn of a loop."""
    kind: str
    """`task fork map spread route loop delay delay_until wait child`."""
    predecessor_id: str | None = None
    """The path of the node before it, or of the one it is inside of; `None` for the first."""
    timeout_secs: float | None = None
    """A task's timeout, a delay's length, or how long a wait lasts at most, in seconds."""
    retry_policy: RetryPolicy | None = None
    """A task's retry policy; `None` when it runs once."""
    priority: int | None = None
    """A task's priority, if it has one of its own."""


class Workflow(Generic[In_contra, Out_co]):
    """A workflow that takes `In_contra` and gives `Out_co`. Made by `Flow.build`.

    It never changes: a flow that is extended after `build` makes another one. The definition hash
    says whether two workflows have the same name and structure; what may be tuned (retries,
    timeouts, delays, bounds, tags, priorities, the code of the functions) does not enter into it.

    >>> from sayiir import Flow
    >>> workflow = Flow("greet").then(str.strip, name="trim").then(str.upper, name="shout").build()
    >>> workflow.workflow_id, len(workflow.definition_hash)
    ('greet', 64)
    >>> [node.id for node in workflow.iter_nodes()]
    ['trim', 'shout']
    """

    __slots__ = ("__weakref__", "_block", "_metadata", "_program", "_tasks")

    _program: Program
    _block: Block
    _tasks: tuple[TaskDef, ...]
    _metadata: dict[str, Any] | None

    def __init__(
        self,
        name: str,
        block: Block,
        tasks: Sequence[TaskDef],
        metadata: Mapping[str, Any] | None,
    ) -> None:
        kept = None if metadata is None else copy.deepcopy(dict(metadata))
        put = object.__setattr__
        put(self, "_program", Program(name, block, list(tasks), kept))
        put(self, "_block", block)
        put(self, "_tasks", tuple(tasks))
        put(self, "_metadata", kept)

    @property
    def workflow_id(self) -> str:
        """The workflow's name."""
        return self._program.name

    @property
    def definition_hash(self) -> str:
        """The fingerprint of name and structure: 64 hexadecimal digits."""
        return self._program.definition_hash

    @property
    def metadata(self) -> dict[str, Any] | None:
        """A copy of what was given as `Flow(metadata=…)`, or `None`."""
        return copy.deepcopy(self._metadata)

    @property
    def program(self) -> Program:
        """The engine's form of the definition."""
        return self._program

    @property
    def tasks(self) -> tuple[TaskDef, ...]:
        """Every use of a function, by the index the definition refers to it with."""
        return self._tasks

    def inlined(self, offset: int) -> Block:
        """Its nodes for use inside of another flow, whose tasks before these are `offset` many."""
        return shifted(self._block, offset)

    def iter_nodes(self) -> list[NodeInfo]:
        """All nodes in the order they run in; branches and arms one after the other."""
        return [self._node_info(*node) for node in self._program.nodes()]

    def _node_info(
        self,
        path: str,
        kind: str,
        predecessor: str | None,
        task: int | None,
        timeout: float | None,
    ) -> NodeInfo:
        metadata = None if task is None else self._tasks[task].metadata
        return NodeInfo(
            id=path,
            kind=kind,
            predecessor_id=predecessor,
            timeout_secs=timeout,
            retry_policy=None if metadata is None else metadata.retries,
            priority=None if metadata is None else metadata.priority,
        )

    def to_mermaid(self) -> str:
        """A drawing of it as Mermaid flowchart text."""
        return to_mermaid(self.workflow_id, self._block)

    def to_svg(self) -> str:
        """A picture of it as SVG text, for a file or for the inside of a page.

        The same workflow always gives the same text. It needs nothing else: no font, script or
        other file; it is readable on light and on dark. Whole names are in the tooltips. Large
        workflows are drawn in part: 100 steps of a row, 8 branches of a fork or route, 400 nodes
        in all; what is left out is said in its place.

        >>> from sayiir import Flow
        >>> svg = Flow("greet").then(str.strip, name="trim").build().to_svg()
        >>> svg.startswith("<svg xmlns=") and ">trim</text>" in svg
        True
        """
        # Loaded by who draws: submitting and running need it never.
        from ._picture import to_svg

        return to_svg(self.workflow_id, self._block)

    def _repr_html_(self) -> str:
        """How a notebook shows it: the picture."""
        return self.to_svg()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a built workflow does not change; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a built workflow does not change; cannot delete {name!r}")

    def __copy__(self) -> Workflow[In_contra, Out_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Workflow[In_contra, Out_co]:
        return self

    def __repr__(self) -> str:
        return f"<Workflow {self.workflow_id!r} {self.definition_hash[:12]}>"


def shifted(block: Sequence[Node], offset: int) -> Block:
    """The same nodes with every task index moved up by `offset`.

    >>> shifted([("task", "a", 0), ("delay", "d", 1.0)], 5)
    [('task', 'a', 5), ('delay', 'd', 1.0)]
    """
    return [_shifted_node(node, offset) for node in block]


def _shifted_node(node: Node, offset: int) -> Node:
    kind, name = node[0], node[1]
    if kind == "task":
        return kind, name, node[2] + offset
    if kind == "fork":
        return kind, name, [(branch, shifted(body, offset)) for branch, body in node[2]]
    if kind in ("map", "spread", "loop"):
        return kind, name, shifted(node[2], offset), *node[3:]
    if kind == "route":
        arms = [(key, shifted(body, offset)) for key, body in node[3]]
        default = None if node[4] is None else shifted(node[4], offset)
        return kind, name, node[2] + offset, arms, default
    if kind == "child":
        return kind, name, node[2], shifted(node[3], offset)
    return node
