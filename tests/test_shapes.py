"""Random shapes, every way of running them: one output.

Sixty flows of any nesting run in this process, parked and resumed, on one worker and on four, on
every backend; each must give what the oracle says. Events are sent before the instances exist. A
failure names the seed of its flow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from tests.simulation.flows import SILENT, Made, Pace, make_flow
from tests.simulation.oracle import TIMED_OUT, Failed, Failure, Open, Oracle, Outcome, Value
from tests.simulation.tree import TASK_ERRORS, shape

from sayiir import (
    TaskError,
    Worker,
    WorkflowClient,
    WorkflowFailed,
    WorkflowStatus,
    resume_workflow_async,
    run_durable_workflow_async,
    run_workflow_async,
)
from sayiir.backends import Backend

from .working import BACKENDS, LONG, NEVER, Places

COUNT = 60
EVENTS = 80
"""More of each name than any of these flows waits for."""
TAGS: list[tuple[str, ...]] = [(), ("gpu",), ("eu",), ()]
"""What four workers offer."""
PACE = Pace(
    pauses=(0.0, 0.002, 0.01),
    timeouts=(0.02,),
    may_time_out=False,
    tags=("gpu", "eu"),
    reaches_items=False,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A flow, what it is given, and what it must come to."""

    seed: int
    made: Made
    given: Any
    expected: Outcome

    @property
    def instance_id(self) -> str:
        return f"shape-{self.seed}"


class Given:
    """The tape of a world in which every event is there already, except the one nobody sends."""

    def answer(self, path: str, event: str) -> object:
        return TIMED_OUT if event == SILENT else ["event", event]

    def failed(self, failure: Failure) -> bool:
        return True

    def items(self, path: str, given: list[Any]) -> Sequence[Given]:
        return [self] * len(given)

    def cancelled(self) -> bool:
        return False


def cases(first: int) -> Iterator[Case]:
    """Flows from this seed on whose outcome does not hang on which of two failures is faster."""
    seed = first
    while True:
        made = make_flow(Random(seed), f"shape{seed}", PACE)
        given = ["given", seed]
        expected = Oracle(Given()).run(made.block, given)
        if not isinstance(expected, Open):
            yield Case(seed, made, given, expected)
        seed += 1


def some_cases(first: int) -> list[Case]:
    return [case for case, _ in zip(cases(first), range(COUNT), strict=False)]


async def send_events(backend: Backend, case: Case) -> None:
    client = WorkflowClient(backend)
    await asyncio.gather(
        *(
            client.send_event(case.instance_id, name, ["event", name])
            for name in PACE.events * EVENTS
        )
    )


def judge(case: Case, got: Any) -> None:
    """The output, or the exception, is the one that the oracle expects."""
    where = f"seed {case.seed}"
    if isinstance(case.expected, Value):
        assert shape(got) == shape(case.expected.value), where
        return
    assert isinstance(case.expected, Failed), where
    assert isinstance(got, TaskError), f"{where}: {got!r} instead of {case.expected}"
    message = got.message if got.error_type in TASK_ERRORS else ""
    failure = Failure(got.error_type, got.path, message)
    assert failure in case.expected.failures, where


async def in_process(backend: Backend, case: Case) -> Any:
    try:
        return await run_workflow_async(
            case.made.workflow, case.given, instance_id=case.instance_id, backend=backend
        )
    except TaskError as error:
        return error


async def parked_and_resumed(backend: Backend, case: Case) -> Any:
    workflow, instance_id = case.made.workflow, case.instance_id
    status: WorkflowStatus[Any] = await run_durable_workflow_async(
        workflow, instance_id, case.given, backend
    )
    end = time.monotonic() + LONG
    while status.is_in_progress() or status.is_waiting() or status.is_awaiting_signal():
        assert time.monotonic() < end, f"seed {case.seed} is stuck as {status}"
        await asyncio.sleep(0)
        status = await resume_workflow_async(workflow, instance_id, backend)
    return await ended(backend, case)


async def ended(backend: Backend, case: Case) -> Any:
    try:
        return await WorkflowClient(backend).result(case.instance_id, timeout=LONG)
    except WorkflowFailed as error:
        return error.__cause__


async def on_workers(
    backend: Backend,
    chosen: list[Case],
    tags: list[tuple[str, ...]],
    others: Sequence[Backend] = (),
) -> list[Any]:
    """All at once on as many workers as there are tags, each on a backend of its own if given."""
    workflows = [case.made.workflow for case in chosen]
    client = WorkflowClient(backend)
    async with AsyncExitStack() as stack:
        for offered, place in zip(tags, others or [backend] * len(tags), strict=True):
            worker = Worker(place, workflows, concurrency=4, tags=offered, poll_interval=NEVER)
            await stack.enter_async_context(worker)
        for case in chosen:
            await client.submit(case.made.workflow, case.instance_id, case.given)
        return await asyncio.gather(*(ended(backend, case) for case in chosen))


async def one_after_another(
    way: Callable[[Backend, Case], Awaitable[Any]], backend: Backend, chosen: list[Case]
) -> list[Any]:
    return [await way(backend, case) for case in chosen]


WAYS: dict[str, Callable[[Backend, list[Case]], Awaitable[list[Any]]]] = {
    "in process": lambda backend, chosen: one_after_another(in_process, backend, chosen),
    "resumed": lambda backend, chosen: one_after_another(parked_and_resumed, backend, chosen),
    "one worker": lambda backend, chosen: on_workers(backend, chosen, [()]),
    "four workers": lambda backend, chosen: on_workers(backend, chosen, TAGS),
}


async def run_all(
    way: Callable[[Backend, list[Case]], Awaitable[list[Any]]], backend: Backend, first: int
) -> None:
    chosen = some_cases(first)
    for case in chosen:
        await send_events(backend, case)
    for case, got in zip(chosen, await way(backend, chosen), strict=True):
        judge(case, got)


@pytest.mark.parametrize("way", list(WAYS))
async def test_every_way_of_running_gives_one_output(way: str, backend: Backend) -> None:
    # Workers never poll: they go by hints and timers alone.
    await run_all(WAYS[way], backend, 0)


@pytest.mark.parametrize("places", ["sqlite", "postgres"], indirect=True)
async def test_workers_that_opened_one_place_apart_give_one_output(places: Places) -> None:
    # As in four processes, all they know of one another is what the place tells them.
    backend = places()
    others = [places.again(backend) for _ in TAGS]
    await run_all(lambda _, chosen: on_workers(backend, chosen, TAGS, others), backend, 0)


@pytest.mark.soak
async def test_fresh_shapes_give_one_output(
    soak_rounds: Callable[[int], Iterator[int]],
) -> None:
    for first in soak_rounds(1_000):
        for way in WAYS.values():
            for kind in BACKENDS:
                async with Places(kind) as make:
                    await run_all(way, make(), first)
