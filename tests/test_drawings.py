"""The drawings of the pages are what the pages would draw now: `python -m docs.draw` mends them."""

from pathlib import Path

import pytest
from docs.draw import drawn
from tests.papers import PAPERS, blocks, paper_id

DRAWN = [
    paper
    for paper in PAPERS
    if any(block.language == "mermaid" for block in blocks(paper.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("path", DRAWN, ids=paper_id)
def test_the_drawings_are_current(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert drawn(text) == text, "draw them anew: python -m docs.draw"


def test_the_front_page_and_every_kind_of_node_are_drawn() -> None:
    assert {"README.md", "docs/flows.md"} <= {paper_id(path) for path in DRAWN}
    [flows] = (path.read_text(encoding="utf-8") for path in DRAWN if path.name == "flows.md")
    # A section for each node, and one more drawing where they are nested.
    nodes = flows.partition("## A task")[2].partition("## What is refused")[0].count("\n## ") + 1
    assert sum(block.language == "mermaid" for block in blocks(flows)) == nodes + 1


def test_a_stale_drawing_is_seen() -> None:
    page = (
        "```python\nfrom sayiir import Flow\none = Flow('one').then(abs).build()\n```\n\n"
        "```mermaid one\nflowchart TD\n```\n"
    )
    assert 'start(["one"])' in drawn(page)
