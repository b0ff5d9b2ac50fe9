"""The demo: what it counts, whom it kills, what it says, and how it leaves.

The counting is tried on small sources, the command on a small tree through its real workflow,
worker processes and database. No test waits for time: where a worker must be caught in the middle,
a named pipe holds it there.
"""

import ast
import asyncio
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sayiir import WorkflowClient
from sayiir.backends import SqliteBackend
from sayiir.cli import demo, demo_takeover, main
from sayiir.cli.census import (
    FileFacts,
    Report,
    Scan,
    analyse,
    find_files,
    measure,
    report,
)
from sayiir.cli.demo_display import watching
from sayiir.cli.demo_journal import Journal, read_journal
from sayiir.cli.demo_process import WorkerGoneError
from sayiir.cli.demo_takeover import (
    INSTANCE,
    Kill,
    Outcome,
    Plan,
    Watcher,
    rehearse,
    uninterrupted,
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
    result = invoke("--path", str(tree), "--no-kill")
    assert result.exit_code == 0, result.output
    assert f"3 files below {tree}: 8 lines, 1 function, 1 class\n" in result.output
    assert "unparsable: 1 file, for instance broken.py (SyntaxError" in result.output
    assert "analysed 3 of 3 files" in result.output
    # One step finds, one joins, one for each file.
    assert "5 checkpoints in " in result.output
    assert "analysed twice: 0 files\n" in result.output
    assert "What just happened: one durable workflow" in result.output
    assert result.output.index("deep/nested.py") < result.output.index("flat.py")
    assert "foreign" not in result.output
    assert "SIGKILL" not in result.output


def test_the_limit_is_kept(tree: Path) -> None:
    result = invoke("--path", str(tree), "--limit", "1", "--concurrency", "1", "--no-kill")
    assert result.exit_code == 0, result.output
    assert "1 file below" in result.output


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    result = invoke("--path", str(tmp_path))
    assert result.exit_code == 1
    assert f"there is no Python file below {tmp_path}" in result.output


@pytest.mark.parametrize(
    "args",
    [
        ("--limit", "0"),
        ("--concurrency", "0"),
        ("--concurrency", "1025"),
        ("--path", "no-such"),
        ("--keep", __file__),
    ],
)
def test_bad_options_are_refused_before_any_work(args: tuple[str, str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert args[0] in result.output


def test_a_store_that_cannot_be_made_is_named(tree: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no-such-folder" / "demo.db"
    result = invoke("--path", str(tree), "--keep", str(missing))
    assert result.exit_code == 1
    assert str(missing) in result.output
    assert "Traceback" not in result.output


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "dmeo" in result.output


def run_module(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sayiir", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_version_is_said() -> None:
    assert run_module("--version").stdout.startswith("sayiir, version 2.")


# The journal.


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert read_journal(path) == {}
    for worker, step in [("worker-1", "analyse[0]"), ("worker-1", "analyse[1]")]:
        journal = Journal(path, worker)
        journal.note(step)
        journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    journal = Journal(path, "worker-2")
    journal.note("analyse[1]")
    journal.note("analyse[1]")
    journal.close()
    assert read_journal(path) == {
        "worker-1": Counter({"analyse[0]": 1}),
        "worker-2": Counter({"analyse[1]": 2}),
    }


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journals = [Journal(path, f"worker-{n}") for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for n in range(500):
            for journal in journals:
                pool.submit(journal.note, f"analyse[{n}]")
    for journal in journals:
        journal.close()
    expected = Counter(f"analyse[{n}]" for n in range(500))
    assert read_journal(path) == {f"worker-{n}": expected for n in range(4)}


# The kill. A named pipe among the files holds a worker in the middle of one. Whoever comes after
# him finds an empty file in its place.


NAMES = ("a.py", "b.py", "c.py", "d.py", "e.py", "f.py")


def six_files(root: Path, pipe: str) -> Path:
    """A folder with six files, of which one is a pipe; the path of that one."""
    root.mkdir()
    for n, name in enumerate(NAMES):
        (root / name).write_text("if a:\n    pass\n" * n)
    (root / pipe).unlink()
    os.mkfifo(root / pipe)
    return root / pipe


@contextmanager
def held(pipe: Path) -> Iterator[None]:
    """Within this, somebody reads the pipe and does not come to its end."""
    # Opening it returns once there is a reader.
    with pipe.open("w"):
        beside = pipe.with_suffix(".txt")
        beside.touch()
        beside.replace(pipe)
        yield


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder in which a demo that is `started` makes its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@contextmanager
def started(temporary: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sayiir", "demo", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary), "COLUMNS": "300", "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first line the demo says that has this."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"the demo ended and never said {pattern}")


def wait_until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # It becomes readable when the process has ended.
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)


BEGAN = r"(worker-\d) began: process (\d+)"
DEAD = r"SIGKILL with (\d) of 6 files in the store and (\d) in work"
TWICE = r"analysed twice: (\d) files?, in work at the kill; of the (\d) that were in the store: 0$"


def test_a_killed_worker_costs_what_it_had_in_work(tmp_path: Path, temporary: Path) -> None:
    pipe = six_files(tmp_path / "files", "a.py")
    kept = tmp_path / "kept.db"
    args = ("--path", str(pipe.parent), "--concurrency", "2", "--keep", str(kept))
    with started(temporary, *args) as process:
        with held(pipe):
            first = line_with(process, BEGAN)
            dead = line_with(process, DEAD)
        second = line_with(process, BEGAN)
        twice = line_with(process, TWICE)
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, errors) == (0, ""), output
    assert (first[1], second[1]) == ("worker-1", "worker-2")
    assert first[2] != second[2]
    # The other slot went on to the half while one was held.
    assert int(dead[1]) >= 3
    assert (twice[1], twice[2]) == (dead[2], dead[1])
    assert "The report is the same as one computed here" in output
    for pid in (first[2], second[2]):
        wait_until_gone(int(pid))
    assert list(temporary.iterdir()) == []
    # What was said is what was stored: the ones by the first worker, all others by the second.
    steps = kept_steps(kept)
    assert sorted(steps) == sorted(["find_files", "report", *(f"analyse[{n}]" for n in range(6))])
    by_first = [path for path, worker in steps.items() if worker == "worker-1"]
    assert len(by_first) == int(dead[1]) + 1
    assert steps["analyse[0]"] == steps["report"] == "worker-2"
    assert f"sayiir runs show {INSTANCE} --url sqlite:///{kept}\n" in output


def kept_steps(path: Path) -> dict[str, str]:
    """The worker that wrote each step of the instance in this file."""

    async def read() -> dict[str, str]:
        backend = SqliteBackend(path)
        try:
            steps = await WorkflowClient(backend).history(INSTANCE)
        finally:
            await backend.close()
        return {step.path: step.worker_id for step in steps}

    return asyncio.run(read())


class Witness:
    """A watcher that remembers, and sees to it that the worker is in the middle of the fourth file.

    The demo kills when three of six are done; the fourth need not have been begun by then.
    """

    def __init__(self, holding: Future[None]) -> None:
        self.reached: list[tuple[int, int]] = []
        self.phases: list[str] = []
        self._holding = holding

    def say(self, line: str) -> None:
        assert line

    def progress(self, done: int, found: int) -> None:
        self.reached.append((done, found))
        if done == 3:
            self._holding.result(timeout=60)

    def stand(self, what: str) -> None:
        self.phases.append(what)


async def test_what_a_kill_costs_is_counted(tmp_path: Path) -> None:
    pipe = six_files(tmp_path / "files", "d.py")
    plan = Plan(Scan(root=str(pipe.parent), limit=None), tmp_path / "demo.db", tmp_path, 1)
    holding = held(pipe)
    with ThreadPoolExecutor(1) as pool:
        witness = Witness(pool.submit(holding.__enter__))
        outcome = await rehearse(plan, witness)
    holding.__exit__(None, None, None)
    kill = outcome.kill
    assert kill is not None
    assert (kill.kept, kill.in_work, kill.lost, outcome.twice) == (3, 1, 0, 1)
    assert kill.pid != kill.successor_pid
    assert 0 < kill.waited_s < outcome.elapsed_s
    assert (outcome.report["files"], outcome.checkpoints) == (6, 8)
    assert outcome.report == outcome.expected
    assert outcome.broken_promises() == []
    assert witness.reached == sorted(witness.reached)
    assert witness.reached[-1] == (6, 6)
    assert witness.phases == ["analysing", "waiting for the lease", "analysing", "comparing"]


def outcome_with(report_shown: Report, expected: Report, lost: int = 0) -> Outcome:
    kill = Kill(pid=1, successor_pid=2, kept=3, in_work=1, lost=lost, waited_s=2.0)
    return Outcome(report_shown, expected, twice=1 + lost, checkpoints=8, elapsed_s=3.0, kill=kill)


def test_a_difference_is_seen(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports are really compared: one line more in one file, and the demo fails."""
    files = [analyse(path) for path in find_files(Scan(root=str(tree), limit=None))]
    right = report(files)
    wrong = report([files[0] | {"lines": files[0]["lines"] + 1}, *files[1:]])

    def demo_with(outcome: Outcome) -> Result:
        async def forged(plan: Plan, watcher: Watcher) -> Outcome:
            return outcome

        monkeypatch.setattr(demo, "rehearse", forged)
        return invoke("--path", str(tree))

    assert demo_with(outcome_with(right, right)).exit_code == 0
    differing = demo_with(outcome_with(right, wrong))
    assert differing.exit_code == 1
    assert "The report is NOT the same" in differing.output
    assert "differs from the one computed without a kill, in lines, unparsable" in differing.output
    repeating = demo_with(outcome_with(right, right, lost=2))
    assert repeating.exit_code == 1
    assert "2 of the 3 files that were done at the kill were analysed again" in repeating.output


async def test_the_comparison_does_not_use_the_engine(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Scan(root=str(tree), limit=None)
    monkeypatch.setattr(demo_takeover, "WorkflowClient", None)
    assert await uninterrupted(scan) == report([analyse(path) for path in find_files(scan)])


def test_a_run_that_is_over_before_the_kill_says_so(tmp_path: Path) -> None:
    (tmp_path / "only.py").touch()
    result = invoke("--path", str(tmp_path))
    assert result.exit_code == 0, result.output
    # Of one file the half is the whole; what is left is the report, and either can come first.
    assert ("SIGKILL with 1 of 1 files" in result.output) != ("was through" in result.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, temporary: Path
) -> None:
    pipe = six_files(tmp_path / "files", "a.py")
    args = ("--path", str(pipe.parent), "--concurrency", "1")
    with started(temporary, *args) as process, held(pipe):
        worker = int(line_with(process, BEGAN)[2])
        assert len(list(temporary.iterdir())) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted."
    wait_until_gone(worker)
    assert list(temporary.iterdir()) == []


def test_a_worker_does_not_outlive_a_killed_demo(tmp_path: Path, temporary: Path) -> None:
    pipe = six_files(tmp_path / "files", "a.py")
    with started(temporary, "--path", str(pipe.parent), "--concurrency", "1") as process:
        with held(pipe):
            worker = int(line_with(process, BEGAN)[2])
            process.kill()
            process.wait(60)
        # The file it was held in has come to its end, and it has nothing more to do here.
        wait_until_gone(worker)


async def test_a_worker_that_ends_by_itself_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    plan = Plan(Scan(root=str(tmp_path), limit=None), tmp_path / "demo.db", tmp_path, 1)
    with pytest.raises(WorkerGoneError, match="worker-1 ended by itself with exit code 1"):
        await rehearse(plan, Witness(Future()))


def test_the_bar_ends_full() -> None:
    terminal = StringIO()
    console = Console(file=terminal, force_terminal=True, width=100, color_system=None)
    with watching(console) as watcher:
        watcher.stand("analysing")
        watcher.progress(2, 3)
        watcher.say("half way in [bold]x\x1b[2Jy")
        watcher.progress(3, 3)
    shown = terminal.getvalue()
    assert "analysing" in shown
    assert shown.rindex("3/3") > 0
    assert "[bold]x\\x1b[2Jy" in shown


def test_lines_say_every_quarter_once() -> None:
    pipe = StringIO()
    with watching(Console(file=pipe, width=20)) as watcher:
        for done in (0, 1, 2, 2, 3, 5, 8, 8):
            watcher.progress(done, 8)
    assert pipe.getvalue().splitlines() == [
        "analysed 2 of 8 files",
        "analysed 5 of 8 files",
        "analysed 8 of 8 files",
    ]
