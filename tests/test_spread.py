"""Spread maps, as those see them who write workflows.

Whatever a map of the instance's own comes to, a spread one comes to as well, on every backend; and
its items are instances, each of which is looked at and sent events as any is. Polls are so far
apart that a hint that is not given is a test that does not end. What a storage has to do for this
is in `sayiir.testing`; what happens when processes die, in `tests/crash`.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sayiir import (
    EventTimeout,
    Flow,
    InMemoryBackend,
    MapError,
    RetryPolicy,
    Status,
    TaskError,
    Worker,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    resume_workflow_async,
    run_durable_workflow,
    run_durable_workflow_async,
    run_workflow,
    run_workflow_async,
    task,
)
from sayiir.backends import Backend
from sayiir.cli import main

from .spreading import (
    MAPS,
    NAP,
    PAIR,
    SHAPES,
    Any2Any,
    bad,
    count_to,
    double,
    each,
    items_of,
    plus_one,
)
from .working import LONG, NEVER

# What it comes to.


async def test_a_spread_map_fits_everywhere(backend: Backend) -> None:
    workflows = {workflow.definition_hash: workflow for workflow, _, _ in SHAPES.values()}
    client = WorkflowClient(backend)
    async with Worker(backend, list(workflows.values()), poll_interval=NEVER):
        for name, (workflow, value, _) in SHAPES.items():
            await client.submit(workflow, name, value)
        for name, (_, _, expected) in SHAPES.items():
            assert await client.result(name, timeout=LONG) == expected, name


@pytest.mark.parametrize("value", [5, None, "ab", {"a": 1}, {1, 2}, 1.5], ids=repr)
async def test_what_is_no_list_is_refused_as_any_map_refuses_it(value: object) -> None:
    said = []
    for spread in (True, False):
        workflow: Any2Any = Flow("f").then(lambda _: value, name="give").map(
            double, spread=spread, name="parts"
        ).build()  # fmt: skip
        with pytest.raises(TaskError) as caught:
            await run_workflow_async(workflow, None)
        error = caught.value
        said.append((error.task, error.path, error.error_type, error.message))
    assert said[0] == said[1]
    assert said[0][:3] == ("parts", "parts", "TypeError")


async def test_a_failed_item_fails_the_map_and_stops_the_others(backend: Backend) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def work(x: int) -> int:
        if x == 1:
            await running.wait()
            raise ValueError("no more")
        if x == 0:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return x

    workflow = each(task("part")(work))
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, concurrency=2, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", [0, 1, 2])
        with pytest.raises(WorkflowFailed, match="no more") as caught:
            await handle.result(timeout=LONG)
        async with asyncio.timeout(LONG):
            await stopped.wait()
    cause = caught.value.__cause__
    assert isinstance(cause, TaskError)
    assert (cause.path, cause.error_type, cause.instance_id) == ("part[1]/part", "ValueError", "i")
    assert cause.traceback is not None
    assert "raise ValueError" in cause.traceback
    statuses = [(await client.status(name)).status for name in await items_of(client, "i")]
    assert statuses[:2] == ["cancelled", "failed"]
    status = await client.status("i")
    assert (status.error_type, status.error) == ("ValueError", "no more")


async def test_failed_items_are_collected(backend: Backend) -> None:
    collected: Any2Any = each(bad, "f", on_error="collect")
    inline: Any2Any = Flow("g").map(bad, on_error="collect").build()
    inner: Any2Any = Flow("h").map(each(bad, "k"), on_error="collect", name="outer").build()
    client = WorkflowClient(backend)
    async with Worker(backend, [collected, inline, inner], poll_interval=NEVER):
        handles = [
            await client.submit(workflow, f"{n}", list(range(5)))
            for n, workflow in enumerate((collected, inline))
        ]
        outputs = [await handle.result(timeout=LONG) for handle in handles]
        groups = await client.submit(inner, "2", [[1, 2], [3, 4], [5]])
        assert await groups.result(timeout=LONG) == [
            [1, 2], MapError(1, "ValueError", "no 3", "outer[1]/bad[0]/bad"), [5],
        ]  # fmt: skip
    assert [output[1:3] + output[4:] for output in outputs] == [[1, 2, 4]] * 2
    for index in (0, 3):
        spread, own = (output[index] for output in outputs)
        assert (spread.index, spread.error_type) == (own.index, own.error_type)
        assert (spread.index, spread.error_type, spread.message) == (
            index,
            "ValueError",
            f"no {index}",
        )


async def test_a_cancelled_item_is_collected_or_fails_the_map(backend: Backend) -> None:
    asking = Flow("ask").wait_for_event("go").build()
    flows = {rule: each(asking, rule, on_error=rule, name="parts") for rule in ("collect", "fail")}
    client = WorkflowClient(backend)
    for rule, workflow in flows.items():
        await run_durable_workflow_async(workflow, rule, [1, 2], backend)
        first, second = await items_of(client, rule)
        await client.cancel(first, "not this one")
        await client.send_event(second, "go", 7)
    async with Worker(backend, list(flows.values()), poll_interval=NEVER):
        [gone, seven] = await client.result("collect", timeout=LONG)
        with pytest.raises(WorkflowFailed, match=r"item 0 of map 'parts' was cancelled"):
            await client.result("fail", timeout=LONG)
    assert (gone.index, gone.error_type, seven) == (0, "WorkflowCancelled", 7)


async def test_more_items_than_one_batch_has(backend: Backend) -> None:
    workflow: Any2Any = Flow("many").then(count_to, name="list").map(plus_one, spread=True).build()
    async with Worker(backend, workflow, concurrency=64, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(workflow, "many", 2_500)
        assert await handle.result(timeout=LONG) == list(range(1, 2_501))
        history = await WorkflowClient(backend).history("many")
    assert [(row.path, row.outcome) for row in history] == [
        ("list", "completed"),
        ("plus_one", "completed"),
    ]


# Items are instances.


async def test_items_retry_and_wait_and_are_sent_events(backend: Backend) -> None:
    attempts: Counter[int] = Counter()

    @task(retries=RetryPolicy(max_retries=2, initial_delay_secs=0.001))
    async def flaky(x: int) -> int:
        attempts[x] += 1
        if attempts[x] <= x:
            raise ConnectionError("not yet")
        return x

    body = Flow("body").then(flaky).wait_for_event("go", timeout="1h").then(double).build()
    late = Flow("late").wait_for_event("never", timeout=0.01, on_timeout="continue").build()
    workflow, timed = each(body, "asks", name="parts"), each(late, "timed")
    client = WorkflowClient(backend)
    async with Worker(backend, [workflow, timed], poll_interval=NEVER):
        handle = await client.submit(workflow, "i", [0, 1, 2])
        [timeout] = await (await client.submit(timed, "j", [1])).result(timeout=LONG)
        assert isinstance(timeout, EventTimeout)
        names: list[str] = []
        async with asyncio.timeout(LONG):
            while len(names) < 3:
                names = await items_of(client, "i")
        for name, payload in zip(names, (10, 20, 30), strict=True):
            await client.send_event(name, "go", payload)
        assert await handle.result(timeout=LONG) == [20, 40, 60]
    assert attempts == {0: 1, 1: 2, 2: 3}
    history = await client.history(names[2])
    assert [(row.path, row.attempt, row.outcome) for row in history][:3] == [
        ("flaky", 1, "retried"),
        ("flaky", 2, "retried"),
        ("flaky", 3, "completed"),
    ]


async def test_results_are_found_by_path_and_by_item(backend: Backend) -> None:
    workflow: Any2Any = (
        Flow("f").then(list).map(double, spread=True, name="parts").then(sum).build()
    )
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, poll_interval=NEVER):
        handle = await client.submit(workflow, "i", [1, 2])
        assert await handle.result(timeout=LONG) == 6
    assert await client.get_task_result("i", "parts") == [2, 4]
    assert await client.get_task_result("i", double, default="none") == "none"
    names = await items_of(client, "i")
    assert [await client.get_task_result(name, double) for name in names] == [2, 4]
    assert [await client.result(name) for name in names] == [2, 4]
    paths = [row.path for row in await client.history("i")]
    assert paths == ["list", "parts", "sum"]
    assert (
        sorted(row.instance_id for row in await client.list_instances(workflow="f/parts")) == names
    )
    assert [row.instance_id for row in await client.list_instances(workflow="f")] == ["i"]


async def test_a_body_knows_which_instance_it_runs_in(backend: Backend) -> None:
    seen = []

    async def note(x: int) -> int:
        context = get_task_context()
        assert context is not None
        seen.append((context.instance_id, context.workflow_id, context.idempotency_key))
        return x

    workflow = each(note, "f", name="parts")
    client = WorkflowClient(backend)
    async with Worker(backend, workflow, poll_interval=NEVER):
        await (await client.submit(workflow, "i", [0, 1])).result(timeout=LONG)
    ids, workflows, keys = zip(*sorted(seen), strict=True)
    assert list(ids) == await items_of(client, "i")
    assert set(workflows) == {"f/parts"}
    assert len(set(keys)) == 2


# Without a worker.


async def test_a_parent_runs_right_here(backend: Backend) -> None:
    nested = each(each(PAIR, "inner"), "outer")
    assert await run_workflow_async(nested, [[1], [2, 3]], backend=backend) == [[3], [5, 7]]
    failing = each(bad, "failing", name="parts")
    with pytest.raises(TaskError, match="no 3") as caught:
        await run_workflow_async(failing, [1, 2, 3], backend=backend)
    assert caught.value.path == "parts[2]/bad"
    status = await run_durable_workflow_async(failing, "i", [3], backend)
    assert (status.status, status.error) == (Status.FAILED, "no 3")


async def test_a_parent_whose_items_wait_is_gone_on_with(backend: Backend) -> None:
    asking = Flow("ask").then(plus_one).wait_for_event("go").then(double).build()
    workflow: Any2Any = Flow("f").map(asking, spread=True).then(sum).build()
    status = await run_durable_workflow_async(workflow, "i", [1, 2], backend)
    assert status.status is Status.WAITING
    client = WorkflowClient(backend)
    names = await items_of(client, "i")
    assert [(await client.status(name)).signal_name for name in names] == ["go", "go"]
    await client.send_event(names[0], "go", 10)
    assert (await resume_workflow_async(workflow, "i", backend)).status is Status.WAITING
    await client.send_event(names[1], "go", 20)
    status = await resume_workflow_async(workflow, "i", backend)
    assert (status.status, status.output) == (Status.COMPLETED, 60)


def test_without_a_loop() -> None:
    assert run_workflow(MAPS, [1, 2]) == [2, 4]
    status = run_durable_workflow(MAPS, "i", list(range(1_100)), InMemoryBackend())
    assert status.output == [2 * n for n in range(1_100)]
    assert run_workflow(each(NAP), [1]) == [3]


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spread_of_test.py").write_text(
        "from sayiir import Flow\n"
        "def double(x):\n"
        "    return x * 2\n"
        "f = Flow('f').map(double, spread=True).then(sum).build()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    url = f"sqlite:///{tmp_path}/app.db"

    def run(*args: str) -> Any:
        result = CliRunner().invoke(main, [*args, "--url", url, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    told = run("run", "spread_of_test:f", "--id", "i", "--input", "[1, 2, 3]")
    assert told["output"] == 12
    listed = [row["instance_id"] for row in run("runs", "list", "--items")["rows"]]
    assert len(listed) == 4
    assert run("runs", "result", listed[0])["output"] == 6
    assert run("runs", "show", "i")["status"] == "completed"


# What is written down.


def test_what_cannot_be_spread() -> None:
    with pytest.raises(ValueError, match=r"flow 'f', map.*concurrency.*spread=True") as caught:
        Flow("f").map(double, spread=True, concurrency=3)
    assert "tags" in str(caught.value)
    with pytest.raises(TypeError, match="spread must be a bool, got str"):
        Flow("f").map(double, spread="yes")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="spread must be a bool, got int"):
        Flow("f").map(double, spread=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="on_error"):
        Flow("f").map(double, spread=True, on_error="ignore")  # type: ignore[call-overload]
    plain = Flow("f").map(double, spread=False, concurrency=3).build()
    assert plain.iter_nodes()[0].kind == "map"


def test_what_is_drawn_and_listed() -> None:
    workflow: Any2Any = Flow("f").then(list).map(PAIR, spread=True, name="parts").then(sum).build()
    assert [(node.id, node.kind) for node in workflow.iter_nodes()] == [
        ("list", "task"),
        ("parts", "spread"),
        ("parts[]/double", "task"),
        ("parts[]/plus_one", "task"),
        ("sum", "task"),
    ]
    drawn = workflow.to_mermaid()
    assert '{{"map parts, spread"}}' in drawn
    assert '-->|"each item"|' in drawn


def test_the_hash_says_whether_and_what() -> None:
    def hashed(step: Any = double, **options: Any) -> str:
        return Flow("f").map(step, **options).build().definition_hash

    spread = hashed(spread=True)
    assert spread == hashed(spread=True)
    assert spread == hashed(spread=True, on_error="collect")
    assert spread == hashed(task("double", retries=3, tags=["gpu"])(double), spread=True)
    others = [
        hashed(), hashed(spread=True, name="other"), hashed(plus_one, spread=True),
        hashed(PAIR, spread=True),
    ]  # fmt: skip
    assert len({spread, *others}) == 5
