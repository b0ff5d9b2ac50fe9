"""Backends by URL: what a URL may say, what is refused, and that nothing secret is quoted.

Reading is tried apart from opening: `address_of` touches no file, so that paths can be anything.
What a backend does once it is open is its contract's business.
"""

from pathlib import Path
from typing import Any

import pytest

from sayiir import (
    InMemoryBackend,
    PostgresBackend,
    SqliteBackend,
    SyncWorkflowClient,
    WorkflowClient,
)
from sayiir._url import DEFAULT_URL, URL_VARIABLE, Address, address_of, connect

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _no_url_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("memory://", Address("memory")),
        ("MEMORY://", Address("memory")),
        ("sqlite:///app.db", Address("sqlite", "app.db")),
        ("SQLite:///app.db", Address("sqlite", "app.db")),
        ("sqlite:///a/b/c.db", Address("sqlite", "a/b/c.db")),
        ("sqlite:///./app.db", Address("sqlite", "./app.db")),
        ("sqlite:///../app.db", Address("sqlite", "../app.db")),
        ("sqlite:////var/lib/app.db", Address("sqlite", "/var/lib/app.db")),
        ("sqlite://///var/app.db", Address("sqlite", "//var/app.db")),
        ("sqlite:///a%20b%23%3F%25.db", Address("sqlite", "a b#?%.db")),
        ("sqlite:///a b+c.db", Address("sqlite", "a b+c.db")),
        ("sqlite:///%C3%BC%f0%9f%a6%80.db", Address("sqlite", "ü🦀.db")),
        ("sqlite:///ü🦀.db", Address("sqlite", "ü🦀.db")),
        ("sqlite:///who@host:5432.db", Address("sqlite", "who@host:5432.db")),
        (
            "sqlite:///a.db?synchronous=normal&keep_completed=7d&keep_events=1h30m&timeout=500ms",
            Address(
                "sqlite",
                "a.db",
                {
                    "synchronous": "normal",
                    "keep_completed": "7d",
                    "keep_events": "1h30m",
                    "timeout": "500ms",
                },
            ),
        ),
        ("sqlite:///a.db?timeout=%31%30s", Address("sqlite", "a.db", {"timeout": "10s"})),
    ],
)
def test_what_a_url_says(url: str, address: Address) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with a scheme"),
        ("app.db", "must begin with a scheme"),
        ("sqlite:app.db", "'//' behind 'sqlite:'"),
        ("sqlite:/app.db", "'//' behind 'sqlite:'"),
        (f"postgresql:/u:{SECRET}@h/x", "'//' behind 'postgresql:'"),
        (f"postgres:u:{SECRET}@h/x", "'//' behind 'postgres:'"),
        (f"host=h dbname=x password={SECRET}", "of the form 'host=… dbname=…'"),
        (f"postgresql://u:{SECRET}@host/db\n", "ends with a line break"),
        (":memory:", "must begin with a scheme"),
        ("://", "must begin with a scheme"),
        (f"{SECRET} ://", "must begin with a scheme"),
        (SECRET * 10 + "://", "must begin with a scheme"),
        ("memory\0://", "must begin with a scheme"),
        (f"memory://{SECRET}", "nothing behind it"),
        ("memory:///", "nothing behind it"),
        (f"memory://?keep_completed={SECRET}", "nothing behind it"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite://?timeout=1s", "names no file"),
        ("sqlite:///?timeout=1s", "names no file"),
        ("sqlite:///%2F", "names no file"),
        ("sqlite://app.db", "host after sqlite://"),
        (f"sqlite://user:{SECRET}@host/app.db", "host after sqlite://"),
        ("sqlite://./app.db", "host after sqlite://"),
        ("sqlite:///:memory:", "write memory://"),
        (f"sqlite:///{SECRET}#part", "write %23"),
        (f"sqlite:///{SECRET}%", "'%' in its path"),
        (f"sqlite:///{SECRET}%2", "'%' in its path"),
        (f"sqlite:///{SECRET}%zz", "'%' in its path"),
        (f"sqlite:///{SECRET}%ff", "not UTF-8"),
        (f"sqlite:///{SECRET}\ud800", "not UTF-8"),
        (f"sqlite:///{SECRET}%00", "NUL"),
        (f"sqlite:///{SECRET}\0", "NUL"),
        ("sqlite:///a.db?", "option that is not known"),
        ("sqlite:///a.db?timeout", "option 'timeout' that is not known or has no value"),
        ("sqlite:///a.db?timeout=1s&", "option that is not known"),
        ("sqlite:///a.db?TIMEOUT=1s", "option that is not known"),
        (f"sqlite:///a.db?password={SECRET}", "option 'password' that is not known"),
        (f"sqlite:///a.db?{SECRET}=1", "option that is not known"),
        ("sqlite:///a.db?timeout=1s&timeout=2s", "'timeout' twice"),
        (f"sqlite:///a.db?synchronous={SECRET}", "synchronous must be 'full' or 'normal'"),
        ("sqlite:///a.db?synchronous=off", "synchronous must be 'full' or 'normal'"),
        ("sqlite:///a.db?timeout=soon", "timeout: 'soon' is not a duration"),
        ("sqlite:///a.db?keep_completed=", "keep_completed: '' is not a duration"),
        ("sqlite:///a.db?keep_events=-1s", "keep_events: '-1s' is not a duration"),
        ("sqlite:///a.db?timeout=%zz", "'%' in its option 'timeout'"),
        (f"mysql://user:{SECRET}@host/db", "'mysql', which has no backend"),
        (f"postgresql://u:{SECRET}@host/db?notify={SECRET}", "notify must be 'on' or 'off'"),
        (f"postgresql://u:{SECRET}@host/db?timeout=1s&timeout=2s", "the option 'timeout' twice"),
        (f"postgresql://u:{SECRET}@host/db?max_connections={SECRET}", "must be a number"),
        (f"postgresql+psycopg://user:{SECRET}@host/db", "'+psycopg' in its scheme"),
        (f"postgresql://u:{SECRET}@host/db?service={SECRET}", "names a service"),
        (f"postgresql://u:{SECRET}@host/db?max_connection=4", "did you mean 'max_connections'?"),
        (f"postgresql://u:{SECRET}@host/db?SCHEMA=x", "option 'schema' in capitals"),
        (f"postgresql://u:{SECRET}@host/db?sslMode={SECRET}", "option 'ssl…' in capitals"),
        ("mysql+aiomysql://host/db", "'mysql+aiomysql', which has no backend"),
        (f"user:{SECRET}@host://db", "must begin with a scheme"),
    ],
)
def test_what_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^url\b") as raised:
        address_of(url)
    assert says in str(raised.value)
    assert SECRET not in str(raised.value)
    # Nor does a traceback that ends up in a log show a cause that quotes it.
    assert raised.value.__cause__ is None or SECRET not in str(raised.value.__cause__)


@pytest.mark.parametrize("url", [1, b"memory://", ["memory://"], Path("app.db"), True])
def test_what_is_no_text(url: Any) -> None:
    with pytest.raises(TypeError, match=f"url must be a str or None, got {type(url).__name__}"):
        connect(url)


def test_nothing_said_is_a_file_here() -> None:
    assert DEFAULT_URL == "sqlite:///sayiir.db"
    assert address_of() == address_of(None) == Address("sqlite", "sayiir.db")


def test_the_environment_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "memory://")
    assert isinstance(connect(), InMemoryBackend)
    assert address_of("sqlite:///other.db").path == "other.db"
    monkeypatch.setenv(URL_VARIABLE, "")
    assert address_of() == Address("sqlite", "sayiir.db")


def test_a_bad_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"mysql://user:{SECRET}@host/db")
    with pytest.raises(ValueError, match=r"the url in SAYIIR_DATABASE_URL .*'mysql'") as found:
        connect()
    assert SECRET not in str(found.value)


async def test_a_file_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = connect(f"sqlite:///{tmp_path}/there%20.db?synchronous=normal&timeout=5s")
    here = connect("sqlite:///here.db")
    assert isinstance(there, SqliteBackend)
    assert isinstance(here, SqliteBackend)
    assert (there.path, here.path) == (str(tmp_path / "there .db"), str(tmp_path / "here.db"))
    assert (tmp_path / "there .db").is_file()
    await there.close()
    await here.close()


async def test_a_client_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with WorkflowClient.from_url() as client:
        assert isinstance(client.backend, SqliteBackend)
        assert client.backend.path == str(tmp_path / "sayiir.db")


def test_a_client_without_a_loop_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path}/app.db")
    with SyncWorkflowClient.from_url() as client:
        assert isinstance(client.backend, SqliteBackend)
        assert len(client.list_instances()) == 0


def test_a_bad_policy_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="conflict_policy"):
        WorkflowClient.from_url(f"sqlite:///{tmp_path}/app.db", "never")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


async def test_a_server_by_url() -> None:
    url = (
        f"postgres://user:{SECRET}@db.example:6543/shop?sslmode=require&schema=work&notify=off"
        "&max_connections=2&connect_timeout=3&keep_completed=7d"
    )
    address = address_of(url)
    assert address.path == f"postgresql://user:{SECRET}@db.example:6543/shop?sslmode=require"
    assert address.options == {
        "schema": "work",
        "notify": False,
        "max_connections": 2,
        "connect_timeout": 3,
        "keep_completed": "7d",
    }
    backend = connect(url)
    assert isinstance(backend, PostgresBackend)
    assert (backend.schema, SECRET in repr(backend)) == ("work", False)
    assert SECRET not in repr(address)
    await backend.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://u:{SECRET}@host/db?max_connections=1", "must be 2 to 100"),
        (f"postgresql://u:{SECRET}@host/db?schema=Upper", "schema must be a name"),
        (f"postgresql://u:{SECRET}@host/db?sslmode=never", "sslmode"),
        (f"postgresql://u:{SECRET}@host/db?unheard_of=1", "unheard_of"),
        (f"postgresql://u:{SECRET}@host:port/db", "port"),
        (f"postgresql://u:{SECRET}@host/db?connect_timeout=0", "connect_timeout must be"),
        (f"postgresql://u:{SECRET}@host/db?statement_timeout=0", "statement_timeout must be"),
        # A password with a '?' in it, or so it seems.
        (f"postgresql://u:a?timeout={SECRET}@host/db", "'@' behind its '\\?'"),
        (f"postgresql://u:a?schema={SECRET}@host/db", "'@' behind its '\\?'"),
    ],
)
def test_what_a_server_cannot_be_told(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        connect(url)
    assert str(raised.value).startswith("url")
    assert SECRET not in str(raised.value)


def test_a_refused_url_of_the_environment_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"postgresql://u:{SECRET}@host:port/db")
    with pytest.raises(ValueError, match=f"^the url in {URL_VARIABLE}: the port of host 1") as told:
        connect()
    assert SECRET not in str(told.value)
    assert told.value.__cause__ is None


def test_options_of_libpq_are_not_taken_for_slips() -> None:
    names = ["connect_timeout", "keepalives", "keepalives_idle", "options", "passfile", "sslcert"]
    for name in [*names, "application_name", "target_session_attrs", "tcp_user_timeout"]:
        address_of(f"postgresql://h/db?{name}=1")
