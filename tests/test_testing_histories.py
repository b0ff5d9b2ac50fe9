"""The assertions on a history: what they let pass, what they refuse, and what they say."""

from datetime import UTC, datetime

import pytest

from sayiir import StepInfo
from sayiir.testing import History, assert_never_ran, assert_ran, assert_ran_once

AT = datetime(2031, 5, 6, tzinfo=UTC)


def step(
    path: str, outcome: str = "completed", attempt: int = 1, error: str | None = None
) -> StepInfo:
    task = path.split("/")[-1].split("[")[0].split("~")[0]
    return StepInfo(path, task, attempt, "w", AT, AT, outcome, None, error)


HISTORY = History(
    [
        step("check"),
        step("charge", "retried", 1, "ConnectionError"),
        step("charge", attempt=2),
        step("fork/left/pack"),
        step("rest", "elapsed"),
        step("charge~2", "failed", 1, "ValueError"),
    ]
)


def test_what_it_says_of_itself() -> None:
    assert HISTORY.paths == ["check", "charge", "fork/left/pack", "rest"]
    assert HISTORY.tasks == ["check", "charge", "pack", "rest"]
    assert [HISTORY.attempts(name) for name in ("check", "charge", "pack", "no")] == [1, 2, 1, 0]
    assert len(HISTORY) == 6
    assert HISTORY[0] == step("check")
    assert [*HISTORY[1:3]] == HISTORY.of("charge")
    assert History(list(HISTORY)) == HISTORY
    assert hash(History(list(HISTORY))) == hash(HISTORY)
    assert [*HISTORY] != HISTORY
    assert "charge: completed, attempt 2" in repr(HISTORY)
    assert str(History([])) == "  (nothing has run)"


def test_what_ran_in_order() -> None:
    assert_ran(HISTORY)
    assert_ran(HISTORY, "check", "charge", "rest")
    assert_ran(HISTORY, "charge", "fork/left/pack")
    assert_ran([*HISTORY], "pack", "rest")
    with pytest.raises(AssertionError, match="'charge' did not run behind 'pack'"):
        assert_ran(HISTORY, "pack", "charge")
    with pytest.raises(AssertionError, match="'check' did not run behind 'check'"):
        assert_ran(HISTORY, "check", "check")
    for name in ("charge~2", "nothing"):
        with pytest.raises(AssertionError, match=f"'{name}' did not run to a good end"):
            assert_ran(HISTORY, name)


def test_what_ran_once() -> None:
    assert_ran_once(HISTORY, "rest", "check", "pack")
    with pytest.raises(AssertionError, match="'charge' had 2 attempts"):
        assert_ran_once(HISTORY, "check", "charge")
    with pytest.raises(AssertionError, match="'charge~2' failed"):
        assert_ran_once(HISTORY, "charge~2")
    with pytest.raises(AssertionError, match="'nothing' had 0 attempts"):
        assert_ran_once(HISTORY, "nothing")


def test_what_never_ran() -> None:
    assert_never_ran(HISTORY, "nothing", "left")
    with pytest.raises(AssertionError, match="'charge~2' ran 1 times"):
        assert_never_ran(HISTORY, "nothing", "charge~2")


def test_a_failure_shows_the_history() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_never_ran(HISTORY, "check")
    assert str(caught.value).splitlines()[1:] == [
        "  1. check: completed",
        "  2. charge: retried with ConnectionError",
        "  3. charge: completed, attempt 2",
        "  4. fork/left/pack: completed",
        "  5. rest: elapsed",
        "  6. charge~2 (charge): failed with ValueError",
    ]
