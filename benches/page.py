"""Writes a run into the paper on speed: `python -m benches.page benches/results/NAME.json`.

Of `docs/performance.md` it replaces what stands between `<!-- NAME -->` and `<!-- end -->`, with a
sentence on the run or one of its tables, and draws the plots into `docs/plots`. The words around
them, and what they say of a figure, are somebody's work. `tests/test_performance.py` says when
page, plots and the run that the page names are not of one mind.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benches.plot import Bar, Group, svg

__all__ = ["page_of", "plots_of", "run_of_page"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
HEAD = ("what", "ours", "against", "ratio", "budget", "verdict")
STORES = ("SQLite", "Postgres")
WIDTH = 110
"""Characters of a line of the page."""
FLIGHTS = (1, 16, 64, 256)

Run = dict[str, Any]
Row = dict[str, Any]


def _store(what: str) -> str:
    """The store that a row of this name is of; that of no store at all goes with memory."""
    return next((store for store in STORES if what.startswith(store)), "memory")


def _shown(row: Row) -> bool:
    """Whether it is for the page: the budgets, and what people ask for besides."""
    return bool(row.get("budget")) or row["section"] in {"throughput", "crowd", "step", "footprint"}


TABLES: dict[str, Callable[[Row], bool]] = {
    "postgres": lambda row: (
        row["store"] == "Postgres" and (_shown(row) or row["section"] == "stored")
    ),
    "sqlite": lambda row: row["store"] == "SQLite" and _shown(row),
    "memory": lambda row: (
        row["store"] == "memory" and _shown(row) and row["section"] not in {"codec", "snapshot"}
    ),
    "bytes": lambda row: row["section"] in {"codec", "snapshot"} and "size" not in row["what"],
}


def _figure(value: float, unit: str) -> str:
    large = unit in {"/s", "B"} or abs(value) >= 100
    return f"{f'{value:,.0f}' if large else f'{value:.3g}'} {unit}".strip()


def _cells(row: Row) -> tuple[str, ...]:
    unit = row.get("unit", "")
    against = row.get("against")
    ratio = row.get("ratio")
    return (
        row["what"].strip(),
        _figure(row["ours"], unit),
        "" if against is None else f"{_figure(against, unit)} {row.get('rival', '')}".strip(),
        "" if ratio is None else f"{ratio:.2f} ×",
        row.get("budget", ""),
        row.get("verdict", ""),
    )


def _table(rows: list[Row]) -> str:
    # A row that is written below another one, set in, leaves out what that one says already.
    lines = [HEAD, ("---",) * len(HEAD)]
    above = ""
    for row in rows:
        cells = _cells(row)
        store, colon, same = cells[0].partition(": ")
        if colon and same == "the same":
            cells = (f"{store}: {above.partition(': ')[2]}", *cells[1:])
        elif row["what"].startswith(" ") and _store(cells[0]) == "memory":
            cells = (f"{above}: {cells[0]}", *cells[1:])
        else:
            above = cells[0]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _belonging(run: Run) -> list[Row]:
    """The rows; those that are set in are of the store of the one above them."""
    rows, store = [], ""
    for row in run["rows"]:
        if not row["what"].startswith(" "):
            store = _store(row["what"])
        rows.append(row | {"store": store})
    return rows


def _about(name: str, run: Run) -> str:
    machine, versions = run["machine"], run["versions"]
    judged = [row["verdict"] for row in run["rows"] if row.get("verdict")]
    server = versions.get("postgres")
    words = (
        f"All figures below are of one `make bench`, `benches/results/{name}`, of"
        f" {run['at'][:10]}: {machine['cores']} cores ({machine['processor']}),"
        f" {machine['file_system']}, {versions['python']}"
        f"{f', PostgreSQL {server} with `fsync` on beside client and worker' if server else ''}."
        f" {judged.count('met')} of {len(judged)} budgets are met. Earlier runs stand beside it."
    )
    return fill(words, WIDTH, break_on_hyphens=False, break_long_words=False) + "\n"


def page_of(text: str, name: str, run: Run) -> str:
    """The page with this run in it.

    Raises:
        ValueError: It has no place for a table, or the run nothing to put there, or left some out.
    """
    if run["quick"]:
        raise ValueError(f"{name} is of a quick run, which leaves out the largest: make bench")
    rows = _belonging(run)
    parts = {"run": _about(name, run)}
    for table, belongs in TABLES.items():
        chosen = [row for row in rows if belongs(row)]
        if not chosen:
            raise ValueError(f"{name} has no row for the table {table!r}: it is not a whole run")
        parts[table] = _table(chosen)
    for place, part in parts.items():
        found = re.findall(rf"<!-- {place} -->\n.*?<!-- end -->", text, flags=re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"the page has {len(found)} places for {place!r}, not one")
        text = text.replace(found[0], f"<!-- {place} -->\n{part}<!-- end -->")
    return text


def plots_of(run: Run) -> dict[str, str]:
    """The pictures by their names."""
    by_name = {row["what"].strip(): row for row in run["rows"]}
    return {
        "throughput": svg(
            "Instances of three steps a second, by how many are in flight",
            ("sayiir", "Python backend", "bare script"),
            list(_throughput(by_name)),
        ),
        "latency": svg(
            "Milliseconds from a call to the first line of the task, idle worker on the same loop",
            ("p50", "p99"),
            list(_latency(by_name)),
        ),
        "length": svg(
            "Microseconds a step in memory, by how many steps a run has",
            ("sayiir", "Python backend"),
            list(_length(by_name)),
        ),
    }


def _throughput(rows: dict[str, Row]) -> Iterator[Group]:
    for store, rival in (("memory", 1), ("SQLite", 2), ("Postgres", 2)):
        for flight in FLIGHTS:
            row = rows[f"{store}: 3-step instances, {flight} in flight"]
            ours, against = row["ours"], row["against"]
            bars = [Bar(0, ours, f"{ours:,.0f} /s"), Bar(rival, against, f"{against:,.0f} /s")]
            yield Group(f"{store}, {flight}", bars)


def _latency(rows: dict[str, Row]) -> Iterator[Group]:
    for store in ("memory", *STORES):
        for what in ("submit → first task", "event → next task"):
            found = [
                rows[f"{store}: {what}, same loop, {share}"]["ours"] for share in ("p50", "p99")
            ]
            bars = [Bar(at, value, f"{value:.3g} ms") for at, value in enumerate(found)]
            yield Group(f"{store}: {what.partition(' ')[0]}", bars)


def _length(rows: dict[str, Row]) -> Iterator[Group]:
    for steps in (1, 10, 100, 1_000):
        row = rows[f"memory: {steps:,} steps run alone, 100 B, start and end included, per step"]
        values = (row["ours"], row["against"])
        bars = [Bar(at, value, f"{value:.3g} µs") for at, value in enumerate(values)]
        yield Group(f"{steps:,}", bars)


def run_of_page(text: str) -> str:
    """The name of the file whose run the page shows.

    Raises:
        ValueError: It names none.
    """
    found = re.search(r"`benches/results/([\w.-]+\.json)`,\s+of", text)
    if found is None:
        raise ValueError("the page names no run")
    return found[1]


def main(arguments: Sequence[str]) -> None:
    """Write page and plots from a run's file, or neither; the file is named alone."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m benches.page benches/results/NAME.json")
    path = arguments[0]
    run = json.loads(Path(path).read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    page, plots = page_of(text, Path(path).name, run), plots_of(run)
    PAGE.write_text(page, encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, drawing in plots.items():
        (PLOTS / f"{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
