"""The README does what it shows: its first workflow is run, killed and run again, as it says.

The program is saved from the page, killed with SIGKILL when it has printed the line that the page
ends its first run with, and started anew; both runs must print what the page shows.
"""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.papers import ROOT, blocks

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
[PROGRAM] = (block for block in blocks(TEXT) if block.word == "first.py")
[SHOWN] = (block for block in blocks(TEXT) if block.language == "text")


def test_the_first_workflow_is_short() -> None:
    assert len(PROGRAM.source.splitlines()) <= 25


def test_the_first_workflow_survives_its_process(tmp_path: Path) -> None:
    (tmp_path / PROGRAM.word).write_text(PROGRAM.source, encoding="utf-8")
    _, first, second = SHOWN.source.split("$ python first.py\n")
    *before, death = first.splitlines()
    assert death == "Killed"
    command = [sys.executable, PROGRAM.word]

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as dying:
        assert dying.stdout is not None
        assert [dying.stdout.readline().rstrip("\n") for _ in before] == before
        os.kill(dying.pid, signal.SIGKILL)
    assert dying.returncode == -signal.SIGKILL

    for shown in (second, second.splitlines(keepends=True)[-1]):
        again = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert (again.stdout, again.returncode) == (shown, 0)


def test_its_worker_may_be_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PROGRAM.word).write_text(PROGRAM.source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (said,) = re.findall(r"`sayiir (worker first:flow [^`]*)` is a worker", TEXT)
    submit = (
        "from first import SyncWorkflowClient, flow\n"
        "with SyncWorkflowClient.from_url('sqlite:///first.db') as client:\n"
        "    client.submit(flow, 'monday', 'Emma')\n"
    )
    # Nothing but the submit runs: who imports the program gets its flow alone.
    submitted = subprocess.run([sys.executable, "-c", submit], stdout=subprocess.PIPE, check=True)
    assert submitted.stdout == b""
    command = [sys.executable, "-m", "sayiir", *said.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "opening Emma\n"
        worker.kill()


def test_every_dependency_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    _, _, rest = TEXT.partition("## What it depends on")
    section = rest.partition("\n## ")[0]
    for needed in project["dependencies"]:
        assert f"| `{re.split('[<>=]', needed)[0]}` |" in section
    # Either a row for users, or a word for who works on sayiir itself.
    named = set(re.findall(r"\| `sayiir\[(\w+)\]` \||[ (]`(\w+)`[,)]", section))
    assert project["optional-dependencies"].keys() <= {"".join(found) for found in named}


@pytest.mark.parametrize(
    ("page", "heading", "count"),
    [("README.md", "## Three numbers", 5), ("docs/workers.md", "## SQLite or PostgreSQL", 4)],
)
def test_the_figures_are_those_of_the_paper(page: str, heading: str, count: int) -> None:
    _, _, rest = (ROOT / page).read_text(encoding="utf-8").partition(heading)
    table = re.findall(r"^\|.*\|$", rest.partition("\n## ")[0], flags=re.MULTILINE)[2:]
    figures = [found for row in table for found in re.findall(r"[\d.,]+ (?:ms|/s)", row)]
    assert len(figures) == count
    measured = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert [figure for figure in figures if f"| {figure}" not in measured] == []
