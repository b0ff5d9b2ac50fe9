"""Draws the pictures of the pages: `python -m docs.draw`, in the repository's folder.

A picture `images/NAME.svg` on a page shows the workflow that stands under `NAME` when the page's
Python blocks have run; the one of the README shows an example's. So a picture is never drawn by
hand, and `tests/test_images.py` says when one is not what its page would draw now.
"""

import re
from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

from tests.papers import ROOT, blocks

from sayiir import Workflow

IMAGES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "flows.md"
FROM_EXAMPLES = {"order": ROOT / "examples" / "order.py"}
_IMAGE = re.compile(r"!\[[^\]]*\]\(images/([a-z]+)\.svg\)")


def pictures() -> dict[Path, str]:
    """Every picture as it would be drawn now."""
    text = PAGE.read_text(encoding="utf-8")
    page = left_by_blocks(text)
    drawn = {name: page[name] for name in _IMAGE.findall(text)}
    for name, path in FROM_EXAMPLES.items():
        drawn[name] = run_path(str(path))["workflow"]
    return {IMAGES / f"{name}.svg": svg_of(workflow) for name, workflow in drawn.items()}


def left_by_blocks(text: str) -> dict[str, Any]:
    """What the Python blocks of a page leave behind under their names."""
    found = [
        block.source for block in blocks(text) if (block.language, block.word) == ("python", "")
    ]
    with TemporaryDirectory() as folder:
        program = Path(folder, "page.py")
        program.write_text("\n".join(found), encoding="utf-8")
        return run_path(str(program))


def svg_of(workflow: Workflow[Any, Any]) -> str:
    """The drawing of a workflow, as it is written into a file."""
    drawing: str = workflow.to_svg()
    return drawing.rstrip("\n") + "\n"


def main() -> None:
    """Write all pictures, and remove what no page shows any more."""
    IMAGES.mkdir(exist_ok=True)
    drawn = pictures()
    for old in set(IMAGES.glob("*.svg")) - drawn.keys():
        old.unlink()
    for path, svg in drawn.items():
        path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
