"""The examples as a collection: each is tested, short, opens with its command, and is listed."""

import ast
import re
from pathlib import Path

import pytest

from .program import EXAMPLES

README = EXAMPLES / "README.md"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


def test_every_example_has_a_test_and_a_line_in_the_list() -> None:
    names = {path.name for path in [*PROGRAMS, *EXAMPLES.glob("*.ipynb")]}
    listed = re.findall(r"^\| \[([\w.]+)\]\(([\w.]+)\)", README.read_text("utf-8"), re.MULTILINE)
    assert [name for name, link in listed if name != link] == []
    assert sorted(name for name, _ in listed) == sorted(names)
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{Path(name).stem}" for name in names} <= tests


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_an_example_says_how_to_run_it_and_is_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    opening = ast.get_docstring(ast.parse(source)) or ""
    assert f"\n    python examples/{path.name}" in opening
    assert "SAYIIR_DATABASE_URL" in opening
    assert 60 <= len(source.splitlines()) <= 150
