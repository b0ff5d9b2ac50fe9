"""Contract: hints, which are never the truth and must not get into its way."""

from __future__ import annotations

import asyncio

from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._family import spread
from ._flows import DELAYED, LISTENING, ONE, TWO
from ._ground import Ground, start, submit
from ._hand import HandWorker

Heard = list[tuple[str, str]]


def listening(backend: Backend) -> Heard:
    """What is heard from now on."""
    heard: Heard = []
    backend.listen(lambda *hint: heard.append(hint))
    return heard


class ListenContract(Ground):
    """What `listen` promises on every backend."""

    async def test_who_stops_listening_hears_no_more(self, backend: Backend) -> None:
        """Others go on, and stopping twice is once."""
        heard, other = Heard(), listening(backend)
        stop = backend.listen(lambda *hint: heard.append(hint))
        stop()
        stop()
        await submit(backend, ONE, "i-1")
        assert heard == []
        assert all(kind in ("work", "news", "ended") for kind, _ in other)

    async def test_hints_are_of_three_kinds(self, backend: Backend) -> None:
        """Whatever happens."""
        heard = listening(backend)
        held = await start(backend, LISTENING)
        await backend.cancel("i-1", None, None)
        await held.complete()
        assert {kind for kind, _ in heard} <= {"work", "news", "ended"}

    async def test_a_listener_may_call_the_backend(self, backend: Backend) -> None:
        """No lock is held while it runs; reading the time is what a listener may well do."""
        times: list[float] = []
        backend.listen(lambda *_: times.append(backend.now()))
        await submit(backend, ONE, "i-1")
        await backend.cancel("i-1", None, None)
        assert all(time == backend.now() for time in times)


class HintContract(Ground):
    """For backends within one process: hints are given before the call returns.

    A backend whose hints travel, or that has none, keeps the contract without this part.
    """

    async def test_new_work_is_told(self, backend: Backend, clock: VirtualClock) -> None:
        """A submit, an event that wakes, an unpause, a release, an instance that parks."""
        heard = listening(backend)
        await submit(backend, DELAYED, "i-1")
        assert ("work", "i-1") in heard
        worker = HandWorker(backend, [DELAYED, LISTENING])
        [held] = await worker.claim()
        heard.clear()
        await held.complete()
        assert ("work", "i-1") in heard
        await (await start(backend, LISTENING, "i-2")).complete()
        heard.clear()
        await backend.send_event("i-2", "go", b"", None)
        assert ("work", "i-2") in heard
        await backend.pause("i-2", None, None)
        heard.clear()
        await backend.unpause("i-2")
        assert ("work", "i-2") in heard
        assert await worker.claim_ids() == ["i-2"]
        heard.clear()
        await backend.release("worker-1")
        assert "work" in {kind for kind, _ in heard}

    async def test_news_for_a_holder_is_told(self, backend: Backend) -> None:
        """A cancel, a pause and an event of a held instance."""
        heard = listening(backend)
        await start(backend, TWO)
        for call in (
            backend.pause("i-1", None, None),
            backend.cancel("i-1", None, None),
            backend.send_event("i-1", "go", b"", None),
        ):
            heard.clear()
            await call
            assert ("news", "i-1") in heard

    async def test_an_end_is_told(self, backend: Backend) -> None:
        """Completed, failed, cancelled at once, and cancelled by the holder's commit."""
        heard = listening(backend)
        await (await start(backend, ONE, "completed")).complete()
        await (await start(backend, ONE, "failed")).fail()
        await submit(backend, ONE, "cancelled")
        await backend.cancel("cancelled", None, None)
        held = await start(backend, TWO, "stopped")
        await backend.cancel("stopped", None, None)
        assert ("ended", "stopped") not in heard
        await held.complete()
        ended = [instance_id for kind, instance_id in heard if kind == "ended"]
        assert ended == ["completed", "failed", "cancelled", "stopped"]

    async def test_parents_and_items_are_told_of_each_other(self, backend: Backend) -> None:
        """The last end is work, the end of a parent that of its free items: now, or at once after.

        Such a hint is about an instance that is not the call's own, so it may follow the answer.
        """
        heard, came, loop = listening(backend), asyncio.Event(), asyncio.get_running_loop()

        def hear(*_: str) -> None:
            loop.call_soon_threadsafe(came.set)

        stop = backend.listen(hear)

        async def until_heard(*hints: tuple[str, str]) -> None:
            async with asyncio.timeout(30):
                while not set(hints) & set(heard):
                    await came.wait()
                    came.clear()

        family = await spread(backend)
        await until_heard(("work", "i-1"), ("work", ""))
        await family.end(0, 1)
        held = await family.hold(2)
        heard.clear()
        await held.complete(200)
        await until_heard(("ended", family.items[2]))
        await until_heard(("work", "i-1"), ("work", ""))
        family = await spread(backend, parent="i-2")
        await backend.cancel("i-2", None, None)
        for name in family.items:
            await until_heard(("ended", name))
        stop()
