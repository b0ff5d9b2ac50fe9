"""How payloads are stored: every codec through every kind of node, on every backend.

That what was stored under one setting is read under another, that what is encrypted opens with its
key and in its place only, that pickles are written and read by those alone who asked for them, and
what is said otherwise. What becomes of each value in JSON, and what hostile bytes do, is in
`test_codecs_bytes`.
"""

import asyncio
import base64
import fractions
import logging
import os
import sqlite3
import struct
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.postgres import server

from sayiir import (
    DecodeError,
    EncodeError,
    Flow,
    InMemoryBackend,
    LoopResult,
    PostgresBackend,
    SqliteBackend,
    SyncWorkflowClient,
    TaskError,
    Worker,
    WorkflowClient,
    WorkflowFailed,
    connect,
    get_task_context,
    resume_workflow_async,
    run_durable_workflow_async,
    run_workflow,
    run_workflow_async,
)
from sayiir._core import StepRow, decode_payload, encode_payload
from sayiir.backends import Backend, StorageBackend
from sayiir.codecs import Codec, KeyRing, PayloadCodec, PickleWarning, Place, checked_codec

from . import tasks_for_processes
from .working import BACKENDS, LONG, Altered, Places

OLD, NEW = os.urandom(32), os.urandom(32)
RING = KeyRing({"new": NEW})
RICH = {
    "text": 'ä\n"\\\0' * 50,
    "when": datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=UTC),
    "cents": Decimal("1.20"),
    "pair": (b"\x00\xff", {1, 2}),
    2: [None, True, 1.5, 10**40],
}
FLAGS = {"compressed": 1, "encrypted": 2, "own": 4}


class Reversed:
    """A codec of somebody's own, which remembers where it was asked."""

    id = 7

    def __init__(self) -> None:
        self.places: list[Place] = []

    def encode(self, payload: bytes, place: Place) -> bytes:
        self.places.append(place)
        return payload[::-1]

    def decode(self, payload: bytes, place: Place) -> bytes:
        assert place in self.places
        return payload[::-1]


def with_pickles(mode: Any = True, **settings: Any) -> Codec:
    with pytest.warns(PickleWarning, match="run code when they are read"):
        return Codec(pickle=mode, **settings)


CODECS: dict[str, Callable[[], Codec]] = {
    "json": lambda: Codec("json"),
    "zstd": lambda: Codec(compress_above=0),
    "keys": lambda: Codec(keys=RING),
    "all": lambda: Codec("json", compress_above=64, keys=RING, own=Reversed()),
    "own": lambda: Codec(own=Reversed()),
    "pickle": with_pickles,
}


def echo(value: Any) -> Any:
    return value


def turn(value: Any) -> LoopResult[Any]:
    count, kept = value
    return LoopResult.done(kept) if count == 2 else LoopResult.again((count + 1, kept))


child = Flow("child").then(echo, name="inner").build()
FLOW = (
    Flow("every node")
    .then(echo, name="first")
    .fork()
    .branch(echo, name="left")
    .branch(child, name="right")
    .join(lambda both: [both["left"], both["right"]], name="joined")
    .map(echo, name="each")
    .map(echo, name="apart", spread=True)
    .then(lambda items: (0, items), name="counted")
    .loop(turn, name="turns")
    .route(lambda _: "way", keys=["way"])
    .branch("way", echo)
    .done()
    .then(lambda routed: routed["result"], name="routed")
    .delay("pause", "1ms")
    .wait_for_event("go")
    .then(echo, name="last")
    .build()
)


@pytest.fixture(params=BACKENDS)
async def places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    async with Places(request.param) as made:
        yield made


def coded(places: Places, codec: Codec | None, *altered: type) -> Backend:
    """A fresh place, whose payloads are stored like this."""
    if places.kind == "python":
        backend: Any = places(*altered)
        backend.codec = codec
        made: Backend = backend
        return made
    return places(*altered, codec=codec)


async def logged(words: str) -> None:
    """Wait until a worker says this."""
    said = asyncio.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in self.format(record):
                said.set()

    ear = Ear()
    logging.getLogger("sayiir.worker").addHandler(ear)
    try:
        async with asyncio.timeout(LONG):
            await said.wait()
    finally:
        logging.getLogger("sayiir.worker").removeHandler(ear)


async def stored(backend: Backend, instance_id: str) -> list[bytes]:
    """Every payload that is stored of an instance now."""
    rows = [row.step.output for row in await backend.history(instance_id)]
    found = [await backend.input(instance_id), (await backend.get(instance_id)).output, *rows]
    return [payload for payload in found if payload is not None]


async def run(backend: Backend, value: Any) -> WorkflowClient:
    """One instance from end to end, of every kind of node."""
    client = WorkflowClient(backend)
    async with Worker(backend, [FLOW], concurrency=4):
        handle = await client.submit(FLOW, "i", value)
        await client.send_event("i", "go", value)
        assert repr(await handle.result(LONG)) == repr(value)
    return client


@pytest.mark.parametrize("name", CODECS)
async def test_a_value_comes_through_every_kind_of_node(places: Places, name: str) -> None:
    codec = CODECS[name]()
    backend = coded(places, codec)
    client = await run(backend, RICH)
    assert repr(await client.result("i")) == repr(RICH)
    assert repr((await client.status("i")).output) == repr(RICH)
    assert repr(await client.get_task_result("i", "each[1]")) == repr(RICH)
    assert repr(await client.get_task_result("i", "first")) == repr(RICH)
    assert {info.outcome for info in await client.history("i")} == {"completed", "elapsed"}
    again = await client.submit(FLOW, "i", None, conflict_policy="use_existing")
    assert repr(again.output) == repr(RICH)
    payloads = await stored(backend, "i")
    assert len(payloads) > 12
    wanted = {"zstd": 1, "keys": 2, "all": 4, "own": 4}.get(name, 0)
    assert {payload[7] for payload in payloads if len(payload) > 60} == {wanted}


@pytest.mark.parametrize("name", ["json", "all"])
async def test_without_a_worker_it_is_the_same(places: Places, name: str) -> None:
    backend = coded(places, CODECS[name]())
    short = Flow("short").then(echo).map(echo).build()
    assert await run_workflow_async(short, [1, (2,)], backend=backend) == [1, (2,)]
    asks = Flow("asks").wait_for_event("go").then(echo).build()
    status = await run_durable_workflow_async(asks, "asks", None, backend)
    assert status.signal_name == "go"
    await WorkflowClient(backend).send_event("asks", "go", {"a": (1,)})
    assert (await resume_workflow_async(asks, "asks", backend)).output == {"a": (1,)}


@pytest.mark.parametrize("name", ["all", "pickle"])
async def test_processes_are_given_values_and_give_them_back(name: str) -> None:
    backend = InMemoryBackend(codec=CODECS[name]())
    flow = Flow("elsewhere").then(tasks_for_processes.echo).build()
    async with Worker(backend, flow, processes=1):
        value = fractions.Fraction(1, 3) if name == "pickle" else (1,)
        handle = await WorkflowClient(backend).submit(flow, "i", value)
        assert await handle.result(LONG) == value


# What SQL sees.


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_json_can_be_read_in_sql(kind: str) -> None:
    # As in docs/codecs.md.
    async with Places(kind) as places:
        backend = coded(places, Codec("json"))
        await finished(backend, {"greeting": "hé\n", "at": [1]})
        if isinstance(backend, SqliteBackend):
            asked = (
                "SELECT i.id, CAST(substr(s.output, 13) AS TEXT) ->> 'greeting' FROM steps s "
                "JOIN instances i USING (instance) WHERE substr(s.output, 7, 2) = x'0200'"
            )
            with closing(sqlite3.connect(backend.path)) as database:
                assert database.execute(asked).fetchall() == [("i", "hé\n")]
        else:
            assert isinstance(backend, PostgresBackend)
            schema = backend.schema
            asked = (
                "SELECT i.id, convert_from(substr(s.output, 13), 'UTF8')::json ->> 'greeting' "
                f"FROM {schema}.steps s JOIN {schema}.instances i USING (instance) "
                "WHERE substr(s.output, 7, 2) = '\\x0200'"
            )
            url = server.required(swift=True).url()
            async with await psycopg.AsyncConnection.connect(url) as connection:
                cursor = await connection.execute(asked.encode())
                assert await cursor.fetchall() == [("i", "hé\n")]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_nothing_of_a_value_is_in_the_clear(kind: str) -> None:
    async with Places(kind) as places:
        backend = coded(places, Codec("json", keys=RING))
        await run(backend, "secret word")
        for payload in await stored(backend, "i"):
            assert b"secret word" not in payload
        if isinstance(backend, SqliteBackend):
            folder = Path(backend.path).parent
            for file in folder.iterdir():
                assert b"secret word" not in file.read_bytes()


async def test_swapped_rows_are_refused_by_postgres_too() -> None:
    async with Places("postgres") as places:
        backend = coded(places, Codec(keys=RING))
        assert isinstance(backend, PostgresBackend)
        flow = Flow("parked").then(echo, name="a").wait_for_event("go").then(echo, name="b").build()
        for name in ("i", "j"):
            await run_durable_workflow_async(flow, name, name, backend)
        schema = backend.schema
        swap = (
            f"UPDATE {schema}.steps s SET output = o.output FROM {schema}.steps o "
            "WHERE s.path = 'a' AND o.path = 'a' AND s.instance <> o.instance"
        )
        inputs = (
            f"UPDATE {schema}.inputs s SET input = o.input FROM {schema}.inputs o "
            "WHERE s.instance <> o.instance"
        )
        url = server.required(swift=True).url()
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute(swap.encode())
            await connection.execute(inputs.encode())
        client = WorkflowClient(backend)
        with pytest.raises(DecodeError, match="copied from another instance"):
            await client.get_task_result("i", "a")


@pytest.mark.parametrize("name", ["json", "all"])
async def test_a_submit_in_a_transaction_is_stored_alike(name: str) -> None:
    async with Places("postgres") as places:
        backend = coded(places, CODECS[name]())
        flow = Flow("asks").wait_for_event("go").then(echo).build()
        client = WorkflowClient(backend)
        url = server.required(swift=True).url()
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await client.submit(flow, "i", RICH, connection=connection)
            await client.send_event("i", "go", RICH, connection=connection)
        assert (await backend.input("i"))[6:8] == {"json": b"\2\0", "all": b"\2\4"}[name]
        async with Worker(backend, flow):
            assert repr(await client.result("i", LONG)) == repr(RICH)


# What was stored before.


async def test_every_setting_reads_what_others_stored(places: Places) -> None:
    first = coded(places, None)
    flow = Flow("parked").then(echo, name="a").wait_for_event("go").then(echo, name="b").build()
    settings: list[Codec | None] = [None, *(CODECS[name]() for name in ("json", "zstd", "keys"))]
    for number, codec in enumerate(settings):
        backend = first if places.kind in ("memory", "python") else places.again(first)
        backend.codec = codec  # type: ignore[attr-defined]
        await run_durable_workflow_async(flow, f"i-{number}", [number, RICH], backend)
    # The last one has keys and no more; it goes on with all of them.
    client = WorkflowClient(backend)
    async with Worker(backend, flow):
        for number in range(len(settings)):
            await client.send_event(f"i-{number}", "go", [number, RICH])
            assert repr(await client.result(f"i-{number}", LONG)) == repr([number, RICH])
            assert repr(await client.get_task_result(f"i-{number}", "a")) == repr([number, RICH])


async def test_a_key_is_rotated_while_instances_are_under_way(places: Places) -> None:
    backend = coded(places, Codec(keys=KeyRing({"old": OLD})))
    flow = Flow("parked").then(echo, name="a").wait_for_event("go").then(echo, name="b").build()
    await run_durable_workflow_async(flow, "i", RICH, backend)
    backend.codec = Codec(keys=KeyRing({"old": OLD, "new": NEW}, "new"))  # type: ignore[attr-defined]
    client = WorkflowClient(backend)
    async with Worker(backend, flow):
        await client.send_event("i", "go", RICH)
        assert repr(await client.result("i", LONG)) == repr(RICH)
    assert repr(await client.get_task_result("i", "a")) == repr(RICH)
    ids = {payload[13:16] for payload in await stored(backend, "i")}
    assert ids == {b"old", b"new"}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", ["json", "all", "zstd"])
async def test_what_was_interrupted_goes_on_in_another_process(kind: str, name: str) -> None:
    bodies: list[str] = []

    def stops(value: Any) -> Any:
        bodies.append("stops")
        if len(bodies) == 2:
            raise KeyboardInterrupt
        return value

    def begins(value: Any) -> Any:
        bodies.append("begins")
        return value

    flow = Flow("stopped").then(begins).then(stops).map(echo).build()
    async with Places(kind) as places:
        codec = CODECS[name]()
        backend = coded(places, codec)
        with pytest.raises(KeyboardInterrupt):
            await run_workflow_async(flow, [RICH], instance_id="i", backend=backend)
        other = places.again(backend)
        other.codec = codec
        status = await resume_workflow_async(flow, "i", other)
        assert repr(status.output) == repr([RICH])
        assert bodies == ["begins", "stops", "stops"]


# Keys.


async def finished(backend: Backend, value: Any, name: str = "i") -> None:
    flow = Flow("short").then(echo, name="a").build()
    await run_workflow_async(flow, value, instance_id=name, backend=backend)


async def unreadable(backend: Backend, codec: Codec | None, name: str = "i") -> str:
    """What is said when a result cannot be read under another setting; the status never raises."""
    backend.codec = codec  # type: ignore[attr-defined]
    client = WorkflowClient(backend)
    status = await client.status(name)
    assert status.is_completed()
    with pytest.raises(DecodeError) as refused:
        await client.result(name)
    with pytest.raises(DecodeError):
        await client.get_task_result(name, "a")
    return str(refused.value)


async def test_without_the_key_it_is_said_which_one_is_missing(places: Places) -> None:
    backend = coded(places, Codec(keys=KeyRing({"old": OLD})))
    await finished(backend, "secret word")
    said = await unreadable(backend, None)
    assert "'old'" in said
    assert "the output of instance 'i'" in said
    assert "codec=Codec(keys=…)" in said
    said = await unreadable(backend, Codec(keys=RING))
    assert "it is encrypted with key 'old'" in said
    assert "keys= raised KeyError when it was asked for that one; give it that key" in said
    said = await unreadable(backend, Codec(keys=KeyRing({"old": NEW})))
    assert "the key that goes by the id 'old' here is not the one" in said
    said = await unreadable(backend, Codec(keys=lambda key_id: ("other", NEW)))
    assert "keys= gave another" in said
    assert "secret word" not in said
    assert repr(NEW)[2:20] not in said


async def test_a_worker_without_the_key_leaves_the_instance_to_one_that_has_it(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    codec = Codec(keys=RING)
    backend = coded(places, codec)
    flow = Flow("short").then(echo).build()
    await WorkflowClient(backend).submit(flow, "i", "secret word")
    backend.codec = Codec(keys=KeyRing({"new": OLD}))  # type: ignore[attr-defined]
    async with Worker(backend, flow, concurrency=1, poll_interval="50ms"):
        await logged("is not the one that it was encrypted with")
    assert (await backend.get("i")).status == "in_progress"
    backend.codec = codec  # type: ignore[attr-defined]
    async with Worker(backend, flow):
        assert await WorkflowClient(backend).result("i", LONG) == "secret word"
    assert "secret word" not in caplog.text


def altered_to_give(taken: dict[str, bytes]) -> type:
    """A backend whose stored payloads somebody has replaced by those of other places."""

    class Swapped(Altered):
        async def get(self, instance_id: str) -> Any:
            row = await super().get(instance_id)
            row.output = taken.get("output", row.output)
            return row

        async def step(self, instance_id: str, path_or_name: str) -> Any:
            row = await super().step(instance_id, path_or_name)
            assert row is not None
            return StepRow(
                row.seq,
                row.path,
                row.name,
                row.attempt,
                row.outcome,
                output=taken.get("step", row.output),
                started_at=row.started_at,
                ended_at=row.ended_at,
            )

    return Swapped


@pytest.mark.parametrize("kind", ["python", "sqlite"])
async def test_a_payload_opens_in_its_place_only(kind: str) -> None:
    taken: dict[str, bytes] = {}
    async with Places(kind) as places:
        backend = coded(places, Codec(keys=RING), altered_to_give(taken))
        await finished(backend, "one", "i")
        await finished(backend, "two", "j")
        client = WorkflowClient(backend)
        rows = {row.step.path: row.step.output for row in await backend.history("j")}
        other, step = (await backend.get("j")).output, rows["a"]
        assert other is not None
        assert step is not None
        for payload in (other, step, await backend.input("i")):
            taken["output"] = payload
            with pytest.raises(DecodeError, match="changed, or copied from another instance"):
                await client.result("i")
            assert (await client.status("i")).is_completed()
        taken["step"] = (await backend.get("i")).output or b""
        with pytest.raises(DecodeError, match="the output of step 'a' of instance 'i' cannot"):
            await client.get_task_result("i", "a")
        taken.clear()
        assert await client.result("i") == "one"


async def test_an_event_of_another_instance_fails_the_step_that_takes_it(places: Places) -> None:
    events: list[bytes] = []

    class Copied(Altered):
        async def send_event(
            self, instance_id: str, name: str, payload: bytes, key: str | None
        ) -> bool:
            events.append(payload)
            return await super().send_event(instance_id, name, events[0], key)

    backend = coded(places, Codec(keys=RING), Copied)
    client = WorkflowClient(backend)
    asks = Flow("asks").wait_for_event("go").then(echo, name="a").build()
    async with Worker(backend, asks):
        for name in ("i", "j"):
            await client.submit(asks, name, None)
            await client.send_event(name, "go", name)
        assert await client.result("i", LONG) == "i"
        with pytest.raises(WorkflowFailed) as failed:
            await client.result("j", LONG)
    assert failed.value.status.error_type == "DecodeError"
    assert failed.value.status.error is not None
    assert "the payload of event 'go' for instance 'j' cannot be read" in failed.value.status.error


async def test_every_bit_of_an_encrypted_payload_counts() -> None:
    codec = Codec(keys=RING).at_rest
    whole = codec.encode([1, "two"], "i", "step", "a/b")
    assert codec.decode(whole, "i", "step", "a/b") == [1, "two"]
    for place in [
        ("j", "step", "a/b"),
        ("i", "event", "a/b"),
        ("i", "step", "a"),
        ("i", "input", ""),
    ]:
        with pytest.raises(DecodeError, match="copied from another instance or step"):
            codec.decode(whole, *place)
    for at in range(len(whole)):
        for bit in range(8):
            bad = bytearray(whole)
            bad[at] ^= 1 << bit
            with pytest.raises(DecodeError):
                codec.decode(bytes(bad), "i", "step", "a/b")
            if not 8 <= at < 12:
                with pytest.raises(DecodeError):
                    codec.decode(resealed(bytes(bad)), "i", "step", "a/b")
    for end in range(len(whole)):
        with pytest.raises(DecodeError):
            codec.decode(whole[:end], "i", "step", "a/b")
        with pytest.raises(DecodeError):
            codec.decode(resealed(whole[:end]), "i", "step", "a/b")


def resealed(data: bytes) -> bytes:
    """With the right checksum, as somebody would write it who means harm."""
    return data[:8] + struct.pack("<I", zlib.crc32(data[4:8] + data[12:])) + data[12:]


def test_no_two_payloads_are_encrypted_alike() -> None:
    codec = Codec(keys=RING).at_rest
    assert len({codec.encode(1, "i", "input", "") for _ in range(100)}) == 100


async def test_a_function_gives_the_keys_and_is_asked_by_id_once() -> None:
    asked: list[str | None] = []

    def keys(key_id: str | None) -> tuple[str, bytes]:
        asked.append(key_id)
        return "k", OLD

    writer = Codec(keys=keys)
    payload = writer.at_rest.encode(1, "i", "input", "")
    reader = Codec(keys=keys)
    asked.clear()
    for _ in range(3):
        assert reader.at_rest.decode(payload, "i", "input", "") == 1
    assert asked == ["k"]


async def test_keys_that_fail_store_nothing(places: Places) -> None:
    given = [("k", OLD)]

    def keys(key_id: str | None) -> tuple[str, bytes]:
        return given[0]

    backend = coded(places, Codec(keys=keys))
    client = WorkflowClient(backend)
    given.clear()
    flow = Flow("short").then(echo).build()
    with pytest.raises(EncodeError, match="keys= raised IndexError when it was asked"):
        await client.submit(flow, "i", 1)
    assert (await client.list_instances()).items == ()
    given.append(("k", b"short"))
    with pytest.raises(EncodeError, match="raised ValueError"):
        await client.send_event("i", "go", 1)


# Pickles.


async def test_a_pickle_stands_for_what_has_no_other_form(places: Places) -> None:
    third = fractions.Fraction(1, 3)
    backend = coded(places, with_pickles())
    client = await run(backend, {"kept": [third, (1,)], third: {third}})
    assert await client.get_task_result("i", "first") == {"kept": [third, (1,)], third: {third}}
    payload = await backend.input("i")
    assert payload[6] == 3
    # Nobody unpickles by surprise.
    with pytest.raises(DecodeError, match="is a pickle, and reading one may run any code"):
        decode_payload(payload)
    backend.codec = None  # type: ignore[attr-defined]
    with pytest.raises(DecodeError, match=r"codec=Codec\(pickle=\"read\"\)"):
        await WorkflowClient(backend).get_task_result("i", "first")
    backend.codec = with_pickles("read")  # type: ignore[attr-defined]
    reader = WorkflowClient(backend)
    assert await reader.get_task_result("i", "first") == {"kept": [third, (1,)], third: {third}}
    with pytest.raises(EncodeError, match=r"of type fractions\.Fraction"):
        await reader.submit(FLOW, "j", third)
    with pytest.raises(EncodeError, match=r"of type fractions\.Fraction"):
        encode_payload(third)


async def test_a_worker_that_may_not_read_pickles_leaves_them_alone(places: Places) -> None:
    backend = coded(places, with_pickles())
    flow = Flow("short").then(str).build()
    await WorkflowClient(backend).submit(flow, "i", fractions.Fraction(1, 3))
    backend.codec = Codec("json")  # type: ignore[attr-defined]
    async with Worker(backend, flow, concurrency=1, poll_interval="50ms"):
        await logged("it is a pickle")
    assert (await backend.get("i")).status == "in_progress"
    backend.codec = with_pickles()  # type: ignore[attr-defined]
    async with Worker(backend, flow):
        assert await WorkflowClient(backend).result("i", LONG) == "1/3"


def test_pickles_stay_readable_in_json() -> None:
    codec = with_pickles(format="json").at_rest
    payload = codec.encode([fractions.Fraction(1, 3)], "i", "input", "")
    assert payload[12:].startswith(b'[{"$pickle":"')
    assert codec.decode(payload, "i", "input", "") == [fractions.Fraction(1, 3)]
    with pytest.raises(DecodeError, match="is a pickle"):
        Codec("json").at_rest.decode(payload, "i", "input", "")
    with pytest.raises(EncodeError, match="and pickle refuses it too"):
        codec.encode(lambda: 1, "i", "input", "")


def test_a_pickle_that_cannot_be_read_is_a_decode_error() -> None:
    codec = with_pickles().at_rest
    payload = bytearray(codec.encode(fractions.Fraction(1, 3), "i", "input", ""))
    payload[-3:] = b"\xff\xff\xff"
    with pytest.raises(DecodeError, match="Python builds no pickle from it"):
        codec.decode(resealed(bytes(payload)), "i", "input", "")


# One's own.


async def test_a_codec_of_ones_own_is_told_where_it_is(places: Places) -> None:
    own = Reversed()
    assert isinstance(own, PayloadCodec)
    backend = coded(places, checked_codec(own))
    await run(backend, 5)
    assert {Place("i", "input"), Place("i", "output"), Place("i", "step", "first")} <= set(
        own.places
    )
    assert Place("i", "event", "go") in own.places
    said = "it went through a codec of your own with the id 7"
    for codec in (None, Codec("json")):
        backend.codec = codec  # type: ignore[attr-defined]
        with pytest.raises(DecodeError, match=said):
            await WorkflowClient(backend).result("i")


@pytest.mark.parametrize("answer", [None, "text", b"", b"nothing of ours"])
def test_a_codec_of_ones_own_that_gives_nonsense_is_named(answer: Any) -> None:
    class Broken(Reversed):
        def decode(self, payload: bytes, place: Place) -> bytes:
            made: bytes = answer
            return made

    codec = Codec(own=Broken()).at_rest
    payload = codec.encode(1, "i", "input", "")
    with pytest.raises(DecodeError, match=r"decode\(\) of the codec with the id 7"):
        codec.decode(payload, "i", "input", "")

    class Mute(Reversed):
        def encode(self, payload: bytes, place: Place) -> bytes:
            raise OSError("the bucket is gone")

    with pytest.raises(EncodeError, match=r"encode\(\) of the codec with the id 7 raised OSError"):
        Codec(own=Mute()).at_rest.encode(1, "i", "input", "")


# Arguments.


def without_any(key_id: str | None) -> tuple[str, bytes]:
    raise KeyError(key_id)


async def in_no_time(_: str | None) -> tuple[str, bytes]:
    return "k", OLD


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Codec(1), TypeError, "format must be a str"),  # type: ignore[arg-type]
        (lambda: Codec("pickle"), ValueError, "for pickles say pickle=True"),  # type: ignore[arg-type]
        (lambda: Codec(compress_above=-1), ValueError, "compress_above must be 0 to"),
        (lambda: Codec(compress_above=True), TypeError, "compress_above must be a number"),
        (lambda: Codec(compress_above=1.5), TypeError, "compress_above must be"),  # type: ignore[arg-type]
        (lambda: Codec(keys={"a": OLD}), TypeError, "write KeyRing"),  # type: ignore[arg-type]
        (lambda: Codec(keys="key"), TypeError, "keys must be a KeyRing or a function"),  # type: ignore[arg-type]
        (lambda: Codec(keys=lambda _: OLD), TypeError, "must give"),  # type: ignore[arg-type,return-value]
        (lambda: Codec(keys=lambda _: ("k", b"12")), ValueError, "must be 32 bytes, got 2"),
        (lambda: Codec(keys=without_any), ValueError, "and raised KeyError"),
        (lambda: Codec(keys=in_no_time), TypeError, "keys must be a plain function, got an async"),  # type: ignore[arg-type]
        (lambda: InMemoryBackend(codec=RING), TypeError, r"write Codec\(keys=…\)"),  # type: ignore[arg-type]
        (lambda: Codec(pickle="yes"), ValueError, "pickle must be"),  # type: ignore[arg-type]
        (lambda: Codec(own=3), TypeError, "own must have id, encode and decode"),  # type: ignore[arg-type]
        (lambda: Codec(own=Reversed), TypeError, "own must have"),  # type: ignore[arg-type]
        (lambda: KeyRing({}), ValueError, "must not be empty"),
        (lambda: KeyRing([OLD]), TypeError, "keys must be a dict"),  # type: ignore[arg-type]
        (lambda: KeyRing({"a": OLD, "b": NEW}), ValueError, "current must say"),
        (lambda: KeyRing({"a": OLD}, "b"), ValueError, "current must be the id of one"),
        (lambda: KeyRing({"": OLD}), ValueError, "1 to 64 bytes"),
        (lambda: KeyRing({"ä" * 33: OLD}), ValueError, "1 to 64 bytes"),
        (lambda: KeyRing({1: OLD}), TypeError, "id of a key must be a str"),  # type: ignore[dict-item]
        (lambda: KeyRing({"a": "b"}), TypeError, "key 'a' must be bytes"),  # type: ignore[dict-item]
        (lambda: InMemoryBackend(codec="json"), TypeError, r"write Codec\('json'\)"),  # type: ignore[arg-type]
        (lambda: connect("memory://", codec=Codec), TypeError, "got the class Codec"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_is_named(
    make: Callable[[], Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        make()
    assert base64.b64encode(OLD).decode() not in str(refused.value)
    assert repr(OLD)[2:20] not in str(refused.value)


def test_the_limits_are_inside() -> None:
    assert KeyRing({"ä" * 32: OLD})(None) == ("ä" * 32, OLD)
    codec = Codec(compress_above=0, keys=KeyRing({"ä" * 32: OLD})).at_rest
    assert codec.decode(codec.encode([1], "i", "input", ""), "i", "input", "") == [1]
    assert repr(Codec(compress_above=64 << 20)) == "<Codec msgpack, zstd above 67108864 bytes>"


def test_nothing_shows_a_key() -> None:
    ring = KeyRing({"a": OLD, "b": NEW}, "b")
    assert repr(ring) == "<KeyRing a, b (current)>"
    codec = Codec("json", compress_above=9, keys=ring, own=Reversed())
    assert repr(codec) == "<Codec json, zstd above 9 bytes, AES-256-GCM, own codec 7>"


def test_a_url_a_client_and_a_program_without_a_loop_take_one(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/work.db"
    flow = Flow("short").then(echo).build()
    with SyncWorkflowClient.from_url(url, codec=Codec(keys=RING)) as client:
        handle = client.submit(flow, "i", "secret word")
        run = resume_workflow_async(flow, "i", client.backend)
        asyncio.run(run)
        assert handle.result() == "secret word"
    for file in tmp_path.iterdir():
        assert b"secret word" not in file.read_bytes()
    backend = connect(url)
    assert isinstance(backend, StorageBackend)
    assert backend.codec is None
    asyncio.run(backend.close())


def test_a_failed_task_is_told_as_ever() -> None:
    def fails(_: Any) -> None:
        context = get_task_context()
        assert context is not None
        raise ValueError("no funds")

    backend = InMemoryBackend(codec=Codec("json", keys=RING))
    with pytest.raises(TaskError, match="no funds"):
        run_workflow(Flow("fails").then(fails).build(), 1, backend=backend)


def test_asking_for_pickles_warns_and_nothing_else_does() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Codec("json", compress_above=1, keys=RING)
        Codec(pickle=True)
        Codec(pickle="read")
    assert [one.category for one in caught] == [PickleWarning, PickleWarning]
    assert caught[0].filename == __file__
