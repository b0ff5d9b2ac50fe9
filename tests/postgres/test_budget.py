"""One budget of connections for each backend object, whoever shares it; and nobody's time is taken.

Clients, workers, threads and event loops come and go, all at once: the server never sees more
sessions than were allowed. And whatever the database keeps a call waiting for, other Python threads
go on: what waits is a thread that has nothing to do with the interpreter.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from tests.crash.figures import keep
from tests.postgres.server import Server, required
from tests.postgres.waiting import until

from sayiir import (
    BackendUnavailableError,
    Flow,
    PostgresBackend,
    SyncWorkflowClient,
    Worker,
    WorkflowClient,
)

LONG_S = 30.0
THREADS = 64
HELD_S = 1.5
"""Seconds that the database keeps calls waiting."""
FROZEN_S = HELD_S / 3
"""What no thread is ever kept from running for; far more than a busy machine adds, far less than a
wait that keeps the interpreter."""
TICK_S = 0.001


def add_one(x: int) -> int:
    return x + 1


ADD = Flow("add").then(add_one).then(add_one, name="again").build()


class Sessions:
    """Counts the sessions of one database, again and again: as long as it is entered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def _count(self) -> None:
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(self.url, autocommit=True) as eye:
            while not self._over.wait(0.002):
                row = eye.execute(sql).fetchone()
                assert row is not None
                self.most = max(self.most, row[0])

    def __enter__(self) -> Sessions:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def server() -> Server:
    return required(swift=True)


@pytest.mark.parametrize("budget", [2, 3, 8])
async def test_many_calls_at_once_stay_within_the_budget(server: Server, budget: int) -> None:
    url = server.fresh_database()
    with Sessions(url) as sessions:
        backend = PostgresBackend(url, max_connections=budget)
        clients = [WorkflowClient(backend) for _ in range(8)]
        # The very first calls, when there is no connection yet, and all of them at once.
        await asyncio.gather(*(clients[n % 8].list_instances() for n in range(300)))
        async with Worker(backend, ADD, concurrency=16), Worker(backend, ADD, concurrency=16):
            calls = (clients[n % 8].submit(ADD, f"i-{n}", n) for n in range(300))
            handles = await asyncio.gather(*calls)
            results = await asyncio.gather(*(handle.result(LONG_S) for handle in handles))
        assert results == [n + 2 for n in range(300)]
        await backend.close()
    assert 1 < sessions.most <= budget


def test_threads_and_loops_come_and_go(server: Server) -> None:
    url = server.fresh_database()
    with Sessions(url) as sessions:
        backend = PostgresBackend(url, max_connections=3)
        worker = Worker(backend, ADD, concurrency=16)
        worker.start()

        def in_a_thread(n: int) -> int:
            with SyncWorkflowClient(backend) as client:
                return int(client.submit(ADD, f"t-{n}", n).result(LONG_S))

        async def on_a_loop(n: int) -> int:
            handle = await WorkflowClient(backend).submit(ADD, f"l-{n}", n)
            return int(await handle.result(LONG_S))

        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(in_a_thread, range(THREADS))) == [n + 2 for n in range(THREADS)]
        for n in range(10):
            assert asyncio.run(on_a_loop(n)) == n + 2
        worker.stop()
        asyncio.run(backend.close())
    assert 1 < sessions.most <= 3


async def test_nothing_is_left_of_a_backend_that_was_closed(server: Server) -> None:
    url = server.fresh_database()
    backends = [PostgresBackend(url) for _ in range(5)]
    await asyncio.gather(*(WorkflowClient(backend).list_instances() for backend in backends))
    await asyncio.gather(*(backend.close() for backend in backends))
    database = url.rpartition("/")[2]
    left = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    until(lambda: server.execute(left) == [(0,)], "the sessions end")


class Ticks:
    """A thread that only ticks; the longest time between two ticks is how long it was frozen."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._over = False
        self._thread = threading.Thread(target=self._tick)

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._over:
            time.sleep(TICK_S)
            now = time.monotonic()
            self.longest_s, last = max(self.longest_s, now - last), now

    def __enter__(self) -> Ticks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()


@contextmanager
def locked(url: str, table: str) -> Iterator[psycopg.Connection]:
    """Nobody else gets at a table meanwhile, not even to read it."""
    with psycopg.connect(url) as rival:
        rival.execute(f"LOCK TABLE sayiir.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield rival
        rival.rollback()


@pytest.mark.parametrize("table", ["instances", "workers"])
async def test_no_thread_stands_still_while_the_database_is_blocked(
    server: Server, table: str
) -> None:
    url = server.fresh_database()
    backend = PostgresBackend(url, timeout="20s")
    client = WorkflowClient(backend)
    bodies = ThreadPoolExecutor(4)

    def in_a_thread(n: int) -> int:
        with SyncWorkflowClient(backend) as sync_client:
            return int(sync_client.submit(ADD, f"t-{n}", n).result(LONG_S))

    loop = asyncio.get_running_loop()
    async with Worker(backend, ADD, concurrency=8, poll_interval="50ms"):
        assert await (await client.submit(ADD, "before", 1)).result(LONG_S) == 3
        with Ticks() as ticks:
            with locked(url, table):
                begun = time.monotonic()
                asked = [asyncio.create_task(client.submit(ADD, f"i-{n}", n)) for n in range(20)]
                asked_in_threads = [loop.run_in_executor(bodies, in_a_thread, n) for n in range(4)]
                reports = loop.run_in_executor(None, lambda: asyncio.run(backend.doctor()))
                turns = 0
                while time.monotonic() - begun < HELD_S:
                    await asyncio.sleep(0.01)  # For so long the table is locked.
                    turns += 1
            handles = await asyncio.gather(*asked)
            assert [await one.result(LONG_S) for one in handles] == [n + 2 for n in range(20)]
            assert await asyncio.gather(*asked_in_threads) == [n + 2 for n in range(4)]
            assert (await reports)["schema"] == "sayiir"
    bodies.shutdown()
    await backend.close()
    keep(f"frozen-{table}", "postgresql://", 0, {"longest_ms": 1000 * ticks.longest_s})
    assert ticks.longest_s < FROZEN_S
    # The loop, too, went on turning.
    assert turns > HELD_S / 0.01 / 5


@contextmanager
def deaf_server() -> Iterator[str]:
    """The URL of a server that lets everybody connect, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        yield f"postgresql://me:secret@127.0.0.1:{port}/db"


def _call(backend: PostgresBackend) -> None:
    with pytest.raises(BackendUnavailableError, match="did not answer"):
        asyncio.run(WorkflowClient(backend).list_instances())


def _report(backend: PostgresBackend) -> None:
    with pytest.raises(BackendUnavailableError, match="did not answer"):
        asyncio.run(backend.doctor())


def _close(backend: PostgresBackend) -> None:
    async def ask_and_close() -> None:
        asked = asyncio.create_task(WorkflowClient(backend).list_instances())
        await asyncio.sleep(0)
        await backend.close()
        with pytest.raises(BackendUnavailableError):
            await asked

    asyncio.run(ask_and_close())


@pytest.mark.parametrize("deed", [_call, _report, _close])
def test_no_thread_stands_still_while_a_server_says_nothing(
    deed: Callable[[PostgresBackend], None],
) -> None:
    with deaf_server() as url:
        backend = PostgresBackend(url, connect_timeout=HELD_S, timeout=HELD_S)
        with Ticks() as ticks:
            deed(backend)
        asyncio.run(backend.close())
    assert ticks.longest_s < FROZEN_S


def test_no_thread_stands_still_while_a_backend_is_dropped_that_still_tries() -> None:
    async def ask_in_vain(backend: PostgresBackend) -> None:
        asked = asyncio.create_task(WorkflowClient(backend).list_instances())
        await asyncio.sleep(0.1)  # Until it tries to connect, which nothing tells of.
        asked.cancel()

    with deaf_server() as url:
        backend = PostgresBackend(url, connect_timeout=HELD_S, timeout=HELD_S)
        asyncio.run(ask_in_vain(backend))
        with Ticks() as ticks:
            del backend
            gc.collect()
            # So that a freeze has its end in a tick.
            time.sleep(10 * TICK_S)
    assert ticks.longest_s < FROZEN_S
