"""`sayiir worker` and an interrupted `sayiir run`, as real processes on a real file.

Steps are held by named pipes: opening one to write returns once a step has opened it to read, so a
test knows that the step runs, and the step ends when the test lets go. What a process does is
learned from its log and its exit; that all processes are gone, from the end of the pipe they log
to. Nothing is waited for by the clock.
"""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner

from sayiir import SyncWorkflowClient, Workflow
from sayiir.backends._view import worker_name
from sayiir.cli import main, supervisor
from sayiir.cli.supervisor import Supervisor
from sayiir.cli.target import named_workflow

from .working import until

LONG = 60.0
"""Seconds until something that does not happen is a failure."""
JOBS = """
import asyncio
import os
from pathlib import Path

from sayiir import Flow, task


@task
def first(x):
    with Path("first.log").open("a") as log:
        log.write(f"{x}\\n")
    return x


@task
def held(x):
    with open(f"{x}.pipe") as pipe:
        pipe.read()
    return os.getpid()


@task(run_in="inline")
def hog(x):
    with open(f"{x}.pipe") as pipe:
        pipe.read()
    return x


@task(tags=["gpu"])
def tagged(x):
    return x


@task
def pid(x):
    return os.getpid()


quick = Flow("quick").then(pid).build()
slow = Flow("slow").then(first).then(held).build()
hogging = Flow("hogging").then(hog).build()
needs_gpu = Flow("needs_gpu").then(tagged).build()
asking = Flow("asking").wait_for_event("answer").build()
everything = [quick, slow, hogging, needs_gpu]
"""


class Program:
    """A `sayiir` command that runs, and its log."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.log = ""
        # Without the current directory in front, as the script `sayiir` is started.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sayiir", *args],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def _stderr(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def until(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line that has this."""
        for line in self._stderr:
            self.log += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern!r} was never said, but this:\n{self.log}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit code, once it and all its children are gone."""
        self.log += self._stderr.read()
        return self.process.wait(LONG)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LONG)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Ground:
    """A folder with workflows and a database, a client, and the programs of one test."""

    def __init__(self, folder: Path, client: SyncWorkflowClient, stack: ExitStack) -> None:
        self.folder = folder
        self.client = client
        self._stack = stack

    def program(self, *args: str) -> Program:
        program = Program(self.folder, *args)
        self._stack.callback(program.close)
        return program

    def worker(self, *args: str, target: str = "jobs_of_test:everything") -> Program:
        return self.program("worker", target, "--poll-interval", "0.1", *args)

    def workflow(self, name: str) -> Workflow[Any, Any]:
        return named_workflow(f"jobs_of_test:{name}")

    def submit(self, name: str, instance_id: str) -> None:
        if name in ("slow", "hogging"):
            os.mkfifo(self.folder / f"{instance_id}.pipe")
        self.client.submit(self.workflow(name), instance_id, instance_id)

    def hold(self, instance_id: str) -> IO[str]:
        """Returns once the step of this instance runs, which ends when this is closed."""
        return self._stack.enter_context((self.folder / f"{instance_id}.pipe").open("w"))

    def let_go(self, instance_id: str) -> Any:
        """End the step as often as it takes until the instance has ended; its output."""
        while not (status := self.client.status(instance_id)).is_terminal():
            # Refused while nobody reads.
            with suppress(OSError):
                os.close(os.open(self.folder / f"{instance_id}.pipe", os.O_WRONLY | os.O_NONBLOCK))
        return status.output

    def holder(self, instance_id: str) -> str:
        """The worker that holds an instance; nothing if nobody does."""
        row = self.client.run(self.client.backend.get, instance_id)
        return worker_name(row.worker_id) if row.worker_id is not None else ""

    def result(self, instance_id: str) -> Any:
        return self.client.result(instance_id, timeout=LONG)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    (tmp_path / "jobs_of_test.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jobs_of_test", raising=False)
    monkeypatch.setenv("SAYIIR_DATABASE_URL", "sqlite:///app.db")
    with ExitStack() as stack, SyncWorkflowClient.from_url() as client:
        yield Ground(tmp_path, client, stack)


# One process.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_works_and_drains(ground: Ground, number: int) -> None:
    worker = ground.worker("--worker-id", "w1")
    worker.until(r"worker w1: takes instances of hogging, needs_gpu, quick, slow from .*/app\.db")
    ground.submit("quick", "a")
    assert ground.result("a") == worker.process.pid
    assert [step.worker_id for step in ground.client.history("a")] == ["w1"]
    worker.signal(number)
    assert worker.end() == 0
    assert "finishing what runs" in worker.log
    assert "Traceback" not in worker.log


def test_a_running_step_may_end(ground: Ground) -> None:
    worker = ground.worker()
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGTERM)
        worker.until("finishing what runs")
        # What is submitted now is not begun.
        ground.submit("quick", "b")
    assert worker.end() == 0
    assert ground.result("a") == worker.process.pid
    assert ground.client.history("b") == []


def test_a_second_signal_stops_at_once(ground: Ground) -> None:
    worker = ground.worker()
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGTERM)
        worker.until("finishing what runs")
        worker.signal(signal.SIGINT)
        assert worker.end() == 3
    assert "SIGINT again: stopping at once" in worker.log
    # It was given back, and goes on elsewhere where it was.
    again = ground.worker()
    ground.hold("a").close()
    assert ground.result("a") == again.process.pid
    assert (ground.folder / "first.log").read_text() == "a\n"


def test_a_third_signal_ends_what_hogs_the_interpreter(ground: Ground) -> None:
    worker = ground.worker()
    ground.submit("hogging", "a")
    with ground.hold("a"):
        # The loop is blocked: two signals only count, and more do no harm.
        while worker.process.poll() is None:
            worker.signal(signal.SIGTERM)
    assert worker.end() == 3


def test_the_grace_ends(ground: Ground) -> None:
    worker = ground.worker("--grace", "0")
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGTERM)
        assert worker.end() == 3


def test_tags_are_kept(ground: Ground) -> None:
    ground.submit("needs_gpu", "a")
    worker = ground.worker("--tags", "cpu, eu", "--tags", "big")
    ground.submit("quick", "b")
    assert ground.result("b") == worker.process.pid
    assert ground.client.history("a") == []
    ground.worker("--tags", "cpu,gpu")
    assert ground.result("a") == "a"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--url", "sqlite:///no/such/folder/app.db"), 1, "no/such/folder"),
        (("--processes", "2", "--url", "sqlite:///no/such/folder/app.db"), 1, "no/such/folder"),
        (("--processes", "2", "--url", "memory://"), 2, "memory:// cannot be shared"),
        (("--url", "sqlite://app.db"), 2, "host after sqlite://"),
        (("--worker-id", ""), 2, "worker_id"),
        (("--tags", "a,,b"), 2, "tag"),
        (("--concurrency", "0"), 2, "concurrency"),
        (("--processes", "0"), 2, "processes"),
        (("--lease-ttl", "0"), 2, "lease-ttl"),
        (("--poll-interval", "soon"), 2, "poll-interval"),
        (("--log-level", "loud"), 2, "log-level"),
        (("--grace", "-1s"), 2, "grace"),
    ],
)
def test_bad_arguments(
    ground: Ground,
    caplog: pytest.LogCaptureFixture,
    args: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    # None of these comes to the point where it would need a process of its own. The level that the
    # command sets is taken back after the test.
    caplog.set_level(logging.INFO, logger="sayiir")
    result = CliRunner().invoke(main, ["worker", "jobs_of_test:everything", *args])
    assert result.exit_code == code
    assert "Error: " in result.stderr
    assert says in result.stderr


# Several processes.


def children(worker: Program, count: int) -> list[int]:
    """The pids of the children, once all of them work."""
    pids: dict[str, int] = {}
    ready = 0
    while ready < count:
        found = worker.until(r"worker process (\d+) is pid (\d+)|takes instances of")
        if found[1]:
            pids[found[1]] = int(found[2])
        else:
            ready += 1
    return list(pids.values())


def test_several_processes_share_the_work(ground: Ground) -> None:
    worker = ground.worker("--processes", "2", "--concurrency", "1", "--worker-id", "w")
    pids = children(worker, 2)
    for name in ("a", "b"):
        ground.submit("slow", name)
    # Each takes one at a time, and both run.
    with ground.hold("a"), ground.hold("b"):
        worker.signal(signal.SIGTERM)
        worker.until("the worker processes finish what runs")
    assert worker.end() == 0
    assert {ground.result("a"), ground.result("b")} == set(pids)
    workers = {step.worker_id for name in ("a", "b") for step in ground.client.history(name)}
    assert workers == {"w-1", "w-2"}


def test_a_file_of_the_package_s_name_is_in_nobody_s_way(ground: Ground) -> None:
    (ground.folder / "sayiir.py").write_text("raise SystemExit(9)")
    worker = ground.worker("--processes", "1")
    worker.until("takes instances of")
    several = ground.worker("--processes", "2")
    children(several, 2)


def test_a_second_signal_stops_all_processes(ground: Ground) -> None:
    worker = ground.worker("--processes", "2")
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGTERM)
        worker.until("the worker processes finish what runs")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 3


def test_orders_and_signals_do_not_add_up(ground: Ground) -> None:
    """A service manager sends its signal to the parent and to the children."""
    worker = ground.worker("--processes", "2")
    pids = children(worker, 2)
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGTERM)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        worker.until("finishing what runs")
    assert worker.end() == 0
    assert ground.result("a") in pids


def test_a_killed_child_is_replaced(ground: Ground) -> None:
    worker = ground.worker("--processes", "2", "--lease-ttl", "1s", "--worker-id", "w")
    pids = children(worker, 2)
    ground.submit("slow", "a")
    with ground.hold("a"):
        slot = int(ground.holder("a").removeprefix("w-"))
        os.kill(pids[slot - 1], signal.SIGKILL)
        worker.until(f"worker process {slot} was killed by SIGKILL; starting another in 0.5 s")
        new = int(worker.until(rf"worker process {slot} is pid (\d+)")[1])
        worker.until("takes instances of")
    assert new not in pids
    pids[slot - 1] = new
    # What the dead one held is begun again by one of those alive.
    assert ground.let_go("a") in pids
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0


def test_children_notice_that_their_parent_is_gone(ground: Ground) -> None:
    worker = ground.worker("--processes", "2")
    pids = children(worker, 2)
    ground.submit("slow", "a")
    with ground.hold("a"):
        worker.signal(signal.SIGKILL)
        worker.until("the parent process is gone: finishing what runs")
    # The end of the log is the end of the children.
    assert worker.end() == -signal.SIGKILL
    assert ground.result("a") in pids
    assert ground.holder("a") == ""


# The supervisor by itself, over children made for the case.

DRAINS = "import os, sys; sys.exit(0 if os.read(int(sys.argv[1]), 1) == b'd' else 5)"
DEAF = "import sys, time; time.sleep(3600)"
FORCED_ONLY = "import os, sys\nwhile os.read(int(sys.argv[1]), 1) != b'f': pass\nsys.exit(3)"


def child(source: str) -> Any:
    return lambda lifeline: [sys.executable, "-c", source, str(lifeline)]


async def supervised(*sources: str, signals: int = 0, patience_s: float = LONG) -> int:
    """The exit code of a supervisor that gets so many signals once its children are there."""
    over = Supervisor([child(source) for source in sources], patience_s)
    running = asyncio.ensure_future(over.run())
    for _ in range(signals):
        await until(lambda: len(over._children) == len(sources))
        os.kill(os.getpid(), signal.SIGTERM)
        await until(over._stopping.is_set)
    return await asyncio.wait_for(running, LONG)


async def test_children_are_told_to_drain() -> None:
    assert await supervised(DRAINS, DRAINS, signals=1) == 0


async def test_a_child_that_fails_while_draining_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await supervised(DRAINS, DRAINS.replace("0 if", "7 if"), signals=1) == 1
    assert "worker process 2 ended with exit code 7" in caplog.text


async def test_a_child_that_does_not_stop_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    assert await supervised(DEAF, DRAINS, signals=1, patience_s=0.1) == 3
    assert "worker process 1 does not stop and is killed" in caplog.text


async def test_a_child_that_does_not_stop_at_once_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FORCED_S", 0.1)
    assert await supervised(DEAF, signals=2) == 3


async def test_children_are_told_to_stop_at_once() -> None:
    assert await supervised(FORCED_ONLY, signals=2) == 3


async def test_a_third_signal_kills() -> None:
    assert await supervised(DEAF, DEAF, signals=3) == 3


async def test_a_child_that_keeps_crashing_ends_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.001)
    assert await supervised("raise SystemExit(9)", DRAINS) == 1
    said = "worker process 1 ended with exit code 9; starting another"
    assert caplog.text.count(said) == supervisor.MOST_CRASHES
    assert "worker process 1 is given up: it ended 6 times within 60 s" in caplog.text


async def test_crashes_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(supervisor, "CRASHES_WITHIN_S", 60.0)
    times = iter(range(0, 10_000, 61))
    monkeypatch.setattr("sayiir._clock.monotonic", lambda: float(next(times)))
    starts = 0

    def crashing(lifeline: int) -> list[str]:
        nonlocal starts
        starts += 1
        if starts > 2 * supervisor.MOST_CRASHES:
            # Enough: this code ends it.
            return [sys.executable, "-c", "raise SystemExit(2)"]
        return [sys.executable, "-S", "-c", "raise SystemExit(9)"]

    assert await asyncio.wait_for(Supervisor([crashing], 1.0).run(), LONG) == 2


async def test_a_child_that_refuses_its_arguments_is_not_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await supervised("raise SystemExit(2)", DRAINS) == 2
    assert "is given up: it refuses its arguments" in caplog.text


async def test_a_child_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.001)
    assert await Supervisor([lambda _: ["/no/such/program"]], 1.0).run() == 1
    assert "worker process 1 cannot be started" in caplog.text


# An interrupted run.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on(ground: Ground, number: int, code: int) -> None:
    os.mkfifo(ground.folder / "a.pipe")
    args = ("run", "jobs_of_test:slow", "--input", '"a"', "--id", "a")
    program = ground.program(*args)
    with ground.hold("a"):
        program.signal(number)
        assert program.end() == code
    assert "Go on with: sayiir run jobs_of_test:slow --id a\n" in program.log
    assert ground.client.status("a").is_in_progress()
    again = ground.program(*args)
    ground.hold("a").close()
    assert again.end() == 0
    assert again.process.stdout is not None
    assert again.process.stdout.read() == f"{again.process.pid}\n"
    assert (ground.folder / "first.log").read_text() == "a\n"


def test_a_run_says_what_it_waits_for(ground: Ground) -> None:
    program = ground.program("run", "jobs_of_test:asking", "--id", "a b")
    program.until("waits for event answer; send it with: sayiir runs send 'a b' answer JSON")
    ground.client.send_event("a b", "answer", {"yes": True})
    assert program.end() == 0
    assert program.process.stdout is not None
    assert program.process.stdout.read() == '{"yes": true}\n'
