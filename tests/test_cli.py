"""The command line apart from its commands: what is said and how, arguments, and workflows by name.

Whatever a name, a reason or an error holds is shown and never obeyed; a mistake is one sentence and
exit code 2.
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sayiir.cli import argument, main
from sayiir.cli.argument import Length, Moment, read_json
from sayiir.cli.session import ask, opened, place
from sayiir.cli.target import named_workflow, named_workflows
from sayiir.cli.terminal import draw, safe, say, say_output, seconds, stamp, to_json

SHOP = """
from sayiir import Flow

order = Flow("order").then(lambda x: x).build()
refund = Flow("refund").then(lambda x: x).build()
both = [order, refund]
pair = (order, refund)
unbuilt = Flow("unbuilt").then(lambda x: x)
half_built = [order, unbuilt]
number = 5
word = "order"
table = {"order": order}
empty = []


class Shelf:
    order = order


def make():
    return order


def make_both():
    yield order
    yield refund


def make_number():
    return 5


def make_nothing():
    return ()


def needs(x):
    return order


def fails():
    raise RuntimeError("no \\x1b[31m luck")


def fails_late():
    yield order
    raise RuntimeError("no luck")


def leaves():
    raise SystemExit(7)


async def waits():
    return order
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "shop_of_test.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    before, known = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before
    for name in set(sys.modules) - known:
        del sys.modules[name]


# Text on a terminal.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order-1", "order-1"),
        ("[red]order[/red]", "[red]order[/red]"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("a\u2028b", "a\\u2028b"),
        ("half \ud800", "half \\ud800"),
        ("ü 🦀 👩\u200d🔬 שלום", "ü 🦀 👩\u200d🔬 שלום"),
    ],
)
def test_text_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_a_traceback_keeps_its_lines() -> None:
    assert safe("a\n\tb\x1b\r\n", lines=True) == "a\n\tb\\x1b\\r\n"


@given(st.text())
def test_nothing_unsafe_comes_through(text: str) -> None:
    shown = safe(text)
    assert safe(shown) == shown
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).filter(lambda value: "inf" not in repr(value))
)
def test_json_means_what_was_said_and_is_safe(value: Any) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert safe(text) == text


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({1, 2}, "a value of type set"),
        ([{"a": b"x"}], "a value of type bytes"),
        ({"a": {1: 2}}, "a key of type int"),
        ({None: 2}, "a key of type NoneType"),
        (float("nan"), "JSON compliant"),
        (float("inf"), "JSON compliant"),
        (datetime(2024, 1, 1), "a value of type datetime"),
    ],
)
def test_what_is_no_json_is_not_bent_into_it(value: Any, what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=what):
        to_json(value)


def test_an_output_that_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_output("a", {1}, as_json=False)
    said = capsys.readouterr()
    assert said.out == "{1}\n"
    assert "no JSON (a value of type set)" in said.err
    say_output("a", {1}, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"instance_id": "a", "status": "completed", "repr": "{1}"}


def test_a_stream_that_knows_few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding="ascii"))
    say("ü 🦀")
    say_output("a", "ü", as_json=False)
    sys.stdout.flush()
    assert raw.getvalue() == b'\\xfc \\U0001f980\n"\\u00fc"\n'


def test_a_table_is_plain_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    draw({"id": True, "status": False}, [("a\nb", "waiting"), ("long-name", None)])
    assert capsys.readouterr().out == "ID         STATUS\na\\nb       waiting\nlong-name  -\n"


def test_a_table_on_a_terminal_shows_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    draw({"id": True}, [("[red]a[/red] :smile: \x1b[31m [link=http://x]b[/link]",)])
    out = capsys.readouterr().out
    assert "[red]a[/red] :smile: \\x1b[31m [link=http://x]b[/link]" in out
    assert "\x1b" not in out


def test_times_for_people_and_machines() -> None:
    assert stamp(None) is None
    east = datetime(2024, 1, 1, 2, tzinfo=UTC).astimezone()
    assert stamp(east) == "2024-01-01T02:00:00.000Z"
    assert (seconds(0.0000012), seconds(0.5), seconds(90)) == ("0.0012 ms", "500 ms", "90.0 s")


# Arguments.


def test_a_length_may_be_a_bare_number() -> None:
    assert [Length().convert(text, None, None) for text in ("5", "0.5", "5s", "1h30m")] == [
        5,
        0.5,
        5,
        5400,
    ]


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1e300", "5 parsecs", "0"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Length(allow_zero=False).convert(text, None, None)


def test_a_moment_is_utc_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> datetime:
        return Moment().convert(text, None, None)

    assert read("2024-01-02") == datetime(2024, 1, 2, tzinfo=UTC)
    assert read("2024-01-02T03:04:05Z") == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read("2024-01-02 03:04+02:00") == datetime(2024, 1, 2, 1, 4, tzinfo=UTC)
    monkeypatch.setattr("sayiir._clock.now", lambda: 1_700_000_000.0)
    now = datetime.fromtimestamp(1_700_000_000, UTC)
    assert read("2h") == now - timedelta(hours=2)
    assert read("90d") == now - timedelta(days=90)


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "-2h", "2024", "1e9"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        Moment().convert(text, None, None)


def test_json_comes_as_text_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\xc3\xbc"]}')
    assert read_json(f"@{file}", "--input") == {"a": [1, 2.5, None, "ü"]}
    assert read_json('"x"', "--input") == "x"
    assert read_json(None, "--input") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ("hello", "text needs its quotes"),
        ("{", "is no JSON"),
        ("NaN", "NaN is no number"),
        ("[Infinity]", "Infinity is no number"),
        ("[" * 100_000, "nested"),
        ("9" * 10_000, "is no JSON"),
        ("@", "cannot be read"),
        ("@no-such-file\x1b", r"'no-such-file\x1b' cannot be read: No such file"),
        ("@.", "cannot be read"),
        ("@a\0b", "cannot be read"),
    ],
)
def test_what_is_no_json(text: str, says: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        read_json(text, "--input")
    assert raised.value.message.startswith("--input")
    assert says in raised.value.message
    assert "\x1b" not in raised.value.message


def test_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argument, "MAX_INPUT_BYTES", 4)
    file = tmp_path / "input.json"
    file.write_text("1234")
    assert read_json(f"@{file}", "--input") == 1234
    file.write_text("12345")
    with pytest.raises(click.UsageError, match="more than 4 bytes"):
        read_json(f"@{file}", "--input")
    file.write_bytes(b"\xff")
    with pytest.raises(click.UsageError, match="not UTF-8"):
        read_json(f"@{file}", "--input")


# Workflows by name.


@pytest.mark.parametrize(
    ("name", "workflows"),
    [
        ("order", ["order"]),
        ("Shelf.order", ["order"]),
        ("both", ["order", "refund"]),
        ("pair", ["order", "refund"]),
        ("make", ["order"]),
        ("make_both", ["order", "refund"]),
    ],
)
def test_a_name_leads_to_workflows(shop: Path, name: str, workflows: list[str]) -> None:
    found = named_workflows([f"shop_of_test:{name}"])
    assert [workflow.workflow_id for workflow in found] == workflows


def test_each_definition_comes_once(shop: Path) -> None:
    found = named_workflows(["shop_of_test:both", "shop_of_test:order", "shop_of_test:make_both"])
    assert [workflow.workflow_id for workflow in found] == ["order", "refund"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shop_of_test", "write module:attribute"),
        ("shop_of_test:", "write module:attribute"),
        (":order", "write module:attribute"),
        ("shop_of_test.py:order", "name its module, without .py: shop_of_test:order"),
        ("no_shop_of_test.py:order", "there is no module 'no_shop_of_test"),
        ("shop-of-test:order", "write module:attribute"),
        ("../shop_of_test:order", "write module:attribute"),
        ("shop_of_test:order()", "write module:attribute"),
        ("", "write module:attribute"),
        ("a\x1b[31m:b", r"'a\x1b[31m:b'"),
        ("no_shop_of_test:order", "there is no module 'no_shop_of_test'"),
        ("json.no_such:order", "there is no module 'json.no_such'"),
        ("shop_of_test:nothing", "has no 'nothing'; its workflows are order, refund"),
        ("json:nothing", "module 'json' has no 'nothing'"),
        ("shop_of_test:number", "is an int; it must be a workflow, a list of them"),
        ("shop_of_test:word", "is a str"),
        ("shop_of_test:table", "is a dict"),
        ("shop_of_test:empty", "is empty"),
        ("shop_of_test:unbuilt", "is a Flow; call .build() on it"),
        ("shop_of_test:half_built", "has a Flow; call .build() on it"),
        ("shop_of_test:make_number", "returned an int"),
        ("shop_of_test:make_nothing", "is empty"),
        ("shop_of_test:needs", "failed when it was called: TypeError: needs() missing 1"),
        ("shop_of_test:fails", r"RuntimeError: no \x1b[31m luck ("),
        ("shop_of_test:fails_late", "RuntimeError: no luck ("),
        ("shop_of_test:leaves", "SystemExit: 7"),
        ("shop_of_test:waits", "is an async function"),
    ],
)
def test_a_wrong_name_is_one_sentence(shop: Path, target: str, says: str) -> None:
    for command in ("run", "worker"):
        result = CliRunner().invoke(main, [command, "--url", "memory://", "--", target])
        assert result.exit_code == 2
        error = result.output.strip().split("\n")[-1]
        assert error.startswith("Error: ")
        assert says in error
    assert list(shop.glob("*.db")) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_of_test", "No module named 'no_such_module_of_test'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_breaks_is_named_with_its_line(shop: Path, source: str, says: str) -> None:
    (shop / "broken_of_test.py").write_text(f"\n{source}\n")
    with pytest.raises(click.UsageError) as raised:
        named_workflows(["broken_of_test:order"])
    assert "module 'broken_of_test' cannot be imported" in raised.value.message
    assert says in raised.value.message
    assert "broken_of_test.py, line 2" in raised.value.message


def test_one_workflow_is_meant(shop: Path) -> None:
    assert named_workflow("shop_of_test:make").workflow_id == "order"
    with pytest.raises(click.UsageError, match=r"names 2 workflows \('order', 'refund'\)"):
        named_workflow("shop_of_test:both")


# Databases.


@pytest.mark.parametrize("command", [["runs", "list"], ["runs", "show", "a"], ["doctor"]])
def test_looking_makes_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAYIIR_DATABASE_URL", raising=False)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert f"there is no database at {tmp_path}/sayiir.db" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_a_url_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place("sqlite:///a.db") == str(tmp_path / "a.db")
    assert place("sqlite:////srv/a.db") == "/srv/a.db"
    assert opened("memory://", make=False).now() > 0


@pytest.mark.parametrize("command", [["runs", "list"], ["doctor"], ["runs", "result", "a"]])
def test_a_bad_url_is_a_wrong_argument(command: list[str]) -> None:
    url = "mysql://user:hunter2@host/db"
    result = CliRunner().invoke(main, [*command, "--json", "--url", url])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["type"] == "ValueError"
    assert "'mysql'" in result.stderr
    assert "hunter2" not in result.output


def test_an_answer_is_a_client_s() -> None:
    page = ask("memory://", False, lambda client: client.list_instances())
    assert len(page) == 0


@pytest.mark.parametrize(
    "command", [[], ["runs"], ["worker"], ["run"], ["doctor"], ["migrate"], ["runs", "send"]]
)
def test_help_is_there(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    if command in (["runs"], ["worker"], ["run"], ["doctor"], ["migrate"]):
        assert "Exit codes" in result.output
