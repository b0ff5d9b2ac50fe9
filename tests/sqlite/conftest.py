"""What the tests of faults share: a seed.

Every random choice comes from it. It is logged, so that a failure shows it, and `SAYIIR_SEED=n` in
the environment gives it back.
"""

import logging
import os
from random import Random

import pytest

_log = logging.getLogger("tests.sqlite")


@pytest.fixture
def seed() -> int:
    given = os.environ.get("SAYIIR_SEED")
    chosen = Random().randrange(10**9) if given is None else int(given)
    _log.warning("seed %d; SAYIIR_SEED=%d runs it again", chosen, chosen)
    return chosen
