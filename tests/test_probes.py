"""`sayiir worker --http`: what probes and scrapers are told is true, from start to end.

A worker whose loop and backend are held is asked, a parent with children that say what they are
told to, and the whole as processes. Nothing is waited for by the clock.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from benches.python_backend import PythonBackend
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.asking import get
from tests.working import LONG, NEVER

from sayiir import Flow, InMemoryBackend, SyncWorkflowClient, Worker, WorkerMetrics, _clock
from sayiir.cli import probes
from sayiir.cli.health import Address, Answer, HealthServer, text_answer
from sayiir.cli.probes import Pulse, family_pages, worker_pages
from sayiir.cli.target import named_workflow

flow = Flow("any").then(lambda x: x).build()


class Held(PythonBackend):
    """Answers when it is let."""

    trouble: Exception | None = None

    async def next_wake(self) -> float | None:
        if self.trouble is not None:
            raise self.trouble
        return await super().next_wake()


def asked(pulse: Pulse, path: str) -> tuple[int, str]:
    """What a page says, asked from another loop as the server does."""

    async def ask() -> Answer:
        return await worker_pages(pulse)[path]({})

    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(ask())))
    thread.start()
    thread.join(LONG)
    return answers[0].status, answers[0].body.decode().strip()


async def told(pulse: Pulse, status: int, words: str) -> None:
    """Wait until `/readyz` says this."""
    async with asyncio.timeout(LONG):
        while True:
            said = asked(pulse, "/readyz")
            if said[0] == status and words in said[1]:
                return
            await asyncio.sleep(0.01)


async def test_ready_is_who_has_begun_and_reaches_the_backend_until_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "ASK_S", 0.01)
    monkeypatch.setattr(probes, "BEAT_S", 0.01)
    backend = Held()
    backend.trouble = OSError("password=secret")
    draining: list[bool] = []
    worker = Worker(backend, flow, poll_interval=NEVER)
    pulse = Pulse(worker, lambda: bool(draining))
    pulse.start()
    try:
        assert asked(pulse, "/readyz") == (503, "starting")
        async with worker:
            await told(pulse, 503, "the backend has not answered yet (OSError)")
            assert asked(pulse, "/healthz") == (200, "ok")
            backend.trouble = None
            await told(pulse, 200, "ok")
            monkeypatch.setattr(probes, "SILENT_S", 0.0)
            backend.trouble = OSError("password=secret")
            await told(pulse, 503, "s (OSError)")
            # A restart would not bring the database back.
            assert asked(pulse, "/healthz") == (200, "ok")
            draining.append(True)
            assert asked(pulse, "/readyz") == (503, "draining")
            assert asked(pulse, "/healthz") == (200, "ok")
    finally:
        pulse.close()


async def test_a_loop_that_does_not_turn_is_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse(Worker(InMemoryBackend(), flow), lambda: False)
    pulse.start()
    try:
        await asyncio.sleep(0)
        begun = _clock.monotonic()
        # From here on this coroutine has the loop to itself.
        monkeypatch.setattr(_clock, "monotonic", lambda: begun + probes.STALLED_S - 1)
        assert asked(pulse, "/healthz") == (200, "ok")
        monkeypatch.setattr(_clock, "monotonic", lambda: begun + probes.STALLED_S + 1)
        status, text = asked(pulse, "/healthz")
        assert status == 503
        assert "the event loop has not turned for 3" in text
        assert asked(pulse, "/readyz")[0] == 503
    finally:
        pulse.close()


def test_metrics_are_there_if_the_worker_has_them() -> None:
    without = Pulse(Worker(InMemoryBackend(), flow), lambda: False)
    status, text = asked(without, "/metrics")
    assert status == 404
    assert 'pip install "sayiir[prometheus]"' in text
    metrics = WorkerMetrics(CollectorRegistry())
    status, text = asked(
        Pulse(Worker(InMemoryBackend(), flow, metrics=metrics), lambda: False), "/metrics"
    )
    assert status == 200
    assert "# TYPE sayiir_step_duration_seconds histogram" in text


class Child:
    """A process that answers, as its parent sees it."""

    def __init__(self, path: Path, answers: dict[str, Answer]) -> None:
        async def healthz(headers: Mapping[str, str]) -> Answer:
            return answers["/healthz"]

        async def readyz(headers: Mapping[str, str]) -> Answer:
            return answers["/readyz"]

        async def metrics(headers: Mapping[str, str]) -> Answer:
            return answers["/metrics"]

        self.path = path
        self.server = HealthServer({"/healthz": healthz, "/readyz": readyz, "/metrics": metrics})
        self.server.start(Address(path=str(path)))


FINE = {
    "/healthz": text_answer(200, "ok"),
    "/readyz": text_answer(200, "ok"),
    "/metrics": text_answer(200, '# TYPE a_total counter\na_total{x="y"} 2'),
}


def test_a_parent_answers_for_its_children(tmp_path: Path) -> None:
    draining: list[bool] = []
    ill = {
        **FINE,
        "/readyz": text_answer(503, "starting"),
        "/healthz": text_answer(503, "stuck"),
        "/metrics": text_answer(200, "# TYPE a_total counter\na_total 3"),
    }
    paths = [tmp_path / name for name in ("1", "2", "3")]
    pages = family_pages(paths, lambda: bool(draining))

    def said(path: str) -> tuple[int, str]:
        async def ask() -> Answer:
            return await pages[path]({})

        answer = asyncio.run(ask())
        return answer.status, answer.body.decode()

    absent = "is not there (yet)"
    all_absent = "".join(f"process {n}: {absent}\n" for n in (1, 2, 3))
    # A child that is not there is started by its parent; a restart of the parent would not help.
    assert said("/healthz") == (200, all_absent)
    assert said("/readyz") == (503, all_absent)
    with ExitStack() as stack:
        stack.callback(Child(paths[0], FINE).server.close)
        one = f"process 1: ok\nprocess 2: {absent}\nprocess 3: {absent}\n"
        assert said("/readyz") == said("/healthz") == (200, one)
        stack.callback(Child(paths[1], ill).server.close)
        both = f"process 1: ok\nprocess 2: starting\nprocess 3: {absent}\n"
        assert said("/readyz") == (200, both)
        assert said("/healthz") == (503, both.replace("starting", "stuck"))
        status, text = said("/metrics")
        assert status == 200
        [family] = text_string_to_metric_families(text)
        assert [(sample.labels, sample.value) for sample in family.samples] == [
            ({"process": "1", "x": "y"}, 2.0),
            ({"process": "2"}, 3.0),
        ]
        draining.append(True)
        assert said("/readyz") == (503, "draining\n")


def test_a_child_that_does_not_answer_is_ill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "CHILD_S", 0.01)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "1"))
        mute.listen()
        pages = family_pages([tmp_path / "1"], lambda: False)

        async def ask() -> Answer:
            return await pages["/healthz"]({})

        answer = asyncio.run(ask())
    assert answer.status == 503
    assert answer.body == b"process 1: does not answer within 0.01 s\n"


def test_children_without_metrics_have_a_parent_without(tmp_path: Path) -> None:
    child = Child(tmp_path / "1", {**FINE, "/metrics": text_answer(404, probes.NO_METRICS)})

    async def ask() -> Answer:
        return await family_pages([tmp_path / "1"], lambda: False)["/metrics"]({})

    try:
        assert asyncio.run(ask()).status == 404
    finally:
        child.server.close()


JOBS = """
from sayiir import Flow, task

@task
def held(x):
    with open(f"{x}.pipe") as pipe:
        pipe.read()
    return x

held_flow = Flow("held").then(held).build()
"""


class Program:
    """`sayiir worker --http` as a process, and its log."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.log = ""
        arguments = ["worker", "jobs_to_probe:held_flow", "--url=sqlite:///probed.db", *more]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sayiir", *arguments, "--http=127.0.0.1:0"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        port = self.until(r"answering on 127\.0\.0\.1:(\d+)")[1]
        self.address = Address("127.0.0.1", int(port))

    @property
    def _stderr(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def until(self, pattern: str) -> re.Match[str]:
        for line in self._stderr:
            self.log += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern!r} was never said, but this:\n{self.log}")

    def until_ready(self) -> None:
        """Ask until every process is."""
        while True:
            status, text = get(self.address, "/readyz")
            if status == 200 and all(line.endswith("ok") for line in text.splitlines()):
                return
            assert self.process.poll() is None, self.log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LONG)
        self._stderr.close()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_is_probed_from_its_start_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    (tmp_path / "jobs_to_probe.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "jobs_to_probe", None)
    monkeypatch.delitem(sys.modules, "jobs_to_probe")
    pipe = tmp_path / "h-1.pipe"
    os.mkfifo(pipe)
    with ExitStack() as stack:
        client = SyncWorkflowClient.from_url(f"sqlite:///{tmp_path / 'probed.db'}")
        stack.enter_context(client)
        client.submit(named_workflow("jobs_to_probe:held_flow"), "h-1", "h-1")
        program = Program(tmp_path, f"--processes={processes}", "--poll-interval=100ms")
        stack.callback(program.close)
        program.until_ready()
        assert get(program.address, "/healthz")[0] == 200
        step = stack.enter_context(pipe.open("w"))
        status, text = get(program.address, "/metrics")
        assert status == 200
        assert "sayiir_worker_slots_busy{" in text
        if processes == "2":
            assert 'process="2"' in text
        program.process.send_signal(signal.SIGTERM)
        program.until("SIGTERM: ")
        # The step still runs, so the worker is there to be asked.
        assert get(program.address, "/readyz") == (503, "draining\n")
        assert get(program.address, "/healthz")[0] == 200
        step.close()
        assert program.process.wait(LONG) == 0
        assert client.result("h-1", LONG) == "h-1"
        with pytest.raises(OSError, match="refused"):
            get(program.address, "/healthz")


def test_an_address_that_is_taken_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "jobs_to_probe.py").write_text(JOBS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for processes in ("1", "2"):
            ended = subprocess.run(
                [
                    *(sys.executable, "-P", "-m", "sayiir", "worker", "jobs_to_probe:held_flow"),
                    *("--url=sqlite:///probed.db", f"--http=127.0.0.1:{port}"),
                    f"--processes={processes}",
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=LONG,
            )
            assert ended.returncode == 1
            assert "--http: cannot listen on 127.0.0.1:" in ended.stderr
            assert "in use" in ended.stderr
            assert "Traceback" not in ended.stderr
