"""Contract: cancel, pause and unpause of instances that nobody holds, and who may ask for what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sayiir._errors import InstanceNotFoundError, InvalidStateError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import DELAYED, LISTENING, ONE, PATIENT, new_instance
from ._ground import Ground, end_as, everything, held_by, start, submit
from ._hand import HandWorker

ENDS = ["completed", "failed", "cancelled"]
WORKFLOWS = [ONE, DELAYED, LISTENING, PATIENT]


async def be_ready(backend: Backend) -> None:
    """In progress, and not held."""
    await submit(backend, ONE, "i-1")


async def be_scheduled(backend: Backend) -> None:
    """Before its start time."""
    await backend.submit([new_instance(ONE, "i-1", start_at=backend.now() + 60)], "fail")


async def be_delayed(backend: Backend) -> None:
    """In a delay."""
    await (await start(backend, DELAYED)).complete("x")


async def be_listening(backend: Backend) -> None:
    """Waiting for an event."""
    await (await start(backend, LISTENING)).complete("x")


async def be_patient(backend: Backend) -> None:
    """Waiting for an event, but not forever."""
    await (await start(backend, PATIENT)).complete("x")


async def be_released(backend: Backend) -> None:
    """Given back by its worker in the middle of a step."""
    await start(backend, ONE)
    await backend.release("worker-1")


STATES = [be_ready, be_scheduled, be_delayed, be_listening, be_patient, be_released]
State = Callable[[Backend], Awaitable[None]]


class RequestContract(Ground):
    """`cancel`, `pause`, `unpause` while nobody holds the instance."""

    @pytest.mark.parametrize("be", STATES)
    async def test_a_cancel_takes_effect_at_once(
        self, backend: Backend, clock: VirtualClock, be: State
    ) -> None:
        """No worker is needed for it; who asked and why is in the row."""
        await be(backend)
        clock.advance(1)
        assert await backend.cancel("i-1", "enough", "ops") == "cancelled"
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == ("cancelled", "enough", "ops")
        assert (row.ended_at, row.worker_id) == (clock(), None)
        assert (row.wake_at, row.delay_id, row.signal_id, row.signal_name) == (None,) * 4
        assert (row.output, row.error) == (None, None)
        assert await backend.next_wake() is None
        clock.advance(3600)
        assert await HandWorker(backend, WORKFLOWS).claim_ids() == []

    @pytest.mark.parametrize("be", STATES)
    async def test_a_pause_takes_effect_at_once(
        self, backend: Backend, clock: VirtualClock, be: State
    ) -> None:
        """Nothing wakes a paused instance: no time, no event, no claim."""
        await be(backend)
        assert await backend.pause("i-1", "lunch", "ops") == "paused"
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == ("paused", "lunch", "ops")
        assert (row.ended_at, row.worker_id) == (None, None)
        assert await backend.next_wake() is None
        clock.advance(3600)
        await backend.send_event("i-1", "go", b"", None)
        worker = HandWorker(backend, WORKFLOWS)
        assert await worker.claim_ids() == []
        assert await worker.claim_one("i-1") is None
        assert (await backend.get("i-1")).status == "paused"

    @pytest.mark.parametrize("be", STATES)
    async def test_an_unpaused_instance_is_back_where_it_was(
        self, backend: Backend, clock: VirtualClock, be: State
    ) -> None:
        """With the timer or the wait it had, and with nothing left of the pause."""
        await be(backend)
        before = await backend.get("i-1")
        await backend.pause("i-1", "lunch", "ops")
        clock.advance(10)
        assert await backend.unpause("i-1") == before.status
        after = await backend.get("i-1")
        for kept in ("status", "wake_at", "delay_id", "signal_id", "signal_name", "start_at"):
            assert getattr(after, kept) == getattr(before, kept), kept
        assert (after.reason, after.by) == (None, None)
        assert await backend.next_wake() == before.wake_at
        claimed = await HandWorker(backend, WORKFLOWS).claim_ids()
        assert claimed == (["i-1"] if before.status == "in_progress" else [])

    @pytest.mark.parametrize("be", [be_scheduled, be_delayed, be_patient])
    async def test_an_unpaused_instance_whose_time_has_come_is_ready(
        self, backend: Backend, clock: VirtualClock, be: State
    ) -> None:
        """Time goes on during a pause."""
        await be(backend)
        await backend.pause("i-1", None, None)
        clock.advance(61)
        await backend.unpause("i-1")
        assert await HandWorker(backend, WORKFLOWS).claim_ids() == ["i-1"]

    async def test_an_unpaused_instance_goes_on_with_its_work(self, backend: Backend) -> None:
        """What was done before the pause is not done again."""
        await (await start(backend, LISTENING)).complete("x")
        await backend.pause("i-1", None, None)
        await backend.unpause("i-1")
        await backend.send_event("i-1", "other", b"", None)
        assert (await backend.get("i-1")).status == "awaiting_signal"
        assert [row.step.path for row in await backend.history("i-1")] == ["before"]

    async def test_an_instance_can_be_paused_again_and_again(self, backend: Backend) -> None:
        """Each pause has its own words."""
        await submit(backend, ONE, "i-1")
        for reason in ("first", "second", None):
            assert await backend.pause("i-1", reason, None) == "paused"
            assert (await backend.get("i-1")).reason == reason
            assert await backend.unpause("i-1") == "in_progress"

    async def test_a_paused_instance_can_be_cancelled(self, backend: Backend) -> None:
        """At once, and the words are those of the cancel."""
        await submit(backend, ONE, "i-1")
        await backend.pause("i-1", "lunch", "one")
        assert await backend.cancel("i-1", "enough", "two") == "cancelled"
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == ("cancelled", "enough", "two")

    async def test_a_second_pause_is_nothing(self, backend: Backend) -> None:
        """The first one's words stay, and one unpause is enough."""
        await submit(backend, ONE, "i-1")
        await backend.pause("i-1", "first", "one")
        before = await everything(backend, "i-1")
        assert await backend.pause("i-1", "second", "two") == "paused"
        assert await everything(backend, "i-1") == before
        assert await backend.unpause("i-1") == "in_progress"

    async def test_a_second_cancel_is_nothing(self, backend: Backend, clock: VirtualClock) -> None:
        """An instance is cancelled once, with the first one's words."""
        await end_as(backend, "cancelled")
        before = await everything(backend, "i-1")
        clock.advance(1)
        assert await backend.cancel("i-1", "again", "somebody") == "cancelled"
        assert await everything(backend, "i-1") == before

    @pytest.mark.parametrize("end", ["completed", "failed"])
    async def test_what_has_ended_cannot_be_cancelled(self, backend: Backend, end: str) -> None:
        """Finished work is never reported as cancelled."""
        await end_as(backend, end)
        before = await everything(backend, "i-1")
        with pytest.raises(InvalidStateError) as caught:
            await backend.cancel("i-1", None, None)
        assert (caught.value.state, caught.value.instance_id) == (end, "i-1")
        assert await everything(backend, "i-1") == before

    @pytest.mark.parametrize("end", ENDS)
    async def test_what_has_ended_cannot_be_paused(self, backend: Backend, end: str) -> None:
        """A cancelled instance neither."""
        await end_as(backend, end)
        before = await everything(backend, "i-1")
        with pytest.raises(InvalidStateError) as caught:
            await backend.pause("i-1", None, None)
        assert (caught.value.state, caught.value.instance_id) == (end, "i-1")
        assert await everything(backend, "i-1") == before

    @pytest.mark.parametrize("end", ENDS)
    async def test_what_has_ended_cannot_be_unpaused(self, backend: Backend, end: str) -> None:
        """Not even when it was paused before it ended."""
        await end_as(backend, end)
        before = await everything(backend, "i-1")
        with pytest.raises(InvalidStateError) as caught:
            await backend.unpause("i-1")
        assert (caught.value.state, caught.value.instance_id) == (end, "i-1")
        assert "unpause" in str(caught.value)
        assert await everything(backend, "i-1") == before

    @pytest.mark.parametrize("be", [*STATES, "held"])
    async def test_what_is_not_paused_cannot_be_unpaused(
        self, backend: Backend, be: State | str
    ) -> None:
        """The error says the state it is in; the message says what was asked."""
        if callable(be):
            await be(backend)
        else:
            await start(backend, ONE)
        before = await everything(backend, "i-1")
        with pytest.raises(InvalidStateError, match="unpause") as caught:
            await backend.unpause("i-1")
        assert caught.value.state == before[0].status
        assert await everything(backend, "i-1") == before

    @pytest.mark.parametrize("be", [be_ready, be_delayed])
    async def test_a_request_fences_former_holders_off(self, backend: Backend, be: State) -> None:
        """A number that was given out once is never valid for what comes after."""
        await be(backend)
        before = (await backend.get("i-1")).fence
        await backend.pause("i-1", None, None)
        assert (await backend.news("i-1", before, [])).lost
        await backend.unpause("i-1")
        assert (await backend.news("i-1", before, [])).lost

    async def test_requests_to_nobody_are_refused(self, backend: Backend) -> None:
        """There is no such instance, says each call; it names the id."""
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: backend.cancel("nobody", None, None),
            lambda: backend.pause("nobody", None, None),
            lambda: backend.unpause("nobody"),
            lambda: backend.get("nobody"),
            lambda: backend.input("nobody"),
            lambda: backend.history("nobody"),
            lambda: backend.step("nobody", "only"),
            lambda: backend.delete("nobody", False),
            lambda: backend.delete("nobody", True),
        ]
        for call in calls:
            with pytest.raises(InstanceNotFoundError, match="nobody") as caught:
                await call()
            assert caught.value.instance_id == "nobody"

    async def test_the_words_of_a_request_are_kept_as_they_are(self, backend: Backend) -> None:
        """Whatever text it is."""
        words = ("'; DROP TABLE x; -- %s {} \n😀", "\u200fsomebody %_")
        await submit(backend, ONE, "i-1", "i-2")
        await backend.pause("i-1", *words)
        await backend.cancel("i-2", *words)
        for instance_id in ("i-1", "i-2"):
            row = await backend.get(instance_id)
            assert (row.reason, row.by) == words

    async def test_a_request_concerns_one_instance(self, backend: Backend) -> None:
        """Its neighbours go on."""
        await submit(backend, ONE, "i-1", "i-2", "i-3")
        await backend.cancel("i-1", None, None)
        await backend.pause("i-3", None, None)
        held = await held_by(HandWorker(backend, [ONE]), "i-2")
        assert await held.complete() == "ok"
