"""Instances in one SQLite file: durable, on one machine, for any number of processes.

The file is kept by two threads in Rust, one that writes and one that reads; the loop's side of them
is `StorageBackend`. This module knows what may be said about a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from sayiir import _clock
from sayiir._core import Storage
from sayiir._duration import Duration, parse_duration

from ._storage import StorageBackend
from ._view import codec_argument

if TYPE_CHECKING:
    from sayiir.codecs import Codec, PayloadCodec

__all__ = ["SqliteBackend"]


class SqliteBackend(StorageBackend):
    """A backend that keeps everything in one file, on a local disk.

    The file is made when it does not exist, with a write-ahead log beside it (`-wal`, `-shm`).
    Several processes may use it at once, and a process may be killed at any moment: what a call
    returned stays, and the instances of the dead go on elsewhere when their lease has run out. One
    object can be shared by any number of clients and workers, threads and event loops of its
    process. A child that was forked after the file was opened cannot use it: open backends after
    the fork, or start processes with the `spawn` method.

    Args:
        path: The file. Its folder must exist.
        synchronous: `"full"`: a commit is on the disk before it is answered, and survives a power
            cut. `"normal"`: it survives the death of any process, but a power cut or a crash of the
            operating system may take what was committed within the last second.
        keep_completed: How long ended instances are kept, as a duration; `None`: until deleted.
        keep_events: How long events wait for an instance that does not exist yet.
        timeout: How long to wait for a lock that another process holds.
        codec: How payloads are stored, a `sayiir.codecs.Codec`; `None`: as plain MessagePack.
        clock: Gives the time in seconds since 1970; the machine's, unless a test brings its own.

    Raises:
        TypeError: `path` is no path, or `codec` no codec.
        ValueError: The path is empty, `synchronous` is another word, or a duration is malformed,
            negative or absurdly long.
        BackendUnavailableError: The folder is missing, the file cannot be read or written, the disk
            is full, or another process keeps it locked. The message names the file.
        SnapshotFormatError: It is no database, one of another program or of a newer version, or
            damaged.

    >>> import asyncio, tempfile
    >>> from sayiir import Flow, SqliteBackend, Worker, WorkflowClient
    >>> double = Flow("double").then(lambda x: x * 2).build()
    >>> async def main(folder):
    ...     backend = SqliteBackend(f"{folder}/work.db")
    ...     async with Worker(backend, [double]):
    ...         handle = await WorkflowClient(backend).submit(double, input=21)
    ...         answer = await handle.result()
    ...     await backend.close()
    ...     return answer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    42
    """

    __slots__ = ("_path",)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal"] = "full",
        keep_completed: Duration | None = None,
        keep_events: Duration = "7d",
        timeout: Duration = "30s",
        codec: Codec | PayloadCodec | None = None,
        clock: Callable[[], float] = _clock.now,
    ) -> None:
        self._path = _checked_path(path)
        if not isinstance(synchronous, str):
            raise TypeError(f"synchronous must be a str, got {type(synchronous).__name__}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous must be 'full' or 'normal', got {synchronous[:20]!r}")
        checked = codec_argument(codec)
        store = Storage.sqlite(
            self._path,
            synchronous=synchronous,
            keep_completed=None
            if keep_completed is None
            else parse_duration(keep_completed, name="keep_completed", allow_zero=True),
            keep_events=parse_duration(keep_events, name="keep_events", allow_zero=True),
            timeout=parse_duration(timeout, name="timeout", allow_zero=True),
            own_clock=clock is _clock.now,
        )
        super().__init__(store, clock, checked)

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._path

    def __repr__(self) -> str:
        return f"<SqliteBackend {self._path!r}>"

    async def doctor(self) -> dict[str, object]:
        """What an operator wants to know of the file; reads all of it, so it may take long.

        Returns:
            `path`, `bytes`, `wal_bytes`, `journal_mode`, `synchronous`, `schema_version`,
            `sqlite_version`, `integrity` ("ok", or what is wrong), `instances` (how many by
            status), `workers` (`worker_id`, `expires_at`, `held` each), `definitions`
            (`definition_hash`, `workflow_id`, `instances` each).

        Raises:
            BackendUnavailableError, SnapshotFormatError: The file cannot be read.
        """
        return await super().doctor()


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("path must be text, not bytes")
    if not text:
        raise ValueError("path must not be empty; name a file such as 'sayiir.db'")
    if "\0" in text:
        raise ValueError("path must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("path must be text that UTF-8 can write") from None
    return os.path.abspath(text)  # noqa: PTH100 - a Path would resolve nothing more
