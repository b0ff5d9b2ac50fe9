"""`sayiir run`: one instance, run right here.

Promises that the output goes to stdout as JSON and everything else to stderr; that an interrupted
instance keeps what it has done, and the words to go on with are said. How an instance is driven is
the engine's business (`sayiir.run_workflow_async`).
"""

import asyncio
import shlex
import signal
from typing import Any

import click

from sayiir import (
    ConflictPolicy,
    SayiirError,
    TaskError,
    Workflow,
    WorkflowError,
    run_workflow_async,
)
from sayiir._submission import fresh_id
from sayiir._url import address_of
from sayiir.backends import Backend
from sayiir.backends._view import moment
from sayiir.cli.argument import read_json
from sayiir.cli.session import Refused, json_option, opened, reporting, url_option
from sayiir.cli.target import named_workflow
from sayiir.cli.terminal import note, say_output, stamp

__all__ = ["command"]

# How often it is looked what the instance waits for; nothing but a note depends on it.
_LOOK_EVERY_S = 1.0
# 128 and the signal's number, as a shell has it.
_INTERRUPTED = 130
_TERMINATED = 143


_EXIT_CODES = """\b
Exit codes:
  0    completed
  1    failed, cancelled or paused, or the database could not be used
  2    wrong arguments, or no such workflow
  130  interrupted by Ctrl-C (143 by SIGTERM); the instance can be gone on with
"""


@click.command("run", epilog=_EXIT_CODES)
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option("--input", "given", metavar="JSON|@FILE|-", help="The input; null if not given.")
@click.option(
    "--id", "instance_id", metavar="ID", help="The id; an instance of it is gone on with."
)
@url_option
@json_option
def command(
    target: str, given: str | None, instance_id: str | None, url: str | None, as_json: bool
) -> None:
    """Run one instance of a workflow here and print its output as JSON.

    MODULE:ATTRIBUTE names a workflow, or a function that returns one. It is run to its end in this
    process, through delays and events; what it has done is kept in the database. With --id an
    instance that was interrupted goes on where it was, and one that has ended shows its output.
    """
    workflow = named_workflow(target)
    value = read_json(given, "--input")
    with reporting(as_json):
        kept = address_of(url).scheme != "memory"
    chosen = fresh_id() if instance_id is None else instance_id
    policy = ConflictPolicy.FAIL if instance_id is None else ConflictPolicy.USE_EXISTING
    interrupted = _Interrupted()
    try:
        with reporting(as_json):
            output = asyncio.run(_run(workflow, value, chosen, policy, url, interrupted))
    except Refused as refused:
        raise _explained(refused, chosen, kept) from refused
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say_how_to_go_on(target, chosen, url, kept)
        click.get_current_context().exit(_TERMINATED if interrupted.by_sigterm else _INTERRUPTED)
    say_output(chosen, output, as_json)


class _Interrupted:
    """Which signal ended the run, if one did."""

    by_sigterm = False


async def _run(
    workflow: Workflow[Any, Any],
    value: Any,
    instance_id: str,
    policy: ConflictPolicy,
    url: str | None,
    interrupted: _Interrupted,
) -> Any:
    running = asyncio.current_task()
    assert running is not None

    def terminate() -> None:
        interrupted.by_sigterm = True
        running.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    backend = opened(url, make=True)
    note(f"instance {instance_id} of workflow {workflow.workflow_id}")
    telling = asyncio.ensure_future(_tell_what_it_waits_for(backend, instance_id))
    try:
        return await run_workflow_async(
            workflow, value, instance_id=instance_id, backend=backend, conflict_policy=policy
        )
    finally:
        telling.cancel()
        await backend.close()


async def _tell_what_it_waits_for(backend: Backend, instance_id: str) -> None:
    """Somebody who sees nothing happen should know why."""
    told = None
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            row = await backend.get(instance_id)
        except SayiirError:
            # Whatever is wrong, the run itself says it.
            continue
        words = None
        if row.signal_name is not None:
            order = f"sayiir runs send {shlex.quote(instance_id)} {shlex.quote(row.signal_name)}"
            words = f"waits for event {row.signal_name}; send it with: {order} JSON"
        elif row.wake_at is not None:
            words = f"waits until {stamp(moment(row.wake_at))}"
        if words is not None and words != told:
            note(words)
        told = words


def _explained(refused: Refused, instance_id: str, kept: bool) -> Refused:
    """The refusal with what this command knows beyond the error."""
    cause = refused.__cause__
    if isinstance(cause, TaskError) and cause.traceback:
        note(cause.traceback.rstrip(), lines=True)
        refused.facts["traceback"] = cause.traceback
    elif type(cause) is WorkflowError and kept:
        # It is paused: what the engine says of it is for those who write programs.
        words = f"instance {instance_id!r} is paused; let it go on with: sayiir runs unpause "
        paused = Refused(words + shlex.quote(instance_id), "WorkflowError")
        paused.as_json = refused.as_json
        refused = paused
    refused.facts.setdefault("instance_id", instance_id)
    return refused


def _say_how_to_go_on(target: str, instance_id: str, url: str | None, kept: bool) -> None:
    if not kept:
        note("Interrupted. The instance was in memory and is gone.")
        return
    same = " and the same --url" if url is not None else ""
    note(
        f"Interrupted. Instance {instance_id} keeps every step that it has finished. Go on with: "
        f"sayiir run {shlex.quote(target)} --id {shlex.quote(instance_id)}{same}"
    )
