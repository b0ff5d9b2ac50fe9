"""The small HTTP server behind `sayiir worker --http`.

Promises that asking disturbs nothing: the server has a thread and an event loop of its own, so it
answers while tasks hog the worker's; what it reads, how long it waits, and how many it serves at
once are bounded, so slow clients, garbage and floods cost little. It knows HTTP/1.1 as far as a
probe or a scraper speaks it, closes after each answer, and does not know where answers come from:
it is given functions.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click

__all__ = ["Address", "Answer", "HealthServer", "HttpAddress", "Page", "text_answer"]

HEAD_BYTES = 8_192
"""The most that a request's first line and headers may be."""
PATIENCE_S = 5.0
"""How long a client may take to ask, and to take the answer."""
PAGE_S = 10.0
"""How long an answer may take to be made."""
MOST_CLIENTS = 64
"""How many are served at once; further ones are turned away."""
_TEXT = "text/plain; charset=utf-8"
_log = logging.getLogger("sayiir.cli")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says.

    >>> Answer(200, b"ok").kind
    'text/plain; charset=utf-8'
    """

    status: int
    body: bytes
    kind: str = _TEXT
    with_body: bool = True
    """Not for HEAD, which is told how long the body would be."""


Page = Callable[[Mapping[str, str]], Awaitable[Answer]]
"""Makes the answer from the request's headers, whose names are in lower case."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host and a port, or the path of a Unix socket.

    >>> str(Address(None, 8080)), str(Address("::1", 8080))
    ('*:8080', '[::1]:8080')
    """

    host: str | None = None
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = "*" if self.host is None else f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


if TYPE_CHECKING:
    _AddressType = click.ParamType[Address]
else:
    # Older versions of click know no type of what an option is converted to.
    _AddressType = click.ParamType


class HttpAddress(_AddressType):
    """`HOST:PORT`, without a host all addresses of the machine; or `unix:PATH`.

    >>> HttpAddress().convert(":8080", None, None)
    Address(host=None, port=8080, path=None)
    >>> HttpAddress().convert("[::1]:9000", None, None).host
    '::1'
    """

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """The address that a text names."""
        if isinstance(value, Address):
            return value
        if str(value).startswith("unix:/"):
            return Address(path=str(value).removeprefix("unix:"))
        host, colon, port = str(value).rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        right = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
        if not colon or not right or host.split() not in ([], [host]):
            self.fail(
                f"{value!r} is no HOST:PORT; write :8080, 127.0.0.1:8080 or [::1]:8080", param, ctx
            )
        return Address(host or None, int(port))


class HealthServer:
    """Serves pages on a thread of its own from `start` until `close`.

    Args:
        pages: What is at each path.

    >>> async def page(headers):
    ...     return text_answer(200, "ok")
    >>> server = HealthServer({"/healthz": page})
    >>> address = server.start(Address("127.0.0.1", 0))
    >>> address.host, address.port > 0
    ('127.0.0.1', True)
    >>> server.close()
    """

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sayiir-http", daemon=True
        )
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    def start(self, address: Address) -> Address:
        """Begin to serve; where, with the port that was chosen if it was 0.

        Raises:
            OSError: It cannot listen there.
        """
        self._thread.start()
        try:
            return asyncio.run_coroutine_threadsafe(self._listen(address), self._loop).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop serving; whoever is being answered is cut off."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _listen(self, address: Address) -> Address:
        if address.path is not None:
            self._server = await asyncio.start_unix_server(
                self._serve, address.path, limit=HEAD_BYTES
            )
            return address
        self._server = await asyncio.start_server(
            self._serve, address.host, address.port, limit=HEAD_BYTES
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return Address(address.host, port)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > MOST_CLIENTS:
                writer.write(_written(text_answer(503, "too many connections")))
                return
            answer = await self._answer(reader)
            async with asyncio.timeout(PATIENCE_S):
                writer.write(_written(answer))
                await writer.drain()
                # What is left unread would turn the close into a reset, which drops the answer.
                writer.write_eof()
                await reader.read(HEAD_BYTES)
        except (OSError, TimeoutError):
            # The client is gone, or too slow to be waited for.
            pass
        except asyncio.CancelledError:
            # It is closed. Nobody but `_stop` cancels this, so there is nobody to tell.
            pass
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return text_answer(431, f"the request's head is longer than {HEAD_BYTES} bytes")
        except asyncio.IncompleteReadError:
            return text_answer(400, "the request ends before its head does")
        except TimeoutError:
            return text_answer(408, f"no request came within {PATIENCE_S:g} s")
        method, target, headers = _read(head)
        if method is None:
            return text_answer(400, "this is no HTTP/1 request")
        if method not in ("GET", "HEAD"):
            return text_answer(405, "only GET and HEAD are answered here")
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return text_answer(404, f"there is nothing here; there is {', '.join(self._pages)}")
        try:
            async with asyncio.timeout(PAGE_S):
                answer = await page(headers)
        except TimeoutError:
            answer = text_answer(503, f"there was no answer within {PAGE_S:g} s")
        except Exception:
            _log.exception("http: %s could not be answered", target.partition("?")[0])
            answer = text_answer(500, "this could not be answered; the worker's log says why")
        return replace(answer, with_body=method == "GET")


def text_answer(status: int, text: str) -> Answer:
    r"""An answer of one or more lines.

    >>> text_answer(200, "ok").body
    b'ok\n'
    """
    return Answer(status, text.encode() + b"\n")


def _read(head: bytes) -> tuple[str | None, str, dict[str, str]]:
    """Method, target and headers of a request; no method, if it is none."""
    try:
        first, *rest = head[:-4].decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        return None, "", {}
    if not version.startswith("HTTP/1.") or not target.startswith("/") or not method.isalpha():
        return None, "", {}
    headers = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            return None, "", {}
        headers[name.strip().lower()] = value.strip()
    return method, target, headers


def _written(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if answer.status == 405:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + answer.body if answer.with_body else head
