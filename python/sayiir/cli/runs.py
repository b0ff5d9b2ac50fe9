"""`sayiir runs`: look at instances and steer them.

Promises that each command is one call of the client, that `--json` answers with one object, and
that nothing is made where there is no database. What an instance is, and what may be done to it in
which state, is the backend's to say.
"""

import shlex
from collections.abc import Awaitable, Callable
from datetime import datetime

import click

from sayiir import InstanceInfo, InstanceNotFoundError, Status, WorkflowClient
from sayiir.cli.argument import Length, Moment, read_json
from sayiir.cli.following import flow_option, watch_command, write_error
from sayiir.cli.graph import Graph, tree_of
from sayiir.cli.instance import (
    Facts,
    facts_of,
    facts_of_row,
    facts_of_step,
    write_instance,
    write_list,
)
from sayiir.cli.moving import export_command, import_command
from sayiir.cli.session import ask, json_option, url_option
from sayiir.cli.standing import is_item, items_of, plan_of
from sayiir.cli.target import named_workflow
from sayiir.cli.terminal import draw_tree, note, say, say_json, say_output

__all__ = ["command"]

_instance = click.argument("instance_id", metavar="ID")
_reason = click.option("--reason", metavar="TEXT", help="Why, for whoever looks at it later.")
_by = click.option("--by", metavar="NAME", help="Who asked for it.")


_MOST_PAGES = 50
"""How often a list asks for more when items are left out of it."""


_EXIT_CODES = """\b
Exit codes of every command here:
  0    done
  1    refused: no such instance, its state does not allow it, no database
  2    wrong arguments
  130  interrupted by Ctrl-C
"""


@click.group("runs", epilog=_EXIT_CODES)
def command() -> None:
    """Look at instances and steer them."""


command.add_command(export_command)
command.add_command(import_command)
command.add_command(watch_command)


@command.command("list")
@click.option("--status", type=click.Choice([str(status) for status in Status]))
@click.option("--workflow", metavar="NAME", help="Only those of this workflow.")
@click.option("--prefix", metavar="TEXT", help="Only those whose ids begin with this.")
@click.option("--created-after", type=Moment(), help="A date and time (UTC), or how long ago: 2h.")
@click.option("--created-before", type=Moment(), help="Likewise.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", help="Go on where the page that gave this cursor ended.")
@click.option("--items", is_flag=True, help="Also the items of spread maps.")
@url_option
@json_option
def list_command(
    status: str | None,
    workflow: str | None,
    prefix: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    limit: int,
    cursor: str | None,
    items: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """List instances that match everything given, newest first.

    Items of spread maps are left out unless --items is given; a page may then be shorter than
    --limit although there are more.

    With --json: {"rows": […], "cursor": …}; the cursor is null on the last page.
    """

    async def gather(client: WorkflowClient) -> tuple[list[InstanceInfo], int, str | None]:
        shown: list[InstanceInfo] = []
        left_out, at = 0, cursor
        for _ in range(_MOST_PAGES):
            page = await client.list_instances(
                status=status,
                workflow=workflow,
                id_prefix=prefix,
                created_after=created_after,
                created_before=created_before,
                # Never more than fit, so that the last page's cursor is the whole list's.
                limit=limit - len(shown),
                cursor=at,
            )
            kept = [info for info in page if items or not is_item(info)]
            shown += kept
            left_out += len(page) - len(kept)
            at = page.next_cursor
            # A page that is nearly full is not worth many small questions.
            if at is None or len(shown) * 4 > limit * 3 or len(shown) == limit:
                break
        return shown, left_out, at

    found, left_out, more = ask(url, as_json, gather)
    rows = [facts_of(info) for info in found]
    if as_json:
        say_json({"rows": rows, "cursor": more})
        return
    if rows:
        write_list(rows)
    else:
        note("no instances match")
    if left_out:
        note(f"{left_out} items of spread maps are left out; --items shows them")
    if more is not None:
        note(f"there are more: --cursor {shlex.quote(more)}")


@command.command("show")
@_instance
@click.option("--graph", is_flag=True, help="Draw its flow, with how far it is, as a tree.")
@flow_option
@url_option
@json_option
def show_command(
    instance_id: str, graph: bool, target: str | None, url: str | None, as_json: bool
) -> None:
    """Show one instance: its state, who holds it, what it waits for, its error, its history.

    With --graph its flow is drawn in place of the history. The flow is read from the database,
    which takes reading all that is stored of the instance.
    """
    if graph or target is not None:
        _draw(instance_id, target, url, as_json)
        return

    async def look(client: WorkflowClient) -> tuple[Facts, list[Facts]]:
        history = await client.history(instance_id)
        row = await client.backend.get(instance_id)
        return facts_of_row(row), [facts_of_step(step) for step in history]

    facts, history = ask(url, as_json, look)
    if as_json:
        say_json({**facts, "history": history})
    else:
        write_instance(facts, history)


def _draw(instance_id: str, target: str | None, url: str | None, as_json: bool) -> None:
    """Show the flow of an instance and how far it is."""
    workflow = None if target is None else named_workflow(target)

    async def look(client: WorkflowClient) -> tuple[Graph, bool]:
        # The plan after the row and before the history, so that what has ended is in the history.
        row = await client.backend.get(instance_id)
        plan = await plan_of(client, row, workflow)
        history = await client.history(instance_id)
        items = await items_of(client, row) if plan.spreads else None
        return plan.graph(row, history, items), plan.nodes is not None

    drawn, whole = ask(url, as_json, look)
    facts = facts_of_row(drawn.row)
    if as_json:
        say_json({**facts, "graph": drawn.facts()})
        return
    draw_tree(tree_of(drawn))
    write_error(facts)
    if not whole:
        note(
            "its flow cannot be read while it has to do with a spread map; these are the steps that"
            " have ended: name the workflow with --flow to see the rest"
        )


@command.command("cancel")
@_instance
@_reason
@_by
@url_option
@json_option
def cancel_command(
    instance_id: str, reason: str | None, by: str | None, url: str | None, as_json: bool
) -> None:
    """Cancel an instance: at once if no worker holds it, else at its next step."""
    _steer(
        url,
        as_json,
        instance_id,
        lambda client: client.cancel(instance_id, reason, by),
        {"cancelled": "is cancelled"},
        "will be cancelled at its next step",
    )


@command.command("pause")
@_instance
@_reason
@_by
@url_option
@json_option
def pause_command(
    instance_id: str, reason: str | None, by: str | None, url: str | None, as_json: bool
) -> None:
    """Hold an instance back: at once if no worker holds it, else after its running step."""
    _steer(
        url,
        as_json,
        instance_id,
        lambda client: client.pause(instance_id, reason, by),
        {"paused": "is paused"},
        "will be paused after its running step",
    )


@command.command("unpause")
@_instance
@url_option
@json_option
def unpause_command(instance_id: str, url: str | None, as_json: bool) -> None:
    """Let a paused instance go on from where it was."""
    _steer(
        url,
        as_json,
        instance_id,
        lambda client: client.unpause(instance_id),
        {},
        "goes on",
    )


def _steer(
    url: str | None,
    as_json: bool,
    instance_id: str,
    order: Callable[[WorkflowClient], Awaitable[None]],
    done: dict[str, str],
    pending: str,
) -> None:
    """Give an order and say what came of it."""

    async def steer(client: WorkflowClient) -> str:
        await order(client)
        return str((await client.status(instance_id)).status)

    status = ask(url, as_json, steer)
    if as_json:
        say_json({"instance_id": instance_id, "status": status})
    else:
        say(f"{instance_id} {done.get(status, pending)}")


@command.command("send")
@_instance
@click.argument("name")
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@click.option("--key", metavar="TEXT", help="A second event of this name and key has no effect.")
@url_option
@json_option
def send_command(
    instance_id: str,
    name: str,
    payload: str | None,
    key: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Send an instance the event NAME; without a payload it is null.

    Events are kept in order until the instance waits for one, also before it exists.
    """
    value = read_json(payload, "the payload")

    async def send(client: WorkflowClient) -> str | None:
        await client.send_event(instance_id, name, value, idempotency_key=key)
        try:
            return str((await client.status(instance_id)).status)
        except InstanceNotFoundError:
            return None

    status = ask(url, as_json, send)
    if as_json:
        say_json({"instance_id": instance_id, "event": name, "status": status})
        return
    say(f"event {name} was sent to {instance_id}")
    if status is None:
        note(f"there is no instance {instance_id} yet; the event is kept for when it comes")


@command.command("result")
@_instance
@click.option("--timeout", type=Length(), help="Wait this long; 0 looks once.  [default: for ever]")
@url_option
@json_option
def result_command(instance_id: str, timeout: float | None, url: str | None, as_json: bool) -> None:
    """Wait for the end of an instance and print its output as JSON."""
    output = ask(url, as_json, lambda client: client.result(instance_id, timeout))
    say_output(instance_id, output, as_json)


@command.command("delete")
@_instance
@click.option("--force", is_flag=True, help="Also if it has not ended.")
@url_option
@json_option
def delete_command(instance_id: str, force: bool, url: str | None, as_json: bool) -> None:
    """Remove an instance with its history and its events."""
    ask(url, as_json, lambda client: client.delete(instance_id, force))
    if as_json:
        say_json({"instance_id": instance_id, "deleted": True})
    else:
        say(f"{instance_id} is deleted")
