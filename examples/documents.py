"""A pipeline over documents: find them, read each, put the counts together.

    python examples/documents.py [FOLDER]

Two documents are at work at a time, each in a chain of its own, and one that cannot be read does
not spoil the others. Without FOLDER it reads the papers of sayiir. Kill it in the middle and run it
again: what was counted is not read again. Every FOLDER is an instance of its own; they live in
`sayiir.db`, or where `SAYIIR_DATABASE_URL` says.
"""

import asyncio
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TypedDict

from sayiir import Flow, MapError, Worker, WorkflowClient, WorkflowFailed, task

PAPERS = Path(__file__).resolve().parent.parent / "docs"
SUFFIXES = {".md", ".txt"}
PACE = float(os.environ.get("PACE", "0.5"))  # Seconds for a document: time to kill the program.


class Document(TypedDict):
    """What is known of one document."""

    name: str
    words: dict[str, int]


class Report(TypedDict):
    """What the folder is about."""

    documents: int
    most_used: dict[str, int]
    unreadable: list[str]


def read(path: str) -> str:
    """The text of a document.

    Raises:
        ValueError: It is no text.
    """
    name = Path(path).name
    # One write for each line, as several threads are reading.
    print(f"reading {name}\n", end="", flush=True)
    time.sleep(PACE)
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not in UTF-8") from error


@task
def catalogue(folder: str) -> list[str]:
    """Which documents there are. Their paths go on from here, and not their texts.

    Everything that a task returns is stored, so what is large and at hand elsewhere stays there.
    """
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix in SUFFIXES)


@task(timeout="30s")
def count(path: str) -> Document:
    """Count the words of one document."""
    words = Counter(re.findall(r"[a-z]+", read(path).lower()))
    return {"name": Path(path).name, "words": dict(words)}


@task
def leave_out_short_ones(document: Document) -> Document:
    """Keep the words that say something."""
    words = {word: times for word, times in document["words"].items() if len(word) > 5}
    return {**document, "words": words}


@task
def put_together(documents: list[Document | MapError]) -> Report:
    """Add the counts up and say what is missing."""
    report: Report = {"documents": 0, "most_used": {}, "unreadable": []}
    total: Counter[str] = Counter()
    for document in documents:
        if isinstance(document, MapError):
            report["unreadable"].append(document.message)
        else:
            report["documents"] += 1
            total.update(document["words"])
    ranking = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    report["most_used"] = dict(ranking[:5])
    return report


# A step of a map may be a whole workflow: each document goes through its chain at its own pace.
one_document = Flow("document").then(count).then(leave_out_short_ones).build()
workflow = (
    Flow("documents")
    .then(catalogue)
    .map(one_document, concurrency=2, on_error="collect")
    .then(put_together)
    .build()
)


async def report_on(folder: str) -> Report:
    """Begin with the folder, or go on with it, until there is a report."""
    async with (
        WorkflowClient.from_url(conflict_policy="use_existing") as client,
        # Short, so that whoever goes on after a kill need not wait the usual 30 s.
        Worker(client.backend, workflow, lease_ttl="1s"),
    ):
        handle = await client.submit(workflow, f"documents of {folder}", folder)
        return await handle.result(timeout="10m")


def main() -> int:
    """Report on one folder."""
    folder = str(Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else str(PAPERS)
    try:
        report = asyncio.run(report_on(folder))
    except WorkflowFailed as failure:
        print(f"{folder}: {failure}")
        return 1
    print(f"{report['documents']} documents")
    for word, times in report["most_used"].items():
        print(f"{word}: {times}")
    for complaint in report["unreadable"]:
        print(complaint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
