"""Every backend keeps the storage contract; the suite itself is `sayiir.testing.contract`."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from benches.python_backend import PythonBackend
from tests.postgres.server import required

from sayiir import InMemoryBackend, PostgresBackend, SqliteBackend
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


class TestPostgresBackend(BackendContract, HintContract):
    numbers = count()

    @pytest.fixture(autouse=True)
    def place(self) -> Iterator[None]:
        self.server = required(swift=True)
        self.schema = f"contract_{os.getpid()}_{next(self.numbers)}"
        yield
        self.server.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")

    async def make_backend(self, clock: VirtualClock) -> Backend:
        return PostgresBackend(self.server.url(), schema=self.schema, clock=clock)
