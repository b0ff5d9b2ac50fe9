"""Every backend keeps the storage contract; the suite itself is `sayiir.testing.contract`."""

from pathlib import Path

import pytest
from benches.python_backend import PythonBackend

from sayiir import InMemoryBackend, SqliteBackend
from sayiir.backends import Backend
from sayiir.testing import BackendContract, HintContract, VirtualClock


class TestInMemoryBackend(BackendContract, HintContract):
    async def make_backend(self, clock: VirtualClock) -> Backend:
        return InMemoryBackend(clock=clock)


class TestPythonBackend(BackendContract, HintContract):
    async def make_backend(self, clock: VirtualClock) -> Backend:
        return PythonBackend(clock=clock)


class TestSqliteBackend(BackendContract, HintContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "work.db"

    async def make_backend(self, clock: VirtualClock) -> Backend:
        return SqliteBackend(self.path, clock=clock)
