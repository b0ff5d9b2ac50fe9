"""Submitting an id that is taken: every policy in every state, and what is checked before what."""

import asyncio
import threading
from typing import Any

import pytest

from sayiir import (
    ConflictPolicy,
    DefinitionMismatchError,
    EncodeError,
    Flow,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    Workflow,
    WorkflowClient,
)
from sayiir.backends import Backend

from .stepping import HOUR, STATES, TOUR, Stages

POLICIES = list(ConflictPolicy)
OTHER: Workflow[Any, Any] = Flow("tour").then(str, name="other").build()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_free_id_creates(stages: Stages, policy: ConflictPolicy) -> None:
    stage = stages()
    handle = await stage.client.submit(TOUR, "i", "in", conflict_policy=policy)
    assert handle.details.is_in_progress()
    assert (await stage.client.status("i")).is_in_progress()


@pytest.mark.parametrize("state", STATES)
async def test_fail_refuses_and_changes_nothing(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    before = await stage.client.status("i")
    with pytest.raises(InstanceAlreadyExistsError, match=f"'i' already exists and is {state}") as e:
        await stage.client.submit(TOUR, "i", "new")
    assert e.value.instance_id == "i"
    assert await stage.client.status("i") == before


@pytest.mark.parametrize("state", STATES)
async def test_use_existing_answers_with_what_is_there(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    before = await stage.client.status("i")
    handle = await stage.client.submit(TOUR, "i", "new", conflict_policy="use_existing")
    assert handle.details == before
    assert handle.status == state
    assert handle.output == ({"event": "out"} if state == "completed" else None)
    assert handle.details.error == ("told to fail" if state == "failed" else None)
    reasons = {"paused": "a break", "cancelled": "no need"}
    assert handle.details.reason == reasons.get(state)
    assert await stage.client.status("i") == before


@pytest.mark.parametrize("state", STATES)
async def test_terminate_existing_replaces(stages: Stages, state: str) -> None:
    stage = stages()
    await stage.reach(state)
    stage.now += 1
    handle = await stage.client.submit(TOUR, "i", "new", conflict_policy="terminate_existing")
    assert handle.details.is_in_progress()
    status = await stage.client.status("i")
    assert status.is_in_progress()
    assert (status.reason, status.error, status.output) == (None, None, None)
    assert status.created_at is not None
    assert status.created_at.timestamp() == stage.now
    assert await stage.client.history("i") == []
    assert await stage.run("i") == "parked"
    assert await stage.client.get_task_result("i", "first") == ["new"]


async def test_terminate_existing_forgets_the_old_events(stages: Stages) -> None:
    stage = stages()
    await stage.reach("waiting")
    await stage.client.send_event("i", "go", "old")
    await stage.client.submit(TOUR, "i", "new", conflict_policy="terminate_existing")
    await stage.run("i")
    stage.now += HOUR
    assert await stage.run("i") == "parked"
    assert (await stage.client.status("i")).signal_name == "go"


async def test_a_late_write_of_the_replaced_run_is_refused(stages: Stages) -> None:
    stage = stages()
    await stage.reach("in_progress")
    held = await stage.take("i")
    await stage.client.submit(TOUR, "i", "new", conflict_policy="terminate_existing")
    assert await held.finish() == "lost"
    assert await stage.client.history("i") == []
    assert (await stage.client.status("i")).is_in_progress()


@pytest.mark.parametrize("policy", ["fail", "use_existing"])
@pytest.mark.parametrize("state", STATES)
async def test_another_definition_is_refused(stages: Stages, state: str, policy: Any) -> None:
    stage = stages(OTHER)
    await stage.reach(state)
    before = await stage.client.status("i")
    with pytest.raises(DefinitionMismatchError, match="'i'") as raised:
        await stage.client.submit(OTHER, "i", "new", conflict_policy=policy)
    assert raised.value.expected == OTHER.definition_hash
    assert raised.value.found == TOUR.definition_hash
    assert await stage.client.status("i") == before


async def test_terminate_existing_replaces_another_definition(stages: Stages) -> None:
    stage = stages(OTHER)
    await stage.reach("waiting")
    await stage.client.submit(OTHER, "i", "new", conflict_policy="terminate_existing")
    assert await stage.run("i") == "completed"
    assert await stage.client.result("i") == "new"


async def test_the_conflict_comes_before_the_encoding(stages: Stages) -> None:
    stage = stages(OTHER)
    await stage.reach("completed")
    with pytest.raises(InstanceAlreadyExistsError):
        await stage.client.submit(TOUR, "i", object())
    with pytest.raises(DefinitionMismatchError):
        await stage.client.submit(OTHER, "i", object())
    handle = await stage.client.submit(TOUR, "i", object(), conflict_policy="use_existing")
    assert handle.output == {"event": "out"}


async def test_an_input_that_cannot_be_stored_replaces_nothing(stages: Stages) -> None:
    stage = stages()
    await stage.reach("completed")
    with pytest.raises(EncodeError, match="nothing was stored for instance 'i'"):
        await stage.client.submit(TOUR, "i", object(), conflict_policy="terminate_existing")
    assert (await stage.client.status("i")).is_completed()


async def test_the_clients_policy_and_the_calls_own(stages: Stages) -> None:
    stage = stages()
    await stage.reach("completed")
    lenient = stage.client.with_conflict_policy("use_existing")
    assert lenient.backend is stage.backend
    assert lenient.conflict_policy is ConflictPolicy.USE_EXISTING
    assert stage.client.conflict_policy is ConflictPolicy.FAIL
    assert (await lenient.submit(TOUR, "i", 1)).output == {"event": "out"}
    with pytest.raises(InstanceAlreadyExistsError):
        await lenient.submit(TOUR, "i", 1, conflict_policy="fail")
    with pytest.raises(InstanceAlreadyExistsError):
        await stage.client.submit(TOUR, "i", 1)


# Batches.


async def test_a_batch_creates_all_in_order(stages: Stages) -> None:
    stage = stages()
    handles = await stage.client.submit_many(TOUR, [("a", 1), (None, 2), ("c", 3)])
    assert [handle.instance_id for handle in handles][::2] == ["a", "c"]
    for handle, value in zip(handles, (1, 2, 3), strict=True):
        assert handle.details.is_in_progress()
        await stage.run(handle.instance_id)
        assert await stage.client.get_task_result(handle.instance_id, "first") == [value]


async def test_an_empty_batch_is_nothing(stages: Stages) -> None:
    assert await stages().client.submit_many(TOUR, []) == []


@pytest.mark.parametrize("items", [[("new", 1), ("i", 2)], [("i", 2), ("new", 1)]])
async def test_a_batch_with_a_conflict_creates_nothing(
    stages: Stages, items: list[tuple[str, Any]]
) -> None:
    stage = stages(OTHER)
    await stage.reach("completed")
    with pytest.raises(InstanceAlreadyExistsError, match="'i'"):
        await stage.client.submit_many(TOUR, items)
    with pytest.raises(DefinitionMismatchError, match="'i'"):
        await stage.client.submit_many(OTHER, items, conflict_policy="use_existing")
    with pytest.raises(InstanceNotFoundError):
        await stage.client.status("new")


async def test_a_batch_with_an_input_that_cannot_be_stored_creates_nothing(stages: Stages) -> None:
    stage = stages()
    with pytest.raises(EncodeError, match="instance 'bad'"):
        await stage.client.submit_many(TOUR, [("good", 1), ("bad", object()), ("fine", 2)])
    assert len(await stage.client.list_instances()) == 0


async def test_the_conflict_of_a_batch_comes_before_the_encoding(stages: Stages) -> None:
    stage = stages()
    await stage.reach("completed")
    items: list[tuple[str, Any]] = [("new", 1), ("i", object())]
    with pytest.raises(InstanceAlreadyExistsError):
        await stage.client.submit_many(TOUR, items)
    with pytest.raises(InstanceAlreadyExistsError):
        await stage.client.submit_many(TOUR, [("bad", object()), ("i", 1)])
    new, old = await stage.client.submit_many(TOUR, items, conflict_policy="use_existing")
    assert (new.details.is_in_progress(), old.output) == (True, {"event": "out"})
    with pytest.raises(EncodeError):
        await stage.client.submit_many(TOUR, items, conflict_policy="terminate_existing")


async def test_a_batch_replaces_what_is_there(stages: Stages) -> None:
    stage = stages()
    await stage.reach("failed")
    items = [("i", "again"), ("j", "new")]
    for handle in await stage.client.submit_many(TOUR, items, conflict_policy="terminate_existing"):
        assert (await handle.refresh()).is_in_progress()


# Races.


@pytest.mark.parametrize("policy", POLICIES)
def test_of_many_at_once_one_creates(backend: Backend, policy: ConflictPolicy) -> None:
    """Eight threads with a loop each, twenty ids; a barrier makes them start each id together."""
    barrier = threading.Barrier(8)
    made: list[tuple[str, int, bool]] = []
    wrong: list[BaseException] = []

    async def contend(me: int) -> None:
        client = WorkflowClient(backend, policy)
        for round_ in range(20):
            barrier.wait()
            try:
                handle = await client.submit(TOUR, f"r{round_}", me)
            except InstanceAlreadyExistsError:
                continue
            made.append((handle.instance_id, me, handle.details.created_at is None))

    def compete(me: int) -> None:
        try:
            asyncio.run(contend(me))
        except BaseException as error:
            barrier.abort()
            wrong.append(error)

    threads = [threading.Thread(target=compete, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for round_ in range(20):
        created = [fresh for name, _, fresh in made if name == f"r{round_}"]
        if policy is ConflictPolicy.FAIL:
            assert created == [True]
        elif policy is ConflictPolicy.USE_EXISTING:
            assert len(created) == 8
            assert created.count(True) == 1
        else:
            assert created == [True] * 8
    assert len(asyncio.run(WorkflowClient(backend).list_instances())) == 20
