"""Programs written for published 1.0.0, unchanged: its documented names, arguments and answers.

They use only what that version documents: plain values, synchronous calls, no annotation that needs
another package. What has become asynchronous since (`WorkflowClient`, `Worker`) is not here.
"""

from typing import Any

import pytest

from sayiir import (
    Backend,
    BackendError,
    Flow,
    InMemoryBackend,
    LoopResult,
    OnMax,
    RetryPolicy,
    TaskError,
    TaskExecutionContext,
    Workflow,
    WorkflowError,
    WorkflowStatus,
    cancel_workflow,
    get_task_context,
    parse_duration,
    pause_workflow,
    resume_workflow,
    run_durable_workflow,
    run_workflow,
    send_signal,
    task,
    unpause_workflow,
)

SEEN: list[Any] = []


@task
def look_up(user_id: int) -> dict[str, Any]:
    return {"id": user_id, "name": "Ada"}


@task
def greet(user: dict[str, Any]) -> str:
    return f"hello {user['name']}"


@task(timeout="30s")
def reserve(order_id: int) -> dict[str, Any]:
    return {"order": order_id, "state": "reserved"}


@task("Take Payment", timeout="60s", retries=3, tags=["money"], description="Charges the card")
def take_payment(order: dict[str, Any]) -> dict[str, Any]:
    return order | {"state": "paid"}


def test_tasks_in_a_row() -> None:
    workflow = Flow("welcome").then(look_up).then(greet).build()
    assert isinstance(workflow, Workflow)
    assert run_workflow(workflow, 42) == "hello Ada"


def test_a_task_is_still_the_function() -> None:
    assert greet({"name": "Bo"}) == "hello Bo"


def test_lambdas_in_a_row() -> None:
    workflow = (
        Flow("pipeline")
        .then(lambda x: x * 2)
        .then(lambda x: x + 1)
        .then(lambda x: str(x), name="as_text")
        .build()
    )
    assert run_workflow(workflow, 5) == "11"


def test_a_durable_run_and_its_status() -> None:
    workflow = Flow("order").then(reserve).then(take_payment).build()
    status = run_durable_workflow(workflow, "order-1", 42)
    assert isinstance(status, WorkflowStatus)
    assert status.output == {"order": 42, "state": "paid"}
    assert status.status == "completed"
    assert status.is_completed()
    assert not status.is_failed()
    assert not status.is_cancelled()
    assert not status.is_paused()
    assert not status.is_in_progress()
    assert (status.error, status.reason, status.cancelled_by) == (None, None, None)


def test_a_failed_status() -> None:
    def refuse(order_id: int) -> None:
        raise ValueError(f"no order {order_id}")

    status = run_durable_workflow(Flow("bad").then(refuse).build(), "bad-1", 7, InMemoryBackend())
    assert status.status == "failed"
    assert status.is_failed()
    assert "no order 7" in str(status.error)
    with pytest.raises(WorkflowError):
        run_workflow(Flow("bad").then(refuse).build(), 7)
    with pytest.raises(TaskError, match="no order 7"):
        run_workflow(Flow("bad").then(refuse).build(), 7)


def test_with_an_id_and_a_backend(backend: Backend) -> None:
    workflow = Flow("welcome").then(look_up).then(greet).build()
    assert run_workflow(workflow, 1, instance_id="w-1", backend=backend) == "hello Ada"
    assert resume_workflow(workflow, "w-1", backend).output == "hello Ada"


def test_retries_by_number_and_by_policy() -> None:
    tries: list[str] = []

    @task(retries=RetryPolicy(max_retries=3, initial_delay_secs=0.01, backoff_multiplier=2.0))
    def flaky(url: str) -> str:
        tries.append(url)
        if len(tries) < 3:
            raise ConnectionError("try again")
        return url

    assert run_workflow(Flow("net").then(flaky).build(), "u") == "u"
    assert tries == ["u", "u", "u"]
    policy = RetryPolicy()
    assert (policy.max_retries, policy.initial_delay_secs, policy.backoff_multiplier) == (2, 1, 2)


def test_fork_and_join() -> None:
    def check_card(order: dict[str, int]) -> dict[str, str]:
        return {"card": "valid"}

    def fetch(order: dict[str, int]) -> int:
        return order["id"]

    def times_ten(number: int) -> int:
        return number * 10

    def merge(results: dict[str, Any]) -> dict[str, Any]:
        return results

    workflow = (
        Flow("checkout")
        .fork()
        .branch(check_card)
        .branch(fetch, times_ten, name="stock")
        .join(merge)
        .build()
    )
    assert run_workflow(workflow, {"id": 7}) == {"check_card": {"card": "valid"}, "stock": 70}


@pytest.mark.parametrize("as_dict", [True, False])
def test_loops(as_dict: bool) -> None:
    def refine(draft: str) -> Any:
        better = draft + "!"
        result = LoopResult.done(better) if len(better) >= 8 else LoopResult.again(better)
        return result.to_dict() if as_dict else result

    workflow = (
        Flow("polish").then(lambda x: x).loop(refine, max_iterations=5).then(str.upper).build()
    )
    assert run_workflow(workflow, "draft") == "DRAFT!!!"
    assert LoopResult.done(1).to_dict() == {"_loop": "done", "value": 1}


@pytest.mark.parametrize("on_max", ["exit_with_last", OnMax.EXIT_WITH_LAST])
def test_a_loop_that_reaches_its_bound(on_max: Any) -> None:
    def more(x: int) -> dict[str, Any]:
        return LoopResult.again(x + 1).to_dict()

    ending = Flow("count").loop(more, max_iterations=4, on_max=on_max).build()
    assert run_workflow(ending, 0) == 4
    with pytest.raises(WorkflowError):
        run_workflow(Flow("count").loop(more, max_iterations=4).build(), 0)


@pytest.mark.parametrize(("kind", "key"), [("invoice", "billing"), ("bug", "tech"), ("?", "?")])
def test_routes(kind: str, key: str) -> None:
    def classify(ticket: dict[str, Any]) -> str:
        return {"invoice": "billing", "bug": "tech"}.get(ticket["type"], "?")

    workflow = (
        Flow("support")
        .route(classify, keys=["billing", "tech"])
        .branch("billing", lambda ticket: f"billing {ticket['id']}")
        .branch("tech", lambda ticket: f"tech {ticket['id']}")
        .default_branch(lambda ticket: f"? {ticket['id']}")
        .done()
        .build()
    )
    output = run_workflow(workflow, {"id": 1, "type": kind})
    assert output == {"branch": key, "result": f"{key} 1"}


def test_a_route_without_a_branch_for_the_key_fails() -> None:
    workflow: Workflow[Any, Any] = (
        Flow("support")
        .route(lambda ticket: "elsewhere", keys=["billing"])
        .branch("billing", lambda ticket: ticket)
        .done()
        .build()
    )
    with pytest.raises(WorkflowError, match="elsewhere"):
        run_workflow(workflow, {})


def test_a_delay_parks_and_is_passed(backend: Backend) -> None:
    workflow = Flow("nap").then(lambda x: x + 1).delay("rest", "1h").then(str).build()
    status = run_durable_workflow(workflow, "nap-1", 1, backend=backend)
    assert status.status == "waiting"
    short = Flow("nap").delay("blink", 0.01).then(str).build()
    assert run_workflow(short, 1) == "1"


def test_a_signal_is_waited_for_and_sent(backend: Backend) -> None:
    workflow = (
        Flow("approve")
        .then(lambda x: x)
        .wait_for_signal("decision", name="gate", timeout="1d")
        .then(lambda decision: decision["by"], name="who")
        .build()
    )
    status = run_durable_workflow(workflow, "a-1", 1, backend)
    assert status.status == "awaiting_signal"
    send_signal("a-1", "decision", {"by": "ann"}, backend)
    assert resume_workflow(workflow, "a-1", backend).output == "ann"


def test_pausing_and_cancelling(backend: Backend) -> None:
    workflow = Flow("hold").wait_for_signal("go").then(lambda x: x).build()
    run_durable_workflow(workflow, "h-1", None, backend)
    pause_workflow("h-1", backend, reason="lunch", paused_by="ann")
    assert resume_workflow(workflow, "h-1", backend).is_paused()
    unpause_workflow("h-1", backend)
    cancel_workflow("h-1", backend, reason="over", cancelled_by="bob")
    status = resume_workflow(workflow, "h-1", backend)
    assert status.is_cancelled()
    assert (status.reason, status.cancelled_by) == ("over", "bob")
    with pytest.raises(BackendError):
        cancel_workflow("ghost", backend)


@task(timeout="30s", retries=2, tags=["io"], description="looks at itself")
def look_at_yourself(x: int) -> int:
    SEEN.append(get_task_context())
    return x


def test_the_context_of_a_task() -> None:
    SEEN.clear()
    assert get_task_context() is None
    workflow = Flow("ctx", metadata={"team": "core"}).then(look_at_yourself).build()
    run_durable_workflow(workflow, "ctx-1", 1)
    [context] = SEEN
    assert isinstance(context, TaskExecutionContext)
    assert (context.workflow_id, context.instance_id) == ("ctx", "ctx-1")
    assert context.task_id == "look_at_yourself"
    assert context.metadata.timeout_secs == 30.0
    assert list(context.metadata.tags) == ["io"]
    assert context.metadata.description == "looks at itself"
    assert context.metadata.retries is not None
    assert context.metadata.retries.max_retries == 2
    assert context.workflow_metadata == {"team": "core"}
    assert get_task_context() is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86_400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
