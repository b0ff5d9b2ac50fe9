"""Every backend keeps the storage contract; the suite itself is `sayiir.testing.contract`."""

from benches.python_backend import PythonBackend

from sayiir import InMemoryBackend
from sayiir.backends import Backend
from sayiir.testing import BackendContract, HintContract, VirtualClock


class TestInMemoryBackend(BackendContract, HintContract):
    async def make_backend(self, clock: VirtualClock) -> Backend:
        return InMemoryBackend(clock=clock)


class TestPythonBackend(BackendContract, HintContract):
    async def make_backend(self, clock: VirtualClock) -> Backend:
        return PythonBackend(clock=clock)
