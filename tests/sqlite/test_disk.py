"""Disks that are full, read-only, gone or locked, and processes that die on them.

Every trouble is a typed error that names the file, in its time; what was answered before stays, and
when the trouble is over, the same objects go on by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sayiir import BackendUnavailableError, Flow, SqliteBackend, Worker, WorkflowClient

from .forked import ECHO
from .orders import Nursery, Program
from .picture import opened
from .walk import oracle

LONG = 30.0
NOBODY = 65534
DISK_BYTES = 2 << 20


class Disk:
    """A small disk of its own where this process may mount one, else a limit to all files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        folder.mkdir()
        options = f"size={DISK_BYTES}".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        self.mounted = libc.mount(b"none", bytes(folder), b"tmpfs", 0, options) == 0

    def fill(self, path: Path) -> None:
        """Leave no space for the store at this path."""
        if not self.mounted:
            wal = path.with_name(f"{path.name}-wal")
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, self._limits[1]))
            return
        with self._ballast.open("wb", buffering=0) as ballast:
            for size in (65_536, 4_096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size))

    def free(self) -> None:
        """Space again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the disk back."""
        self.free()
        if self.mounted:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.umount(bytes(self.folder)) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that whoever this process pretends to be can reach."""
    with tempfile.TemporaryDirectory(prefix="sayiir-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextlib.contextmanager
def as_anybody() -> Iterator[None]:
    """Without the superuser's right to write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def names(path: Path) -> str:
    """What an error must say."""
    return f"SQLite file '{path}': "


# Full.


async def test_work_goes_on_by_itself_when_a_full_disk_has_space_again(disk: Disk) -> None:
    path = disk.folder / "store.db"
    gate = asyncio.Event()
    runs: list[int] = []

    async def wait(x: int) -> int:
        runs.append(x)
        await gate.wait()
        return x + 1

    flow = Flow("patient").then(wait).then(lambda x: x * 10, name="times").build()
    backend = SqliteBackend(path)
    client = WorkflowClient(backend)
    async with Worker(backend, flow, concurrency=8, poll_interval="50ms"):
        handles = [await client.submit(flow, f"i-{n}", n) for n in range(8)]
        while len(runs) < 8:  # noqa: ASYNC110
            await asyncio.sleep(0)  # The bodies are about to run, and nothing else tells.
        disk.fill(path)
        refused = 0
        for n in range(8, 16):
            with contextlib.suppress(BackendUnavailableError):
                handles.append(await client.submit(flow, f"i-{n}", n))
                continue
            refused += 1
        assert refused > 0
        with pytest.raises(BackendUnavailableError) as caught:
            await client.submit(ECHO, "big", bytes(DISK_BYTES))
        assert str(caught.value).startswith(names(path))
        # What is there can still be read.
        assert (await client.status("i-0")).status == "in_progress"
        gate.set()  # Now eight checkpoints meet a full disk.
        with pytest.raises(TimeoutError):
            await asyncio.gather(*(handle.result(timeout=0.3) for handle in handles))
        disk.free()
        outputs = [await handle.result(timeout=LONG) for handle in handles]
        late = await client.submit(flow, "late", 100)
        assert await late.result(timeout=LONG) == 1010
    assert outputs == [(n + 1) * 10 for n in range(len(handles))]
    await backend.close()
    with opened(path) as connection:
        ids = {name for (name,) in connection.execute("SELECT id FROM instances")}
    assert ids == {handle.instance_id for handle in handles} | {"late"}


async def test_a_file_that_a_full_disk_does_not_take_is_not_made(disk: Disk) -> None:
    path = disk.folder / "store.db"
    path.with_name(f"{path.name}-wal").touch()
    disk.fill(path)
    with pytest.raises(BackendUnavailableError) as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(names(path))
    disk.free()
    backend = SqliteBackend(path)
    async with Worker(backend, ECHO):
        assert await (await WorkflowClient(backend).submit(ECHO, input=1)).result(LONG) == 1
    await backend.close()


def test_a_write_that_fails_is_named_and_undone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Program("bounded", path) as program:
        for kind, text in program.hear():
            assert kind == "BackendUnavailableError"
            assert text.startswith(names(path))
            assert "nothing was written" in text
        assert program.hear() == [*range(10), *range(10)]
        assert program.ended() == 0
    with opened(path) as connection:
        during = "SELECT count(*) FROM instances WHERE id LIKE 'during%'"
        assert connection.execute(during).fetchone() == (0,)


# Read-only.


def made(path: Path) -> None:
    """Make a store and close it."""

    async def main() -> None:
        backend = SqliteBackend(path)
        await WorkflowClient(backend).submit(ECHO, "kept", 1)
        await backend.close()

    asyncio.run(main())


def test_a_file_that_may_not_be_written_is_named(open_folder: Path) -> None:
    path = open_folder / "store.db"
    made(path)
    path.chmod(0o444)
    with as_anybody(), pytest.raises(BackendUnavailableError, match="permissions") as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(names(path))


def test_a_file_that_may_not_be_read_is_named(open_folder: Path) -> None:
    path = open_folder / "store.db"
    made(path)
    path.chmod(0)
    with as_anybody(), pytest.raises(BackendUnavailableError) as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(names(path))


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_folder_that_may_not_be_written_is_named(open_folder: Path, there: bool) -> None:
    path = open_folder / "store.db"
    if there:
        made(path)
        path.chmod(0o666)
    open_folder.chmod(0o555)
    with as_anybody(), pytest.raises(BackendUnavailableError) as caught:
        SqliteBackend(path)
    open_folder.chmod(0o777)
    assert str(caught.value).startswith(names(path))
    made(open_folder / "other.db")
    if there:
        path.chmod(0o666)
        with opened(path) as connection:
            assert connection.execute("SELECT id FROM instances").fetchall() == [("kept",)]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "store.db"
    with pytest.raises(BackendUnavailableError, match="does not exist") as caught:
        SqliteBackend(path)
    assert str(caught.value).startswith(names(path))
    assert str(path.parent) in str(caught.value)
    assert not path.parent.exists()


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="folder") as caught:
        SqliteBackend(tmp_path)
    assert str(caught.value).startswith(names(tmp_path))
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(BackendUnavailableError):
        SqliteBackend(file / "store.db")


# Locked.


@pytest.mark.parametrize("whole", [False, True], ids=["write-lock", "whole-file"])
async def test_opening_a_locked_file_takes_its_time_and_no_longer(
    tmp_path: Path, whole: bool
) -> None:
    path = tmp_path / "store.db"
    await asyncio.to_thread(made, path)
    with Program("lock", path, whole) as locker:
        assert locker.hear() == "locked"
        began = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="locked") as caught:
            SqliteBackend(path, timeout="300ms")
        assert 0.3 <= time.monotonic() - began < 5
        assert str(caught.value).startswith(names(path))
        locker.say()
        assert locker.hear() == "free"
        await SqliteBackend(path, timeout="5s").close()


async def test_a_lock_is_waited_for_and_is_an_error_only_after_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    backend = SqliteBackend(path, timeout="500ms")
    client = WorkflowClient(backend)
    async with Worker(backend, ECHO, poll_interval="100ms"):
        handle = await client.submit(ECHO, "first", 1)
        assert await handle.result(LONG) == 1
        with Program("lock", path, False) as locker:
            assert locker.hear() == "locked"
            began = time.monotonic()
            calls = [client.submit(ECHO, f"n-{n}", n) for n in range(20)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            lasted = time.monotonic() - began
            for error in found:
                assert isinstance(error, BackendUnavailableError)
                assert str(error).startswith(names(path))
                assert "locked" in str(error)
            # Each call has its time, and they wait together, not one after the other.
            assert 0.5 <= lasted < 5
            # Reading needs no lock.
            assert (await client.status("first")).output == 1
            locker.say()
            assert locker.hear() == "free"
        handles = [await client.submit(ECHO, f"n-{n}", n) for n in range(20)]
        assert [await handle.result(LONG) for handle in handles] == list(range(20))
    await backend.close()


# Killed.


def kill_at_random(tmp_path: Path, rng: Random, kills: int, seconds: float) -> None:
    """Kill a process at work again and again, then let a last one finish everything."""
    path, log = tmp_path / "store.db", tmp_path / "log"
    end = time.monotonic() + seconds
    with Nursery() as nursery:
        for _ in range(kills):
            if time.monotonic() > end:
                break
            after = rng.uniform(0, 0.25)
            assert nursery.order("labour", path, log, kill_after=after) == -signal.SIGKILL
        report = tmp_path / "report"
        assert nursery.order("recover", path, report) == 0
    lines = log.read_text().splitlines()
    submitted, acked = (
        {line.split()[1] for line in lines if line.startswith(word)} for word in ("submit", "ack")
    )
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    assert acked <= found.keys() <= submitted
    assert len(acked) > kills
    for name, fate in found.items():
        answer = oracle(fate["workflow"], fate["input"])
        wanted = ("failed" if answer is None else "completed", answer)
        assert (fate["status"], fate["output"]) == wanted, name
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM workers").fetchone() == (0,)
        doubled = (
            "SELECT instance, path FROM steps WHERE outcome = 0 GROUP BY 1, 2 HAVING count(*) > 1"
        )
        assert connection.execute(doubled).fetchall() == []


def test_killed_at_random_points(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path, Random(seed), 40, 120.0)


@pytest.mark.soak
def test_killed_at_very_many_random_points(tmp_path: Path, seed: int, soak_seconds: float) -> None:
    kill_at_random(tmp_path, Random(seed), 500, soak_seconds)


def test_the_disk_of_these_tests_does_get_full(disk: Disk) -> None:
    path = disk.folder / "store.db-wal"
    path.touch()
    disk.fill(disk.folder / "store.db")
    with pytest.raises(OSError, match="o") as caught, path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
