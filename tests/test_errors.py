"""The exception tree: who is whose child, what each carries, and that all of it travels."""

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import sayiir
from sayiir import Status, WorkflowStatus

FAILED: WorkflowStatus[int] = WorkflowStatus(
    "order-1", "order", Status.FAILED, error="no funds", error_type="ValueError"
)
CANCELLED: WorkflowStatus[int] = WorkflowStatus(
    "order-1", "order", Status.CANCELLED, reason="too late", cancelled_by="ops"
)

PARENTS = {
    "SayiirError": (RuntimeError,),
    "WorkflowError": ("SayiirError",),
    "TaskError": ("WorkflowError",),
    "TaskTimeout": ("TaskError", TimeoutError),
    "WorkflowFailed": ("WorkflowError",),
    "WorkflowCancelled": ("WorkflowError",),
    "InstanceAlreadyExistsError": ("WorkflowError",),
    "DefinitionMismatchError": ("WorkflowError",),
    "BackendError": ("WorkflowError",),
    "InstanceNotFoundError": ("BackendError", LookupError),
    "InvalidStateError": ("BackendError",),
    "LeaseLostError": ("BackendError",),
    "BackendUnavailableError": ("BackendError", ConnectionError),
    "CodecError": ("SayiirError",),
    "EncodeError": ("CodecError", TypeError),
    "DecodeError": ("CodecError", ValueError),
    "SnapshotFormatError": ("CodecError",),
    "RetryAfter": (Exception,),
    "NonRetryable": (Exception,),
}

EVERY: list[Exception] = [
    sayiir.SayiirError("text"),
    sayiir.WorkflowError("text", instance_id="i"),
    sayiir.TaskError("t", "a/t", "ValueError", "no", "Traceback …", instance_id="i"),
    sayiir.TaskTimeout("t", "t", "TaskTimeout", "30 s"),
    sayiir.WorkflowFailed(FAILED),
    sayiir.WorkflowCancelled(CANCELLED),
    sayiir.InstanceAlreadyExistsError("text", instance_id="i"),
    sayiir.DefinitionMismatchError("text", expected="aa", found="bb", instance_id="i"),
    sayiir.BackendError("text"),
    sayiir.InstanceNotFoundError("text", instance_id="i"),
    sayiir.InvalidStateError("text", state="completed", instance_id="i"),
    sayiir.LeaseLostError("text", instance_id="i"),
    sayiir.BackendUnavailableError("text"),
    sayiir.CodecError("text"),
    sayiir.EncodeError("text"),
    sayiir.DecodeError("text"),
    sayiir.SnapshotFormatError("text"),
    sayiir.RetryAfter("1m", "later"),
    sayiir.RetryAfter(0),
    sayiir.NonRetryable("never"),
]


@pytest.mark.parametrize(("name", "parents"), PARENTS.items())
def test_the_tree(name: str, parents: tuple[Any, ...]) -> None:
    expected = tuple(getattr(sayiir, p) if isinstance(p, str) else p for p in parents)
    assert getattr(sayiir, name).__bases__ == expected


def test_each_exception_is_tried_here() -> None:
    assert {type(error).__name__ for error in EVERY} == set(PARENTS)


@pytest.mark.parametrize("error", EVERY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_class_text_and_attributes(error: Exception, protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)


def test_an_exception_of_the_user_can_be_raised_from_and_caught_by_family() -> None:
    with pytest.raises(sayiir.WorkflowError) as caught:
        try:
            raise ValueError("boom")
        except ValueError as cause:
            raise sayiir.TaskError("t", "t", "ValueError", "boom") from cause
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_task_error_names_task_place_instance_and_cause() -> None:
    error = sayiir.TaskError("t", "fork/a/t", "ValueError", "boom", "tb", instance_id="i-1")
    assert (error.task, error.path, error.error_type) == ("t", "fork/a/t", "ValueError")
    assert (error.message, error.traceback, error.instance_id) == ("boom", "tb", "i-1")
    assert str(error) == ("task 't' (at 'fork/a/t') of instance 'i-1' failed with ValueError: boom")


def test_a_task_error_without_a_text_names_the_class() -> None:
    assert str(sayiir.TaskError("t", "t", "KeyError", "")) == "task 't' failed with KeyError"


def test_results_that_never_came_say_why() -> None:
    failed = sayiir.WorkflowFailed(FAILED)
    assert failed.status is FAILED
    assert failed.instance_id == "order-1"
    assert str(failed) == "instance 'order-1' of workflow 'order' failed: ValueError: no funds"
    cancelled = sayiir.WorkflowCancelled(CANCELLED)
    assert cancelled.status is CANCELLED
    assert str(cancelled) == (
        "instance 'order-1' of workflow 'order' was cancelled by ops: too late"
    )


def test_attributes_have_defaults() -> None:
    mismatch = sayiir.DefinitionMismatchError("text")
    assert (mismatch.expected, mismatch.found, mismatch.instance_id) == (None, None, None)
    assert sayiir.InvalidStateError("text").state is None


def test_a_failed_status_with_an_output_still_travels() -> None:
    status: WorkflowStatus[int] = WorkflowStatus(
        "i", "w", Status.FAILED, output_bytes=b"7", decode=lambda b: int(b)
    )
    copy = pickle.loads(pickle.dumps(sayiir.WorkflowFailed(status)))
    assert copy.status.output == 7


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0, 0.0), (1.5, 1.5), ("2m", 120.0), (timedelta(hours=1), 3600.0)]
)
def test_retry_after_takes_any_duration(wait: Any, seconds: float) -> None:
    assert sayiir.RetryAfter(wait).seconds == seconds


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), 1e300, "soon"])
def test_retry_after_refuses_senseless_waits(wait: Any) -> None:
    with pytest.raises(ValueError, match="RetryAfter: seconds"):
        sayiir.RetryAfter(wait)


@pytest.mark.parametrize("wait", [None, True, datetime(2030, 1, 1, tzinfo=UTC)])
def test_retry_after_refuses_other_kinds(wait: Any) -> None:
    with pytest.raises(TypeError, match="RetryAfter: seconds"):
        sayiir.RetryAfter(wait)


def test_retry_after_says_why_or_how_long() -> None:
    assert str(sayiir.RetryAfter(90, "rate limited")) == "rate limited"
    assert str(sayiir.RetryAfter(90)) == "retry after 90 s"
