"""What a whole workflow gives, by the annotations of the steps that it ends with.

A client that has the workflow at hand makes outputs from plain data with this, as a task gets its
input made. It reads the tree and the annotations; what is stored, and how it is fetched, is not
known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from ._draw import Block
from ._signature import unfit_value
from ._task import TaskDef
from ._values import LoopResult, MapError
from ._workflow import Workflow

if TYPE_CHECKING:
    from ._form import Convert

__all__ = ["made_output", "output_converter"]

_known: WeakKeyDictionary[Workflow[Any, Any], Convert | None] = WeakKeyDictionary()
_latest: tuple[ref[Workflow[Any, Any]] | None, Convert | None] = (None, None)


def output_converter(workflow: Workflow[Any, Any]) -> Convert | None:
    """What makes a workflow's output of the plain data that is stored; `None` if it is that.

    A workflow ends with the return value of its last task, a list of them after a map, the value of
    a `LoopResult` after a loop, and a dict of key and result after a route. A delay passes on what
    came before it; what comes from an event, or from the input, is as it was sent.

    >>> from sayiir import Flow
    >>> output_converter(Flow("shout").then(str.upper).build()) is None
    True
    """
    global _latest
    latest, convert = _latest
    # Whoever waits for a thousand results mostly has one workflow.
    if latest is not None and latest() is workflow:
        return convert
    try:
        convert = _known[workflow]
    except KeyError:
        convert = _known[workflow] = _ending(workflow.inlined(0), workflow.tasks)
    _latest = ref(workflow), convert
    return convert


def made_output(convert: Convert | None, plain: Any, what: str) -> Any:
    """What is meant by a plain output.

    Args:
        convert: What `output_converter` said.
        plain: What is stored.
        what: How a message names it.

    Raises:
        DecodeError: It does not fit.
    """
    if convert is None:
        return plain
    from ._form import Misfit

    try:
        return convert(plain)
    except Misfit as misfit:
        raise unfit_value(misfit, what) from misfit.cause


def _ending(block: Block, tasks: Sequence[TaskDef]) -> Convert | None:
    """The converter of what the last node of a block passes on."""
    if not block:
        return None
    *before, node = block
    kind = node[0]
    if kind == "task":
        gives = tasks[node[2]].types.gives
        return None if gives is None else gives.convert
    if kind in ("delay", "delay_until"):
        return _ending(before, tasks)
    if kind == "child":
        return _ending(node[3], tasks)
    if kind in ("map", "spread"):
        return _items(_ending(node[2], tasks))
    if kind == "loop":
        return _last_turn(_ending(node[2], tasks))
    if kind == "route":
        arms = {key: _ending(arm, tasks) for key, arm in node[3]}
        return _arm(arms, None if node[4] is None else _ending(node[4], tasks))
    return None


def _items(item: Convert | None) -> Convert | None:
    """A map's list; an item that failed is in it as a `MapError`."""
    if item is None:
        return None
    from ._form import Form, items_of

    def one(value: Any) -> Any:
        return value if type(value) is MapError else item(value)

    return items_of("list", list, Form("an output", one, None, changes=True), list).convert


def _last_turn(result: Convert | None) -> Convert | None:
    """A loop's value; its body gives that in a `LoopResult`."""
    if result is None:
        return None
    return lambda value: result(LoopResult.done(value)).value


def _arm(arms: dict[str, Convert | None], default: Convert | None) -> Convert | None:
    """A route's key, and what the arm of that key gave."""
    if default is None and not any(arms.values()):
        return None
    from ._form import Misfit

    def convert(value: Any) -> Any:
        step = arms.get(value["branch"], default)
        if step is None:
            return value
        try:
            return {**value, "result": step(value["result"])}
        except Misfit as misfit:
            raise misfit.at("['result']") from None

    return convert
