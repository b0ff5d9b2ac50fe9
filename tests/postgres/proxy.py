"""A man in the middle: a proxy that loses answers, cuts connections, stalls, and garbles hints.

It stands between programs, in this process or in others, and a server, and does to whole messages
(`wire.py`) what bad nights do to them. What is to be lost is said by the transaction, so that a
test can lose the answer to the commit of *this* call. It runs on a loop in a thread of its own, so
that callers may wait for it from anywhere. Promises that what it passes on is passed on unchanged
and in order. Refuses encryption: it says no, and clients that insist stay outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from random import Random
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from .wire import Script, Transaction, read_message

Loss = Literal["request", "reply"]
"""A commit is lost on its way to the server, so it never happened, or only its answer is."""
Hints = Literal["pass", "swallow", "twice"] | float
"""What becomes of notifications; a number is their delay in seconds."""
_CANCEL, _TLS, _GSS = 80877102, 80877103, 80877104
PATIENCE_S = 30.0


Answer = TypeVar("Answer")


class Judge(Protocol):
    """Decides what is lost; the connection is cut there."""

    def loses(self, transaction: Transaction, part: Loss) -> bool:
        """Whether this part of a commit is lost.

        It is asked of every transaction when its commit is asked for (`request`), and again when
        the server has committed it (`reply`).
        """


class Peace:
    """Nothing is lost."""

    def loses(self, transaction: Transaction, part: Loss) -> bool:
        """Never."""
        return False


class Trap:
    """Loses the first commit that its description fits, and whatever comes next, if told to.

    Args:
        words: All of them are in texts of the transaction's statements.
        part: What of it is lost.
        then: So many transactions after it are lost too, of any kind and on any connection, so
            that whoever asks what has become of the first one is not answered either.
    """

    def __init__(self, *words: str, part: Loss = "reply", then: int = 0) -> None:
        self._words = words
        self._part = part
        self._left = 1 + then
        self._over = threading.Event()
        self.lost: list[Transaction] = []
        """What it took."""

    def loses(self, transaction: Transaction, part: Loss) -> bool:
        """Whether it is one of them."""
        if part != self._part or not self._left:
            return False
        fits = transaction.writes and all(map(transaction.mentions, self._words))
        if not self.lost and not fits:
            return False
        self._left -= 1
        self.lost.append(transaction)
        if not self._left:
            self._over.set()
        return True

    def sprung(self, seconds: float = 0) -> bool:
        """Whether everything that was to be lost is lost; waits for that so long."""
        return self._over.wait(seconds)


class Bandit:
    """Loses a share of all writing commits, as its seed tells; requests as often as replies."""

    def __init__(self, seed: int, share: float) -> None:
        self._rng = Random(seed)
        self._share = share
        self.lost: Counter[Loss] = Counter()

    def loses(self, transaction: Transaction, part: Loss) -> bool:
        """Whether chance will have it."""
        # Each commit is asked about twice.
        lost = transaction.writes and self._rng.random() < self._share / 2
        self.lost[part] += lost
        return lost


class Proxy:
    """Stands before the server of a URL; `url` leads through it. Use it as a context manager.

    `statements` counts the executions of each text; `judge` may be replaced at any time.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.judge: Judge = Peace()
        self.hints: Hints = "pass"
        self.statements: Counter[str] = Counter()
        self.hints_seen = 0
        self.accepted = 0
        self.refused = 0
        self._links: set[_Link] = set()
        self._door_open = True
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))

    @property
    def url(self) -> str:
        """The URL that leads to the server through here."""
        port = self._server.sockets[0].getsockname()[1]
        who = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{who}@127.0.0.1:{port}"))

    def count(self, *words: str) -> int:
        """How often statements were executed that have all these words in their text."""
        counted = list(self.statements.items())
        return sum(times for text, times in counted if all(word in text for word in words))

    def cut(self, rng: Random | None = None, share: float = 1.0) -> int:
        """Cut connections in the middle of whatever they say: all, or a random share; how many."""

        async def cut_them() -> int:
            links = [link for link in self._links if rng is None or rng.random() < share]
            for link in links:
                link.cut()
            return len(links)

        return self._call(cut_them())

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing passes meanwhile, in either direction; nothing is lost."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """All connections are cut, and new ones as soon as they come."""
        self._door_open = False
        self.cut()
        try:
            yield
        finally:
            self._door_open = True

    def close(self) -> None:
        """Cut everything and end."""

        async def end() -> None:
            self._server.close()
            for link in self._links:
                link.cut()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(PATIENCE_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._door_open:
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted += 1
        link = _Link(self, writer)
        self._links.add(link)
        try:
            # Either side may end at any time, in the middle of a message; so may the proxy.
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await link.run(reader)
        finally:
            self._links.discard(link)
            link.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._target.hostname, self._target.port)


class _Link:
    """One client's connection, and the one that it stands for."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._script = Script()

    def cut(self) -> None:
        """End both connections, without a word."""
        self._client.transport.abort()
        if self._server is not None:
            self._server.transport.abort()

    async def run(self, client: asyncio.StreamReader) -> None:
        """Pass on what both sides say, until one of them ends."""
        while True:
            first = await read_message(client, kind=False)
            code = int.from_bytes(first.body[:4], "big")
            if code not in (_TLS, _GSS):
                break
            self._client.write(b"N")
        await self._proxy._flowing.wait()
        server, self._server = await self._proxy._reach()
        self._server.write(first.encode())
        if code == _CANCEL:
            await self._server.drain()
            self._server.close()
            return
        sides = [
            asyncio.create_task(self._pass_requests(client, self._server)),
            asyncio.create_task(self._pass_answers(server)),
        ]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            # How each of them ended is no news: one side has gone.
            await asyncio.gather(*sides, return_exceptions=True)

    async def _pass_requests(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        while True:
            message = await read_message(client)
            wanted, ran = self._script.ask(message)
            self._proxy.statements.update(ran)
            if wanted is not None and self._proxy.judge.loses(wanted, "request"):
                self.cut()
                return
            await self._proxy._flowing.wait()
            server.write(message.encode())
            await server.drain()

    async def _pass_answers(self, server: asyncio.StreamReader) -> None:
        while True:
            message = await read_message(server)
            if message.kind == b"A":
                await self._proxy._flowing.wait()
                self._hint(message.encode())
                continue
            done = self._script.answer(message)
            if done is not None and self._proxy.judge.loses(done, "reply"):
                self.cut()
                return
            await self._proxy._flowing.wait()
            self._client.write(message.encode())
            await self._client.drain()

    def _hint(self, data: bytes) -> None:
        self._proxy.hints_seen += 1
        match self._proxy.hints:
            case "pass":
                self._client.write(data)
            case "twice":
                self._client.write(data + data)
            case "swallow":
                pass
            case delay:
                self._proxy._loop.call_later(delay, self._client.write, data)
