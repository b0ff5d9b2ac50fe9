"""Random flows: one seed makes a workflow for the engine and the same tree for the oracle.

Promises that the same `random.Random` gives the same tree, and that every kind of node occurs at
every place. Refuses to know what becomes of a flow when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from sayiir import Workflow

from .tree import (
    Act,
    Block,
    Child,
    Delay,
    Fork,
    Loop,
    Map,
    Mood,
    Node,
    Route,
    Step,
    Steps,
    Task,
    Wait,
    build,
)

MAX_DEPTH = 3
SILENT = "never"
"""The name of an event that nobody sends."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds, and which events may be awaited."""

    pauses: tuple[float, ...] = (0.0, 0.5, 3.0, 60.0, 5_000.0)
    epoch: float = 1_700_000_000.0
    events: tuple[str, ...] = ("go", "ok")
    timeouts: tuple[float, ...] = (2.0, 90.0, 7_000.0)
    may_time_out: bool = True
    """Whether a wait for an event that is sent may have a timeout as well."""
    tags: tuple[str, ...] = ("gpu", "eu")
    reaches_items: bool = True
    """Whether events are sent to the items of spread maps, too."""


@dataclass(frozen=True, slots=True)
class Made:
    """A random flow in both forms."""

    name: str
    block: Block
    workflow: Workflow[Any, Any]


def make_flow(rng: Random, name: str, pace: Pace) -> Made:
    """A random flow of depth 3 at most."""
    block = _Maker(rng, pace).block(0)
    return Made(name, block, build(name, block))


_NAMES = ("inc", "load", "a/b", "ü~#", "inc")


@dataclass(slots=True)
class _Maker:
    rng: Random
    pace: Pace
    budget: int = 14
    count: int = 0
    children: list[tuple[int, bool, Child]] = field(default_factory=list)
    in_items: bool = False
    """Whether what is made now is run by the items of a spread map."""

    def block(self, depth: int, last: Task | None = None) -> Block:
        """One to four nodes in a row, then `last`."""
        nodes: list[Node] = []
        for _ in range(self.rng.randint(1, 4 if depth == 0 else 2)):
            nodes.extend(self.nodes(depth, nodes))
        if last is not None:
            nodes.append(last)
            if self.rng.random() < 0.2:
                nodes.append(self.delay())
        return tuple(nodes)

    def nodes(self, depth: int, before: list[Node]) -> list[Node]:
        """One node of a random kind, with the task it needs before it."""
        rng = self.rng
        self.budget -= 1
        kinds = ["task", "task", "delay", "wait"]
        if depth < MAX_DEPTH and self.budget > 0:
            kinds += ["fork", "fork", "map", "map", "route", "loop", "child"]
        match rng.choice(kinds):
            case "delay":
                return [self.delay()]
            case "wait":
                return [self.wait()]
            case "fork":
                return [self.fork(depth)]
            case "map":
                node = self.map(depth)
                fits = before and isinstance(before[-1], Map) and rng.random() < 0.5
                if fits or rng.random() < 0.03:
                    return [node]
                size = rng.randint(0, 5 if depth == 0 else 3)
                return [self.task(act="list", size=size), node]
            case "route":
                return [self.route(depth)]
            case "loop":
                return [self.loop(depth)]
            case "child":
                child = self.child(depth)
                name = rng.choice([None, *_NAMES])
                return [Child(child.workflow, child.block, name)]
            case _:
                return [self.task()]

    def task(
        self, act: Act = "mark", size: int = 0, keys: tuple[str, ...] = (), odds: int = 2
    ) -> Task:
        rng = self.rng
        self.count += 1
        odds_of_moods: dict[Mood, int] = {
            "fine": 40,
            "flaky": 12,
            "picky": 1,
            "broken": 1,
            "final": 1,
        }
        (mood,) = rng.choices(list(odds_of_moods), list(odds_of_moods.values()))
        retries = rng.choice([0, 0, 1, 3])
        # A flaky task now and then fails once more than it is allowed to.
        failures = min(rng.randint(1, 3), retries + (rng.random() < 0.1))
        return Task(
            name=rng.choice(_NAMES),
            ident=f"t{self.count}",
            act=act,
            size=size,
            keys=keys,
            odds=odds,
            mood=mood,
            failures=failures,
            retries=retries,
            wait=rng.choice(self.pace.pauses[:3]),
            asks=rng.choice(self.pace.pauses[:3]) if rng.random() < 0.3 else None,
            tags=tuple(tag for tag in self.pace.tags if rng.random() < 0.08),
            priority=rng.choice([None, None, 1, 5]),
            calling=rng.choice(["inline", "thread", "async"]),
        )

    def delay(self) -> Delay:
        name = self.rng.choice(["nap", "inc"])
        pause = self.rng.choice(self.pace.pauses)
        if self.rng.random() < 0.3:
            return Delay(name, None, self.pace.epoch + self.rng.choice([-10.0, pause]))
        return Delay(name, pause)

    def wait(self) -> Wait:
        rng, pace = self.rng, self.pace
        event = rng.choice([*pace.events, *pace.events, SILENT])
        if self.in_items and not pace.reaches_items:
            event = SILENT
        timed = event == SILENT or (pace.may_time_out and rng.random() < 0.5)
        timeout = rng.choice(pace.timeouts) if timed else None
        on_timeout: Literal["fail", "continue"] = "fail" if rng.random() < 0.2 else "continue"
        return Wait(rng.choice([None, "gate"]), event, timeout, on_timeout)

    def fork(self, depth: int) -> Fork:
        names = self.rng.sample(["left", "right", "a/b", "[0]"], self.rng.randint(1, 3))
        branches = [(name, self.steps(depth)) for name in names]
        if len(branches) == 1 and isinstance(branches[0][1][0], Task):
            return Fork("fork", ((None, branches[0][1]),), self.task())
        return Fork("fork", tuple(branches), self.task())

    def map(self, depth: int) -> Map:
        rng = self.rng
        spread, around = rng.random() < 0.4, self.in_items
        self.in_items = around or spread
        step = self.step(depth)
        self.in_items = around
        on_error: Literal["fail", "collect"] = rng.choice(["fail", "collect", "collect"])
        most = None if spread else rng.choice([None, 1, 2])
        return Map(rng.choice([None, "each"]), step, most, on_error, spread)

    def route(self, depth: int) -> Route:
        rng = self.rng
        keys = ("x", "y/z", "w")[: rng.randint(1, 3)]
        default = self.steps(depth) if rng.random() < 0.5 else None
        bare = keys[-1] if default is not None and rng.random() < 0.4 else None
        arms = tuple((key, self.steps(depth)) for key in keys if key != bare)
        answers = (*keys, *keys, "else") if rng.random() < 0.3 else keys
        key = self.task(act="key", keys=answers)
        return Route("route", key, keys, arms, default)

    def loop(self, depth: int) -> Loop:
        rng = self.rng
        last = self.task(act="mark" if rng.random() < 0.03 else "turn", odds=rng.randint(1, 3))
        steps: list[Step] = [self.task() for _ in range(rng.randint(0, 1))]
        if rng.random() < 0.4:
            self.count += 1
            steps.append(Child(f"body{self.count}", self.block(depth + 1, last)))
        else:
            steps.append(last)
        on_max: Literal["fail", "exit_with_last"] = (
            "fail" if rng.random() < 0.25 else "exit_with_last"
        )
        return Loop(rng.choice([None, "again"]), tuple(steps), rng.randint(1, 4), on_max)

    def steps(self, depth: int) -> Steps:
        return tuple(self.step(depth) for _ in range(self.rng.choice([1, 1, 2])))

    def step(self, depth: int) -> Step:
        if depth < MAX_DEPTH and self.budget > 0 and self.rng.random() < 0.6:
            return self.child(depth)
        return self.task()

    def child(self, depth: int) -> Child:
        """A workflow of its own; now and then one that is in use elsewhere already."""
        fitting = [
            child
            for height, in_items, child in self.children
            if height >= depth and in_items >= self.in_items
        ]
        if fitting and self.rng.random() < 0.15:
            return self.rng.choice(fitting)
        self.count += 1
        child = Child(f"w{self.count}", self.block(depth + 1))
        self.children.append((depth, self.in_items, child))
        return child
