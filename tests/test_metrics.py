"""What Prometheus is told of workers: the right figures, and no series per instance."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from benches.python_backend import PythonBackend
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from tests.working import LONG, NEVER, Altered, Places

from sayiir import (
    Flow,
    InMemoryBackend,
    RetryPolicy,
    Worker,
    WorkerMetrics,
    WorkflowClient,
    WorkflowFailed,
    task,
)
from sayiir.backends import Backend, Backlog


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@task(retries=RetryPolicy(max_retries=1, initial_delay_secs=0.0), run_in="inline")
def wavers(value: str) -> str:
    _wavered.append(value)
    if value == "never" or (value == "once" and _wavered.count("once") == 1):
        raise ValueError("no")
    return value


_wavered: list[str] = []
wavering = Flow("wavering").then(wavers).then(len).build()


async def test_steps_retries_and_ends_are_counted(
    backend: Backend, registry: CollectorRegistry
) -> None:
    _wavered.clear()
    metrics = WorkerMetrics(registry)
    async with Worker(backend, wavering, metrics=metrics, concurrency=1):
        client = WorkflowClient(backend)
        for value in ("well", "once"):
            await (await client.submit(wavering, f"id-{value}", value)).result(LONG)
        handle = await client.submit(wavering, "id-never", "never")
        with pytest.raises(WorkflowFailed):
            await handle.result(LONG)
    counts = {
        (task_name, outcome): registry.get_sample_value(
            "sayiir_step_duration_seconds_count",
            {"workflow": "wavering", "task": task_name, "outcome": outcome},
        )
        for task_name in ("wavers", "len")
        for outcome in ("completed", "retried", "failed")
    }
    assert counts == {
        ("wavers", "completed"): 2.0,
        ("wavers", "retried"): 2.0,
        ("wavers", "failed"): 1.0,
        ("len", "completed"): 2.0,
        ("len", "retried"): None,
        ("len", "failed"): None,
    }
    sampled = registry.get_sample_value
    retries = sampled("sayiir_retries_total", {"workflow": "wavering", "task": "wavers"})
    assert retries == 2.0
    for status, ended in (("completed", 2.0), ("failed", 1.0)):
        labels = {"workflow": "wavering", "status": status}
        assert sampled("sayiir_instances_ended_total", labels) == ended
    text = generate_latest(registry).decode()
    assert "id-" not in text, "a series for each instance would be one too many"


async def test_a_step_lasts_as_long_as_it_lasts(registry: CollectorRegistry) -> None:
    backend = InMemoryBackend()

    @task
    async def rests(value: int) -> int:
        await asyncio.sleep(0.06)
        return value

    flow = Flow("resting").then(rests).build()
    async with Worker(backend, flow, metrics=WorkerMetrics(registry)):
        await (await WorkflowClient(backend).submit(flow, input=1)).result(LONG)
    labels = {"workflow": "resting", "task": "rests", "outcome": "completed"}
    taken = registry.get_sample_value("sayiir_step_duration_seconds_sum", labels)
    assert taken is not None
    assert 0.05 < taken < LONG
    bucket = registry.get_sample_value(
        "sayiir_step_duration_seconds_bucket", {**labels, "le": "0.05"}
    )
    assert bucket == 0.0


@asynccontextmanager
async def held_instance(
    backend: Backend, metrics: WorkerMetrics
) -> AsyncIterator[tuple[WorkflowClient, asyncio.Event]]:
    """An instance `held-1` in the hands of a worker until the event is set."""
    begun, let_go = asyncio.Event(), asyncio.Event()

    @task
    async def held(value: int) -> int:
        begun.set()
        await let_go.wait()
        return value

    flow = Flow("held").then(held).build()
    async with Worker(backend, flow, worker_id="w", concurrency=3, metrics=metrics):
        client = WorkflowClient(backend)
        await client.submit(flow, "held-1", 1)
        await begun.wait()
        yield client, let_go
        let_go.set()


async def test_slots_are_busy_while_instances_are_held(registry: CollectorRegistry) -> None:
    backend = InMemoryBackend()
    async with held_instance(backend, WorkerMetrics(registry)) as (client, let_go):
        assert registry.get_sample_value("sayiir_worker_slots", {"worker": "w"}) == 3.0
        assert registry.get_sample_value("sayiir_worker_slots_busy", {"worker": "w"}) == 1.0
        let_go.set()
        await client.result("held-1", LONG)
    assert registry.get_sample_value("sayiir_worker_slots", {"worker": "w"}) is None
    assert registry.get_sample_value("sayiir_worker_slots_busy", {"worker": "w"}) is None


async def test_a_lease_that_is_lost_is_counted(
    backend: Backend, registry: CollectorRegistry
) -> None:
    async with held_instance(backend, WorkerMetrics(registry)) as (client, let_go):
        await client.delete("held-1", force=True)
        let_go.set()
    assert registry.get_sample_value("sayiir_leases_lost_total", {"workflow": "held"}) == 1.0


async def test_checkpoints_that_are_answered_together_are_one_batch(
    places: Places, registry: CollectorRegistry
) -> None:
    backend = places()
    flow = Flow("three").then(_as_is).then(_as_is).then(_as_is).build()
    async with Worker(backend, flow, metrics=WorkerMetrics(registry), concurrency=32):
        client = WorkflowClient(backend)
        handles = await client.submit_many(flow, [(None, n) for n in range(64)])
        for handle in handles:
            await handle.result(LONG)
    checkpoints = registry.get_sample_value("sayiir_commit_batch_size_sum")
    batches = registry.get_sample_value("sayiir_commit_batch_size_count")
    assert checkpoints is not None
    assert batches is not None
    if places.kind in ("memory", "python"):
        assert checkpoints == batches == 0.0, "nothing is committed in groups there"
    else:
        assert checkpoints == 3 * 64
        assert batches < checkpoints


@task
async def _as_is(value: int) -> int:
    return value


async def test_what_waits_is_told_by_workflow(places: Places, registry: CollectorRegistry) -> None:
    looked = asyncio.Event()

    class Watched(Altered):
        async def backlog(self) -> Sequence[Backlog]:
            found = await super().backlog()
            looked.set()
            return found

    async def a_look_later() -> None:
        """Return when a look that began after the call has been made use of."""
        for _ in range(3):
            looked.clear()
            await asyncio.wait_for(looked.wait(), LONG)

    def told(name: str, workflow: str) -> float | None:
        return registry.get_sample_value(f"sayiir_queue_{name}", {"workflow": workflow})

    backend = places(Watched)
    mine = Flow("mine").then(_as_is).build()
    foreign = Flow("foreign").then(_as_is).build()
    client = WorkflowClient(backend)
    await client.submit_many(foreign, [(f"f-{n}", n) for n in range(3)])
    metrics = WorkerMetrics(registry, refresh="5ms")
    async with Worker(backend, mine, metrics=metrics, poll_interval=NEVER):
        await a_look_later()
        assert told("ready", "foreign") == 3.0
        assert told("ready", "mine") == 0.0
        assert (told("age_seconds", "foreign") or 0.0) > 0.0
        assert told("age_seconds", "mine") == 0.0
        for number in range(3):
            await client.cancel(f"f-{number}")
        await a_look_later()
        assert told("ready", "foreign") == told("age_seconds", "foreign") == 0.0


class Mute(PythonBackend):
    """Does not say what waits."""

    async def backlog(self) -> Sequence[Backlog]:
        raise OSError("not now")


async def test_a_backend_that_does_not_say_what_waits_stops_nobody(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Mute()
    flow = Flow("goes-on").then(_as_is).build()
    async with Worker(backend, flow, metrics=WorkerMetrics(registry), poll_interval=NEVER):
        assert await (await WorkflowClient(backend).submit(flow, input=3)).result(LONG) == 3
    assert "could not ask how much work is waiting" in caplog.text


async def test_workers_share_the_series_of_a_registry(registry: CollectorRegistry) -> None:
    backend = InMemoryBackend()
    one, other = (Flow(name).then(_as_is).build() for name in ("one", "other"))
    async with (
        Worker(backend, one, metrics=WorkerMetrics(registry)),
        Worker(backend, other, metrics=WorkerMetrics(registry)),
    ):
        client = WorkflowClient(backend)
        for flow in (one, other):
            await (await client.submit(flow, input=1)).result(LONG)
    for name in ("one", "other"):
        labels = {"workflow": name, "status": "completed"}
        assert registry.get_sample_value("sayiir_instances_ended_total", labels) == 1.0


async def test_an_instance_that_parks_has_not_ended(registry: CollectorRegistry) -> None:
    backend = InMemoryBackend()
    flow = Flow("parks").delay("a moment", "1ms").then(_as_is).build()
    async with Worker(backend, flow, metrics=WorkerMetrics(registry)):
        client = WorkflowClient(backend)
        await (await client.submit(flow, input=1)).result(LONG)
    ended = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "sayiir_instances_ended_total"
    ]
    assert [sample.value for sample in ended] == [1.0]


def test_what_cannot_be_is_said(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="refresh"):
        WorkerMetrics(registry, refresh=0)
    with pytest.raises(TypeError, match=r"must be a prometheus_client.CollectorRegistry, got str"):
        WorkerMetrics("default")  # type: ignore[arg-type]
    flow = Flow("any").then(_as_is).build()
    with pytest.raises(TypeError, match=r"metrics must be a WorkerMetrics.*got CollectorRegistry"):
        Worker(InMemoryBackend(), flow, metrics=registry)  # type: ignore[arg-type]
    Gauge("sayiir_step_duration_seconds", "not ours", registry=registry)
    with pytest.raises(ValueError, match="another registry"):
        WorkerMetrics(registry)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r'pip install "sayiir\[prometheus\]"'):
        WorkerMetrics()
