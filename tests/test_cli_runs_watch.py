"""`runs watch`: lines and JSON where nobody looks, a drawing on a terminal, and how it is left."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sayiir import (
    Flow,
    InMemoryBackend,
    RetryPolicy,
    SyncWorkflowClient,
    Worker,
    Workflow,
    run_durable_workflow,
    task,
)
from sayiir.cli import main

from .working import LONG

_tries = iter([ValueError("no [red]luck[/red]\x1b[31m\nsecond line")])


@task(retries=RetryPolicy(max_retries=1, initial_delay_secs=0.001))
def stumble(value: int) -> int:
    for failure in _tries:
        raise failure
    return value


def fail(_: Any) -> None:
    raise ValueError("out of paper")


TWO: Workflow[int, str] = (
    Flow("two").then(lambda x: x, name="a").then(lambda x: "canary", name="b").build()
)
FAILING: Workflow[Any, None] = Flow("failing").then(lambda x: x, name="a").then(fail).build()
STUMBLING: Workflow[int, int] = Flow("stumbling").then(stumble).build()
ASKING: Workflow[None, Any] = (
    Flow("asking")
    .then(lambda: 1, name="a")
    .wait_for_event("go")
    .then(lambda x: x, name="b")
    .build()
)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> InMemoryBackend:
    place = InMemoryBackend()
    monkeypatch.setattr("sayiir.cli.session.connect", lambda url: place)
    return place


def watch(*args: str, code: int = 0) -> Result:
    env = {"SAYIIR_DATABASE_URL": "memory://", "COLUMNS": "300"}
    result = CliRunner().invoke(main, ["runs", "watch", *args], env=env)
    assert result.exit_code == code, result.output
    return result


def lines(result: Result) -> list[str]:
    """What is said of steps without their times, and of states."""
    said = [line.partition("Z  ")[2] or line for line in result.stdout.splitlines()]
    return [line.partition(" after ")[0] for line in said]


def test_what_has_ended_is_told_from_its_begin(backend: InMemoryBackend) -> None:
    run_durable_workflow(TWO, "i", 1, backend)
    assert lines(watch("i")) == ["a: completed", "b: completed", "i is completed"]


def test_a_failure_is_told_and_is_the_exit_code(backend: InMemoryBackend) -> None:
    run_durable_workflow(FAILING, "i", 1, backend)
    told = watch("i", code=1).stdout.splitlines()
    assert "fail: failed after " in told[1]
    assert told[1].endswith("(ValueError: out of paper)")
    assert told[2:] == ["i is failed", "error: ValueError: out of paper"]


def test_a_cancelled_one_has_not_completed(backend: InMemoryBackend) -> None:
    with SyncWorkflowClient(backend) as client:
        client.submit(TWO, "i", 1)
        client.cancel("i")
    assert lines(watch("i", code=1)) == ["i is cancelled"]


def test_each_line_as_json(backend: InMemoryBackend) -> None:
    run_durable_workflow(STUMBLING, "i", 1, backend)
    told = [json.loads(line) for line in watch("i", "--json").stdout.splitlines()]
    assert [(one["kind"], one.get("attempt"), one.get("outcome")) for one in told] == [
        *(("step", 1, "retried"), ("step", 2, "completed"), ("status", None, None)),
    ]
    assert told[0]["error"].startswith("no [red]luck")
    assert (told[2]["instance_id"], told[2]["status"]) == ("i", "completed")
    run_durable_workflow(FAILING, "f", 1, backend)
    *_, end = map(json.loads, watch("f", "--json", code=1).stdout.splitlines())
    assert end["error"]["type"] == "ValueError"


def test_nobody_is_waited_for_in_vain(backend: InMemoryBackend) -> None:
    assert "there is no instance 'none'" in watch("none", code=1).stderr
    refused = json.loads(watch("none", "--json", code=1).stdout)
    assert refused["type"] == "InstanceNotFoundError"
    watch("none", "--flow", "nonsense", code=2)


def test_no_payload_is_told(backend: InMemoryBackend) -> None:
    run_durable_workflow(TWO, "i", 1, backend)
    assert "canary" not in watch("i").output
    assert "canary" not in watch("i", "--json").output


# In a terminal, and in the way of signals.


@contextmanager
def watching(url: str, terminal: bool) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A `runs watch i` of its own, and where what it says can be read."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    program = [sys.executable, "-m", "sayiir", "runs", "watch", "i", "--url", url]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        program, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(source: int, words: str, said: str = "") -> str:
    """All that is said until these words are."""
    while words not in said:
        piece = os.read(source, 65_536)
        assert piece, f"it ended without saying {words!r}: {said}"
        said += piece.decode()
    return said


def rest_of(source: int) -> str:
    """What is said until nobody is left to say anything."""
    said = b""
    while True:
        try:
            piece = os.read(source, 65_536)
        except OSError:  # How a terminal ends.
            piece = b""
        if not piece:
            return said.decode()
        said += piece


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.mark.parametrize("terminal", [True, False])
def test_it_is_followed_from_another_process(url: str, terminal: bool) -> None:
    with SyncWorkflowClient.from_url(url) as client, Worker(client.backend, ASKING):
        client.submit(ASKING, "i")
        client.wait_until("i", "awaiting_signal", timeout=LONG)
        with watching(url, terminal) as (process, source):
            read_until(source, "awaits event go" if terminal else "awaiting_signal of event go")
            client.send_event("i", "go", "canary")
            said = rest_of(source)
            assert process.wait(LONG) == 0
    assert "canary" not in said
    if terminal:
        drawing = said[said.rindex("i (asking): ") :]
        assert drawing.startswith("i (asking): completed")
        assert drawing.count("✓") == 3
    else:
        assert "b: completed after" in said


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_leaves_quietly(url: str, terminal: bool) -> None:
    with SyncWorkflowClient.from_url(url) as client:
        client.submit(ASKING, "i")
        with watching(url, terminal) as (process, source):
            read_until(source, "in_progress")
            process.send_signal(signal.SIGINT)
            said = rest_of(source)
            assert process.wait(LONG) == 130
        assert "Traceback" not in said
        assert "Interrupted" not in said
        assert client.status("i").is_in_progress()
