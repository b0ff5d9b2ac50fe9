"""The proxy is on trial itself: what it loses is lost, what it passes on is what was said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from random import Random

import psycopg
import pytest
from tests.postgres.proxy import Bandit, Loss, Proxy, Trap
from tests.postgres.server import Server
from tests.postgres.waiting import LONG, until

INSERT = "INSERT INTO book VALUES (%s)"


class Book:
    """A table, reached through a proxy (`far`) and past it (`rows`)."""

    def __init__(self, url: str) -> None:
        self._near = psycopg.connect(url, autocommit=True)
        self._near.execute("CREATE TABLE book (n int)")
        self.proxy = Proxy(url)

    def far(self) -> psycopg.Connection:
        return psycopg.connect(self.proxy.url, connect_timeout=30)

    def rows(self) -> list[int]:
        return [n for (n,) in self._near.execute("SELECT n FROM book ORDER BY n")]

    def say(self, word: str) -> None:
        self._near.execute("SELECT pg_notify('news', %s)", [word])

    def close(self) -> None:
        self.proxy.close()
        self._near.close()


@pytest.fixture
def book(postgres_server: Server) -> Iterator[Book]:
    made = Book(postgres_server.fresh_database())
    yield made
    made.close()


@pytest.mark.parametrize("part", ["request", "reply"])
@pytest.mark.parametrize("form", ["plain", "prepared", "explicit", "pipelined", "hidden"])
def test_one_commit_is_lost(book: Book, form: str, part: Loss) -> None:
    connection = book.far()
    connection.autocommit = form != "explicit"
    book.proxy.judge = trap = Trap("INTO book", part=part)
    with pytest.raises(psycopg.OperationalError):
        match form:
            case "plain":
                connection.execute("INSERT INTO book VALUES (1)")
            case "prepared":
                connection.execute("SELECT count(*) FROM book", prepare=True)
                connection.execute(INSERT, [1], prepare=True)
            case "explicit":
                connection.execute(INSERT, [1])
                connection.commit()
            case "pipelined":
                with connection.pipeline(), connection.transaction():
                    connection.execute("SELECT count(*) FROM book")
                    connection.execute(INSERT, [1])
            case "hidden":
                sql = "WITH new AS (INSERT INTO book VALUES (1) RETURNING n) SELECT n FROM new"
                connection.execute(sql)
    assert trap.sprung()
    assert connection.broken
    assert book.rows() == ([] if part == "request" else [1])
    # It was one, and is over.
    with book.far() as other:
        other.execute(INSERT, [2])
    assert book.rows()[-1] == 2


def test_what_does_not_fit_passes(book: Book) -> None:
    book.proxy.judge = trap = Trap("INTO book", "no such word")
    with book.far() as connection:
        connection.execute("SELECT * FROM book FOR UPDATE SKIP LOCKED")
        connection.execute(INSERT, [1])
        connection.rollback()
        connection.execute(INSERT, [2])
    assert not trap.sprung()
    assert book.rows() == [2]


def test_a_rollback_is_no_commit(book: Book) -> None:
    book.proxy.judge = trap = Trap("INTO book")
    with book.far() as connection:
        connection.execute(INSERT, [1])
        connection.rollback()
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("INSERT INTO nowhere SELECT n FROM book")
        connection.commit()
        assert not trap.sprung()
        connection.execute(INSERT, [2])
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert trap.sprung()
    assert book.rows() == [2]


def test_large_things_pass_unchanged(book: Book) -> None:
    sent = Random(1).randbytes(3_000_000)
    with book.far() as connection:
        [(came,)] = connection.execute("SELECT %b || ''::bytea", [sent]).fetchall()
        count = connection.execute("SELECT sum(n) FROM generate_series(1, 50000) n").fetchone()
    assert came == sent
    assert count == (1_250_025_000,)


def test_a_bandit_takes_his_share(book: Book) -> None:
    book.proxy.judge = bandit = Bandit(seed=1, share=0.3)
    connection, done = book.far(), set()
    connection.autocommit = True
    for n in range(100):
        try:
            connection.execute(INSERT, [n])
            done.add(n)
        except psycopg.OperationalError:
            connection = book.far()
            connection.autocommit = True
    connection.close()
    rows = book.rows()
    assert len(rows) == len(set(rows)) == len(done) + bandit.lost["reply"]
    assert done <= set(rows)
    assert min(bandit.lost["reply"], bandit.lost["request"]) > 0
    assert bandit.lost.total() == 100 - len(done)


def test_cut_and_closed(book: Book) -> None:
    connection = book.far()
    assert book.proxy.cut() == 1
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with book.proxy.closed(), pytest.raises(psycopg.OperationalError):
        book.far()
    with book.far() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_a_stall_holds_all_and_loses_nothing(book: Book) -> None:
    connection = book.far()
    connection.autocommit = True
    with book.proxy.stalled():
        writing = threading.Thread(target=connection.execute, args=["INSERT INTO book VALUES (1)"])
        writing.start()
        until(lambda: book.proxy.count("INTO book") == 1, "the statement comes")
        assert writing.is_alive()
        assert book.rows() == []
    writing.join(LONG)
    assert not writing.is_alive()
    assert book.rows() == [1]
    connection.close()


@pytest.mark.parametrize(
    ("hints", "heard"),
    [("pass", ["a", "b"]), ("twice", ["a", "a", "b", "b"]), ("swallow", []), (0.05, ["a", "b"])],
)
def test_hints(book: Book, hints: str | float, heard: list[str]) -> None:
    connection = book.far()
    connection.autocommit = True
    connection.execute("LISTEN news")
    book.proxy.hints = hints  # type: ignore[assignment]
    book.say("a")
    book.say("b")
    until(lambda: book.proxy.hints_seen == 2, "the server gave two hints")
    # What comes after them comes last.
    book.proxy.hints = "pass" if hints != 0.05 else 0.05
    book.say("end")
    words = []
    for notify in connection.notifies(timeout=LONG):
        words.append(notify.payload)
        if notify.payload == "end":
            break
    assert words == [*heard, "end"]
    connection.close()


def test_a_statement_can_be_cancelled_through_it(book: Book) -> None:
    connection = book.far()
    failed: list[BaseException] = []

    def sleep() -> None:
        try:
            connection.execute("SELECT pg_sleep(600)")
        except psycopg.errors.QueryCanceled as error:
            failed.append(error)

    asleep = threading.Thread(target=sleep)
    asleep.start()
    until(lambda: book.proxy.count("pg_sleep") == 1, "it is asked for")
    while asleep.is_alive():
        connection.cancel_safe(timeout=LONG)
        asleep.join(0.05)
    assert len(failed) == 1
    connection.close()


async def test_it_serves_the_loop_that_waits_for_it(book: Book) -> None:
    connection = await psycopg.AsyncConnection.connect(book.proxy.url)
    async with connection, asyncio.timeout(LONG):
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)
