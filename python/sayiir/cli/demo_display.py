"""What the demo shows: a bar and what happens above it, or plain lines, and the report at the end.

Promises whole plain lines, without escapes, wherever there is no terminal; that a file's name is
shown and never obeyed; and that every figure comes from the `Outcome`. Refuses to know how the
figures came about.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from sayiir.cli.census import FileFacts
from sayiir.cli.demo_takeover import LEASE_TTL_S, Outcome, Watcher
from sayiir.cli.terminal import safe

__all__ = ["show", "watching"]


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """Someone to watch a run on this console: a bar if it is a terminal, else lines."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, bar.add_task("starting", total=None))


class _Bar:
    def __init__(self, bar: Progress, row: TaskID) -> None:
        self._bar = bar
        self._row = row

    def say(self, line: str) -> None:
        _say(self._bar.console, line)

    def progress(self, done: int, found: int) -> None:
        self._bar.update(self._row, total=found, completed=done)

    def stand(self, what: str) -> None:
        self._bar.update(self._row, description=what)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._quarter = 0

    def say(self, line: str) -> None:
        _say(self._console, line)

    def progress(self, done: int, found: int) -> None:
        # Every quarter is said once; a run too quick to be watched says only its end.
        if found and (reached := 4 * done // found) > self._quarter:
            self._quarter = reached
            _say(self._console, f"analysed {done:,} of {_count(found, 'file')}")

    def stand(self, what: str) -> None:
        """Nothing: what is said has said it."""


def show(console: Console, outcome: Outcome, root: Path) -> None:
    """The report on the files below `root`, and what happened while it was made."""
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
    _say(console, _pace(outcome))
    _say(console, _repeated(outcome))
    if outcome.expected is not None:
        same = outcome.expected == outcome.report
        _say(
            console,
            f"The report is {'the same as' if same else 'NOT the same as'} one computed here by "
            "plain calls, without workers and without a kill.",
            style="bold green" if same else "bold red",
        )
    _say(
        console,
        "What just happened: one durable workflow found the files, analysed each in a step of its "
        "own and joined the figures. Every result was on disk before anything that depends on it "
        "began"
        + ("." if outcome.kill is None else ", so a killed process cost what it had in its hands."),
    )


def _pace(outcome: Outcome) -> str:
    waited_s = 0.0 if outcome.kill is None else outcome.kill.waited_s
    pause = f", {waited_s:.1f} s of it without a worker" if outcome.kill is not None else ""
    per_second = outcome.checkpoints / max(outcome.elapsed_s - waited_s, 1e-9)
    return (
        f"{_count(outcome.checkpoints, 'checkpoint')} in {outcome.elapsed_s:.1f} s{pause}: "
        f"{per_second:,.0f} per second while someone worked, parsing included"
    )


def _repeated(outcome: Outcome) -> str:
    """How many files were analysed twice, and which; as the workers' own journal has it."""
    twice, kill = outcome.twice, outcome.kill
    if kill is None:
        return f"analysed twice: {_count(twice, 'file')}"
    which = "in work at the kill"
    if twice > kill.in_work:
        # A lease that short is also lost when the machine stands still for as long.
        which += f" ({kill.in_work:,}), or when {LEASE_TTL_S:g} s were too short for this machine"
    return (
        f"analysed twice: {_count(twice, 'file')}, {which}; of the {kill.kept:,} that were in the "
        f"store: {kill.lost:,}"
    )


def _table(rows: list[FileFacts], root: Path) -> Table:
    table = Table(title="The most deeply nested files", box=box.SIMPLE, title_justify="left")
    table.add_column("file", overflow="fold")
    for name in ("nesting", "lines", "functions", "classes"):
        table.add_column(name, justify="right")
    for facts in rows:
        figures = (facts["nesting"], facts["lines"], facts["functions"], facts["classes"])
        table.add_row(Text(safe(_below(facts, root))), *(f"{figure:,}" for figure in figures))
    return table


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _below(facts: FileFacts, root: Path) -> str:
    return str(Path(facts["path"]).relative_to(root))


def _say(console: Console, line: str, style: str = "") -> None:
    # As plain text: a file's name may hold what looks like markup. A pipe gets whole lines.
    console.print(Text(safe(line), style), soft_wrap=not console.is_terminal)
