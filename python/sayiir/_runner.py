"""Drives held instances: calls their steps, reports the outcomes, follows where the engine leads.

One coroutine drives an instance until it parks or ends. Only when an instance has several steps to
run at once do further coroutines come to help it, each going on from step to step as long as there
is one for it, so an asyncio task is never made per step.

What it promises:

* A step starts only when the engine gave it out, which is after the commit that leads to it.
* The outcome of a step that nobody wants any more is dropped; a coroutine doing one is cancelled.
* A pending cancel stops what can be stopped (coroutines, processes), and waits for threads.
* The loop is let go every few hundred microseconds.

It does not decide anything about flows, retries or states: that is the engine's (`Run`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeAlias

from ._codec import describe_error
from ._context import current
from ._core import Run, Step, Turn
from ._errors import EncodeError, InstanceNotFoundError, RetryAfter
from ._invoke import MODE_INLINE, MODE_THREAD, Invoker, RemoteFailure
from .backends import InMemoryBackend, StorageBackend

if TYPE_CHECKING:
    from ._core import Commit
    from ._observation import DriveView, Observation, StrandView
    from .backends import Backend

__all__ = ["Drive", "Runner"]

_Answer: TypeAlias = "Step | Turn | int | Callable[[], Awaitable[Step | Turn | int]] | None"
"""What a further coroutine of an instance goes on from; `None` stands for the news."""

SLICE = 0.0005
"""How long, in seconds, instances may keep the loop to themselves."""


class Strand:
    """One coroutine at work for an instance, and the step it is doing."""

    __slots__ = ("step", "stopped", "task", "view")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.step: Step | None = None
        self.stopped = False
        self.view: StrandView | None = None


class Runner:
    """What all instances driven on one event loop share.

    Args:
        backend: Where commits go.
        invoker: Calls functions.
        worker_only: Whether `SystemExit` and `KeyboardInterrupt` of a task count as its failure;
        else
            they leave the instance as it was and propagate.
        native: The backend, if its checkpoints are made inside the engine.
        observation: Who counts and traces steps, if anybody does.
    """

    def __init__(
        self,
        backend: Backend,
        invoker: Invoker,
        *,
        worker_only: bool,
        native: InMemoryBackend | None = None,
        observation: Observation | None = None,
    ) -> None:
        self.observation = observation
        self.loop = asyncio.get_running_loop()
        self.backend = backend
        self.invoker = invoker
        self.worker_only = worker_only
        self.native = native
        # Where the replies to commits arrive that the engine hands to a storage thread by itself.
        self.landing = backend.landing(self.loop) if isinstance(backend, StorageBackend) else None
        self.hub = backend.hub if isinstance(backend, InMemoryBackend | StorageBackend) else None
        self.now: Callable[[], float] = native.clock if native is not None else backend.now
        self.active: dict[str, Drive] = {}
        self._opening: dict[str, bool] = {}
        """Instances that are about to be driven, and whether there was news of them meanwhile."""
        self.draining = False
        self.until = self.now() + SLICE
        """When the loop is due to be let go; one slice for all that is driven here."""
        self.closing = False
        """Set before the coroutines that drive are cancelled from outside."""

    def drive(self, run: Run) -> Coroutine[Any, Any, Drive]:
        """Advance an instance until it parks, ends or is given back.

        Raises:
            BackendError: A commit could not be made; the lease will run out.
        """
        return Drive(self, run).go()

    async def opened(self, observation: Observation, run: Run) -> tuple[DriveView, bool]:
        """The view of an instance; whether there was news of it while that was made."""
        self._opening[run.instance_id] = False
        try:
            view = await observation.opened(run)
        finally:
            told = self._opening.pop(run.instance_id)
        return view, told

    def news(self, instance_id: str) -> None:
        """An instance driven here should be attended to; on the loop's thread."""
        drive = self.active.get(instance_id)
        if drive is not None:
            drive.attend_soon()
        elif instance_id in self._opening:
            self._opening[instance_id] = True

    def tell(self) -> None:
        """Give the hints about instances that are not driven here, such as items and parents."""
        if self.native is not None:
            self.native.tell()

    def drain(self) -> None:
        """Start nothing new: every instance is given back when its running steps are done."""
        self.draining = True
        for drive in list(self.active.values()):
            drive.drain()


class Drive:
    """One held instance while it is driven."""

    __slots__ = (
        "_called", "_closing", "_finished", "_gathering", "_helpers", "_loop", "_related",
        "_strands", "_surplus", "_timer", "_timer_at", "error", "run", "runner", "state", "view",
        "wake_at",
    )  # fmt: skip

    def __init__(self, runner: Runner, run: Run) -> None:
        self.runner = runner
        self.run = run
        self.state = "held"
        self.wake_at: float | None = None
        self.error: BaseException | None = None
        self.view: DriveView | None = None
        self._loop = runner.loop
        self._strands: list[Strand] = []
        # Handed out by the engine and not begun, and how many coroutines are on their way to them.
        self._surplus: deque[Step] = deque()
        self._called = 0
        self._helpers: set[asyncio.Task[Any]] = set()
        self._finished: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closing: BaseException | None = None
        self._related = run.related
        # Groups of items of which is being asked how they ended.
        self._gathering: set[int] = set()

    async def go(self) -> Drive:
        """Drive it to the end of this lease; raises as `Runner.drive`."""
        runner, run = self.runner, self.run
        told = False
        if runner.observation is not None:
            self.view, told = await runner.opened(runner.observation, run)
            if runner.draining:
                # Nothing of it has begun, and nothing more is to begin.
                self.state = "handed_over"
                self.view.close(self.state)
                await runner.backend.give_back(run.instance_id, run.fence)
                return self
        # Asking without the loop would look for the running one, which is a call to the kernel.
        task = asyncio.current_task(self._loop)
        assert task is not None
        strand = Strand(task)
        self._strands.append(strand)
        runner.active[run.instance_id] = self
        # The first coroutine is the caller's own: its context is given back as it was.
        token = current.set(None)
        try:
            if told:
                self.attend_soon()
            moment = runner.now()
            answer = run.attend(moment) if runner.native is not None else run.begin(moment)
            await self._strand(strand, await self._attend() if answer is None else answer)
            if self.state == "held":
                self._finished = self._loop.create_future()
                await self._finished
            if self._closing is not None:
                raise self._closing
        finally:
            current.reset(token)
            if self._timer is not None:
                self._timer.cancel()
            for helper in self._helpers:
                helper.cancel()
            if runner.active.get(run.instance_id) is self:
                del runner.active[run.instance_id]
            if self.view is not None:
                self.view.close(self.state)
        return self

    # Facts to the engine.

    async def _attend(self) -> Step | Turn | int:
        run, runner = self.run, self.runner
        if runner.native is not None:
            return run.attend(runner.now())
        names = run.awaits()
        news = await runner.backend.news(run.instance_id, run.fence, names)
        return run.attend(
            runner.now(),
            lost=news.lost,
            cancel=news.cancel,
            pause=news.pause,
            events=[(event.seq, event.name, event.payload) for event in news.events],
        )

    async def _strand(self, strand: Strand, answer: Step | Turn | int) -> None:
        """Do one step after the other, as long as the engine has one for this coroutine."""
        runner, run = self.runner, self.run
        landing = runner.landing
        now, call = runner.now, runner.invoker.call
        enter: Callable[[Step], object] = current.set
        completed, replied = run.completed, run.replied
        if self.view is not None:
            strand.view = self.view.strand()
            enter, completed = strand.view.enter, strand.view.completed
            replied = self.view.replied
        cancelling = strand.task.cancelling
        surplus = self._surplus
        while True:
            if type(answer) is Step:
                step = answer
            elif isinstance(answer, int):
                # A commit is on its way; the step that follows starts when it is durable.
                assert landing is not None
                reply = await landing.expect(self._loop, answer)
                answer = replied(reply, now())
                continue
            else:
                following = self._heed(answer)
                if answer.ticket is not None:
                    answer = answer.ticket
                    continue
                if answer.commit is not None:
                    answer = await self._committed(answer.commit)
                    continue
                if following is None:
                    if not surplus:
                        return
                    following = surplus.popleft()
                step = following
            enter(step)
            strand.step = step
            try:
                if step.plain:
                    value = await step.fn(step.input)
                elif step.mode == MODE_INLINE and step.timeout is None:
                    value = step.fn(step.input)
                    if type(value) is CoroutineType:
                        value = await value
                else:
                    value = await call(step)
            except BaseException as error:
                strand.step = None
                outcome = self._raised(strand, step, error)
                if outcome is None:
                    return
                answer, moment = outcome, now()
            else:
                strand.step = None
                if cancelling():
                    # It was to be stopped and returned first, or cancelled the task it runs in.
                    await self._absorb(strand)
                moment = now()
                try:
                    answer = completed(step, value, moment)
                except EncodeError as error:
                    answer = self._failed(strand, step, error, retryable=False)
            if moment > runner.until and type(answer) is not int:
                # Who has a commit to wait for lets the loop go by that.
                await asyncio.sleep(0)
                runner.until = now() + SLICE

    async def _absorb(self, strand: Strand) -> None:
        """Take back a cancellation that a step left behind, unless it is meant for the worker."""
        if self.runner.closing and not strand.stopped:
            return
        if not strand.stopped and not self.runner.worker_only:
            return
        strand.stopped = False
        while strand.task.uncancel():
            pass
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _raised(self, strand: Strand, step: Step, error: BaseException) -> Step | Turn | int | None:
        """What follows from an exception that came out of a step's function."""
        if isinstance(error, asyncio.CancelledError):
            if strand.stopped:
                strand.stopped = False
                strand.task.uncancel()
                return self._interrupted(strand, step)
            if strand.task.cancelling():
                if self.runner.closing or not self.runner.worker_only:
                    # Whoever runs us wants to stop; the lease is given back by them.
                    self._interrupted(strand, step)
                    raise error
                # User code cancelled the task that it runs in.
                while strand.task.uncancel():
                    pass
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not self.runner.worker_only:
            self._interrupted(strand, step)
            self._close(error)
            return None
        return self._failed(strand, step, error)

    def _interrupted(self, strand: Strand, step: Step) -> Step | Turn | int:
        if strand.view is not None:
            strand.view.interrupted()
        return self.run.interrupted(step, self.runner.now())

    def _failed(
        self, strand: Strand, step: Step, error: BaseException, *, retryable: bool | None = None
    ) -> Step | Turn | int:
        if isinstance(error, RemoteFailure):
            text, allowed, retry_after = error.text, error.retryable, error.retry_after
        else:
            text = describe_error(error)
            allowed = step.task.is_retryable(error) if retryable is None else retryable
            retry_after = error.seconds if isinstance(error, RetryAfter) else None
        self.error = error
        if strand.view is not None:
            strand.view.failed(error, allowed)
        message = (
            text.message if text.error_type != "TaskTimeout" else getattr(error, "message", "")
        )
        return self.run.failed(
            step,
            text.error_type,
            message,
            text.traceback,
            text.causes,
            allowed,
            retry_after,
            random.random(),
            self.runner.now(),
        )

    # What the engine answers.

    def _heed(self, turn: Turn) -> Step | None:
        """Do what a turn asks for, but for its commit; the step that the caller should go on with.

        What depends on a commit that is still to be made follows from the answer to that.
        """
        if self._related:
            self.runner.tell()
        if turn.gather:
            self._gather(turn.gather)
        if turn.abandoned:
            self._stop(set(turn.abandoned))
        if turn.cancel and turn.state == "held":
            self._stop(None)
        steps = turn.steps
        if turn.ticket is not None or turn.commit is not None:
            self._surplus.extend(steps)
            self._call_help()
            return None
        self._note(turn)
        if not steps:
            return None
        self._surplus.extend(steps[1:])
        self._call_help()
        return steps[0]

    async def _committed(self, commit: Commit) -> Step | Turn | int:
        """What follows from a commit that the backend has to make."""
        (reply,) = await self.runner.backend.commit((commit,))
        return self.run.committed(
            reply.kind,
            [(event.seq, event.name, event.payload) for event in reply.events],
            self.runner.now(),
        )

    def _gather(self, groups: list[int]) -> None:
        """Find out how the items of these groups ended, unless that is under way."""
        fresh = [group for group in groups if group not in self._gathering]
        if fresh:
            self._gathering.update(fresh)
            self._spawn(partial(self._gathered, fresh))

    async def _gathered(self, groups: list[int]) -> Step | Turn | int:
        items, run = self.runner.backend.items, self.run
        try:
            ends = [(group, list(await items(run.instance_id, group))) for group in groups]
        except InstanceNotFoundError:
            # It was deleted, and the lease with it.
            return run.attend(self.runner.now(), lost=True)
        self._gathering.difference_update(groups)
        return run.gathered(ends, self.runner.now())

    def _note(self, turn: Turn) -> None:
        """Take note of where the instance stands, and set the timer it needs."""
        state = turn.state
        if state == "held":
            wake_at = turn.wake_at
            if wake_at is not None and (self._timer is None or wake_at < self._timer_at):
                if self._timer is not None:
                    self._timer.cancel()
                delay = max(wake_at - self.runner.now(), 0.0)
                self._timer_at = wake_at
                self._timer = self._loop.call_later(delay, self._timer_fired)
            return
        if self.state != "held":
            return
        self.state = state
        self.wake_at = turn.wake_at
        hub, run = self.runner.hub, self.run
        if hub is not None:
            if state == "completed":
                hub.completed(run.instance_id, run.output)
            elif state in ("failed", "cancelled"):
                hub.tell("ended", run.instance_id)
            elif state in ("handed_over", "parked"):
                hub.tell("work", run.instance_id)
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _timer_fired(self) -> None:
        self._timer = None
        self.attend_soon()

    def _call_help(self) -> None:
        """Let further coroutines come for the surplus, two at a time; each of them calls more.

        So what does not suspend is done by the coroutines at work, without a task for each step,
        and what does suspend has everybody at it after a few turns of the loop.
        """
        while self._called < min(2, len(self._surplus)):
            self._called += 1
            self._spawn(None, spare=True)

    def _spawn(self, answer: _Answer, *, spare: bool = False) -> None:
        """Let another coroutine go on from `answer`, from the surplus, or from the news."""
        task = self._loop.create_task(self._helper(answer, spare))
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _helper(self, answer: _Answer, spare: bool) -> None:
        if spare:
            self._called -= 1
            if not self._surplus:
                return
            answer = self._surplus.popleft()
            self._call_help()
        task = asyncio.current_task(self._loop)
        assert task is not None
        strand = Strand(task)
        self._strands.append(strand)
        try:
            if answer is None:
                answer = await self._attend()
            elif callable(answer):
                answer = await answer()
            await self._strand(strand, answer)
        except asyncio.CancelledError:
            if not task.cancelling():
                raise
        except BaseException as error:
            self._close(error)
        finally:
            self._strands.remove(strand)

    def _close(self, error: BaseException) -> None:
        """Something that is not a task's failure came up: stop, and let `go` raise it."""
        if self._closing is None:
            self._closing = error
        self._surplus.clear()
        if self.state == "held":
            self.state = "broken"
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _stop(self, tickets: set[int] | None) -> None:
        """Stop running steps: these, unwanted; or with `None` all that can be, for a cancel."""
        if tickets is None:
            self._unstart()
        elif self._surplus:
            wanted = [step for step in self._surplus if step.ticket not in tickets]
            self._surplus.clear()
            self._surplus.extend(wanted)
        for strand in self._strands:
            step = strand.step
            if step is None or strand.stopped:
                continue
            if tickets is None:
                step.cancel()
                if step.mode == MODE_THREAD:
                    continue
            elif step.ticket not in tickets:
                continue
            if strand.task is not asyncio.current_task(self._loop):
                strand.stopped = True
                strand.task.cancel()

    def _unstart(self) -> None:
        """Give back the steps that were handed out and that nobody has begun."""
        while self._surplus:
            step = self._surplus.popleft()
            self._spawn(self.run.interrupted(step, self.runner.now()))

    # From outside, on the loop's thread.

    def attend_soon(self) -> None:
        """Look for news: events, a pending cancel or pause, timers that are due."""
        if self.state == "held":
            self._spawn(None)

    def drain(self) -> None:
        """Start nothing new and give the instance back when the running steps are done."""
        if self.state == "held":
            self._spawn(self.run.drain(self.runner.now()))
            self._unstart()
