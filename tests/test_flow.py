"""Flows: every node in every place, each refusal, names and paths, and what the hash covers."""

import copy
import math
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest

from sayiir import (
    EventTimeout,
    Flow,
    LoopResult,
    MapError,
    NodeInfo,
    OnMax,
    RetryPolicy,
    Workflow,
    task,
)
from sayiir._values import LoopDict


def inc(x: Any) -> Any:
    return x + 1


def double(x: Any) -> Any:
    return x * 2


def key_of(x: Any) -> str:
    return str(x)


def collect(results: dict[str, Any]) -> Any:
    return results


def turn(x: Any) -> LoopResult[Any]:
    return LoopResult.done(x)


CHILD: Workflow[Any, Any] = Flow("child").then(inc).then(double).build()


def ids(flow: Flow[Any, Any]) -> list[str]:
    return [node.id for node in flow.build().iter_nodes()]


def start(name: str = "f") -> Flow[Any, Any]:
    return Flow(name)


NODES: dict[str, Callable[[Flow[Any, Any]], Flow[Any, Any]]] = {
    "task": lambda f: f.then(inc),
    "lambda": lambda f: f.then(lambda x: x),
    "fork": lambda f: f.fork().branch(inc).branch(double, inc).join(collect),
    "map": lambda f: f.map(inc),
    "route": lambda f: f.route(key_of, keys=["a"]).branch("a", inc).done(),
    "loop": lambda f: f.loop(turn),
    "delay": lambda f: f.delay("d", 1),
    "delay_until": lambda f: f.delay_until("u", datetime(2030, 1, 1, tzinfo=UTC)),
    "wait": lambda f: f.wait_for_event("e"),
    "child": lambda f: f.then_flow(CHILD),
}


class TestNodes:
    def test_tasks_in_a_row(self) -> None:
        workflow = start("w").then(inc).then(double, name="twice").then(lambda x: x).build()
        assert workflow.iter_nodes() == [
            NodeInfo("inc", "task"),
            NodeInfo("twice", "task", "inc"),
            NodeInfo("lambda_0", "task", "twice"),
        ]

    def test_fork_and_join(self) -> None:
        flow = start().fork().branch(inc, double).branch(double, name="other").join(collect)
        nodes = flow.build().iter_nodes()
        assert [(node.id, node.kind, node.predecessor_id) for node in nodes] == [
            ("fork", "fork", None),
            ("fork/inc/inc", "task", "fork"),
            ("fork/inc/double", "task", "fork/inc/inc"),
            ("fork/other/double", "task", "fork"),
            ("collect", "task", "fork"),
        ]

    def test_a_lambda_that_begins_a_named_branch_takes_the_name(self) -> None:
        flow = start().fork().branch(lambda x: x, name="same").branch(lambda x: x).join(collect)
        assert ids(flow)[1:3] == ["fork/same/same", "fork/lambda_0/lambda_0"]

    def test_map(self) -> None:
        flow = start().map(inc).map(double, concurrency=3, on_error="collect", name="all")
        flow = flow.map(CHILD, name="each").map(CHILD)
        assert [(node.id, node.kind) for node in flow.build().iter_nodes()] == [
            ("inc", "map"),
            ("inc[]", "task"),
            ("all", "map"),
            ("all[]", "task"),
            ("each", "map"),
            ("each[]/inc", "task"),
            ("each[]/double", "task"),
            ("child", "map"),
            ("child[]/inc", "task"),
            ("child[]/double", "task"),
        ]

    def test_route(self) -> None:
        flow = (
            start()
            .route(key_of, keys=["a", "b"])
            .branch("b", CHILD)
            .branch("a", inc, CHILD)
            .default_branch(double)
            .done()
        )
        assert ids(flow) == [
            "route",
            "route/b/inc",
            "route/b/double",
            "route/a/inc",
            "route/a/child",
            "route/a/child/inc",
            "route/a/child/double",
            "route/~default/double",
        ]

    def test_a_route_with_only_a_default(self) -> None:
        assert ids(start().route(key_of).default_branch(inc).done())[0] == "route"
        flow = start().route(key_of, keys=["a", "b"]).branch("a", inc).default_branch(double)
        assert ids(flow.done()) == ["route", "route/a/inc", "route/~default/double"]

    def test_the_first_step_of_a_routes_branch_may_be_named(self) -> None:
        flow = start().route(key_of, keys=["a", "b"], name="r")
        flow = flow.branch("a", inc, inc, name="one").branch("b", CHILD, name="two")
        assert ids(flow.default_branch(inc, name="three").done()) == [
            "r",
            "r/a/one",
            "r/a/inc",
            "r/b/two",
            "r/b/two/inc",
            "r/b/two/double",
            "r/~default/three",
        ]

    def test_route_keys_may_be_members_of_an_enum(self) -> None:
        class Team(StrEnum):
            BILLING = "billing"

        flow = start().route(key_of, keys=list(Team)).branch("billing", inc).done()
        assert ids(flow) == ["route", "route/billing/inc"]

    def test_loop(self) -> None:
        flow = start().loop(turn).loop(inc, turn, max_iterations=1, on_max=OnMax.EXIT_WITH_LAST)
        flow = flow.loop(CHILD, on_max="fail", name="again")
        assert [(node.id, node.kind) for node in flow.build().iter_nodes()] == [
            ("turn", "loop"),
            ("turn#", "task"),
            ("inc", "loop"),
            ("inc#/inc", "task"),
            ("inc#/turn", "task"),
            ("again", "loop"),
            ("again#/inc", "task"),
            ("again#/double", "task"),
        ]

    @pytest.mark.parametrize(
        ("duration", "seconds"),
        [(0, 0.0), (5, 5.0), ("1h30m", 5400.0), (timedelta(days=1), 86400.0)],
    )
    def test_delay(self, duration: Any, seconds: float) -> None:
        (node,) = start().delay("cool-off", duration).build().iter_nodes()
        assert (node.id, node.kind, node.timeout_secs) == ("cool-off", "delay", seconds)

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2030, 1, 1, tzinfo=UTC),
            datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=-9))),
            datetime(1900, 1, 1, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ],
    )
    def test_delay_until(self, moment: datetime) -> None:
        (node,) = start().delay_until("party", moment).build().iter_nodes()
        assert (node.id, node.kind) == ("party", "delay_until")

    def test_wait_for_event_and_its_older_spelling(self) -> None:
        flow = start().wait_for_event("go").wait_for_event("go", node="gate", timeout="1m")
        flow = flow.wait_for_signal("go", name="old").wait_for_signal("go", node="new")
        flow = flow.wait_for_signal("sig", timeout=2, on_timeout="continue")
        assert [(node.id, node.kind, node.timeout_secs) for node in flow.build().iter_nodes()] == [
            ("go", "wait", None),
            ("gate", "wait", 60.0),
            ("old", "wait", None),
            ("new", "wait", None),
            ("sig", "wait", 2.0),
        ]

    def test_child(self) -> None:
        flow = start().then(inc).then_flow(CHILD).then(CHILD, name="second")
        assert [(n.id, n.kind, n.predecessor_id) for n in flow.build().iter_nodes()] == [
            ("inc", "task", None),
            ("child", "child", "inc"),
            ("child/inc", "task", "child"),
            ("child/double", "task", "child/inc"),
            ("second", "child", "child"),
            ("second/inc", "task", "second"),
            ("second/double", "task", "second/inc"),
        ]

    @pytest.mark.parametrize("first", NODES)
    @pytest.mark.parametrize("second", NODES)
    def test_any_node_next_to_any_other(self, first: str, second: str) -> None:
        flow = NODES[second](NODES[first](start()))
        alone = len(ids(NODES[first](start()))) + len(ids(NODES[second](start())))
        found = ids(flow)
        assert len(found) == alone
        assert len(set(found)) == alone

    @pytest.mark.parametrize("inner", NODES)
    @pytest.mark.parametrize("outer", ["fork", "map", "route", "loop", "child"])
    def test_any_workflow_inside_of_any_node(self, inner: str, outer: str) -> None:
        body = NODES[inner](start("body")).build()
        holders: dict[str, Callable[[Flow[Any, Any]], Flow[Any, Any]]] = {
            "fork": lambda f: f.fork().branch(body).branch(inc, body).join(collect),
            "map": lambda f: f.map(body),
            "route": lambda f: f.route(key_of, keys=["k"]).branch("k", body).done(),
            "loop": lambda f: f.loop(body, turn),
            "child": lambda f: f.then_flow(body),
        }
        workflow = holders[outer](start().then(double)).build()
        nodes = workflow.iter_nodes()
        assert len({node.id for node in nodes}) == len(nodes)
        kinds = [node.kind for node in body.iter_nodes()]
        assert "/".join(kinds) in "/".join(node.kind for node in nodes)

    def test_functions_keep_to_their_own_nodes_when_composed(self) -> None:
        @task(timeout=7)
        def slow(x: int) -> int:
            return x

        inner: Workflow[Any, Any] = start("inner").then(inc).then(slow).build()
        outer = start("outer").then(double).then_flow(inner).map(inner).build()
        assert [t.original for t in outer.tasks] == [double, inc, slow, inc, slow]
        timeouts = {node.id: node.timeout_secs for node in outer.iter_nodes()}
        assert timeouts["inner/slow"] == 7.0
        assert timeouts["inner/inc"] is None
        assert timeouts["inner~2[]/slow"] == 7.0


class TestNames:
    def test_lambdas_are_counted_per_flow(self) -> None:
        flow = start().then(lambda x: x).then(lambda x: x, name="named").map(lambda x: x)
        joined = flow.fork().branch(lambda x: x).join(lambda r: r)
        assert ids(joined) == [
            "lambda_0",
            "named",
            "lambda_1",
            "lambda_1[]",
            "fork",
            "fork/lambda_2/lambda_2",
            "lambda_3",
        ]
        assert ids(start().then(lambda x: x)) == ["lambda_0"]

    def test_the_same_task_twice(self) -> None:
        assert ids(start().then(inc).then(inc).then(inc)) == ["inc", "inc~2", "inc~3"]

    def test_two_functions_of_one_name(self) -> None:
        def inc(x: int) -> int:
            return x + 100

        workflow = start().then(globals()["inc"]).then(inc).build()
        assert [node.id for node in workflow.iter_nodes()] == ["inc", "inc~2"]
        assert [t.fn(1) for t in workflow.tasks] == [2, 101]

    def test_names_cannot_imitate_paths(self) -> None:
        flow = start().then(inc, name="a/b").then(inc, name="inc~2").map(inc, name="m[3]")
        assert ids(flow) == ["a%2Fb", "inc%7E2", "m%5B3%5D", "m%5B3%5D[]"]

    @pytest.mark.parametrize("bad", ["", " ", "a\0b", "x" * 257, "\ud800", "a\nb"])
    def test_unacceptable_ones_are_refused_everywhere(self, bad: str) -> None:
        attempts: list[Callable[[], Any]] = [
            lambda: Flow(bad),
            lambda: start().then(inc, name=bad),
            lambda: start().then(CHILD, name=bad),
            lambda: start().then_flow(CHILD, name=bad),
            lambda: start().fork(name=bad),
            lambda: start().fork().branch(inc, name=bad),
            lambda: start().fork().branch(inc).join(collect, name=bad),
            lambda: start().map(inc, name=bad),
            lambda: start().route(key_of, keys=["a"], name=bad),
            lambda: start().route(key_of, keys=[bad]),
            lambda: start().route(key_of, keys=["a"]).branch(bad, inc),
            lambda: start().loop(turn, name=bad),
            lambda: start().delay(bad, 1),
            lambda: start().delay_until(bad, datetime(2030, 1, 1, tzinfo=UTC)),
            lambda: start().wait_for_event(bad),
            lambda: start().wait_for_event("e", node=bad),
            lambda: start().wait_for_signal("e", name=bad),
        ]
        for attempt in attempts:
            with pytest.raises(ValueError, match=r"name|key"):
                attempt()

    @pytest.mark.parametrize("name", ["'; DROP TABLE x; --", "😀", "\u200fabc", "%_..", "<b>"])
    def test_odd_ones_are_kept(self, name: str) -> None:
        assert Flow(name).then(inc).build().workflow_id == name


ValueRefusals: list[tuple[str, Callable[[], Any], str]] = [
    ("no nodes", lambda: start("empty").build(), "flow 'empty' has no steps"),
    ("fork without branches", lambda: start().fork().join(collect), "flow 'f': fork 'fork' has no"),
    ("branch without steps", lambda: start().fork(name="k").branch(), "branch of fork 'k' has no"),  # type: ignore[call-overload]
    (
        "two branches of one name",
        lambda: start().fork().branch(inc).branch(inc),
        "'inc', which another has already",
    ),
    (
        "two branches named alike",
        lambda: start().fork().branch(inc, name="a").branch(double, name="a"),
        "fork 'fork' has the name 'a'",
    ),
    ("unfinished fork", lambda: _left_open().build(), "finish fork 'fork' with .join"),
    ("unfinished fork, next", lambda: _left_open().then(inc), "finish fork 'fork' with .join"),
    ("unfinished fork, child", lambda: _left_open().then_flow(CHILD), "finish fork"),
    ("unfinished fork, map", lambda: _left_open().map(inc), "finish fork"),
    ("unfinished fork, loop", lambda: _left_open().loop(turn), "finish fork"),
    ("unfinished fork, delay", lambda: _left_open().delay("d", 1), "finish fork"),
    ("unfinished fork, wait", lambda: _left_open().wait_for_event("e"), "finish fork"),
    ("unfinished fork, fork", lambda: _left_open().fork(), "finish fork"),
    ("unfinished fork, route", lambda: _left_open().route(key_of), "finish fork"),
    ("unfinished route", lambda: _left_open("route").build(), "finish route 'route' with .done"),
    ("undeclared key", lambda: _route("a").branch("z", inc), "key 'z' is not declared"),
    ("repeated key", lambda: _route("a").branch("a", inc).branch("a", inc), "has a branch already"),
    ("key declared twice", lambda: _route("a", "a"), "key 'a' is declared twice"),
    ("uncovered key", lambda: _route("a", "b").branch("a", inc).done(), "no branch for 'b'"),
    ("route without branches", lambda: _route().done(), "there are no branches"),
    ("route branch without steps", lambda: _route("a").branch("a"), "has no steps"),
    ("default without steps", lambda: _route("a").default_branch(), "has no steps"),
    (
        "two defaults",
        lambda: _route("a").default_branch(inc).default_branch(inc),
        "a default branch already",
    ),
    ("loop without steps", lambda: start().loop(), "loop has no steps"),  # type: ignore[call-overload]
    ("loop bound 0", lambda: start().loop(turn, max_iterations=0), "max_iterations must be"),
    ("loop bound -1", lambda: start().loop(turn, max_iterations=-1), "max_iterations must be"),
    ("loop bound huge", lambda: start().loop(turn, max_iterations=10**30), "max_iterations"),
    ("loop policy", lambda: start().loop(turn, on_max="stop"), "on_max must be 'fail' or"),  # type: ignore[call-overload]
    ("map policy", lambda: start().map(inc, on_error="skip"), "on_error must be 'fail' or"),  # type: ignore[call-overload]
    ("map concurrency 0", lambda: start().map(inc, concurrency=0), "concurrency must be"),
    ("map concurrency -1", lambda: start().map(inc, concurrency=-1), "concurrency must be"),
    ("wait policy", lambda: start().wait_for_event("e", on_timeout="go"), "on_timeout must"),  # type: ignore[arg-type]
    ("wait timeout 0", lambda: start().wait_for_event("e", timeout=0), "wait 'e': timeout"),
    ("wait timeout -1", lambda: start().wait_for_event("e", timeout=-1), "wait 'e': timeout"),
    ("both names", lambda: start().wait_for_signal("e", name="a", node="b"), "both name and node"),
    ("delay -1", lambda: start().delay("d", -1), "delay 'd': duration must be"),
    ("delay nan", lambda: start().delay("d", math.nan), "delay 'd': duration must be"),
    ("delay inf", lambda: start().delay("d", math.inf), "delay 'd': duration must be"),
    ("delay 1e300", lambda: start().delay("d", 1e300), "at most 100 years"),
    ("delay 1e18", lambda: start().delay("d", 1e18), "at most 100 years"),
    ("delay text", lambda: start().delay("d", "soon"), "is not a duration"),
    ("naive moment", lambda: start().delay_until("d", datetime(2030, 1, 1)), "no time zone"),
]

TypeRefusals: list[tuple[str, Callable[[], Any], str]] = [
    ("name", lambda: Flow(3), "workflow name must be a str"),  # type: ignore[arg-type]
    ("metadata", lambda: Flow("f", metadata=[1]), "metadata must be a dict"),  # type: ignore[arg-type]
    ("metadata key", lambda: Flow("f", metadata={1: 2}), "keys of metadata"),  # type: ignore[dict-item]
    ("step", lambda: start().then(3), "flow 'f': a step must be callable, got 3"),  # type: ignore[call-overload]
    ("flow as step", lambda: start().then(start()), "must be callable"),  # type: ignore[call-overload]
    ("two arguments", lambda: start().then(pow), "flow 'f', task 'pow'"),  # type: ignore[arg-type]
    ("child", lambda: start().then_flow(inc), "takes a built workflow"),  # type: ignore[arg-type]
    ("unbuilt child", lambda: start().then_flow(start()), "call .build()"),  # type: ignore[arg-type]
    ("branch", lambda: start().fork().branch("x"), "must be callable"),  # type: ignore[call-overload]
    ("join", lambda: start().fork().branch(inc).join(None), "must be callable"),  # type: ignore[call-overload]
    ("join flow", lambda: start().fork().branch(inc).join(CHILD), "takes a function"),  # type: ignore[call-overload]
    ("map", lambda: start().map([inc]), "must be callable"),  # type: ignore[call-overload]
    ("concurrency", lambda: start().map(inc, concurrency=1.5), "concurrency"),  # type: ignore[call-overload]
    ("concurrency bool", lambda: start().map(inc, concurrency=True), "concurrency"),
    ("on_error", lambda: start().map(inc, on_error=1), "on_error must be a str"),  # type: ignore[call-overload]
    ("loop body", lambda: start().loop(None), "must be callable"),  # type: ignore[call-overload]
    ("max_iterations", lambda: start().loop(turn, max_iterations="3"), "max_iterations"),  # type: ignore[call-overload]
    ("keys as text", lambda: start().route(key_of, keys="ab"), "keys must be a list"),
    ("key", lambda: start().route(key_of, keys=[1]), "key must be a str"),  # type: ignore[list-item]
    ("key function", lambda: start().route(CHILD, keys=["a"]), "chosen by a function"),  # type: ignore[arg-type]
    ("key function 3", lambda: start().route(3, keys=["a"]), "must be callable"),  # type: ignore[arg-type]
    ("arm", lambda: _route("a").branch("a", 3), "must be callable"),
    ("delay", lambda: start().delay("d", None), "duration must be a duration"),  # type: ignore[arg-type]
    ("delay name", lambda: start().delay(3, 3), "delay name must be a str"),  # type: ignore[arg-type]
    ("moment", lambda: start().delay_until("d", 5), "must be a datetime"),  # type: ignore[arg-type]
    ("event", lambda: start().wait_for_event(None), "event name must be a str"),  # type: ignore[arg-type]
]


def _left_open(what: str = "fork") -> Flow[Any, Any]:
    flow = start()
    _ = flow.fork().branch(inc) if what == "fork" else flow.route(key_of, keys=["a"])
    return flow


def _route(*keys: str) -> Any:
    return start().route(key_of, keys=keys)


class TestRefusals:
    @pytest.mark.parametrize(
        ("attempt", "sentence"), [r[1:] for r in ValueRefusals], ids=[r[0] for r in ValueRefusals]
    )
    def test_of_values(self, attempt: Callable[[], Any], sentence: str) -> None:
        with pytest.raises(ValueError) as caught:
            attempt()
        assert sentence in str(caught.value)
        assert str(caught.value).startswith("flow '")

    @pytest.mark.parametrize(
        ("attempt", "sentence"), [r[1:] for r in TypeRefusals], ids=[r[0] for r in TypeRefusals]
    )
    def test_of_kinds(self, attempt: Callable[[], Any], sentence: str) -> None:
        with pytest.raises(TypeError) as caught:
            attempt()
        assert sentence in str(caught.value)

    def test_a_refused_call_changes_nothing(self) -> None:
        def two(a: int, b: int) -> int:
            return a + b

        flow = start().then(inc)
        before = flow.build()
        for attempt in (
            lambda: flow.then(two),  # type: ignore[arg-type]
            lambda: flow.loop(lambda x: x, two),
            lambda: flow.map(inc, on_error="x"),  # type: ignore[call-overload]
            lambda: flow.then(inc, name=""),
            lambda: flow.route(key_of, keys=["a", "a"]),
        ):
            with pytest.raises((TypeError, ValueError)):
                attempt()
        after = flow.build()
        assert after.iter_nodes() == before.iter_nodes()
        assert len(after.tasks) == 1
        assert ids(flow.then(lambda x: x)) == ["inc", "lambda_0"]

    def test_a_refused_branch_leaves_the_fork_open_for_another(self) -> None:
        fork = start().fork().branch(inc)
        with pytest.raises(ValueError, match="another has already"):
            fork.branch(inc)
        assert ids(fork.branch(double).join(collect))[2] == "fork/double/double"

    def test_a_finished_builder_takes_nothing_more(self) -> None:
        fork = start().fork().branch(inc)
        fork.join(collect)
        route = start().route(key_of, keys=["a"]).branch("a", inc)
        route.done()
        for attempt in (
            lambda: fork.branch(double),
            lambda: fork.join(collect),
            lambda: route.branch("a", inc),
            lambda: route.default_branch(inc),
            route.done,
        ):
            with pytest.raises(ValueError, match="is finished; begin another"):
                attempt()

    def test_nesting_has_a_limit(self) -> None:
        workflow = start().then(inc).build()
        with pytest.raises(ValueError, match="nested deeper than"):
            for _ in range(100):
                workflow = start().then_flow(workflow).build()


class TestWorkflow:
    def test_a_flow_may_be_built_again_and_what_was_built_stays(self) -> None:
        flow = start().then(inc)
        first, second = flow.build(), flow.build()
        assert first.definition_hash == second.definition_hash
        longer = flow.then(double).build()
        assert [len(w.iter_nodes()) for w in (first, second, longer)] == [1, 1, 2]
        assert first.definition_hash != longer.definition_hash
        assert len(first.tasks) == 1

    def test_it_is_immutable(self) -> None:
        with pytest.raises(AttributeError, match="does not change"):
            CHILD.workflow_id = "x"  # type: ignore[misc]
        with pytest.raises(AttributeError, match="does not change"):
            del CHILD._tasks
        assert copy.copy(CHILD) is CHILD
        assert copy.deepcopy(CHILD) is CHILD

    def test_metadata_is_a_copy_on_the_way_in_and_out(self) -> None:
        given = {"team": ["a"]}
        flow = Flow("f", metadata=given).then(inc)
        given["team"].append("b")
        workflow = flow.build()
        metadata = workflow.metadata
        assert metadata == {"team": ["a"]}
        metadata["team"].append("c")
        assert workflow.metadata == {"team": ["a"]}
        assert CHILD.metadata is None

    def test_the_default_name(self) -> None:
        assert Flow().then(inc).build().workflow_id == "workflow"

    def test_nodes_show_what_the_task_was_told(self) -> None:
        policy = RetryPolicy(max_retries=1)

        @task(timeout="1m", retries=policy, priority=2)
        def told(x: str) -> str:
            return x

        workflow = start().then(told).route(told, keys=["k"]).branch("k", inc).done().build()
        first, route, arm = workflow.iter_nodes()
        assert first == NodeInfo("told", "task", None, 60.0, policy, 2)
        assert (route.kind, route.retry_policy, route.priority) == ("route", policy, 2)
        assert (arm.timeout_secs, arm.retry_policy, arm.priority) == (None, None, None)

    def test_representations(self) -> None:
        assert repr(start("order").then(inc)) == "<Flow 'order': 1 nodes>"
        assert repr(CHILD) == f"<Workflow 'child' {CHILD.definition_hash[:12]}>"

    def test_the_drawing_shows_every_node(self) -> None:
        flow = start("all")
        for add in NODES.values():
            flow = add(flow)
        drawing = flow.build().to_mermaid()
        lines = drawing.splitlines()
        assert lines[0] == "flowchart TD"
        for label in ("inc", "lambda_0", "fork", "map inc", "route", "loop turn", "d: 1 s", "u"):
            assert any(f'"{label}"' in line for line in lines), label
        assert '-->|"double"|' in drawing
        assert '-.->|"again"|' in drawing
        assert '"event e"' in drawing
        assert '"child"' in drawing
        drawn = {line.split()[0] for line in lines[1:] if "-->" in line or "-.->" in line}
        declared = {line.strip().split("[")[0].split("(")[0].split("{")[0] for line in lines[1:]}
        assert drawn <= declared

    def test_names_cannot_break_out_of_the_drawing(self) -> None:
        evil = '"]; click x "<script>alert(1)</script>#'
        drawing = start(evil).then(inc, name=evil).build().to_mermaid()
        assert "<script>" not in drawing
        assert '"]; click' not in drawing
        assert "#60;script#62;" in drawing


def shape(**change: Any) -> str:
    """The hash of a workflow with one of everything, in which `change` differs."""
    told: dict[str, Any] = {
        "name": "shape",
        "task": "step",
        "body": inc,
        "options": {},
        "metadata": None,
        "fork": "fork",
        "branch": "left",
        "join": "join",
        "map": "map",
        "concurrency": 2,
        "on_error": "fail",
        "route": "route",
        "keys": ["a", "b"],
        "loop": "loop",
        "turns": 3,
        "on_max": "fail",
        "delay": "delay",
        "seconds": 5,
        "moment": datetime(2030, 1, 1, tzinfo=UTC),
        "event": "event",
        "node": "node",
        "timeout": "1h",
        "on_timeout": "fail",
        "child": CHILD,
    }
    assert set(change) <= set(told)
    told.update(change)
    step = task(**told["options"])(lambda x: told["body"](x))
    flow = (
        Flow(told["name"], metadata=told["metadata"])
        .then(step, name=told["task"])
        .fork(name=told["fork"])
        .branch(inc, name=told["branch"])
        .branch(double, name="right")
        .join(collect, name=told["join"])
        .map(inc, concurrency=told["concurrency"], on_error=told["on_error"], name=told["map"])
    )
    route = flow.route(key_of, keys=told["keys"], name=told["route"])
    for key in told["keys"]:
        route = route.branch(key, inc)
    return (
        route.done()
        .loop(turn, max_iterations=told["turns"], on_max=told["on_max"], name=told["loop"])
        .delay(told["delay"], told["seconds"])
        .delay_until("until", told["moment"])
        .wait_for_event(
            told["event"],
            node=told["node"],
            timeout=told["timeout"],
            on_timeout=told["on_timeout"],
        )
        .then_flow(told["child"])
        .build()
        .definition_hash
    )


class TestDefinitionHash:
    def test_it_is_sha_256_and_the_same_every_time(self) -> None:
        assert shape() == shape()
        assert len(shape()) == 64
        assert set(shape()) <= set("0123456789abcdef")

    @pytest.mark.parametrize(
        "change",
        [
            {"options": {"retries": 5}},
            {"options": {"retries": RetryPolicy(initial_delay_secs=9)}},
            {"options": {"timeout": 9}},
            {"options": {"tags": ["gpu"]}},
            {"options": {"priority": 1}},
            {"options": {"description": "d", "version": "2"}},
            {"options": {"run_in": "inline"}},
            {"body": double},
            {"metadata": {"team": "a"}},
            {"concurrency": None},
            {"on_error": "collect"},
            {"turns": 30},
            {"on_max": "exit_with_last"},
            {"seconds": 50},
            {"moment": datetime(2031, 1, 1, tzinfo=UTC)},
            {"timeout": None},
            {"on_timeout": "continue"},
        ],
        ids=str,
    )
    def test_what_may_be_tuned_is_not_in_it(self, change: dict[str, Any]) -> None:
        assert shape(**change) == shape()

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"task": "other"},
            {"fork": "other"},
            {"branch": "other"},
            {"join": "other"},
            {"map": "other"},
            {"route": "other"},
            {"keys": ["a", "c"]},
            {"keys": ["b", "a"]},
            {"keys": ["a"]},
            {"loop": "other"},
            {"delay": "other"},
            {"event": "other"},
            {"node": "other"},
            {"child": Flow("child").then(inc).build()},
            {"child": Flow("other").then(inc).then(double).build()},
        ],
        ids=str,
    )
    def test_names_and_structure_are_in_it(self, change: dict[str, Any]) -> None:
        assert shape(**change) != shape()

    def test_order_and_kind_are_in_it(self) -> None:
        flows = [
            start().then(inc).then(double),
            start().then(double).then(inc),
            start().then(inc),
            start().then(inc).then(inc),
            start().map(inc),
            start().loop(inc),
            start().delay("inc", 1),
            start().delay_until("inc", datetime(2030, 1, 1, tzinfo=UTC)),
            start().wait_for_event("inc"),
            start().wait_for_event("event", node="inc"),
            start().fork().branch(inc).join(collect),
            start().fork().branch(inc).branch(double).join(collect),
            start().fork().branch(inc, double).join(collect),
            start().route(key_of, keys=["a"]).branch("a", inc).done(),
            start().route(key_of).default_branch(inc).done(),
            start().then_flow(start("inc").then(inc).build()),
            start("g").then(inc),
        ]
        hashes = [flow.build().definition_hash for flow in flows]
        assert len(set(hashes)) == len(flows)

    def test_names_do_not_run_together(self) -> None:
        one = start().then(inc, name="ab").then(inc, name="c").build()
        other = start().then(inc, name="a").then(inc, name="bc").build()
        assert one.definition_hash != other.definition_hash


class TestLoopResult:
    def test_again_and_done(self) -> None:
        again, done = LoopResult.again(1), LoopResult.done(1)
        assert (again.is_again, again.is_done, again.value) == (True, False, 1)
        assert (done.is_again, done.is_done, done.value) == (False, True, 1)
        assert (repr(again), repr(done)) == ("LoopResult.again(1)", "LoopResult.done(1)")

    def test_equal_when_the_contents_are(self) -> None:
        assert LoopResult.again([1]) == LoopResult.again([1])
        assert LoopResult.again(1) != LoopResult.done(1)
        assert LoopResult.again(1) != ("again", 1)
        assert len({LoopResult.done(1), LoopResult.done(1)}) == 1

    def test_it_never_changes(self) -> None:
        result = LoopResult.done(1)
        with pytest.raises(AttributeError, match="does not change"):
            result._value = 2
        with pytest.raises(AttributeError, match="does not change"):
            del result._value
        with pytest.raises(ValueError, match="'again' or 'done'"):
            LoopResult("perhaps", 1)

    def test_as_a_dict_it_is_known_by_its_class_and_not_by_its_shape(self) -> None:
        made = LoopResult.again(2).to_dict()
        assert made == {"_loop": "again", "value": 2}
        assert isinstance(made, LoopDict)
        assert made.loop_result == LoopResult.again(2)
        assert not isinstance(dict(made), LoopDict)

    @pytest.mark.parametrize(
        "value",
        [
            LoopResult.done([1]),
            LoopResult.again(None).to_dict(),
            EventTimeout("approved"),
            MapError(3, "ValueError", "no", "m[3]"),
        ],
    )
    def test_they_travel_and_copy(self, value: Any) -> None:
        for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
            assert type(twin) is type(value)
            assert twin == value
        twin = pickle.loads(pickle.dumps(value))
        assert getattr(twin, "loop_result", None) == getattr(value, "loop_result", None)

    def test_stand_ins_never_change(self) -> None:
        with pytest.raises(AttributeError):
            EventTimeout("e").name = "x"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            MapError(0, "E", "", "m[0]").index = 1  # type: ignore[misc]


def test_an_open_builder_says_how_to_end_it() -> None:
    fork: Any = Flow("t").fork().branch(abs).branch(str)
    with pytest.raises(AttributeError, match=r"flow 't': .*\.build .*fork 'fork' with \.join\(…\)"):
        fork.build()
    route: Any = Flow("t").route(str, keys=["a"]).branch("a", str)
    with pytest.raises(AttributeError, match=r"\.then .*route 'route' with \.done\(\)"):
        route.then(str)
    assert not hasattr(fork, "__length_hint__")
