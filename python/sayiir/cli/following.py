"""`sayiir runs watch`: an instance live, until it has ended.

Promises that a terminal shows the flow with what goes on in it, that anything else gets a line for
each step and each change of state, with `--json` one object each; that the exit code tells how the
instance ended, and that Ctrl-C leaves it as it is. It only looks: when there is something new, the
client's way of waiting knows.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click

from sayiir import Status, StepInfo, Workflow, WorkflowClient
from sayiir._watching import Sights
from sayiir.backends import InstanceRow
from sayiir.cli.graph import tree_of
from sayiir.cli.instance import Facts, facts_of_row, facts_of_step
from sayiir.cli.session import ask, url_option
from sayiir.cli.standing import Plan, items_of, plan_of
from sayiir.cli.target import named_workflow
from sayiir.cli.terminal import say, say_json, seconds

__all__ = ["flow_option", "watch_command", "write_error"]

_INTERRUPTED = 130
_Command = TypeVar("_Command", bound=Callable[..., Any])

_ITEMS_EVERY_S = 2.0
"""How often the items of a spread map are counted; while they run, their parent does not change."""


def flow_option(command: _Command) -> _Command:
    """Adds `--flow`, which gives the command its parameter `target`."""
    return click.option(
        "--flow",
        "target",
        metavar="MODULE:ATTRIBUTE",
        help="The workflow it runs; needed only while it awaits the items of a spread map.",
    )(command)


class Show(Protocol):
    """One way to show what happens."""

    @property
    def items(self) -> bool:
        """Whether it wants to know of the items of spread maps."""

    async def news(self, client: WorkflowClient, row: InstanceRow, fresh: list[StepInfo]) -> None:
        """The row has changed, or these steps have ended, or some time has passed."""


@click.command("watch")
@click.argument("instance_id", metavar="ID")
@flow_option
@url_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@click.pass_context
def watch_command(
    ctx: click.Context, instance_id: str, target: str | None, url: str | None, as_json: bool
) -> None:
    """Follow an instance until it has ended; Ctrl-C leaves it as it is.

    On a terminal the flow is drawn, with what goes on in it; elsewhere each step and each change of
    state is a line. The exit code is 0 if it completed, and 1 if it failed or was cancelled.
    """
    workflow = None if target is None else named_workflow(target)

    async def follow(client: WorkflowClient) -> InstanceRow:
        with _show(instance_id, workflow, as_json) as show:
            return await _follow(client, instance_id, show)

    try:
        row = ask(url, as_json, follow)
    except KeyboardInterrupt:
        ctx.exit(_INTERRUPTED)
    if not as_json:
        write_error(facts_of_row(row))
    ctx.exit(0 if row.status == Status.COMPLETED else 1)


async def _follow(client: WorkflowClient, instance_id: str, show: Show) -> InstanceRow:
    """Show what happens to an instance until it has ended; its last row."""
    sight = Sights(client.backend).on(instance_id)
    seen = 0
    while True:
        try:
            row = await sight.look(_ITEMS_EVERY_S if show.items else None)
        except TimeoutError:
            assert sight.row is not None
            row = sight.row
        fresh = await sight.steps(seen) if row.steps > seen else []
        seen += len(fresh)
        await show.news(client, row, fresh)
        if Status(row.status).is_terminal:
            return row


@contextmanager
def _show(instance_id: str, workflow: Workflow[Any, Any] | None, as_json: bool) -> Iterator[Show]:
    if as_json or not sys.stdout.isatty():
        yield _Lines(instance_id, as_json)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield _Drawing(live, workflow)


class _Lines:
    """A line for each step and each change of state."""

    items = False

    def __init__(self, instance_id: str, as_json: bool) -> None:
        self._instance_id = instance_id
        self._as_json = as_json
        self._told: dict[str, Any] = {}

    async def news(self, client: WorkflowClient, row: InstanceRow, fresh: list[StepInfo]) -> None:
        for step in map(facts_of_step, fresh):
            if self._as_json:
                say_json({"kind": "step", **step})
            else:
                say(_step_line(step))
        facts = facts_of_row(row)
        state = {name: facts[name] for name in ("status", "signal", "delay", "wake_at")}
        if state != self._told:
            self._told = state
            if self._as_json:
                say_json({"kind": "status", **facts})
            else:
                say(f"{self._instance_id} is {_state_words(facts)}")


class _Drawing:
    """The flow, drawn anew whenever something has changed."""

    def __init__(self, live: Any, workflow: Workflow[Any, Any] | None) -> None:
        self._live = live
        self._workflow = workflow
        self._plan: Plan | None = None
        self._history: list[StepInfo] = []
        self._sized: set[str] = set()
        self._items: dict[str, tuple[int, int]] = {}
        self._counted = -_ITEMS_EVERY_S

    @property
    def items(self) -> bool:
        return self._plan is None or self._plan.spreads

    async def news(self, client: WorkflowClient, row: InstanceRow, fresh: list[StepInfo]) -> None:
        self._history += fresh
        known = self._plan
        if known is None or self._lacks_size():
            self._plan = await plan_of(client, row, self._workflow)
            if known is not None:
                # While items are awaited the definition cannot be had; it is what it was.
                self._plan.nodes = self._plan.nodes or known.nodes
                self._plan.sizes = {**known.sizes, **self._plan.sizes}
        assert self._plan is not None
        now = asyncio.get_running_loop().time()
        due = now - self._counted >= _ITEMS_EVERY_S or Status(row.status).is_terminal
        if self._plan.spreads and due:
            self._items = await items_of(client, row)
            self._counted = now
        graph = self._plan.graph(row, self._history, self._items, fresh=False)
        self._live.update(tree_of(graph), refresh=True)

    def _lacks_size(self) -> bool:
        """Whether a map has begun whose size nobody has asked for since."""
        assert self._plan is not None
        if self._plan.nodes is None:
            return True
        maps = {path for path, kind in self._plan.nodes if kind == "map"}
        begun = {
            path for path in maps for step in self._history if step.path.startswith(f"{path}[")
        }
        fresh = begun - self._sized
        self._sized |= fresh
        return bool(fresh)


def write_error(facts: Facts) -> None:
    """What an instance failed with, on stdout, for people."""
    error = facts["error"]
    if error is not None:
        say(f"error: {error['type']}: {error['message']}", lines=True)


def _step_line(step: Facts) -> str:
    tries = f", attempt {step['attempt']}" if step["attempt"] > 1 else ""
    words = f"{step['path']}: {step['outcome']} after {seconds(step['took_s'])}{tries}"
    error = ": ".join(step[key] for key in ("error_type", "error") if step[key])
    first = error.partition("\n")[0]
    return f"{step['ended_at']}  {words}" + (f" ({first[:100]})" if first else "")


def _state_words(facts: Facts) -> str:
    words = str(facts["status"])
    if facts["signal"]:
        words += f" of event {facts['signal']}"
    if facts["delay"]:
        words += f" in delay {facts['delay']}"
    if facts["wake_at"] and not Status(facts["status"]).is_terminal:
        words += f" until {facts['wake_at']}"
    return words
