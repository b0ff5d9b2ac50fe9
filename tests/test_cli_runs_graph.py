"""`runs show --graph` and `runs list` without items: where an instance stands, in a terminal.

What is drawn of a history is tried on histories written down here; that the definition is had
without the code, on instances that ran.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sayiir import (
    Flow,
    InMemoryBackend,
    LoopResult,
    NonRetryable,
    RetryPolicy,
    StepInfo,
    SyncWorkflowClient,
    Worker,
    Workflow,
    run_durable_workflow,
    task,
)
from sayiir.backends import InstanceRow
from sayiir.cli import main
from sayiir.cli.graph import Nodes, graph_of, tree_of

from .working import LONG

HOSTILE = "[red]a[/red]\u202e/b[0]#1~2 100%"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def same(value: Any) -> Any:
    return value


def turn(value: int) -> LoopResult[int]:
    return LoopResult.again(value + 1) if value < 3 else LoopResult.done(value)


@task(retries=RetryPolicy(max_retries=1, initial_delay_secs=3600))
def pick(value: int) -> int:
    if value == 3:
        raise ValueError("not a three")
    return value


@task(tags=["large"])
def press(value: Any) -> Any:
    return value


ALL: Workflow[Any, Any] = (
    Flow("all")
    .then(same, name="first")
    .fork()
    .branch(same, name="left")
    .branch(Flow("ask").then(same, name="ready").wait_for_event("go").build(), name="right")
    .join(lambda _: 0, name="joined")
    .loop(turn, name="rounds")
    .route(lambda _: "a", keys=["a", "b"])
    .branch("a", same)
    .default_branch(same)
    .branch("b", same)
    .done()
    .then(lambda _: [1, 2, 3], name="list")
    .map(Flow("item").then(same, name="one").then(same, name="two").build(), name="items")
    .delay("rest", "1h")
    .then(same, name="last")
    .build()
)
PICKY: Workflow[Any, Any] = (
    Flow("picky").then(lambda n: list(range(n)), name="list").map(pick, name="m").build()
)
SPREAD: Workflow[Any, Any] = (
    Flow("spread").then(lambda _: [1, 2], name="list").map(press, name="wide", spread=True).build()
)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> InMemoryBackend:
    place = InMemoryBackend()
    monkeypatch.setattr("sayiir.cli.session.connect", lambda url: place)
    return place


def runs(*args: str, code: int = 0) -> Result:
    env = {"SAYIIR_DATABASE_URL": "memory://", "COLUMNS": "300"}
    result = CliRunner().invoke(main, ["runs", *args], env=env)
    assert result.exit_code == code, result.output
    return result


def shown(*args: str) -> list[str]:
    """The lines of a drawing, without the guides before them."""
    lines = runs("show", *args, "--graph").stdout.splitlines()
    return [line.strip("│├└─ ").rstrip() for line in lines]


def row_of(status: str, **facts: Any) -> InstanceRow:
    return InstanceRow("i", "all", "00" * 32, status, 0.0, 0.0, **facts)


def steps_of(*told: tuple[Any, ...]) -> list[StepInfo]:
    """Executions by path, outcome and attempt; each took two seconds."""
    return [
        StepInfo(
            path,
            path,
            rest[0] if rest else 1,
            "w1",
            AT,
            AT + timedelta(seconds=2),
            outcome,
            error_type="ValueError" if outcome in ("failed", "retried") else None,
        )
        for path, outcome, *rest in told
    ]


def drawn(
    nodes: Nodes | None, steps: Sequence[tuple[Any, ...]], row: InstanceRow, **known: Any
) -> list[str]:
    graph = graph_of(nodes, steps_of(*steps), row, **known)
    console = Console(width=500, color_system=None, highlight=False)
    with console.capture() as caught:
        console.print(tree_of(graph))
    return [line.strip("│├└─ ").rstrip() for line in caught.get().splitlines()][1:]


def nodes_of(workflow: Workflow[Any, Any]) -> Nodes:
    return [(node.id, node.kind) for node in workflow.iter_nodes()]


# Histories.


def test_a_fresh_instance_is_due_and_then_runs() -> None:
    nodes = [("a", "task"), ("b", "task")]
    assert drawn(nodes, [], row_of("in_progress")) == ["▶ a  due", "· b"]
    held = row_of("in_progress", worker_id="w1~1")
    assert drawn(nodes, [], held) == ["▶ a  running", "· b"]
    assert drawn(nodes, [("a", "completed")], held) == ["✓ a  2.0 s", "▶ b  running"]


def test_retries_and_failures() -> None:
    nodes = [("a", "task"), ("b", "task")]
    waits = row_of("waiting", wake_at=60.0)
    assert drawn(nodes, [("a", "retried", 2)], waits) == [
        "… a  attempt 2 failed: ValueError, next until 1970-01-01T00:01:00.000Z",
        "· b",
    ]
    tried = [("a", "retried"), ("a", "completed", 2), ("b", "retried"), ("b", "failed", 2)]
    assert drawn(nodes, tried, row_of("failed")) == [
        "✓ a  2.0 s, attempt 2",
        "✗ b  failed: ValueError, attempt 2, 2.0 s",
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (row_of("waiting", delay_id="b", wake_at=0.0), "… delay b  until 1970-01-01T00:00:00.000Z"),
        (row_of("paused"), "… delay b  paused"),
        (row_of("cancelled"), "· delay b  cancelled here"),
        (row_of("failed"), "✗ delay b  failed here"),
        (row_of("in_progress"), "▶ delay b  due"),
    ],
)
def test_where_it_stands(row: InstanceRow, says: str) -> None:
    nodes = [("a", "task"), ("b", "delay"), ("c", "task")]
    assert drawn(nodes, [("a", "completed")], row) == ["✓ a  2.0 s", says, "· c"]


def test_a_wait_says_what_it_waits_for() -> None:
    nodes = [("a", "fork"), ("a/x/w", "wait"), ("a/y/v", "wait"), ("j", "task")]
    row = row_of("awaiting_signal", signal_id="a/x/w", signal_name="go", wake_at=0.0)
    assert drawn(nodes, [], row) == [
        *("… fork a", "… x", "… event w  awaits event go, until 1970-01-01T00:00:00.000Z"),
        *("… y", "… event v  awaits its event", "· j"),
    ]
    over = [("a/x/w", "elapsed"), ("a/y/v", "completed")]
    assert drawn(nodes, over, row_of("in_progress")) == [
        *("✓ fork a", "✓ x", "✓ event w  its time was over", "✓ y", "✓ event v  2.0 s", "▶ j  due"),
    ]


def test_a_map_of_a_thousand_is_one_line() -> None:
    nodes = [("list", "task"), ("m", "map"), ("m[]", "task"), ("end", "task")]
    steps = [("list", "completed"), *((f"m[{n}]", "completed") for n in range(837))]
    row = row_of("in_progress", worker_id="w1~1")
    assert drawn(nodes, steps, row, at=1, sizes={"m": 1000})[1:] == [
        "▶ map m  837/1000 items",
        "· end",
    ]
    assert drawn(nodes, steps, row)[1:] == ["▶ map m  837 items", "· end"]
    # That it is over is known by their number, or by what comes behind.
    assert drawn(nodes, steps, row, sizes={"m": 837})[1:] == [
        *("✓ map m  837 items", "▶ end  running")
    ]
    failed = [*steps, ("m[900]", "failed"), ("m[901]", "retried")]
    assert drawn(nodes, failed, row, sizes={"m": 1000})[1] == "▶ map m  838/1000 items, 1 failed"
    ended = [*steps, ("end", "completed")]
    assert drawn(nodes, ended, row_of("completed"))[1:] == ["✓ map m  837 items", "✓ end  2.0 s"]


def test_the_steps_of_items_are_counted() -> None:
    nodes = [("m", "map"), ("m[]/one", "task"), ("m[]/two", "task")]
    steps = [
        *((f"m[{n}]/one", "completed") for n in range(5)),
        *(("m[5]/one", "failed"), ("m[6]/one", "retried"), ("m[0]/two", "completed")),
    ]
    assert drawn(nodes, steps, row_of("in_progress"), sizes={"m": 9}) == [
        *("▶ map m  2/9 items, 1 failed", "… one  5 done, 1 failed, 1 to be tried again"),
        "✓ two  1 done",
    ]


def test_turns_are_counted_and_what_is_behind_a_loop_ends_it() -> None:
    nodes = [("l", "loop"), ("l#/a", "task"), ("l#/m", "map"), ("l#/m[]", "task"), ("b", "task")]
    turns = [(f"l#{n}/{step}", "completed") for n in range(3) for step in ("a", "m[0]", "m[1]")]
    row = row_of("in_progress", worker_id="w1~1")
    assert drawn(nodes, turns, row)[0].startswith("▶ loop l")
    assert drawn(nodes, turns, row, at=1)[-1] == "▶ b  running"
    over = drawn(nodes, [*turns, ("b", "completed")], row_of("completed"))
    assert over[0].startswith("✓ loop l")
    assert "✓ a  3 done" in over


def test_only_one_arm_of_a_route_is_taken() -> None:
    nodes = [("r", "route"), ("r/a/x", "task"), ("r/~default/y", "task")]
    assert drawn(nodes, [], row_of("in_progress")) == [
        *("▶ route r  due", "· a", "· x", "· otherwise", "· y"),
    ]
    taken = [("r", "completed"), ("r/~default/y", "completed")]
    assert drawn(nodes, taken, row_of("completed")) == [
        *("✓ route r", "· a  not taken", "· x", "✓ otherwise", "✓ y  2.0 s"),
    ]


def test_without_a_definition_the_steps_are_listed() -> None:
    steps = [("a", "completed"), ("m[0]/x", "completed"), ("m[1]/x", "completed")]
    items = {"wide": (1, 2)}
    assert drawn(None, steps, row_of("waiting"), items=items) == [
        *("✓ a  2.0 s", "✓ m[]/x  2 done", "… map wide  1/2 items"),
    ]


# Instances.


def test_the_definition_needs_no_code(backend: InMemoryBackend) -> None:
    assert run_durable_workflow(ALL, "i", 1, backend).is_awaiting_signal()
    begun = [line.partition("  ")[0] for line in shown("i")]
    assert begun[:10] == [
        *("i (all): awaiting_signal", "✓ first", "… fork", "✓ left", "✓ same"),
        *("… right", "✓ ready", "… event go", "· joined", "· loop rounds"),
    ]
    assert "… event go  awaits event go" in shown("i")
    with SyncWorkflowClient(backend) as client, Worker(backend, ALL):
        client.send_event("i", "go")
        client.wait_until("i", "waiting", timeout=LONG)
        lines = shown("i")
        assert "✓ loop rounds  4 turns" in lines
        assert "· b  not taken" in lines
        assert "✓ map items  3 items" in lines
        assert "✓ two  3 done" in lines
        assert any(line.startswith("… delay rest  until 20") for line in lines)
        assert lines[-1] == "· last"
        assert shown("i", "--flow", f"{__name__}:ALL") == lines


def test_how_many_items_there_are_is_known(backend: InMemoryBackend) -> None:
    with SyncWorkflowClient(backend) as client, Worker(backend, PICKY):
        client.submit(PICKY, "i", 5)
        client.wait_until("i", "waiting", timeout=LONG)
    assert "… map m  4/5 items" in shown("i")


def test_as_json(backend: InMemoryBackend) -> None:
    run_durable_workflow(ALL, "i", 1, backend)
    facts = json.loads(runs("show", "i", "--graph", "--json").stdout)
    assert (facts["instance_id"], facts["signal"]) == ("i", "go")
    fork = facts["graph"][1]
    assert (fork["path"], fork["kind"], fork["state"]) == ("fork", "fork", "waiting")
    assert [branch["path"] for branch in fork["children"]] == ["fork/left", "fork/right"]


def test_names_are_drawn_as_they_are(backend: InMemoryBackend) -> None:
    flow = (
        Flow(HOSTILE).then(same, name=HOSTILE).fork().branch(same, name=HOSTILE).join(same).build()
    )
    run_durable_workflow(flow, HOSTILE, 1, backend)
    out = runs("show", HOSTILE, "--graph").stdout
    assert "\u202e" not in out
    assert out.count("[red]a[/red]\\u202e/b[0]#1~2 100%") == 4


def test_no_payload_is_shown(backend: InMemoryBackend) -> None:
    flow = Flow("quiet").then(lambda _: "canary", name="a").then(same, name="b").build()
    run_durable_workflow(flow, "i", "canary", backend)
    assert "canary" not in runs("show", "i", "--graph").output
    assert "canary" not in runs("show", "i", "--graph", "--json").output


def test_a_failure_is_told_below(backend: InMemoryBackend) -> None:
    def fail(_: Any) -> None:
        raise NonRetryable("out of paper")

    run_durable_workflow(Flow("failing").then(fail).build(), "i", 1, backend)
    lines = shown("i")
    assert lines[1].startswith("✗ fail  failed: NonRetryable")
    assert lines[2] == "error: NonRetryable: out of paper"


def test_another_workflow_is_refused(backend: InMemoryBackend) -> None:
    run_durable_workflow(ALL, "i", 1, backend)
    refused = runs("show", "i", "--graph", "--flow", f"{__name__}:SPREAD", code=1)
    assert "instance 'i' runs definition" in refused.stderr
    assert "leave --flow out" in refused.stderr
    assert "'none'" in runs("show", "none", "--graph", code=1).stderr
    runs("show", "i", "--flow", "nonsense", code=2)


# Items of spread maps.


@pytest.fixture
def spread(backend: InMemoryBackend) -> InMemoryBackend:
    """An instance that awaits its items, for which nobody has the tags."""
    with SyncWorkflowClient(backend) as client, Worker(backend, SPREAD, tags=["small"]):
        client.submit(SPREAD, "i", 1)
        client.wait_until("i", "waiting", timeout=LONG)
    return backend


def test_a_spread_map_says_how_far_it_is(spread: InMemoryBackend) -> None:
    alone = runs("show", "i", "--graph")
    assert "… map wide  0/2 items" in alone.stdout
    assert "name the workflow with --flow" in alone.stderr
    assert shown("i", "--flow", f"{__name__}:SPREAD")[-1] == "… map wide  0/2 items"
    item = json.loads(runs("list", "--items", "--prefix", "i~", "--json").stdout)["rows"][0]
    assert shown(item["instance_id"], "--flow", f"{__name__}:SPREAD")[1] == "▶ press  due"
    with SyncWorkflowClient(spread) as client, Worker(spread, SPREAD):
        client.wait_until("i", "completed", timeout=LONG)
    assert shown("i")[-1] == "✓ map wide  2 items"


def test_a_list_is_not_flooded_by_items(spread: InMemoryBackend) -> None:
    with SyncWorkflowClient(spread) as client:
        # A user's own id and name may look like much, but not like both of an item's.
        client.submit(ALL, "i~5.6[1]", 1)
        client.submit(Flow("a/b").then(same).build(), "i~5", 1)
    found = runs("list")
    assert [line.split()[0] for line in found.stdout.splitlines()[1:]] == ["i~5", "i~5.6[1]", "i"]
    assert "2 items of spread maps are left out; --items shows them" in found.stderr
    assert len(json.loads(runs("list", "--json").stdout)["rows"]) == 3
    assert len(json.loads(runs("list", "--items", "--json").stdout)["rows"]) == 5
    assert "left out" not in runs("list", "--items").stderr


def test_pages_lose_nothing_to_items(backend: InMemoryBackend) -> None:
    wide = Flow("wide").then(lambda n: list(range(n)), name="n").map(same, spread=True).build()
    for number in range(4):
        run_durable_workflow(wide, f"i-{number}", 9, backend)
    seen: list[str] = []
    more: list[str] = []
    while True:
        page = json.loads(runs("list", "--limit", "3", "--json", *more).stdout)
        assert len(page["rows"]) <= 3
        seen += [row["instance_id"] for row in page["rows"]]
        if page["cursor"] is None:
            break
        more = ["--cursor", page["cursor"]]
    assert seen == ["i-3", "i-2", "i-1", "i-0"]
