"""The server behind `sayiir worker --http`: nothing that a client sends does harm.

It is tried with sockets and with pages of the tests' own. Nothing is waited for by the clock.
"""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress

import pytest
from click.testing import CliRunner
from tests.asking import exchange, get
from tests.working import LONG

from sayiir.cli import health, main
from sayiir.cli.health import Address, Answer, HealthServer, text_answer


@pytest.fixture
def address() -> Iterator[Address]:
    """Where a server with a page `/ok`, one that fails and one that says what it was sent is."""

    async def ok(headers: Mapping[str, str]) -> Answer:
        return text_answer(200, "fine")

    async def broken(headers: Mapping[str, str]) -> Answer:
        raise OSError("secret")

    async def headers_of(headers: Mapping[str, str]) -> Answer:
        return text_answer(200, repr(dict(headers)))

    server = HealthServer({"/ok": ok, "/broken": broken, "/headers": headers_of})
    yield server.start(Address("127.0.0.1", 0))
    server.close()


def test_a_page_is_answered(address: Address) -> None:
    assert get(address, "/ok") == (200, "fine\n")
    assert get(address, "/ok?verbose=1") == (200, "fine\n")
    said = exchange(address, b"GET /ok HTTP/1.0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in said


def test_head_is_answered_without_the_body(address: Address) -> None:
    said = exchange(address, b"HEAD /ok HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Length: 5\r\n" in said
    assert said.endswith(b"\r\n\r\n")


def test_what_is_not_there_says_what_is(address: Address) -> None:
    assert get(address, "/") == (404, "there is nothing here; there is /ok, /broken, /headers\n")


def test_a_page_that_fails_is_told_to_the_log_alone(
    address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    status, text = get(address, "/broken")
    assert status == 500
    assert "secret" not in text
    assert "http: /broken could not be answered" in caplog.text


def test_headers_are_read(address: Address) -> None:
    said = exchange(address, b"GET /headers HTTP/1.1\r\nAccept:  text/plain \r\nX:\r\n\r\n")
    assert b"{'accept': 'text/plain', 'x': ''}" in said


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /ok HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"BREW /ok HTTP/1.1\r\n\r\n", 405),
        (b"\r\n\r\n", 400),
        (b"GET /ok\r\n\r\n", 400),
        (b"GET  /ok HTTP/1.1\r\n\r\n", 400),
        (b"GET /ok HTTP/2.0\r\n\r\n", 400),
        (b"GET http://there/ok HTTP/1.1\r\n\r\n", 400),
        (b"GET /ok HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (bytes(range(256)) * 8 + b"\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /ok HTTP/1.1\r\nX: " + b"a" * (health.HEAD_BYTES - 30) + b"\r\n\r\n", 200),
        (b"GET /ok HTTP/1.1\r\nX: " + b"a" * health.HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * health.HEAD_BYTES, 431),
    ],
)
def test_garbage_gets_its_answer_and_nothing_else(
    address: Address, sent: bytes, status: int
) -> None:
    said = exchange(address, sent)
    assert said.startswith(f"HTTP/1.1 {status} ".encode()), said[:200]
    assert get(address, "/ok") == (200, "fine\n")


def test_a_request_that_is_cut_off_is_answered(address: Address) -> None:
    assert address.host is not None
    with socket.create_connection((address.host, address.port), LONG) as connection:
        connection.sendall(b"GET /ok HT")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_a_flood_that_never_ends_is_cut_off(address: Address) -> None:
    assert address.host is not None
    with (
        socket.create_connection((address.host, address.port), LONG) as connection,
        suppress(OSError),
    ):
        while True:
            connection.sendall(b"x" * 65_536)
    assert get(address, "/ok") == (200, "fine\n")


def test_whoever_says_nothing_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 0.01)
    server = HealthServer({})
    try:
        said = exchange(server.start(Address("127.0.0.1", 0)), b"GET /")
    finally:
        server.close()
    assert said.startswith(b"HTTP/1.1 408 ")


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PAGE_S", 0.01)

    async def never(headers: Mapping[str, str]) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    server = HealthServer({"/": never})
    try:
        assert get(server.start(Address("127.0.0.1", 0)), "/")[0] == 503
    finally:
        server.close()


def test_slow_clients_do_not_stop_others_and_too_many_are_turned_away(address: Address) -> None:
    assert address.host is not None
    with ExitStack() as stack:
        for _ in range(health.MOST_CLIENTS - 1):
            slow = stack.enter_context(socket.create_connection((address.host, address.port), LONG))
            slow.sendall(b"GET /ok HTTP/1.1\r\n")
        assert get(address, "/ok") == (200, "fine\n")
        # One more that stays, after which nobody is let in. The server takes them in order.
        last = stack.enter_context(socket.create_connection((address.host, address.port), LONG))
        last.sendall(b"GET /ok HTTP/1.1\r\n")
        assert exchange(address, b"").startswith(b"HTTP/1.1 503 ")
        # They get their answers all the same.
        last.sendall(b"\r\n")
        assert last.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_closing_cuts_off_whoever_is_there(address: Address) -> None:
    server = HealthServer({})
    where = server.start(Address("127.0.0.1", 0))
    assert where.host is not None
    with socket.create_connection((where.host, where.port), LONG) as connection:
        assert get(where, "/")[0] == 404
        server.close()
        assert connection.recv(10) == b""


@pytest.mark.parametrize("text", ["8080", "", ":", ":x", ":65536", "a b:1", "::1:80", ":-1", ":٣"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    outcome = CliRunner().invoke(main, ["worker", "nothing:here", f"--http={text}"])
    assert outcome.exit_code == 2
    assert "is no HOST:PORT; write :8080" in outcome.output.replace("\n", " ")
