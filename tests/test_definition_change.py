"""New code for old instances: what may be edited while they run, and what waits for the old code.

Every edit is made twice: between submit and the first step, and in the middle, with the first step
done and the worker replaced. Tuning keeps the definition hash, and the instance goes on with the
new tuning; structure changes it, and then the new worker leaves the instance alone and says so,
every call that brings the new workflow is refused by name, and the old code still finishes it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from sayiir import (
    DefinitionMismatchError,
    Flow,
    LoopResult,
    RetryPolicy,
    Worker,
    Workflow,
    WorkflowClient,
    resume_workflow_async,
    run_workflow_async,
    task,
)
from sayiir.testing import HandWorker, VirtualClock, new_instance

from .working import Places

HOUR = 3600.0


def named(name: str, function: Callable[[Any], Any], **options: Any) -> Any:
    return task(name, **options)(function)


def grow(text: str, more: str) -> str:
    return f"{text}-{more}"


@dataclass
class Code:
    """One version of the code: `prepare`, a delay, `charge`, a loop, a map, `ship`."""

    prepare: dict[str, Any] = field(default_factory=dict)
    charge: dict[str, Any] = field(default_factory=dict)
    body: str = "old"
    delay: Any = HOUR
    wait: dict[str, Any] = field(default_factory=dict)
    bound: int = 3
    concurrency: int | None = None
    metadata: dict[str, Any] | None = None
    names: tuple[str, ...] = ("charge", "pack")

    def build(self) -> Workflow[str, Any]:
        """The workflow as this version has it."""
        flow = Flow("order", metadata=self.metadata).then(
            named("prepare", partial(grow, more=f"prepare {self.body}"), **self.prepare)
        )
        flow = flow.delay("rest", self.delay).wait_for_event("paid", **self.wait)
        for name in self.names:
            options = self.charge if name == "charge" else {}
            flow = flow.then(named(name, partial(grow, more=f"{name} {self.body}"), **options))
        return (
            flow.loop(
                named("settle", LoopResult.done),
                max_iterations=self.bound,
                on_max="exit_with_last",
            )
            .then(lambda text: [text], name="list")
            .map(named("label", lambda text: text), concurrency=self.concurrency)
            .build()
        )


OLD = Code()
TUNING = {
    "retries": Code(charge={"retries": 5}),
    "retry policy": Code(charge={"retries": RetryPolicy(2, initial_delay_secs=9.0)}),
    "timeout": Code(charge={"timeout": "90s"}),
    "first step's timeout": Code(prepare={"timeout": "90s"}),
    "delay": Code(delay=2 * HOUR),
    "wait's timeout": Code(wait={"timeout": "5h", "on_timeout": "fail"}),
    "loop bound": Code(bound=7),
    "concurrency": Code(concurrency=2),
    "tags": Code(charge={"tags": ["money"]}),
    "priority": Code(charge={"priority": 1}),
    "description": Code(charge={"description": "takes the money"}),
    "version": Code(charge={"version": "2"}),
    "metadata": Code(metadata={"team": "billing"}),
    "body": Code(body="new"),
    "way of running": Code(charge={"run_in": "inline"}),
}
STRUCTURE = {
    "added at the end": Code(names=("charge", "pack", "thank")),
    "added in front": Code(names=("check", "charge", "pack")),
    "removed": Code(names=("charge",)),
    "renamed": Code(names=("bill", "pack")),
    "reordered": Code(names=("pack", "charge")),
    "repeated": Code(names=("charge", "charge", "pack")),
    "another event": Code(wait={"node": "payment"}),
}


def make(places: Places) -> tuple[Any, VirtualClock, WorkflowClient]:
    clock = VirtualClock()
    made = places(clock=clock)
    return made, clock, WorkflowClient(made)


async def until(client: WorkflowClient, instance_id: str, status: str) -> None:
    """Wait for a state that must come."""
    async with asyncio.timeout(30):
        # A park has no listener of its own, so the loop is let go until it shows.
        while (await client.status(instance_id)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def start(backend: Any, client: WorkflowClient, workflow: Any, *, middle: bool) -> None:
    """Submit an order; in the middle, the first step is done and its worker has gone."""
    await client.submit(workflow, "o-1", "order")
    if middle:
        async with Worker(backend, workflow):
            await until(client, "o-1", "waiting")


async def finish(
    backend: Any,
    clock: VirtualClock,
    client: WorkflowClient,
    workflow: Any,
    delay: float,
    *,
    parked: bool = False,
) -> Any:
    """Let a worker with this code bring it to its end; `parked`: its delay is over."""
    async with Worker(backend, workflow, poll_interval="10ms", lease_ttl=9 * HOUR):
        if not parked:
            await until(client, "o-1", "waiting")
            clock.advance(delay)
        await until(client, "o-1", "awaiting_signal")
        await client.send_event("o-1", "paid", "paid")
        async with asyncio.timeout(30):
            return await client.result("o-1")


@pytest.mark.parametrize("edit", TUNING)
def test_tuning_is_not_in_the_hash(edit: str) -> None:
    assert TUNING[edit].build().definition_hash == OLD.build().definition_hash


@pytest.mark.parametrize("edit", STRUCTURE)
def test_structure_is_in_the_hash(edit: str) -> None:
    hashes = {code.build().definition_hash for code in (OLD, *STRUCTURE.values())}
    assert len(hashes) == 1 + len(STRUCTURE)
    assert STRUCTURE[edit].build().definition_hash != OLD.build().definition_hash


@pytest.mark.parametrize("middle", [False, True], ids=["before", "middle"])
@pytest.mark.parametrize("edit", TUNING)
async def test_an_instance_goes_on_with_the_new_tuning(
    edit: str, middle: bool, places: Places
) -> None:
    place, clock, client = make(places)
    new = TUNING[edit]
    workflow = new.build()
    await start(place, client, OLD.build(), middle=middle)
    # A delay that has begun keeps the end it was given.
    delay = HOUR if middle else float(new.delay)
    # What is done stays done: the first step's result is the old code's, and it never runs again.
    output = await finish(place, clock, client, workflow, delay)
    assert output == [f"paid-charge {new.body}-pack {new.body}"]
    prepared = await client.get_task_result("o-1", "prepare")
    assert prepared == f"order-prepare {'old' if middle else new.body}"
    tasks = [step.task for step in await client.history("o-1")]
    assert tasks[0] == "prepare"
    assert len(tasks) == len(set(tasks))


@pytest.mark.parametrize("middle", [False, True], ids=["before", "middle"])
@pytest.mark.parametrize("edit", STRUCTURE)
async def test_another_structure_never_touches_it_and_says_so(
    edit: str,
    middle: bool,
    places: Places,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, clock, client = make(places)
    old, new = OLD.build(), STRUCTURE[edit].build()
    await start(place, client, old, middle=middle)
    clock.advance(HOUR)
    before = await client.history("o-1")

    assert await HandWorker(place, [new]).claim() == []
    assert await HandWorker(place, [new]).claim_one("o-1") is None
    with caplog.at_level(logging.WARNING, logger="sayiir.worker"):
        async with Worker(place, new, poll_interval="5ms"), asyncio.timeout(30):
            # An instance of the new code is done meanwhile, so the worker was not just slow.
            await client.submit(new, "o-2", "order")
            await until(client, "o-2", "waiting")
            while not caplog.messages:  # noqa: ASYNC110
                await asyncio.sleep(0)
    [said] = {text for text in caplog.messages if "structure was changed" in text}
    assert "'order'" in said
    assert old.definition_hash[:12] in said
    assert await client.history("o-1") == before

    calls: list[Callable[[], Any]] = [
        lambda: client.submit(new, "o-1", "order"),
        lambda: client.submit(new, "o-1", "order", conflict_policy="use_existing"),
        lambda: client.submit_many(new, [("o-9", "order"), ("o-1", "order")]),
        lambda: resume_workflow_async(new, "o-1", place),
        lambda: run_workflow_async(
            new, "x", instance_id="o-1", backend=place, conflict_policy="use_existing"
        ),
    ]
    for call in calls:
        with pytest.raises(DefinitionMismatchError, match="'o-1'") as raised:
            await call()
        assert raised.value.expected == new.definition_hash
        assert raised.value.found == old.definition_hash
        assert raised.value.instance_id == "o-1"
    assert [row.instance_id for row in await client.list_instances()] == ["o-2", "o-1"]

    # Old and new code side by side: the old instance ends as it would have.
    if middle:
        async with Worker(place, [old, new], poll_interval="10ms"):
            await until(client, "o-1", "awaiting_signal")
    output = await finish(place, clock, client, [old, new], HOUR, parked=middle)
    assert output == ["paid-charge old-pack old"]


async def test_a_new_start_may_take_the_place_of_an_old_structure(places: Places) -> None:
    place, _, client = make(places)
    await start(place, client, OLD.build(), middle=True)
    new = STRUCTURE["renamed"].build()
    await client.submit(new, "o-1", "again", conflict_policy="terminate_existing")
    [row] = await client.list_instances()
    assert row.definition_hash == new.definition_hash
    assert await client.history("o-1") == []


async def test_a_smaller_number_of_retries_counts_the_attempts_made(places: Places) -> None:
    place, clock, client = make(places)

    def flaky(retries: int) -> Workflow[Any, Any]:
        policy = RetryPolicy(retries, initial_delay_secs=60.0)
        return Flow("flaky").then(named("call", lambda x: x, retries=policy)).build()

    await place.submit([new_instance(flaky(5), "f-1")], "fail")
    for _ in range(3):
        held = await HandWorker(place, [flaky(5)]).claim_one("f-1")
        assert held is not None
        await held.fail()
        clock.advance(HOUR)
    held = await HandWorker(place, [flaky(1)], "worker-2").claim_one("f-1")
    assert held is not None
    assert held.steps[0].attempt == 4
    await held.fail()
    assert (await client.status("f-1")).status == "failed"


async def test_new_tags_are_asked_of_the_next_worker(places: Places) -> None:
    place, _, client = make(places)

    def tagged(tags: list[str]) -> Workflow[Any, Any]:
        last = named("last", lambda x: x, tags=tags)
        return Flow("tagged").then(named("first", lambda x: x)).then(last).build()

    await client.submit(tagged([]), "t-1", "x")
    held = await HandWorker(place, [tagged(["gpu"])], tags=["cpu"]).claim_one("t-1")
    assert held is not None
    await held.complete("x")
    assert held.state == "handed_over"
    assert await HandWorker(place, [tagged(["gpu"])], tags=["cpu"]).claim() == []
    [held] = await HandWorker(place, [tagged(["gpu"])], "worker-2", tags=["gpu"]).claim()
    await held.complete("y")
    assert (await client.status("t-1")).output == "y"
