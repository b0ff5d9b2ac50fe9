"""Where a crash test takes place: a store, a folder for the ledgers, and a seed.

Every random choice comes from the seed. It is logged, so that a failure shows it, and
`SAYIIR_SEED=n` in the environment gives it back. Stores are known by their URLs alone.
"""

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from tests.postgres import server

from .ground import Ground

_log = logging.getLogger("tests.crash")

MEMORY = Path("/dev/shm")
BACKENDS = ("sqlite", "postgres")
_numbers = itertools.count()


@pytest.fixture(params=BACKENDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A store on a disk."""
    with _store(request.param, tmp_path, swift=False) as url:
        yield _ground(url, tmp_path)


@pytest.fixture(params=BACKENDS)
def swift_ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A store that no slow disk can hold up, for tests that judge short leases.

    A renewal has to be written, so a disk that stands still for longer than a lease ends it; that
    would be told as a breach, and is none.
    """
    memory = MEMORY if MEMORY.is_dir() else tmp_path
    with (
        tempfile.TemporaryDirectory(dir=memory, prefix="sayiir-") as folder,
        _store(request.param, Path(folder), swift=True) as url,
    ):
        yield _ground(url, Path(folder))


@contextmanager
def _store(backend: str, folder: Path, *, swift: bool) -> Iterator[str]:
    """The URL of a store of its own: a file of this folder, or a schema of the shared server."""
    if backend == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
        return
    here = server.required(swift=swift)
    schema = f"crash_{os.getpid()}_{next(_numbers)}"
    yield here.url(schema=schema)
    here.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _ground(url: str, folder: Path) -> Ground:
    given = os.environ.get("SAYIIR_SEED")
    seed = Random().randrange(10**9) if given is None else int(given)
    _log.warning("seed %d; SAYIIR_SEED=%d runs it again", seed, seed)
    ledgers = folder / "ledgers"
    ledgers.mkdir()
    return Ground(url, ledgers, seed)
