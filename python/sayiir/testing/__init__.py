"""For tests of workflows and of backends.

`BackendContract` is the storage contract as a pytest suite; `HintContract` adds what backends
within one process promise about hints. `VirtualClock` is a clock that stands still, `HandWorker`
a worker that does only what it is told, `new_instance` makes what a backend is given to create.

Importing it needs `pytest` and `pytest-asyncio`; the rest of the package does not import it.
"""

import pytest

# Before the modules with the assertions are loaded, so that a failure shows the values.
_PARTS = (
    "events",
    "family",
    "ground",
    "hinting",
    "leasing",
    "listing",
    "parents",
    "parking",
    "pending",
    "queueing",
    "racing",
    "reading",
    "removing",
    "requests",
    "spreading",
    "submitting",
)
pytest.register_assert_rewrite(*(f"{__name__}._{part}" for part in _PARTS))

from ._clocks import VirtualClock  # noqa: E402
from ._flows import new_instance  # noqa: E402
from ._hand import HandWorker, Held  # noqa: E402
from .contract import BackendContract, HintContract  # noqa: E402

__all__ = [
    "BackendContract",
    "HandWorker",
    "Held",
    "HintContract",
    "VirtualClock",
    "new_instance",
]
