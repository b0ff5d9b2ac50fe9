"""What processes say about themselves, outside of the store: one file each, one write per record.

Bodies, clients and the fleet note what they do; the checker reads it all back and holds it against
what the store says. A record is one `write` to a file opened for appending, so that a process that
is killed leaves whole records, in order. Times are of the monotonic clock, which all processes of a
machine share. Refuses to know what a record means.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sayiir import EventTimeout, LoopResult, MapError


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a process did.

    Of a body: `start`, then `end`, `raised` or `cut` (it was cancelled). Of a client: `submit`,
    then `ack`; `event`, then `event_ack` or `event_refused`. Of a worker: `hello`. Of the fleet:
    `kill`, `stop`, `cont`, `asked_to_stop`, whose `detail` is whom it met.
    """

    at: float
    who: str
    kind: str
    instance: str = ""
    path: str = ""
    attempt: int = 0
    fence: int = 0
    digest: str = ""
    detail: Any = None


class Ledger:
    """The file of one process.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Ledger(folder, "w1").note("start", "i-1", path="a", attempt=1)
    >>> [(record.who, record.kind, record.path) for record in read(folder)]
    [('w1', 'start', 'a')]
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(folder / f"{who}.jsonl", flags, 0o644)

    def note(self, kind: str, instance: str = "", **fields: Any) -> None:
        """Append a record; it is there when this returns, whatever becomes of the process."""
        record = asdict(Record(time.monotonic(), self.who, kind, instance, **fields))
        line = json.dumps({name: value for name, value in record.items() if value not in ("", 0)})
        data = line.encode() + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError(f"the ledger of {self.who} took half a record; is the disk full?")

    def close(self) -> None:
        """Take no more records."""
        os.close(self._file)


def read(folder: Path) -> list[Record]:
    """All records of all processes, in the order of their times."""
    records = [
        Record(**json.loads(line))
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return sorted(records, key=lambda record: record.at)


def digest(value: Any) -> str:
    """A fingerprint of a value that does not hang on the order of a dict.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
    True
    """
    return hashlib.blake2b(repr(_plain(value)).encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """The value with everything that is not plain data spelled out."""
    match value:
        case dict():
            return sorted((key, _plain(item)) for key, item in value.items())
        case list():
            return [_plain(item) for item in value]
        case MapError():
            return ("MapError", value.index, value.error_type, value.message, value.path)
        case EventTimeout():
            return ("EventTimeout", value.name)
        case LoopResult():
            return ("LoopResult", value.is_done, _plain(value.value))
        case _:
            return value
