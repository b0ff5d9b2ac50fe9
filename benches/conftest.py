"""Gives every bench the ledger, and shows it at the end.

`make bench` runs every `bench_*` function of every `bench_*.py`. The tables are printed after the
last one, and `benches/results/latest.json` is written; a run worth keeping is copied from there.
Setting `SAYIIR_BENCH_QUICK` to anything leaves the large sizes out.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from benches.ledger import Ledger, tables

LATEST = Path(__file__).parent / "results" / "latest.json"

_LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEDGER] = Ledger(quick=bool(os.environ.get("SAYIIR_BENCH_QUICK")))


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Where the figures of this run go."""
    # What the test runner itself keeps alive is not to be walked on anybody's time.
    gc.collect()
    gc.freeze()
    return request.config.stash[_LEDGER]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ledger = config.stash[_LEDGER]
    if not ledger.rows:
        return
    ledger.write(LATEST)
    terminalreporter.section("benches")
    for line in tables(ledger.rows):
        terminalreporter.write_line(line)
    missed = sum(row.verdict == "missed" for row in ledger.rows)
    judged = sum(row.verdict != "" for row in ledger.rows)
    terminalreporter.write_line("")
    terminalreporter.write_line(
        f"{judged - missed} of {judged} budgets met; figures in benches/results/{LATEST.name}"
    )
