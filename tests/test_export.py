"""Instances that are moved: exported in the middle, imported elsewhere, finished there.

Whatever kind of node an instance is in, on any other backend and under another id it comes to the
same output, and no step that had finished runs again. What may be exported and imported at all, the
contract suite says (`sayiir.testing`); here are the whole way and what the client adds to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from benches.python_backend import PythonBackend
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres.server import required

from sayiir import (
    Flow,
    InMemoryBackend,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    LoopResult,
    PostgresBackend,
    RetryPolicy,
    SnapshotFormatError,
    SqliteBackend,
    SyncWorkflowClient,
    Worker,
    WorkflowClient,
    task,
)
from sayiir.backends import Backend
from sayiir.codec import (
    Snapshot,
    SnapshotStep,
    decode_snapshot,
    decode_value,
    encode_snapshot,
    encode_value,
)
from sayiir.codecs import Codec

BACKENDS = ("memory", "sqlite", "postgres", "python")
ROUND = list(zip(BACKENDS, BACKENDS[1:] + BACKENDS[:1], strict=True))
"""Each backend is exported from once and imported to once."""
SCHEMAS = count()


class Steps:
    """What ran, and a gate that the middle step does not pass before it is opened."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.reached = threading.Event()
        self.gate = asyncio.Event()

    def counted(self, name: str, change: Callable[[Any], Any] = lambda x: x) -> Any:
        def step(value: Any) -> Any:
            self.ran[name] += 1
            return change(value)

        return task(name, run_in="inline")(step)

    def gated(self, name: str) -> Any:
        async def step(value: Any) -> Any:
            self.reached.set()
            await self.gate.wait()
            self.ran[name] += 1
            return value + 1

        return task(name)(step)


def before(steps: Steps) -> Any:
    return Flow("moved").then(steps.counted("before", lambda x: x + 1))


def after(flow: Any, steps: Steps) -> Any:
    return flow.then(steps.counted("after", lambda x: (x, "end"))).build()


def inner(steps: Steps) -> Any:
    return Flow("inner").then(steps.counted("in")).wait_for_event("go", node="door").build()


def again(value: Any) -> Any:
    return LoopResult.done(value) if value == 5 else LoopResult.again(value)


def in_a_task(steps: Steps) -> Any:
    return before(steps).then(steps.gated("middle"))


def in_a_wait(steps: Steps) -> Any:
    return before(steps).wait_for_event("go", node="door")


def in_a_delay(steps: Steps) -> Any:
    return before(steps).delay("rest", 1.0)


def in_a_fork(steps: Steps) -> Any:
    flow = before(steps).fork().branch(steps.counted("left"), name="a")
    return flow.branch(inner(steps), name="b").join(steps.counted("join"))


def in_a_map(steps: Steps) -> Any:
    flow = Flow("moved").then(steps.counted("before", lambda x: [x, x + 1]))
    return flow.map(inner(steps), name="each")


def in_a_route(steps: Steps) -> Any:
    flow = before(steps).route(steps.counted("key", lambda x: "a"), keys=["a"])
    return flow.branch("a", inner(steps)).done()


def in_a_loop(steps: Steps) -> Any:
    return before(steps).loop(inner(steps), steps.counted("decide", again), name="turns")


def in_a_child(steps: Steps) -> Any:
    return before(steps).then_flow(inner(steps))


def in_a_backoff(steps: Steps) -> Any:
    def flaky(value: Any) -> Any:
        steps.ran["attempt"] += 1
        if steps.ran["attempt"] == 1:
            raise OSError("not yet")
        return value

    policy = RetryPolicy(max_retries=2, initial_delay_secs=1.0)
    return before(steps).then(task("flaky", retries=policy, run_in="inline")(flaky))


SHAPES = [
    (in_a_task, "in_progress"),
    (in_a_wait, "awaiting_signal"),
    (in_a_delay, "waiting"),
    (in_a_fork, "awaiting_signal"),
    (in_a_map, "awaiting_signal"),
    (in_a_route, "awaiting_signal"),
    (in_a_loop, "awaiting_signal"),
    (in_a_child, "awaiting_signal"),
    (in_a_backoff, "waiting"),
]


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Backend]:
    """An empty backend of this kind."""
    if kind == "postgres":
        server, schema = required(swift=True), f"moving_{os.getpid()}_{next(SCHEMAS)}"
        backend: Backend = PostgresBackend(server.url(), schema=schema)
        try:
            yield backend
        finally:
            await backend.close()
            server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        return
    if kind == "sqlite":
        backend = SqliteBackend(folder / f"{next(SCHEMAS)}.db")
    else:
        backend = InMemoryBackend() if kind == "memory" else PythonBackend()
    yield backend
    await backend.close()


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Look again until it is so; pytest's timeout bounds it."""
    while not await fact():  # noqa: ASYNC110 - a backend is asked, which tells nobody
        await asyncio.sleep(0.005)


async def brought(client: WorkflowClient, steps: Steps, status: str) -> bytes:
    """The instance when it stands where it is to be exported."""

    async def stands() -> bool:
        if status == "in_progress":
            return steps.reached.is_set()
        return (await client.status("i-1")).status == status

    await until(stands)
    return await client.export("i-1")


async def finished(client: WorkflowClient, instance_id: str) -> Any:
    """Its output; as many events as it takes are sent."""
    sent = 0
    while not (now := await client.status(instance_id)).is_completed():
        assert not now.is_failed(), now.error
        if now.status == "awaiting_signal":
            # Each has its own payload, and a wait takes one.
            await client.send_event(instance_id, "go", 5, idempotency_key=f"e-{sent}")
            sent += 1
        await asyncio.sleep(0.005)
    return await client.result(instance_id)


@pytest.mark.parametrize(("source", "target"), ROUND)
@pytest.mark.parametrize(("shape", "status"), SHAPES)
async def test_an_instance_is_finished_elsewhere(
    shape: Callable[[Steps], Any], status: str, source: str, target: str, tmp_path: Path
) -> None:
    steps = Steps()
    workflow = after(shape(steps), steps)
    async with opened(source, tmp_path) as here, opened(target, tmp_path) as there:
        old, new = WorkflowClient(here), WorkflowClient(there)
        async with Worker(here, [workflow]):
            await old.submit(workflow, "i-1", 1)
            data = await brought(old, steps, status)
            done = Counter(steps.ran)
            assert "after" not in done
            await old.cancel("i-1", "moved")
            await until(lambda: _is_cancelled(old))
        steps.gate.set()
        assert await new.import_(data, new_id="i-2") == "i-2"
        history = [step.path for step in await new.history("i-2")]
        assert history == [step.path for step in await old.history("i-1")][: len(history)]
        async with Worker(there, [workflow]):
            output = await finished(new, "i-2")
        moved = Counter(steps.ran)
        # The same from beginning to end in one place.
        async with Worker(there, [workflow]):
            await new.submit(workflow, "whole", 1)
            assert await finished(new, "whole") == output
    assert output[1] == "end"
    for name in ("before", "left", "in", "key"):
        assert moved[name] == done[name], f"{name} had finished and ran again"


async def _is_cancelled(client: WorkflowClient) -> bool:
    return (await client.status("i-1")).is_cancelled()


def a_snapshot() -> bytes:
    """An instance with a bit of everything."""
    flow = Flow("kept").wait_for_event("go", node="door").then(lambda x: x, name="last").build()
    with SyncWorkflowClient(InMemoryBackend()) as client:
        client.submit(flow, "i-1", {"secret": "hush"})
        client.send_event("i-1", "other", [1, 2], idempotency_key="k")
        client.pause("i-1", "stop", "ops")
        return client.export("i-1")


def test_the_client_without_a_loop_moves_instances() -> None:
    data = a_snapshot()
    with SyncWorkflowClient(InMemoryBackend()) as client:
        assert client.import_(data) == "i-1"
        assert client.import_(data, "i-2") == "i-2"
        status = client.status("i-2")
        assert (status.status, status.reason, status.paused_by) == ("paused", "stop", "ops")
        assert decode_snapshot(client.export("i-1")) == decode_snapshot(data)
        with pytest.raises(InstanceAlreadyExistsError, match="new_id") as caught:
            client.import_(data, "i-2")
        assert "i-2" in str(caught.value)
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            client.export("nobody")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.export(7), TypeError, "instance_id"),
        (lambda c: c.export(""), ValueError, "instance_id"),
        (lambda c: c.import_("text"), TypeError, "data"),
        (lambda c: c.import_(b"", new_id=7), TypeError, "new_id"),
        (lambda c: c.import_(b"", new_id=" "), ValueError, "new_id"),
        (lambda c: c.import_(b""), SnapshotFormatError, "SYRS"),
        (lambda c: c.import_(encode_value(1)), SnapshotFormatError, "snapshot"),
    ],
)
def test_wrong_arguments(
    call: Callable[[SyncWorkflowClient], object], error: type[Exception], text: str
) -> None:
    with SyncWorkflowClient(InMemoryBackend()) as client:
        with pytest.raises(error, match=text):
            call(client)
        assert list(client.list_instances()) == []


def test_a_newer_format_is_named() -> None:
    newer = bytearray(a_snapshot())
    newer[4] = 2
    with SyncWorkflowClient(InMemoryBackend()) as client, pytest.raises(SnapshotFormatError):
        client.import_(bytes(newer))
    newer[8:12] = zlib.crc32(newer[12:], zlib.crc32(newer[4:8])).to_bytes(4, "little")
    client = SyncWorkflowClient(InMemoryBackend())
    with client, pytest.raises(SnapshotFormatError, match="version 2"):
        client.import_(bytes(newer))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_resealed_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whoever computes the checksum anew gets a typed refusal, or an instance that can be read."""
    changed = bytearray(a_snapshot())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(12, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    changed[8:12] = zlib.crc32(changed[12:], zlib.crc32(changed[4:8])).to_bytes(4, "little")
    with SyncWorkflowClient(InMemoryBackend()) as client:
        try:
            name = client.import_(bytes(changed))
        except (SnapshotFormatError, ValueError):
            assert list(client.list_instances()) == []
            return
        client.status(name)
        assert decode_snapshot(client.export(name)).instance_id == name


def test_a_snapshot_is_plain_data() -> None:
    data = a_snapshot()
    snapshot = decode_snapshot(data)
    assert isinstance(snapshot, Snapshot)
    assert encode_snapshot(snapshot) == data
    assert (snapshot.workflow_id, snapshot.status, snapshot.ended_at) == ("kept", "paused", None)
    assert decode_value(snapshot.input) == {"secret": "hush"}
    [event] = snapshot.events
    assert (event.name, event.key) == ("other", "k")
    assert snapshot.asked is not None
    assert snapshot.asked.by == "ops"


def test_a_snapshot_with_other_fields_is_another_one() -> None:
    snapshot = decode_snapshot(a_snapshot())
    other = snapshot.replace(instance_id="i-2", priority=1)
    assert (other.instance_id, other.priority, other.input) == ("i-2", 1, snapshot.input)
    assert (snapshot.instance_id, snapshot.replace()) == ("i-1", snapshot)
    assert other != snapshot
    assert decode_snapshot(encode_snapshot(other)) == other
    assert pickle.loads(pickle.dumps(other)) == other
    step = SnapshotStep(0, "door", "door", 1, "elapsed", "w-1", 1.0, 2.5, output=snapshot.input)
    longer = snapshot.replace(steps=[step], next_seq=1)
    assert longer.steps == (step,)
    assert (longer.steps[0].worker_id, longer.steps[0].ended_at) == ("w-1", 2.5)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"workflow_id": "x"}, TypeError, "workflow_id"),
        ({"input": "text"}, TypeError, "input"),
        ({"status": "lost"}, ValueError, "lost"),
        ({"status": "completed"}, SnapshotFormatError, "does not go with its status"),
        ({"priority": 9}, SnapshotFormatError, "priority 9"),
        ({"definition": b"SYRS"}, SnapshotFormatError, "SYRS"),
        ({"steps": [7]}, TypeError, "steps"),
    ],
)
def test_what_no_backend_could_have_stored_is_no_snapshot(
    changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        decode_snapshot(a_snapshot()).replace(**changes)


def test_the_words_for_a_snapshot_show_no_values() -> None:
    snapshot = decode_snapshot(a_snapshot())
    [event] = snapshot.events
    step = SnapshotStep(0, "door", "door", 1, "elapsed", "w-1", 1.0, 2.5, output=snapshot.input)
    assert repr(snapshot) == '<Snapshot of "i-1", paused, 0 steps>'
    for text in (repr(snapshot), repr(event), repr(step)):
        assert "hush" not in text
        assert "SYRS" not in text


async def test_each_backend_keeps_its_codec(tmp_path: Path) -> None:
    def keys(_: str | None) -> tuple[str, bytes]:
        return "k1", b"k" * 32

    def canary(value: Any) -> Any:
        return {"canary": value["canary"][::-1]}

    flow = Flow("moved").then(canary, name="turn").wait_for_event("go").then(canary).build()
    safe = SqliteBackend(tmp_path / "safe.db", codec=Codec(keys=keys))
    readable = SqliteBackend(tmp_path / "readable.db", codec=Codec("json"))
    here, there = WorkflowClient(safe), WorkflowClient(readable)
    async with Worker(safe, flow):
        await here.submit(flow, "one", {"canary": "bird-1"})

        async def waits() -> bool:
            return (await here.status("one")).signal_name == "go"

        await until(waits)
    moved = await here.export("one")
    await there.import_(moved, "two")
    await there.send_event("two", "go", {"canary": "bird-2"})
    async with Worker(readable, flow):
        assert await there.result("two", timeout="30s") == {"canary": "2-drib"}
    # An end is moved as well, back into what is encrypted.
    await here.import_(await there.export("two"))
    assert await here.result("two", timeout="30s") == {"canary": "2-drib"}
    assert await here.get_task_result("two", "turn") == {"canary": "1-drib"}
    for backend in (safe, readable):
        await backend.close()
    stored = (tmp_path / "safe.db").read_bytes()
    assert b"1-drib" not in stored
    assert b"bird-2" not in stored
    assert b"1-drib" in moved
    assert b'"canary":"2-drib"' in (tmp_path / "readable.db").read_bytes().replace(b": ", b":")
