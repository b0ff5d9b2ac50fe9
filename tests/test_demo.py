"""The demo: what it counts, what it says, and how it leaves.

The counting is tried on small sources, the command on a small tree through its real workflow,
worker and backend. No test waits for time: where a run must be caught in the middle, a named pipe
holds it there.
"""

import ast
import asyncio
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sayiir.cli import demo, main
from sayiir.cli.census import (
    FileFacts,
    Scan,
    analyse,
    find_files,
    measure,
    report,
)

NESTED = """\
class Shelf:
    def find(self, books):
        for book in books:
            if book:
                return book
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "site-packages").mkdir(parents=True)
    (root / "deep").mkdir()
    (root / "flat.py").write_text("a = 1\nb = 2\n")
    (root / "deep" / "nested.py").write_text(NESTED)
    (root / "broken.py").write_text("def (:\n")
    (root / "site-packages" / "foreign.py").write_text("c = 3\n")
    (root / "notes.txt").write_text("no Python here")
    return root


def invoke(*args: str) -> Result:
    # A wide page, so that no sentence is broken by where the tree happens to lie.
    return CliRunner().invoke(main, ["demo", *args], env={"COLUMNS": "300"})


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("a = 1", 0),
        ("def f(): ...", 1),
        (NESTED, 4),
        ("if a:\n  pass\nelif b:\n  pass\nelif c:\n  pass", 1),
        ("if a:\n  pass\nelse:\n  if b:\n    pass", 2),
        ("try:\n  pass\nexcept E:\n  with f():\n    pass", 2),
        ("try:\n  pass\nfinally:\n  while a:\n    pass", 2),
        ("match a:\n  case 1:\n    async def f(): ...", 2),
        ("x = [i for i in (lambda: 1 if a else 2)()]", 0),
    ],
)
def test_nesting_counts_blocks(source: str, depth: int) -> None:
    assert measure(ast.parse(source))[2] == depth


def test_the_search_leaves_installed_packages_alone(tree: Path) -> None:
    found = [Path(path).name for path in find_files(Scan(root=str(tree), limit=None))]
    assert found == ["broken.py", "nested.py", "flat.py"]
    assert len(find_files(Scan(root=str(tree), limit=2))) == 2


def test_a_name_that_is_not_text_becomes_a_row(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).touch()
    (found,) = find_files(Scan(root=str(tmp_path), limit=None))
    assert found.encode("utf-8").endswith(b"/?.py")
    assert "FileNotFoundError" in str(analyse(found)["problem"])


def test_a_file_is_measured(tree: Path) -> None:
    path = str(tree / "deep" / "nested.py")
    assert analyse(path) == FileFacts(
        path=path, lines=5, functions=1, classes=1, nesting=4, problem=None
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"def (:\n", "SyntaxError"),
        (b"a = '\xff'\n", "SyntaxError"),
        (b"a\0b\n", "Error"),
        (b"(" * 500 + b"\n", "SyntaxError"),
        (b"-" * 100_000 + b"1\n", "Error"),
    ],
)
def test_what_does_not_parse_says_why(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "odd.py"
    path.write_bytes(content)
    facts = analyse(str(path))
    assert facts["problem"] is not None
    assert problem in facts["problem"]
    assert (facts["lines"], facts["functions"]) == (1, 0)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    assert "FileNotFoundError" in str(analyse(str(tmp_path / "gone.py"))["problem"])


def test_the_report_ranks_by_nesting_then_lines() -> None:
    def facts(name: str, nesting: int, lines: int, problem: str | None = None) -> FileFacts:
        return FileFacts(
            path=name, lines=lines, functions=1, classes=2, nesting=nesting, problem=problem
        )

    files = [
        facts("short", 3, 5),
        facts("long", 3, 9),
        facts("deep", 7, 1),
        facts("bad", 0, 4, "x"),
    ]
    joined = report(files)
    assert [row["path"] for row in joined["top"]] == ["deep", "long", "short"]
    assert [row["path"] for row in joined["unparsable"]] == ["bad"]
    assert (joined["files"], joined["lines"]) == (4, 19)
    assert (joined["functions"], joined["classes"]) == (4, 8)
    assert len(report([facts(str(n), n, 1) for n in range(12)])["top"]) == 10


def test_the_demo_says_what_it_found(tree: Path) -> None:
    result = invoke("--path", str(tree))
    assert result.exit_code == 0, result.output
    assert f"3 files below {tree}: 8 lines, 1 function, 1 class\n" in result.output
    assert "unparsable: 1 file, for instance broken.py (SyntaxError" in result.output
    assert "analysed 3 of 3 files" in result.output
    # One step finds, one joins, one for each file.
    assert "5 steps checkpointed in" in result.output
    assert "What just happened: one durable workflow" in result.output
    assert result.output.index("deep/nested.py") < result.output.index("flat.py")
    assert "foreign" not in result.output


def test_the_limit_is_kept(tree: Path) -> None:
    result = invoke("--path", str(tree), "--limit", "1", "--concurrency", "1")
    assert result.exit_code == 0, result.output
    assert "1 file below" in result.output


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    result = invoke("--path", str(tmp_path))
    assert result.exit_code == 1
    assert f"there is no Python file below {tmp_path}" in result.output


@pytest.mark.parametrize(
    "args",
    [("--limit", "0"), ("--concurrency", "0"), ("--concurrency", "1025"), ("--path", "no-such")],
)
def test_bad_options_are_refused_before_any_work(args: tuple[str, str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert args[0] in result.output


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "dmeo" in result.output


async def test_the_bar_ends_full(tree: Path) -> None:
    terminal = StringIO()
    console = Console(file=terminal, force_terminal=True, width=100, color_system=None)
    outcome = await asyncio.wait_for(
        demo.run(Scan(root=str(tree), limit=None), 2, console), timeout=60
    )
    assert outcome.report["files"] == 3
    assert outcome.steps == 5
    assert outcome.elapsed_s > 0
    assert terminal.getvalue().rindex("3/3") > 0


def run_module(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sayiir", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_without_a_terminal_the_lines_are_plain(tree: Path) -> None:
    result = run_module("demo", "--path", str(tree))
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout


def test_the_version_is_said() -> None:
    assert run_module("--version").stdout.startswith("sayiir, version 2.")


def test_an_interrupt_leaves_with_130(tmp_path: Path) -> None:
    pipe = tmp_path / "held.py"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "sayiir", "demo", "--path", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Opening the pipe returns once a step has opened its other end: the run is in the middle.
    with pipe.open("w") as held:
        process.send_signal(signal.SIGINT)
        held.write("a = 1\n")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted."
