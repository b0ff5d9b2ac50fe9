"""Typed values at every place a value can stand: what a task is annotated with is what it gets.

Through clients and workers, on the memory backend and on a file. Each place is tried with a
dataclass, so what is shown here is the place; the kinds of types are in `test_typed_kinds.py`.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypedDict, cast

import pytest

from sayiir import (
    DecodeError,
    EncodeError,
    EventTimeout,
    Flow,
    InMemoryBackend,
    LoopResult,
    MapError,
    RetryPolicy,
    SyncWorkflowClient,
    TaskError,
    Worker,
    Workflow,
    WorkflowClient,
    WorkflowFailed,
    resume_workflow,
    run_durable_workflow,
    run_workflow,
    send_signal,
    task,
)
from sayiir.backends import Backend

from .typed_tasks import Parcel, weigh
from .working import LONG, NEVER, Places, outcome


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Item:
    name: str
    size: Size = Size.SMALL
    count: int = 1


@dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Totals(TypedDict):
    count: int
    first: Item


ORDER = Order([Item("nut"), Item("bolt", Size.LARGE, 3)], "soon")
PLAIN = {
    "items": [
        {"name": "nut", "size": "s", "count": 1},
        {"name": "bolt", "size": "l", "count": 3},
    ],
    "note": "soon",
}


@pytest.fixture(params=["memory", "sqlite"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    async with Places(request.param) as places:
        yield places()


@task
def make(_: Any) -> Order:
    return ORDER


@task
def grow(order: Order) -> Order:
    assert type(order) is Order
    assert all(type(item) is Item for item in order.items)
    return Order([dataclasses.replace(item, count=item.count + 1) for item in order.items])


@task
async def grow_later(order: Order) -> Order:
    await asyncio.sleep(0)
    return grow(order)


@task(run_in="inline")
def items(order: Order) -> list[Item]:
    return order.items


@task
def enlarge(item: Item) -> Item:
    if item.name == "bad":
        raise ValueError("cannot be enlarged")
    return dataclasses.replace(item, size=Size.LARGE)


GROWN = Order([Item("nut", Size.SMALL, 2), Item("bolt", Size.LARGE, 4)])


@pytest.mark.parametrize("step", [grow, grow_later], ids=["sync", "async"])
@pytest.mark.parametrize("value", [ORDER, PLAIN], ids=["typed", "plain"])
async def test_input_of_a_workflow_and_its_output(backend: Backend, step: Any, value: Any) -> None:
    assert await outcome(backend, Flow("w").then(step).build(), value) == GROWN


async def test_from_task_to_task(backend: Backend) -> None:
    flow = Flow("w").then(make).then(grow_later, name="once").then(grow, name="twice")
    counts = [item.count for item in (await outcome(backend, flow.build())).items]
    assert counts == [3, 5]


async def test_the_items_of_a_map(backend: Backend) -> None:
    for spread in (False, True):
        flow = Flow("w").then(items).map(enlarge, spread=spread).build()
        assert await outcome(backend, flow, ORDER) == [
            Item("nut", Size.LARGE),
            Item("bolt", Size.LARGE, 3),
        ]


async def test_the_errors_of_a_map_stay_what_they_are(backend: Backend) -> None:
    @task
    def count(found: list[Item | MapError]) -> list[str]:
        return [type(one).__name__ for one in found]

    order = Order([Item("nut"), Item("bad")])
    flow = Flow("w").then(items).map(enlarge, on_error="collect")
    nut, bad = await outcome(backend, flow.build(), order)
    assert (nut, type(bad)) == (Item("nut", Size.LARGE), MapError)
    assert await outcome(backend, flow.then(count).build(), order) == ["Item", "MapError"]


async def test_the_branches_of_a_fork_and_its_join(backend: Backend) -> None:
    class Both(TypedDict):
        grown: Order
        items: list[Item]

    def join(both: Both) -> Item:
        assert type(both["grown"]) is Order
        return both["items"][0]

    fork = Flow("w").fork().branch(grow, name="grown").branch(items)
    assert await outcome(backend, fork.join(cast("Any", join)).build(), ORDER) == Item("nut")


async def test_a_route_its_key_and_its_arms(backend: Backend) -> None:
    class Kind(Enum):
        MANY = "many"

    @task
    def kind(order: Order) -> Kind:
        return Kind.MANY

    flow = (
        Flow("w")
        .route(cast("Any", kind), keys=["many"])
        .branch("many", grow)
        .default_branch(items)
        .done()
    )
    got = await outcome(backend, flow.build(), ORDER)
    assert got == {"branch": "many", "result": GROWN}

    @dataclass
    class Chosen:
        branch: str
        result: Order

    @task
    def after(chosen: Chosen) -> Order:
        return chosen.result

    assert await outcome(backend, flow.then(cast("Any", after)).build(), ORDER) == GROWN


async def test_the_turns_of_a_loop(backend: Backend) -> None:
    @task
    def turn(order: Order) -> LoopResult[Order]:
        grown = grow(order)
        return LoopResult.again(grown) if grown.items[0].count < 3 else LoopResult.done(grown)

    flow = Flow("w").loop(turn)
    got = await outcome(backend, flow.build(), ORDER)
    assert [item.count for item in got.items] == [3, 5]
    assert await outcome(backend, flow.then(items).build(), ORDER) == got.items


async def test_a_child_and_a_delay_pass_on_what_is_typed(backend: Backend) -> None:
    child = Flow("child").then(grow).build()
    flow = Flow("w").then_flow(child).delay("rest", 0)
    assert await outcome(backend, flow.build(), ORDER) == GROWN
    assert await outcome(backend, flow.then(items).build(), ORDER) == GROWN.items


async def test_the_payload_of_an_event(backend: Backend) -> None:
    flow = Flow("w").wait_for_event("order").then(grow).build()
    async with Worker(backend, flow, poll_interval=NEVER):
        client = WorkflowClient(backend)
        for name, payload in (("typed", ORDER), ("plain", PLAIN)):
            handle = await client.submit(flow, name)
            await handle.send_event("order", payload)
            assert await handle.result(LONG) == GROWN


async def test_an_event_that_does_not_come(backend: Backend) -> None:
    @task
    def after(got: Order | EventTimeout) -> str:
        return type(got).__name__

    flow = Flow("w").wait_for_event("order", timeout=0.001, on_timeout="continue").then(after)
    assert await outcome(backend, flow.build()) == "EventTimeout"


async def test_the_result_of_a_single_task(backend: Backend) -> None:
    flow = Flow("w").then(make).then(grow).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval=NEVER):
        await (await client.submit(flow, "i")).result(LONG)
    assert await client.get_task_result("i", make) == ORDER
    assert await client.get_task_result("i", grow) == GROWN
    assert await client.get_task_result("i", "make") == PLAIN
    assert await client.get_task_result("i", enlarge, default=7) == 7
    with SyncWorkflowClient(backend) as sync:
        assert await asyncio.to_thread(sync.get_task_result, "i", make) == ORDER


async def test_what_a_handle_knows(backend: Backend) -> None:
    flow = Flow("w").then(grow).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval=NEVER):
        handle = await client.submit(flow, "i", ORDER)
        assert handle.output is None
        assert await handle.result() == GROWN
        assert await handle.result(LONG) == GROWN
        assert (await handle.refresh()).output == GROWN
        again = await client.submit(flow, "i", ORDER, conflict_policy="use_existing")
        assert again.output == GROWN
        assert (await client.result("i")) == dataclasses.asdict(GROWN) | {
            "items": [
                {"name": "nut", "size": "s", "count": 2},
                {"name": "bolt", "size": "l", "count": 4},
            ]
        }


async def test_a_process_of_its_own(backend: Backend) -> None:
    flow = Flow("w").then(weigh).build()
    parcel = Parcel("books", (1.5, 2))
    assert await outcome(backend, flow, parcel) == Parcel("books", (3.0, 4))


async def fail(backend: Backend, workflow: Workflow[Any, Any], value: Any) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as failed:
        await outcome(backend, workflow, value)
    return failed.value


@pytest.mark.parametrize("step", [grow, grow_later, weigh], ids=["sync", "async", "process"])
async def test_an_input_that_does_not_fit_fails_once_and_says_where(
    backend: Backend, step: Any
) -> None:
    @task(retries=RetryPolicy(max_retries=3, initial_delay_secs=60))
    def retried(order: Order) -> None:
        raise AssertionError("never called")

    for one in (step, retried):
        flow = Flow("w").then(one).build()
        secret = {**PLAIN, "items": [{"name": "nut"}, {"name": ["canary-1"]}], "canary-2": 1}
        failed = await fail(backend, flow, secret)
        status = failed.status
        assert status.error_type == "DecodeError"
        assert f"the input of task {one.__name__!r} does not fit" in (status.error or "")
        if one is not weigh:
            assert "at $.items[1].name: expected str, got list" in (status.error or "")
        assert "canary-1" not in f"{failed}{status.error}{status.traceback}"
        history = await WorkflowClient(backend).history(status.instance_id)
        assert [step.outcome for step in history].count("failed") == 1


async def test_an_output_that_does_not_fit_is_told_to_who_asks(backend: Backend) -> None:
    @task
    def lies(_: Any) -> Order:
        return {"items": 3}  # type: ignore[return-value]

    flow = Flow("w").then(lies).build()
    with pytest.raises(DecodeError, match=r"the output of instance .* at \$.items: expected list"):
        await outcome(backend, flow)
    client = WorkflowClient(backend)
    (row,) = await client.list_instances()
    assert (await client.status(row.instance_id)).output == {"items": 3}
    with pytest.raises(DecodeError, match=r"the output of 'lies' of instance"):
        await client.get_task_result(row.instance_id, lies)
    handle = await client.submit(flow, row.instance_id, conflict_policy="use_existing")
    assert handle.output is None
    assert "expected list" in str(handle.details.output_error)


async def test_what_cannot_be_stored_is_refused_by_its_place(backend: Backend) -> None:
    @dataclass
    class Loose:
        inner: Any

    @task
    def leak(_: Any) -> Any:
        return [Loose({"at": Loose(len)})]

    failed = await fail(backend, Flow("w").then(leak).build(), None)
    assert failed.status.error_type == "EncodeError"
    assert "$[0]['inner']['at']['inner']" in (failed.status.error or "")
    with pytest.raises(EncodeError, match="builtin_function_or_method"):
        await WorkflowClient(backend).submit(Flow("w").then(leak).build(), "i", Loose(len))


def test_running_right_here_gives_what_a_handle_gives() -> None:
    flow = Flow("w").then(grow).wait_for_event("more").then(grow, name="again").build()
    backend = InMemoryBackend()
    assert run_workflow(Flow("w").then(make).then(grow).build(), None) == GROWN
    assert run_durable_workflow(flow, "i", ORDER, backend).output is None
    send_signal("i", "more", GROWN, backend)
    ended = resume_workflow(flow, "i", backend)
    assert ended.output is not None
    assert [item.count for item in ended.output.items] == [3, 5]
    whole = run_durable_workflow(Flow("w").then(grow).build(), "j", ORDER)
    assert whole.output == GROWN


def test_in_process_the_cause_is_at_hand() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("it is odd")

    @task
    def halve(even: Even) -> int:
        return even.number // 2

    flow = Flow("w").then(halve).build()
    assert run_workflow(flow, Even(4)) == 2
    with pytest.raises(TaskError, match="Even refused its fields: ValueError") as failed:
        run_workflow(flow, cast("Any", {"number": 3}))
    assert isinstance(failed.value.__cause__, DecodeError)
    assert str(failed.value.__cause__.__cause__) == "it is odd"


def test_a_decode_error_of_the_task_itself_may_be_retried() -> None:
    calls = []

    @task(retries=RetryPolicy(max_retries=1, initial_delay_secs=0.001))
    def reads(order: Order) -> int:
        calls.append(order)
        raise DecodeError("what it read is damaged")

    with pytest.raises(TaskError, match="what it read"):
        run_workflow(Flow("w").then(reads).build(), ORDER)
    assert len(calls) == 2


def test_a_plain_task_is_called_as_it_is() -> None:
    @task
    def plain(x: dict[str, Any], y: int = 0) -> list[int]:
        return [len(x), y]

    @task
    def typed(x: Order) -> int:
        return len(x.items)

    assert [t.fn for t in Flow("w").then(plain).build().tasks] == [plain]
    (step,) = Flow("w").then(typed).build().tasks
    assert step.fn is not typed
    assert step.fn(PLAIN) == 2


def test_a_named_tuple_is_a_tuple_to_who_does_not_say_more() -> None:
    class Point(NamedTuple):
        x: int
        y: int = 0

    @task
    def first(_: Any) -> Any:
        return {Point(1): [Point(2, 3)]}

    assert run_workflow(Flow("w").then(first).build(), None) == {(1, 0): [(2, 3)]}


def test_a_default_made_anew_is_not_taken_for_what_was_stored() -> None:
    numbers = iter(range(100))

    @dataclass
    class Ticket:
        number: int = field(default_factory=lambda: next(numbers))

    @task
    def draw(_: Any) -> Ticket:
        return Ticket()

    @task
    def show(ticket: Ticket) -> int:
        return ticket.number

    assert run_workflow(Flow("w").then(draw).then(show).build(), None) == 0
