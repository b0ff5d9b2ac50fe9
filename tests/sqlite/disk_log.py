"""What a process did to its disk, and the disks that a power cut may leave of it.

A record is one write, truncation, sync or deletion, as `watch_disk.c` took it down, or a call that
was acknowledged, which the process itself writes between them. After a power cut a disk has
everything that was synced; of what was written later, each sector may be there or not.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

SECTOR = 512
SOURCE = Path(__file__).with_name("watch_disk.c")


def build_watch(folder: Path) -> Path | None:
    """Build the library that takes the log; `None` where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "watch_disk.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([compiler, *options, str(SOURCE), "-ldl"], check=True)
    return library


@dataclass(frozen=True, slots=True)
class Entry:
    """One record: `w t s d` (see `watch_disk.c`), or `a`: a call was acknowledged."""

    kind: str
    name: str
    offset: int = 0
    at_us: int = 0
    data: bytes = b""


def read_log(path: Path) -> list[Entry]:
    """All records, in order."""
    return list(_entries(path.read_bytes()))


def _entries(data: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, name, *numbers = data[at:end].decode().split(" ")
        at = end + 1
        if kind == "a":
            yield Entry(kind, name)
            continue
        offset, size, at_us = map(int, numbers)
        if kind != "w":
            yield Entry(kind, name, offset, at_us)
            continue
        yield Entry(kind, name, offset, at_us, data[at : at + size])
        at += size + 1


def cut_power(entries: Sequence[Entry], rng: Random | None, folder: Path) -> None:
    """Make the files that a cut after these records leaves.

    Args:
        entries: What had happened by then.
        rng: Chooses what of the unsynced is there; `None`: nothing is.
        folder: Where the files go; it is made.
    """
    folder.mkdir()
    for name in {entry.name for entry in entries if entry.kind == "w"}:
        mine = [entry for entry in entries if entry.name == name]
        synced = max((n for n, entry in enumerate(mine) if entry.kind == "s"), default=-1)
        content = bytearray()
        there = False
        for number, entry in enumerate(mine):
            durable = number <= synced
            if not durable and rng is None:
                break
            match entry.kind:
                case "w":
                    there = True
                    _write(content, entry, None if durable else rng)
                case "t" if durable or (rng is not None and rng.random() < 0.5):
                    del content[entry.offset :]
                    content += bytes(entry.offset - len(content))
                case "d" if durable or (rng is not None and rng.random() < 0.5):
                    content, there = bytearray(), False
        if there:
            (folder / name).write_bytes(content)


def _write(content: bytearray, entry: Entry, rng: Random | None) -> None:
    end = entry.offset + len(entry.data)
    if rng is None:
        content += bytes(max(end - len(content), 0))
        content[entry.offset : end] = entry.data
        return
    fate = rng.random()
    if fate < 0.3:
        return
    for at in range(0, len(entry.data), SECTOR):
        if fate < 0.6 and rng.random() < 0.3:
            continue  # Torn.
        piece = entry.data[at : at + SECTOR]
        place = entry.offset + at
        content += bytes(max(place + len(piece) - len(content), 0))
        content[place : place + len(piece)] = piece
