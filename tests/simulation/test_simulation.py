"""The seeded simulation: a thousand worlds, each judged by the oracle and by the books.

A failure names its seed; `SAYIIR_SEED=n` in the environment runs that one alone. The long form
takes fresh seeds for as long as it may. The judges are on trial here too: each is shown a wrong
world that it must refuse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from benches.python_backend import PythonBackend

from sayiir import InMemoryBackend, LoopResult, MapError
from sayiir._codec import encode_payload
from sayiir._core import Program, StepRow

from . import tree
from .books import Book, Violation
from .fate import simulate
from .flows import Made, Pace, make_flow
from .oracle import TIMED_OUT, Failed, Failure, Open, Oracle, Value, item_blocks, pattern
from .stores import Adapted, files, schemas
from .tree import Child, Fork, Loop, Map, Route, Task, Wait, build

ONLY = os.environ.get("SAYIIR_SEED")
SEEDS = range(1_000) if ONLY is None else range(int(ONLY), int(ONLY) + 1)
BATCH = 100
FILES = 80
"""How many of them are also simulated on files, where every call takes its time."""
SCHEMAS = 15
"""How many on a server, where it takes more."""
SEEDS_ALIKE = range(20, 35)
"""Where nobody claims in the very call in which he first meets tags that somebody else's instance
has come to need: of these a server gives out what it knew of before, whatever their priorities."""


@pytest.mark.parametrize("first", range(0, len(SEEDS), BATCH))
def test_every_world_ends_as_the_oracle_says(first: int) -> None:
    for seed in SEEDS[first : first + BATCH]:
        simulate(seed)


def test_a_backend_in_python_fares_no_worse() -> None:
    for seed in SEEDS[:200]:
        simulate(seed, lambda: Adapted(lambda clock: PythonBackend(clock=clock)))


def test_a_file_fares_no_worse() -> None:
    text = ""
    for seed in SEEDS[:FILES]:
        with files() as make_store:
            text += "\n".join(simulate(seed, make_store))
    for way in (" begins with what it was given ", " handed over ", " writes "):
        assert way in text or ONLY, f"no worker{way}"


def test_a_file_answers_every_call_as_memory_does() -> None:
    for seed in SEEDS[:FILES]:
        in_memory = simulate(seed, lambda: Adapted(lambda clock: InMemoryBackend(clock=clock)))
        with files(carry=False) as make_store:
            assert told(simulate(seed, make_store)) == told(in_memory), f"SAYIIR_SEED={seed}"


def test_a_schema_fares_no_worse() -> None:
    for seed in SEEDS[:SCHEMAS]:
        with schemas() as make_store:
            simulate(seed, make_store)


def test_a_schema_answers_every_call_as_memory_does() -> None:
    for seed in SEEDS_ALIKE if ONLY is None else SEEDS:
        in_memory = simulate(seed, lambda: Adapted(lambda clock: InMemoryBackend(clock=clock)))
        with schemas(carry=False) as make_store:
            ours, theirs = (counted(told(one)) for one in (simulate(seed, make_store), in_memory))
            assert ours == theirs, f"SAYIIR_SEED={seed}"


def told(trace: list[str]) -> list[str]:
    """The trace with the events only counted: each backend numbers them in its own way."""
    return [
        re.sub(r"(?<= )\[([\d, ]*)\]", lambda seqs: str(len(seqs[1].split())), line)
        for line in trace
    ]


def counted(trace: list[str]) -> list[str]:
    """The trace with the fences of each instance numbered from 1, as they came.

    Ids of items have the fence in them of the commit that made them.
    """
    fences: dict[str, dict[str, int]] = {}

    def number(found: re.Match[str]) -> str:
        known = fences.setdefault(found[1], {})
        return f"{found[1]}/{known.setdefault(found[2], len(known) + 1)}"

    def name(found: re.Match[str]) -> str:
        known = fences.setdefault("", {})
        return f"~{known.setdefault(found[1], len(known) + 1)}."

    lines = [re.sub(r"~([0-9a-f]+)\.(?=\d+\[)", name, line) for line in trace]
    return [re.sub(r"\b(i\d[^ /]*)/(\d+)", number, line) for line in lines]


def test_the_same_seed_gives_the_same_trace() -> None:
    for seed in SEEDS[:40]:
        assert simulate(seed) == simulate(seed)
    for seed in SEEDS[:10]:
        with files() as make_store:
            assert simulate(seed, make_store) == simulate(seed, make_store)


@pytest.mark.soak
def test_fresh_worlds_end_as_the_oracle_says(soak_rounds: Callable[[int], Iterator[int]]) -> None:
    for seed in soak_rounds(200_000):
        simulate(seed)
        if seed % 20 == 0:
            for shared in (files, schemas) if seed % 200 == 0 else (files,):
                with shared() as make_store:
                    simulate(seed, make_store)


def test_every_kind_of_node_occurs_at_every_depth() -> None:
    seen: set[tuple[str, int]] = set()

    def look(block: tree.Block, depth: int) -> None:
        for node in block:
            seen.add((type(node).__name__, depth))
            for inner in insides(node):
                look(inner.block if isinstance(inner, Child) else (inner,), depth + 1)

    for seed in range(300):
        look(make_flow(Random(seed), "f", Pace()).block, 0)
    kinds = ("Task", "Child", "Fork", "Map", "Route", "Loop", "Delay", "Wait")
    assert {(kind, depth) for kind in kinds for depth in range(3)} <= seen


def insides(node: tree.Node) -> list[tree.Step]:
    match node:
        case Child():
            return [node]
        case Fork():
            return [step for _, steps in node.branches for step in steps]
        case Map():
            return [node.step]
        case Route():
            arms = [steps for _, steps in node.arms]
            return [step for steps in (*arms, node.default or ()) for step in steps]
        case Loop():
            return list(node.steps)
        case _:
            return []


# The oracle, on flows small enough to know by heart.


class Told:
    """A tape with one answer for every wait."""

    def __init__(self, answer: object = None) -> None:
        self._answer = answer

    def answer(self, path: str, event: str) -> object:
        return self._answer

    def failed(self, failure: Failure) -> bool:
        return True

    def items(self, path: str, given: list[Any]) -> Sequence[Told]:
        return [self] * len(given)

    def cancelled(self) -> bool:
        return False


def outcome(*block: tree.Node, given: Any = 1, answer: object = None) -> Any:
    return Oracle(Told(answer)).run(block, given)


def test_the_oracle_names_paths_as_the_engine_does() -> None:
    for seed in range(200):
        made = make_flow(Random(seed), "f", Pace())
        oracle = Oracle(Told(TIMED_OUT))
        oracle.run(made.block, ["given"])
        known = {node.id for node in made.workflow.iter_nodes()}
        for path in oracle.bodies:
            assert pattern(path) in known
        named = {name for name, _ in item_blocks(made.name, made.block)}
        assert named == set(item_names(made.workflow.program))


def item_names(program: Program) -> Iterator[str]:
    for items in program.items:
        yield items.name
        yield from item_names(items)


def test_the_oracle_knows_retries_and_their_end() -> None:
    flaky = Task("a", "t1", mood="flaky", failures=2, retries=2)
    assert isinstance(outcome(flaky), Value)
    short = Task("a", "t1", mood="flaky", failures=2, retries=1)
    assert outcome(short) == Failed(frozenset({Failure("Wobble", "a", "t1 wobbles")}))
    assert outcome(Wait("gate", "go", None, "fail")) == Open()
    late = outcome(Wait("gate", "go", 1.0, "fail"), answer=TIMED_OUT)
    assert late == Failed(frozenset({Failure("EventTimeout", "gate")}))


def test_the_oracle_collects_failures_in_their_places() -> None:
    broken = Task("b", "t2", mood="broken")
    listed = Task("l", "t1", act="list", size=2)
    collected = outcome(listed, Map(None, broken, None, "collect"))
    assert collected == Value([MapError(n, "Broken", "t2 is broken", f"b[{n}]") for n in range(2)])
    rivals = outcome(listed, Map(None, broken, None, "fail"))
    assert {failure.path for failure in rivals.failures} == {"b[0]", "b[1]"}


def test_the_oracle_goes_round_until_done() -> None:
    done = Task("t", "t1", act="turn", odds=1)
    assert not isinstance(outcome(Loop(None, (done,), 3, "fail")).value, LoopResult)
    plain = Task("t", "t1")
    wrong = outcome(Loop("again", (plain,), 3, "fail"))
    assert wrong == Failed(frozenset({Failure("TypeError", "again")}))


# The books, shown what must not be.


def book_of(*block: tree.Node) -> Book:
    made = Made("f", block, build("f", block))
    return Book("i", made, 1, {"w": 0.0, "v": 0.0}, submitted_at=0.0)


def line(seq: int, path: str, value: object) -> tuple[StepRow, str]:
    row = StepRow(
        seq, path, "a", 1, "completed", output=encode_payload(value), started_at=0.0, ended_at=0.0
    )
    return row, "w"


def fields(value: object) -> dict[str, Any]:
    output = encode_payload(value)
    row = {"status": "completed", "output": output, "error": None, "ended_at": 1.0, "steps": 1}
    return {**row, "worker_id": None}


def test_the_books_refuse_a_second_holder() -> None:
    book = book_of(Task("a", "t1"))
    first = book.claimed(1, "w")
    with pytest.raises(Violation, match="claimed it while"):
        book.claimed(2, "v")
    first.expired = True
    book.claimed(2, "v")
    with pytest.raises(Violation, match="late write"):
        book.wrote(first, [line(0, "a", 1)])


def test_the_books_refuse_a_second_completion_and_a_changed_row() -> None:
    book = book_of(Task("a", "t1"))
    tenure = book.claimed(1, "w")
    book.wrote(tenure, [line(0, "a", 1)])
    with pytest.raises(Violation, match="completed twice"):
        book.wrote(tenure, [line(0, "a", 1), line(1, "a", 1)])
    with pytest.raises(Violation, match="changed after"):
        book_with_row = book_of(Task("a", "t1"))
        book_with_row.wrote(book_with_row.claimed(1, "w"), [line(0, "a", 1)])
        book_with_row.compare([line(0, "a", 2)])


def test_the_books_refuse_another_output_than_the_oracles() -> None:
    task = Task("a", "t1")
    right = task.answer(1, 1)
    for recorded, output, refused in (
        (right, right, None),
        (right, "wrong", "its output is"),
        ("wrong", right, "is recorded, not"),
    ):
        book = book_of(task)
        book.wrote(book.claimed(1, "w"), [line(0, "a", recorded)])
        if refused is None:
            book.judge(fields(output))
        else:
            with pytest.raises(Violation, match=refused):
                book.judge(fields(output))


def test_the_books_refuse_events_out_of_order() -> None:
    book = book_of(Wait("x", "go", None, "fail"), Wait("y", "go", None, "fail"))
    book.sent["go"] = ["first", "second"]
    rows = [line(0, "x", "second"), line(1, "y", "first")]
    book.wrote(book.claimed(1, "w"), rows)
    with pytest.raises(Violation, match="events 'go' came as"):
        book.judge(fields("first"))
