"""How a step's function is called: on the loop, in a thread, in a process, and for how long.

`Invoker.call` covers everything but the plainest case (an `async def` without a timeout), which the
runner awaits itself. It promises:

* A thread or process that outlives its timeout is reported at the deadline; what it returns later
is
  dropped. A process is killed, a thread is replaced in the pool so that it starves nobody.
* The clock of a timeout starts when the function starts, not when it is queued.
* Nothing here waits for a user's thread at the end of the interpreter.

Results of threads come back in batches: however many finish while the loop is busy, it is woken
once. This module does not know instances, stores or retries.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
import types
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _clock
from ._codec import ErrorText
from ._core import Step
from ._errors import TaskTimeout

if TYPE_CHECKING:
    from ._process import ProcessPool

__all__ = ["Invoker", "RemoteFailure", "default_processes", "timeout_error"]

MODE_LOOP, MODE_INLINE, MODE_THREAD, MODE_PROCESS = range(4)


class RemoteFailure(Exception):
    """What a task raised in another process, as data."""

    def __init__(self, text: ErrorText, retryable: bool, retry_after: float | None) -> None:
        super().__init__(f"{text.error_type}: {text.message}")
        self.text = text
        self.retryable = retryable
        self.retry_after = retry_after


def default_processes() -> int:
    """As many as there are processors."""
    return os.cpu_count() or 1


def timeout_error(step: Step) -> TaskTimeout:
    """The error of an attempt that ran out of time."""
    return TaskTimeout(
        step.task.name,
        step.path,
        "TaskTimeout",
        f"still running after its timeout of {step.timeout:g} s",
        instance_id=step.instance_id,
    )


class Job:
    """One call in a thread. `result` is `(True, value)` or `(False, exception)`."""

    __slots__ = (
        "abandoned", "arguments", "context", "finished", "fn", "future", "replaced", "started",
        "taken", "told_start",
    )  # fmt: skip

    def __init__(
        self,
        fn: Callable[..., Any],
        argument: Any,
        future: asyncio.Future[Any],
        told_start: bool,
    ) -> None:
        self.fn = fn
        self.arguments = (argument, self.start) if told_start else (argument,)
        self.told_start = told_start
        self.future = future
        self.context = contextvars.copy_context()
        self.started: float | None = None
        # The following change only under the pool's lock.
        self.taken = False
        self.finished = False
        self.abandoned = False
        self.replaced = False

    def start(self) -> None:
        """What a timeout bounds begins now."""
        self.started = _clock.monotonic()


class ThreadPool:
    """A bounded pool of daemon threads for one event loop."""

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._size = size
        self._loop = loop
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: deque[tuple[Job, bool, Any]] = deque()
        self._signalled = False
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], argument: Any, told_start: bool) -> Job:
        """Queue a call in a copy of the current context.

        With `told_start` the function gets a second argument, to be called when what a timeout
        bounds begins; else that is when a thread takes the job.
        """
        job = Job(fn, argument, self._loop.create_future(), told_start)
        with self._lock:
            self._idle -= 1
            grow = self._idle < 0 and self._threads < self._size
            if grow:
                self._threads += 1
                self._idle += 1
        self._jobs.put(job)
        if grow:
            self._start()
        return job

    def _start(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def abandon(self, job: Job) -> None:
        """Nobody waits for this job any more; a thread stuck in it is replaced."""
        with self._lock:
            job.abandoned = True
            stuck = job.taken and not job.finished and not job.replaced
            # What waits for a process comes back by itself when that is killed.
            if not stuck or job.told_start or self._closed:
                return
            job.replaced = True
            self._idle += 1
        self._start()

    def close(self) -> None:
        """Let idle threads go; busy ones end with their job."""
        with self._lock:
            self._closed = True
            count = self._threads
        for _ in range(count):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            with self._lock:
                job.taken = True
                skip = job.abandoned
            if not skip:
                if not job.told_start:
                    job.start()
                try:
                    outcome = (True, job.context.run(job.fn, *job.arguments))
                except BaseException as error:
                    outcome = (False, error)
                with self._lock:
                    job.finished = True
                self._report(job, *outcome)
                # Nothing of the user's is kept alive by an idle thread.
                del outcome
            if job.replaced:
                # Another thread has this one's place.
                return
            del job
            with self._lock:
                self._idle += 1

    def _report(self, job: Job, ok: bool, value: Any) -> None:
        self._done.append((job, ok, value))
        with self._lock:
            if self._signalled:
                return
            self._signalled = True
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            # The loop is closed: there is nobody left to tell.
            self._done.clear()

    def _drain(self) -> None:
        with self._lock:
            self._signalled = False
        done = self._done
        while done:
            job, ok, value = done.popleft()
            if not job.future.done():
                job.future.set_result((ok, value))


class Invoker:
    """Calls functions for the steps of one event loop.

    Args:
        threads: The most sync functions that run at once.
        processes: The most processes for `run_in="process"`.
    """

    def __init__(self, *, threads: int, processes: int, name: str = "sayiir-task") -> None:
        self._threads = threads
        self._processes = processes
        self._name = name
        self._thread_pool: ThreadPool | None = None
        self._process_pool: ProcessPool | None = None

    async def call(self, step: Step) -> Any:
        """Run a step's function where its task says; returns its value or raises its error.

        Raises:
            TaskTimeout: The attempt ran out of time.
        """
        mode = step.mode
        if mode == MODE_INLINE:
            value = self._inline(step)
        elif mode == MODE_THREAD:
            value = await self._in_thread(step, step.fn, step.input)
        elif mode == MODE_PROCESS:
            value = await self._in_process(step)
        else:
            return await self._bounded(step, step.fn(step.input))
        if isinstance(value, types.CoroutineType):
            # `lambda x: fetch(x)` around an async def: meant to be awaited.
            return await self._bounded(step, value)
        return value

    def _inline(self, step: Step) -> Any:
        """Nothing can interrupt it; what it returns too late is discarded, as a thread's is."""
        began = _clock.monotonic()
        value = step.fn(step.input)
        if step.timeout is not None and _clock.monotonic() - began > step.timeout:
            if isinstance(value, types.CoroutineType):
                value.close()
            raise timeout_error(step)
        return value

    async def _bounded(self, step: Step, awaitable: Any) -> Any:
        if step.timeout is None:
            return await awaitable
        limit = asyncio.timeout(step.timeout)
        try:
            async with limit:
                return await awaitable
        except TimeoutError as error:
            if limit.expired():
                raise timeout_error(step) from error
            raise

    async def _in_thread(
        self, step: Step, fn: Callable[..., Any], argument: Any, *, told_start: bool = False
    ) -> Any:
        loop = asyncio.get_running_loop()
        pool = self._thread_pool
        if pool is None:
            pool = self._thread_pool = ThreadPool(self._threads, loop, self._name)
        job = pool.submit(fn, argument, told_start)
        timer = None
        if step.timeout is not None:
            timer = loop.call_later(step.timeout, self._check, loop, job, step.timeout)
            timers = [timer]
            job.future.add_done_callback(lambda _: timers[0].cancel())
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            step.cancel()
            pool.abandon(job)
            raise
        if outcome is None:
            step.cancel()
            pool.abandon(job)
            raise timeout_error(step)
        ok, value = outcome
        if ok:
            return value
        raise value

    def _check(self, loop: asyncio.AbstractEventLoop, job: Job, timeout: float) -> None:
        """At a deadline: give up, or come back when the time since the start is really over."""
        if job.future.done():
            return
        started = job.started
        left = timeout if started is None else started + timeout - _clock.monotonic()
        if left > 0.001:
            loop.call_later(left, self._check, loop, job, timeout)
        else:
            job.future.set_result(None)

    async def _in_process(self, step: Step) -> Any:
        pool = self._process_pool
        if pool is None:
            # Not before it is needed: it brings the whole of multiprocessing with it.
            from ._process import ProcessPool

            pool = self._process_pool = ProcessPool(self._processes)
        lane = await pool.acquire()
        try:
            # The thread only carries bytes to and from the process; killing that ends it.
            return await self._in_thread(step, lane.call, step, told_start=True)
        except (asyncio.CancelledError, TaskTimeout):
            lane.retire()
            raise
        finally:
            pool.release(lane)

    def close(self) -> None:
        """Let threads and processes go. Threads inside user code end with it."""
        if self._thread_pool is not None:
            self._thread_pool.close()
        if self._process_pool is not None:
            self._process_pool.close()
