"""A worker as a program and as a thread: `run()` until a signal, `start()` and `stop()`.

The programs that are stopped by signals are real processes; they say on their standard output what
happens in them, and a test waits for those words.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import pytest
from tests.postgres import server

import sayiir
from sayiir import Flow, SyncWorkflowClient, Worker, WorkflowClient
from sayiir.backends import Backend, Listener

from .working import LONG, NEVER, Altered, Places

SCHEMES = ("memory", "sqlite", "postgresql")
_numbers = itertools.count()
PROGRAM = """
import asyncio, logging, sys, threading
from sayiir import Flow, Worker, WorkflowClient, connect

logging.basicConfig(stream=sys.stdout, format="%(message)s")

def say(*words):
    print(*words, flush=True)

async def first(x):
    say("begun")
    await asyncio.to_thread(sys.stdin.readline)
    say("ended")
    return x

async def hangs(x):
    say("begun")
    try:
        await asyncio.Event().wait()
    finally:
        say("cancelled")

async def second(x):
    say("second")

class Told(Worker):
    async def aclose(self):
        say("stopping")
        await super().aclose()

async def main(body, url):
    backend = connect(url)
    workflow = Flow("f").then(body).then(second).build()
    await WorkflowClient(backend).submit(workflow, "i", 1)
    await Told(backend, workflow, poll_interval="1h", worker_id="w").run()
    [row] = (await WorkflowClient(backend).list_instances()).items
    say("stopped", row.status, row.worker_id, row.steps)
    await backend.close()

asyncio.run(main({"first": first, "hangs": hangs}[sys.argv[1]], sys.argv[2]))
say("over")
"""


class Program:
    """A worker in a process of its own, and what it says."""

    def __init__(self, folder: Path, body: str, scheme: str) -> None:
        self._schema = None
        url = "memory://" if scheme == "memory" else f"sqlite:///{folder}/work.db"
        if scheme == "postgresql":
            self._schema = f"signals_{os.getpid()}_{next(_numbers)}"
            url = server.required(swift=True).url(schema=self._schema)
        script = folder / "program.py"
        script.write_text(textwrap.dedent(PROGRAM))
        # Started elsewhere, so that it finds the package where this process found it.
        where = str(Path(sayiir.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, str(script), body, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": where},
        )

    @property
    def words(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def until(self, word: str) -> list[str]:
        """What it says up to this word."""
        said: list[str] = []
        for line in self.words:
            said.append(line.strip())
            if word in line:
                return said
        raise AssertionError(f"it never said {word!r}, but {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        # Closes the pipes, and waits for the end.
        self.process.__exit__(None, None, None)
        if self._schema is not None:
            gone = f"DROP SCHEMA IF EXISTS {self._schema} CASCADE"
            server.required(swift=True).execute(gone)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(tmp_path: Path, number: signal.Signals, scheme: str) -> None:
    with Program(tmp_path, "first", scheme) as program:
        program.until("begun")
        program.process.send_signal(number)
        program.until("stopping")
        assert program.process.stdin is not None
        program.process.stdin.write("\n")
        program.process.stdin.flush()
        said = program.until("over")
        assert [word for word in said if word != "stopping"] == [
            *("ended", "stopped in_progress None 1", "over")
        ]
        assert program.process.wait(LONG) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)],
)
def test_a_second_signal_stops_at_once(
    tmp_path: Path, first: signal.Signals, second: signal.Signals, scheme: str
) -> None:
    with Program(tmp_path, "hangs", scheme) as program:
        program.until("begun")
        program.process.send_signal(first)
        program.until("stopping")
        program.process.send_signal(second)
        said = program.until("over")
        assert "second signal" in said[0]
        assert [word for word in said if word != "stopping"][-3:] == [
            *("cancelled", "stopped in_progress None 0", "over")
        ]
        assert program.process.wait(LONG) == 0


async def test_a_program_that_is_cancelled_stops_gracefully(backend: Backend) -> None:
    running = asyncio.Event()

    async def begin(x: int) -> int:
        running.set()
        return x

    workflow = Flow("f").then(begin).build()
    worker = Worker(backend, workflow, poll_interval=NEVER)
    program = asyncio.create_task(worker.run())
    handle = await WorkflowClient(backend).submit(workflow, "i", 1)
    await running.wait()
    assert await handle.result(timeout=LONG) == 1
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program
    assert "stopped" in repr(worker)


# On a thread of its own.


def test_a_worker_on_a_thread_of_its_own(backend: Backend) -> None:
    workflow = Flow("f").then(lambda x: x + 1).build()
    worker = Worker(backend, workflow, poll_interval=NEVER)
    with SyncWorkflowClient(backend) as client:
        for number in range(3):
            assert worker.start() is worker
            with pytest.raises(RuntimeError, match="already running"):
                worker.start()
            assert client.submit(workflow, f"i-{number}", 1).result(timeout=LONG) == 2
            worker.stop()
            worker.stop()
        with worker:
            assert client.submit(workflow, "last", 1).result(timeout=LONG) == 2
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("sayiir-worker")]


def test_stop_says_when_it_takes_too_long(backend: Backend) -> None:
    running, go_on = threading.Event(), threading.Event()

    def slow(x: int) -> int:
        running.set()
        go_on.wait(LONG)
        return x

    workflow = Flow("f").then(slow).build()
    with SyncWorkflowClient(backend) as client:
        worker = Worker(backend, workflow, poll_interval=NEVER).start()
        handle = client.submit(workflow, "i", 1)
        assert running.wait(LONG)
        with pytest.raises(TimeoutError, match="has not stopped yet"):
            worker.stop(timeout="20ms")
        go_on.set()
        worker.stop()
        assert handle.result(timeout=LONG) == 1


async def test_it_is_not_started_twice(backend: Backend) -> None:
    worker = Worker(backend, Flow("f").then(str).build())
    async with worker:
        with pytest.raises(RuntimeError, match="already running"):
            await worker.__aenter__()
        with pytest.raises(RuntimeError, match="already running"):
            worker.start()
        assert "running" in repr(worker)
    assert "stopped" in repr(worker)


def test_a_start_that_fails_says_why(places: Places) -> None:
    class Mute(Altered):
        def listen(self, listener: Listener) -> Callable[[], None]:
            raise ConnectionError("no hints here")

    worker = Worker(places(Mute), Flow("f").then(str).build())
    raised: list[BaseException] = []

    def start() -> None:
        try:
            worker.start()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [ConnectionError]
