"""Flows of every kind of node, each with what it must come to, in plain Python.

A shape is a workflow and its oracle: an ordinary function that walks through the recorded results
(`Replay`) as the flow should have gone. It says which body stood at which path and what it must
have been given; the replay objects when the records say otherwise, and answers with the output that
was recorded. Refuses to know workers, crashes and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sayiir import EventTimeout, Flow, LoopResult, MapError, Workflow

from .bodies import Body, Broken

Whole = Workflow[Any, Any]


class Fails(Exception):
    """The flow ends here with a failure of this class, at this path."""

    def __init__(self, path: str, error_type: str) -> None:
        super().__init__(f"{error_type} at {path}")
        self.path = path
        self.error_type = error_type


class Replay(Protocol):
    """What was recorded of one instance."""

    def ran(self, body: Body, path: str, given: Any) -> Any:
        """The recorded output of a body that ends well here, given this."""

    def fell(self, body: Body, path: str, given: Any) -> None:
        """A body ended badly here, given this."""

    def got(self, path: str, name: str) -> Any:
        """The event that a wait was given."""

    def elapsed(self, path: str) -> None:
        """The time of a delay or of a wait was over."""

    def shared(self, path: str, given: list[Any], item: Oracle) -> list[Any]:
        """The recorded outputs of a spread map whose items were given this, with their oracle."""


Oracle = Callable[[Replay, Any], Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One flow, what it must come to, and which events it needs."""

    workflow: Whole
    oracle: Oracle
    events: tuple[str, ...] = ()
    """Names, in the order in which they are to be sent."""


def chain(replay: Replay, bodies: tuple[Body, ...], value: Any, within: str = "") -> Any:
    """Bodies in a row, at the paths of their names within another path."""
    for body in bodies:
        value = replay.ran(body, f"{within}{body.name}", value)
    return value


def bodies(*names: str, calling: str = "atat") -> tuple[Body, ...]:
    """Bodies of these names, called in turn as asyncio tasks, in threads and inline."""
    ways = {"a": "async", "t": "thread", "i": "inline"}
    made = []
    for place, name in enumerate(names):
        way: Any = ways[calling[place % len(calling)]]
        made.append(Body(name, calling=way))
    return tuple(made)


def then(flow: Any, *steps: Body) -> Any:
    """The flow with these bodies in a row."""
    for step in steps:
        flow = flow.then(step.task())
    return flow


# A row of tasks, called in every way.

ROW = bodies("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", calling="ati")


def row(replay: Replay, value: Any) -> Any:
    return chain(replay, ROW, value)


# A fork, with a row, a task and a whole workflow as its branches.

F1, F2, F3, F4, F5, JOIN, F6 = bodies("f1", "f2", "f3", "f4", "f5", "join", "f6")
INNER = then(Flow("inner"), F4, F5).build()


def build_fork() -> Whole:
    fork = then(Flow("fork"), F1).fork(name="fork")
    fork = fork.branch(F2.task(), F3.task(), name="left").branch(INNER, name="right")
    whole: Whole = then(fork.branch(F1.task(), name="mid").join(JOIN.task()), F6).build()
    return whole


def fork(replay: Replay, value: Any) -> Any:
    value = replay.ran(F1, "f1", value)
    branches = {
        "left": chain(replay, (F2, F3), value, "fork/left/"),
        "right": chain(replay, (F4, F5), value, "fork/right/"),
        "mid": replay.ran(F1, "fork/mid/f1", value),
    }
    return chain(replay, (JOIN, F6), branches)


# Maps: of a task, of a workflow, and one that collects what fails.

M1 = Body("m1", act="list", calling="thread")
M2, M3, M4, M5, M7 = bodies("m2", "m3", "m4", "m5", "m7", calling="at")
M6 = Body("m6", mood="picky")
TWO = then(Flow("two"), M3, M4).build()


def build_map() -> Whole:
    flow = then(Flow("map"), M1).map(M2.task(), name="each").map(TWO, concurrency=2, name="pairs")
    whole: Whole = then(flow.map(M6.task(), on_error="collect", name="some"), M7).build()
    return whole


def map_(replay: Replay, value: Any) -> Any:
    items = replay.ran(M1, "m1", value)
    items = [replay.ran(M2, f"each[{at}]", item) for at, item in enumerate(items)]
    items = [chain(replay, (M3, M4), item, f"pairs[{at}]/") for at, item in enumerate(items)]
    collected: list[Any] = []
    for at, item in enumerate(items):
        path = f"some[{at}]"
        if M6.answers(item):
            collected.append(replay.ran(M6, path, item))
        else:
            replay.fell(M6, path, item)
            collected.append(MapError(at, Broken.__name__, "m6 is broken", path))
    return replay.ran(M7, "m7", collected)


# A spread map, whose items any worker may take, and a map of such maps.

S1 = Body("s1", act="list", size=20)
S2, S3, S4, S6, S7 = bodies("s2", "s3", "s4", "s6", "s7")
S5 = Body("s5", act="list", calling="thread")
PART = then(Flow("part"), S2, S3).build()
LOT = then(then(Flow("lot"), S5).map(S6.task(), spread=True, name="inner"), S7).build()


def build_spread() -> Whole:
    flow = then(Flow("spread"), S1).map(PART, spread=True, name="parts")
    whole: Whole = then(flow, S4).build()
    return whole


def part(replay: Replay, value: Any) -> Any:
    return chain(replay, (S2, S3), value)


def spread(replay: Replay, value: Any) -> Any:
    items = replay.ran(S1, "s1", value)
    return replay.ran(S4, "s4", replay.shared("parts", items, part))


def build_lots() -> Whole:
    whole: Whole = then(Flow("lots"), M1).map(LOT, spread=True, name="lots").build()
    return whole


def single(replay: Replay, value: Any) -> Any:
    return replay.ran(S6, "s6", value)


def lot(replay: Replay, value: Any) -> Any:
    items = replay.ran(S5, "s5", value)
    return replay.ran(S7, "s7", replay.shared("inner", items, single))


def lots(replay: Replay, value: Any) -> Any:
    return replay.shared("lots", replay.ran(M1, "m1", value), lot)


# A route, with a workflow in one arm and the default for the other.

R1, R2, R3, R4, R5, R6 = bodies("r1", "r2", "r3", "r4", "r5", "r6", calling="at")
KEY = Body("key", act="parity")
ARM = then(Flow("arm"), R2, R3).build()


def build_route() -> Whole:
    route = then(Flow("route"), R1).route(KEY.task(), keys=["even"], name="way")
    route = route.branch("even", ARM).default_branch(R4.task(), R5.task())
    whole: Whole = then(route.done(), R6).build()
    return whole


def route(replay: Replay, value: Any) -> Any:
    value = replay.ran(R1, "r1", value)
    key = replay.ran(KEY, "way", value)
    if key == "even":
        value = chain(replay, (R2, R3), value, "way/even/")
    else:
        value = chain(replay, (R4, R5), value, "way/~default/")
    return replay.ran(R6, "r6", {"branch": key, "result": value})


# A loop, of a task and the one that decides.

L1, L2, L4 = bodies("l1", "l2", "l4")
L3 = Body("l3", act="turn", calling="thread")
TURNS = 5


def build_loop() -> Whole:
    flow: Any = then(Flow("loop"), L1)
    flow = flow.loop(
        L2.task(), L3.task(), max_iterations=TURNS, on_max="exit_with_last", name="again"
    )
    whole: Whole = then(flow, L4).build()
    return whole


def loop(replay: Replay, value: Any) -> Any:
    value = replay.ran(L1, "l1", value)
    for turn in range(TURNS):
        value = chain(replay, (L2,), value, f"again#{turn}/")
        result = replay.ran(L3, f"again#{turn}/l3", value)
        assert isinstance(result, LoopResult)
        value = result.value
        if result.is_done:
            break
    return replay.ran(L4, "l4", value)


# Delays, and a wait whose time is over.

D1, D2, D3, D4 = bodies("d1", "d2", "d3", "d4")


def build_delay() -> Whole:
    flow = then(then(Flow("delay"), D1).delay("nap", "60ms"), D2).delay("none", 0)
    flow = then(flow, D3).wait_for_event("silent", timeout="50ms", on_timeout="continue")
    whole: Whole = then(flow, D4).build()
    return whole


def delay(replay: Replay, value: Any) -> Any:
    value = replay.ran(D1, "d1", value)
    replay.elapsed("nap")
    value = replay.ran(D2, "d2", value)
    replay.elapsed("none")
    replay.ran(D3, "d3", value)
    replay.elapsed("silent")
    return replay.ran(D4, "d4", EventTimeout("silent"))


# Events: two of one name and one of another, in a row and beside work.

E1, E2, E3, E4, E5 = bodies("e1", "e2", "e3", "e4", "e5")
ASK = Flow("ask").wait_for_event("ok").build()


def build_events() -> Whole:
    flow = then(then(Flow("events"), E1).wait_for_event("go", node="first"), E2)
    flow = then(flow.wait_for_event("go", node="second"), E3).fork(name="both")
    flow = flow.branch(ASK, name="ask").branch(E4.task(), name="work")
    whole: Whole = flow.join(E5.task()).build()
    return whole


def events(replay: Replay, value: Any) -> Any:
    replay.ran(E1, "e1", value)
    value = replay.ran(E2, "e2", replay.got("first", "go"))
    assert value is not None
    value = replay.ran(E3, "e3", replay.got("second", "go"))
    branches = {
        "ask": replay.got("both/ask/ok", "ok"),
        "work": replay.ran(E4, "both/work/e4", value),
    }
    return replay.ran(E5, "e5", branches)


# Children of children, the same one twice.

C1, C2, C3 = bodies("c1", "c2", "c3")
GRANDCHILD = then(Flow("grandchild"), C1, C2).build()
CHILD = then(Flow("child").then_flow(GRANDCHILD), C3).then_flow(GRANDCHILD).build()


def build_children() -> Whole:
    whole: Whole = Flow("children").then_flow(CHILD).then_flow(CHILD, name="second").build()
    return whole


def children(replay: Replay, value: Any) -> Any:
    for name in ("child", "second"):
        value = chain(replay, (C1, C2), value, f"{name}/grandchild/")
        value = replay.ran(C3, f"{name}/c3", value)
        value = chain(replay, (C1, C2), value, f"{name}/grandchild~2/")
    return value


# Retries that help, and one that does not.

T1, T3, T6 = bodies("t1", "t3", "t6")
T2 = Body("t2", fails=2)
T4 = Body("t4", fails=1, calling="thread")
T5 = Body("t5", mood="broken")


def retries(replay: Replay, value: Any) -> Any:
    return chain(replay, (T1, T2, T3, T4, T6), value)


def build_retries() -> Whole:
    whole: Whole = then(Flow("retries"), T1, T2, T3, T4, T6).build()
    return whole


def broken(replay: Replay, value: Any) -> Any:
    value = chain(replay, (T1, T4, T3), value)
    replay.fell(T5, "t5", value)
    raise Fails("t5", Broken.__name__)


# All of it, one in the other: a map of forks of loops, with a delay between.

G1 = Body("g1", act="list")
G2, G3, G5, G6 = bodies("g2", "g3", "g5", "g6", calling="at")
G4 = Body("g4", act="turn", fails=1)
SPIN = Flow("spin").loop(G4.task(), max_iterations=3, on_max="exit_with_last", name="spin").build()


def build_grand() -> Whole:
    item: Any = Flow("item").fork(name="split").branch(G2.task(), name="one")
    item = item.branch(SPIN, name="two").join(G3.task()).build()
    flow = then(Flow("grand"), G1).map(item, name="items").delay("rest", "30ms")
    whole: Whole = then(flow, G5, G6).build()
    return whole


def grand(replay: Replay, value: Any) -> Any:
    outputs = []
    for at, item in enumerate(replay.ran(G1, "g1", value)):
        here = f"items[{at}]"
        one = replay.ran(G2, f"{here}/split/one/g2", item)
        two = item
        for turn in range(3):
            result = replay.ran(G4, f"{here}/split/two/spin#{turn}", two)
            two = result.value
            if result.is_done:
                break
        outputs.append(replay.ran(G3, f"{here}/g3", {"one": one, "two": two}))
    replay.elapsed("rest")
    return chain(replay, (G5, G6), outputs)


def build_broken() -> Whole:
    whole: Whole = then(Flow("broken"), T1, T4, T3, T5).build()
    return whole


SHAPES: dict[str, Shape] = {
    shape.workflow.workflow_id: shape
    for shape in (
        Shape(then(Flow("row"), *ROW).build(), row),
        Shape(build_fork(), fork),
        Shape(build_map(), map_),
        Shape(build_spread(), spread),
        Shape(build_lots(), lots),
        Shape(build_route(), route),
        Shape(build_loop(), loop),
        Shape(build_delay(), delay),
        Shape(build_events(), events, ("go", "ok", "go")),
        Shape(build_children(), children),
        Shape(build_retries(), retries),
        Shape(build_broken(), broken),
        Shape(build_grand(), grand),
    )
}
