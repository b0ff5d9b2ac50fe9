"""Pictures of workflows: every kind of node, any name, nothing overlapping, and a bounded size.

The SVG is read back with an XML parser and judged by where things stand, not by its text.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from sayiir import Flow, LoopResult, Workflow
from sayiir._draw import Node, lasting, to_mermaid
from sayiir._picture import to_svg

SVG = "{http://www.w3.org/2000/svg}"
# A shape with its label, or an arrow with or without one; in a label, nothing that Mermaid reads.
LABEL = r'"(?:[^"#&<>\\`;]|#\d+;)*"'
MERMAID = re.compile(rf"    (?:\w+[\[({{/]+{LABEL}[\])}}/]+|\w+ (?:-->|-\.->)(?:\|{LABEL}\|)? \w+)")
EVIL = [
    '"]; click x "javascript:alert(1)"',
    "<script>alert(1)</script>",
    "</title></style></svg><script>",
    "]]> & &amp; <!--",
    "`back` *ticks* $x$",
    "onload='x'",
]


def step(x: Any) -> Any:
    return x


def turn(x: Any) -> LoopResult[Any]:
    return LoopResult.done(x)


CHILD: Workflow[Any, Any] = Flow("payment").then(step, name="charge").build()


def everything() -> Workflow[Any, Any]:
    flow: Flow[Any, Any] = Flow("all").then(step, name="check")
    flow = flow.fork(name="split").branch(step, name="left").branch(CHILD, name="right").join(step)
    flow = flow.map(step, name="parts", concurrency=8).map(step, name="parcels", spread=True)
    flow = flow.loop(turn, name="ask", max_iterations=5).delay("cool-off", "30d")
    flow = flow.delay_until("new year", datetime(2030, 1, 1, tzinfo=UTC))
    flow = flow.wait_for_event("approved", timeout="2d").wait_for_event("paid", node="gate")
    flow = (
        flow.route(step, keys=["eu"], name="zone").branch("eu", step).default_branch(CHILD).done()
    )
    return flow.then_flow(CHILD, name="pay").build()


def parsed(svg: str) -> Xml.Element:
    return Xml.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [it.text or "" for it in parsed(svg).iter(f"{SVG}text")]


def titles(svg: str) -> list[str]:
    return [it.text or "" for it in parsed(svg).iter(f"{SVG}title")]


Box = tuple[float, float, float, float]


def placed(element: Xml.Element, x: float = 0, y: float = 0) -> Iterator[tuple[Xml.Element, Box]]:
    """Every rectangle and text with its corners in the picture; text at 8 or 7 pixels a column."""
    if element.tag == f"{SVG}g" and "transform" in element.attrib:
        dx, dy = element.attrib["transform"][len("translate(") : -1].split()
        x, y = x + float(dx), y + float(dy)
    at = [float(element.attrib.get(key, 0)) for key in ("x", "y", "width", "height")]
    if element.tag == f"{SVG}rect":
        yield element, (x + at[0], y + at[1], x + at[0] + at[2], y + at[1] + at[3])
    if element.tag == f"{SVG}text":
        width = len(element.text or "") * (7 if element.get("class") == "small" else 8)
        left = x + at[0] - (width / 2 if element.get("text-anchor") == "middle" else 0)
        yield element, (left, y + at[1] - 10, left + width, y + at[1] + 3)
    for child in element:
        yield from placed(child, x, y)


def apart(one: Box, other: Box) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def inside(one: Box, other: Box) -> bool:
    return all(one[i] >= other[i] for i in (0, 1)) and all(one[i] <= other[i] for i in (2, 3))


def assert_tidy(svg: str) -> None:
    """All is within the picture, no words stand on others, no box is half in another."""
    root = parsed(svg)
    page = (0.0, 0.0, float(root.attrib["width"]), float(root.attrib["height"]))
    found = list(placed(root))
    words = [box for it, box in found if it.tag == f"{SVG}text"]
    boxes = [box for it, box in found if it.tag == f"{SVG}rect"]
    assert words
    assert boxes
    assert all(inside(box, page) for box in words + boxes)
    for n, one in enumerate(words):
        assert all(apart(one, other) for other in words[n + 1 :])
        assert all(apart(one, other) or inside(one, other) for other in boxes)
    for n, one in enumerate(boxes):
        others = boxes[n + 1 :]
        assert all(apart(one, it) or inside(one, it) or inside(it, one) for it in others)


def test_every_kind_of_node_is_drawn() -> None:
    workflow = everything()
    kinds = {node.kind for node in workflow.iter_nodes()}
    assert kinds == {
        *("task", "fork", "map", "spread", "route", "loop"),
        *("delay", "delay_until", "wait", "child"),
    }
    svg = workflow.to_svg()
    drawn = texts(svg)
    assert drawn[0] == "all"
    assert drawn[-1] == "end"
    for words in (
        *("check", "split", "left", "right", "charge", "parts", "parcels", "ask", "zone", "eu"),
        *("for each item, 8 at once", "for each item, spread", "up to 5 turns", "30 d"),
        *("new year", "2030-01-01 00:00:00 UTC", "approved", "event, 2 d at most", "gate"),
        *("event paid", "otherwise", "pay", "child workflow payment"),
    ):
        assert words in drawn, words
    told = titles(svg)
    assert {title.split()[0] for title in told} >= kinds
    assert_tidy(svg)


def test_no_two_kinds_look_the_same() -> None:
    nodes: list[Node] = [
        ("task", "n", 0),
        ("fork", "n", [("a", [("task", "n", 0)])]),
        ("map", "n", [("task", "n", 0)], None, "fail"),
        ("spread", "n", [("task", "n", 0)], "fail"),
        ("route", "n", 0, [("a", [("task", "n", 0)])], None),
        ("loop", "n", [("task", "n", 0)], 1, "fail"),
        ("delay", "n", 1.0),
        ("delay_until", "n", 1.0),
        ("wait", "n", "n", None, "fail"),
        ("child", "n", "n", [("task", "n", 0)]),
    ]
    symbols = [
        tuple(
            path.attrib["d"]
            for path in parsed(to_svg("f", [node])).iter(f"{SVG}path")
            if "transform" in path.attrib
        )
        for node in nodes
    ]
    assert symbols[0] == ()
    assert all(len(found) == 1 for found in symbols[1:])
    assert len(set(symbols)) == len(nodes)


def test_what_is_nested_stands_inside() -> None:
    inner: Workflow[Any, Any] = (
        Flow("inner").fork().branch(step, name="a").branch(turn).join(step).build()
    )
    middle: Workflow[Any, Any] = (
        Flow("middle")
        .map(inner, name="each")
        .route(step, keys=["x", "y"])
        .branch("x", inner)
        .branch("y", Flow("l").loop(turn, name="retry").build())
        .done()
        .build()
    )
    svg = Flow("outer").then_flow(middle, name="child").then(step, name="last").build().to_svg()
    assert_tidy(svg)
    frames = [box for it, box in placed(parsed(svg)) if "frame" in it.get("class", "")]
    # The child's two borders, and in them the map and, in an arm of the route, the loop.
    assert len(frames) == 4
    assert all(inside(frame, frames[0]) for frame in frames)
    assert apart(frames[2], frames[3])


def test_branches_stand_side_by_side() -> None:
    flow = Flow("f").fork().branch(step, step, name="a").branch(step, name="b").join(step)
    svg = flow.build().to_svg()
    found = {it.text: box for it, box in placed(parsed(svg)) if it.tag == f"{SVG}text"}
    assert found["a"][1] == found["b"][1]
    assert found["a"][2] < found["b"][0]
    assert svg.count('class="bar"') == 2


@pytest.mark.parametrize("name", EVIL)
def test_names_stay_names(name: str) -> None:
    begun: Flow[Any, Any] = Flow(name).then(step, name=name)
    flow: Flow[Any, Any] = begun.fork(name=name).branch(step, name=name).join(step, name=name)
    flow = flow.map(step, name=name).loop(turn, name=name)
    flow = flow.route(step, keys=[name], name=name).branch(name, step).done()
    flow = flow.delay(name, 1).wait_for_event(name, node="gate").then_flow(CHILD, name=name)
    workflow = flow.build()
    root = parsed(workflow.to_svg())
    assert root.attrib["aria-label"] == f"Workflow {name}"
    assert {it.tag.removeprefix(SVG) for it in root.iter()} <= {
        *("svg", "title", "style", "g", "path", "rect", "circle", "text"),
    }
    assert sum(name in title for title in titles(workflow.to_svg())) >= 11
    for line in workflow.to_mermaid().splitlines()[1:]:
        assert MERMAID.fullmatch(line), line


@pytest.mark.parametrize("char", ["\0", "\x1b", "\ufffe", "\uffff", "\ud800", "\n", "\u2028"])
def test_what_xml_cannot_hold_is_replaced(char: str) -> None:
    svg = to_svg(f"a{char}b", [("task", f"c{char}d", 0)])
    assert parsed(svg).tag == f"{SVG}svg"
    assert svg.encode()
    drawing = to_mermaid("f", [("task", f"c{char}d", 0)])
    assert len(drawing.splitlines()) == 6


def test_a_long_name_is_cut_and_whole_in_its_tooltip() -> None:
    for name in ("long_name_" * 20, "日本語" * 20, "e\u0301" * 80, "👩‍👩‍👧" * 10, "\u0301" * 120):
        svg = to_svg(name, [("task", name, 0)])
        assert f"task {name}" in titles(svg)
        assert name not in texts(svg)
        assert texts(svg)[1].endswith("…")
        assert int(parsed(svg).attrib["width"]) < 320
    name = "a" * 28
    assert texts(to_svg("f", [("task", name, 0)]))[1] == name
    assert texts(to_svg("f", [("task", name + "a", 0)]))[1] == "a" * 27 + "…"


def test_the_same_workflow_is_the_same_text_in_every_process() -> None:
    assert everything().to_svg() == everything().to_svg()
    program = (
        "from sayiir._picture import to_svg\n"
        "print(to_svg('f', [('fork', 'x', [('a', [('task', 't', 0)]), ('b', [])])]))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-X", "utf8", "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def tasks(count: int) -> list[Node]:
    return [("task", f"s{n}", 0) for n in range(count)]


def test_a_long_row_is_drawn_in_part() -> None:
    whole = texts(to_svg("f", tasks(100)))
    assert whole[1:-1] == [f"s{n}" for n in range(100)]
    part = texts(to_svg("f", tasks(1_000)))
    assert part[1:-1] == [*(f"s{n}" for n in range(98)), "… 901 more steps", "s999"]
    assert texts(to_svg("f", tasks(101)))[-3:] == ["… 2 more steps", "s100", "end"]


def test_many_branches_are_drawn_in_part() -> None:
    def fork(count: int) -> str:
        return to_svg("f", [("fork", "x", [(f"b{n}", tasks(1)) for n in range(count)])])

    assert "b7" in texts(fork(8))
    assert not any("more" in it for it in texts(fork(8)))
    assert "… 2 more branches" in texts(fork(9))
    assert "b6" in texts(fork(9))
    assert "b7" not in texts(fork(9))
    assert "… 99,993 more branches" in texts(fork(100_000))
    assert_tidy(fork(1_000))


def test_what_is_drawn_in_all_is_bounded() -> None:
    body: list[Node] = tasks(50)
    for depth in range(6):
        body = [("fork", f"x{depth}", [(f"b{n}", body) for n in range(8)]), *tasks(50)]
    svg = to_svg("f", body)
    assert len(svg) < 1_000_000
    shapes = [it for it in parsed(svg).iter() if it.get("class", "").startswith("shape")]
    assert len(shapes) == 400 + 2  # and the beginning and the end
    assert "… 50 more steps" in texts(svg)
    assert_tidy(svg)


def test_the_deepest_nesting_is_drawn() -> None:
    body: list[Node] = tasks(1)
    for _ in range(63):
        body = [("fork", "x", [("a", [("loop", "l", body, 2, "fail")])])]
    assert_tidy(to_svg("f", body))


def test_a_workflow_of_a_thousand_steps_is_drawn_without_recursion() -> None:
    flow: Flow[Any, Any] = Flow("long").then(step)
    for _ in range(999):
        flow = flow.then(step)
    workflow = flow.build()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        svg = workflow.to_svg()
        drawing = workflow.to_mermaid()
    finally:
        sys.setrecursionlimit(limit)
    assert "… 901 more steps" in texts(svg)
    assert drawing.count('["step"]') == 1_000


def test_a_notebook_shows_the_picture_to_everyone() -> None:
    workflow = everything()
    shown = workflow._repr_html_()
    assert shown == workflow.to_svg()
    root = parsed(shown)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Workflow all"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "Workflow all"
    # Two of them on one page must not meet: nothing has an id, and no style reaches outside.
    assert not any("id" in it.attrib for it in root.iter())
    [style] = root.iter(f"{SVG}style")
    rules = (style.text or "").replace("@media (prefers-color-scheme:dark){", "").split("}")
    assert all(rule.startswith(".sayiir-flow") for rule in rules if rule)
    assert "prefers-color-scheme:dark" in shown
    assert "currentColor" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.0001, "0 s"),
        (0.05, "0.05 s"),
        (59.9999, "1 min"),
        (90.5, "1 min 30.5 s"),
        (2_592_000.0, "30 d"),
        (93_784.0, "1 d 2 h 3 min 4 s"),
        (3_155_760_000.0, "36525 d"),
    ],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_mermaid_draws_every_kind_of_node() -> None:
    drawing = everything().to_mermaid()
    for shape in (
        *('["check"]', '{{"split"}}', '{{"map parts"}}', '{{"map parcels, spread"}}'),
        *('{{"loop ask"}}', '(["cool-off: 30 d"])', '(["new year"])', '[/"event approved"/]'),
        *('[/"gate: event paid"/]', '{"zone"}', '|"otherwise"|', '[["child pay"]]'),
    ):
        assert shape in drawing, shape
