"""What every test shares: the backends, how hypothesis searches, and how long a soak may take.

Promises that a test which asks for a backend runs on every one, that no test fails because a
machine was slow, and that a failing property prints what brings it back. Refuses to hold fixtures
of one subject; they live beside their tests.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from random import Random

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from tests.stepping import Stage, Stages
from tests.working import BACKENDS, Places

from sayiir.backends import Backend

# The clock is no judge: a shared machine would fail what is right.
_ANY_MACHINE = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("each-change", _ANY_MACHINE)
settings.register_profile("soak", _ANY_MACHINE, max_examples=2_000)
settings.load_profile("each-change")


@pytest_asyncio.fixture(params=BACKENDS)
async def places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    """Makes backends: a test that uses it runs once on each kind."""
    async with Places(request.param) as made:
        yield made


@pytest.fixture
def backend(places: Places) -> Backend:
    """An empty backend: a test that uses it runs once on each kind."""
    return places()


@pytest.fixture
def stages(places: Places) -> Stages:
    """Makes stages: a test that uses it runs once on each kind of backend."""
    return partial(Stage, places)


@pytest.fixture(scope="session")
def soak_seconds(request: pytest.FixtureRequest) -> float:
    """How long a test marked `soak` may go on, in seconds: its share of what the run may take."""
    soaking = sum(item.get_closest_marker("soak") is not None for item in request.session.items)
    return float(os.environ.get("SAYIIR_SOAK_SECONDS", "900")) / max(soaking, 1)


@pytest.fixture
def soak_rounds(soak_seconds: float) -> Callable[[int], Iterator[int]]:
    """Seeds of the rounds of a long test: so many at most, while its share of the time lasts.

    They are fresh each time, whatever hypothesis was told: one seed for all rounds of a property
    would make every round the first one again.
    """

    def rounds(most: int) -> Iterator[int]:
        fresh = Random()
        end = time.monotonic() + soak_seconds
        for _ in range(most):
            yield fresh.randrange(2**32)
            if time.monotonic() > end:
                break

    return rounds
