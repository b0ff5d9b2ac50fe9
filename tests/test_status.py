"""Statuses: the states, what goes with them, and that looking at one never raises."""

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any

import pytest

from sayiir import DecodeError, Status, WorkflowStatus

STATES = [
    "in_progress",
    "waiting",
    "awaiting_signal",
    "paused",
    "completed",
    "failed",
    "cancelled",
]


def completed(output: bytes | None, decode: Callable[[bytes], Any] | None) -> WorkflowStatus[Any]:
    return WorkflowStatus("i", "w", Status.COMPLETED, output_bytes=output, decode=decode)


def test_the_states_and_their_texts() -> None:
    assert [str(state) for state in Status] == STATES


@pytest.mark.parametrize("state", STATES)
def test_a_state_equals_its_text_and_may_be_given_as_it(state: Any) -> None:
    status: WorkflowStatus[Any] = WorkflowStatus("i", "w", state)
    assert type(status.status) is Status
    assert status.status == state
    assert f"{status.status}" == state


@pytest.mark.parametrize("state", STATES)
def test_exactly_one_predicate_is_true(state: str) -> None:
    status: WorkflowStatus[Any] = WorkflowStatus("i", "w", Status(state))
    true = [other for other in STATES if getattr(status, f"is_{other}")()]
    assert true == [state]
    assert status.is_terminal() == (state in {"completed", "failed", "cancelled"})
    assert status.status.is_terminal == status.is_terminal()


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="asleep"):
        WorkflowStatus("i", "w", "asleep")  # type: ignore[arg-type]


def test_everything_else_is_none_at_first() -> None:
    status: WorkflowStatus[Any] = WorkflowStatus("i", "w", Status.WAITING)
    names = ["output", "output_error", "error", "error_type", "traceback", "reason"]
    names += ["cancelled_by", "paused_by", "wake_at", "delay_id", "signal_id", "signal_name"]
    names += ["created_at", "updated_at"]
    assert {name: getattr(status, name) for name in names} == dict.fromkeys(names)


def test_it_never_changes() -> None:
    status: WorkflowStatus[Any] = WorkflowStatus("i", "w", Status.WAITING)
    with pytest.raises(FrozenInstanceError):
        status.error = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        status.output = 1  # type: ignore[misc]


def test_the_output_is_decoded_once_and_only_when_asked_for() -> None:
    calls: list[bytes] = []

    def decode(data: bytes) -> int:
        calls.append(data)
        return int(data)

    status = completed(b"42", decode)
    assert calls == []
    assert status.output == 42
    assert status.output_error is None
    assert status.output == 42
    assert calls == [b"42"]


def test_an_output_of_none_is_decoded_once_as_well() -> None:
    calls: list[bytes] = []
    status = completed(b"x", calls.append)
    assert status.output is None
    assert status.output is None
    assert calls == [b"x"]


def test_an_output_that_cannot_be_decoded_is_told_and_never_raised() -> None:
    refusal = DecodeError("damaged at byte 3")

    def decode(_: bytes) -> int:
        raise refusal

    status = completed(b"?", decode)
    assert status.output is None
    assert status.output_error is refusal


def test_any_failure_of_the_decoder_becomes_a_decode_error_without_the_payload() -> None:
    status = completed(b"secret", lambda data: int(data))
    assert status.output is None
    error = status.output_error
    assert isinstance(error, DecodeError)
    assert isinstance(error.__cause__, ValueError)
    assert "secret" not in str(error)
    assert "'i'" in str(error)


def test_the_representation_shows_no_payload_and_no_error_text() -> None:
    status: WorkflowStatus[Any] = WorkflowStatus(
        "i", "w", Status.FAILED, error="secret", error_type="ValueError", output_bytes=b"secret"
    )
    assert repr(status) == "<WorkflowStatus 'i' of 'w': failed with ValueError>"


def test_equal_when_all_facts_are() -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    one = WorkflowStatus[Any]("i", "w", Status.WAITING, wake_at=when, delay_id="d")
    assert one == WorkflowStatus[Any]("i", "w", Status.WAITING, wake_at=when, delay_id="d")
    assert one != WorkflowStatus[Any]("i", "w", Status.WAITING, wake_at=when, delay_id="e")
    assert completed(b"1", int) == completed(b"1", None)
    assert completed(b"1", int) != completed(b"2", int)
    assert len({one, one, completed(b"1", int)}) == 2


def test_pickling_takes_the_output_along_and_leaves_the_decoder() -> None:
    copy = pickle.loads(pickle.dumps(completed(b"7", lambda data: int(data))))
    assert copy.output == 7
    assert copy.decode is None
    assert copy == completed(b"7", None)
    broken = pickle.loads(pickle.dumps(completed(b"x", lambda data: int(data))))
    assert broken.output is None
    assert isinstance(broken.output_error, DecodeError)
