"""Tasks in processes of their own: another pid, the same context, errors and timeouts, and killed.

What a body in a process did is told by the files it leaves in a folder.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sayiir import (
    Flow,
    TaskError,
    TaskTimeout,
    Worker,
    Workflow,
    WorkflowCancelled,
    WorkflowClient,
    WorkflowFailed,
    _process,
)
from sayiir.backends import Backend

from . import tasks_for_processes as tasks
from .working import LONG, NEVER, outcome


async def failure(backend: Backend, workflow: Workflow[Any, Any], value: Any = None) -> TaskError:
    with pytest.raises(WorkflowFailed) as caught:
        await outcome(backend, workflow, value)
    cause = caught.value.__cause__
    assert isinstance(cause, TaskError)
    return cause


def alive(pid: int) -> bool:
    """Whether a process of this number exists, a dead one not counted.

    One that nobody reaped yet is `Z`; one that another thread is reaping at this moment is `X`.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids(folder: Path) -> list[int]:
    """The processes that left marks, in order."""
    marks = sorted(folder.iterdir(), key=lambda mark: int(mark.name.partition("-")[0]))
    return [int(mark.name.partition("-")[2]) for mark in marks]


async def begun(folder: Path) -> int:
    """The process that runs `endless`; waits until it does, on the pipe that `door` made."""
    return int(await asyncio.to_thread((folder / "begun").read_text))


def door(folder: Path) -> str:
    """A folder for `endless`, with the pipe through which it says that it has begun."""
    folder.mkdir()
    os.mkfifo(folder / "begun")
    return str(folder)


async def held(client: WorkflowClient, instance_id: str) -> None:
    """Until a worker holds the instance, which nobody is told of."""
    while (await client.list_instances(id_prefix=instance_id))[0].worker_id is None:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_task_runs_elsewhere_and_its_process_is_used_again(backend: Backend) -> None:
    workflow = Flow("f").map(tasks.pid).build()
    async with Worker(backend, workflow, processes=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=[1, 2, 3])
        [pid] = set(await handle.result(timeout=LONG))
        assert pid != os.getpid()
        assert alive(pid)
    assert not alive(pid)


async def test_no_more_processes_than_allowed(backend: Backend) -> None:
    workflow = Flow("f").map(tasks.pid).build()
    async with Worker(backend, workflow, concurrency=8, processes=2, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=list(range(20)))
        assert 1 <= len(set(await handle.result(timeout=LONG))) <= 2


async def test_values_cross_whole(backend: Backend) -> None:
    value = {"a": [1, (2, 3), b"\0", {4, 5}, None, 2**80], 7: "é\0"}
    assert await outcome(backend, Flow("f").then(tasks.echo).build(), value) == value


async def test_the_task_knows_where_it_is(backend: Backend) -> None:
    workflow = Flow("order", metadata={"team": "shop"}).then(tasks.context).build()
    async with Worker(backend, workflow, processes=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "o-1")
        seen = await handle.result(timeout=LONG)
    assert seen.pop("deadline") > 0
    assert seen == {
        "workflow_id": "order",
        "instance_id": "o-1",
        "task_id": "context",
        "path": "context",
        "attempt": 1,
        "tags": ["x"],
        "workflow_metadata": {"team": "shop"},
        "key": "o-1:context",
        "cancelled": False,
    }


@pytest.mark.parametrize(
    ("body", "runs", "error"),
    [
        (tasks.retried, 3, None),
        (tasks.again_at_once, 2, None),
        (tasks.dies_once, 2, None),
        (tasks.not_covered, 1, "ValueError"),
        (tasks.never_again, 1, "NonRetryable"),
    ],
)
async def test_what_is_tried_again(
    tmp_path: Path, backend: Backend, body: Any, runs: int, error: str | None
) -> None:
    workflow = Flow("f").then(body).build()
    if error is None:
        assert await outcome(backend, workflow, str(tmp_path)) == runs
    else:
        assert (await failure(backend, workflow, str(tmp_path))).error_type == error
    assert len(pids(tmp_path)) == runs


async def test_an_error_is_told_in_full(backend: Backend) -> None:
    error = await failure(backend, Flow("f").then(tasks.chained).build())
    assert (error.task, error.error_type, error.message) == ("chained", "ValueError", "no funds")
    assert error.traceback is not None
    assert 'raise ValueError("no funds")' in error.traceback
    assert "KeyError: 'account'" in error.traceback
    assert "_process.py" not in error.traceback


async def test_an_output_that_cannot_be_stored_is_refused(backend: Backend) -> None:
    error = await failure(backend, Flow("f").then(tasks.unstorable).build())
    assert error.error_type == "EncodeError"
    assert "unstorable" in str(error)
    assert "generator" in error.message


async def test_an_exit_fails_the_task_alone(backend: Backend) -> None:
    assert (await failure(backend, Flow("f").then(tasks.exits).build())).error_type == "SystemExit"


async def test_a_process_that_dies_is_told_with_its_exit_code(backend: Backend) -> None:
    bad = Flow("bad").then(tasks.dies).build()
    good = Flow("good").then(tasks.echo).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [bad, good], processes=1, poll_interval=NEVER):
        dead = await client.submit(bad, "bad")
        with pytest.raises(WorkflowFailed, match=r"ProcessDied.*'dies'.*7"):
            await dead.result(timeout=LONG)
        after = await client.submit(good, "good", 1)
        assert await after.result(timeout=LONG) == 1


async def test_a_process_is_killed_at_its_timeout(tmp_path: Path, backend: Backend) -> None:
    stuck = Flow("stuck").then(tasks.stuck).build()
    good = Flow("good").then(tasks.echo).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [stuck, good], processes=1, poll_interval=NEVER):
        handle = await client.submit(stuck, input=str(tmp_path))
        with pytest.raises(WorkflowFailed) as caught:
            await handle.result(timeout=LONG)
        assert isinstance(caught.value.__cause__, TaskTimeout)
        [pid] = pids(tmp_path)
        assert not alive(pid)
        # The lane is free for others.
        after = await client.submit(good, "good", 1)
        assert await after.result(timeout=LONG) == 1


async def test_a_process_is_killed_by_a_cancel(tmp_path: Path, backend: Backend) -> None:
    endless = Flow("endless").then(tasks.endless).build()
    good = Flow("good").then(tasks.echo).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [endless, good], processes=1, poll_interval=NEVER):
        handle = await client.submit(endless, input=door(tmp_path / "e"))
        pid = await begun(tmp_path / "e")
        await handle.cancel("enough")
        with pytest.raises(WorkflowCancelled, match="enough"):
            await handle.result(timeout=LONG)
        assert not alive(pid)
        after = await client.submit(good, "good", 1)
        assert await after.result(timeout=LONG) == 1


async def test_a_cancel_that_waits_for_a_free_process_needs_none(
    tmp_path: Path, backend: Backend
) -> None:
    endless = Flow("endless").then(tasks.endless).build()
    client = WorkflowClient(backend)
    first, second = door(tmp_path / "1"), door(tmp_path / "2")
    async with Worker(backend, endless, processes=1, poll_interval=NEVER):
        running = await client.submit(endless, "running", first)
        await begun(tmp_path / "1")
        queued = await client.submit(endless, "queued", second)
        await held(client, "queued")
        await queued.cancel()
        with pytest.raises(WorkflowCancelled):
            await queued.result(timeout=LONG)
        await running.cancel()
        with pytest.raises(WorkflowCancelled):
            await running.result(timeout=LONG)
    assert (tmp_path / "1" / "entered").exists()
    assert not (tmp_path / "2" / "entered").exists()


async def test_starting_a_process_is_not_counted_as_running_the_task(backend: Backend) -> None:
    # The interpreter alone takes longer to start than this task may take.
    assert await outcome(backend, Flow("f").then(tasks.brief).build(), 1) == 2


async def test_a_call_that_is_cancelled_while_its_process_starts_never_runs(
    tmp_path: Path, backend: Backend
) -> None:
    endless = Flow("endless").then(tasks.endless).build()
    echo = Flow("echo").map(tasks.echo).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [endless, echo], processes=1, poll_interval=NEVER):
        for number in range(5):
            folder = door(tmp_path / str(number))
            handle = await client.submit(endless, f"endless-{number}", folder)
            await held(client, f"endless-{number}")
            await handle.cancel()
            with pytest.raises(WorkflowCancelled):
                await handle.result(timeout=LONG)
            # Answers go to whom they belong, though the lane has just changed hands.
            after = await client.submit(echo, f"echo-{number}", [[number, n] for n in range(3)])
            assert await after.result(timeout=LONG) == [[number, n] for n in range(3)]


async def test_processes_are_replaced_after_many_calls(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "CALLS_PER_PROCESS", 3)
    workflow = Flow("f").map(tasks.pid).build()
    async with Worker(backend, workflow, processes=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, input=list(range(7)))
        used = await handle.result(timeout=LONG)
    assert sorted(used.count(pid) for pid in set(used)) == [1, 3, 3]
    assert not any(alive(pid) for pid in used)
