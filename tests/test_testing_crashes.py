"""`crash_after_each_step`: the same output wherever the worker dies, or the step that differs."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest

from sayiir import EventTimeout, Flow, RetryPolicy, get_task_context, task
from sayiir.testing import crash_after_each_step, crash_after_each_step_async


def same(value: Any) -> Any:
    return value


async def plus_one(n: int) -> int:
    return n + 1


def test_every_checkpoint_is_crashed_at_twice() -> None:
    report = crash_after_each_step(Flow("two").then(plus_one, name="a").then(same).build(), 1)
    assert report.output == 2
    assert [(p.number, p.moment, p.steps, p.repeated) for p in report.points] == [
        (1, "before", ("a",), ("a",)),
        (1, "after", ("a",), ()),
        (2, "before", ("same",), ("same",)),
        (2, "after", ("same",), ()),
    ]
    assert str(report.points[0]) == "before checkpoint 1, of 'a'"


def test_a_body_runs_as_often_as_the_crashes_say() -> None:
    seen: list[str] = []

    def note(n: int) -> int:
        context = get_task_context()
        assert context is not None
        seen.append(context.idempotency_key)
        return n

    report = crash_after_each_step(Flow("noted").then(note).build(), 1)
    # Twice without a crash, twice with the one before the commit, once with the one behind it.
    assert len(seen) == 5
    assert set(seen) == {"crash-test:note"}
    assert len(report.points) == 2


def test_flows_of_every_kind_hold() -> None:
    @task(retries=RetryPolicy(max_retries=1, initial_delay_secs=3600))
    async def flaky(n: int) -> int:
        context = get_task_context()
        assert context is not None
        if context.attempt == 1:
            raise ConnectionError("down")
        return n

    child = Flow("child").then(flaky).delay("rest", "30d").then(plus_one).build()
    flow = (
        Flow("every")
        .then(same, name="begin")
        .fork()
        .branch(child, name="left")
        .branch(same, name="right")
        .join(lambda both: [both["left"], both["right"]], name="both")
        .map(plus_one)
        .map(child, spread=True)
        .then(sum, name="total")
        .wait_for_event("go")
        .wait_for_event("stop", timeout="1d", on_timeout="continue")
        .then(lambda late: [late, late == EventTimeout("stop")], name="end")
        .build()
    )
    report = crash_after_each_step(flow, 1, events=[("go", "yes")])
    assert report.output == [EventTimeout("stop"), True]
    assert len(report.points) > 30
    assert any("every" in point.repeated or point.repeated for point in report.points)


def test_a_step_that_counts_is_found() -> None:
    ledger: list[int] = []

    def charge(cents: int) -> int:
        ledger.append(cents)
        return len(ledger)

    flow = Flow("pay").then(same, name="check").then(charge).then(same, name="thank").build()
    with pytest.raises(AssertionError) as caught:
        crash_after_each_step(flow, 5, reset=ledger.clear)
    text = str(caught.value)
    assert "The crash: before checkpoint 2, of 'charge'; after it 'charge' ran again." in text
    assert "The first step that differs: 'charge' gave 1, then 2" in text
    assert "The output without the crash: 1\nThe output with it: 2\n" in text
    assert "idempotency_key" in text


def test_what_the_output_does_not_show_is_observed() -> None:
    ledger: list[int] = []
    keyed: dict[str, int] = {}

    def charge(cents: int) -> str:
        ledger.append(cents)
        return "ok"

    def charge_once(cents: int) -> str:
        context = get_task_context()
        assert context is not None
        keyed[context.idempotency_key] = cents
        return "ok"

    flow = Flow("pay").then(charge).build()
    assert crash_after_each_step(flow, 5, reset=ledger.clear).output == "ok"
    with pytest.raises(
        AssertionError, match=r"Observed without the crash: \[5\]\nObserved with it"
    ):
        crash_after_each_step(flow, 5, reset=ledger.clear, observe=ledger.copy)
    once = Flow("pay").then(charge_once).build()
    crash_after_each_step(once, 5, reset=keyed.clear, observe=lambda: list(keyed.values()))


def test_what_differs_without_a_crash_is_told_apart() -> None:
    numbers = iter(range(100))
    flow = Flow("random").then(lambda _: next(numbers), name="draw").build()
    with pytest.raises(AssertionError) as caught:
        crash_after_each_step(flow)
    assert "a second time, without any crash" in str(caught.value)
    assert "The first step that differs: 'draw' gave 0, then 1" in str(caught.value)
    assert "reset=" in str(caught.value)


def test_a_failure_is_compared_too() -> None:
    calls: list[int] = []

    def refuse(_: object) -> None:
        calls.append(1)
        raise ValueError("no" if len(calls) == 1 else "not again")

    def always(_: object) -> None:
        raise ValueError("no")

    with pytest.raises(AssertionError) as caught:
        crash_after_each_step(Flow("refuse").then(refuse).build(), reset=calls.clear)
    assert "failed with ValueError of 'refuse': no\n" in str(caught.value)
    assert "failed with ValueError of 'refuse': not again" in str(caught.value)
    report = crash_after_each_step(Flow("always").then(always).build())
    assert (report.output, len(report.points)) == (None, 2)


def test_threads_of_the_dead_do_not_run_beside_the_living() -> None:
    began = threading.Event()
    one = threading.Semaphore()
    crowded: list[bool] = []

    def long(n: int) -> int:
        began.set()
        crowded.append(not one.acquire(blocking=False))
        time.sleep(0.01)
        one.release()
        return n

    async def short(n: int) -> int:
        # Ends while the other one is in its thread, and with it comes the first checkpoint.
        await asyncio.to_thread(began.wait)
        return n

    both = Flow("both").fork().branch(short, name="a").branch(long, name="b").join(dict).build()
    report = crash_after_each_step(both, 1, reset=began.clear)
    assert report.points[0].repeated == ("fork/a/short", "fork/b/long")
    assert not any(crowded)


def test_the_dead_commit_nothing() -> None:
    async def short(n: int) -> int:
        await began.wait()
        return n

    async def stubborn(n: int) -> int:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            for _ in range(20):
                await asyncio.sleep(0)
        return n

    began = asyncio.Event()
    both = Flow("both").fork().branch(short, name="a").branch(stubborn, name="b").join(dict)
    first = crash_after_each_step(both.build(), 1, reset=began.clear).points[0]
    assert first.steps == ("fork/a/short",)
    assert first.repeated == ("fork/a/short", "fork/b/stubborn")


def test_mocks_stand_in() -> None:
    def charge(_: int) -> str:
        raise ConnectionError("never in a test")

    flow = Flow("pay").then(charge).build()
    assert crash_after_each_step(flow, 5, mocks={charge: str}).output == "5"
    with pytest.raises(LookupError, match="'pya'"):
        crash_after_each_step(flow, 5, mocks={"pya": str})


def test_what_cannot_be_tried_is_said() -> None:
    flow = Flow("ask").wait_for_event("go").build()
    with pytest.raises(AssertionError, match=r"'ask' awaits event 'go'.*events=\[\('go', …\)\]"):
        crash_after_each_step(flow)
    three = Flow("three").then(same).then(same).then(same).build()
    with pytest.raises(ValueError, match=r"'three' has 3 checkpoints.* 6 runs, .* limit is 5"):
        crash_after_each_step(three, 1, limit=5)
    assert len(crash_after_each_step(three, 1, limit=6).points) == 6
    with pytest.raises(ValueError, match="limit"):
        crash_after_each_step(flow, limit=0)
    with pytest.raises(TypeError, match="workflow"):
        crash_after_each_step(same)  # type: ignore[arg-type]


async def test_on_an_event_loop() -> None:
    flow = Flow("two").then(plus_one).then(same).build()
    assert (await crash_after_each_step_async(flow, 1)).output == 2
    with pytest.raises(RuntimeError, match="await crash_after_each_step_async"):
        crash_after_each_step(flow, 1)
