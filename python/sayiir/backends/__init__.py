"""Where instances live: the contract every backend keeps, and the backends of the package.

`Backend` is the contract, as a `typing.Protocol`: any object with these methods will do.
`InMemoryBackend` keeps everything in the process, for tests and for work that may be lost;
`SqliteBackend` in one file, for one machine; `PostgresBackend` in a database, for many.
"""

from ._hub import Hub, Listener
from ._protocol import Backend
from ._rows import Backlog, Event, HistoryRow, InstanceRow, NewInstance, News, Page, Reply
from ._storage import StorageBackend
from .memory import InMemoryBackend
from .postgres import PostgresBackend
from .sqlite import SqliteBackend

__all__ = [
    "Backend",
    "Backlog",
    "Event",
    "HistoryRow",
    "Hub",
    "InMemoryBackend",
    "InstanceRow",
    "Listener",
    "NewInstance",
    "News",
    "Page",
    "PostgresBackend",
    "Reply",
    "SqliteBackend",
    "StorageBackend",
]
