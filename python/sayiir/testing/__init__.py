"""For tests of workflows, and for tests of backends.

For workflows: `TestEnvironment` runs them in memory under a clock that the test moves, and is what
the pytest fixture `sayiir_env` gives; `crash_after_each_step` runs one with a crash at every
checkpoint; `assert_ran` and its like read a history.

For backends: `BackendContract` is the storage contract as a pytest suite; `HintContract` adds what
backends within one process promise about hints. `VirtualClock` is a clock that stands still,
`HandWorker` a worker that does only what it is told, `new_instance` makes what a backend is given
to create.

Only the two suites need `pytest` and `pytest-asyncio`, and they are loaded when they are asked for.
"""

import sys
from typing import TYPE_CHECKING

# Before the modules with the assertions of the suites are loaded, so that a failure shows the
# values; without pytest there is nobody to show them.
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
if (_pytest := sys.modules.get("pytest")) is not None:
    _pytest.register_assert_rewrite(*(f"{__name__}._{part}" for part in _PARTS))

from ._clocks import VirtualClock  # noqa: E402
from ._crashing import (  # noqa: E402
    CrashPoint,
    CrashReport,
    crash_after_each_step,
    crash_after_each_step_async,
)
from ._environment import TestEnvironment  # noqa: E402
from ._flows import new_instance  # noqa: E402
from ._hand import HandWorker, Held  # noqa: E402
from ._histories import History, assert_never_ran, assert_ran, assert_ran_once  # noqa: E402
from ._mocking import Mock  # noqa: E402
from ._sync_environment import SyncTestEnvironment  # noqa: E402

if TYPE_CHECKING:
    from .contract import BackendContract, HintContract

__all__ = [
    "BackendContract",
    "CrashPoint",
    "CrashReport",
    "HandWorker",
    "Held",
    "HintContract",
    "History",
    "Mock",
    "SyncTestEnvironment",
    "TestEnvironment",
    "VirtualClock",
    "assert_never_ran",
    "assert_ran",
    "assert_ran_once",
    "crash_after_each_step",
    "crash_after_each_step_async",
    "new_instance",
]


def __getattr__(name: str) -> object:
    if name in ("BackendContract", "HintContract"):
        from . import contract

        return getattr(contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
