"""What every test shares: how hypothesis searches, and how long a soak may take.

Promises that no test fails because a machine was slow, and that a failing property prints what
brings it back. Refuses to hold fixtures of one subject; they live beside their tests.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# The clock is no judge: a shared machine would fail what is right.
_ANY_MACHINE = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("each-change", _ANY_MACHINE)
settings.register_profile("soak", _ANY_MACHINE, max_examples=2_000)
settings.load_profile("each-change")


@pytest.fixture(scope="session")
def soak_seconds() -> float:
    """How long a test marked `soak` may go on, in seconds; `make soak` hands it down."""
    return float(os.environ.get("SAYIIR_SOAK_SECONDS", "60"))
