"""Processes of their own for tasks marked `run_in="process"`.

Each lane is one spawned process that runs one call at a time and can be killed at any moment; the
next call then gets a fresh one. Values cross by the same codec as between steps. The function
crosses by reference: the child imports the module it was defined in, as `multiprocessing` does, so
a script needs its `if __name__ == "__main__":`.

The child reports failures as data (text, whether another attempt is allowed, the wait asked for),
so an exception that cannot be carried over is still told in full.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ._codec import decode_payload, describe_error, encode_payload
from ._context import current
from ._core import Step
from ._errors import EncodeError, RetryAfter
from ._invoke import RemoteFailure
from ._task import TaskDef
from ._tracing import carried, carrier_of_here

__all__ = ["ProcessDied", "ProcessPool"]

CALLS_PER_PROCESS = 1_000
"""After this many calls a process is replaced, so that leaks of user code stay bounded."""


class ProcessDied(RuntimeError):
    """A task's process ended before the task did: killed, out of memory, or crashed."""


@dataclass(frozen=True)
class RemoteStep:
    """What a task in another process can learn about itself."""

    instance_id: str
    workflow_id: str
    path: str
    attempt: int
    deadline: float | None
    task: TaskDef
    workflow_metadata: dict[str, Any] | None
    trace: dict[str, str] | None = None
    """The span it belongs to, where steps are traced."""
    cancelled: bool = False


def serve(connection: Connection) -> None:
    """The child's main loop: calls in, outcomes out, until the pipe closes."""
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        except BaseException as error:
            connection.send(_failed(None, error))
            continue
        step, payload, pickles = request
        connection.send(("started",))
        current.set(step)
        try:
            with carried(step.trace):
                value = step.task.fn(decode_payload(payload, pickles=pickles))
            answer: tuple[Any, ...] = ("value", encode_payload(value, pickles=pickles))
        except EncodeError as error:
            answer = ("unencodable", str(error))
        except BaseException as error:
            answer = _failed(step, error)
        try:
            connection.send(answer)
        except OSError:
            return


def _failed(step: RemoteStep | None, error: BaseException) -> tuple[Any, ...]:
    retryable = step is not None and step.task.is_retryable(error)
    retry_after = error.seconds if isinstance(error, RetryAfter) else None
    return "failure", describe_error(error), retryable, retry_after


class Lane:
    """One process, started when first needed and replaced after many calls.

    `retire` ends it for good and may come at any moment, from another thread: a lane that is
    starting its process then ends that too, and a retired lane is never used again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._calls = 0
        self.retired = False

    def call(self, step: Step, started: Callable[[], None]) -> Any:
        """Run a step's function in the process; blocks, so it is called in a thread.

        `started` is called when the child has the function and its input.

        Raises:
            RemoteFailure: The function raised.
            EncodeError: What it returned cannot be stored.
            ProcessDied: The process ended first.
        """
        pickles = step.run.pickles
        payload = encode_payload(step.input, pickles=pickles)
        remote = RemoteStep(
            step.instance_id,
            step.workflow_id,
            step.path,
            step.attempt,
            step.deadline,
            step.task,
            step.workflow_metadata,
            carrier_of_here(),
        )
        process, connection = self._started(step)
        try:
            connection.send((remote, payload, pickles))
            answer = connection.recv()
            if answer[0] == "started":
                started()
                answer = connection.recv()
        except (EOFError, OSError):
            process.join(1.0)
            code = process.exitcode
            self.retire()
            raise ProcessDied(
                f"the process of task {step.task.name!r} ended before it did (exit code {code})"
            ) from None
        self._calls += 1
        if self._calls >= CALLS_PER_PROCESS:
            self.retire()
        if answer[0] == "value":
            return decode_payload(answer[1], pickles=pickles)
        if answer[0] == "unencodable":
            raise EncodeError(
                f"task {step.task.name!r} (at {step.path!r}) returned a value: {answer[1]}"
            )
        raise RemoteFailure(*answer[1:])

    def _started(self, step: Step) -> tuple[BaseProcess, Connection]:
        with self._lock:
            process, connection = self._process, self._connection
            if process is None or connection is None:
                if self.retired:
                    raise ProcessDied(f"the process of task {step.task.name!r} was ended")
                context = multiprocessing.get_context("spawn")
                connection, theirs = context.Pipe()
                process = context.Process(
                    target=serve, args=(theirs,), name="sayiir-task", daemon=True
                )
                process.start()
                theirs.close()
                self._process, self._connection = process, connection
            return process, connection

    def retire(self) -> None:
        """End the process at once, whatever it is doing, and never start another."""
        self.retired = True
        # Waits for a start that is under way: a moment, and then there is something to end.
        with self._lock:
            process, self._process = self._process, None
            self._connection = None
        if process is not None:
            # The pipe is closed by whoever reads from it, when the other end is gone.
            process.kill()
            process.join()


class ProcessPool:
    """A bounded set of lanes for one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: deque[Lane] = deque()
        self._lanes: list[Lane] = []
        self._waiting: deque[asyncio.Future[Lane]] = deque()

    async def acquire(self) -> Lane:
        """A lane that nobody uses; waits for one when all are busy."""
        if self._free:
            return self._free.pop()
        if len(self._lanes) < self._size:
            lane = Lane()
            self._lanes.append(lane)
            return lane
        future: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, lane: Lane) -> None:
        """Give a lane back; a retired one makes room for a new one."""
        if lane.retired:
            self._lanes.remove(lane)
            lane = Lane()
            self._lanes.append(lane)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(lane)
                return
        self._free.append(lane)

    def close(self) -> None:
        """Kill all processes."""
        for lane in self._lanes:
            lane.retire()
