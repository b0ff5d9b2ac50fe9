"""Log records say which instance and step they are about, wherever the task runs."""

import asyncio
import logging
import logging.config
import logging.handlers
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from benches.python_backend import PythonBackend
from tests import logging_tasks
from tests.working import LONG, NEVER

from sayiir import (
    Flow,
    InMemoryBackend,
    TaskLogFilter,
    Worker,
    WorkflowClient,
    resume_workflow_async,
    run_durable_workflow_async,
    run_workflow,
    run_workflow_async,
    task,
)
from sayiir._core import Claimant
from sayiir.backends import Reply

_log = logging.getLogger("tests.of_the_user")


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def about(self) -> list[tuple[object, ...]]:
        return [
            (
                *(vars(one)[f"sayiir_{name}"] for name in ("workflow", "instance", "path")),
                *(vars(one)["sayiir_task"], vars(one)["sayiir_attempt"], one.getMessage()),
            )
            for one in self.records
        ]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What the user's logger says, through a handler with the filter."""
    handler = Kept()
    handler.addFilter(TaskLogFilter())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    yield handler
    _log.removeHandler(handler)


@task(retries=1, run_in="inline")
def inline(value: int) -> int:
    _log.info("inline")
    return value


@task
def threaded(value: int) -> int:
    _log.info("in a thread")
    return value


@task
async def coroutine(value: int) -> int:
    _log.info("in a coroutine")
    await asyncio.gather(_child(), asyncio.to_thread(_log.info, "in its thread"))
    return value


async def _child() -> None:
    _log.info("in its task")


def test_records_of_every_kind_of_task_say_whose_they_are(kept: Kept) -> None:
    flow = Flow("speaking").then(inline).then(threaded).then(coroutine).build()
    run_workflow(flow, 1, instance_id="s-1")
    assert [one[:-1] for one in kept.about()] == [
        ("speaking", "s-1", "inline", "inline", 1),
        ("speaking", "s-1", "threaded", "threaded", 1),
        *([("speaking", "s-1", "coroutine", "coroutine", 1)] * 3),
    ]
    assert {one[-1] for one in kept.about()} == {
        *("inline", "in a thread", "in a coroutine", "in its task", "in its thread"),
    }


def test_an_attempt_is_told_from_the_one_before(kept: Kept) -> None:
    @task(retries=1)
    def fails_once(value: int) -> int:
        _log.info("trying")
        if len(kept.records) < 2:
            raise OSError("not yet")
        return value

    @task(retries=1)
    async def items(value: int) -> list[int]:
        return [value, value]

    flow = Flow("again").then(items).map(fails_once).build()
    run_workflow(flow, 1, instance_id="a-1")
    assert sorted((one[2], one[4]) for one in kept.about())[:2] == [
        ("fails_once[0]", 1),
        ("fails_once[0]", 2),
    ]


def test_outside_of_a_task_the_attributes_are_there_too(kept: Kept) -> None:
    _log.info("nobody's")
    assert kept.about() == [("-", "-", "-", "-", "-", "nobody's")]
    record = logging.makeLogRecord({})
    assert TaskLogFilter(missing=None).filter(record)
    assert vars(record)["sayiir_attempt"] is None
    with pytest.raises(TypeError, match="missing must be a str or None, got int"):
        TaskLogFilter(missing=0)  # type: ignore[arg-type]


async def test_no_record_is_marked_after_its_step(kept: Kept) -> None:
    await run_workflow_async(Flow("short").then(inline).build(), 1)
    _log.info("afterwards")
    assert kept.about()[-1][1] == "-"


def test_a_process_marks_its_records_where_logging_is_set_up_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(logging_tasks.LOG, str(log))
    run_workflow(Flow("apart").then(logging_tasks.speaks).build(), 1, instance_id="p-1")
    assert log.read_text() == "apart p-1 speaks 1 in a process\n"


def test_it_can_be_named_in_a_dictionary_and_stand_before_a_queue() -> None:
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"task": {"()": "sayiir.TaskLogFilter", "missing": ""}},
            "handlers": {
                "queue": {
                    "()": "logging.handlers.QueueHandler",
                    "queue": waiting,
                    "filters": ["task"],
                }
            },
            "loggers": {_log.name: {"handlers": ["queue"], "level": "INFO"}},
        }
    )
    try:
        run_workflow(Flow("queued").then(threaded).build(), 1, instance_id="q-1")
    finally:
        _log.handlers.clear()
    record = waiting.get_nowait()
    assert (vars(record)["sayiir_instance"], vars(record)["sayiir_path"]) == ("q-1", "threaded")


def test_what_the_engine_says_of_an_instance_is_not_mixed_with_a_step() -> None:
    seen = []

    @task(run_in="inline")
    def asks(value: int) -> int:
        record = logging.makeLogRecord({"sayiir_instance": "another", "sayiir_workflow": "w"})
        TaskLogFilter().filter(record)
        seen.append((vars(record)["sayiir_instance"], vars(record)["sayiir_path"]))
        return value

    run_workflow(Flow("asking").then(asks).build(), 1, instance_id="mine")
    assert seen == [("another", "-")]


class Unwilling(PythonBackend):
    """Refuses the first checkpoint."""

    refused = False

    async def commit(self, commits: object) -> list[Reply]:
        if not self.refused:
            self.refused = True
            raise OSError("the disk is on fire")
        return list(await super().commit(commits))  # type: ignore[arg-type]


async def test_trouble_with_an_instance_says_with_which(caplog: pytest.LogCaptureFixture) -> None:
    backend = Unwilling()
    flow = Flow("troubled").then(inline).build()
    async with Worker(backend, flow, poll_interval="10ms", concurrency=1):
        handle = await WorkflowClient(backend).submit(flow, "t-1", 5)
        assert await handle.result(LONG) == 5
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "the backend is in trouble" in record.getMessage()
    assert vars(record)["sayiir_instance"] == "t-1"
    assert vars(record)["sayiir_workflow"] == "troubled"


async def test_whoever_waits_for_a_lease_is_told_once_for_whom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sayiir.run")
    said = asyncio.Event()

    def hear(_: logging.LogRecord) -> bool:
        said.set()
        return True

    caplog.handler.addFilter(hear)
    backend = InMemoryBackend()
    begun, let_go = asyncio.Event(), asyncio.Event()

    @task
    async def held(value: int) -> int:
        begun.set()
        await let_go.wait()
        return value

    flow = Flow("held").then(held).build()
    async with Worker(backend, flow, worker_id="somebody", poll_interval=NEVER):
        await WorkflowClient(backend).submit(flow, "h-1", 7)
        await begun.wait()
        waiting = asyncio.ensure_future(resume_workflow_async(flow, "h-1", backend))
        await asyncio.wait_for(said.wait(), LONG)
        # Whoever is told of news looks again, and has nothing new to say.
        for _ in range(3):
            await WorkflowClient(backend).send_event("h-1", "unasked", None)
            await asyncio.sleep(0)
        let_go.set()
        assert (await waiting).output == 7
    caplog.handler.removeFilter(hear)
    (record,) = caplog.records
    assert "instance 'h-1' is held by somebody; waiting" in record.getMessage()
    assert vars(record)["sayiir_instance"] == "h-1"


async def test_a_worker_is_told_once_who_has_the_work_that_it_came_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sayiir")
    said = asyncio.Event()

    def hear(_: logging.LogRecord) -> bool:
        said.set()
        return True

    backend = InMemoryBackend()

    def size(value: int) -> int:
        return abs(value)

    flow, foreign = Flow("taken").then(size).build(), Flow("foreign").then(size).build()
    client = WorkflowClient(backend)
    for workflow, holder in ((flow, "dead"), (foreign, "somebody")):
        name = workflow.workflow_id
        await client.submit(workflow, name, -7)
        gone = Claimant(f"{holder}~0123456789ab", [workflow.program], lease_ttl=60.0)
        assert await backend.claim_one(gone, name) is not None
    caplog.handler.addFilter(hear)
    async with Worker(backend, flow, worker_id="next", poll_interval="5ms"):
        await asyncio.wait_for(said.wait(), LONG)
        # It does something else meanwhile, and looks around more than once.
        done = await client.submit(flow, "free", -8)
        assert await done.result(timeout=LONG) == 8
    caplog.handler.removeFilter(hear)
    (record,) = caplog.records
    assert "worker next: has nothing to do yet; 1 or more" in record.getMessage()
    assert "held by dead." in record.getMessage()


async def test_how_long_a_run_holds_its_instance_can_be_said() -> None:
    backend = PythonBackend()
    taken: list[float] = []

    @task(run_in="inline")
    def looks(value: int) -> int:
        taken.extend(lease.expires_at - backend.now() for lease in backend._leases.values())
        return value

    flow = Flow("looks").then(looks).build()
    await run_durable_workflow_async(flow, "l-1", 1, backend, lease_ttl="2h")
    assert 7_000 < taken[0] <= 7_200
    with pytest.raises(ValueError, match="lease_ttl"):
        await run_durable_workflow_async(flow, "l-2", 1, backend, lease_ttl=0)
    with pytest.raises(ValueError, match="lease_ttl"):
        await resume_workflow_async(flow, "l-1", backend, lease_ttl="never")
