"""Where the examples run: a fresh directory, with the file in it or with a schema of a server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import server

from .program import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh directory; instances live in the file that a reader gets."""
    return Place(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The same once for each kind of database, the second by `SAYIIR_DATABASE_URL` alone."""
    if request.param == "sqlite":
        yield Place(tmp_path)
        return
    there = server.required(swift=True)
    schema = f"examples_{os.getpid()}"
    yield Place(tmp_path, there.url(schema=schema))
    there.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
