"""The storage contract as a test suite, for the author of a backend.

`sayiir.backends.Backend` says what a backend promises; here each promise is a test. Subclass
`BackendContract`, say how an empty backend is made, and let pytest run it::

    from sayiir.testing import BackendContract, VirtualClock

    class TestMine(BackendContract):
        async def make_backend(self, clock: VirtualClock) -> MyBackend:
            return MyBackend(clock=clock)

The backend's `now()`, its leases and its timers must follow the clock, which stands still until a
test moves it: nothing in the suite sleeps. It needs `pytest` and `pytest-asyncio`. Instances are
advanced by the engine itself, so commits are what a worker really writes. The suite knows nothing
of how a backend is made inside, and asks nothing of it that the contract does not promise.
"""

from __future__ import annotations

from ._events import EventContract
from ._hinting import HintContract, ListenContract
from ._leasing import LeaseContract
from ._listing import ListContract
from ._moving import MoveContract
from ._parents import OverContract, ParentContract
from ._parking import ParkContract
from ._pending import PendingContract
from ._queueing import QueueContract
from ._racing import RaceContract
from ._reading import ReadContract
from ._removing import GoneContract
from ._requests import RequestContract
from ._spreading import SpreadContract
from ._submitting import SubmitContract

__all__ = ["BackendContract", "HintContract"]


class BackendContract(
    SubmitContract,
    QueueContract,
    LeaseContract,
    ParkContract,
    EventContract,
    RequestContract,
    PendingContract,
    ReadContract,
    ListContract,
    ListenContract,
    SpreadContract,
    ParentContract,
    OverContract,
    GoneContract,
    MoveContract,
    RaceContract,
):
    """Every promise of `sayiir.backends.Backend`, one test each; see the module's opening.

    >>> class TestMemory(BackendContract):
    ...     async def make_backend(self, clock):
    ...         from sayiir import InMemoryBackend
    ...         return InMemoryBackend(clock=clock)
    >>> len([name for name in dir(TestMemory) if name.startswith("test_")]) > 100
    True
    """
