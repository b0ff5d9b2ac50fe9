"""The worker: claims ready instances and drives them until it is told to stop.

A worker has `concurrency` slots; each claims an instance, drives it, and claims the next, so
nothing is handed around between them. A slot that finds nothing waits for a hint (`Backend.listen`)
or for the poller, which wakes slots at the next timer and otherwise once per poll interval: hints
may be lost, polls find everything.

What it promises:

* Leases are renewed apart from the loop (`_leases`), so a step may take as long as it likes.
* Stopping is graceful: nothing new is claimed or started, running steps may end within `grace`,
then
  they are cancelled, and everything still held is given back.
* What it cannot do (another definition, other tags) it never claims, and it says so in the log.

The worker does not know how functions are called (`_invoke`) nor how an instance goes on
(`_runner`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from ._codec import at_rest_of
from ._core import Claim, Claimant, Run
from ._duration import Duration, parse_duration
from ._errors import SnapshotFormatError
from ._invoke import Invoker, default_processes
from ._leases import keep_leases
from ._logging import fields_about
from ._metrics import WorkerMetrics
from ._observation import observation_of
from ._policy import check_name, whole_number
from ._runner import Runner
from ._tracing import Tracing
from ._watchdog import Watchdog
from ._workflow import Workflow
from .backends import Backend, InMemoryBackend, StorageBackend
from .backends._view import holder_name, worker_name

__all__ = ["Worker", "take_up"]

_Begun = tuple[asyncio.AbstractEventLoop, asyncio.Event] | BaseException

_log = logging.getLogger("sayiir.worker")

MAX_CONCURRENCY = 100_000
MOST_CLAIMS = 2
"""How many claims of a worker are under way at once: one in the batch that is being written, and
one that goes out with the next, so that slots which became free can be given what that submits."""
MAX_WORKER_ID_BYTES = 240


class Worker:
    """Runs the tasks of instances that clients submit.

    Use it as `async with Worker(backend, [workflow]):`, or as a program with `await worker.run()`
    (until SIGTERM or SIGINT), or on a thread of its own with `worker.start()` and `worker.stop()`.

    Args:
        backend: Where the instances are.
        workflows: What it can do: a workflow or several.
        worker_id: Its name in histories; by default made of host, process and
            a random part.
        concurrency: How many instances it advances at once, how many steps of one instance, and how
            many sync tasks (threads).
        tags: What it offers. It takes only steps whose tags are among these; without tags it takes
            every step.
        lease_ttl: After how long without a sign of life its instances go to another worker.
        poll_interval: How often it looks for work that no hint told of.
        grace: How long running steps may go on after it was told to stop.
        processes: The most processes for tasks marked `run_in="process"`; by default one per core.
        metrics: Where it counts what it does, for Prometheus.
        tracing: Whether it makes spans of OpenTelemetry. By default it does if the program has set
            a tracer provider by the time it begins to work.

    Raises:
        ImportError: `tracing=True`, and OpenTelemetry is not installed.
        TypeError: The backend or a workflow is something else.
        ValueError: A number, duration, tag or id is out of range, or there is no workflow.

    >>> import asyncio
    >>> from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
    >>> greet = Flow("greet").then(lambda name: f"hello {name}").build()
    >>> async def main():
    ...     backend = InMemoryBackend()
    ...     async with Worker(backend, [greet], concurrency=4):
    ...         handle = await WorkflowClient(backend).submit(greet, input="world")
    ...         return await handle.result()
    >>> asyncio.run(main())
    'hello world'
    """

    def __init__(
        self,
        backend: Backend,
        workflows: Workflow[Any, Any] | Iterable[Workflow[Any, Any]],
        *,
        worker_id: str | None = None,
        concurrency: int = 16,
        tags: Iterable[str] = (),
        lease_ttl: Duration = "30s",
        poll_interval: Duration = "1s",
        grace: Duration = "30s",
        processes: int | None = None,
        metrics: WorkerMetrics | None = None,
        tracing: bool | None = None,
    ) -> None:
        if not isinstance(backend, Backend):
            raise TypeError(
                f"backend must be a backend such as InMemoryBackend(), got "
                f"{type(backend).__name__}; the order is Worker(backend, workflows)"
            )
        self.backend = backend
        self.workflows: tuple[Workflow[Any, Any], ...] = _workflows(workflows)
        if isinstance(tags, str):
            raise TypeError("tags must be a list of str, got a single str")
        if not isinstance(tags, Iterable):
            raise TypeError(f"tags must be a list of str, got {type(tags).__name__}")
        tags = list(tags)
        for tag in tags:
            if not isinstance(tag, str):
                raise TypeError(f"tags must be str, got {type(tag).__name__}")
        self.concurrency: int = whole_number("concurrency", concurrency, 1, MAX_CONCURRENCY)
        self.poll_interval: float = parse_duration(
            poll_interval, name="poll_interval", allow_zero=False
        )
        self.grace: float = parse_duration(grace, name="grace", allow_zero=True)
        self._processes = (
            default_processes()
            if processes is None
            else whole_number("processes", processes, 1, MAX_CONCURRENCY)
        )
        self.worker_id: str = _default_id() if worker_id is None else _checked_id(worker_id)
        """Its name in histories."""
        self._claimant = Claimant(
            holder_name(self.worker_id),
            [workflow.program for workflow in self.workflows],
            tags=tags,
            lease_ttl=parse_duration(lease_ttl, name="lease_ttl", allow_zero=False),
            width=self.concurrency,
        )
        if metrics is not None and not isinstance(metrics, WorkerMetrics):
            raise TypeError(
                f"metrics must be a WorkerMetrics, such as WorkerMetrics(), got "
                f"{type(metrics).__name__}"
            )
        if tracing is not None and not isinstance(tracing, bool):
            raise TypeError(f"tracing must be True, False or None, got {type(tracing).__name__}")
        if tracing:
            # What is missing is said now, and not when it begins to work.
            Tracing()
        self.metrics = metrics
        """Where it counts what it does, if anywhere."""
        self._tracing = tracing
        # With a codec checkpoints have to leave Rust's memory, to be turned into what is stored.
        self._native = (
            backend if isinstance(backend, InMemoryBackend) and backend.codec is None else None
        )
        self._engine: _Engine | None = None
        self._thread: threading.Thread | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """What it offers; nothing means everything."""
        return tuple(self._claimant.tags or ())

    @property
    def running(self) -> bool:
        """Whether it takes instances; no longer once it was told to stop."""
        return self._engine is not None

    def __repr__(self) -> str:
        names = ", ".join(workflow.workflow_id for workflow in self.workflows)
        state = "running" if self.running else "stopped"
        return f"<Worker {self.worker_id!r} {state}, for {names}>"

    # On the caller's loop.

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise RuntimeError(f"worker {self.worker_id!r} is already running")
        self._engine = _Engine(self)
        self._engine.begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop gracefully: start nothing new, let running steps end, give everything back."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop(self.grace)

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

        Signals are only taken on the main thread; elsewhere it works until it is cancelled.
        """
        loop = asyncio.get_running_loop()
        drain, force = asyncio.Event(), asyncio.Event()

        def ask() -> None:
            if drain.is_set():
                _log.warning("worker %s: second signal, stopping at once", self.worker_id)
                force.set()
            drain.set()

        signals = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, ask)
                signals.append(number)
        try:
            # The handlers stay while it stops, for the second signal.
            await self.run_until(drain, force)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def run_until(self, drain: asyncio.Event, force: asyncio.Event) -> bool:
        """Work until `drain` is set, then stop gracefully, or at once when `force` is set too.

        Returns:
            Whether everything drained: no running step was cut short.
        """
        async with self:
            engine = self._engine
            assert engine is not None
            loop = asyncio.get_running_loop()
            broken = loop.create_task(engine.broken())
            asked = loop.create_task(drain.wait())
            forced = loop.create_task(force.wait())
            forced.add_done_callback(lambda done: None if done.cancelled() else engine.force())
            try:
                await asyncio.wait({broken, asked, forced}, return_when=asyncio.FIRST_COMPLETED)
                if broken.done():
                    broken.result()
                await self.aclose()
            finally:
                for waiting in (broken, asked, forced):
                    waiting.cancel()
            return not engine.cut_short

    # On a thread of its own.

    def start(self) -> Self:
        """Work on a thread of its own until `stop()`; returns once it is working.

        Raises:
            RuntimeError: It is already running.
        """
        if self._engine is not None or self._thread is not None:
            raise RuntimeError(f"worker {self.worker_id!r} is already running")
        ready: queue.SimpleQueue[_Begun] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name=f"sayiir-worker-{self.worker_id}", daemon=True
        )
        self._thread.start()
        begun = ready.get()
        if isinstance(begun, BaseException):
            self._thread.join()
            self._thread = None
            raise begun
        self._thread_loop, self._thread_stop = begun
        return self

    def _serve(self, ready: queue.SimpleQueue[_Begun]) -> None:
        async def serve() -> None:
            stop = asyncio.Event()
            async with self:
                ready.put((asyncio.get_running_loop(), stop))
                await stop.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            # Whoever waits in start() gets it; later there is only the log.
            ready.put(error)
            _log.exception("worker %s: its thread has ended", self.worker_id)

    def stop(self, timeout: Duration | None = None) -> None:
        """Stop gracefully what `start()` began, and wait for it.

        Args:
            timeout: Wait no longer than this; the thread goes on stopping by itself.

        Raises:
            TimeoutError: It has not stopped in time.
        """
        thread, loop = self._thread, self._thread_loop
        if thread is None or loop is None:
            return
        with contextlib.suppress(RuntimeError):  # The loop has ended by itself.
            loop.call_soon_threadsafe(self._thread_stop.set)
        thread.join(None if timeout is None else parse_duration(timeout, name="timeout"))
        if thread.is_alive():
            raise TimeoutError(f"worker {self.worker_id!r} has not stopped yet; steps are running")
        self._thread = self._thread_loop = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Engine:
    """A worker at work on one event loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._claimant = worker._claimant
        self._backend = worker.backend
        self._native = worker._native
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._invoker = Invoker(threads=worker.concurrency, processes=worker._processes)
        self._runner = Runner(
            self._backend,
            self._invoker,
            worker_only=True,
            native=self._native,
            observation=observation_of(
                self._backend, worker.worker_id, worker.metrics, worker._tracing
            ),
        )
        self._idle: deque[asyncio.Future[None]] = deque()
        self._hungry: deque[asyncio.Future[Claim | None]] = deque()
        """Slots that ask for an instance."""
        self._feeding = False
        """A claim for them is about to be made."""
        # Claims are numbered, and so is what was told of on this thread; with each of that stands
        # the last claim that was made by then. Then what claims brought in this turn.
        self._claims = 0
        self._feeders: dict[int, asyncio.Task[None]] = {}
        self._offered: dict[int, tuple[str, int]] = {}
        self._offers = 0
        self._brought: set[str] = set()
        self._sorting = False
        self._slots: set[asyncio.Task[None]] = set()
        self._hints = 0
        """How many hints were heard; one between a claim and going to rest must not be lost."""
        self._pending = 0
        """About how much work the hints told of that nobody has claimed yet."""
        self._waking = False
        """A slot was woken and has not run yet."""
        self._stopping = False
        self._forced = asyncio.Event()
        self.cut_short = False
        """Whether running steps were cancelled when it stopped."""
        self._poke = asyncio.Event()
        self._next_timer: float | None = None
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._told: set[str] = set()
        self._told_holders = False
        self._left: list[tuple[str, int]] = []
        self._stop_listening: Callable[[], None] = lambda: None
        self._stop_leases: Callable[[], None] = lambda: None
        self._watchdog: Watchdog | None = None
        self._poller: asyncio.Task[None] | None = None
        self._measurer: asyncio.Task[None] | None = None
        self._stop_metrics: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Start everything that a worker has."""
        self._stop_leases = keep_leases(self._backend, self._claimant, self._news_from_any_thread)
        self._stop_listening = self._backend.listen(self._hear)
        self._watchdog = Watchdog()
        self._watchdog.start()
        self._poller = self._loop.create_task(self._poll())
        if (metrics := self._worker.metrics) is not None:
            active = self._runner.active
            self._stop_metrics = metrics._begin(
                self._worker.worker_id,
                [workflow.workflow_id for workflow in self._worker.workflows],
                self._worker.concurrency,
                lambda: len(active),
            )
            self._measurer = self._loop.create_task(self._measure(metrics))
        for _ in range(self._worker.concurrency):
            self._open_slot()
            if self._worker.concurrency > 64:
                # More slots are opened when there is work for them.
                break

    def _open_slot(self) -> None:
        slot = self._loop.create_task(self._slot())
        self._slots.add(slot)
        slot.add_done_callback(self._slot_ended)

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if self._stopping or slot.cancelled() or (error := slot.exception()) is None:
            return
        if not self._failure.done():
            self._failure.set_exception(error)

    async def broken(self) -> None:
        """Wait for an error that ends the worker; raises it."""
        await asyncio.shield(self._failure)

    # Claiming.

    async def _slot(self) -> None:
        native = self._native
        while not self._stopping:
            seen = self._hints
            run = None
            try:
                if native is not None:
                    run = native.store.claim_run(self._claimant, native.clock())
                else:
                    run = await self._claim()
                if run is not None and not self._stopping:
                    self._pending = max(self._pending - 1, 0)
                    if self._pending > 0 and not self._waking:
                        self._wake_next()
                    if not self._idle and len(self._slots) < self._worker.concurrency:
                        self._open_slot()
                    await self._drive(run)
                    continue
            except Exception:
                _log.exception(
                    "worker %s: the backend is in trouble; looking again in %g s",
                    self._worker.worker_id,
                    self._worker.poll_interval,
                    extra=None if run is None else _about(run),
                )
                await asyncio.sleep(self._worker.poll_interval)
                continue
            if seen == self._hints and not self._stopping:
                self._pending = 0
                if native is not None:
                    self._note_timer(native.store.next_wake())
                else:
                    self._poke.set()
                await self._rest()

    async def _drive(self, run: Run) -> None:
        try:
            driven = await self._runner.drive(run)
        except SnapshotFormatError as error:
            # Damaged in a way that only its commit met; given back, it would come again for ever.
            _log.error(
                "worker %s: instance %r is set aside: %s",
                self._worker.worker_id,
                run.instance_id,
                error,
                extra=_about(run),
            )
            try:
                await self._backend.commit((run.set_aside(str(error)),))
            except Exception:
                await self._leave(run.instance_id, run.fence)
                raise
            return
        except Exception:
            await self._leave(run.instance_id, run.fence)
            raise
        if driven.state == "parked":
            self._note_timer(driven.wake_at)

    async def _claim(self) -> Run | None:
        """The next instance for one slot; slots that ask in one turn of the loop share one call."""
        waiter: asyncio.Future[Claim | None] = self._loop.create_future()
        self._hungry.append(waiter)
        self._feed_soon()
        try:
            claim = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and (given := waiter.result()) is not None:
                await self._leave(given.instance_id, given.fence)
            raise
        if claim is None:
            return None
        try:
            return await take_up(self._backend, self._claimant, claim)
        except Exception:
            await self._leave(claim.instance_id, claim.fence)
            raise

    def _feed_soon(self) -> None:
        if not self._feeding and len(self._feeders) < MOST_CLAIMS:
            self._feeding = True
            self._loop.call_soon(self._feed_hungry)

    def _feed_hungry(self) -> None:
        self._feeding = False
        if self._hungry:
            self._claims += 1
            asking = list(self._hungry)
            self._hungry.clear()
            feeder = self._feed(self._claims, asking)
            self._feeders[self._claims] = self._loop.create_task(feeder)

    async def _feed(self, number: int, asking: list[asyncio.Future[Claim | None]]) -> None:
        """Make one claim, for all slots that ask."""
        told = self._offers
        claims: deque[Claim] = deque()
        try:
            claims.extend(await self._backend.claim(self._claimant, len(asking)))
        except Exception as error:
            for waiter in asking:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        finally:
            del self._feeders[number]
            self._sort_out_soon()
            if self._hungry:
                self._feed_soon()
        self._brought.update(claim.instance_id for claim in claims)
        if len(claims) < len(asking):
            # There was no more, so of what had been told of before nothing is left. A
            # claim that came back full may have brought something else instead.
            for offer in [offer for offer in self._offered if offer <= told]:
                del self._offered[offer]
        for waiter in asking:
            if not waiter.done():
                waiter.set_result(claims.popleft() if claims else None)
        for claim in claims:
            await self._leave(claim.instance_id, claim.fence)

    async def _leave(self, instance_id: str, fence: int) -> None:
        """Give back what cannot be gone on with, instead of renewing its lease for ever."""
        try:
            await self._backend.give_back(instance_id, fence)
        except Exception:
            # The poller tries again.
            self._left.append((instance_id, fence))

    async def _rest(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise
        finally:
            self._waking = False

    def _wake_one(self) -> None:
        """There is one more piece of work. One slot is woken at a time; it wakes the next."""
        self._hints += 1
        self._pending += 1
        if not self._waking or self._native is None:
            # Where a claim is a question to a storage thread, who asks at once asks together.
            self._wake_next()

    def _sort_out_soon(self) -> None:
        if not self._sorting:
            self._sorting = True
            self._loop.call_soon(self._sort_out)

    def _sort_out(self) -> None:
        """Wake slots for work that was told of on this thread, unless a claim has brought it.

        The invariant: what was told of is kept until a claim brought it, or one that was made
        later and had room left did not find it; and as long as anything is kept, a claim that may
        bring it is under way or no slot rests. A claim that went out together with a submit, or
        behind it, finds what that made before anybody is told. So the answers of those under way
        are waited for, which whoever is woken now would have to do as well; and answers that came
        at once are heard before this runs.
        """
        self._sorting = False
        for offer, (about, _) in list(self._offered.items()):
            if about in self._brought:
                del self._offered[offer]
        self._brought.clear()
        if not self._offered:
            return
        # In the order they were made; of those made after it was told none is waited for.
        oldest = next(iter(self._feeders), self._claims + 1)
        ripe = sum(claim < oldest for _, claim in self._offered.values())
        if ripe:
            self._hints += 1
            for _ in range(ripe):
                self._wake_next()

    def _wake_next(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                self._waking = True
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        self._hints += 1
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    def _note_timer(self, wake_at: float | None) -> None:
        if wake_at is not None and (self._next_timer is None or wake_at < self._next_timer):
            self._next_timer = wake_at
            self._poke.set()

    # Hints.

    def _hear(self, kind: str, instance_id: str) -> None:
        here = threading.get_ident() == self._thread_id
        if kind == "work":
            if not here:
                self._call(self._wake_one)
            elif self._native is not None:
                self._wake_one()
            else:
                if len(self._offered) < self._worker.concurrency:
                    # More than there are slots wakes no more slots.
                    self._offers += 1
                    self._offered[self._offers] = instance_id, self._claims
                self._sort_out_soon()
        elif kind == "news":
            if here:
                self._loop.call_soon(self._runner.news, instance_id)
            else:
                self._news_from_any_thread(instance_id)

    def _news_from_any_thread(self, instance_id: str) -> None:
        self._call(self._runner.news, instance_id)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop has closed; a hint is only a hint.
            self._loop.call_soon_threadsafe(function, *args)

    # Polling.

    async def _poll(self) -> None:
        """Wake slots at the next timer, and once per poll interval in any case."""
        interval = self._worker.poll_interval
        backend = self._backend
        seen_due: float | None = None
        while True:
            self._poke.clear()
            try:
                wake_at = await backend.next_wake()
                left = interval if wake_at is None else wake_at - backend.now()
                if left <= 0:
                    # Due: idle slots take it, busy ones look when they are done. No timer is
                    # armed, so whoever goes to rest tells of the next one. A timer that stays due
                    # belongs to work that this worker cannot do, and wakes nobody twice.
                    self._next_timer = None
                    if wake_at != seen_due:
                        seen_due = wake_at
                        self._wake_all()
                    left = interval
                else:
                    self._next_timer = wake_at
                delay = min(left, interval)
                try:
                    async with asyncio.timeout(delay):
                        await self._poke.wait()
                except TimeoutError:
                    if delay == interval:
                        await self._look_around()
            except Exception:
                _log.exception("worker %s could not poll", self._worker.worker_id)
                await asyncio.sleep(interval)

    async def _look_around(self) -> None:
        """Once per poll interval: everything that hints may have missed."""
        self._wake_all()
        while self._left:
            await self._backend.give_back(*self._left[-1])
            self._left.pop()
        await self._say_what_is_left()
        if not self._told_holders:
            await self._say_who_has_work()
            self._told_holders = True

    async def _measure(self, metrics: WorkerMetrics) -> None:
        """Say again and again how much work is waiting."""
        while True:
            try:
                metrics._waiting(await self._backend.backlog())
            except Exception:
                _log.exception(
                    "worker %s could not ask how much work is waiting; its metrics stay as they "
                    "were",
                    self._worker.worker_id,
                )
            await asyncio.sleep(metrics.refresh)

    async def _say_what_is_left(self) -> None:
        """Log, once each, the ready work that nobody with these definitions can do."""
        mine = set(self._claimant.definition_hashes)
        for waiting in await self._backend.backlog():
            if waiting.definition_hash in mine or waiting.definition_hash in self._told:
                continue
            self._told.add(waiting.definition_hash)
            known = any(w.workflow_id == waiting.workflow_id for w in self._worker.workflows)
            _log.warning(
                "worker %s: %d ready instances of workflow %r run definition %s, which it does not "
                "have%s; they wait for a worker that has it",
                self._worker.worker_id,
                waiting.ready,
                waiting.workflow_id,
                waiting.definition_hash[:12],
                " (it has another one of the same name: the structure was changed)"
                if known
                else "",
            )

    async def _say_who_has_work(self) -> None:
        """Log, once soon after the start, whose leases stand between it and its work.

        For who killed a worker, started another one, and wonders why nothing happens.
        """
        mine = set(self._claimant.definition_hashes)
        page = await self._backend.find(status="in_progress", limit=100)
        held = [
            row.worker_id
            for row in page.rows
            if row.definition_hash in mine and row.worker_id is not None
        ]
        if held and self._claimant.worker_id not in held:
            _log.info(
                "worker %s: has nothing to do yet; %d or more instances of its workflows are held "
                "by %s. If that process is dead, its leases run out by themselves, within the "
                "lease_ttl that it was started with",
                self._worker.worker_id,
                len(held),
                ", ".join(sorted({worker_name(holder) for holder in held})[:5]),
            )

    # Stopping.

    def force(self) -> None:
        """Stop now: running steps are cancelled."""
        self._forced.set()

    async def stop(self, grace: float) -> None:
        """Drain, then cancel what still runs, then give everything back."""
        self._stopping = True
        if self._poller is not None:
            self._poller.cancel()
        self._wake_all()
        self._runner.drain()
        if self._slots:
            forced = self._loop.create_task(self._forced.wait())
            drained = self._loop.create_task(_all_done(self._slots))
            await asyncio.wait(
                {forced, drained}, timeout=grace, return_when=asyncio.FIRST_COMPLETED
            )
            forced.cancel()
            if not drained.done():
                _log.warning(
                    "worker %s: %d instances were still running %s; their steps run again "
                    "elsewhere",
                    self._worker.worker_id,
                    len(self._runner.active),
                    "when told to stop at once"
                    if self._forced.is_set()
                    else f"after {grace:g} s of grace",
                )
                self.cut_short = True
                self._runner.closing = True
                for slot in self._slots:
                    slot.cancel()
                await asyncio.wait({drained}, timeout=1.0)
            drained.cancel()
        self._stop_listening()
        # Joining a thread that needs the interpreter must not hold the loop up.
        await asyncio.to_thread(self._stop_leases)
        await self._backend.release(self._claimant.worker_id)
        self._invoker.close()
        if self._measurer is not None:
            self._measurer.cancel()
        self._stop_metrics()
        if self._watchdog is not None:
            self._watchdog.close()
        if not self._failure.done():
            self._failure.cancel()


async def _all_done(tasks: set[asyncio.Task[None]]) -> None:
    while tasks:
        await asyncio.wait(tasks)


def _about(run: Run) -> dict[str, object]:
    return fields_about(run.instance_id, run.program.name)


async def take_up(backend: Backend, claimant: Claimant, claim: Claim) -> Run | None:
    """Make a run of a claim, with the outputs that it needs; `None` for one that is damaged.

    Raises:
        DecodeError: What is stored of it needs another codec, such as a key that is not given.
    """
    if claim.damage is not None:
        _log.error(
            "instance %r is set aside: %s",
            claim.instance_id,
            claim.damage,
            extra={"sayiir_instance": claim.instance_id},
        )
        await backend.commit((claim.set_aside(claim.damage),))
        return None
    codec = at_rest_of(backend)
    if claim.complete:
        if isinstance(backend, StorageBackend):
            port = backend.landing(asyncio.get_running_loop()).port
            return Run.carried(claimant, claim, backend.now(), backend.store, port, codec)
        return Run.carried(claimant, claim, backend.now(), codec=codec)
    seqs = claim.referenced()
    rows = await backend.rows(claim.instance_id, seqs) if seqs else ()
    payload = await backend.input(claim.instance_id)
    return Run(claimant, claim, list(rows), payload, backend.now(), codec)


def _workflows(
    given: Workflow[Any, Any] | Iterable[Workflow[Any, Any]],
) -> tuple[Workflow[Any, Any], ...]:
    candidates = _listed(given)
    workflows = tuple(one for one in candidates if isinstance(one, Workflow))
    for candidate in candidates:
        if not isinstance(candidate, Workflow):
            hint = "; call .build() on it" if hasattr(candidate, "build") else ""
            raise TypeError(
                f"workflows must be built workflows, got {type(candidate).__name__}{hint}"
            )
    if not workflows:
        raise ValueError("workflows must not be empty: a worker without workflows does nothing")
    return workflows


def _listed(given: object) -> tuple[object, ...]:
    return tuple(given) if isinstance(given, Iterable) else (given,)


def _checked_id(worker_id: object) -> str:
    name = check_name("worker_id", worker_id)
    if len(name.encode()) > MAX_WORKER_ID_BYTES:
        raise ValueError(
            f"worker_id is {len(name.encode())} bytes long; the limit is {MAX_WORKER_ID_BYTES}"
        )
    return name


def _default_id() -> str:
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{os.urandom(2).hex()}"
