"""Contract: delays, backoffs and waits, which hold no worker and wake by themselves."""

# Asserting is what a suite does.

from __future__ import annotations

from sayiir._values import EventTimeout
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import DELAYED, LISTENING, ONE, PATIENT, RETRYING, new_instance
from ._ground import Ground, held_by, start, submit
from ._hand import HandWorker


class ParkContract(Ground):
    """Parked instances and `next_wake`."""

    async def test_a_delay_gives_the_lease_back(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """The row says which delay it is in and when it ends."""
        held = await start(backend, DELAYED)
        assert await held.complete("x") == "ok"
        assert held.state == "parked"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id) == ("waiting", None)
        assert (row.wake_at, row.delay_id) == (clock() + 60, "nap")
        assert (row.signal_id, row.signal_name) == (None, None)
        assert await backend.release("worker-1") == 0

    async def test_a_delay_ends_by_itself(self, backend: Backend, clock: VirtualClock) -> None:
        """Not a moment too early; then the instance can be claimed and goes on."""
        await (await start(backend, DELAYED)).complete("x")
        worker = HandWorker(backend, [DELAYED], "worker-2")
        clock.advance(59.9)
        assert await worker.claim_ids() == []
        assert await worker.claim_one("i-1") is None
        clock.advance(0.2)
        [held] = await worker.claim()
        assert [(step.path, step.input) for step in held.steps] == [("after", "x")]
        row = await backend.get("i-1")
        assert (row.status, row.wake_at, row.delay_id) == ("in_progress", None, None)
        assert await held.complete("y") == "ok"

    async def test_claiming_one_wakes_it_too(self, backend: Backend, clock: VirtualClock) -> None:
        """Whoever asks, after its time has come."""
        await (await start(backend, DELAYED)).complete()
        clock.advance(60)
        held = await held_by(HandWorker(backend, [DELAYED]), "i-1")
        assert [step.path for step in held.steps] == ["after"]

    async def test_a_delay_outlives_a_worker_that_woke_it(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Claimed, but lost before the commit: it is ready at once for the next."""
        await (await start(backend, DELAYED)).complete()
        clock.advance(60)
        assert await HandWorker(backend, [DELAYED], "worker-2").claim_ids() == ["i-1"]
        assert await backend.next_wake() is None
        await backend.release("worker-2")
        assert await HandWorker(backend, [DELAYED], "worker-3").claim_ids() == ["i-1"]

    async def test_a_backoff_is_a_timer(self, backend: Backend, clock: VirtualClock) -> None:
        """It holds no lease, and the attempt that failed is in the history."""
        held = await start(backend, RETRYING)
        assert await held.fail("no luck") == "ok"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id, row.steps) == ("waiting", None, 1)
        assert row.wake_at is not None
        assert row.wake_at > clock()
        [failed] = await backend.history("i-1")
        assert (failed.step.outcome, failed.step.attempt) == ("retried", 1)
        clock.time = row.wake_at
        again = await held_by(held.worker, "i-1")
        assert [step.attempt for step in again.steps] == [2]

    async def test_a_wait_says_what_it_waits_for(self, backend: Backend) -> None:
        """The path of the wait and the name of the event, and no time."""
        held = await start(backend, LISTENING)
        assert await held.complete() == "ok"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id) == ("awaiting_signal", None)
        assert (row.signal_id, row.signal_name) == ("door", "go")
        assert (row.wake_at, row.delay_id) == (None, None)
        assert await backend.next_wake() is None

    async def test_a_wait_without_a_time_never_ends_by_itself(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Only an event wakes it."""
        await (await start(backend, LISTENING)).complete()
        clock.advance(10 * 365 * 86_400)
        assert await HandWorker(backend, [LISTENING]).claim_ids() == []

    async def test_a_wait_with_a_time_ends_at_it(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """And the next step learns that the time was up."""
        await (await start(backend, PATIENT)).complete()
        row = await backend.get("i-1")
        assert (row.status, row.signal_name) == ("awaiting_signal", "go")
        assert row.wake_at == await backend.next_wake() == clock() + 60
        worker = HandWorker(backend, [PATIENT])
        clock.advance(59.9)
        assert await worker.claim_ids() == []
        clock.advance(0.2)
        [held] = await worker.claim()
        assert isinstance(held.steps[0].input, EventTimeout)

    async def test_the_next_wake_is_the_earliest(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Of delays, waits with a time, backoffs and start times; of nothing, `None`."""
        assert await backend.next_wake() is None
        await submit(backend, ONE, "ready")
        assert await backend.next_wake() is None
        begun = clock()
        await backend.submit([new_instance(ONE, "scheduled", start_at=begun + 90)], "fail")
        assert await backend.next_wake() == begun + 90
        await (await start(backend, DELAYED, "delayed")).complete()
        assert await backend.next_wake() == begun + 60
        await (await start(backend, RETRYING, "retrying")).fail()
        soonest = await backend.next_wake()
        assert soonest == (await backend.get("retrying")).wake_at
        await backend.cancel("retrying", None, None)
        assert await backend.next_wake() == begun + 60
        await backend.pause("delayed", None, None)
        assert await backend.next_wake() == begun + 90
        await backend.unpause("delayed")
        assert await backend.next_wake() == begun + 60
        await backend.delete("delayed", True)
        assert await backend.next_wake() == begun + 90
        await backend.submit([new_instance(ONE, "scheduled")], "terminate_existing")
        assert await backend.next_wake() is None

    async def test_many_timers_wake_in_the_order_of_claims(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Timers say when, not who first: among the woken the oldest is the first."""
        begun = clock()
        ids = [f"i-{n}" for n in range(20)]
        await backend.submit([new_instance(ONE, name, start_at=begun + 5) for name in ids], "fail")
        clock.advance(5)
        assert await HandWorker(backend, [ONE]).claim_ids(50) == ids
