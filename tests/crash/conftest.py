"""Where a crash test takes place: a store, a folder for the ledgers, and a seed.

Every random choice comes from the seed. It is logged, so that a failure shows it, and
`SAYIIR_SEED=n` in the environment gives it back. Stores are known by their URLs alone.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .ground import Ground

_log = logging.getLogger("tests.crash")

MEMORY = Path("/dev/shm")


@pytest.fixture(params=["sqlite"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    """A store on a disk."""
    return _ground(request.param, tmp_path)


@pytest.fixture(params=["sqlite"])
def swift_ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A store that no slow disk can hold up, for tests that judge short leases.

    A renewal has to be written, so a disk that stands still for longer than a lease ends it; that
    would be told as a breach, and is none.
    """
    if not MEMORY.is_dir():
        yield _ground(request.param, tmp_path)
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="sayiir-") as folder:
        yield _ground(request.param, Path(folder))


def _ground(backend: str, folder: Path) -> Ground:
    given = os.environ.get("SAYIIR_SEED")
    seed = Random().randrange(10**9) if given is None else int(given)
    _log.warning("seed %d; SAYIIR_SEED=%d runs it again", seed, seed)
    ledgers = folder / "ledgers"
    ledgers.mkdir()
    urls = {"sqlite": f"sqlite:///{folder / 'store.db'}"}
    return Ground(urls[backend], ledgers, seed)
