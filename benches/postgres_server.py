"""The PostgreSQL server that benches share, its files where a disk is to be expected.

It is the one of the tests (`SAYIIR_TEST_POSTGRES_URL`, else one that is started), with `fsync` on,
and gone at the end of the process. A bench that needs it is skipped where there is none. What the
server says of itself is read here: how many transactions it committed, and how much it logged.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from time import monotonic, sleep

from tests.postgres.server import Server, required

from benches.ground import ground

__all__ = ["Effort", "effort", "served", "server_version"]

LONG = 30.0
"""Seconds within which sessions that were left have ended."""
_started: list[Server] = []


@dataclass(frozen=True, slots=True)
class Effort:
    """What a server has done since it was made.

    >>> Effort(5, 700) - Effort(2, 100)
    Effort(transactions=3, wal_bytes=600)
    """

    transactions: int
    """Committed ones, of one database."""
    wal_bytes: int
    """Written into its log."""

    def __sub__(self, before: Effort) -> Effort:
        return Effort(self.transactions - before.transactions, self.wal_bytes - before.wal_bytes)


def served() -> Server:
    """The server, started at the first call."""
    before = tempfile.tempdir
    tempfile.tempdir = str(ground())
    try:
        server = required()
    finally:
        tempfile.tempdir = before
    if not _started:
        _started.append(server)
    return server


def server_version() -> str | None:
    """What the server calls its version; nothing if no bench used one."""
    if not _started:
        return None
    [[version]] = _started[0].execute("SHOW server_version")
    return str(version)


def effort() -> Effort:
    """What the server has done so far; to be asked when every backend is closed.

    Raises:
        TimeoutError: Somebody else is connected and stays.
    """
    server = served()
    end = monotonic() + LONG
    # A session hands its counts in when it ends, and that is a moment after it was left.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while server.execute(f"{others} AND pid <> pg_backend_pid()") != [(0,)]:
        if monotonic() > end:
            raise TimeoutError("somebody else is connected to the database of the benches")
        sleep(0.01)
    [[committed, wal]] = server.execute(
        "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
        " FROM pg_stat_database WHERE datname = current_database()"
    )
    return Effort(int(committed), int(wal))
