"""The documents: all are counted, a bad one is reported, and a kill costs what was being read."""

from collections import Counter
from pathlib import Path

from .program import EXAMPLES, Place

AT_ONCE = 2


def write_documents(folder: Path, count: int) -> None:
    """So many documents, each with the word `harbour` once, and one that is no text."""
    folder.mkdir()
    for number in range(count):
        text = f"The harbour of {'lisbon ' * (number % 3)}is old.\n"
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    (folder / "map.md").write_bytes(b"\xff\xfe")
    (folder / "picture.png").write_bytes(b"\xff\xd8")


def test_a_kill_costs_no_more_than_what_was_at_work(place: Place) -> None:
    write_documents(place.folder / "port", 20)
    before = place.run_until("documents", "read", 20, "port")
    after = place.run("documents", "port")
    assert after[-4:] == ["20 documents", "harbour: 20", "lisbon: 19", "map.md is not in UTF-8"]
    # A document is begun when one before it is checkpointed, so all others were.
    read = Counter(line for line in [*before, *after] if line.startswith("reading "))
    assert len(read) == 21
    assert 1 <= sum(read.values()) - len(read) <= AT_ONCE
    assert place.run("documents", "port") == after[-4:]


def test_without_a_folder_it_reads_the_papers(place: Place) -> None:
    said = place.run("documents")
    papers = sorted(path.name for path in (EXAMPLES.parent / "docs").glob("*.md"))
    assert sorted(said[: len(papers)]) == [f"reading {name}" for name in papers]
    assert said[len(papers)] == f"{len(papers)} documents"
