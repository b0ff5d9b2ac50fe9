"""What a drawing of an instance needs, fetched: its definition, its history, the items of its maps.

The definition is the stored one, so that no code is needed; it comes with an export of the
instance. That is refused as long as the instance is an item of a spread map or awaits the items of
one: then the workflow has to be named, or the steps are listed without their flow. Promises to
change nothing, to keep no payload, and to look at 10,000 items at most. How it is drawn is not
known here.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from sayiir import (
    DefinitionMismatchError,
    InvalidStateError,
    StepInfo,
    Workflow,
    WorkflowClient,
)
from sayiir._argument import MAX_LIMIT
from sayiir._core import decode_snapshot, explain_cell, explain_definition
from sayiir._listing import InstanceInfo
from sayiir.backends import InstanceRow
from sayiir.cli.graph import Graph, Nodes, graph_of

__all__ = ["Plan", "is_item", "items_of", "plan_of"]

_ITEM = re.compile(r"~[0-9a-f]+\.\d+\[\d+\]\Z")
_MOST_PAGES = 10
_MOST_ID_BYTES = 255
"""Of an id that may be a prefix with one more character."""
# Where `explain_cell` says that the outermost position is, and how many go on from there.
_POSITION = re.compile(
    r"^(?:parked on (?P<strands>\d+) strands, |.*?)at node (?P<at>\d+)(?P<in> /)?"
)


def is_item(info: InstanceInfo) -> bool:
    """Whether it is an item of a spread map: by its id, and by its workflow, named after the map.

    >>> from datetime import UTC, datetime
    >>> from sayiir import Status
    >>> at = datetime(2024, 1, 1, tzinfo=UTC)
    >>> item = InstanceInfo("a~5.6[1]", "all/resize", "00" * 32, Status.COMPLETED, at, at)
    >>> is_item(item), is_item(InstanceInfo("a~b", "all", "00" * 32, Status.COMPLETED, at, at))
    (True, False)
    """
    return "/" in info.workflow_id and _ITEM.search(info.instance_id) is not None


@dataclass(slots=True)
class Plan:
    """What is known of an instance besides its row and its history."""

    nodes: Nodes | None
    """Its definition's, if that can be had."""
    at: int | None = None
    """The number of the outermost node that it stood at when it was fetched."""
    sizes: dict[str, int] = field(default_factory=dict)
    """How many items a map has, by its path, as far as that is known."""

    @property
    def spreads(self) -> bool:
        """Whether there may be items that are instances of their own."""
        return self.nodes is None or any(kind == "spread" for _, kind in self.nodes)

    def graph(
        self,
        row: InstanceRow,
        history: list[StepInfo],
        items: dict[str, tuple[int, int]] | None = None,
        *,
        fresh: bool = True,
    ) -> Graph:
        """The drawing; unless the plan is `fresh`, the history alone says where it stands."""
        at = self.at if fresh else None
        return graph_of(self.nodes, history, row, at=at, sizes=self.sizes, items=items)


async def plan_of(
    client: WorkflowClient, row: InstanceRow, workflow: Workflow[Any, Any] | None = None
) -> Plan:
    """The plan of an instance, of this workflow if one is named.

    Raises:
        DefinitionMismatchError: The workflow that was named is not the one that it runs.
        InstanceNotFoundError: It is gone.
    """
    nodes = None if workflow is None else _nodes_of(workflow, row)
    try:
        snapshot = decode_snapshot(await client.backend.export(row.instance_id))
    except InvalidStateError:
        return Plan(nodes)
    if nodes is None:
        nodes = explain_definition(snapshot.definition)[2]
    plan = Plan(nodes)
    cursor = snapshot.cursor
    found = None if cursor is None else _POSITION.match(explain_cell(cursor))
    if found is not None:
        outermost = _outermost(nodes)
        at = int(found["at"])
        if at < len(outermost):
            plan.at = at
            path, kind = outermost[at]
            if kind == "map" and found["strands"] is not None and not found["in"]:
                plan.sizes[path] = int(found["strands"])
    return plan


def _nodes_of(workflow: Workflow[Any, Any], row: InstanceRow) -> Nodes:
    """Those of the workflow that was named, or of the items of one of its spread maps."""
    for program in (workflow.program, *workflow.program.items):
        if program.definition_hash == row.definition_hash:
            return [(path, kind) for path, kind, *_ in program.nodes()]
    raise DefinitionMismatchError(
        f"instance {row.instance_id!r} runs definition {row.definition_hash[:12]} of "
        f"{row.workflow_id!r}, and the workflow that was named is {workflow.workflow_id!r} "
        f"{workflow.definition_hash[:12]}: name the version it was submitted with, or leave --flow "
        "out",
        expected=workflow.definition_hash,
        found=row.definition_hash,
        instance_id=row.instance_id,
    )


def _outermost(nodes: Nodes) -> Nodes:
    """Those inside of no other: whose path begins with none of the others' before it."""
    outermost: list[tuple[str, str]] = []
    for path, kind in nodes:
        last = outermost[-1][0] if outermost else None
        if last is None or not path.startswith((f"{last}/", f"{last}[]", f"{last}#")):
            outermost.append((path, kind))
    return outermost


async def items_of(client: WorkflowClient, row: InstanceRow) -> dict[str, tuple[int, int]]:
    """How many items of its spread maps have ended, and how many there are, by the map's path."""
    counts: dict[str, tuple[int, int]] = {}
    if len(row.instance_id.encode()) > _MOST_ID_BYTES:
        return counts
    cursor = None
    for _ in range(_MOST_PAGES):
        page = await client.list_instances(
            id_prefix=f"{row.instance_id}~", limit=MAX_LIMIT, cursor=cursor
        )
        for info in page:
            own = _ITEM.sub("", info.instance_id) == row.instance_id
            path = info.workflow_id.removeprefix(f"{row.workflow_id}/")
            if own and is_item(info) and path != info.workflow_id:
                ended, made = counts.get(path, (0, 0))
                counts[path] = ended + info.status.is_terminal, made + 1
        cursor = page.next_cursor
        if cursor is None:
            break
    return counts
