"""Where files of the benches lie: on a disk, as far as that can be known.

That is `SAYIIR_BENCH_DIR`, else `/var/tmp`, which outlives a reboot and is therefore seldom in
memory, else the folder for temporary files. On a file system in memory durable commits cost nothing
and their figures say nothing; `file_system` tells.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["file_system", "ground"]


def ground() -> Path:
    """The folder below which files are made."""
    if given := os.environ.get("SAYIIR_BENCH_DIR"):
        return Path(given)
    lasting = Path("/var/tmp")
    return lasting if os.access(lasting, os.W_OK) else Path(tempfile.gettempdir())


def file_system() -> str:
    """The kind of file system that the files lie on; empty where the system does not tell.

    >>> isinstance(file_system(), str)
    True
    """
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    folder = ground().resolve()
    kinds = {Path(point): kind for _, point, kind, *_ in (line.split() for line in lines)}
    return next((kinds[at] for at in (folder, *folder.parents) if at in kinds), "")
