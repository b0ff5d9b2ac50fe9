"""Contract: events, which are kept until they are wanted, and are given once."""

# Asserting is what a suite does.

from __future__ import annotations

from typing import Any

import pytest

from sayiir._codec import encode_payload
from sayiir._errors import InvalidStateError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import LISTENING, ONE, PATIENT, TWIN_WAITS, new_instance, waits_first
from ._ground import Ground, end_as, everything, held_by, start, submit
from ._hand import HandWorker

DAY = 86_400.0


async def send(
    backend: Backend, value: Any, *, to: str = "i-1", name: str = "go", key: str | None = None
) -> bool:
    """Send an event with this value as its payload."""
    return await backend.send_event(to, name, encode_payload(value), key)


async def buffered(backend: Backend, instance_id: str, fence: int, *names: str) -> list[bytes]:
    """Payloads of what the holder is told of these names, oldest first."""
    return [event.payload for event in (await backend.news(instance_id, fence, names)).events]


class EventContract(Ground):
    """`send_event`, and how events reach the one who waits for them."""

    async def test_an_event_may_come_before_its_instance(self, backend: Backend) -> None:
        """It is there when the instance asks for it."""
        flow = waits_first("go")
        assert await send(backend, "early")
        await submit(backend, flow, "i-1")
        held = await held_by(HandWorker(backend, [flow]), "i-1")
        assert [step.input for step in held.steps] == ["early"]

    async def test_an_event_may_come_while_its_instance_runs(self, backend: Backend) -> None:
        """The commit that would park says that the event is there, and the lease is kept."""
        held = await start(backend, LISTENING)
        assert await send(backend, "now")
        assert (await backend.get("i-1")).worker_id == "worker-1"
        await held.complete("x")
        assert held.kinds == ["events", "ok"]
        assert [event.name for event in held.replies[0].events] == ["go"]
        assert held.state == "held"
        assert (await backend.get("i-1")).worker_id == "worker-1"
        assert [(step.path, step.input) for step in held.steps] == [("after", "now")]
        assert await held.complete("y") == "ok"
        assert (await backend.get("i-1")).status == "completed"

    async def test_a_commit_answered_with_events_is_written(self, backend: Backend) -> None:
        """A worker lost right after it has not lost the step."""
        held = await start(backend, LISTENING)
        await send(backend, "now")
        assert await held.send(held.completion("x")) == "events"
        assert (await backend.get("i-1")).steps == 1
        await backend.release("worker-1")
        other = await held_by(HandWorker(backend, [LISTENING], "worker-2"), "i-1")
        assert [(step.path, step.input) for step in other.steps] == [("after", "now")]

    async def test_an_event_wakes_who_waits_for_it(self, backend: Backend) -> None:
        """The instance can be claimed at once and goes on with the payload."""
        await (await start(backend, LISTENING)).complete()
        worker = HandWorker(backend, [LISTENING])
        assert await worker.claim_ids() == []
        assert await send(backend, {"door": 3})
        [held] = await worker.claim()
        assert [(step.path, step.input) for step in held.steps] == [("after", {"door": 3})]
        assert await buffered(backend, "i-1", held.fence, "go") == []
        row = await backend.get("i-1")
        assert (row.status, row.signal_id, row.signal_name) == ("in_progress", None, None)

    async def test_an_event_comes_before_the_time_is_up(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """It ends a wait that has a time, and the timer goes with the wait."""
        await (await start(backend, PATIENT)).complete()
        clock.advance(30)
        await send(backend, "in time")
        held = await held_by(HandWorker(backend, [PATIENT]), "i-1")
        assert [step.input for step in held.steps] == ["in time"]
        assert await backend.next_wake() is None

    async def test_another_event_wakes_nobody(self, backend: Backend) -> None:
        """It is buffered, for when it is asked for."""
        await (await start(backend, LISTENING)).complete()
        assert await send(backend, 1, name="stop")
        assert await HandWorker(backend, [LISTENING]).claim_ids() == []
        assert (await backend.get("i-1")).status == "awaiting_signal"

    async def test_an_event_is_for_its_instance_alone(self, backend: Backend) -> None:
        """Whoever else waits for the same name goes on waiting."""
        for instance_id in ("i-1", "i-2"):
            await (await start(backend, LISTENING, instance_id)).complete()
        await send(backend, 1, to="i-2")
        assert await HandWorker(backend, [LISTENING]).claim_ids(9) == ["i-2"]

    async def test_first_in_first_out_for_each_name(self, backend: Backend) -> None:
        """Names have queues of their own; payloads are bytes and may be empty."""
        await backend.send_event("i-1", "go", b"1", None)
        await backend.send_event("i-1", "stop", b"2", None)
        await backend.send_event("i-1", "go", b"", None)
        held = await start(backend, ONE)
        await backend.send_event("i-1", "go", b"4", None)
        news = await backend.news("i-1", held.fence, ["go", "go", "go", "stop"])
        by_name = [(event.name, event.payload) for event in news.events]
        assert [payload for name, payload in by_name if name == "go"] == [b"1", b"", b"4"]
        assert [payload for name, payload in by_name if name == "stop"] == [b"2"]
        seqs = [event.seq for event in news.events]
        assert len(set(seqs)) == 4

    async def test_as_many_of_a_name_as_it_is_asked_for(self, backend: Backend) -> None:
        """The oldest ones; a name that is not asked for is not told."""
        held = await start(backend, ONE)
        for payload in (b"1", b"2", b"3"):
            await backend.send_event("i-1", "go", payload, None)
        assert await buffered(backend, "i-1", held.fence) == []
        assert await buffered(backend, "i-1", held.fence, "stop") == []
        assert await buffered(backend, "i-1", held.fence, "go") == [b"1"]
        assert await buffered(backend, "i-1", held.fence, "go", "go") == [b"1", b"2"]
        assert await buffered(backend, "i-1", held.fence, *["go"] * 9) == [b"1", b"2", b"3"]

    async def test_two_waits_for_one_name_get_an_event_each(self, backend: Backend) -> None:
        """In the order the events came; one event ends one wait only."""
        worker = HandWorker(backend, [TWIN_WAITS])
        await submit(backend, TWIN_WAITS, "i-1")
        held = await held_by(worker, "i-1")
        assert held.state == "parked"
        await send(backend, "first")
        [held] = await worker.claim()
        assert [(step.task.name, step.input) for step in held.steps] == [("left", "first")]
        assert await held.complete("L") == "ok"
        assert held.state == "parked"
        assert await worker.claim_ids() == []
        await send(backend, "second")
        [held] = await worker.claim()
        assert [(step.task.name, step.input) for step in held.steps] == [("right", "second")]

    async def test_reading_does_not_consume(self, backend: Backend, clock: VirtualClock) -> None:
        """Only a commit takes an event out, so a lost worker loses none."""
        await (await start(backend, LISTENING)).complete()
        await send(backend, "kept")
        lost = HandWorker(backend, [LISTENING], "worker-2")
        [claim] = await backend.claim(lost.claimant, 1)
        assert len(await buffered(backend, "i-1", claim.fence, "go")) == 1
        clock.advance(31)
        held = await held_by(HandWorker(backend, [LISTENING], "worker-3"), "i-1")
        assert [step.input for step in held.steps] == ["kept"]

    async def test_a_refused_commit_consumes_nothing(self, backend: Backend) -> None:
        """Under a stale fence the event stays for the new holder."""
        held = await start(backend, ONE)
        await send(backend, "kept")
        late = held.completion()
        await backend.release("worker-1")
        other = await held_by(HandWorker(backend, [ONE], "worker-2"), "i-1")
        assert await held.send(late) == "lease_lost"
        assert len(await buffered(backend, "i-1", other.fence, "go")) == 1

    @pytest.mark.parametrize("early", [True, False], ids=["early", "running"])
    async def test_a_repeated_key_has_no_effect(self, backend: Backend, early: bool) -> None:
        """The first payload stays; other keys, names and instances are other events."""
        held = None if early else await start(backend, ONE)
        assert await backend.send_event("i-1", "go", b"1", "k")
        assert not await backend.send_event("i-1", "go", b"2", "k")
        assert await backend.send_event("i-1", "go", b"3", "l")
        assert await backend.send_event("i-1", "stop", b"4", "k")
        assert await backend.send_event("i-2", "go", b"5", "k")
        held = held or await start(backend, ONE)
        assert not await backend.send_event("i-1", "go", b"6", "k")
        assert await buffered(backend, "i-1", held.fence, "go", "go", "go") == [b"1", b"3"]

    async def test_a_consumed_event_keeps_its_key(self, backend: Backend) -> None:
        """Who repeats a send late does not send again."""
        await (await start(backend, LISTENING)).complete()
        await send(backend, 1, key="k")
        held = await held_by(HandWorker(backend, [LISTENING]), "i-1")
        assert not await send(backend, 1, key="k")
        assert await buffered(backend, "i-1", held.fence, "go") == []

    async def test_without_a_key_every_send_counts(self, backend: Backend) -> None:
        """Equal payloads are two events."""
        held = await start(backend, ONE)
        assert await send(backend, 1)
        assert await send(backend, 1)
        assert len(await buffered(backend, "i-1", held.fence, "go", "go")) == 2

    @pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
    async def test_an_ended_instance_takes_no_events(self, backend: Backend, end: str) -> None:
        """The error says how it ended, and nothing changes."""
        await end_as(backend, end)
        before = await everything(backend, "i-1")
        with pytest.raises(InvalidStateError) as caught:
            await send(backend, 1)
        assert (caught.value.state, caught.value.instance_id) == (end, "i-1")
        assert await everything(backend, "i-1") == before

    async def test_a_paused_instance_buffers_events(self, backend: Backend) -> None:
        """They do not wake it; they are delivered when it goes on."""
        await (await start(backend, LISTENING)).complete()
        await backend.pause("i-1", None, None)
        assert await send(backend, "patience")
        worker = HandWorker(backend, [LISTENING])
        assert await worker.claim_ids() == []
        assert (await backend.get("i-1")).status == "paused"
        await backend.unpause("i-1")
        [held] = await worker.claim()
        assert [step.input for step in held.steps] == ["patience"]

    async def test_early_events_are_kept_a_week(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Each for itself, and no longer, when the instance never comes."""
        await backend.send_event("i-1", "go", b"old", None)
        clock.advance(6 * DAY)
        await backend.send_event("i-1", "go", b"young", None)
        clock.advance(1.5 * DAY)
        held = await start(backend, ONE)
        assert await buffered(backend, "i-1", held.fence, "go", "go") == [b"young"]

    async def test_events_of_a_submitted_instance_do_not_age(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Once it is there they are its own, however early they came."""
        await backend.send_event("i-1", "go", b"kept", None)
        await backend.submit([new_instance(ONE, "i-1")], "fail")
        clock.advance(30 * DAY)
        await submit(backend, ONE, "i-2")
        held = await held_by(HandWorker(backend, [ONE]), "i-1")
        assert await buffered(backend, "i-1", held.fence, "go") == [b"kept"]

    async def test_a_week_begins_anew_for_an_id_that_is_used_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """The age of events that are long delivered is not that of new ones."""
        await backend.send_event("i-1", "go", b"old", None)
        await submit(backend, ONE, "i-1")
        clock.advance(6 * DAY)
        await backend.delete("i-1", True)
        await backend.send_event("i-1", "go", b"new", None)
        clock.advance(2 * DAY)
        held = await start(backend, ONE)
        assert await buffered(backend, "i-1", held.fence, "go", "go") == [b"new"]
