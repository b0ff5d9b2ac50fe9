"""The commands with a codec, which the environment names: what they read and write, and refuse."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sayiir.cli import main
from sayiir.cli.target import CODEC_VARIABLE

SETTINGS = """
from sayiir import Flow
from sayiir.codecs import Codec, KeyRing

codec = Codec("json", keys=KeyRing({"k": b"k" * 32}))
number = 5
flow = Flow("shout").then(str.upper, name="upper").build()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "coded_settings.py").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def sayiir(codec: str, *args: str) -> Result:
    return CliRunner().invoke(main, args, env={CODEC_VARIABLE: codec, "COLUMNS": "300"})


def test_a_command_uses_the_codec_that_the_environment_names(here: Path) -> None:
    name = "coded_settings:codec"
    run = ["run", "coded_settings:flow", "--input", '"quiet"', "--id", "i"]
    done = sayiir(name, *run)
    assert done.exit_code == 0, done.output
    assert "QUIET" in done.output
    for file in here.glob("sayiir.db*"):
        assert b"QUIET" not in file.read_bytes()
    assert "QUIET" in sayiir(name, "runs", "result", "i").output
    refused = sayiir("", "runs", "result", "i")
    assert refused.exit_code == 1
    assert "it is encrypted with key 'k'" in refused.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "'nothing' is no name of a codec; write module:attribute, such as"),
        ("no_such_module:codec", "there is no module 'no_such_module'"),
        ("coded_settings:other", "module 'coded_settings' has no 'other'"),
        ("coded_settings:number", "codec must be a sayiir.codecs.Codec, got int"),
    ],
)
def test_a_wrong_name_is_a_wrong_argument(here: Path, name: str, said: str) -> None:
    refused = sayiir(name, "run", "coded_settings:flow", "--input", '"quiet"')
    assert refused.exit_code == 2, refused.output
    assert said in refused.output
    assert not list(here.glob("sayiir.db*"))
