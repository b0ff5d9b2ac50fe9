"""Running in this process: results, failures, parking, resuming, and who else may be at work.

The same engine as a worker's, so what flows do is tested elsewhere; here it is about the functions
`run_…`, `resume_…` and their twins, and what they promise to a plain program.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import sayiir
from sayiir import (
    DefinitionMismatchError,
    EncodeError,
    Flow,
    InMemoryBackend,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    NonRetryable,
    RetryAfter,
    RetryPolicy,
    TaskError,
    TaskTimeout,
    Worker,
    Workflow,
    WorkflowCancelled,
    WorkflowError,
    cancel_workflow,
    get_task_context,
    pause_workflow,
    resume_workflow,
    resume_workflow_async,
    run_durable_workflow,
    run_durable_workflow_async,
    run_workflow,
    run_workflow_async,
    send_signal,
    send_signal_async,
    task,
    unpause_workflow,
)
from sayiir.backends import Backend
from sayiir.testing import VirtualClock

from .working import Places

HOUR = 3600.0


def double(x: int) -> int:
    return x * 2


async def plus_one(x: int) -> int:
    return x + 1


def broken(x: int) -> int:
    raise LookupError(f"nothing at {x}")


MATH: Workflow[int, int] = Flow("math").then(double).then(plus_one).build()
ASK: Workflow[int, Any] = (
    Flow("ask").then(double).wait_for_event("answer").then(lambda got: [got], name="keep").build()
)
NAP: Workflow[int, int] = Flow("nap").then(double).delay("rest", HOUR).then(plus_one).build()


def test_the_output_comes_back(backend: Backend) -> None:
    assert run_workflow(MATH, 20) == 41
    assert run_workflow(MATH, 20, backend=backend) == 41


async def test_the_output_comes_back_on_a_loop(backend: Backend) -> None:
    assert await run_workflow_async(MATH, 20) == 41
    assert await run_workflow_async(MATH, 20, backend=backend) == 41


def test_a_durable_run_gives_a_status(backend: Backend) -> None:
    status = run_durable_workflow(MATH, "m-1", 20, backend)
    assert (status.status, status.output, status.instance_id) == ("completed", 41, "m-1")


def test_a_failure_carries_the_original_exception(backend: Backend) -> None:
    flow: Workflow[int, int] = Flow("bad").then(double).then(broken).build()
    with pytest.raises(TaskError, match="'broken'") as raised:
        run_workflow(flow, 4, instance_id="b-1", backend=backend)
    error = raised.value
    assert isinstance(error.__cause__, LookupError)
    assert error.__cause__.args == ("nothing at 8",)
    assert (error.task, error.path, error.error_type) == ("broken", "broken", "LookupError")
    assert error.instance_id == "b-1"
    assert "nothing at 8" in (error.traceback or "")


def test_the_cause_of_a_failed_branch_is_the_branchs(backend: Backend) -> None:
    flow = Flow("bad").fork().branch(double).branch(broken).join(lambda both: both).build()
    with pytest.raises(TaskError) as raised:
        run_workflow(flow, 1, backend=backend)
    assert isinstance(raised.value.__cause__, LookupError)
    assert raised.value.task == "broken"


def test_a_failure_is_a_status_of_a_durable_run(backend: Backend) -> None:
    status = run_durable_workflow(Flow("bad").then(broken).build(), "b-1", 4, backend)
    assert (status.status, status.error_type, status.error) == (
        "failed",
        "LookupError",
        "nothing at 4",
    )
    assert "broken" in (status.traceback or "")


def test_a_timeout_is_a_timeout_error(backend: Backend) -> None:
    @task(timeout="10ms")
    async def slow(x: int) -> int:
        await asyncio.Event().wait()
        return x

    with pytest.raises(TimeoutError, match="'slow'") as raised:
        run_workflow(Flow("slow").then(slow).build(), 1, backend=backend)
    assert isinstance(raised.value, TaskTimeout)


@pytest.mark.parametrize("wait", [RetryPolicy(3, initial_delay_secs=0.01), 3])
def test_a_backoff_is_waited_for(backend: Backend, wait: Any) -> None:
    attempts: list[int] = []

    @task(retries=wait)
    def flaky(x: int) -> int:
        context = get_task_context()
        assert context is not None
        attempts.append(context.attempt)
        if len(attempts) < 3:
            raise RetryAfter("5ms") if wait == 3 else ValueError("not yet")
        return x

    status = run_durable_workflow(Flow("flaky").then(flaky).build(), "f-1", 7, backend)
    assert (status.output, attempts) == (7, [1, 2, 3])


def test_what_cannot_be_mended_is_not_retried(backend: Backend) -> None:
    attempts = []

    @task(retries=5)
    def hopeless(x: int) -> int:
        attempts.append(x)
        raise NonRetryable("the card was stolen")

    with pytest.raises(TaskError) as raised:
        run_workflow(Flow("once").then(hopeless).build(), 1, backend=backend)
    assert attempts == [1]
    assert isinstance(raised.value.__cause__, NonRetryable)


# Parking and going on.


def test_a_durable_run_parks_at_a_delay_and_goes_on(places: Places) -> None:
    clock = VirtualClock()
    backend = places(clock=clock)
    status = run_durable_workflow(NAP, "n-1", 4, backend)
    assert (status.status, status.delay_id, status.output) == ("waiting", "rest", None)
    assert status.wake_at is not None
    assert status.wake_at.timestamp() == clock() + HOUR
    assert resume_workflow(NAP, "n-1", backend).status == "waiting"
    clock.advance(HOUR)
    assert resume_workflow(NAP, "n-1", backend).output == 9
    assert resume_workflow(NAP, "n-1", backend).output == 9


def test_a_run_waits_for_its_delays(backend: Backend) -> None:
    flow = Flow("short").delay("blink", "10ms").then(double).build()
    assert run_workflow(flow, 4) == 8
    assert run_workflow(flow, 4, backend=backend) == 8


def test_a_durable_run_parks_at_an_event_and_goes_on(backend: Backend) -> None:
    status = run_durable_workflow(ASK, "a-1", 4, backend)
    assert (status.status, status.signal_name) == ("awaiting_signal", "answer")
    assert resume_workflow(ASK, "a-1", backend).status == "awaiting_signal"
    send_signal("a-1", "answer", {"yes": True}, backend)
    assert resume_workflow(ASK, "a-1", backend).output == [{"yes": True}]


def test_an_event_may_be_there_first(backend: Backend) -> None:
    send_signal("a-1", "answer", "early", backend)
    assert run_workflow(ASK, 4, instance_id="a-1", backend=backend) == ["early"]


async def test_a_run_on_a_shared_backend_waits_for_its_event(backend: Backend) -> None:
    run = asyncio.create_task(run_workflow_async(ASK, 4, instance_id="a-1", backend=backend))
    async with asyncio.timeout(20):
        # A park has no listener of its own, so the loop is let go until it shows.
        while len((await backend.find(status="awaiting_signal")).rows) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await send_signal_async("a-1", "answer", 1, backend)
        assert await run == [1]


def test_a_run_alone_with_its_event_says_so() -> None:
    with pytest.raises(WorkflowError, match=r"'answer'.*run_durable_workflow"):
        run_workflow(ASK, 4)


def test_a_pause_holds_a_resume_back(backend: Backend) -> None:
    run_durable_workflow(ASK, "a-1", 4, backend)
    pause_workflow("a-1", backend, "lunch", "ann")
    send_signal("a-1", "answer", 1, backend)
    status = resume_workflow(ASK, "a-1", backend)
    assert (status.status, status.reason, status.paused_by) == ("paused", "lunch", "ann")
    unpause_workflow("a-1", backend)
    assert resume_workflow(ASK, "a-1", backend).output == [1]
    with pytest.raises(InvalidStateError):
        pause_workflow("a-1", backend)


def test_a_cancel_ends_it(backend: Backend) -> None:
    run_durable_workflow(ASK, "a-1", 4, backend)
    cancel_workflow("a-1", backend, "too late", "ann")
    status = resume_workflow(ASK, "a-1", backend)
    assert (status.status, status.reason, status.cancelled_by) == ("cancelled", "too late", "ann")


def test_a_run_that_is_cancelled_from_within_says_so(backend: Backend) -> None:

    def give_up(x: int) -> int:
        cancel_workflow("c-1", backend, "from within")
        return x

    flow = Flow("c").then(give_up).then(double).build()
    with pytest.raises(WorkflowCancelled, match="from within") as raised:
        run_workflow(flow, 1, instance_id="c-1", backend=backend)
    assert raised.value.status.status == "cancelled"


@pytest.mark.parametrize("call", [resume_workflow, lambda wf, name, b: cancel_workflow(name, b)])
def test_an_unknown_instance_is_not_found(backend: Backend, call: Callable[..., Any]) -> None:
    with pytest.raises(InstanceNotFoundError, match="'ghost'"):
        call(MATH, "ghost", backend)


def test_a_resume_needs_the_same_definition(backend: Backend) -> None:
    run_durable_workflow(ASK, "a-1", 4, backend)
    with pytest.raises(DefinitionMismatchError) as raised:
        resume_workflow(MATH, "a-1", backend)
    assert (raised.value.expected, raised.value.found) == (
        MATH.definition_hash,
        ASK.definition_hash,
    )


def test_the_conflict_policies(backend: Backend) -> None:
    assert run_workflow(MATH, 1, instance_id="m", backend=backend) == 3
    with pytest.raises(InstanceAlreadyExistsError):
        run_workflow(MATH, 2, instance_id="m", backend=backend)
    with pytest.raises(InstanceAlreadyExistsError):
        run_durable_workflow(MATH, "m", 2, backend)
    existing: Any = {"instance_id": "m", "backend": backend, "conflict_policy": "use_existing"}
    assert run_workflow(MATH, 2, **existing) == 3
    again = run_durable_workflow(MATH, "m", 2, backend, conflict_policy="terminate_existing")
    assert again.output == 5
    with pytest.raises(ValueError, match="conflict_policy"):
        run_workflow(MATH, 1, conflict_policy="maybe")  # type: ignore[arg-type]


def test_an_input_that_cannot_be_stored_leaves_nothing(backend: Backend) -> None:
    with pytest.raises(EncodeError):
        run_workflow(Flow("odd").then(lambda x: x).build(), object(), backend=backend)
    assert len(asyncio.run(backend.find()).rows) == 0


# Exits, loops and others at work.


@pytest.mark.parametrize("exit_with", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_exit_propagates_and_the_instance_goes_on_later(
    backend: Backend, exit_with: type[BaseException], is_async: bool
) -> None:
    runs: list[str] = []
    asked = [True]

    def leave(x: int) -> int:
        runs.append("leave")
        if asked.pop() if asked else False:
            raise exit_with
        return x

    async def leave_async(x: int) -> int:
        return leave(x)

    def before(x: int) -> int:
        runs.append("before")
        return x

    step: Any = leave_async if is_async else leave
    flow: Workflow[int, int] = Flow("exit").then(before).then(step).then(double).build()
    with pytest.raises(exit_with):
        run_workflow(flow, 4, instance_id="e-1", backend=backend)
    assert asyncio.run(backend.get("e-1")).status == "in_progress"
    assert resume_workflow(flow, "e-1", backend).output == 8
    assert runs == ["before", "leave", "leave"]


BLOCKING = {
    "run_workflow": (MATH, 1),
    "run_durable_workflow": (MATH, "m", 1),
    "resume_workflow": (MATH, "m", InMemoryBackend()),
    "cancel_workflow": ("m", InMemoryBackend()),
    "pause_workflow": ("m", InMemoryBackend()),
    "unpause_workflow": ("m", InMemoryBackend()),
    "send_signal": ("m", "go", 1, InMemoryBackend()),
}


@pytest.mark.parametrize("name", BLOCKING)
async def test_on_a_running_loop_the_twin_is_named(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"await {name}_async\("):
        getattr(sayiir, name)(*BLOCKING[name])
    assert callable(getattr(sayiir, f"{name}_async"))


def test_two_resumes_at_once_run_each_task_once(backend: Backend) -> None:
    for turn in range(20):
        runs: Counter[str] = Counter()
        together = threading.Barrier(2)

        def count(name: str, runs: Counter[str] = runs) -> Any:
            def body(x: int) -> int:
                runs[name] += 1
                return x + 1

            return task(name)(body)

        flow = Flow("twice").wait_for_event("go").then(count("a")).then(count("b")).build()
        name = f"t-{turn}"
        run_durable_workflow(flow, name, 0, backend)
        send_signal(name, "go", 1, backend)
        outputs: list[Any] = []

        def resume(
            flow: Any = flow, name: str = name, backend: Any = backend, outputs: list[Any] = outputs
        ) -> None:
            together.wait()  # noqa: B023 - joined before the next turn
            outputs.append(resume_workflow(flow, name, backend).output)

        threads = [threading.Thread(target=resume) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (outputs, runs) == ([3, 3], {"a": 1, "b": 1})


async def test_a_worker_at_the_same_time_changes_nothing(backend: Backend) -> None:
    runs: Counter[int] = Counter()

    async def count(x: int) -> int:
        runs[x] += 1
        await asyncio.sleep(0)
        return x

    flow = Flow("shared").then(count).then(plus_one).build()
    async with Worker(backend, [flow]), asyncio.timeout(60):
        outputs = await asyncio.gather(
            *(run_workflow_async(flow, n, instance_id=f"s-{n}", backend=backend) for n in range(50))
        )
        statuses = [await resume_workflow_async(flow, f"s-{n}", backend) for n in range(50)]
        durable = await run_durable_workflow_async(flow, "s-50", 50, backend)
    assert outputs == [status.output for status in statuses] == list(range(1, 51))
    assert durable.output == 51
    assert runs == dict.fromkeys(range(51), 1)
