"""Cancel, pause, unpause and events in every state of an instance: the table, cell by cell."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sayiir import (
    Flow,
    InstanceNotFoundError,
    InvalidStateError,
    Status,
    Workflow,
    WorkflowClient,
)

from .stepping import HOUR, STATES, TOUR, Stage, Stages

ENDED = ("completed", "failed", "cancelled")
LIVE = ("in_progress", "waiting", "awaiting_signal", "paused")

Call = Callable[[WorkflowClient, str], Awaitable[None]]
CALLS: dict[str, Call] = {
    "cancel": lambda client, name: client.cancel(name, "because", "me"),
    "pause": lambda client, name: client.pause(name, "because", "me"),
    "unpause": lambda client, name: client.unpause(name),
    "send_event": lambda client, name: client.send_event(name, "go", 1),
}
# What is true after the call; `state!` is an `InvalidStateError` that changes nothing.
TABLE = {
    "cancel": dict.fromkeys(STATES, "cancelled") | {"completed": "state!", "failed": "state!"},
    "pause": dict.fromkeys(LIVE, "paused") | dict.fromkeys(ENDED, "state!"),
    "unpause": dict.fromkeys(STATES, "state!") | {"paused": "in_progress"},
    "send_event": {state: state for state in LIVE}
    | {"awaiting_signal": "in_progress"}
    | dict.fromkeys(ENDED, "state!"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", CALLS)
async def test_the_table(stages: Stages, verb: str, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    before = await stage.client.status("i")
    expected = TABLE[verb][state]
    if expected == "state!":
        with pytest.raises(InvalidStateError) as raised:
            await CALLS[verb](stage.client, "i")
        assert raised.value.state == state
        assert raised.value.instance_id == "i"
        assert "'i'" in str(raised.value)
        assert state in str(raised.value)
        assert await stage.client.status("i") == before
    else:
        await CALLS[verb](stage.client, "i")
        assert (await stage.client.status("i")).status == expected


@pytest.mark.parametrize("verb", ["cancel", "pause", "unpause"])
async def test_an_unknown_instance_is_not_found(stages: Stages, verb: str) -> None:
    stage = stages()
    with pytest.raises(InstanceNotFoundError, match="'ghost'") as raised:
        await CALLS[verb](stage.client, "ghost")
    assert raised.value.instance_id == "ghost"
    assert isinstance(raised.value, LookupError)


async def test_a_refused_unpause_says_unpause(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    with pytest.raises(InvalidStateError, match="unpause"):
        await stage.client.unpause("i")


@pytest.mark.parametrize("state", LIVE)
async def test_a_cancel_tells_who_and_why(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    await stage.client.cancel("i", "too late", "ann")
    status = await stage.client.status("i")
    assert (status.status, status.reason, status.cancelled_by) == (
        Status.CANCELLED,
        "too late",
        "ann",
    )
    assert status.paused_by is None


@pytest.mark.parametrize("state", ["in_progress", "waiting", "awaiting_signal"])
async def test_a_pause_tells_who_and_why(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    await stage.client.pause("i", "lunch", "bob")
    status = await stage.client.status("i")
    assert (status.status, status.reason, status.paused_by) == (Status.PAUSED, "lunch", "bob")
    assert status.cancelled_by is None


async def test_the_first_pause_and_the_first_cancel_stay(stages: Stages) -> None:
    stage = stages()
    await stage.reach("paused")
    await stage.client.pause("i", "again", "other")
    assert (await stage.client.status("i")).paused_by == "ops"
    await stage.client.cancel("i", "end", "ann")
    await stage.client.cancel("i", "again", "other")
    status = await stage.client.status("i")
    assert (status.reason, status.cancelled_by) == ("end", "ann")


@pytest.mark.parametrize("state", ["in_progress", "waiting", "awaiting_signal"])
async def test_unpause_goes_back_to_where_it_was(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    before = await stage.client.status("i")
    await stage.client.pause("i")
    await stage.client.unpause("i")
    after = await stage.client.status("i")
    assert after.status == state
    assert after.reason is None
    assert (after.wake_at, after.delay_id, after.signal_id, after.signal_name) == (
        before.wake_at,
        before.delay_id,
        before.signal_id,
        before.signal_name,
    )


async def test_unpause_wakes_whoever_looks_for_work(stages: Stages) -> None:
    stage = stages()
    await stage.reach("paused")
    heard: list[tuple[str, str]] = []
    stop = stage.backend.listen(lambda kind, name: heard.append((kind, name)))
    await stage.client.unpause("i")
    stop()
    assert ("work", "i") in heard
    assert await stage.run("i") == "parked"


async def test_a_paused_instance_is_not_run(stages: Stages) -> None:
    stage = stages()
    await stage.reach("paused")
    assert await stage.backend.claim(stage.claimant, 10) == []


async def test_a_delay_that_passes_during_a_pause_is_over(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    await stage.client.pause("i")
    stage.now += HOUR
    assert await stage.backend.claim(stage.claimant, 10) == []
    await stage.client.unpause("i")
    assert await stage.run("i") == "parked"
    assert (await stage.client.status("i")).signal_name == "go"


async def test_an_event_is_delivered_and_wakes(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    await stage.client.send_event("i", "go", {"by": "ann"})
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == {"event": {"by": "ann"}}


async def test_an_event_of_another_name_wakes_nobody(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    await stage.client.send_event("i", "stop", 1)
    assert (await stage.client.status("i")).status == "awaiting_signal"


@pytest.mark.parametrize("state", ["in_progress", "waiting"])
async def test_an_early_event_is_buffered(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    await stage.client.send_event("i", "go", "early")
    assert (await stage.client.status("i")).status == state
    if state == "in_progress":
        await stage.run("i")
    stage.now += HOUR
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == {"event": "early"}


async def test_an_event_for_a_paused_instance_is_delivered_after_unpause(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    await stage.client.pause("i")
    await stage.client.send_event("i", "go", "later")
    assert (await stage.client.status("i")).status == "paused"
    await stage.client.unpause("i")
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == {"event": "later"}


async def test_an_event_may_come_before_its_instance(stages: Stages) -> None:
    stage = stages()
    await stage.client.send_event("i", "go", "first of all")
    with pytest.raises(InstanceNotFoundError):
        await stage.client.status("i")
    await stage.reach("waiting")
    stage.now += HOUR
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == {"event": "first of all"}


TWICE: Workflow[Any, list[Any]] = (
    Flow("twice")
    .wait_for_event("go", node="one")
    .then(lambda got: got, name="keep")
    .wait_for_event("go", node="two")
    .build()
)


async def events_of(stage: Stage, name: str) -> list[Any]:
    """The payloads that the two waits of a `TWICE` got."""
    assert await stage.run(name) == "completed"
    return [await stage.client.get_task_result(name, node) for node in ("one", "two")]


async def test_events_come_in_the_order_they_were_sent(stages: Stages) -> None:
    stage = stages(TWICE)
    await stage.client.submit(TWICE, "t")
    for payload in ("a", "b", "c"):
        await stage.client.send_event("t", "go", payload)
    assert await events_of(stage, "t") == ["a", "b"]


async def test_a_repeated_key_has_no_effect(stages: Stages) -> None:
    stage = stages(TWICE)
    await stage.client.submit(TWICE, "t")
    for payload, key in (("a", "k"), ("again", "k"), ("b", "other"), ("c", None)):
        await stage.client.send_event("t", "go", payload, idempotency_key=key)
    assert await events_of(stage, "t") == ["a", "b"]


async def test_the_older_name_of_send_event(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    await stage.client.send_signal("i", "go", 1)
    assert (await stage.client.status("i")).status == "in_progress"


# While a worker holds the instance.


async def test_a_held_instance_is_cancelled_at_the_next_boundary(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.cancel("i", "stop it", "ann")
    status = await stage.client.status("i")
    assert (status.status, status.reason) == ("in_progress", "stop it")
    assert await held.finish() == "cancelled"
    status = await stage.client.status("i")
    assert (status.status, status.cancelled_by) == ("cancelled", "ann")


async def test_a_held_instance_is_paused_at_the_next_boundary(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.pause("i", "lunch", "bob")
    assert (await stage.client.status("i")).status == "in_progress"
    assert await held.finish() == "paused"
    assert (await stage.client.status("i")).paused_by == "bob"
    await stage.client.unpause("i")
    status = await stage.client.status("i")
    assert (status.status, status.delay_id) == ("waiting", "rest")


async def test_a_pause_can_be_taken_back_before_the_boundary(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.pause("i")
    await stage.client.unpause("i")
    assert await held.finish() == "parked"


async def test_a_cancel_beats_a_pending_pause(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.pause("i", "lunch", "bob")
    await stage.client.cancel("i", "enough", "ann")
    await stage.client.pause("i", "too late", "bob")
    assert await held.finish() == "cancelled"
    assert (await stage.client.status("i")).reason == "enough"


async def test_finished_work_is_never_reported_as_cancelled(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    await stage.client.send_event("i", "go", 1)
    held = await stage.take("i")
    await stage.client.cancel("i", "too late")
    assert await held.finish() == "completed"
    status = await stage.client.status("i")
    assert (status.status, status.reason, status.output) == ("completed", None, {"event": 1})


async def test_a_failure_beats_a_pending_cancel(stages: Stages) -> None:
    stage = stages()
    await stage.client.submit(TOUR, "i", "fail")
    held = await stage.take("i")
    await stage.client.cancel("i")
    assert await held.finish() == "failed"
    assert (await stage.client.status("i")).error_type == "ValueError"


async def test_an_event_reaches_an_instance_that_is_held(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    stage.now += HOUR
    claim = await stage.backend.claim_one(stage.claimant, "i")
    assert claim is not None
    await stage.client.send_event("i", "go", "while held")
    await stage.backend.release(stage.claimant.worker_id)
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == {"event": "while held"}


async def test_calls_at_one_time_leave_one_outcome(stages: Stages) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    calls = [call(stage.client, "i") for call in CALLS.values()]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(answer is None or isinstance(answer, InvalidStateError) for answer in answers)
    assert (await stage.client.status("i")).status == "cancelled"
