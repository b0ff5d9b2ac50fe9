"""`sayiir worker`: a worker as a program, or several of them under one parent.

Promises that arguments, workflows and the database are judged before any process is started, so
that a mistake is said once; that exit codes mean what `--help` says. How a worker stops is in
`serving`, how several are kept running in `supervisor`.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

import sayiir
from sayiir import Worker, WorkerMetrics, Workflow
from sayiir._url import address_of
from sayiir.cli.argument import Length
from sayiir.cli.health import Address, HttpAddress
from sayiir.cli.probes import family_pages, serving_pages
from sayiir.cli.serving import serve
from sayiir.cli.session import opened, place, reporting, url_option
from sayiir.cli.supervisor import Supervisor
from sayiir.cli.target import named_workflows

__all__ = ["command"]

_EXIT_CODES = """\b
Exit codes:
  0    drained
  1    failed: no database, or a worker process that kept crashing
  2    wrong arguments, or no such workflow
  3    running steps were cut short: a second signal came, or the grace was over
  130  interrupted by Ctrl-C before it had begun to work
"""
_LEVELS = ("debug", "info", "warning", "error")
_PATIENCE_S = 15.0
"""How long, beyond the grace, a child may take to close what it has open."""
_log = logging.getLogger("sayiir.cli")


def _split_tags(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> list[str]:
    return [tag.strip() for text in given for tag in text.split(",")]


@click.command("worker", epilog=_EXIT_CODES)
@click.argument("targets", metavar="MODULE:ATTRIBUTE...", nargs=-1, required=True)
@url_option
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100_000),
    default=16,
    show_default=True,
    help="Instances that each process advances at once.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Worker processes. More than one have a parent that starts crashed ones again.",
)
@click.option(
    "--tags",
    metavar="A,B",
    multiple=True,
    callback=_split_tags,
    help="What it offers; may be repeated. Without tags it takes every step.",
)
@click.option(
    "--lease-ttl",
    type=Length(allow_zero=False),
    default="30s",
    show_default=True,
    help="After how long without a sign of life others take its instances over.",
)
@click.option(
    "--poll-interval",
    type=Length(allow_zero=False),
    default="1s",
    show_default=True,
    help="How often it looks for work that nothing told it of.",
)
@click.option(
    "--grace",
    type=Length(),
    default="30s",
    show_default=True,
    help="How long running steps may go on after it was told to stop.",
)
@click.option("--worker-id", metavar="ID", help="Its name in histories; with a number if several.")
@click.option(
    "--http",
    type=HttpAddress(),
    metavar="HOST:PORT",
    help="Where to answer /healthz, /readyz and /metrics; :8080 is every address of the machine.",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
@click.option("--lifeline", type=click.IntRange(0), hidden=True)
def command(
    targets: tuple[str, ...],
    url: str | None,
    concurrency: int,
    processes: int,
    tags: list[str],
    lease_ttl: float,
    poll_interval: float,
    grace: float,
    worker_id: str | None,
    http: Address | None,
    log_level: str,
    lifeline: int | None,
) -> None:
    """Run the tasks of instances that clients submit.

    MODULE:ATTRIBUTE names a workflow, a list of workflows, or a function without arguments that
    returns either. Modules are looked for in the current directory too.

    SIGTERM or SIGINT (Ctrl-C) drains: nothing new is begun, running steps may end within the grace,
    everything is given back. A second signal stops at once; the steps that were cut short run again
    elsewhere. A third kills.
    """
    workflows = named_workflows(targets)
    _log_to_stderr(log_level)
    settings: dict[str, Any] = {
        "tags": tags,
        "concurrency": concurrency,
        "lease_ttl": lease_ttl,
        "poll_interval": poll_interval,
        "grace": grace,
    }
    if processes == 1:
        with reporting(as_json=False):
            own = {**settings, "worker_id": worker_id}
            asyncio.run(_work(workflows, url, lifeline, http, own))
        return
    with reporting(as_json=False):
        if address_of(url).scheme == "memory":
            raise ValueError(
                "memory:// cannot be shared by several processes; use a sqlite:/// url"
            )
        asyncio.run(_try_out(workflows, url, {**settings, "worker_id": worker_id}))
        family = (
            worker_id if worker_id is not None else f"{socket.gethostname()[:64]}-{os.getpid()}"
        )
        shared = _shared_arguments(targets, url, log_level, settings)
        with ExitStack() as stack:
            paths: list[Path | None] = [None] * processes
            if http is not None:
                # Children answer on sockets of their own, and the parent for all of them.
                folder = stack.enter_context(TemporaryDirectory(prefix="sayiir-"))
                paths = [Path(folder, f"{n + 1}.sock") for n in range(processes)]
            commands = [_child(shared, f"{family}-{n + 1}", path) for n, path in enumerate(paths)]
            supervisor = Supervisor(commands, grace + _PATIENCE_S)
            if http is not None:
                pages = family_pages([one for one in paths if one], lambda: supervisor.draining)
                stack.callback(serving_pages(pages, http).close)
            code = asyncio.run(supervisor.run())
    click.get_current_context().exit(code)


def _log_to_stderr(level: str) -> None:
    # After the import of the user's modules: if they set logging up, theirs stays.
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("sayiir").setLevel(level.upper())


async def _work(
    workflows: Sequence[Workflow[Any, Any]],
    url: str | None,
    lifeline: int | None,
    http: Address | None,
    settings: dict[str, Any],
) -> None:
    backend = opened(url, make=True)
    try:
        if address_of(url).scheme == "memory":
            _log.warning("memory:// is seen by this process alone: nobody else can submit to it")
        metrics = None
        if http is not None:
            # Without the package there is no page of them, and nothing else is missing.
            with suppress(ImportError):
                metrics = WorkerMetrics()
        worker = Worker(backend, workflows, metrics=metrics, **settings)
        await serve(worker, place(url), lifeline, http)
    finally:
        await backend.close()


async def _try_out(
    workflows: Sequence[Workflow[Any, Any]], url: str | None, settings: dict[str, Any]
) -> None:
    """Find out in the parent what would fail in every child."""
    backend = opened(url, make=True)
    try:
        Worker(backend, workflows, **settings)
    finally:
        await backend.close()


def _shared_arguments(
    targets: Sequence[str], url: str | None, log_level: str, settings: dict[str, Any]
) -> list[str]:
    """The part of the command line that all children have."""
    arguments = [f"--log-level={log_level}"]
    # What the environment says, it says to the children too.
    arguments += [] if url is None else [f"--url={url}"]
    arguments += [f"--tags={tag}" for tag in settings["tags"]]
    for name in ("concurrency", "lease_ttl", "poll_interval", "grace"):
        arguments.append(f"--{name.replace('_', '-')}={settings[name]}")
    return [*arguments, "--", *targets]


def _child(
    shared: Sequence[str], worker_id: str, answers_at: Path | None
) -> Callable[[int], list[str]]:
    # `-m` puts the current directory in front, where a file could have this package's name. That is
    # wanted only if this process found the package there as well.
    home = Path(sayiir.__file__).resolve().parent.parent
    safe_path = [] if home == Path.cwd().resolve() else ["-P"]

    def arguments(lifeline: int) -> list[str]:
        own = [f"--worker-id={worker_id}", f"--lifeline={lifeline}"]
        own += [] if answers_at is None else [f"--http=unix:{answers_at}"]
        return [sys.executable, *safe_path, "-m", "sayiir", "worker", *own, *shared]

    return arguments
