"""The demo's worker process: `python -m sayiir.cli.demo_worker ORDER`, started by the demo alone.

Promises to work on the census until its standard input ends, and then to drain: the demo holds the
other end, so no worker outlives it, however it dies. Refuses to know that it may be killed; it is
a worker like any other, with a store, a workflow and a lease.
"""

import asyncio
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import TypedDict

from sayiir import Worker
from sayiir.backends import SqliteBackend
from sayiir.cli.census import census
from sayiir.cli.demo_journal import Journal

__all__ = ["Order", "main", "work"]


class Order(TypedDict):
    """What a worker is told; it travels as JSON on the command line."""

    store: str
    journal: str
    worker: str
    """Its name, in the histories of the store and in the journal."""
    concurrency: int
    lease_ttl_s: float
    poll_interval_s: float


async def work(order: Order, until_end_of: int) -> None:
    """Work until the file with this descriptor, a pipe that nobody writes to, has ended.

    Raises:
        BackendUnavailableError, SnapshotFormatError: The store cannot be opened.
        OSError: The journal cannot be opened.
    """
    journal = Journal(Path(order["journal"]), order["worker"])
    backend = SqliteBackend(order["store"])
    worker = Worker(
        backend,
        census(order["concurrency"], journal.note),
        worker_id=order["worker"],
        concurrency=order["concurrency"],
        lease_ttl=order["lease_ttl_s"],
        poll_interval=order["poll_interval_s"],
        grace="5s",
    )
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(until_end_of)
        # The same way out as for everyone who stops a worker.
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(until_end_of, end)
    try:
        await worker.run()
    finally:
        loop.remove_reader(until_end_of)
        await backend.close()
        journal.close()


def main() -> None:
    """Do what the only argument says, a JSON `Order`."""
    order: Order = json.loads(sys.argv[1])
    # Old test data holds literals the parser warns about; they are not this program's to mend.
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.run(work(order, sys.stdin.fileno()))


if __name__ == "__main__":
    main()
