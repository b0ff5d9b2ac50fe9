"""Draws the pictures of the pages: `python -m docs.draw`, in the repository's folder.

A block of `mermaid NAME` on a page shows the workflow that stands under `NAME` when the page's
Python blocks have run, or that of `examples/NAME.py`; many viewers of Markdown make a picture of
it. So a picture is never drawn by hand, and `tests/test_drawings.py` says when one is not what its
page would draw now.
"""

from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

from tests.papers import PAPERS, ROOT, blocks

from sayiir import Workflow


def drawn(text: str) -> str:
    """A page with its drawings as they would be drawn now."""
    shown = [block for block in blocks(text) if block.language == "mermaid"]
    left = left_by_blocks(text) if shown else {}
    for block in shown:
        name = block.word
        workflow = left[name] if name in left else of_example(name)
        old, new = (f"```mermaid {name}\n{it}```\n" for it in (block.source, mermaid_of(workflow)))
        text = text.replace(old, new)
    return text


def left_by_blocks(text: str) -> dict[str, Any]:
    """What the Python blocks of a page leave behind under their names."""
    found = [
        block.source for block in blocks(text) if (block.language, block.word) == ("python", "")
    ]
    with TemporaryDirectory() as folder:
        program = Path(folder, "page.py")
        program.write_text("\n".join(found), encoding="utf-8")
        return run_path(str(program))


def of_example(name: str) -> Workflow[Any, Any]:
    """The workflow of an example."""
    workflow: Workflow[Any, Any] = run_path(str(ROOT / "examples" / f"{name}.py"))["workflow"]
    return workflow


def mermaid_of(workflow: Workflow[Any, Any]) -> str:
    """The drawing of a workflow as it stands in a block."""
    return f"{workflow.to_mermaid()}\n"


def main() -> None:
    """Draw all pictures anew, where they stand."""
    for paper in PAPERS:
        text = paper.read_text(encoding="utf-8")
        new = drawn(text)
        if new != text:
            paper.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
