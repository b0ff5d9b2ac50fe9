"""Processes whose wall clock is wrong, as that of a machine whose date nobody set.

A small library (`shift_clock.c`), loaded before the C library, shifts what tells the time of day
and leaves alone what measures durations. It reaches everything that asks the C library: Python,
and the threads of the store. Refuses to shift the clock of the process that is asked for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("shift_clock.c")
SHIFT = "SAYIIR_CLOCK_SHIFT_S"


def build(folder: Path) -> Path | None:
    """Build the library; `None` where it cannot be: no C compiler, or another kind of system."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "shift_clock.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([compiler, *options, str(SOURCE), "-ldl"], check=True)
    return library


@contextmanager
def shifted(library: Path, seconds: int) -> Iterator[None]:
    """Processes that are started meanwhile have a clock that is so far ahead; negative: behind."""
    environment = {"LD_PRELOAD": str(library), SHIFT: str(seconds)}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
