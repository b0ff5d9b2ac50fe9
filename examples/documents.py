"""A pipeline over documents: split, work on every part at the same time, put together.

A part that cannot be read does not spoil the others. Run it: `python examples/documents.py`.
"""

import asyncio
import re
from collections import Counter
from typing import TypedDict

from sayiir import Flow, InMemoryBackend, MapError, Worker, WorkflowClient, task

LIBRARY = {
    "sea.txt": "The sea is wide. The sea is deep, and the sea is cold.",
    "wood.txt": "The wood is dark and the wood is old.",
    "lost.txt": None,
}


class Report(TypedDict):
    """What the library is about."""

    words: dict[str, int]
    unreadable: list[str]


@task
def catalogue(shelf: str) -> list[str]:
    """Which documents there are."""
    return sorted(name for name in LIBRARY if name.endswith(shelf))


@task(retries=1, timeout="5s")
async def count_words(name: str) -> dict[str, int]:
    """Count the longer words of one document."""
    text = LIBRARY[name]
    if text is None:
        raise FileNotFoundError(name)
    return dict(Counter(word for word in re.findall(r"\w+", text.lower()) if len(word) > 2))


@task
def add_up(counts: list[dict[str, int] | MapError]) -> Report:
    """Put the counts together, and say what is missing."""
    total: Counter[str] = Counter()
    missing = []
    for count in counts:
        if isinstance(count, MapError):
            missing.append(f"{count.error_type}: {count.message}")
        else:
            total.update(count)
    return {"words": dict(total.most_common(3)), "unreadable": missing}


@task
def as_lines(report: Report) -> list[str]:
    """For people."""
    return [f"{word}: {count}" for word, count in report["words"].items()] + report["unreadable"]


workflow = (
    Flow("documents")
    .then(catalogue)
    .map(count_words, concurrency=8, on_error="collect")
    .then(add_up)
    .then(as_lines)
    .build()
)


async def main() -> list[str]:
    """Read the library."""
    backend = InMemoryBackend()
    async with Worker(backend, workflow), WorkflowClient(backend) as client:
        handle = await client.submit(workflow, "library", ".txt")
        return await handle.result(timeout="30s")


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="\n")
