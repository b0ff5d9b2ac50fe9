"""Where answers of a storage thread come ashore: who is answered when, and when calls go out.

The thread is played by the tests: they put answers into the port and ring its bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

import pytest

from sayiir._core import Storage
from sayiir.backends import _port
from sayiir.backends._port import SPLIT, Landing

from .working import until

Arrival = tuple[int, Any, BaseException | None]


class Bell:
    """A port without a storage thread."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._arrived: list[Arrival] = []

    def fileno(self) -> int:
        return self._here.fileno()

    def drain(self) -> list[Arrival]:
        with contextlib.suppress(BlockingIOError):
            self._here.recv(64)
        arrived, self._arrived = self._arrived, []
        return arrived

    def bring(self, *tickets: int) -> None:
        self._arrived += [(ticket, ticket, None) for ticket in tickets]
        self._there.send(b"!")

    def close(self) -> None:
        self._here.close()
        self._there.close()


class Shore:
    """A landing, and how many had been answered each time calls went out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.landing = Landing(loop, cast("Storage", self))
        self.bell = cast("Bell", self.landing.port)
        self.waiting: list[asyncio.Future[int]] = []
        self.flushes: list[int] = []

    def expect(self, count: int) -> None:
        first = len(self.waiting) + 1
        tickets = range(first, first + count)
        self.waiting += [self.landing.expect(self.loop, ticket) for ticket in tickets]

    def answered(self) -> int:
        return sum(future.done() for future in self.waiting)

    def flush(self, _: object) -> None:
        self.flushes.append(self.answered())


@pytest.fixture
async def shore(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_port, "Port", Bell)
    loop = asyncio.get_running_loop()
    made = Shore(loop)
    yield made
    loop.remove_reader(made.bell.fileno())
    made.bell.close()


async def test_a_crowd_is_answered_in_two_halves(shore: Shore) -> None:
    shore.expect(SPLIT + 1)
    shore.bell.bring(*range(1, SPLIT + 2))
    await asyncio.wait_for(shore.waiting[-1], 30)
    await until(lambda: len(shore.flushes) == 2)
    assert shore.flushes == [SPLIT // 2, SPLIT + 1]
    assert [future.result() for future in shore.waiting] == list(range(1, SPLIT + 2))


async def test_a_few_are_answered_at_once(shore: Shore) -> None:
    shore.expect(SPLIT - 1)
    shore.bell.bring(*range(1, SPLIT))
    await until(lambda: len(shore.flushes) == 1)
    assert shore.flushes == [SPLIT - 1]


async def test_half_of_a_crowd_stays_together(shore: Shore) -> None:
    shore.expect(2 * SPLIT)
    shore.bell.bring(*range(1, SPLIT + 1))
    await until(lambda: len(shore.flushes) == 1)
    assert shore.flushes == [SPLIT]


async def test_who_lands_while_others_are_at_it_waits_for_their_calls(shore: Shore) -> None:
    shore.expect(2)
    shore.waiting[0].add_done_callback(lambda _: shore.bell.bring(2))
    shore.bell.bring(1)
    await asyncio.wait_for(shore.waiting[1], 30)
    assert shore.flushes[:1] == [1]


async def test_whoever_leaves_answers_everybody_first(shore: Shore) -> None:
    def leave(_: object) -> None:
        shore.bell.bring(SPLIT + 1)
        shore.landing.retire()

    shore.expect(SPLIT + 1)
    shore.waiting[0].add_done_callback(leave)
    shore.bell.bring(*range(1, SPLIT + 1))
    await asyncio.wait_for(shore.waiting[SPLIT], 30)
    assert shore.answered() == SPLIT + 1
