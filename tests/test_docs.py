"""The papers run: every Python block of the README and `docs/`, every example in a docstring.

Blocks of one file share a namespace and run in order, as a reader would paste them. A block that
raises fails the test with the file and line it stands on. Relative links must lead somewhere.
"""

import doctest
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sayiir

ROOT = Path(__file__).resolve().parent.parent
PAPERS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Each Python block with the line its first statement stands on."""
    for found in FENCE.finditer(text):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def run_blocks(text: str, place: str, module: ModuleType) -> int:
    """Run the blocks in the module's namespace; how many there were."""
    count = 0
    for line, source in blocks(text):
        # The blank lines make a traceback name the paper's own line.
        exec(compile("\n" * (line - 1) + source, place, "exec"), module.__dict__)
        count += 1
    return count


def paper_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAPERS, ids=paper_id)
def test_the_blocks_of_a_paper_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real module, since dataclasses and annotations are looked up by their module's name.
    module = ModuleType("paper")
    monkeypatch.setitem(sys.modules, "paper", module)
    ran = run_blocks(path.read_text(encoding="utf-8"), str(path), module)
    assert ran or path.name != "README.md"


def test_a_block_that_raises_is_seen_with_its_line() -> None:
    text = "# Title\n\n```python\na = 1\n```\n\n```python\nassert a == 2\n```\n"
    with pytest.raises(AssertionError) as raised:
        run_blocks(text, "paper.md", ModuleType("paper"))
    assert raised.traceback[-1].lineno == 7


def test_the_first_workflow_of_the_readme_is_short() -> None:
    _, first = next(blocks((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(first.splitlines()) <= 25


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
