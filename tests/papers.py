"""The papers as the tests read them: their blocks, each with its kind and its line.

A fence says the kind of its block: a language, and sometimes one word more, which a viewer of the
page does not show. The word behind `python` is the name of the file that the block is to be saved
as (`python shop.py`), or says who else runs it; see `tests/test_docs.py` for the kinds there are.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples/README.md"])
_FENCE = re.compile(r"^```([^`\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block of a paper."""

    line: int
    """The line that its first line stands on, from 1."""
    language: str
    word: str
    """What stands behind the language, if anything."""
    source: str

    @property
    def code(self) -> str:
        """The source behind so many empty lines that a traceback names the paper's own line."""
        return "\n" * (self.line - 1) + self.source


def blocks(text: str) -> Iterator[Block]:
    r"""Each fenced block of a paper, in order.

    >>> [block] = blocks("# Run\n\n```python shop.py\nimport sayiir\n```\n")
    >>> block
    Block(line=4, language='python', word='shop.py', source='import sayiir\n')
    """
    for found in _FENCE.finditer(text):
        language, _, word = found[1].strip().partition(" ")
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(line, language, word, found[2])


def paper_id(path: Path) -> str:
    """How a test names a paper."""
    return str(path.relative_to(ROOT))
