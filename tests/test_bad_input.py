"""What client and backend refuse: the class, a sentence that names the argument, nothing stored.

Every refusal is tried on every backend, with one instance that waits in it, and the store must be
the same after it; the class is the same everywhere. What a URL may say is in `test_url.py`.
What a flow refuses is in `test_flow.py`, what the codec refuses in `test_value_hostile.py`.
"""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from sayiir import (
    EncodeError,
    Flow,
    InstanceNotFoundError,
    SyncWorkflowClient,
    WorkflowClient,
)
from sayiir._core import MAX_PAYLOAD_BYTES, MAX_VALUE_DEPTH
from sayiir.backends import Backend

from .stepping import TOUR, Stage, Stages

Call = Callable[[Any, Any], Awaitable[Any]]


async def facts(stage: Stage) -> Any:
    """Everything the store holds that a refused call could have touched."""
    page = await stage.client.list_instances(limit=1000)
    return [
        (info, await stage.client.status(info.instance_id), await stage.client.history("i"))
        for info in page
    ]


async def refused(
    stages: Stages,
    call: Call,
    value: Any,
    error: type[Exception],
    words: str,
    *,
    exact: bool = True,
) -> str:
    """Whether the call raises as it should and leaves the store as it was; the sentence."""
    stage = stages()
    await stage.reach("waiting")
    before = await facts(stage)
    with pytest.raises(error) as raised:
        await call(stage.client, value)
    assert not exact or type(raised.value) is error
    text = str(raised.value)
    assert words in text
    assert len(text) < 1000
    assert await facts(stage) == before
    return text


BAD_NAMES = {
    "empty": "",
    "NUL": "a\0b",
    "257 bytes": "x" * 257,
    "257 bytes of UTF-8": "é" * 128 + "x",
    "1 MB": "x" * 1_000_000,
    "lone surrogate": "a\ud800",
    "white space": " \t ",
    "wide white space": "\u3000",
    "control": "a\x1b[31m",
    "line end": "a\n",
    "late control": "a\x85",
}
FINE_NAMES = [
    "'; DROP TABLE instances; --",
    "😀",
    "\u200fabc",
    "<b>&amp;",
    "%",
    "_",
    "..",
    "a/b[0]#1~2",
    "x" * 256,
    "é" * 128,
    " a ",
    "null",
]
NAMED: dict[str, tuple[str, Call]] = {
    "submit": ("instance_id", lambda c, bad: c.submit(TOUR, bad, 1)),
    "submit_many": ("instance_id", lambda c, bad: c.submit_many(TOUR, [("n", 1), (bad, 1)])),
    "status": ("instance_id", lambda c, bad: c.status(bad)),
    "result": ("instance_id", lambda c, bad: c.result(bad)),
    "cancel": ("instance_id", lambda c, bad: c.cancel(bad)),
    "pause": ("instance_id", lambda c, bad: c.pause(bad)),
    "unpause": ("instance_id", lambda c, bad: c.unpause(bad)),
    "send_event": ("instance_id", lambda c, bad: c.send_event(bad, "go", 1)),
    "get_task_result": ("instance_id", lambda c, bad: c.get_task_result(bad, "first")),
    "history": ("instance_id", lambda c, bad: c.history(bad)),
    "delete": ("instance_id", lambda c, bad: c.delete(bad, force=True)),
    "event": ("name", lambda c, bad: c.send_event("i", bad, 1)),
    "key": ("idempotency_key", lambda c, bad: c.send_event("i", "go", 1, idempotency_key=bad)),
    "workflow": ("workflow", lambda c, bad: c.list_instances(workflow=bad)),
}
# Where `None` means that nothing is given.
OPTIONAL = {"submit", "submit_many", "key", "workflow"}


@pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES)
@pytest.mark.parametrize("place", NAMED)
async def test_a_bad_name(stages: Stages, place: str, bad: str) -> None:
    argument, call = NAMED[place]
    await refused(stages, call, bad, ValueError, argument)


@pytest.mark.parametrize("bad", [1, b"i", 1.5, ["i"], object(), True, None])
@pytest.mark.parametrize("place", NAMED)
async def test_a_name_that_is_no_text(stages: Stages, place: str, bad: Any) -> None:
    argument, call = NAMED[place]
    if not (bad is None and place in OPTIONAL):
        await refused(stages, call, bad, TypeError, argument)


@pytest.mark.parametrize("fine", FINE_NAMES)
async def test_a_strange_name_is_taken_as_it_is(stages: Stages, fine: str) -> None:
    workflow = Flow(fine).then(str, name=fine).wait_for_event(fine).build()
    stage = stages(workflow)
    client = stage.client
    handle = await client.submit(workflow, fine, 1)
    assert handle.instance_id == fine
    await client.pause(fine, fine, fine)
    status = await client.status(fine)
    assert (status.instance_id, status.workflow_id) == (fine, fine)
    assert (status.reason, status.paused_by) == (fine, fine)
    await client.unpause(fine)
    assert await stage.run(fine) == "parked"
    assert (await client.status(fine)).signal_name == fine
    assert await client.get_task_result(fine, fine) == "1"
    assert [info.instance_id for info in await client.list_instances(id_prefix=fine)] == [fine]
    assert [info.workflow_id for info in await client.list_instances(workflow=fine)] == [fine]
    await client.send_event(fine, fine, fine, idempotency_key=fine)
    assert await stage.run(fine) == "completed"
    assert await client.result(fine) == fine
    await client.delete(fine)
    with pytest.raises(InstanceNotFoundError):
        await client.status(fine)


def test_a_subclass_of_str_is_text(backend: Backend) -> None:
    class Name(str):
        __slots__ = ()

    async def main() -> str:
        client = WorkflowClient(backend)
        await client.submit(TOUR, Name("i"), 1)
        return (await client.status("i")).instance_id

    assert asyncio.run(main()) == "i"


# Notes: reasons and authors.

NOTED: dict[str, tuple[str, Call]] = {
    "cancel": ("reason", lambda c, bad: c.cancel("i", bad)),
    "cancelled_by": ("cancelled_by", lambda c, bad: c.cancel("i", None, bad)),
    "pause": ("reason", lambda c, bad: c.pause("i", bad)),
    "paused_by": ("paused_by", lambda c, bad: c.pause("i", None, bad)),
}
BAD_NOTES = {"1 MB": "x" * 1_000_000, "4097": "x" * 4097, "NUL": "a\0", "surrogate": "\udfff"}


@pytest.mark.parametrize("bad", BAD_NOTES.values(), ids=BAD_NOTES)
@pytest.mark.parametrize("place", NOTED)
async def test_a_bad_note(stages: Stages, place: str, bad: str) -> None:
    argument, call = NOTED[place]
    await refused(stages, call, bad, ValueError, argument)


@pytest.mark.parametrize("bad", [1, b"why", object()])
@pytest.mark.parametrize("place", NOTED)
async def test_a_note_that_is_no_text(stages: Stages, place: str, bad: Any) -> None:
    argument, call = NOTED[place]
    await refused(stages, call, bad, TypeError, argument)


@pytest.mark.parametrize("fine", ["", "x" * 4096, "é" * 4096, "two\nlines\t\x1b", "😀'; --"])
@pytest.mark.parametrize("place", NOTED)
async def test_a_note_that_is_taken_as_it_is(stages: Stages, place: str, fine: str) -> None:
    stage = stages()
    await stage.reach("waiting")
    await NOTED[place][1](stage.client, fine)
    status = await stage.client.status("i")
    kept = {"cancelled_by": status.cancelled_by, "paused_by": status.paused_by}
    assert kept.get(place, status.reason) == fine


# Other arguments.

NAIVE = datetime(2024, 1, 1)
TypeRow = tuple[str, str, Call, list[Any]]
KINDS: list[TypeRow] = [
    ("submit", "workflow", lambda c, bad: c.submit(bad, "n", 1), [None, "tour", Flow("f"), str]),
    ("batch", "workflow", lambda c, bad: c.submit_many(bad, []), [None, "tour", [TOUR]]),
    ("items", "items", lambda c, bad: c.submit_many(TOUR, bad), [None, 1, "ab", b"ab"]),
    ("item", "items[0]", lambda c, bad: c.submit_many(TOUR, [bad]), ["ab", 1, ("a",), (1, 2, 3)]),
    (
        "policy",
        "conflict_policy",
        lambda c, bad: c.submit(TOUR, "n", 1, conflict_policy=bad),
        [1, b"fail", ["fail"]],
    ),
    (
        "start",
        "start_at",
        lambda c, bad: c.submit(TOUR, "n", 1, start_at=bad),
        [0, 1.5, "1h", timedelta(1), date(2024, 1, 1)],
    ),
    ("timeout", "timeout", lambda c, bad: c.result("i", bad), [True, b"1s", [1], Decimal(1)]),
    ("task", "task", lambda c, bad: c.get_task_result("i", bad), [None, 1, b"first", ["first"]]),
    ("status", "status", lambda c, bad: c.list_instances(status=bad), [1, b"paused", ["paused"]]),
    ("prefix", "id_prefix", lambda c, bad: c.list_instances(id_prefix=bad), [1, b"i"]),
    ("limit", "limit", lambda c, bad: c.list_instances(limit=bad), [None, "1", 1.0, True]),
    ("cursor", "cursor", lambda c, bad: c.list_instances(cursor=bad), [1, b"1"]),
    ("after", "created_after", lambda c, bad: c.list_instances(created_after=bad), [0, "now"]),
    ("before", "created_before", lambda c, bad: c.list_instances(created_before=bad), [0, "now"]),
    ("force", "force", lambda c, bad: c.delete("i", bad), [1, "yes", None]),
]
VALUES: list[TypeRow] = [
    (
        "policy",
        "conflict_policy",
        lambda c, bad: c.submit(TOUR, "n", 1, conflict_policy=bad),
        ["", "FAIL", "replace", "fail ", "x" * 100_000],
    ),
    ("start", "start_at", lambda c, bad: c.submit(TOUR, "n", 1, start_at=bad), [NAIVE]),
    (
        "timeout",
        "timeout",
        lambda c, bad: c.result("i", bad),
        [-1, math.nan, math.inf, 1e300, 1e18, 10**400, "soon", "", "-1s", timedelta(-1)],
    ),
    (
        "task",
        "task",
        lambda c, bad: c.get_task_result("i", bad),
        ["", " ", "a\0", "\ud800", "x" * 1_000_000, lambda x: x],
    ),
    (
        "status",
        "status",
        lambda c, bad: c.list_instances(status=bad),
        ["", "running", "PAUSED", "x" * 100_000],
    ),
    (
        "prefix",
        "id_prefix",
        lambda c, bad: c.list_instances(id_prefix=bad),
        ["a\0", "\ud800", "x" * 257, "x" * 1_000_000],
    ),
    (
        "limit",
        "limit",
        lambda c, bad: c.list_instances(limit=bad),
        [0, -1, 1001, 10**10, 10**5000],
    ),
    (
        "cursor",
        "cursor",
        lambda c, bad: c.list_instances(cursor=bad),
        ["", "-1", "x", "1.5", "' OR 1=1; --", "\ud800", "9" * 5000, "²"],
    ),
    ("after", "created_after", lambda c, bad: c.list_instances(created_after=bad), [NAIVE]),
    ("before", "created_before", lambda c, bad: c.list_instances(created_before=bad), [NAIVE]),
    (
        "batch",
        "comes twice",
        lambda c, bad: c.submit_many(TOUR, bad),
        [[("a", 1), ("a", 1)], [("b", 1), ("a", 1), ("b", 2)]],
    ),
]


def cases(rows: list[TypeRow]) -> list[Any]:
    return [
        pytest.param(argument, call, bad, id=f"{name}-{n}")
        for name, argument, call, values in rows
        for n, bad in enumerate(values)
    ]


@pytest.mark.parametrize(("argument", "call", "bad"), cases(KINDS))
async def test_a_wrong_kind(stages: Stages, argument: str, call: Call, bad: Any) -> None:
    await refused(stages, call, bad, TypeError, argument)


@pytest.mark.parametrize(("argument", "call", "bad"), cases(VALUES))
async def test_a_wrong_value(stages: Stages, argument: str, call: Call, bad: Any) -> None:
    await refused(stages, call, bad, ValueError, argument)


async def test_both_sides_of_the_limit(stages: Stages) -> None:
    client = stages().client
    for limit in (1, 1000):
        assert (await client.list_instances(limit=limit)).next_cursor is None
    assert len(await client.list_instances(id_prefix="x" * 256)) == 0
    # The largest moments there are, too.
    for moment in (datetime.min, datetime.max):
        aware = moment.replace(tzinfo=UTC)
        assert len(await client.list_instances(created_after=aware, created_before=aware)) == 0
        handle = await client.submit(TOUR, None, 1, start_at=aware)
        assert (await handle.refresh()).status == handle.status


def test_a_generator_task_has_no_result(stages: Stages) -> None:
    def stream(x: int) -> Any:
        yield x

    async def main() -> None:
        await refused(stages, lambda c, bad: c.get_task_result("i", bad), stream, TypeError, "task")

    asyncio.run(main())


# Payloads.


def cyclic() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(MAX_VALUE_DEPTH):
        value = [value]
    return value


class Unregistered:
    pass


PAYLOADS: dict[str, Callable[[], Any]] = {
    "function": lambda: len,
    "lambda": lambda: lambda x: x,
    "generator": lambda: (n for n in range(3)),
    "module": lambda: sys,
    "cyclic list": cyclic,
    "too deep": deep,
    "object": Unregistered,
    "inside": lambda: {"a": [1, {"b": Unregistered()}]},
    "too large": lambda: bytes(MAX_PAYLOAD_BYTES + 1),
}
SENDS: dict[str, Call] = {
    "submit": lambda c, bad: c.submit(TOUR, "new", bad),
    "submit without id": lambda c, bad: c.submit(TOUR, input=bad),
    "submit_many": lambda c, bad: c.submit_many(TOUR, [("new", 1), ("newer", bad)]),
}


@pytest.mark.parametrize("make", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("place", SENDS)
async def test_an_input_that_cannot_be_stored(
    stages: Stages, place: str, make: Callable[[], Any]
) -> None:
    text = await refused(stages, SENDS[place], make(), EncodeError, "nothing was stored")
    assert "'tour'" in text


@pytest.mark.parametrize("make", PAYLOADS.values(), ids=PAYLOADS)
async def test_an_event_that_cannot_be_stored(stages: Stages, make: Callable[[], Any]) -> None:
    stage = stages()
    await stage.reach("awaiting_signal")
    with pytest.raises(EncodeError, match="event 'go' was not sent to instance 'i'"):
        await stage.client.send_event("i", "go", make())
    assert (await stage.client.status("i")).status == "awaiting_signal"


async def test_the_payload_is_not_quoted(stages: Stages) -> None:
    secret = "correct horse battery staple"
    for call in (
        lambda c, bad: c.submit(TOUR, "new", bad),
        lambda c, bad: c.send_event("i", "go", bad),
    ):
        text = await refused(
            stages, call, [secret, {"password": secret}, object()], EncodeError, "object"
        )
        assert secret not in text


def test_the_sync_client_refuses_the_same(backend: Backend) -> None:
    with SyncWorkflowClient(backend) as client:
        with pytest.raises(ValueError, match="instance_id"):
            client.submit(TOUR, "", 1)
        with pytest.raises(TypeError, match="workflow"):
            client.submit("tour", "i", 1)  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match="nothing was stored"):
            client.submit(TOUR, "i", object())
        with pytest.raises(InstanceNotFoundError):
            client.status("i")
