"""Bytes of every released format: they load, they mean what they meant, and the header is frozen.

Each file under `golden/` is read with the code of today. What `golden/layout.py` and the codec
write today is the same bytes again, where there is only one way to write a thing, and the worked
examples of `docs/format.md` are these files. Positions and definitions are read by the engine
alone: what they mean is checked by `rust/core/tests/golden`, that they are what the page says is
checked here.
"""

import asyncio
import hashlib
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.golden import layout
from tests.golden.cases import CASES, PLACE, SNAPSHOTS, reader
from tests.golden.flows import FLOWS, ITEMS
from tests.golden.write import HERE, entry, manifests, write

from sayiir import (
    DecodeError,
    EventTimeout,
    InMemoryBackend,
    LoopResult,
    MapError,
    SnapshotFormatError,
    SqliteBackend,
    SyncWorkflowClient,
)
from sayiir._core import (
    Claim,
    Claimant,
    Run,
    Step,
    Turn,
    decode_error_record,
    decode_payload,
    decode_value,
    encode_payload,
    encode_value,
)
from sayiir.codec import decode_snapshot, encode_snapshot
from sayiir.testing import HandWorker, new_instance

STATUSES = (
    *("in_progress", "waiting", "awaiting_signal", "paused"),
    *("completed", "failed", "cancelled"),
)
"""By their numbers."""
TREES = "SELECT hash, tree FROM definitions"
PAGE = HERE.parent.parent / "docs" / "format.md"
FILES = [
    (folder / name, about)
    for folder, manifest in manifests().items()
    for name, about in manifest["files"].items()
]
KINDS = {
    1: "value",
    2: "named",
    3: "list",
    4: "branch",
    5: "error",
    6: "cell",
    7: "definition",
    8: "snapshot",
    9: "items",
}


def file_id(parameter: object) -> str | None:
    return f"{parameter.parent.name}/{parameter.stem}" if isinstance(parameter, Path) else None


each_file = pytest.mark.parametrize(("path", "about"), FILES, ids=file_id)


def decode(data: bytes) -> Any:
    """What Python reads of a file: a value, or the fields of an error record."""
    if data[5] == layout.ERROR:
        return decode_error_record(data)
    if data[6] > layout.MSGPACK or data[7]:
        return reader().at_rest.decode(data, *PLACE)
    return decode_payload(data)


def resealed(data: bytes, **header: int) -> bytes:
    """The same body behind a header that says something else, with the right checksum."""
    about = bytearray(data[4:8])
    for name, number in header.items():
        about[("version", "kind", "codec", "flags").index(name)] = number
    sum_ = struct.pack("<I", zlib.crc32(bytes(about) + data[12:]))
    return data[:4] + bytes(about) + sum_ + data[12:]


def test_every_folder_holds_what_its_manifest_says() -> None:
    assert HERE / "v1" in manifests()
    for folder, manifest in manifests().items():
        assert {path.name for path in folder.glob("*.bin")} == set(manifest["files"]), folder
        assert manifest["format_version"] in range(1, layout.VERSION + 1), folder


@each_file
def test_a_file_is_what_the_manifest_says(path: Path, about: dict[str, Any]) -> None:
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == about["sha256"], "a frozen file has changed"
    assert about == entry(CASES[path.stem], data)


@each_file
def test_the_header_is_frozen_byte_by_byte(path: Path, about: dict[str, Any]) -> None:
    data = path.read_bytes()
    assert data[:4] == b"SYRS"
    assert data[4] == 1
    assert data[5] == about["kind"]
    assert data[6] == about["codec"]
    assert data[7] == about.get("flags", 0)
    if not path.stem.startswith("rest-"):
        assert data[6] == (1 if about["kind"] == 1 else 0)
        assert data[7] == 0
    assert data[8:12] == struct.pack("<I", zlib.crc32(data[4:8] + data[12:]))
    prefix = path.stem.partition("-")[0]
    families = {"engine": "value", "foreign": "value", "rest": "value", "composite": "named"}
    family = families.get(prefix, prefix)
    assert family == KINDS[data[5]]


@each_file
def test_a_file_means_what_it_meant(path: Path, about: dict[str, Any]) -> None:
    if about["kind"] in (layout.CELL, layout.DEFINITION, layout.SNAPSHOT, layout.ITEMS):
        with pytest.raises(DecodeError, match=f"kind {about['kind']}, codec 0"):
            decode_payload(path.read_bytes())
        return
    found = decode(path.read_bytes())
    # The text tells apart what equality does not: True, 1 and 1.0, a fold, an exponent, NaN.
    assert repr(found) == repr(CASES[path.stem].means)


@each_file
def test_the_same_is_written_today(path: Path, about: dict[str, Any]) -> None:
    data = path.read_bytes()
    if data[4] != layout.VERSION:
        return  # Old formats are read, not written.
    assert CASES[path.stem].write() == data
    if path.stem.startswith("value-"):
        assert encode_payload(decode_payload(data)) == data


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_an_instance_comes_out_of_a_frozen_snapshot_and_goes_back(name: str) -> None:
    data = CASES[f"snapshot-{name}"].write()
    snapshot = decode_snapshot(data)
    assert encode_snapshot(snapshot) == data
    with SyncWorkflowClient(InMemoryBackend()) as client:
        client.import_(data)
        status = client.status("i-1")
        assert status.status == snapshot.status == STATUSES[SNAPSHOTS[name][1]["status"]]
        # In memory the moment of a key whose event was consumed is not kept.
        kept = decode_snapshot(client.export("i-1"))
        events = [(one.name, one.key, one.payload) for one in snapshot.events]
        assert [(one.name, one.key, one.payload) for one in kept.events] == events
        assert kept.replace(events=()) == snapshot.replace(events=())


def test_every_case_is_frozen() -> None:
    frozen = {path.stem for path, _ in FILES if path.read_bytes()[4] == layout.VERSION}
    assert frozen == set(CASES), "freeze it: see tests/golden/write.py"


@pytest.mark.parametrize("name", FLOWS)
def test_the_hash_of_a_flow_is_frozen(name: str) -> None:
    workflow, file = FLOWS[name], f"definition-{name}.bin"
    frozen = [
        manifest["files"][file]["definition_hash"]
        for manifest in manifests().values()
        if file in manifest["files"]
    ]
    assert {workflow.definition_hash} == set(frozen) == {layout.fingerprint(workflow)}


@pytest.mark.parametrize("name", ITEMS)
def test_the_hash_of_what_items_run_is_frozen(name: str) -> None:
    flow, maps = ITEMS[name]
    frozen = [
        manifest["files"][f"{name}.bin"]["definition_hash"]
        for manifest in manifests().values()
        if f"{name}.bin" in manifest["files"]
    ]
    made = FLOWS[flow].program.items[0]
    for _ in maps[1:]:
        made = made.items[0]
    assert {made.definition_hash} == set(frozen) == {layout.fingerprint(FLOWS[flow], *maps)}


def test_a_store_keeps_the_frozen_bytes_of_what_items_run(tmp_path: Path) -> None:
    workflow = FLOWS["spread-nested"]

    async def main() -> None:
        backend = SqliteBackend(tmp_path / "store.db")
        await backend.submit([new_instance(workflow, "i", [[1]])], "fail")
        worker = HandWorker(backend, [workflow])
        for _ in range(2):
            assert len(await worker.claim(10)) == 1
        await backend.close()

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        trees = {hash_.hex(): tree for hash_, tree in connection.execute(TREES)}
    case = CASES["items-nested"]
    assert case.workflow is not None
    assert trees[case.workflow.definition_hash] == case.write()
    assert trees[workflow.definition_hash] == CASES["definition-spread-nested"].write()
    assert len(trees) == 3


# What is refused, and how it is said.


@each_file
def test_a_newer_version_is_refused_by_its_number(path: Path, about: dict[str, Any]) -> None:
    newer = resealed(path.read_bytes(), version=2)
    for read in (decode_payload, decode_error_record):
        with pytest.raises(DecodeError, match="format version 2 is newer than this program's 1"):
            read(newer)


@each_file
def test_damage_in_the_header_is_seen(path: Path, about: dict[str, Any]) -> None:
    data = path.read_bytes()
    readers = (decode_payload, decode_error_record)
    for at in range(12):
        for bit in range(8):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            for read in readers:
                with pytest.raises(DecodeError):
                    read(bytes(bad))
    for read in readers:
        with pytest.raises(DecodeError, match="SYRS is missing"):
            read(data[:11])


def test_unknown_kinds_codecs_and_flags_are_refused() -> None:
    data = layout.sealed(layout.VALUE, layout.MSGPACK, b"\x01")
    assert decode_payload(resealed(data)) == 1
    for header in ({"kind": 0}, {"kind": 8}, {"kind": 255}, {"codec": 0}, {"codec": 2}):
        with pytest.raises(DecodeError, match="hold no value that this program can read"):
            decode_payload(resealed(data, **header))
    with pytest.raises(DecodeError):
        decode_payload(resealed(data, flags=1))


def take_up(cursor: bytes) -> Step | Turn | int:
    """What an instance whose position is this does first."""
    workflow = FLOWS["task"]
    claimant = Claimant("w", [workflow.program])
    claim = Claim("i", 1, workflow.definition_hash, cursor=cursor)
    return Run(claimant, claim, [], encode_payload("input"), 0.0).attend(0.0)


def test_an_instance_is_taken_up_from_a_frozen_position() -> None:
    step = take_up((HERE / "v1" / "cell-ready.bin").read_bytes())
    assert isinstance(step, Step)
    assert step.input == "input"


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (encode_payload("input"), "expected a position, found an envelope of kind 1"),
        (b"SQLite format 3\0", "the mark SYRS is missing"),
    ],
    ids=["another kind", "foreign"],
)
def test_a_position_that_cannot_be_read_sets_its_instance_aside(cursor: bytes, reason: str) -> None:
    turn = take_up(cursor)
    assert isinstance(turn, Turn)
    assert turn.commit is not None
    assert turn.commit.next == "failed"
    assert turn.commit.result is not None
    record = decode_error_record(turn.commit.result)
    assert record["error_type"] == "SnapshotFormatError"
    assert reason in record["message"]


def test_a_position_of_a_newer_version_is_left_to_a_newer_worker() -> None:
    with pytest.raises(SnapshotFormatError, match="format version 2 is newer"):
        take_up(resealed(CASES["cell-ready"].write(), version=2))


# The numbers of the value codec.


@pytest.mark.parametrize(
    ("code", "value", "body"),
    [
        (1, 2**64, "010000000000000000"),
        (2, (1, "a"), "9201a161"),
        (3, {1}, "9101"),
        (4, frozenset({1}), "9101"),
        (5, datetime(2024, 2, 29, 1, 2, 3, 4), "07e8021d0102030000040000"),
        (6, date(2024, 2, 29), "07e8021d"),
        (7, time(1, 2, 3, 4), "0102030000040000"),
        (8, timedelta(1, 2, 3), "000000010000000200000003"),
        (9, Decimal("1E+9"), "31452b39"),
        (10, UUID(int=7), "00000000000000000000000000000007"),
        (16, LoopResult.done(5), "92c305"),
        (17, EventTimeout("go"), "91a2676f"),
        (18, MapError(1, "E", "m", "p"), "9401a145a16da170"),
    ],
)
def test_the_code_and_body_of_an_extension_are_frozen(code: int, value: Any, body: str) -> None:
    content = bytes.fromhex(body)
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(len(content))
    head = bytes([0xC7, len(content), code] if fixed is None else [fixed, code])
    assert encode_value(value) == head + content
    assert decode_value(head + content) == value


def test_codes_that_are_free_are_refused() -> None:
    known = {*range(1, 11), 16, 17, 18, 19}
    for code in set(range(256)) - known:
        with pytest.raises(DecodeError, match=r"extension code -?[0-9]+ is not known"):
            decode_value(bytes([0xD4, code, 0]))


# The page.

EXAMPLE = re.compile(r"^```hex (\S+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, bytes]]:
    """Each worked example: the file it spells out, and its bytes without the remarks."""
    for name, lines in EXAMPLE.findall(PAGE.read_text(encoding="utf-8")):
        yield name, bytes.fromhex("".join(line.partition("#")[0] for line in lines.splitlines()))


@pytest.mark.parametrize(("name", "data"), list(examples()))
def test_a_worked_example_of_the_page_is_a_frozen_file(name: str, data: bytes) -> None:
    assert data == (HERE / name).read_bytes()


def test_the_page_works_out_an_example_of_each_kind() -> None:
    assert {data[5] for _, data in examples()} == set(KINDS)


def test_the_hash_worked_out_on_the_page_is_the_frozen_one() -> None:
    text = PAGE.read_text(encoding="utf-8")
    hashed, found = re.findall(r"^```hash\n(.*?)^([0-9a-f]{64})$", text, re.MULTILINE | re.DOTALL)[
        0
    ]
    data = bytes.fromhex("".join(line.partition("#")[0] for line in hashed.splitlines()))
    assert hashlib.sha256(data).hexdigest() == found == FLOWS["task"].definition_hash


# The script that freezes.


def test_a_frozen_folder_is_never_written_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="v1 is frozen already"):
        write(HERE / "v1")
    with pytest.raises(SystemExit, match="every case is frozen already"):
        write(tmp_path / "v2")
    assert not (tmp_path / "v2").exists()


def test_what_is_new_is_frozen_in_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.golden.write.manifests", dict)
    assert write(tmp_path / "v1") == len(CASES)
    for path, _ in FILES:
        if path.parent.name == "v1":
            assert (tmp_path / "v1" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(SystemExit, match="frozen already"):
        write(tmp_path / "v1")
