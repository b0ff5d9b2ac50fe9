"""What a worker tells Prometheus.

Promises that nothing has a label per instance, so that the number of time series depends on how
many workflows and tasks there are and not on how much they do; and that `prometheus-client` is
imported only when somebody makes a `WorkerMetrics`. It counts what it is told: it does not know how
steps run, nor who asks for the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ._duration import Duration, parse_duration

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from ._core import Step
    from .backends import Backlog

__all__ = ["WorkerMetrics"]

STEP_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
"""Seconds. Steps are anything from a sum to a download of half an hour."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_made: WeakKeyDictionary[Any, _Series] = WeakKeyDictionary()
"""The series of each registry, which can be registered only once."""


class WorkerMetrics:
    """The figures of workers, in a registry of `prometheus-client`; give it to `Worker(metrics=)`.

    Any number of workers may share one, and several made for one registry are the same series.
    What the series are and what they mean is in "Observing".

    Args:
        registry: Where the series are registered; by default the library's own, which is what
            its `start_http_server` and `make_asgi_app` serve.
        refresh: How often each worker asks its backend how much work is waiting.

    Raises:
        ImportError: `prometheus-client` is not installed; `pip install "sayiir[prometheus]"`.
        ValueError: `refresh` is not a positive duration, or the registry has series of
            these names already, made by somebody else.

    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from sayiir import Flow, InMemoryBackend, Worker
    >>> registry = CollectorRegistry()
    >>> flow = Flow("nothing").then(lambda: None).build()
    >>> worker = Worker(InMemoryBackend(), flow, metrics=WorkerMetrics(registry))
    >>> b"sayiir_step_duration_seconds" in generate_latest(registry)
    True
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, refresh: Duration = "5s"
    ) -> None:
        self.refresh: float = parse_duration(refresh, name="refresh", allow_zero=False)
        """How often, in seconds, each worker asks how much work is waiting."""
        try:
            import prometheus_client
        except ImportError as missing:
            raise ImportError(
                "WorkerMetrics needs the package prometheus-client, which is not installed; "
                'pip install "sayiir[prometheus]"'
            ) from missing
        if registry is None:
            registry = prometheus_client.REGISTRY
        elif not isinstance(registry, prometheus_client.CollectorRegistry):
            raise TypeError(
                "registry must be a prometheus_client.CollectorRegistry, got "
                f"{type(registry).__name__}"
            )
        self.registry: CollectorRegistry = registry
        """Where the series are."""
        series = _made.get(registry)
        if series is None:
            series = _made[registry] = _Series(registry)
        self._series = series

    def __repr__(self) -> str:
        return f"<WorkerMetrics, refreshed every {self.refresh:g} s>"

    # Told by the engine, on the event loops of workers.

    def _begin(
        self, worker_id: str, workflow_ids: Iterable[str], slots: int, busy: Callable[[], int]
    ) -> Callable[[], None]:
        """A worker begins to work; what comes back says that it has ended."""
        series = self._series
        series.known.update(workflow_ids)
        series.slots.labels(worker_id).set(slots)
        series.busy.labels(worker_id).set_function(busy)

        def end() -> None:
            for gauge in (series.slots, series.busy):
                # Another worker of the same name may have been first.
                with suppress(KeyError):
                    gauge.remove(worker_id)

        return end

    def _step_ended(self, step: Step, outcome: str, seconds: float) -> None:
        series, task = self._series, step.task.name
        key = step.workflow_id, task, outcome
        observe = series.observers.get(key)
        if observe is None:
            observe = series.observers[key] = series.steps.labels(*key).observe
        observe(seconds)
        if outcome == "retried":
            series.retries.labels(*key[:2]).inc()

    def _drive_ended(self, workflow_id: str, state: str) -> None:
        if state in ("completed", "failed", "cancelled"):
            self._series.ended.labels(workflow_id, state).inc()
        elif state == "lost":
            self._series.lost.labels(workflow_id).inc()

    def _committed(self, count: int) -> None:
        self._series.batches.observe(count)

    def _waiting(self, backlog: Iterable[Backlog]) -> None:
        """How much is ready now, of everything."""
        series = self._series
        # What was there before stays as a series, with nothing in it: a gap would hide that it was.
        waiting = dict.fromkeys(series.known, (0, 0.0))
        for one in backlog:
            ready, age = waiting.get(one.workflow_id, (0, 0.0))
            waiting[one.workflow_id] = (ready + one.ready, max(age, one.age))
        for name, (ready, age) in waiting.items():
            series.depth.labels(name).set(ready)
            series.age.labels(name).set(age)
        series.known.update(waiting)


class _Series:
    """What is registered in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        try:
            self.steps: Histogram = Histogram(
                "sayiir_step_duration_seconds",
                "How long attempts of steps took, by how they ended.",
                ("workflow", "task", "outcome"),
                buckets=STEP_BUCKETS,
                registry=registry,
            )
        except ValueError as failure:
            raise ValueError(
                "this registry has series of our names already that are not ours; give "
                "WorkerMetrics(registry=…) another registry"
            ) from failure
        self.retries: Counter = Counter(
            "sayiir_retries",
            "Attempts that failed and will be made again.",
            ("workflow", "task"),
            registry=registry,
        )
        self.ended: Counter = Counter(
            "sayiir_instances_ended",
            "Instances that ended while a worker of this process held them.",
            ("workflow", "status"),
            registry=registry,
        )
        self.lost: Counter = Counter(
            "sayiir_leases_lost",
            "Instances that were taken away from a worker of this process while it held them.",
            ("workflow",),
            registry=registry,
        )
        self.batches: Histogram = Histogram(
            "sayiir_commit_batch_size",
            "How many checkpoints were answered together by the database.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.depth: Gauge = Gauge(
            "sayiir_queue_ready",
            "Instances that are ready and that no worker holds, in the whole database.",
            ("workflow",),
            registry=registry,
        )
        self.age: Gauge = Gauge(
            "sayiir_queue_age_seconds",
            "For how long the instance that is next in line has been ready.",
            ("workflow",),
            registry=registry,
        )
        self.slots: Gauge = Gauge(
            "sayiir_worker_slots",
            "How many instances the worker can advance at once.",
            ("worker",),
            registry=registry,
        )
        self.busy: Gauge = Gauge(
            "sayiir_worker_slots_busy",
            "How many instances the worker holds now.",
            ("worker",),
            registry=registry,
        )
        # Finding a series by its labels takes longer than adding to it.
        self.observers: dict[tuple[str, str, str], Callable[[float], None]] = {}
        self.known: set[str] = set()
