"""Tasks that fail: how often they are tried, what is kept of the error, and that the worker lives.

How long a backoff is, is the interpreter's business and tested there; here a wait is either over at
once or never, so that nothing depends on a clock.
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sayiir import (
    Flow,
    NonRetryable,
    RetryAfter,
    RetryPolicy,
    Status,
    TaskError,
    Worker,
    Workflow,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    task,
)
from sayiir.backends import Backend

from .working import LONG, NEVER, Gauge, outcome


def soon(retries: int, **more: Any) -> RetryPolicy:
    """A policy whose waits are over at once."""
    return RetryPolicy(max_retries=retries, initial_delay_secs=0.001, **more)


def tenfold(x: int) -> int:
    return 10 * x


async def failure(
    backend: Backend, workflow: Workflow[Any, Any], instance_id: str = "i"
) -> TaskError:
    """The error with which an instance fails."""
    async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, instance_id, 0)
        with pytest.raises(WorkflowFailed) as caught:
            await handle.result(timeout=LONG)
    cause = caught.value.__cause__
    assert isinstance(cause, TaskError)
    return cause


def raising(error: Callable[[], BaseException], where: str) -> Workflow[Any, Any]:
    """A workflow whose only task raises, called in this way."""

    def body(x: int) -> int:
        raise error()

    async def later_body(x: int) -> int:
        raise error()

    ways: dict[str, Callable[..., Any]] = {
        "loop": later_body,
        "timed loop": task("body", timeout="1m")(later_body),
        "thread": body,
        "timed thread": task("body", timeout="1m")(body),
        "inline": task("body", run_in="inline")(body),
    }
    return Flow("raising").then(ways[where], name="body").build()


WAYS = ("loop", "timed loop", "thread", "timed thread", "inline")


# How often.


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_retries_run_a_task_at_most_once_more_each(backend: Backend, retries: int) -> None:
    attempts = []

    @task(retries=soon(retries))
    def fails(x: int) -> int:
        context = get_task_context()
        assert context is not None
        attempts.append(context.attempt)
        raise ValueError(f"attempt {context.attempt}")

    error = await failure(backend, Flow("f").then(fails).build())
    assert attempts == list(range(1, retries + 2))
    assert error.message == f"attempt {retries + 1}"
    rows = await WorkflowClient(backend).history("i")
    assert [row.attempt for row in rows] == attempts
    assert [row.outcome for row in rows] == ["retried"] * retries + ["failed"]
    assert [row.error for row in rows] == [f"attempt {n}" for n in attempts]


@pytest.mark.parametrize("body", ["thread", "loop"])
async def test_a_task_that_recovers_goes_on(backend: Backend, body: str) -> None:
    calls = Gauge()

    def flaky(x: int) -> int:
        with calls.body():
            if calls.total < 3:
                raise ConnectionError("not yet")
            return x + 1

    async def later_flaky(x: int) -> int:
        return flaky(x)

    chosen: Any = task("flaky", retries=soon(5))(flaky if body == "thread" else later_flaky)
    workflow = Flow("f").then(chosen).then(tenfold).build()
    assert await outcome(backend, workflow, 1) == 20
    assert calls.total == 3


async def test_a_plain_number_of_retries_waits_a_second_first(backend: Backend) -> None:
    @task(retries=1)
    def fails(x: int) -> int:
        raise ValueError("no")

    client = WorkflowClient(backend)
    workflow = Flow("f").then(fails).then(lambda x: x).build()
    after = Flow("after").then(tenfold).build()
    async with Worker(backend, [workflow, after], concurrency=1, poll_interval=NEVER):
        await client.submit(workflow, "i", 1)
        await (await client.submit(after, "j", 1)).result(timeout=LONG)
        [row] = await client.history("i")
        status = await client.status("i")
    assert status.wake_at is not None
    assert timedelta(seconds=0.9) < status.wake_at - row.ended_at < timedelta(seconds=1.1)


async def test_a_backoff_holds_no_slot(backend: Backend) -> None:
    tried = asyncio.Event()

    @task(retries=RetryPolicy(max_retries=3, initial_delay_secs=3600.0))
    async def fails(x: int) -> int:
        tried.set()
        raise ValueError("later")

    patient = Flow("patient").then(fails).build()
    good = Flow("good").then(lambda x: x).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [patient, good], concurrency=1, poll_interval=NEVER):
        waiting = await client.submit(patient, "patient", 1)
        await tried.wait()
        assert await (await client.submit(good, "good", 1)).result(timeout=LONG) == 1
        status = await waiting.refresh()
        assert status.status is Status.WAITING
        assert status.wake_at is not None
        [row] = await client.list_instances(workflow="patient")
        assert row.worker_id is None
        # Nobody holds it, so a cancel needs nobody.
        await waiting.cancel()
        assert (await waiting.refresh()).status is Status.CANCELLED


async def test_a_task_may_say_when_to_try_again(backend: Backend) -> None:
    tried = asyncio.Event()

    @task(retries=2)
    async def busy(x: int) -> int:
        tried.set()
        raise RetryAfter("2h")

    workflow = Flow("f").then(busy).build()
    good = Flow("good").then(lambda x: x).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow, good], concurrency=1, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", 1)
        await tried.wait()
        await (await client.submit(good, "good", 1)).result(timeout=LONG)
        wake_at = (await handle.refresh()).wake_at
    assert wake_at is not None
    assert timedelta(hours=1.9) < wake_at - datetime.now(UTC) < timedelta(hours=2.1)


async def test_retry_after_counts_as_a_retry(backend: Backend) -> None:
    calls = Gauge()

    @task(retries=2)
    def busy(x: int) -> int:
        with calls.body():
            raise RetryAfter(0)

    assert (await failure(backend, Flow("f").then(busy).build())).error_type == "RetryAfter"
    assert calls.total == 3


@pytest.mark.parametrize(
    ("policy", "error", "runs"),
    [
        (soon(3), NonRetryable("never"), 1),
        (soon(3, retry_on=(KeyError,)), KeyError("k"), 4),
        (soon(3, retry_on=(LookupError,)), KeyError("k"), 4),
        (soon(3, retry_on=(KeyError,)), ValueError("v"), 1),
        (soon(3, give_up_on=(ValueError,)), ValueError("v"), 1),
        (soon(3, retry_on=(Exception,), give_up_on=(LookupError,)), KeyError("k"), 1),
        (soon(3), SystemExit(3), 1),
        (soon(3), KeyboardInterrupt(), 1),
    ],
)
async def test_what_is_tried_again(
    backend: Backend, policy: RetryPolicy, error: BaseException, runs: int
) -> None:
    calls = Gauge()

    @task(retries=policy)
    def fails(x: int) -> int:
        with calls.body():
            raise error

    assert (await failure(backend, Flow("f").then(fails).build())).error_type == type(
        error
    ).__name__
    assert calls.total == runs


async def test_each_use_of_a_task_has_attempts_of_its_own(backend: Backend) -> None:
    seen: list[tuple[str, int]] = []

    @task(retries=soon(2))
    def flaky(x: int) -> int:
        context = get_task_context()
        assert context is not None
        seen.append((context.path, context.attempt))
        if context.attempt == 1:
            raise ValueError("first")
        return x + 1

    assert await outcome(backend, Flow("f").then(flaky).then(flaky).build(), 0) == 2
    paths = list(dict.fromkeys(path for path, _ in seen))
    assert len(paths) == 2
    assert seen == [(path, attempt) for path in paths for attempt in (1, 2)]


async def test_a_failed_branch_fails_the_instance_once_the_others_rest(backend: Backend) -> None:
    good = Gauge()

    def bad(x: int) -> int:
        raise ValueError("bad branch")

    def fine(x: int) -> int:
        with good.body():
            return x

    def never(both: dict[str, int]) -> None:
        raise AssertionError("a join without one of its branches")

    fork = Flow("f").fork().branch(bad).branch(fine).join(never).build()
    error = await failure(backend, fork)
    assert (error.task, error.message) == ("bad", "bad branch")
    assert good.total <= 1


# What is kept.


@pytest.mark.parametrize("where", WAYS)
async def test_the_error_is_told_in_full(backend: Backend, where: str) -> None:
    def chained() -> BaseException:
        error = ValueError("no funds")
        error.__cause__ = KeyError("account")
        return error

    error = await failure(backend, raising(chained, where))
    assert (error.task, error.path, error.instance_id) == ("body", "body", "i")
    assert (error.error_type, error.message) == ("ValueError", "no funds")
    assert error.traceback is not None
    assert "raise error()" in error.traceback
    assert "KeyError: 'account'" in error.traceback
    # How the engine came to call it is of no use to whoever reads this.
    for inner in ("_runner.py", "_invoke.py", "_worker.py"):
        assert inner not in error.traceback
    status = await WorkflowClient(backend).status("i")
    assert (status.error_type, status.error) == ("ValueError", "no funds")
    assert status.traceback == error.traceback


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


HOSTILE: dict[str, tuple[Callable[[], BaseException], str]] = {
    "whose text fails": (Unspeakable, "RuntimeError"),
    "whose text is none": (NotText, "TypeError"),
    "with NUL": (lambda: ValueError("a\0b"), "a�b"),
    "with surrogates": (lambda: ValueError("a\ud800b"), "a?b"),
    "of 10 MB": (lambda: ValueError("x" * 10_000_000), "xxx"),
    "without text": (ValueError, ""),
    "a group": (lambda: ExceptionGroup("many", [ValueError("one"), KeyError("two")]), "many"),
    "cancelled": (asyncio.CancelledError, ""),
    "stop iteration": (lambda: StopIteration(3), ""),
    "generator exit": (GeneratorExit, ""),
    "exit": (lambda: SystemExit(3), "3"),
    "interrupt": (KeyboardInterrupt, ""),
}


@pytest.mark.parametrize("where", WAYS)
@pytest.mark.parametrize("kind", HOSTILE)
async def test_whatever_is_raised_fails_the_instance_alone(
    backend: Backend, kind: str, where: str
) -> None:
    error, text = HOSTILE[kind]
    bad, good = raising(error, where), Flow("good").then(lambda x: x + 1).build()
    client = WorkflowClient(backend)
    async with Worker(backend, [bad, good], concurrency=1, poll_interval=NEVER):
        failing = await client.submit(bad, "bad", 0)
        following = await client.submit(good, "good", 1)
        with pytest.raises(WorkflowFailed) as caught:
            await failing.result(timeout=5)
        assert await following.result(timeout=5) == 2
    cause = caught.value.__cause__
    assert isinstance(cause, TaskError)
    assert cause.task == "body"
    assert text in cause.message
    assert len(cause.message.encode()) <= 66_000
    assert len((cause.traceback or "").encode()) <= 66_000


async def test_an_endless_chain_of_causes_is_cut(backend: Backend) -> None:
    def knot() -> BaseException:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        return one

    def tower() -> BaseException:
        error: BaseException = ValueError("ground")
        for floor in range(500):
            above = ValueError(f"floor {floor}")
            above.__cause__ = error
            error = above
        return error

    for at, make in enumerate((knot, tower)):
        error = await failure(backend, raising(make, "thread"), f"i-{at}")
        assert error.error_type == "ValueError"
        assert len((error.traceback or "").encode()) <= 66_000


# What cannot be stored.


@pytest.mark.parametrize("where", ["thread", "loop", "inline"])
async def test_an_output_that_cannot_be_stored_fails_at_once(backend: Backend, where: str) -> None:
    calls = Gauge()

    def lock(x: int) -> Any:
        with calls.body():
            return threading.Lock()

    async def later_lock(x: int) -> Any:
        return lock(x)

    body: Callable[..., Any] = later_lock if where == "loop" else lock
    more: dict[str, Any] = {"run_in": "inline"} if where == "inline" else {}
    given = task("make-lock", retries=soon(5), **more)(body)
    error = await failure(backend, Flow("f").then(given).build())
    assert calls.total == 1
    assert error.error_type == "EncodeError"
    assert "make-lock" in str(error)
    assert "lock" in error.message


async def test_an_output_inside_a_map_or_fork_is_refused_the_same(backend: Backend) -> None:
    def generator(x: int) -> Any:
        return (n for n in range(x))

    mapped = Flow("m").then(lambda x: [1, 2]).map(generator).build()
    error = await failure(backend, mapped, "m")
    assert (error.task, error.error_type) == ("generator", "EncodeError")
    forked = Flow("f").fork().branch(generator).join(lambda x: x).build()
    error = await failure(backend, forked, "f")
    assert (error.task, error.error_type) == ("generator", "EncodeError")


async def test_failures_in_a_row_let_the_loop_go(backend: Backend) -> None:
    turns = 0

    async def fails(x: int) -> None:
        raise ValueError(x)

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    workflow = (
        Flow("f")
        .then(lambda n: list(range(n)), name="many")
        .map(fails, on_error="collect")
        .then(len, name="count")
        .build()
    )
    async with Worker(backend, workflow, concurrency=1, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "i", 2000)
        task = asyncio.create_task(others())
        assert await handle.result(timeout=LONG) == 2000
        task.cancel()
    # They take tens of milliseconds in all; without a pause the loop would turn a few times.
    assert turns > 20
