"""The workers' own record of what they began: a file beside the store, which no crash rolls back.

The store knows what was finished; only somebody who stands outside of it can tell how often a
step's body ran. Every body appends one line before it does anything, with a single `write` to a
file opened for appending, so the lines of several threads and processes never mix. A line that a
kill cut short was never the end of a `write`, so its body had not begun, and it does not count.

The journal knows nothing of workflows, stores or kills.
"""

import os
import re
from collections import Counter
from pathlib import Path

__all__ = ["Journal", "read_journal"]

# Lines begin and end with a newline of their own: one that was cut short spoils no other.
_LINE = re.compile(rb"^(\S+) (\S+) \.$", flags=re.MULTILINE)


class Journal:
    """Appends which steps a worker begins. Safe from any thread.

    Args:
        path: The file, created if need be; several journals of several processes may share it.
        worker: Whose lines these are, without white space.

    Raises:
        OSError: The file cannot be opened or, from `note`, not be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "journal")
    ...     journal = Journal(path, "worker-1")
    ...     journal.note("analyse[0]")
    ...     journal.close()
    ...     read_journal(path)
    {'worker-1': Counter({'analyse[0]': 1})}
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._worker = worker

    def note(self, step: str) -> None:
        """Write down that the body of this step, named by its path, begins."""
        line = f"\n{self._worker} {step} .\n".encode()
        if os.write(self._file, line) != len(line):
            raise OSError("the journal of the demo could not be written: the disk may be full")

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def read_journal(path: Path) -> dict[str, Counter[str]]:
    """For each worker, how often it began each step; nothing if no step was begun."""
    begun: dict[str, Counter[str]] = {}
    lines = path.read_bytes() if path.exists() else b""
    for worker, step in _LINE.findall(lines):
        begun.setdefault(worker.decode(), Counter())[step.decode()] += 1
    return begun
