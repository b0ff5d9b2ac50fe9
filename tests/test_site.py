"""The papers become a site without a warning, and its reference has every public name.

The build is what `make docs` does, with warnings as errors; a link that leads nowhere, a page that
no table of contents names, and a type that the reference does not explain are warnings.
"""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import sayiir

ROOT = Path(__file__).resolve().parent.parent


def described(inventory: bytes) -> set[str]:
    """The Python names that a site explains, of its `objects.inv`."""
    listed = zlib.decompress(inventory.split(b"\n", 4)[4]).decode()
    rows = (line.split(" ") for line in listed.splitlines())
    return {row[0] for row in rows if row[1].startswith("py:")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "-c", "docs"]
    built = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


def test_every_paper_is_a_page_of_the_site(site: Path) -> None:
    papers = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), ROOT / "examples/README.md"]
    pages = [site / paper.relative_to(ROOT).with_suffix(".html") for paper in papers]
    assert [page for page in pages if not page.is_file()] == []
    assert "docs/index.html" in (site / "index.html").read_text(encoding="utf-8")


# Whatever has no underscore in its name; the command line has a paper and no Python names.
MODULES = [
    "sayiir",
    *sorted(
        f"sayiir.{module.name}"
        for module in pkgutil.iter_modules(sayiir.__path__)
        if not module.name.startswith("_") and module.name != "cli"
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_explains_every_public_name(site: Path, name: str) -> None:
    explained = described((site / "objects.inv").read_bytes())
    module = importlib.import_module(name)
    # One name is explained in one place, from wherever it can be imported.
    missing = {
        public
        for public in module.__all__
        if explained.isdisjoint(f"{place}.{public}" for place in MODULES)
    }
    assert missing <= {"__version__"}


def test_the_reference_shows_the_examples_of_the_docstrings(site: Path) -> None:
    page = (site / "docs/reference.html").read_text(encoding="utf-8")
    prompts = re.sub(r"<[^>]+>", "", page).count("&gt;&gt;&gt; ")
    written = sum(inspect.getdoc(getattr(sayiir, name)) is not None for name in sayiir.__all__)
    # Nearly every name has an example of several lines, and so have methods.
    assert prompts > written


def test_a_name_that_is_not_explained_is_seen() -> None:
    head = b"# Sphinx inventory version 2\n# Project: p\n# Version: 1\n# zlib\n"
    rows = b"sayiir.Flow py:class 1 reference.html#$ -\nwords std:label -1 index.html#words Words\n"
    assert described(head + zlib.compress(rows)) == {"sayiir.Flow"}
