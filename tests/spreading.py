"""Workflows with spread maps, one of each shape that a definition can have, and what they come to.

`SHAPES` is each with an input and the output of it; `each` makes a workflow that is one spread map;
`items_of` finds the instances that a parent made. Refuses to know where they run.
"""

from typing import Any

from sayiir import Flow, LoopResult, Workflow, WorkflowClient

Any2Any = Workflow[Any, Any]


def double(x: Any) -> Any:
    return x * 2


async def plus_one(x: int) -> int:
    return x + 1


def until_ten(values: list[int]) -> LoopResult[list[int]]:
    return LoopResult.again(values) if sum(values) < 10 else LoopResult.done(values)


def count_to(n: int) -> list[int]:
    return list(range(n))


def until_five(x: int) -> LoopResult[int]:
    return LoopResult.again(x + 1) if x < 5 else LoopResult.done(x)


def odd_or_even(x: Any) -> str:
    return "odd" if x % 2 else "even"


def bad(x: int) -> int:
    if x % 3 == 0:
        raise ValueError(f"no {x}")
    return x


def each(step: Any, flow: str = "f", **options: Any) -> Any:
    """A workflow that is one spread map."""
    return Flow(flow).map(step, spread=True, **options).build()


PAIR = Flow("pair").then(double).then(plus_one).build()
BOTH = Flow("both").fork().branch(double).branch(plus_one).join(dict).build()
NAP = Flow("nap").then(plus_one).delay("nap", 0.01).then(plus_one).build()
CHOICE = (
    Flow("choice").route(odd_or_even, keys=["odd", "even"]).branch("odd", double)
    .branch("even", plus_one).done().build()
)  # fmt: skip
MAPS = each(double, "maps")
FOUR = Flow("four").then(count_to).map(plus_one, spread=True).then(sum).build()
OWN = Flow("own").map(double).build()
IN_MAP = Flow("in-map").map(MAPS, name="own").build()
BRANCHES = (
    Flow("branches")
    .fork()
    .branch(MAPS, name="a")
    .branch(each(plus_one, "b"), name="b")
    .branch(sum)
    .join(lambda got: [got["a"], got["b"], got["sum"]])
    .build()
)
IN_ROUTE: Any2Any = (
    Flow("in-route").route(lambda x: "many", keys=["many"]).branch("many", MAPS).done().build()
)
IN_LOOP = Flow("in-loop").loop(Flow("turn").then_flow(MAPS).then(until_ten).build()).build()
TWICE = Flow("twice").map(double, spread=True).map(plus_one, spread=True).build()
CHILDREN = Flow("children").then_flow(MAPS).then_flow(MAPS).build()
LOOP = Flow("l").loop(until_five).build()
SHAPES: dict[str, tuple[Any2Any, Any, Any]] = {
    "in order": (MAPS, [3, 1, 2], [6, 2, 4]),
    "no item": (MAPS, [], []),
    "one item": (MAPS, [5], [10]),
    "equal items": (MAPS, [1] * 5, [2] * 5),
    "a tuple": (MAPS, (1, 2), [2, 4]),
    "between steps": (FOUR, 4, 10),
    "a workflow": (each(PAIR, "workflow"), [1, 2], [3, 5]),
    "a fork": (each(BOTH, "fork"), [1], [{"double": 2, "plus_one": 2}]),
    "a delay": (each(NAP, "delay"), [1, 2], [3, 4]),
    "a route": (
        each(CHOICE, "route"),
        [1, 2],
        [{"branch": "odd", "result": 2}, {"branch": "even", "result": 3}],
    ),
    "a loop": (each(LOOP, "loop"), [1, 7], [5, 7]),
    "a map": (each(OWN, "map"), [[1], [2, 3]], [[2], [4, 6]]),
    "spread again": (each(MAPS, "again"), [[1, 2], [], [3]], [[2, 4], [], [6]]),
    "and again": (each(each(MAPS, "g"), "h"), [[[1], [2, 3]], []], [[[2], [4, 6]], []]),
    "in a map": (IN_MAP, [[1], [], [2, 3]], [[2], [], [4, 6]]),
    "in branches": (BRANCHES, [1, 2], [[2, 4], [2, 3], 3]),
    "in a route": (IN_ROUTE, [1, 2], {"branch": "many", "result": [2, 4]}),
    "in a loop": (IN_LOOP, [1, 2], [4, 8]),
    "twice": (TWICE, [1, 2], [3, 5]),
    "a child, twice": (CHILDREN, [1, 2], [4, 8]),
}


async def items_of(client: WorkflowClient, parent: str) -> list[str]:
    """The ids of its items, in the order in which they were made."""
    page = await client.list_instances(id_prefix=f"{parent}~", limit=1000)
    return [row.instance_id for row in reversed(page.items)]
