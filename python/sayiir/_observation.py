"""What is seen of running steps, for metrics and traces.

The runner asks an `Observation` for a view of each instance that it drives, and each of its
coroutines for a view of its own, which stands in for two of its calls: setting the current step,
and reporting a completed one. Where nobody observes there is no view, and steps take the way they
always took. What is done with the figures is known to `_metrics` and `_tracing` alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from . import _clock
from ._context import current
from ._logging import fields_about
from ._tracing import Tracing, tracing_here

if TYPE_CHECKING:
    from ._core import Run, Step, Turn
    from ._metrics import WorkerMetrics
    from ._tracing import SpanOfDrive
    from .backends import Backend

__all__ = ["DriveView", "Observation", "StrandView", "observation_of"]

_log = logging.getLogger("sayiir.worker")


def observation_of(
    backend: Backend, worker_id: str, metrics: WorkerMetrics | None, tracing: bool | None
) -> Observation | None:
    """Who observes, if anybody does.

    Args:
        backend: Where instances live.
        worker_id: Who runs the steps.
        metrics: Where figures go.
        tracing: Whether to make spans; `None`: if the program has set a tracer provider.

    Raises:
        ImportError: Spans are asked for and OpenTelemetry is not installed.
    """
    spans = None if tracing is False else tracing_here()
    if spans is None and tracing:
        spans = Tracing()
    if spans is None and metrics is None:
        return None
    return Observation(backend, worker_id, metrics, spans)


class Observation:
    """Who observes the steps of one event loop."""

    def __init__(
        self,
        backend: Backend,
        worker_id: str,
        metrics: WorkerMetrics | None,
        tracing: Tracing | None,
    ) -> None:
        self._backend = backend
        self._worker_id = worker_id
        self.metrics = metrics
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._answered = 0

    async def opened(self, run: Run) -> DriveView:
        """The view of an instance that begins to be driven."""
        span = None
        if self._tracing is not None:
            try:
                span = await self._tracing.opened(run, self._backend, self._worker_id)
            except Exception:
                _say_it_failed(run)
        return DriveView(self, run, span)

    def answered(self) -> None:
        """A checkpoint was answered.

        Those of one transaction are answered within one turn of the loop, so the turn's sum is the
        size of the batch.
        """
        if self._answered == 0:
            self._loop.call_soon(self._settle)
        self._answered += 1

    def _settle(self) -> None:
        count, self._answered = self._answered, 0
        if self.metrics is not None:
            self.metrics._committed(count)


def _say_it_failed(run: Run) -> None:
    """What observes must not stop what is observed: processors of spans are user code."""
    _log.exception(
        "instance %r could not be traced; it goes on without",
        run.instance_id,
        extra=fields_about(run.instance_id, run.program.name),
    )


class DriveView:
    """What is seen of one instance while it is driven."""

    __slots__ = ("_observation", "_run", "span")

    def __init__(self, observation: Observation, run: Run, span: SpanOfDrive | None) -> None:
        self._observation = observation
        self._run = run
        self.span = span

    def strand(self) -> StrandView:
        """The view of one more coroutine that runs steps of it."""
        return StrandView(self._run, self.span, self._observation.metrics)

    def replied(self, reply: tuple[str, Any] | None, now: float) -> Step | Turn | int:
        """Stands in for `Run.replied`."""
        self._observation.answered()
        return self._run.replied(reply, now)

    def close(self, state: str) -> None:
        """It is driven no more, and is in this state."""
        if self.span is not None:
            try:
                self.span.close(state)
            except Exception:
                _say_it_failed(self._run)
        if self._observation.metrics is not None:
            self._observation.metrics._drive_ended(self._run.program.name, state)


class StrandView:
    """What is seen of one coroutine, which runs one step after the other."""

    __slots__ = ("_begun", "_metrics", "_run", "_span", "_started", "_step")

    def __init__(self, run: Run, span: SpanOfDrive | None, metrics: WorkerMetrics | None) -> None:
        self._run = run
        self._span = span
        self._metrics = metrics
        self._step: Step | None = None
        self._begun: Any = None
        self._started = 0.0

    def enter(self, step: Step) -> None:
        """Stands in for `current.set`: the step begins."""
        current.set(step)
        self._step = step
        if self._span is not None:
            try:
                self._begun = self._span.begin(step)
            except Exception:
                _say_it_failed(self._run)
        self._started = _clock.monotonic()

    def completed(self, step: Step, value: object, now: float) -> Step | Turn | int:
        """Stands in for `Run.completed`; a value that cannot be stored is a failure yet to come."""
        seconds = _clock.monotonic() - self._started
        answer = self._run.completed(step, value, now)
        self._end("completed", None, seconds)
        return answer

    def failed(self, error: BaseException, retryable: bool) -> None:
        """The step failed; it is tried again if the error allows it and attempts are left."""
        step = self._step
        if step is not None:
            again = retryable and step.attempt <= step.task.max_retries
            self._end("retried" if again else "failed", error)

    def interrupted(self) -> None:
        """The step was stopped, and counts as not run."""
        self._end("interrupted", None)

    def _end(self, outcome: str, error: BaseException | None, seconds: float | None = None) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        if seconds is None:
            seconds = _clock.monotonic() - self._started
        begun, self._begun = self._begun, None
        if self._span is not None and begun is not None:
            try:
                self._span.end(begun, outcome, error)
            except Exception:
                _say_it_failed(self._run)
        if self._metrics is not None:
            self._metrics._step_ended(step, outcome, seconds)
