"""Bytes that a checkpoint hands to a backend: late in a long instance against early in it.

Time can hide a cursor that grows with what is already done; bytes cannot. They are counted on the
commits that a Python backend receives, and are the same on every machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benches.ledger import Ledger
from benches.python_backend import PythonBackend
from benches.workload import PAYLOAD, chain, fork, loop, mapped
from sayiir import Workflow, run_workflow_async
from sayiir._core import Commit
from sayiir.backends import Reply


class CountingBackend(PythonBackend):
    """Notes how many bytes every commit hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[float] = []
        """Bytes for each step, in order; the steps of one commit share it."""
        self._more = 0

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        for commit in commits:
            self._more += _size(commit)
            if steps := len(commit.steps):
                self.sizes.extend([self._more / steps] * steps)
                self._more = 0
        return await super().commit(commits)


def _size(commit: Commit) -> int:
    rows = sum(len(row.output or b"") + len(row.error or b"") for row in commit.steps)
    return len(commit.cursor or b"") + sum(len(cell) for _, cell in commit.cells) + rows


def bench_bytes(ledger: Ledger) -> None:
    """What a step adds near the thousandth step, turn, branch or item, against near the tenth."""
    shapes: dict[str, tuple[Workflow[Any, Any], Any]] = {
        "steps": (chain(1_000), PAYLOAD),
        "turns": (loop(1_000), 1_000),
        "branches": (fork(1_000), PAYLOAD),
        "items": (mapped(), [PAYLOAD] * 1_000),
    }
    for shape, (workflow, value) in shapes.items():
        backend = CountingBackend()
        asyncio.run(run_workflow_async(workflow, value, backend=backend))
        sizes = backend.sizes
        late, early = fmean(sizes[900:990]), fmean(sizes[5:95])
        ledger.enter(
            "stored",
            f"bytes committed near the 1,000th of the {shape}",
            late,
            "B",
            against=early,
            rival="near the 10th",
            judged=late / early,
            at_most=1.1,
            budget="≤ 1.1×",
        )
