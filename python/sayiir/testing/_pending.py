"""Contract: a cancel or pause of an instance that somebody holds waits for the holder.

It takes effect with the commit that allows it, or with the end of the lease, and the work that is
done by then counts.
"""

from __future__ import annotations

import pytest

from sayiir._codec import decode_payload
from sayiir._errors import InvalidStateError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import DELAYED, FORKED, HANDING_OVER, LISTENING, ONE, TWO, Anything
from ._ground import Ground, held_by, start, submit
from ._hand import HandWorker

PARKING = [DELAYED, LISTENING]
PARKED_AS = {DELAYED: "waiting", LISTENING: "awaiting_signal"}


class PendingContract(Ground):
    """`cancel`, `pause`, `unpause` while somebody holds the instance."""

    async def test_a_cancel_waits_for_the_holder(self, backend: Backend) -> None:
        """The answer is the status as it still is; the holder is told."""
        held = await start(backend, TWO)
        assert not (await backend.news("i-1", held.fence, [])).cancel
        assert await backend.cancel("i-1", "enough", "ops") == "in_progress"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id) == ("in_progress", "worker-1")
        assert (row.reason, row.by, row.ended_at) == ("enough", "ops", None)
        news = await backend.news("i-1", held.fence, [])
        assert (news.lost, news.cancel, news.pause) == (False, True, False)

    async def test_a_cancel_takes_effect_with_the_next_commit(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """That commit's step is kept, the lease is gone, and nothing follows."""
        held = await start(backend, TWO)
        await backend.cancel("i-1", "enough", "ops")
        clock.advance(1)
        assert await held.complete("half") == "cancelled"
        assert held.state == "cancelled"
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == ("cancelled", "enough", "ops")
        assert (row.ended_at, row.worker_id, row.steps) == (clock(), None, 1)
        assert (await backend.news("i-1", held.fence, [])).lost
        assert await HandWorker(backend, [TWO]).claim_ids() == []
        assert await backend.release("worker-1") == 0

    async def test_a_cancel_does_not_wait_for_running_steps(self, backend: Backend) -> None:
        """One branch's commit is enough while another still runs."""
        held = await start(backend, FORKED)
        await backend.cancel("i-1", None, None)
        assert await held.complete("L", "left") == "cancelled"
        assert (await backend.get("i-1")).status == "cancelled"

    @pytest.mark.parametrize("workflow", PARKING, ids=["delay", "wait"])
    async def test_a_cancel_takes_effect_with_a_commit_that_parks(
        self, backend: Backend, clock: VirtualClock, workflow: Anything
    ) -> None:
        """No timer and no wait is left; a buffered event does not save it."""
        held = await start(backend, workflow)
        await backend.send_event("i-1", "go", b"", None)
        await backend.cancel("i-1", None, None)
        assert await held.complete() == "cancelled"
        assert held.kinds == ["cancelled"]
        row = await backend.get("i-1")
        assert (row.status, row.wake_at, row.delay_id, row.signal_id) == ("cancelled", *[None] * 3)
        assert await backend.next_wake() is None
        clock.advance(3600)
        assert await held.worker.claim_ids() == []

    @pytest.mark.parametrize(("ask", "word"), [("cancel", "cancelled"), ("pause", "paused")])
    async def test_a_request_takes_effect_with_a_commit_that_hands_over(
        self, backend: Backend, ask: str, word: str
    ) -> None:
        """Nobody else gets the instance in between."""
        await submit(backend, HANDING_OVER, "i-1")
        held = await held_by(HandWorker(backend, [HANDING_OVER], tags=["cpu"]), "i-1")
        await getattr(backend, ask)("i-1", None, None)
        assert await held.complete() == word
        assert (await backend.get("i-1")).status == word
        assert await HandWorker(backend, [HANDING_OVER], "worker-2").claim_ids() == []

    @pytest.mark.parametrize("ask", ["cancel", "pause"])
    @pytest.mark.parametrize("end", ["completed", "failed"])
    async def test_the_end_beats_what_was_asked(self, backend: Backend, ask: str, end: str) -> None:
        """Finished work is never reported as cancelled, and a failure is a failure."""
        held = await start(backend, ONE)
        await getattr(backend, ask)("i-1", "enough", "ops")
        reply = await (held.complete("done") if end == "completed" else held.fail())
        assert reply == "ok"
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == (end, None, None)
        if end == "completed":
            assert row.output is not None
            assert decode_payload(row.output) == "done"

    async def test_a_pause_waits_for_the_holder(self, backend: Backend) -> None:
        """The answer is the status as it still is; the holder is told."""
        held = await start(backend, TWO)
        assert await backend.pause("i-1", "lunch", "ops") == "in_progress"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id) == ("in_progress", "worker-1")
        assert (row.reason, row.by) == ("lunch", "ops")
        news = await backend.news("i-1", held.fence, [])
        assert (news.lost, news.cancel, news.pause) == (False, False, True)

    async def test_a_pause_takes_effect_with_the_next_quiet_commit(self, backend: Backend) -> None:
        """The step that ended counts, the next one does not begin before the unpause."""
        held = await start(backend, TWO)
        await backend.pause("i-1", "lunch", "ops")
        assert await held.complete("half") == "paused"
        assert (held.state, held.steps) == ("paused", [])
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by) == ("paused", "lunch", "ops")
        assert (row.worker_id, row.steps) == (None, 1)
        assert (await backend.news("i-1", held.fence, [])).lost
        assert await held.worker.claim_ids() == []
        assert await backend.unpause("i-1") == "in_progress"
        again = await held_by(held.worker, "i-1")
        assert [(step.path, step.input) for step in again.steps] == [("second", "half")]

    async def test_a_pause_waits_for_running_steps(self, backend: Backend) -> None:
        """Commits while a step runs are answered `pause_pending`, and the lease is kept."""
        held = await start(backend, FORKED)
        await backend.pause("i-1", None, None)
        assert await held.complete("L", "left") == "pause_pending"
        assert held.state == "held"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id, row.steps) == ("in_progress", "worker-1", 1)
        assert await held.complete("R", "right") == "paused"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id, row.steps) == ("paused", None, 2)
        await backend.unpause("i-1")
        again = await held_by(held.worker, "i-1")
        assert [step.input for step in again.steps] == [{"left": "L", "right": "R"}]

    @pytest.mark.parametrize("workflow", PARKING, ids=["delay", "wait"])
    async def test_a_pause_takes_effect_with_a_commit_that_parks(
        self, backend: Backend, clock: VirtualClock, workflow: Anything
    ) -> None:
        """The instance goes back to where that commit put it."""
        held = await start(backend, workflow)
        await backend.pause("i-1", None, None)
        assert await held.complete("x") == "paused"
        assert await backend.next_wake() is None
        assert await backend.unpause("i-1") == PARKED_AS[workflow]
        row = await backend.get("i-1")
        assert row.status == PARKED_AS[workflow]
        if workflow is DELAYED:
            assert (row.wake_at, row.delay_id) == (clock() + 60, "nap")
        else:
            assert (row.signal_id, row.signal_name) == ("door", "go")
        assert await held.worker.claim_ids() == []

    async def test_a_pause_beats_a_buffered_event(self, backend: Backend) -> None:
        """The event stays for after the pause."""
        held = await start(backend, LISTENING)
        await backend.send_event("i-1", "go", b"", None)
        await backend.pause("i-1", None, None)
        assert await held.complete("x") == "paused"
        assert held.kinds == ["paused"]
        assert await held.worker.claim_ids() == []
        await backend.unpause("i-1")
        assert await held.worker.claim_ids() == ["i-1"]

    async def test_a_pause_can_be_taken_back(self, backend: Backend) -> None:
        """Before it took effect: the holder goes on as if nobody had asked."""
        held = await start(backend, TWO)
        await backend.pause("i-1", "lunch", "ops")
        assert await backend.unpause("i-1") == "in_progress"
        assert not (await backend.news("i-1", held.fence, [])).pause
        row = await backend.get("i-1")
        assert (row.reason, row.by, row.worker_id) == (None, None, "worker-1")
        assert await held.complete() == "ok"
        assert await held.complete() == "ok"
        assert (await backend.get("i-1")).status == "completed"

    async def test_a_cancel_beats_a_pause(self, backend: Backend) -> None:
        """In whatever order they are asked; the words are those of the cancel."""
        for instance_id, first, second in (("i-1", "pause", "cancel"), ("i-2", "cancel", "pause")):
            held = await start(backend, TWO, instance_id)
            await getattr(backend, first)(instance_id, first, "ops")
            await getattr(backend, second)(instance_id, second, "ops")
            news = await backend.news(instance_id, held.fence, [])
            assert (news.cancel, news.pause) == (True, False)
            assert await held.complete() == "cancelled"
            assert (await backend.get(instance_id)).reason == "cancel"

    async def test_a_cancel_cannot_be_taken_back(self, backend: Backend) -> None:
        """An unpause does not apply to it."""
        held = await start(backend, TWO)
        await backend.cancel("i-1", None, None)
        with pytest.raises(InvalidStateError) as caught:
            await backend.unpause("i-1")
        assert caught.value.state == "in_progress"
        assert await held.complete() == "cancelled"

    @pytest.mark.parametrize("give_back", ["time", "release"])
    @pytest.mark.parametrize(("ask", "word"), [("cancel", "cancelled"), ("pause", "paused")])
    async def test_a_request_takes_effect_when_the_lease_ends(
        self, backend: Backend, clock: VirtualClock, ask: str, word: str, give_back: str
    ) -> None:
        """By time or by release: no worker gets the instance any more."""
        held = await start(backend, TWO)
        late = held.completion()
        await getattr(backend, ask)("i-1", "enough", "ops")
        if give_back == "time":
            clock.advance(31)
        else:
            assert await backend.release("worker-1") == 1
        assert await HandWorker(backend, [TWO], "worker-2").claim_ids() == []
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.by, row.worker_id) == (word, "enough", "ops", None)
        assert await held.send(late) == "lease_lost"
        assert (await backend.get("i-1")).steps == 0
        if ask == "pause":
            assert await backend.unpause("i-1") == "in_progress"
            assert await HandWorker(backend, [TWO], "worker-2").claim_ids() == ["i-1"]

    @pytest.mark.parametrize("ask", ["cancel", "pause"])
    async def test_a_request_finds_that_the_lease_has_run_out(
        self, backend: Backend, clock: VirtualClock, ask: str
    ) -> None:
        """Then it takes effect at once, although nobody has noticed before."""
        await start(backend, TWO)
        clock.advance(31)
        word = {"cancel": "cancelled", "pause": "paused"}[ask]
        assert await getattr(backend, ask)("i-1", None, None) == word

    async def test_an_event_finds_that_a_cancel_took_effect(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """When the lease of a cancelled instance has run out it has ended, for every call."""
        await start(backend, TWO)
        await backend.cancel("i-1", None, None)
        clock.advance(31)
        with pytest.raises(InvalidStateError) as caught:
            await backend.send_event("i-1", "go", b"", None)
        assert caught.value.state == "cancelled"
