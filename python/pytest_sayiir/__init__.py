"""The pytest plugin: the fixture `sayiir_env`, for tests of workflows.

pytest loads this module in every run on a machine where sayiir is installed, so it costs nothing:
it stands outside the package, imports nothing of it, and looks at no test. The package is imported
when a test asks for the fixture. What the fixture can do is said in `sayiir.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sayiir.testing import TestEnvironment

__all__ = ["sayiir_env"]


@pytest.fixture
def sayiir_env() -> Iterator[TestEnvironment]:
    """A place of its own for workflows to run in, with a clock that the test moves.

    See `sayiir.testing.TestEnvironment`. In a test without an event loop use `sayiir_env.sync`.
    """
    from sayiir.testing import TestEnvironment

    environment = TestEnvironment()
    try:
        yield environment
    finally:
        environment.close()
