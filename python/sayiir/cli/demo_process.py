"""A worker process of the demo, from its start in a fresh interpreter to its end by either way.

Promises that a kill is a SIGKILL that hit a living process, and that the process is gone when the
`with` statement is left: by itself if there was time, by force otherwise. Starting and killing
never wait for the event loop, so that no interrupt can come in between and leave a half-started
process behind. Refuses to know what the worker works on.
"""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sayiir.cli.demo_worker import Order

__all__ = ["WorkerGoneError", "WorkerProcess"]

# How long a worker that has nothing more to do may take to leave by itself.
_LEAVE_WITHIN_S = 10.0
_LAST_WORDS = 2_000


class WorkerGoneError(RuntimeError):
    """A worker process ended that nobody had killed."""


class WorkerProcess:
    """One worker at work; use it in a `with` statement.

    Args:
        order: What the worker is told.
        folder: Where its standard error is kept, for its last words.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, order: Order, folder: Path) -> None:
        self.name: str = order["worker"]
        """The worker's name, in the store as in the journal."""
        self._words = folder / f"{self.name}.err"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                # `-P`: the folder this happens to run in is none of the places to import from.
                [sys.executable, "-P", "-m", "sayiir.cli.demo_worker", json.dumps(order)],
                # It ends when we do, whatever ends us: then the other end of this pipe is closed.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=words,
                # Ctrl-C is for us; the workers are ours to end.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raise `WorkerGoneError` if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise self._gone(code)

    def kill(self) -> None:
        """SIGKILL; when this returns the process is dead.

        Raises:
            WorkerGoneError: It had ended by itself before.
        """
        self._process.kill()
        code = self._process.wait()
        if code != -signal.SIGKILL:
            raise self._gone(code)

    async def leave(self) -> None:
        """Let it end by itself, as it does when nobody holds the other end of its input."""
        self._close_input()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _LEAVE_WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not by closing the input alone: a worker may be held in a step.
        self._process.kill()
        self._process.wait()
        self._close_input()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _gone(self, code: int) -> WorkerGoneError:
        last = self._words.read_text(errors="replace")[-_LAST_WORDS:].strip()
        return WorkerGoneError(
            f"{self.name} ended by itself with exit code {code}; nothing is lost, but the demo "
            f"cannot go on. It said: {last or 'nothing'}"
        )
