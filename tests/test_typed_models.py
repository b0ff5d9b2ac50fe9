"""Models of msgspec and pydantic: their own rules hold on both sides of a step."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest

from sayiir import EncodeError, Flow, Worker, WorkflowClient, run_workflow, task
from sayiir._signature import types_of

from .test_typed_kinds import crossed, misfit
from .working import LONG, NEVER, Places, outcome

T = TypeVar("T")


class Color(Enum):
    RED = "r"
    BLUE = "b"


@dataclass
class Point:
    x: int
    y: int = 0


class Struct(msgspec.Struct):
    name: str
    color: Color
    numbers: set[int] = msgspec.field(default_factory=set)
    pair: tuple[int, str] = (1, "a")
    at: Point | None = None
    money: Decimal = Decimal("1.5")
    key: UUID = UUID(int=3)
    big: int = 10**40
    anything: Any = None
    when: datetime = datetime(2030, 1, 1, tzinfo=UTC)


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    first_name: str
    last_name: str | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True):
    a: int
    b: Struct | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    lives: int


class Untagged(msgspec.Struct):
    lives: int


class Boxed(msgspec.Struct, Generic[T]):
    content: T


class Tree(msgspec.Struct):
    kids: list["Tree"] = []


class Picky(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("it is negative")


class Model(pydantic.BaseModel):
    name: str
    color: Color = Color.RED
    numbers: set[int] = set()
    pair: tuple[int, str] = (1, "a")
    at: Point | None = None
    money: Decimal = Decimal("1.5")
    key: UUID = UUID(int=3)
    when: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


class Nested(pydantic.BaseModel):
    models: list[Model]
    more: dict[str, "Nested"] = {}


class Aliased(pydantic.BaseModel):
    first: str = pydantic.Field(alias="firstName")
    second: int = pydantic.Field(0, validation_alias="secondIn", serialization_alias="secondOut")


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)
    color: Color
    count: int
    inner: Point


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Kitten(pydantic.BaseModel):
    kind: Literal["kitten"] = "kitten"
    name: str


class Puppy(pydantic.BaseModel):
    kind: Literal["puppy"] = "puppy"
    name: str


class Wrapped(pydantic.BaseModel, Generic[T]):
    content: T


@pydantic.dataclasses.dataclass
class Checked:
    number: int
    text: str = pydantic.Field("", max_length=3)


class Mixed(msgspec.Struct):
    model: Model
    point: Point


@dataclass
class Holder:
    struct: Struct
    models: list[Model | None]
    color: Color


STRUCT = Struct("s", Color.BLUE, {1, 2}, (3, "b"), Point(1, 2), anything=(1, {2}))
MODEL = Model(name="m", color=Color.BLUE, numbers={1, 2}, at=Point(1))
Pet = Annotated[Kitten | Puppy, pydantic.Field(discriminator="kind")]

ROUND = [
    (Struct, STRUCT),
    (Struct | None, STRUCT),
    (list[Struct], [STRUCT, STRUCT]),
    (dict[Color, Struct], {Color.RED: STRUCT}),
    (Renamed, Renamed("f")),
    (Renamed, Renamed("f", "l")),
    (Row, Row(1, STRUCT)),
    (Row | Struct, Row(1)),
    (Cat | Dog, Dog(9)),
    (Cat | Dog | None, Cat(9)),
    (Cat | Dog | int | Color, Cat(9)),
    (Boxed[Point], Boxed(Point(1))),
    (Tree, Tree([Tree(), Tree([Tree()])])),
    (Annotated[int, msgspec.Meta(gt=0)], 3),
    (Annotated[int, msgspec.Meta(gt=0)] | None, None),
    (Model, MODEL),
    (Model | None, MODEL),
    (Nested, Nested(models=[MODEL], more={"a": Nested(models=[])})),
    (Aliased, Aliased.model_validate({"firstName": "f", "secondIn": 2})),
    (Closed, Closed(color=Color.RED, count=3, inner=Point(1))),
    (Open, Open(any_thing=[1])),  # type: ignore[call-arg]
    (Numbers, Numbers([1, 2])),
    (Numbers | None, Numbers([1, 2])),
    (Kitten | Puppy, Puppy(name="p")),
    (Kitten | Puppy | int | None, Kitten(name="p")),
    (Pet, Puppy(name="p")),
    (list[Pet], [Puppy(name="p"), Kitten(name="k")]),
    (Wrapped[Point], Wrapped[Point](content=Point(1))),
    (Annotated[int, pydantic.Field(gt=0)], 3),
    (Checked, Checked(1, "abc")),
    (Mixed, Mixed(MODEL, Point(1))),
    (Holder, Holder(STRUCT, [MODEL, None], Color.RED)),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND, ids=repr)
def test_it_comes_back_equal_and_of_the_same_type(annotation: Any, value: Any) -> None:
    back = crossed(annotation, value)
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("value", [STRUCT, MODEL], ids=["msgspec", "pydantic"])
async def test_a_model_goes_through_a_flow(kind: str, value: Any) -> None:
    cls = type(value)

    def same(one: Any) -> Any:
        assert type(one) is cls
        return one

    async def same_later(one: Any) -> Any:
        return same(one)

    for step in (same, same_later):
        step.__annotations__ = {"one": cls, "return": cls}
        task(step)
    flow = Flow("f").then(same).wait_for_event("e").then(same_later).build()
    async with Places(kind) as places:
        backend = places()
        async with Worker(backend, flow, poll_interval=NEVER):
            client = WorkflowClient(backend)
            handle = await client.submit(flow, "i", value)
            await handle.send_event("e", value)
            assert await handle.result(LONG) == value
        assert await client.get_task_result("i", same) == value
        assert await outcome(backend, Flow("g").map(same).build(), [value, value]) == [value] * 2


@pytest.mark.parametrize(
    ("annotation", "plain", "said"),
    [
        (Struct, {}, "at $: Object missing required field `name`"),
        (Struct, {"name": "n", "color": "x"}, "at $.color: Invalid enum value"),
        (list[Struct], [{"name": 1, "color": "r"}], "at $[0].name: Expected `str`, got `int`"),
        (Renamed, {"firstName": "f", "first_name": "f"}, "at $: Object contains unknown field"),
        (Cat | Dog, {"type": "Cow", "lives": 1}, "at $.type: Invalid value"),
        (Picky, {"number": -1}, "at $: it is negative"),
        (Annotated[int, msgspec.Meta(gt=0)], 0, "at $: Expected `int` >= 1"),
        (Mixed, {"model": {}, "point": {"x": 1}}, "at $.model: .name: Field required, says Model"),
        (Model, {}, "at $.name: Field required, says Model"),
        (Model, [], "at $: Input should be a valid dictionary or instance of Model"),
        (Nested, {"models": [{"name": 1}, {}]}, "at $.models[0].name: Input should be a valid st"),
        (Closed, {"color": "r", "count": "3", "inner": {"x": 1}}, "at $.count"),
        (Closed, {"color": "x", "count": 3, "inner": {"x": 1}}, "at $.color: Input should be 'r'"),
        (Closed, {"color": "r", "count": 3, "inner": {"x": 1}, "b": 0}, "at $.b: Extra inputs"),
        (Numbers, [1, "x"], "at $[1]: Input should be a valid integer"),
        (
            Pet,
            {"kind": "cow", "name": "c"},
            "at $: The tag is none of the expected ones, says Kitten | P",
        ),
        (Checked, {"number": 1, "text": "long"}, "at $.text: String should have at most 3"),
        (Holder, {"struct": 1, "models": [], "color": "r"}, "at $.struct: Expected `object`, got"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_told_by_place_and_reason(
    annotation: Any, plain: Any, said: str
) -> None:
    assert misfit(annotation, plain).startswith(said)


def test_the_value_itself_is_not_told() -> None:
    for annotation, plain in (
        (Struct, {"name": "n", "color": "canary"}),
        (Cat | Dog, {"type": "canary", "lives": 1}),
        (Model, {"name": {"canary": 1}}),
        (Model, {"name": "n", "numbers": ["canary"]}),
        (Holder, {"struct": {}, "models": [], "color": "canary"}),
        (Pet, {"kind": "canary", "name": "c"}),
    ):
        assert "canary" not in misfit(annotation, plain)


def test_aliases_are_taken_from_outside_and_names_from_inside() -> None:
    assert crossed(Aliased, {"firstName": "f", "secondIn": 3}).second == 3
    assert crossed(Aliased, {"first": "f", "second": 3}).second == 3

    class Swapped(pydantic.BaseModel):
        a: int = pydantic.Field(alias="b")
        b: int = pydantic.Field(alias="a")

    def step(value: Any) -> None: ...

    step.__annotations__["value"] = Swapped
    with pytest.raises(
        TypeError, match=r"the alias 'b' of Swapped\.a is the name of another field"
    ):
        task(step)


def test_what_a_serializer_raises_is_told() -> None:
    class Bad(pydantic.BaseModel):
        number: int

        @pydantic.field_serializer("number")
        def fail(self, _: int) -> int:
            raise ValueError("not today")

    with pytest.raises(EncodeError, match=r"\$\[0\].*Bad.*PydanticSerializationError.*not today"):
        crossed(Any, [Bad(number=1)])


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (Untagged | Cat, "msgspec cannot decode Untagged | Cat: .* must be tagged"),
        (Struct | Model, "a stored dict could be either"),
        (Struct | Point, "a stored dict could be either"),
        (Numbers | int, "any value at all"),
        (Struct | dict[str, int], "a stored dict could be either"),
    ],
    ids=repr,
)
def test_what_cannot_be_told_apart_is_refused(annotation: Any, why: str) -> None:
    def step(value: Any) -> None: ...

    step.__annotations__["value"] = annotation
    with pytest.raises(TypeError, match=why.replace("|", r"\|")):
        task(step)


def test_a_struct_with_what_cannot_be_stored_is_refused() -> None:
    class Foreign(msgspec.Struct):
        where: list[memoryview | None]
        what: set[frozenset[complex]]

    def step(value: Any) -> None: ...

    step.__annotations__["value"] = Foreign
    with pytest.raises(TypeError, match="values of type complex are not carried"):
        task(step)


@pytest.mark.parametrize(("library", "cls"), [("msgspec", Struct), ("pydantic", Model)])
def test_a_library_that_is_missing_is_named_at_decoration(
    library: str, cls: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(value: Any) -> None: ...

    step.__annotations__["value"] = cls
    monkeypatch.setitem(sys.modules, library, None)
    missing = rf"{cls.__name__} needs {library}, .* pip install 'sayiir\[{library}\]'"
    with pytest.raises(TypeError, match=missing):
        task(step)


def test_a_pydantic_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(value: Model) -> None: ...

    for version in ("1.10.26", "2.9.2"):
        monkeypatch.setattr(pydantic, "VERSION", version)
        with pytest.raises(TypeError, match=rf"2\.11 or newer, and this is {version}"):
            task(step)


def test_a_model_that_is_not_complete_yet_is_completed_when_the_flow_is_built() -> None:
    class Early(pydantic.BaseModel):
        late: "Late"

    class EarlyStruct(msgspec.Struct):
        late: "Late"

    @task
    def step(early: Early) -> Early:
        return early

    flow = Flow("f").then(step)
    with pytest.raises(TypeError, match=r"'Late' is not defined|a name in it is not defined"):
        flow.build()

    def struct_step(early: EarlyStruct) -> None: ...

    with pytest.raises(TypeError, match=r"'Late' is not defined"):
        Flow("f").then(struct_step).build()

    class Late(pydantic.BaseModel):
        a: int

    plain: Any = {"late": {"a": 1}}
    value = run_workflow(flow.build(), plain)
    assert value == Early(late=Late(a=1))
    assert types_of(step).takes is not None
