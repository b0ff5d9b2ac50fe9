"""What is refused before anything is opened: backends, policies, URLs, settings, paths.

Each with its class and a sentence that names the argument; nothing is left on the disk. What a URL
may say is in `test_url.py`, and files that cannot be opened are in `sqlite/`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sayiir import (
    BackendUnavailableError,
    InMemoryBackend,
    PostgresBackend,
    SqliteBackend,
    SyncWorkflowClient,
    WorkflowClient,
)
from sayiir.backends import Backend


@pytest.mark.parametrize("client", [WorkflowClient, SyncWorkflowClient])
@pytest.mark.parametrize(
    "bad", [None, 1, "memory://", object(), InMemoryBackend, SqliteBackend, {}]
)
def test_a_wrong_backend(client: Any, bad: Any) -> None:
    with pytest.raises(TypeError, match="backend must be a backend object"):
        client(bad)


def test_a_url_in_the_place_of_a_backend() -> None:
    with pytest.raises(TypeError, match="from_url"):
        WorkflowClient("memory://")  # type: ignore[arg-type]


@pytest.mark.parametrize("client", [WorkflowClient, SyncWorkflowClient])
@pytest.mark.parametrize("bad", ["", "Fail", "none"])
def test_an_unknown_policy(client: Any, bad: str) -> None:
    with pytest.raises(ValueError, match="conflict_policy must be one of 'fail', 'use_existing'"):
        client(InMemoryBackend(), bad)
    with pytest.raises(ValueError, match="conflict_policy"):
        client.from_url("memory://", bad)
    with pytest.raises(ValueError, match="conflict_policy"):
        WorkflowClient(InMemoryBackend()).with_conflict_policy(bad)  # type: ignore[arg-type]


SECRET = "hunter2"
BAD_URLS = [
    "",
    "memory",
    ":memory:",
    "://",
    "memory:/",
    f"memory://{SECRET}",
    f"user:{SECRET}@host://db",
    f"mysql://user:{SECRET}@host/db",
    f"sqlite://{SECRET}",
    f"{SECRET} ://",
    f"{SECRET}" * 10 + "://",
    "postgresql\0://",
]


@pytest.mark.parametrize("bad", BAD_URLS)
@pytest.mark.parametrize("client", [WorkflowClient, SyncWorkflowClient])
def test_a_bad_url_is_refused_and_not_quoted(client: Any, bad: str) -> None:
    with pytest.raises(ValueError, match=r"url .*memory://") as raised:
        client.from_url(bad)
    assert SECRET not in str(raised.value)


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ValueError, match=r"'mysql'.* memory://.* sqlite:///.* postgresql://"):
        WorkflowClient.from_url("mysql://host/db")


@pytest.mark.parametrize("bad", [1, b"memory://", ["memory://"]])
def test_a_url_that_is_no_text(bad: Any) -> None:
    with pytest.raises(TypeError, match="url"):
        WorkflowClient.from_url(bad)


SETTINGS = [
    *(
        (kind, setting)
        for kind in ("memory", "sqlite", "postgres")
        for setting in ("keep_completed", "keep_events")
    ),
    *((kind, "timeout") for kind in ("sqlite", "postgres")),
    *(("postgres", setting) for setting in ("statement_timeout", "connect_timeout")),
]
NOWHERE = f"postgresql://user:{SECRET}@127.0.0.1:1/db"
"""Nobody listens there, and nobody is asked before the first call."""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Backend]:
    """Makes a backend of a kind, in a folder where nothing must be left when that is refused."""

    def make(kind: str, **settings: Any) -> Backend:
        if kind == "memory":
            return InMemoryBackend(**settings)
        if kind == "postgres":
            return PostgresBackend(NOWHERE, **settings)
        return SqliteBackend(tmp_path / "new.db", **settings)

    return make


@pytest.mark.parametrize(("kind", "setting"), SETTINGS)
@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, 1e300, 1e18, "soon"])
def test_a_bad_setting_of_a_backend(
    made: Callable[..., Backend], tmp_path: Path, kind: str, setting: str, bad: Any
) -> None:
    with pytest.raises(ValueError, match=setting):
        made(kind, **{setting: bad})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "setting"), SETTINGS)
@pytest.mark.parametrize("bad", [True, b"1s", [1]])
def test_a_setting_of_a_backend_of_a_wrong_kind(
    made: Callable[..., Backend], tmp_path: Path, kind: str, setting: str, bad: Any
) -> None:
    with pytest.raises(TypeError, match=setting):
        made(kind, **{setting: bad})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        *((word, ValueError) for word in ("", "FULL", "off", "full\0", "x" * 1_000_000)),
        *((kind, TypeError) for kind in (1, None, True, b"full")),
    ],
)
def test_how_a_file_is_written_is_one_of_two_words(
    tmp_path: Path, bad: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="synchronous") as raised:
        SqliteBackend(tmp_path / "new.db", synchronous=bad)
    assert len(str(raised.value)) < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [None, 1, b"new.db", ["new.db"]])
def test_a_path_that_is_no_path(bad: Any) -> None:
    with pytest.raises(TypeError, match="path"):
        SqliteBackend(bad)


@pytest.mark.parametrize("bad", ["", "new\0.db", "new\ud800.db"])
def test_a_path_that_names_no_file(bad: str) -> None:
    with pytest.raises(ValueError, match="path"):
        SqliteBackend(bad)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        *((name, ValueError) for name in ("", "Upper", "with-dash", "1st", "x" * 64, "a.b", "s\0")),
        *((name, ValueError) for name in ('"; DROP TABLE x', "ü", "x" * 1_000_000)),
        *((kind, TypeError) for kind in (None, 1, b"sayiir")),
    ],
)
def test_a_bad_schema(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="schema") as raised:
        PostgresBackend(NOWHERE, schema=bad)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        *((count, ValueError) for count in (-1, 0, 1, 101, 10**30)),
        *((kind, TypeError) for kind in (None, True, "4", 4.0)),
    ],
)
def test_a_bad_budget_of_connections(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_connections"):
        PostgresBackend(NOWHERE, max_connections=bad)


@pytest.mark.parametrize("switch", ["notify", "migrate"])
@pytest.mark.parametrize("bad", [None, 0, 1, "on"])
def test_a_switch_that_is_neither_on_nor_off(switch: str, bad: Any) -> None:
    settings: dict[str, Any] = {switch: bad}
    with pytest.raises(TypeError, match=switch):
        PostgresBackend(NOWHERE, **settings)


@pytest.mark.parametrize("bad", [None, 1, b"postgresql://host/db", ["postgresql://host/db"]])
def test_a_server_that_is_no_text(bad: Any) -> None:
    with pytest.raises(TypeError, match="url"):
        PostgresBackend(bad)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "postgresql:/",
        f"mysql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:port/db",
        f"postgresql://user:{SECRET}@host:99999/db",
        f"postgresql://user:{SECRET}%zz@host/db",
        f"postgresql://user:{SECRET}@host/db?sslmode=never",
        f"postgresql://user:{SECRET}@host/db?{SECRET}=1",
        f"postgresql://user:{SECRET}@host/db\0",
    ],
)
def test_a_server_that_cannot_be_named_so(bad: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)url|port of host") as raised:
        PostgresBackend(bad)
    assert SECRET not in str(raised.value)


async def test_a_server_that_is_not_there_is_said_with_the_first_call() -> None:
    backend = PostgresBackend(NOWHERE, connect_timeout="2s")
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:1") as raised:
        await WorkflowClient(backend).status("i")
    assert SECRET not in f"{raised.value}{backend!r}"
    await backend.close()
