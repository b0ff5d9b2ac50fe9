"""`sayiir demo`: a durable workflow on this machine's standard library, and a worker killed in it.

Promises figures that were counted in this run; exit code 0 when everything came out as durability
promises it and 1 with the reason when it did not; and that neither a worker process nor a temporary
file stays, also after Ctrl-C and SIGTERM. Refuses to know how files are measured (`census`), what
is done to the workers (`demo_takeover`) and what it looks like (`demo_display`).
"""

import asyncio
import signal
import sysconfig
import tempfile
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
from rich.console import Console

from sayiir import SayiirError
from sayiir.cli.census import Scan
from sayiir.cli.demo_display import show, watching
from sayiir.cli.demo_process import WorkerGoneError
from sayiir.cli.demo_takeover import INSTANCE, Outcome, Plan, rehearse

__all__ = ["command"]

T = TypeVar("T")


@click.command("demo")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first N files.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=4,
    show_default=True,
    help="Files in work at once. Parsing holds the interpreter lock: more is not faster.",
)
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look here instead of in the standard library.",
)
@click.option("--no-kill", is_flag=True, help="Let the first worker come to the end.")
@click.option(
    "--keep",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Leave the database here, a file that does not exist yet.",
)
def command(
    limit: int | None, concurrency: int, path: Path | None, no_kill: bool, keep: Path | None
) -> None:
    """Analyse the Python standard library as one durable workflow, with a crash in the middle.

    One step finds the files, one step for each file parses and measures it, one step joins the
    figures. A worker process runs them from a SQLite database and is killed with SIGKILL when half
    of the files are done; another one goes on from there. Then it is counted what that cost.

    Exit code 0: nothing was lost and nothing changed. 1: something was, or the demo could not run.
    """
    root = path if path is not None else Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise click.ClickException(
            f"the standard library is not a folder here ({root}); name one with --path"
        )
    if keep is not None and keep.exists():
        raise click.BadParameter(
            f"{keep} is there already, and an earlier run may be in it; name a new file",
            param_hint="--keep",
        )
    console = Console(highlight=False)
    scan = Scan(root=str(root.resolve()), limit=limit)
    with tempfile.TemporaryDirectory(prefix="sayiir-demo-") as folder:
        plan = Plan(
            scan=scan,
            store=Path(folder, "demo.db") if keep is None else keep.absolute(),
            folder=Path(folder),
            concurrency=concurrency,
            kill=not no_kill,
        )
        outcome = _rehearse(plan, console)
    if not outcome.report["files"]:
        raise click.ClickException(f"there is no Python file below {root}; try another --path")
    show(console, outcome, Path(scan["root"]))
    if keep is not None:
        url = f"sqlite:///{quote(str(keep.absolute()))}"
        click.echo(f"The database is kept: sayiir runs show {INSTANCE} --url {url}")
    if broken := outcome.broken_promises():
        raise click.ClickException("; and ".join(broken))


def _rehearse(plan: Plan, console: Console) -> Outcome:
    try:
        # Old test data holds literals the parser warns about; they are not this program's to mend.
        with warnings.catch_warnings(), watching(console) as watcher:
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return asyncio.run(_terminable(rehearse(plan, watcher)))
    except (SayiirError, WorkerGoneError) as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _terminable(work: Coroutine[Any, Any, T]) -> T:
    """Await it; SIGTERM cancels it as Ctrl-C does, so that it ends and clears what it started."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
