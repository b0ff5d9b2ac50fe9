"""What bytes are, told by `sayiir.codec.inspect`, `sayiir inspect` and `sayiir runs export`."""

from __future__ import annotations

import json
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.write import HERE

from sayiir import DecodeError, EncodeError, Flow, SqliteBackend, SyncWorkflowClient
from sayiir.cli import main
from sayiir.codec import decode_value, encode_snapshot, encode_value, inspect

SECRET = "canary-4711"
FILES = sorted(HERE.glob("*/*.bin"))
ASKING = Flow("asking").wait_for_event("answer").build()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("values", [False, True])
def test_everything_that_was_ever_frozen_is_told_apart(path: Path, values: bool) -> None:
    found = inspect(path.read_bytes(), values=values)
    assert (found.problem, found.checksum_ok, found.version) == (None, True, 1)
    assert found.size == path.stat().st_size
    prefix = path.stem.partition("-")[0]
    kinds = {"engine": "value", "foreign": "value", "composite": "named"}
    if prefix == "rest":
        assert "at_rest" in found.contents
        assert "value" not in found.contents
        return
    assert found.kind == kinds.get(prefix, prefix)
    assert found.contents
    assert json.loads(json.dumps(found.as_dict()))["kind"] == found.kind
    assert str(found).startswith(f"{found.kind}, ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: b"", "SYRS is missing"),
        (lambda data: b"PK\x03\x04", "SYRS is missing"),
        (lambda data: data[:8], "within the header"),
        (lambda data: data[:-1], "checksum"),
        (lambda data: data[:-1] + b"\x00", "checksum"),
    ],
)
def test_what_is_wrong_is_said(change: Any, problem: str) -> None:
    found = inspect(change(encode_value("text")))
    assert problem in str(found.problem)
    assert problem in str(found)


@given(st.binary(max_size=200), st.booleans())
def test_nothing_raises_whatever_the_bytes_are(junk: bytes, values: bool) -> None:
    for kind in range(12):
        about = bytes([1, kind, 1 if kind == 1 else 0, 0])
        sum_ = zlib.crc32(junk, zlib.crc32(about)).to_bytes(4, "little")
        found = inspect(b"SYRS" + about + sum_ + junk, values=values)
        assert found.checksum_ok
        assert found.problem or found.contents
    assert inspect(junk).problem


def test_values_are_shown_only_when_asked_for() -> None:
    with SyncWorkflowClient.from_url("memory://") as client:
        client.submit(ASKING, "i-1", {"key": SECRET})
        client.send_event("i-1", "answer", SECRET)
        data = client.export("i-1")
    for bytes_ in (data, encode_value([SECRET]), encode_value({SECRET: 1})):
        assert SECRET not in str(inspect(bytes_))
        assert SECRET not in json.dumps(inspect(bytes_).as_dict())
        assert SECRET in str(inspect(bytes_, values=True))
    long = inspect(encode_value("x" * 10_000), values=True)
    assert len(str(long)) < 500


def test_a_name_steers_no_terminal() -> None:
    flow = Flow("a\u202eb[2J").wait_for_event("go\u2028now").build()
    with SyncWorkflowClient.from_url("memory://") as client:
        client.submit(flow, "i-1")
        text = str(inspect(client.export("i-1")))
    assert "\u202e" not in text
    assert len(text.splitlines()) == len(text.split("\n"))


def test_wrong_arguments_of_the_codec() -> None:
    for call in (inspect, decode_value):
        with pytest.raises(TypeError, match="data must be bytes, got str"):
            call("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Snapshot"):
        encode_snapshot({})  # type: ignore[arg-type]
    with pytest.raises(EncodeError):
        encode_value(object())
    with pytest.raises(DecodeError):
        decode_value(b"SYRS")


def call(*arguments: str, code: int = 0, given: bytes | None = None) -> Result:
    result = CliRunner().invoke(main, list(arguments), input=given)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with one instance."""
    with SyncWorkflowClient(SqliteBackend(tmp_path / "a.db")) as client:
        client.submit(ASKING, "i-1", SECRET)
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_an_instance_goes_through_a_file(url: str, tmp_path: Path) -> None:
    file, other = tmp_path / "one.sayiir", f"sqlite:///{tmp_path / 'b.db'}"
    said = call("runs", "export", "i-1", str(file), "--url", url).output
    assert "i-1 is in " in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = call("inspect", str(file)).output
    assert "snapshot, " in told
    assert "workflow: asking" in told
    assert SECRET not in told
    assert SECRET in call("inspect", "--values", str(file)).output
    facts = json.loads(call("inspect", "--json", "-", given=file.read_bytes()).output)
    assert facts["contents"]["instance_id"] == "i-1"
    said = call("runs", "import", str(file), "--url", other).stdout
    assert said == "i-1 was imported and is in_progress\n"
    again = call("runs", "import", str(file), "--id", "i-2", "--url", other, "--json").stdout
    assert json.loads(again) == {"instance_id": "i-2", "status": "in_progress"}
    taken = call("runs", "import", str(file), "--id", "i-2", "--url", other, "--json", code=1)
    assert json.loads(taken.stdout)["type"] == "InstanceAlreadyExistsError"
    assert call("runs", "export", "i-1", "-", "--url", url).stdout_bytes == file.read_bytes()


def test_a_file_that_is_there_stays(url: str, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_bytes(b"mine")
    refused = call("runs", "export", "i-1", str(file), "--url", url, code=1)
    assert "--force" in refused.output
    assert file.read_bytes() == b"mine"
    call("runs", "export", "i-1", str(file), "--force", "--url", url)
    assert file.read_bytes()[:4] == b"SYRS"
    missing = str(tmp_path / "no" / "folder")
    refused = call("runs", "export", "i-1", missing, "--url", url, "--json", code=1)
    assert json.loads(refused.stdout)["type"] == "OSError"
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_commands_refuse_what_they_cannot_do(url: str, tmp_path: Path) -> None:
    assert "i-9" in call("runs", "export", "i-9", str(tmp_path / "x"), "--url", url, code=1).output
    call("runs", "export", "i-1", "-", "--json", "--url", url, code=2)
    assert "cannot be read" in call("inspect", str(tmp_path / "nothing"), code=2).output
    foreign = call("inspect", "-", given=b"PK", code=1)
    assert "SYRS is missing" in foreign.output
    foreign = call("inspect", "--json", "-", given=b"PK", code=1)
    assert json.loads(foreign.stdout)["found"]["size"] == 2
    refused = call("runs", "import", "-", "--url", url, given=b"PK", code=1)
    assert "SYRS is missing" in refused.output
    other = tmp_path / "made.db"
    call("runs", "import", str(tmp_path / "nothing"), "--url", f"sqlite:///{other}", code=2)
    assert not other.exists()
