"""`sayiir demo`: analyse this machine's standard library as one durable workflow, and show it.

Promises a right progress bar on a terminal, plain lines everywhere else, figures that were
measured in this run, and exit code 0 when the report is shown. Refuses to know how files are
measured (`census`) and how steps are kept (the backend).
"""

import asyncio
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sayiir import InMemoryBackend, Worker, WorkflowClient
from sayiir._clock import monotonic
from sayiir.cli.census import FileFacts, Progress, Report, Scan, census

__all__ = ["Outcome", "command", "run"]

_INSTANCE = "stdlib"
# How often the display looks at the counter. Only the picture depends on it, never the work.
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave: the report, how many steps it took, and how long, in seconds."""

    report: Report
    steps: int
    elapsed_s: float


@click.command("demo")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first N files.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=8,
    show_default=True,
    help="Files in work at once. Parsing holds the interpreter lock: more is not faster.",
)
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look here instead of in the standard library.",
)
def command(limit: int | None, concurrency: int, path: Path | None) -> None:
    """Analyse the Python standard library as one durable workflow.

    One step finds the files, one step for each file parses and measures it, one step joins the
    figures. A worker runs them from an in-memory backend; every result is checkpointed.
    """
    root = path if path is not None else Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise click.ClickException(
            f"the standard library is not a folder here ({root}); name one with --path"
        )
    console = Console(highlight=False)
    scan = Scan(root=str(root.resolve()), limit=limit)
    # Old test data holds literals the parser warns about; they are not this program's to mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        outcome = asyncio.run(run(scan, concurrency, console))
    if not outcome.report["files"]:
        raise click.ClickException(f"there is no Python file below {root}; try another --path")
    _show(console, outcome, Path(scan["root"]))


async def run(scan: Scan, concurrency: int, console: Console) -> Outcome:
    """Submit the workflow to a worker, show the progress on `console`, return what came of it.

    Raises `sayiir.WorkflowFailed` when a step failed, which a file's contents cannot bring about.
    """
    progress = Progress()
    workflow = census(concurrency, progress)
    backend = InMemoryBackend()
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow], concurrency=concurrency):
        started = monotonic()
        handle = await client.submit(workflow, _INSTANCE, input=scan)
        result = asyncio.ensure_future(handle.result())
        if console.is_terminal:
            await _draw_bar(result, progress, console)
        else:
            await _write_lines(result, progress, console)
        report = await result
        elapsed_s = monotonic() - started
        steps = len(list(await client.history(_INSTANCE)))
    return Outcome(report, steps, elapsed_s)


async def _draw_bar(result: asyncio.Future[Report], progress: Progress, console: Console) -> None:
    columns = (
        TextColumn("analysing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        row = bar.add_task("analyse", total=None)
        ended = False
        while not ended:
            ended = await _ended(result)
            bar.update(row, total=progress.found, completed=progress.analysed)


async def _write_lines(
    result: asyncio.Future[Report], progress: Progress, console: Console
) -> None:
    quarter = 0
    ended = False
    while not ended:
        ended = await _ended(result)
        found = progress.found
        # Every quarter is said once; a run too quick to be watched says only its end.
        if found and (reached := 4 * progress.analysed // found) > quarter:
            quarter = reached
            _say(console, f"analysed {progress.analysed:,} of {_count(found, 'file')}")


async def _ended(result: asyncio.Future[Report]) -> bool:
    done, _ = await asyncio.wait({result}, timeout=_LOOK_EVERY_S)
    return bool(done)


def _show(console: Console, outcome: Outcome, root: Path) -> None:
    report = outcome.report
    console.print(_table(report["top"], root))
    _say(
        console,
        f"{_count(report['files'], 'file')} below {root}: {_count(report['lines'], 'line')}, "
        f"{_count(report['functions'], 'function')}, {_count(report['classes'], 'class', 'es')}",
    )
    if report["unparsable"]:
        first = report["unparsable"][0]
        _say(
            console,
            f"unparsable: {_count(len(report['unparsable']), 'file')}, for instance "
            f"{_below(first, root)} ({first['problem']})",
        )
    _say(
        console,
        f"{_count(outcome.steps, 'step')} checkpointed in {outcome.elapsed_s:.2f} s: "
        f"{outcome.steps / outcome.elapsed_s:,.0f} steps per second, parsing included",
    )
    _say(
        console,
        "What just happened: one durable workflow found the files, analysed each in a step of its "
        "own and joined the figures, and every result was checkpointed in memory before anything "
        "that depends on it began.",
    )


def _table(rows: list[FileFacts], root: Path) -> Table:
    table = Table(title="The most deeply nested files", box=box.SIMPLE, title_justify="left")
    table.add_column("file", overflow="fold")
    for name in ("nesting", "lines", "functions", "classes"):
        table.add_column(name, justify="right")
    for facts in rows:
        figures = (facts["nesting"], facts["lines"], facts["functions"], facts["classes"])
        table.add_row(Text(_below(facts, root)), *(f"{figure:,}" for figure in figures))
    return table


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _below(facts: FileFacts, root: Path) -> str:
    return str(Path(facts["path"]).relative_to(root))


def _say(console: Console, line: str) -> None:
    # As plain text: a file's name may hold what looks like markup. A pipe gets whole lines.
    console.print(Text(line), soft_wrap=not console.is_terminal)
