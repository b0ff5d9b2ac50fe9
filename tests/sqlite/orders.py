"""Other processes, as a test has them at its command.

A `Nursery` forks a child for every deed and tells how it ended; a `Program` is one process that
speaks and listens in lines. Both start where this process found the package.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sayiir

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(**added: str) -> dict[str, str]:
    """What other processes are started with."""
    paths = (str(Path(sayiir.__file__).resolve().parent.parent), str(ROOT))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | added


class Nursery:
    """The other end of `nursery.py`; used by one thread at a time.

    Args:
        modules: Where deeds are that it does not know.
    """

    def __init__(self, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sqlite.nursery", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def order(
        self,
        deed: str,
        path: Path | str,
        log: Path,
        fail_at: str | None = None,
        kill_after: float | None = None,
    ) -> int:
        """How a child that did this ended; 0, or the negative number of the signal it died of."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order: dict[str, Any] = {"deed": deed, "path": str(path), "log": str(log)}
        order |= {"fail_at": fail_at, "kill_after": kill_after}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        code = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
        report = Path(f"{log}.err")
        assert not report.exists(), f"{deed} at {fail_at}:\n{report.read_text()}"
        return code


class Program:
    """A function of `programs.py` in a process of its own; gone at the latest when the test ends.

    Args:
        name: The function.
        given: Its arguments.
        env: Added to its environment.
        module: Another module than `programs.py`.
    """

    def __init__(
        self,
        name: str,
        *given: object,
        env: dict[str, str] | None = None,
        module: str = "tests.sqlite.programs",
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, name, json.dumps(given, default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(**(env or {})),
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def hear(self) -> Any:
        """The next thing it says.

        Raises:
            EOFError: It has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"{self._process.args!r} has ended with {self._process.wait()}")
        return json.loads(line)

    def say(self, word: object = "go on") -> None:
        """Give it a line to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(word)}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait()
