"""Servers for tests of one database: the shared one, and one of a module's own to ill-treat."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.crash.ground import Ground
from tests.postgres.night import GroundAt
from tests.postgres.server import LocalServer, Server, required, required_local

_log = logging.getLogger("tests.postgres")


@pytest.fixture(scope="session")
def postgres_server() -> Server:
    """The server that all tests share; started at its first use. Nobody may stop it."""
    return required()


@pytest.fixture(scope="module")
def own_server() -> Iterator[LocalServer]:
    """A server of the module's own, which it may stop and restart; it runs when a test begins."""
    with required_local() as server:
        yield server


@pytest.fixture
def seed() -> int:
    """Where all random choices of a test come from; `SAYIIR_SEED=n` gives one back."""
    given = os.environ.get("SAYIIR_SEED")
    seed = Random().randrange(10**9) if given is None else int(given)
    _log.warning("seed %d; SAYIIR_SEED=%d runs it again", seed, seed)
    return seed


@pytest.fixture
def ground_at(seed: int, tmp_path: Path) -> GroundAt:
    """What processes of `tests.crash` stand on, when their store is at a URL."""
    ledgers = tmp_path / "ledgers"
    ledgers.mkdir()
    return lambda url: Ground(url, ledgers, seed)
