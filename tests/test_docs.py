"""The papers run: every block of the README and `docs/`, every example in a docstring.

A page is followed from top to bottom, as a reader would, in a folder of its own:

* `python` blocks run in one namespace; one that raises fails the test with the page and the line.
* `python NAME.py` blocks are saved as that file, which later blocks use.
* `console` blocks are typed into a shell, and what it prints is what the page shows.
* In `sh` blocks the grammar of the shell and of every `sayiir` command is checked. They are not
  run: they install, serve for ever, or speak to the reader's own servers and databases.
* `ini`, `yaml` and `dockerfile` blocks are read by their grammar, and the `sayiir` commands in them
  are checked as those in `sh` blocks. There is no systemd, Docker or Kubernetes where tests run.
* `python celery` and the like, programs for others that ours are compared with, are compiled: what
  they import is no dependency of ours, not even of the tests.
* Others run `sql` and `python postgres` (`tests/postgres/test_docs_queries.py`) and
  `python transaction` (`tests/postgres/test_docs_transactions.py`), read `hex` and `hash`
  (`tests/test_golden.py`), and draw `mermaid` (`tests/test_images.py`); `{eval-rst}` is for the
  site (`tests/test_site.py`); `text` is no code.

Relative links must lead somewhere.
"""

import configparser
import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml  # type: ignore[import-untyped]
from tests.papers import PAPERS, Block, blocks, paper_id
from tests.terminal import Terminal, agrees, commands

import sayiir
from sayiir.cli import main

LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
RIVALS = {"airflow", "celery", "dbos", "temporal"}
ELSEWHERE = {"hash", "hex", "mermaid", "sql", "text", "{eval-rst}"}


def follow(text: str, place: str, module: ModuleType, folder: Path, shell: Terminal) -> int:
    """Do what a page says, block by block; how many were run."""
    count = 0
    for block in blocks(text):
        match block.language, block.word:
            case "python", "":
                exec(compile(block.code, place, "exec"), module.__dict__)
            case "python", name if name.endswith(".py"):
                (folder / name).write_text(block.source, encoding="utf-8")
            case "console", "":
                shell.follow(block.source)
            case _:
                continue
        count += 1
    return count


@pytest.mark.parametrize("path", PAPERS, ids=paper_id)
def test_the_blocks_of_a_paper_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real module, since dataclasses and annotations are looked up by their module's name.
    module = ModuleType("paper")
    monkeypatch.setitem(sys.modules, "paper", module)
    monkeypatch.delenv("SAYIIR_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with Terminal(tmp_path) as shell:
        text = path.read_text(encoding="utf-8")
        ran = follow(text, str(path), module, tmp_path, shell)
    assert ran or paper_id(path) not in ("README.md", "docs/tutorial.md")


def test_a_block_that_raises_is_seen_with_its_line(tmp_path: Path) -> None:
    text = "# Title\n\n```python\na = 1\n```\n\n```python\nassert a == 2\n```\n"
    with Terminal(tmp_path) as shell, pytest.raises(AssertionError) as raised:
        follow(text, "paper.md", ModuleType("paper"), tmp_path, shell)
    assert raised.traceback[-1].lineno == 7


@pytest.mark.parametrize(
    "transcript",
    ["$ python note.py\nwritten down\n", "$ false\n", "$ sayiir run note:missing --id one\n"],
)
def test_a_command_that_does_something_else_is_seen(transcript: str, tmp_path: Path) -> None:
    text = f'```python note.py\nprint("written")\n```\n\n```console\n{transcript}```\n'
    with Terminal(tmp_path) as shell, pytest.raises(AssertionError):
        follow(text, "paper.md", ModuleType("paper"), tmp_path, shell)


def test_a_transcript_is_read_as_it_is_typed() -> None:
    read = [*commands("$ cat a \\\n  b\n1\n2\n$ true\n")]
    assert read == [("cat a \\\n  b", "1\n2\n"), ("true", "")]
    assert agrees("id  ...\n", "id one\n")
    assert not agrees("id\n", "one\n")


def offences(block: Block) -> Iterator[str]:
    """What is wrong with a block that is not run here."""
    match block.language, block.word:
        case ("python", "" | "postgres" | "transaction") | ("console", ""):
            pass
        case "python", name if name.endswith(".py") or name in RIVALS:
            compile(block.code, name, "exec")
        case "sh", "":
            read = subprocess.run(
                ["bash", "-n"], input=block.source, capture_output=True, text=True
            )
            if read.returncode:
                yield read.stderr
            yield from command_offences(block.source)
        case "ini", "":
            reader = configparser.ConfigParser(strict=False, interpolation=None)
            reader.read_string(block.source)
            yield from command_offences(block.source.replace("ExecStart=", ""))
        case "yaml", "":
            for found in commands_of(yaml.safe_load_all(block.source)):
                yield from command_offences(shlex.join(found))
        case "dockerfile", "":
            for found in re.findall(r"^(?:CMD|ENTRYPOINT) (\[.*\])$", block.source, re.MULTILINE):
                yield from command_offences(shlex.join(yaml.safe_load(found)))
        case language, _ if language not in ELSEWHERE:
            yield f"nobody knows what to do with a block of {language} {block.word}"


def commands_of(node: object) -> Iterator[list[str]]:
    """The commands of containers, wherever they stand in a manifest."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("command", "args") and isinstance(value, list):
                yield [str(part) for part in value]
            else:
                yield from commands_of(value)
    elif not isinstance(node, str) and isinstance(node, Iterator | list):
        for value in node:
            yield from commands_of(value)


def command_offences(source: str) -> Iterator[str]:
    """`sayiir` commands that its command line would not take; nothing is run."""
    for line in source.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        at = next((n for n, word in enumerate(words) if Path(word).name == "sayiir"), None)
        if at is None or words[:1] in (["pip"], ["createdb"], ["Environment=sayiir"]):
            continue
        arguments = words[at + 1 :]
        # Behind these another command begins, or a file does.
        ends = [n for n, word in enumerate(arguments) if word in (">", "<", "|", "&&", "&", ";")]
        arguments = arguments[: min(ends, default=len(arguments))]
        try:
            parse(arguments)
        except click.UsageError as refusal:
            yield f"{line}: {refusal.format_message()}"


def parse(arguments: list[str]) -> None:
    """Read the arguments of `sayiir` as its command line does."""
    command: click.Command = main
    parent: click.Context | None = None
    while isinstance(command, click.Group):
        # The group's own options, if any; what follows is the name of the next one.
        parent = click.Context(command, parent=parent)
        _, found, arguments = command.resolve_command(parent, arguments)
        assert found is not None
        command = found
    if "--help" not in arguments:
        command.make_context(command.name, list(arguments), parent=parent)


@pytest.mark.parametrize("path", PAPERS, ids=paper_id)
def test_what_is_not_run_is_well_formed(path: Path) -> None:
    found = list(blocks(path.read_text(encoding="utf-8")))
    wrong = [f"line {block.line}: {it}" for block in found for it in offences(block)]
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("sh", "sayiir work shop:order\n"),
        ("sh", "sayiir worker shop:order --concurency 4 &\n"),
        ("sh", "A=1 sayiir run shop:order --id\n"),
        ("sh", "for name in a b; do\n"),
        ("ini", "[Service]\nExecStart=/srv/bin/sayiir worker\n"),
        ("yaml", "containers:\n  - command: [sayiir, worker, shop:order, --lease, 1s]\n"),
        ("dockerfile", 'FROM python\nCMD ["sayiir", "runs", "lists"]\n'),
        ("basic", "10 PRINT\n"),
    ],
)
def test_a_malformed_block_is_seen(kind: str, source: str) -> None:
    [block] = blocks(f"```{kind}\n{source}```\n")
    assert [*offences(block)] != []


def dead_links(path: Path, text: str) -> list[str]:
    """Relative links of a paper that lead nowhere."""
    return [link for link in LINK.findall(text) if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", PAPERS, ids=paper_id)
def test_relative_links_lead_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text(encoding="utf-8")) == []
    assert dead_links(path, "[gone](no-such-paper.md)") == ["no-such-paper.md"]


def modules() -> list[str]:
    found = pkgutil.walk_packages(sayiir.__path__, "sayiir.")
    # `__main__` is a program: importing it by another name runs nothing, and it has no examples.
    return ["sayiir", *(info.name for info in found if not info.name.endswith("__main__"))]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert outcome.failed == 0, f"{outcome.failed} examples of {name} fail; see the output above"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert any(test.examples for test in finder.find(importlib.import_module("sayiir.cli.census")))
