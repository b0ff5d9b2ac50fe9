"""The examples run as programs, say what they should, and stay small."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAID = {
    "order.py": [
        "charged 30 under the key order-42:charge",
        "charge, attempt 1: retried",
        "charge, attempt 2: retried",
        "charge, attempt 3: completed",
        "approved, attempt 1: completed",
        "ship, attempt 1: completed",
        "shipped, approved by Ann",
    ],
    "documents.py": ["the: 5", "sea: 3", "and: 2", "FileNotFoundError: lost.txt"],
    "agent.py": ["8 steps were committed", "Take a coat; and the sum is 42."],
}


def test_every_example_is_judged() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_says_what_it_should(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_an_example_is_short_enough_to_be_read(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 80
