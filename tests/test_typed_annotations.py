"""Annotations: what is refused when a task is decorated or a flow built, and where names are found.

What an accepted annotation does to a value is in `test_typed_kinds.py`.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import textwrap
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from dataclasses import InitVar, dataclass
from enum import Enum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    LiteralString,
    NamedTuple,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
)

import pytest
import typing_extensions

from sayiir import Flow, InMemoryBackend, SyncWorkflowClient, run_workflow, task
from sayiir._output import output_converter
from sayiir._signature import types_of

if TYPE_CHECKING:
    from decimal import Decimal as OnlyWhenChecked


@dataclass
class Order:
    number: int
    kind: Literal["order"] = "order"


@dataclass
class Refund:
    number: int
    kind: Literal["refund"] = "refund"


@dataclass
class Other:
    name: str
    size: int = 0


@dataclass
class Twin:
    name: str
    size: int = 0


class Point(NamedTuple):
    x: int
    y: int


class Color(Enum):
    RED = "r"


class Paint(Enum):
    CRIMSON = "r"


class Number(Enum):
    ONE = 1


class Odd(Enum):
    ROOM = object()


class Movie(TypedDict):
    title: str


@dataclass
class WithSocket:
    connections: list[socket.socket]


@dataclass
class Dependent:
    a: int
    b: InitVar[int]


@dataclass
class Selfish:
    other: Self | None


@dataclass(init=False)
class OwnInit:
    a: int

    def __init__(self, text: str) -> None:
        self.a = int(text)


class Able(Protocol):
    def go(self) -> None: ...


T = TypeVar("T")
B = TypeVar("B", bound=Order)


def plain(value: Any) -> Any:
    """What a type checker knows nothing of."""
    return value


class TypeAliasType:
    """Like `type Name = …` of later Pythons, whose value is looked up when it is asked for."""

    def __init__(self, name: str, value: Callable[[], Any]) -> None:
        self.name = name
        self.value = value

    @property
    def __value__(self) -> Any:
        return self.value()

    def __call__(self) -> None:
        """What may stand in a union has to look as if it could be called."""

    def __repr__(self) -> str:
        return self.name


TREE: Any = TypeAliasType("Tree", lambda: Order | plain(list).__class_getitem__(TREE))
JSON: Any = TypeAliasType("Json", lambda: plain(list).__class_getitem__(JSON) | Literal["x"] | int)


def annotated(annotation: Any) -> Callable[..., Any]:
    def step(value: Any) -> Any:
        return value

    step.__annotations__ = {"value": annotation}
    return step


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (socket.socket, "values of type socket are not carried"),
        (list[socket.socket], "values of type socket are not carried"),
        (WithSocket, r"WithSocket.connections: values of type socket are not carried"),
        (Path, "values of type Path are not carried"),
        (bytearray, "values of type bytearray"),
        (complex, "values of type complex"),
        (deque[int], r"values of type deque\[int\]"),
        (Counter, "values of type Counter"),
        (Iterator[int], r"type Iterator\[int\] cannot be stored"),
        (Callable[[int], int], "cannot be stored between steps"),
        (type[Order], "cannot be stored between steps"),
        (Odd, "Odd.ROOM has a value of type object"),
        (Dependent, "its __init__ needs 'b', which is no field"),
        (OwnInit, "its __init__ does not take 'a' by name"),
        (Other | Twin, "Other and Twin cannot be told apart: they have the same fields"),
        (Other | dict[str, Any], "a stored dict could be either"),
        (Other | Any, "any value at all"),
        (Color | str, "Color and str cannot be told apart: a stored str could be either"),
        (Color | Paint, "both have a member that is stored as the same"),
        (Point | tuple[int, int], "both can have the same number of items"),
        (list[Color] | list[Number], "a stored list could be either"),
        (Enum, "Enum has no members"),
        (Selfish, "Selfish.other: Self is not followed; write the name of the class"),
        (3, "is no type"),
        ("int |", "cannot be evaluated"),
        (TREE, "Tree contains itself"),
    ],
    ids=repr,
)
def test_what_cannot_be_honoured_is_refused_at_once(annotation: Any, why: str) -> None:
    step = annotated(annotation)
    with pytest.raises(TypeError, match=r"^task 'step': its parameter 'value' is annotated"):
        task(step)
    with pytest.raises(TypeError, match=f"(?s)^flow 'f', task 'n': its parameter .*{why}"):
        Flow("f").then(step, name="n")


def test_what_it_returns_is_judged_as_well() -> None:
    def step(value: int) -> list[socket.socket]:
        return []

    with pytest.raises(TypeError, match=r"task 'step': what it returns is annotated list\[soc"):
        task(step)
    with pytest.raises(TypeError, match=r"task 'step': what it returns is annotated"):
        SyncWorkflowClient(InMemoryBackend()).get_task_result("i", step)


@pytest.mark.parametrize(
    "annotation",
    [
        int, None, "int | None", Any, object, list, dict[str, Any], "list[dict[str, int]]",
        Sequence[int], Hashable, Able, T, list[T],  # type: ignore[valid-type]
        dict[str, list[int] | None], tuple[int, ...], tuple[()], "set[bytes]",
        typing_extensions.TypeAliasType("Text", str), Literal["a", 3, None],
        list[int] | dict[str, int] | str, JSON, LiteralString,
    ],
    ids=repr,
)  # fmt: skip
def test_plain_annotations_ask_for_nothing(annotation: Any) -> None:
    step = annotated(annotation)
    assert types_of(step).takes is None
    assert Flow("f").then(step).build().tasks[0].fn is step


@pytest.mark.parametrize(
    "annotation",
    [
        Order | Refund, Order | Other, Color | Number | None, Color | int, Point | tuple[int],
        Point | list[int] | set[Color], Order | list[Order] | str, Movie | Other, B, list[B],  # type: ignore[valid-type]
        "Order", "list[Order | Refund]",
    ],
    ids=repr,
)  # fmt: skip
def test_unions_that_can_be_told_apart_are_taken(annotation: Any) -> None:
    assert types_of(task(annotated(annotation))).takes is not None


def made(annotation: Any, plain: Any) -> Any:
    return Flow("f").then(annotated(annotation)).build().tasks[0].fn(plain)


def test_members_of_a_union_are_told_by_what_is_stored() -> None:
    told = Order | Refund | Other | Point | Color | Number | None
    assert made(told, {"number": 1, "kind": "refund"}) == Refund(1)
    assert made(told, {"number": 1, "kind": "order"}) == Order(1)
    assert made(told, {"name": "n"}) == Other("n")
    assert made(told, (1, 2)) == Point(1, 2)
    assert made(told, [1, 2]) == Point(1, 2)
    assert made(told, "r") is Color.RED
    assert made(told, 1) is Number.ONE
    assert made(told, None) is None
    assert made(Movie | Other, {"title": "t"}) == {"title": "t"}
    for wrong, said in (
        ({"number": 1}, "it could be Order and Refund"),
        ({"number": 1, "kind": "other"}, "its fields are those of none of them"),
        ({"kind": ["order"]}, "its fields are those of none of them"),
        ({}, "its fields are those of none of them"),
        ({"number": "1", "kind": "order"}, r"at \$.number: expected int, got str"),
        ((1, 2, 3), "expected Point of 2 items, got 3"),
    ):
        with pytest.raises(ValueError, match=said):
            made(told, wrong)
    both = Color | Literal["x"]
    assert (made(both, "r"), made(both, "x")) == (Color.RED, "x")
    with pytest.raises(ValueError, match="it is no value of any of them"):
        made(both, "y")
    with pytest.raises(ValueError, match="none of it has so many items"):
        made(Point | tuple[Color], ())


# Names.


def test_a_name_that_is_defined_later_is_found_when_the_flow_is_built() -> None:
    @task
    def early(late: Late) -> Late:
        assert type(late) is Late
        return late

    @task
    def early_too(late: list[Late]) -> Any:
        return late

    flow = Flow("f").then(early)
    refusal = "flow 'f', task 'early': its parameter 'late' is annotated 'Late', but 'Late' is not"
    with pytest.raises(TypeError, match=refusal):
        flow.build()
    with pytest.raises(TypeError, match="task: its parameter 'late' is annotated"):
        SyncWorkflowClient(InMemoryBackend()).get_task_result("i", early)

    @dataclass
    class Late:
        a: int

    assert run_workflow(flow.build(), plain({"a": 1})) == Late(1)
    assert run_workflow(Flow("f").then(early_too).build(), [{"a": 1}]) == [{"a": 1}]


def test_a_name_in_a_class_may_be_defined_later_too() -> None:
    @dataclass
    class Outer:
        inner: Inner

    @task
    def step(outer: Outer) -> int:
        return outer.inner.a

    flow = Flow("f").then(step)
    with pytest.raises(TypeError, match="its parameter 'outer' is annotated 'Outer', but 'Inner'"):
        flow.build()

    @dataclass
    class Inner:
        a: int

    assert run_workflow(flow.build(), plain({"inner": {"a": 5}})) == 5


def test_a_name_that_only_the_type_checker_sees_is_told() -> None:
    def step(value: OnlyWhenChecked) -> None: ...

    flow = Flow("f").then(step)
    with pytest.raises(TypeError, match="import it outside of `if TYPE_CHECKING:`"):
        flow.build()

    def other(value: int) -> pydantic.BaseModel: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TypeError, match=r"pip install 'sayiir\[pydantic\]'"):
        Flow("f").then(other).build()


def test_a_module_that_is_read_from_above_may_define_its_types_below(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            from sayiir import Flow, run_workflow, task

            @task
            def step(order: "Order") -> "Order":
                return order

            flow = Flow("f").then(step)

            from dataclasses import dataclass

            @dataclass
            class Order:
                number: int

            assert run_workflow(flow.build(), Order(3)) == Order(3)
            """
        )
    )
    subprocess.run([sys.executable, tmp_path / "program.py"], check=True)


def test_a_closure_sees_what_it_closes_over() -> None:
    def maker() -> Any:
        @dataclass
        class Hidden:
            a: int

        def step(hidden: Hidden) -> int:
            assert isinstance(hidden, Hidden)
            return hidden.a

        return step

    assert run_workflow(Flow("f").then(maker()).build(), {"a": 4}) == 4


# What kinds of callables there are.


def total(order: Order, factor: int = 2) -> int:
    assert type(order) is Order
    return order.number * factor


class Shop:
    @task
    def sell(self, order: Order) -> Order:
        assert type(order) is Order
        return order

    def __call__(self, order: Order) -> int:
        return total(order)

    @staticmethod
    @task
    def count(order: Order) -> int:
        return total(order)


def supplied(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(value: Any) -> Any:
        return fn(Shop(), value)

    return wrapper


def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@supplied
def with_shop(shop: Shop, order: Order) -> Any:
    return order


async def later(order: Order) -> int:
    return total(order)


def returns_later(order: Order) -> Coroutine[Any, Any, int]:
    return later(order)


def many(*orders: Order) -> int:
    return total(orders[0])


def optional(order: Order = Order(7)) -> int:  # noqa: B008 - what some write
    return total(order)


@pytest.mark.parametrize(
    "step",
    [
        total, functools.partial(total, factor=2), Shop(), Shop.count, traced(total), later, many,
        returns_later, optional, lambda order: 10,
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_can_be_called_gets_what_it_asks_for(step: Any) -> None:
    assert run_workflow(Flow("f").then(step, name="n").build(), Order(5)) == 10


def test_methods_and_classes() -> None:
    flow = Flow("f").then(Shop().sell).build()
    assert run_workflow(flow, Order(5)) == Order(5)
    assert run_workflow(Flow("f").then(Other).build(), "n") == Other("n")
    assert run_workflow(Flow("f").then(dict).build(), plain([("a", 1)])) == {"a": 1}


def test_a_wrapper_that_supplies_an_argument_is_called_with_what_it_takes() -> None:
    assert run_workflow(Flow("f").then(with_shop).build(), Order(5)) == {
        "number": 5,
        "kind": "order",
    }


def test_a_task_without_parameters_has_nothing_to_make() -> None:
    def nothing() -> Order:
        return Order(1)

    assert run_workflow(Flow("f").then(nothing).build(), "ignored") == Order(1)


def test_what_is_awaited_is_what_is_returned() -> None:
    def promise(order: Order) -> Awaitable[Order]:
        async def go() -> Order:
            return order

        return go()

    assert run_workflow(Flow("f").then(promise).build(), Order(5)) == Order(5)


def test_annotations_are_read_once() -> None:
    assert types_of(total) is types_of(total)
    flow = Flow("f").then(total).build()
    assert output_converter(flow) is None
    assert output_converter(Flow("f").wait_for_event("e").build()) is None
    assert output_converter(Flow("f").delay("d", 1).build()) is None
