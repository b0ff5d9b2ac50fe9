"""Every kind of type an annotation may name: what comes back, and what does not fit.

A value goes through the codec and is made again as its annotation says (`crossed`); that this is
what happens in a flow, at each place, is shown in `test_typed.py`.
"""

import threading
import typing
from collections import namedtuple
from collections.abc import Mapping, MutableSequence, Sequence
from collections.abc import Set as AnySet
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from sayiir import EncodeError, LoopResult
from sayiir._annotation import Reader
from sayiir._codec import decode_payload, encode_payload
from sayiir._form import Misfit
from sayiir._plain import MAX_KNOWN, plain_form

T = TypeVar("T")


def crossed(annotation: Any, value: Any) -> Any:
    """What a task with this annotation gets when the step before it returned the value."""
    convert = Reader(dict).form(annotation).convert
    plain = decode_payload(encode_payload(value))
    return plain if convert is None else convert(plain)


def misfit(annotation: Any, value: Any) -> str:
    with pytest.raises(Misfit) as refused:
        crossed(annotation, value)
    return str(refused.value)


class Color(Enum):
    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    YES = "yes"


class Access(Flag):
    READ = 1
    WRITE = 2


class Pairs(Enum):
    ORIGIN = (0, 0)
    NOTHING = None


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Corner(NamedTuple):
    at: Point
    color: Color
    size: int


Loose = namedtuple("Loose", "a b")


@dataclass
class Everything:
    color: Color
    level: Level
    access: Access
    point: Point
    many: list[Point]
    table: dict[Color, Point]
    colors: set[Color]
    few: frozenset[Level]
    pair: tuple[Color, int]
    row: tuple[Point, ...]
    sequence: Sequence[Color]
    mapping: Mapping[str, Color]
    maybe: Color | None
    anything: Any
    either: Color | int
    moment: datetime
    day: date
    clock: time
    span: timedelta
    money: Decimal
    key: UUID
    raw: bytes
    ratio: float
    flag: bool
    big: int
    literal: Literal["a", 1, Color.RED]


EVERYTHING = Everything(
    Color.RED,
    Level.HIGH,
    Access.READ | Access.WRITE,
    Point(1, 2.5),
    [Point(1), Point(2)],
    {Color.BLUE: Point(3)},
    {Color.RED, Color.BLUE},
    frozenset({Level.LOW}),
    (Color.BLUE, 7),
    (Point(4), Point(5)),
    (Color.RED,),
    {"x": Color.BLUE},
    None,
    [(1, {2}), b""],
    Color.BLUE,
    datetime(2030, 1, 2, 3, tzinfo=UTC),
    date(2030, 1, 2),
    time(3, 4),
    timedelta(days=1),
    Decimal("1.50"),
    UUID(int=7),
    b"\0",
    3,
    True,
    10**40,
    Color.RED,
)


def test_a_dataclass_of_every_kind_of_field_comes_back_equal() -> None:
    back = crossed(Everything, EVERYTHING)
    assert back == EVERYTHING
    for name in Everything.__dataclass_fields__:
        assert type(getattr(back, name)) is type(getattr(EVERYTHING, name)), name


@dataclass
class Node:
    value: int
    next: Optional["Node"] = None
    kids: list["Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strict:
    name: str
    made: int = field(init=False, default=0)
    text: str = None  # type: ignore[assignment]


@dataclass
class Counted:
    start: int
    now: int = field(init=False)
    scale: InitVar[int] = 2

    def __post_init__(self, scale: int) -> None:
        self.now = self.start * scale


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class PointBox(Box[Point]):
    label: str = ""


class Partial(TypedDict, total=False):
    color: Required[Color]
    point: Point


class Whole(TypedDict):
    color: Color
    point: NotRequired[Point]


class Generics(TypedDict, Generic[T]):
    one: T


UserId = NewType("UserId", int)
Where = NewType("Where", Point)
COUNTED = Counted(3)
COUNTED.now = 50


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.BLUE),
        (Level, Level.LOW),
        (Word, Word.YES),
        (Access, Access.READ | Access.WRITE),
        (Access, Access(0)),
        (Pairs, Pairs.ORIGIN),
        (Pairs, Pairs.NOTHING),
        (Point, Point(1, 2.0)),
        (Corner, Corner(Point(1), Color.RED, 3)),
        (Loose, Loose(1, [2])),
        (Node, Node(1, Node(2, kids=[Node(3), Node(4)]))),
        (Strict, Strict(name="n")),
        (Strict, Strict(name="n", text="t")),
        (Counted, COUNTED),
        (Box[Point], Box(Point(1), [Point(2)])),
        (Box[dict[str, Color]], Box({"a": Color.RED})),
        (PointBox, PointBox(Point(1), [Point(2)], "p")),
        (Partial, {"color": Color.RED}),
        (Partial, {"color": Color.RED, "point": Point(1), "extra": (1,)}),
        (Whole, {"color": Color.RED}),
        (Generics[Point], {"one": Point(1)}),
        (list[Color], [Color.RED]),
        (typing.List[Color], [Color.RED]),  # noqa: UP006 - as older code writes it
        (MutableSequence[Color], [Color.RED]),
        (Sequence[Color], (Color.RED,)),
        (set[Point], {Point(1), Point(2)}),
        (frozenset[Color], frozenset({Color.RED})),
        (AnySet[Color], frozenset({Color.RED})),
        (tuple[Color, ...], (Color.RED, Color.BLUE)),
        (tuple[Color, int, Point], (Color.RED, 1, Point(2))),
        (dict[Level, list[Point]], {Level.LOW: [Point(1)]}),
        (dict[Point, Color], {Point(1): Color.RED}),
        (Mapping[str, Point], {"p": Point(1)}),
        (Color | None, None),
        (Color | None, Color.RED),
        (Union[Color, Level, None], Level.LOW),  # noqa: UP007
        (Color | Point | Node, Node(3)),
        (list[Color | Point | None], [Color.RED, None, Point(1)]),
        (Where, Point(1)),
        (Annotated[Point, "where"], Point(1)),
        (Final[Point], Point(1)),
        (Literal[Color.RED, "blue"], Color.RED),
        (Literal[Color.RED, "blue"], "blue"),
        (LoopResult[Point], LoopResult.again(Point(1))),
        (LoopResult[list[Color]], LoopResult.done([Color.RED])),
        (list[UserId | Color], [3, Color.RED]),
        (typing_extensions.TypeAliasType("Alias", list[Point]), [Point(1)]),
    ],
    ids=repr,
)
def test_it_comes_back_equal_and_of_the_same_type(annotation: Any, value: Any) -> None:
    back = crossed(annotation, value)
    assert back == value
    assert repr(back) == repr(value)


NODES = st.recursive(
    st.builds(Node, st.integers()),
    lambda kids: st.builds(Node, st.integers(), st.none() | kids, st.lists(kids, max_size=3)),
    max_leaves=20,
)


@given(NODES)
def test_a_tree_of_itself_comes_back(node: Node) -> None:
    assert crossed(Node, node) == node


def test_nesting_to_the_limit_of_the_codec_is_no_matter() -> None:
    chain = Node(0)
    for number in range(198):
        chain = Node(number, chain)
    assert crossed(Node, chain) == chain
    with pytest.raises(EncodeError, match="nest deeper"):
        encode_payload(Node(1, Node(2, chain)))
    chain.next = chain
    with pytest.raises(EncodeError, match="contains itself"):
        encode_payload(chain)


@pytest.mark.parametrize(
    ("annotation", "plain", "value"),
    [
        (Point, [1], Point(1)),
        (Strict, {"name": "n"}, Strict(name="n")),
        (tuple[Color, ...], ["r"], (Color.RED,)),
        (tuple[Color, int], ["r", 1], (Color.RED, 1)),
        (set[Color], ["r", "b"], {Color.RED, Color.BLUE}),
        (frozenset[Color], ["r"], frozenset({Color.RED})),
        (list[Color], ("r",), [Color.RED]),
        (Color | list[Point], [[1, 2.0]], [Point(1, 2.0)]),
        (Color | tuple[int, ...], [1], (1,)),
        (Counted, {"start": 4}, Counted(4)),
    ],
    ids=repr,
)
def test_plain_data_from_outside_is_taken(annotation: Any, plain: Any, value: Any) -> None:
    back = crossed(annotation, plain)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("annotation", "plain", "said"),
    [
        (Color, "x", "at $: expected Color, got a str that is no value of it"),
        (Color, 1, "at $: expected Color, got int"),
        (Level, True, "at $: expected Level, got bool"),
        (Level, 1.0, "at $: expected Level, got float"),
        (Access, 8, "at $: expected Access, got an int that is no value of it"),
        (Point, (1, 2, 3), "at $: expected Point of 1 to 2 items, got 3"),
        (Point, ("1",), "at $[0]: expected int, got str"),
        (Point, {"x": 1}, "at $: expected Point, got dict"),
        (Corner, ((1,), "x", 1), "at $[1]: expected Color, got a str that is no value of it"),
        (Node, {"value": 1, "next": {"value": "2"}}, "at $.next.value: expected int, got str"),
        (Node, {"value": 1, "kids": [{"value": 1}, {}]}, "at $.kids[1]: Node lacks 'value'"),
        (Node, {"value": 1, "nexxt": None}, "at $: Node has no field 'nexxt'"),
        (Node, {"value": 1, 3: None}, "at $: Node has no field of type int"),
        (Node, [1], "at $: expected Node, got list"),
        (Node, None, "at $: expected Node, got None"),
        (Strict, {"name": None}, "at $.name: expected str, got None"),
        (Partial, {}, "at $: Partial lacks 'color'"),
        (Partial, {"color": "r", "point": 1}, "at $['point']: expected Point, got int"),
        (Partial, "", "at $: expected Partial, got str"),
        (Whole, {"color": 1}, "at $['color']: expected Color, got int"),
        (list[Color], {"a": 1}, "at $: expected list[Color], got dict"),
        (list[Color], ["r", "r", 3], "at $[2]: expected Color, got int"),
        (set[Color], {"r", 3}, "at $<member>: expected Color, got int"),
        (tuple[Color, ...], ("r", None), "at $[1]: expected Color, got None"),
        (tuple[Color, int], ("r",), "at $: expected tuple[Color, int] of 2 items, got 1"),
        (tuple[Color, int], 5, "at $: expected tuple[Color, int], got int"),
        (dict[Color, int], {"x": 1}, "at $<key>: expected Color, got a str that is no value of it"),
        (dict[str, Color], {"it's": 1}, """at $["it's"]: expected Color, got int"""),
        (dict[int, Color], {7: 1}, "at $[7]: expected Color, got int"),
        (Mapping[str, Color], [1], "at $: expected Mapping[str, Color], got list"),
        (Color | int, 1.5, "at $: expected Color | int, got float"),
        (Color | None, 1, "at $: expected Color, got int"),
        (Node | Point | None, "", "at $: expected Node | Point | None, got str"),
        (LoopResult[Color], "r", "at $: expected LoopResult[Color], got str"),
        (LoopResult[Color], LoopResult.done("x"), "at $.value: expected Color, got a str that"),
        (Literal[Color.RED, "x"], "b", "at $: expected Literal[<Color.RED: 'r'>, 'x'], got ano"),
        (Box[Point], {"content": 1}, "at $.content: expected Point, got int"),
        (PointBox, {"content": 1}, "at $.content: expected Point, got int"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_told_by_place_and_type(
    annotation: Any, plain: Any, said: str
) -> None:
    assert misfit(annotation, plain).startswith(said)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("moment", date(2030, 1, 1)),
        ("day", "2030-01-01"),
        ("clock", 5),
        ("span", 1.5),
        ("money", 1.5),
        ("key", "7"),
        ("raw", "x"),
        ("ratio", "1"),
        ("flag", 1),
        ("big", 1.0),
        ("literal", "b"),
        ("either", None),
    ],
)
def test_plain_fields_are_checked(name: str, wrong: Any) -> None:
    plain = decode_payload(encode_payload(EVERYTHING))
    assert misfit(Everything, {**plain, name: wrong}).startswith(f"at $.{name}: expected ")


def test_a_refusal_of_the_class_itself_is_its_cause() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd")

    assert crossed(Even, {"number": 2}) == Even(2)
    with pytest.raises(Misfit, match="Even refused its fields: ValueError") as refused:
        crossed(list[Even], [{"number": 1}])
    assert str(refused.value.cause) == "odd"


def test_a_subclass_is_not_cut_down_to_its_base() -> None:
    @dataclass
    class Base:
        a: int

    @dataclass
    class Derived(Base):
        b: int

    assert misfit(Base, Derived(1, 2)) == "at $: Base has no field 'b'"
    assert crossed(Base | Derived, Derived(1, 2)) == Derived(1, 2)
    assert crossed(Base | Derived, Base(1)) == Base(1)


# What a value is, and not what anyone expected, decides how it is stored.


class Sized(dict[str, int]):
    pass


@dataclass
class SizedData(dict[str, int]):
    a: int = 0


@dataclass
class Broken(Exception):
    why: str


@dataclass
class Moody:
    mood: str

    def __getattribute__(self, name: str) -> Any:
        if name == "mood":
            raise ConnectionError("not today")
        return super().__getattribute__(name)


def test_unannotated_values_come_back_plain() -> None:
    back = crossed(Any, [Color.RED, Point(1), Node(2), {Level.LOW: Access.READ}, {Word.YES}])
    assert back == ["r", (1, 0.0), {"value": 2, "next": None, "kids": []}, {1: 1}, {"yes"}]
    assert [type(one) for one in back] == [str, tuple, dict, dict, set]


@pytest.mark.parametrize("value", [Sized(), SizedData(), Broken("x"), object(), Node, Color])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    assert plain_form(value) is NotImplemented
    with pytest.raises(EncodeError):
        encode_payload([value])


def test_what_the_class_raises_is_told() -> None:
    with pytest.raises(EncodeError, match=r"\$\[0\].*Moody.* it raised ConnectionError: not today"):
        encode_payload([Moody("good")])


class Shade(Enum):
    CRIMSON = "r"


@pytest.mark.parametrize(
    "value",
    [
        {Color.RED: 1, "r": 2},
        {Color.RED: 1, Shade.CRIMSON: 2},
        {Color.RED, Shade.CRIMSON},
        [{"a": frozenset({(1, Color.RED), (1.0, Shade.CRIMSON)})}],
    ],
    ids=repr,
)
def test_keys_that_would_become_equal_are_refused(value: Any) -> None:
    with pytest.raises(EncodeError, match="would be equal once stored"):
        encode_payload(value)


def test_keys_that_stay_different_are_kept() -> None:
    value = {Color.RED: {Shade.CRIMSON}, Level.LOW: 2, Color.BLUE: 3, Point(1): 4}
    assert crossed(Any, value) == {"r": {"r"}, 1: 2, "b": 3, (1, 0.0): 4}


def test_nesting_fits_a_small_stack() -> None:
    chain = Node(0)
    for number in range(190):
        chain = Node(number, chain)
    done = []
    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=lambda: done.append(crossed(Node, chain) == chain))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert done == [True]


def test_classes_made_on_the_way_do_not_fill_memory() -> None:
    from sayiir import _plain

    for number in range(MAX_KNOWN + 10):
        assert plain_form(type(f"Made{number}", (), {})()) is NotImplemented
    assert len(_plain._shapes) <= MAX_KNOWN
    assert plain_form(Point(1)) == (1, 0.0)
