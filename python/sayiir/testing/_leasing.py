"""Contract: claims, leases, fences, and taking over what somebody else began."""

# Asserting is what a suite does.

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sayiir._codec import decode_payload
from sayiir._errors import InstanceNotFoundError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import (
    DELAYED,
    FORKED,
    LISTENING,
    MAPPED,
    ONE,
    OTHER,
    RETRYING,
    TWO,
    new_instance,
    tagged,
)
from ._ground import Ground, everything, held_by, start, submit
from ._hand import HandWorker, Held

WayToLose = Callable[[Held, VirtualClock], Awaitable[None]]


async def lose_by_takeover(held: Held, clock: VirtualClock) -> None:
    """The lease runs out and another worker claims the instance."""
    clock.advance(31)
    await held_by(HandWorker(held.backend, [TWO], "worker-2"), held.instance_id)


async def lose_by_time(held: Held, clock: VirtualClock) -> None:
    """The lease runs out, somebody looks, and nobody claims the instance."""
    clock.advance(31)
    assert (await held.backend.get(held.instance_id)).worker_id is None


async def lose_by_release(held: Held, _: VirtualClock) -> None:
    """The worker gives its leases back."""
    await held.backend.release(held.worker.name)


async def lose_to_itself(held: Held, _: VirtualClock) -> None:
    """The worker gives its leases back and claims the instance again."""
    await held.backend.release(held.worker.name)
    await held_by(held.worker, held.instance_id)


async def lose_by_pause(held: Held, _: VirtualClock) -> None:
    """The lease is given back and somebody pauses the instance."""
    await held.backend.release(held.worker.name)
    await held.backend.pause(held.instance_id, None, None)


async def lose_by_cancel(held: Held, clock: VirtualClock) -> None:
    """A cancel takes effect when the lease has run out."""
    await held.backend.cancel(held.instance_id, None, None)
    clock.advance(31)
    assert (await held.backend.get(held.instance_id)).status == "cancelled"


WAYS_TO_LOSE = [
    lose_by_takeover,
    lose_by_time,
    lose_by_release,
    lose_to_itself,
    lose_by_pause,
    lose_by_cancel,
]


class LeaseContract(Ground):
    """`claim`, `claim_one`, `renew`, `release`, and what a fence refuses."""

    async def test_a_claim_has_what_its_holder_needs(self, backend: Backend) -> None:
        """Identity, fence, definition and needs; a fresh instance has no position yet."""
        workflow = tagged("gpu")
        held = await start(backend, workflow)
        claim = held.claim
        assert (claim.instance_id, claim.definition_hash) == ("i-1", workflow.definition_hash)
        assert (claim.cursor, claim.cells, claim.next_seq) == (None, [], 0)
        assert (list(claim.tags), claim.priority) == (["gpu"], 3)
        row = await backend.get("i-1")
        assert (row.worker_id, row.fence, row.status) == ("worker-1", claim.fence, "in_progress")

    async def test_one_worker_at_a_time(self, backend: Backend) -> None:
        """Who holds an instance is the only one, also for itself."""
        held = await start(backend, ONE)
        for worker in (held.worker, HandWorker(backend, [ONE], "worker-2")):
            assert await worker.claim_ids(10) == []
            assert await worker.claim_one("i-1") is None
        assert (await backend.get("i-1")).fence == held.fence

    async def test_a_claim_takes_no_more_than_its_limit(self, backend: Backend) -> None:
        """What is left stays for the next claim."""
        await submit(backend, ONE, *(f"i-{n}" for n in range(5)))
        worker = HandWorker(backend, [ONE])
        assert await worker.claim_ids(2) == ["i-0", "i-1"]
        assert await worker.claim_ids(2) == ["i-2", "i-3"]
        assert await worker.claim_ids(2) == ["i-4"]
        assert await worker.claim_ids(2) == []

    async def test_every_claim_raises_the_fence(self, backend: Backend) -> None:
        """Also one by the worker that held it before."""
        worker = HandWorker(backend, [ONE])
        await submit(backend, ONE, "i-1")
        fences = []
        for _ in range(3):
            fences.append((await held_by(worker, "i-1")).fence)
            await backend.release("worker-1")
        assert fences == sorted(set(fences))

    async def test_a_lease_lasts_its_length_and_no_longer(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Before its end nobody else gets the instance, after it anybody does."""
        await start(backend, ONE)
        other = HandWorker(backend, [ONE], "worker-2")
        clock.advance(29.5)
        assert await other.claim_ids() == []
        assert (await backend.get("i-1")).worker_id == "worker-1"
        clock.advance(1)
        assert (await backend.get("i-1")).worker_id is None
        assert await other.claim_ids() == ["i-1"]
        assert (await backend.get("i-1")).worker_id == "worker-2"

    async def test_renewal_prolongs_every_lease_of_a_worker(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """And nobody else's."""
        await submit(backend, ONE, "i-1", "i-2", "i-3")
        worker, other = HandWorker(backend, [ONE]), HandWorker(backend, [ONE], "worker-2")
        await worker.claim(2)
        await other.claim(1)
        for _ in range(5):
            clock.advance(20)
            assert await worker.renew() == []
        third = HandWorker(backend, [ONE], "worker-3")
        assert await third.claim_ids(10) == ["i-3"]
        clock.advance(31)
        assert sorted(await third.claim_ids(10)) == ["i-1", "i-2", "i-3"]

    async def test_renewal_names_what_was_asked_of_the_holder(self, backend: Backend) -> None:
        """The ids of the worker's own instances with a pending cancel or pause."""
        await submit(backend, ONE, "i-1", "i-2", "i-3", "i-4")
        worker, other = HandWorker(backend, [ONE]), HandWorker(backend, [ONE], "worker-2")
        await worker.claim(3)
        await other.claim(1)
        await backend.cancel("i-1", None, None)
        await backend.pause("i-3", None, None)
        await backend.cancel("i-4", None, None)
        assert await worker.renew() == ["i-1", "i-3"]
        assert await other.renew() == ["i-4"]
        await backend.unpause("i-3")
        assert await worker.renew() == ["i-1"]

    async def test_renewal_without_leases_is_nothing(self, backend: Backend) -> None:
        """A worker that holds nothing may renew."""
        assert list(await backend.renew("nobody", 30.0)) == []

    async def test_renewal_does_not_bring_a_lost_lease_back(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """What another worker has taken over stays its."""
        held = await start(backend, ONE)
        clock.advance(31)
        await held_by(HandWorker(backend, [ONE], "worker-2"), "i-1")
        assert await held.worker.renew() == []
        assert (await backend.get("i-1")).worker_id == "worker-2"

    async def test_release_gives_all_leases_of_a_worker_back(self, backend: Backend) -> None:
        """It says how many, and others keep theirs."""
        await submit(backend, ONE, "i-1", "i-2", "i-3")
        worker, other = HandWorker(backend, [ONE]), HandWorker(backend, [ONE], "worker-2")
        await worker.claim(2)
        await other.claim(1)
        assert await backend.release("worker-1") == 2
        assert await backend.release("worker-1") == 0
        assert (await backend.get("i-1")).worker_id is None
        assert (await backend.get("i-3")).worker_id == "worker-2"
        third = HandWorker(backend, [ONE], "worker-3")
        assert await third.claim_ids(10) == ["i-1", "i-2"]

    async def test_one_lease_can_be_given_back(self, backend: Backend) -> None:
        """By its fence; the worker keeps its others, and the instance is ready for anybody."""
        await submit(backend, TWO, "i-1", "i-2")
        first, second = await HandWorker(backend, [TWO]).claim(2)
        await first.complete("half")
        assert await backend.give_back("i-1", first.fence)
        row = await backend.get("i-1")
        assert (row.status, row.worker_id, row.steps) == ("in_progress", None, 1)
        assert (await backend.news("i-1", first.fence, [])).lost
        other = await held_by(HandWorker(backend, [TWO], "worker-2"), "i-1")
        assert [step.input for step in other.steps] == ["half"]
        assert await second.complete() == "ok"
        assert await backend.release("worker-1") == 1

    async def test_only_a_lease_that_is_held_can_be_given_back(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Not twice, not by a former holder, and not of an instance that is not there."""
        held = await start(backend, ONE)
        assert not await backend.give_back("nobody", 1)
        assert not await backend.give_back("i-1", held.fence + 1)
        assert await backend.give_back("i-1", held.fence)
        assert not await backend.give_back("i-1", held.fence)
        other = await held_by(HandWorker(backend, [ONE], "worker-2"), "i-1")
        assert not await backend.give_back("i-1", held.fence)
        assert (await backend.get("i-1")).worker_id == "worker-2"
        await other.complete()
        assert not await backend.give_back("i-1", other.fence)
        assert (await backend.get("i-1")).status == "completed"

    async def test_a_request_takes_effect_when_a_lease_is_given_back(
        self, backend: Backend
    ) -> None:
        """As when it ends in any other way."""
        held = await start(backend, ONE)
        await backend.cancel("i-1", "enough", "ops")
        assert await backend.give_back("i-1", held.fence)
        row = await backend.get("i-1")
        assert (row.status, row.reason, row.worker_id) == ("cancelled", "enough", None)

    async def test_a_worker_that_gave_back_can_claim_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """With leases as long as the first."""
        held = await start(backend, ONE)
        clock.advance(25)
        await backend.release("worker-1")
        again = await held_by(held.worker, "i-1")
        clock.advance(25)
        assert await again.complete() == "ok"

    @pytest.mark.parametrize("lose", WAYS_TO_LOSE)
    async def test_a_stale_fence_writes_nothing(
        self, backend: Backend, clock: VirtualClock, lose: WayToLose
    ) -> None:
        """However the lease was lost: the answer is `lease_lost` and not one field changes."""
        held = await start(backend, TWO)
        await backend.send_event("i-1", "go", b"kept", None)
        late = held.completion("late")
        await lose(held, clock)
        before = await everything(backend, "i-1")
        clock.advance(1)
        assert await held.send(late) == "lease_lost"
        assert (await backend.news("i-1", held.fence, ["go"])).lost
        assert await everything(backend, "i-1") == before

    async def test_a_fence_that_never_was_writes_nothing(self, backend: Backend) -> None:
        """An instance that is gone has no fence that fits."""
        held = await start(backend, ONE)
        late = held.completion("late")
        await backend.delete("i-1", True)
        assert await held.send(late) == "lease_lost"
        assert (await backend.news("i-1", held.fence, [])).lost
        assert list((await backend.find()).rows) == []

    async def test_commits_in_a_batch_are_answered_one_by_one(self, backend: Backend) -> None:
        """In order, and a refused one does not touch its neighbours."""
        await submit(backend, ONE, "i-1", "i-2", "i-3")
        runs = await HandWorker(backend, [ONE]).claim(3)
        commits = [held.completion(n) for n, held in enumerate(runs)]
        await backend.delete("i-2", True)
        replies = await backend.commit(commits)
        assert [reply.kind for reply in replies] == ["ok", "lease_lost", "ok"]
        assert (await backend.get("i-1")).status == (await backend.get("i-3")).status == "completed"

    async def test_no_commits_no_replies(self, backend: Backend) -> None:
        """An empty batch is nothing."""
        assert list(await backend.commit([])) == []

    async def test_the_end_gives_the_lease_back(self, backend: Backend) -> None:
        """Of a completed and of a failed instance."""
        await (await start(backend, ONE, "i-1")).complete()
        await (await start(backend, ONE, "i-2")).fail()
        assert (await backend.get("i-1")).worker_id is None
        assert (await backend.get("i-2")).worker_id is None
        assert await backend.release("worker-1") == 0

    async def test_the_next_holder_goes_on_after_the_last_commit(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """What was committed is not done again, and its output is the next input."""
        first = await start(backend, TWO)
        await first.complete({"n": 41})
        clock.advance(31)
        second = await held_by(HandWorker(backend, [TWO], "worker-2"), "i-1")
        assert [(step.path, step.input) for step in second.steps] == [("second", {"n": 41})]
        assert await second.complete(42) == "ok"
        workers = [row.worker_id for row in await backend.history("i-1")]
        assert workers == ["worker-1", "worker-2"]

    async def test_a_commit_whose_reply_was_lost_counts(self, backend: Backend) -> None:
        """It was written; sending it again is refused, because the work went on."""
        held = await start(backend, ONE)
        commit = held.completion("done")
        assert await held.send(commit) == "ok"
        assert await held.send(commit) == "lease_lost"
        assert (await backend.get("i-1")).steps == 1

    async def test_finished_branches_are_not_begun_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """The positions of the branches are kept beside the instance's own."""
        first = await start(backend, FORKED)
        await first.complete("L", "left")
        clock.advance(31)
        second = await held_by(HandWorker(backend, [FORKED], "worker-2"), "i-1")
        assert [step.task.name for step in second.steps] == ["right"]
        await second.complete("R", "right")
        [join] = second.steps
        assert join.input == {"left": "L", "right": "R"}

    async def test_finished_items_are_not_begun_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Of a map that changes hands after each item every output is there in the end."""
        held = await start(backend, MAPPED)
        await held.complete([10, 20, 30, 40])
        for turn in range(4):
            assert len(held.steps) == 4 - turn
            # The last item first, so that what is done is not simply what comes before.
            held.steps.reverse()
            assert await held.complete(held.steps[0].input + 1) == "ok"
            clock.advance(31)
            if turn < 3:
                held = await held_by(HandWorker(backend, [MAPPED], f"worker-{turn + 2}"), "i-1")
        output = (await backend.get("i-1")).output
        assert output is not None
        assert decode_payload(output) == [11, 21, 31, 41]

    async def test_attempts_outlive_their_worker(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A retry by another worker is counted on."""
        first = await start(backend, RETRYING)
        assert await first.fail() == "ok"
        assert first.state == "parked"
        clock.advance(5)
        second = await held_by(HandWorker(backend, [RETRYING], "worker-2"), "i-1")
        assert [step.attempt for step in second.steps] == [2]

    async def test_an_unknown_instance_cannot_be_claimed(self, backend: Backend) -> None:
        """`claim_one` says that there is none."""
        with pytest.raises(InstanceNotFoundError):
            await HandWorker(backend, [ONE]).claim_one("nobody")

    async def test_claiming_one_takes_only_what_is_ready(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Not what waits, is paused or has ended."""
        worker = HandWorker(backend, [ONE, DELAYED, LISTENING])
        await backend.submit([new_instance(ONE, "later", start_at=clock() + 9)], "fail")
        await (await start(backend, DELAYED, "delayed")).complete()
        await (await start(backend, LISTENING, "listening")).complete()
        await submit(backend, ONE, "paused")
        await backend.pause("paused", None, None)
        await (await start(backend, ONE, "completed")).complete()
        await (await start(backend, ONE, "failed")).fail()
        await submit(backend, ONE, "cancelled")
        await backend.cancel("cancelled", None, None)
        for row in (await backend.find()).rows:
            assert await worker.claim_one(row.instance_id) is None, row.instance_id

    async def test_claiming_one_takes_only_what_the_worker_can_do(self, backend: Backend) -> None:
        """Neither a definition nor tags that it lacks; the instance stays free."""
        special = tagged("gpu")
        await submit(backend, special, "i-1")
        await submit(backend, ONE, "i-2")
        worker = HandWorker(backend, [special, OTHER], tags=["cpu"])
        for instance_id in ("i-1", "i-2"):
            assert await backend.claim_one(worker.claimant, instance_id) is None
            assert (await backend.get(instance_id)).worker_id is None
