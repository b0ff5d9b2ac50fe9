"""The figures of one run: what was measured, against what, and whether the budget was kept.

A bench enters rows; at the end they become a table for each section, for people, and one JSON file
for comparing runs. A missed budget is said, never raised: timings on somebody's machine are no
reason to fail.

The file holds `format` (1), the `machine`, the `versions`, whether it was a `quick` run, and the
`rows` as `Row` has them. It knows nothing of how anything is measured.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benches.ground import file_system
from benches.postgres_server import server_version
from sayiir import _core

__all__ = ["Ledger", "Row", "tables"]

COLUMNS = ("what", "ours", "against", "ratio", "budget", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    >>> Row("step", "async", 1.5, "µs", judged=1.5, at_most=2.0).verdict
    'met'
    """

    section: str
    what: str
    ours: float
    unit: str
    against: float | None = None
    """What the same work costs with less, in the same unit."""
    rival: str = ""
    """What `against` is."""
    judged: float | None = None
    """The figure that the budget is about; `None` for a figure that is only shown."""
    at_most: float | None = None
    at_least: float | None = None
    budget: str = ""
    """The budget in words."""

    @property
    def ratio(self) -> float | None:
        """Ours to the rival's."""
        return self.ours / self.against if self.against else None

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing when there is no budget."""
        if self.judged is None or (self.at_most is None and self.at_least is None):
            return ""
        low = self.at_least is None or self.judged >= self.at_least
        high = self.at_most is None or self.judged <= self.at_most
        return "met" if low and high else "missed"


@dataclass(slots=True)
class Ledger:
    """The rows of one run, in the order they came."""

    quick: bool = False
    """Whether large sizes were left out."""
    rows: list[Row] = field(default_factory=list)

    def enter(self, section: str, what: str, ours: float, unit: str, **more: Any) -> Row:
        """Add a row; the words of `more` are those of `Row`."""
        row = Row(section, what, ours, unit, **more)
        self.rows.append(row)
        return row

    def write(self, path: Path) -> None:
        """Keep the run as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {k: _rounded(v) for k, v in asdict(row).items() if v not in (None, "")}
            | ({"ratio": _rounded(row.ratio)} if row.ratio else {})
            | ({"verdict": row.verdict} if row.verdict else {})
            for row in self.rows
        ]
        document = {
            "format": 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "machine": machine(),
            "versions": versions(),
            "rows": rows,
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tables(rows: Sequence[Row]) -> list[str]:
    """The lines of a table for each section, in the order the sections came.

    >>> for line in tables([Row("step", "async", 1.5, "µs", 0.5, "bare call")]): print(line)
    step
      what   ours    against           ratio  budget  verdict
      async  1.5 µs  0.5 µs bare call  3×
    """
    sections: dict[str, list[Row]] = {}
    for row in rows:
        sections.setdefault(row.section, []).append(row)
    return [line for name, its in sections.items() for line in (name, *_table(its))]


def _table(rows: Sequence[Row]) -> list[str]:
    cells = [COLUMNS]
    for row in rows:
        against = "" if row.against is None else f"{_figure(row.against)} {row.unit} {row.rival}"
        ratio = "" if row.ratio is None else f"{_figure(row.ratio)}×"
        ours = f"{_figure(row.ours)} {row.unit}"
        cells.append((row.what, ours, against, ratio, row.budget, row.verdict))
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _figure(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "kernel": platform.release(),
        "file_system": file_system(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """What was measured, and with what."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sayiir": _core.__version__,
        "msgspec": msgspec.__version__,
        "floor's sqlite": sqlite3.sqlite_version,
    } | ({} if (server := server_version()) is None else {"postgres": server})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
