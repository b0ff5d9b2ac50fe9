"""Contract: what befalls the parent of a spread map, and what that means to its items."""

# Asserting is what a suite does.

from __future__ import annotations

import pytest

from sayiir._codec import decode_payload
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._family import Family, end_complete, items_of, spread, worker
from ._flows import (
    NESTED,
    SPREADING,
    SPREADING_BESIDE,
    SPREADING_BESIDE_TWICE,
    SPREADING_NAPS,
    SPREADING_TWICE,
    new_instance,
)
from ._ground import Ground, held_by, start
from ._hand import Held


class ParentContract(Ground):
    """The state of the parent at the moment when its last item ends."""

    async def test_a_held_parent_hears_of_it(self, backend: Backend) -> None:
        """Its holder finds the event among the news, and goes on when its own step is done."""
        held, family = await beside(backend)
        await family.end(0, 1)
        names = [f"\x01{family.group}"] * 5
        assert len((await backend.news("i-1", held.fence, names)).events) == 1
        assert (await backend.get("i-1")).worker_id == "worker-1"
        await held.attend()
        assert [step.task.name for step in held.steps] == ["own"]
        await held.complete("mine")
        assert held.steps[0].input == {"parts": [0, 100], "own": "mine"}

    async def test_a_parent_that_wants_to_park_hears_of_it(self, backend: Backend) -> None:
        """Its commit is answered with the event, and the lease is kept."""
        held, family = await beside(backend)
        await family.end(1, 0)
        await held.complete("mine")
        assert "events" in held.kinds
        assert held.steps[0].input == {"parts": [0, 100], "own": "mine"}
        assert (await backend.get("i-1")).worker_id == "worker-1"

    async def test_a_parent_that_was_given_back_is_ready(self, backend: Backend) -> None:
        """Whoever takes it up goes on behind the map, and has its step to do again."""
        _, family = await beside(backend)
        await family.end(0, 1)
        await backend.release("worker-1")
        held = await family.hold_parent()
        await held.complete("mine", "own")
        assert held.steps[0].input == {"parts": [0, 100], "own": "mine"}

    async def test_a_paused_parent_stays_paused(self, backend: Backend) -> None:
        """Items go on meanwhile; what it missed wakes it when the pause is taken back."""
        family = await spread(backend)
        assert await backend.pause("i-1", "lunch", "ops") == "paused"
        await family.end(0, 1, 2)
        assert (await backend.get("i-1")).status == "paused"
        assert await worker(backend).claim_ids(9) == []
        await backend.unpause("i-1")
        assert await family.told() == 1
        assert (await family.hold_parent()).steps[0].input == [0, 100, 200]

    async def test_a_parent_that_is_unpaused_waits_on(self, backend: Backend) -> None:
        """For the items that have not ended."""
        family = await spread(backend)
        await family.end(0)
        await backend.pause("i-1", None, None)
        await family.end(1)
        assert await backend.unpause("i-1") == "waiting"
        assert await family.told() == 0
        await family.end(2)
        assert await family.told() == 1

    async def test_a_parent_that_is_about_to_be_paused(self, backend: Backend) -> None:
        """The pause takes effect, and what came before it is not lost."""
        held, family = await beside(backend)
        await backend.pause("i-1", None, None)
        await family.end(0, 1)
        assert await held.complete("mine") == "paused"
        await backend.unpause("i-1")
        held = await family.hold_parent()
        assert held.steps[0].input == {"parts": [0, 100], "own": "mine"}

    async def test_a_cancelled_parent_hears_nothing(self, backend: Backend) -> None:
        """The late end of an item that was held changes nothing about it."""
        family = await spread(backend, values=(0,))
        held = await family.hold(0)
        await backend.cancel("i-1", "enough", None)
        before = await backend.get("i-1")
        assert await held.complete("late") == "ok"
        assert await backend.get("i-1") == before
        assert await family.ends() == ["late"]
        assert await worker(backend).claim_ids(9) == []

    async def test_an_item_is_done_while_its_parent_is_touched(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """An item's lease, fence and commits are its own."""
        family = await spread(backend)
        held = await family.hold(0, "worker-2")
        for _ in range(2):
            await backend.pause("i-1", None, None)
            await backend.unpause("i-1")
        clock.advance(20)
        await held.worker.renew()
        clock.advance(20)
        assert await held.complete(0) == "ok"
        await end_complete(family, 1, clock)
        assert await family.ends() == [0, 100, "unended"]


class OverContract(Ground):
    """Groups that nobody awaits any more."""

    async def test_what_is_not_awaited_is_cancelled(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """In the step in which the map fails: ready, parked and paused ones; not what has ended."""
        family = await spread(backend, SPREADING_NAPS, range(7))
        for value in "xy":
            await (await family.hold(0)).complete(value)
            clock.advance(60)
        await (await family.hold(1)).complete("x")
        await backend.pause(family.items[2], "lunch", "ops")
        await family.hold(3, "worker-3")
        await backend.release("worker-3")
        held = await family.hold(4, "worker-4")
        await (await family.hold(6)).fail("broken")
        clock.advance(1)
        await family.hold_parent()
        assert (await backend.get("i-1")).status == "failed"
        assert await family.statuses() == [
            "completed",
            *["cancelled"] * 3,
            "in_progress",
            "cancelled",
            "failed",
        ]
        for index in (1, 2, 3, 5):
            row = await backend.get(family.items[index])
            assert row.reason is not None
            assert "'i-1'" in row.reason
            assert (row.by, row.worker_id, row.wake_at, row.delay_id) == (None,) * 4
            assert row.ended_at == clock()
        assert await backend.next_wake() is None
        assert await held.worker.renew() == [family.items[4]]
        assert (await backend.news(family.items[4], held.fence, [])).cancel
        assert await held.complete("late") == "cancelled"
        row = await backend.get(family.items[4])
        assert (row.status, row.worker_id) == ("cancelled", None)
        clock.advance(3600)
        assert await worker(backend).claim_ids(9) == []

    async def test_many_items_are_cancelled(self, backend: Backend) -> None:
        """In one step with their parent, however many they are."""
        held = await start(backend, SPREADING)
        await held.complete(list(range(1_500)))
        await backend.cancel("i-1", None, None)
        assert await worker(backend).claim_ids(9) == []
        page = await backend.find(status="cancelled", limit=1000)
        rest = await backend.find(status="cancelled", limit=1000, cursor=page.cursor)
        assert len(page.rows) + len(rest.rows) == 1_501

    async def test_a_held_item_that_completes_has_completed(self, backend: Backend) -> None:
        """Finished work is never reported as cancelled; its parent is what it was."""
        family = await spread(backend)
        held = await family.hold(0)
        await (await family.hold(1)).fail("broken")
        await family.hold_parent()
        before = await backend.get("i-1")
        assert await held.complete("late") == "ok"
        assert await family.statuses() == ["completed", "failed", "cancelled"]
        assert await backend.get("i-1") == before

    async def test_a_held_item_that_is_not_awaited_can_be_lost(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Its cancel takes effect when its lease has run out."""
        family = await spread(backend, values=(0,))
        held = await family.hold(0)
        await backend.cancel("i-1", None, None)
        assert (await backend.get(held.instance_id)).status == "in_progress"
        clock.advance(31)
        assert (await backend.get(held.instance_id)).status == "cancelled"
        assert await held.complete("late") == "lease_lost"

    async def test_whoever_cancelled_an_item_first_is_named(self, backend: Backend) -> None:
        """The first of two requests stays, for a held item too."""
        family = await spread(backend, values=(0, 1))
        held = await family.hold(0, "worker-2")
        await backend.cancel(held.instance_id, "mine", "ops")
        await backend.cancel("i-1", None, None)
        row = await backend.get(held.instance_id)
        assert (row.reason, row.by) == ("mine", "ops")

    async def test_a_cancel_of_the_parent_beats_a_pause_of_an_item(self, backend: Backend) -> None:
        """Also one that has not taken effect."""
        family = await spread(backend, SPREADING_NAPS, (0, 1))
        held = await family.hold(0)
        await backend.pause(held.instance_id, "lunch", "ops")
        await backend.cancel("i-1", None, None)
        assert await held.complete("late") == "cancelled"
        row = await backend.get(held.instance_id)
        assert (row.status, row.by) == ("cancelled", None)

    @pytest.mark.parametrize("paused", [False, True])
    async def test_items_go_with_a_cancelled_parent(self, backend: Backend, paused: bool) -> None:
        """At once, when nobody holds it."""
        family = await spread(backend)
        await family.end(1)
        if paused:
            await backend.pause("i-1", None, None)
        assert await backend.cancel("i-1", "enough", "ops") == "cancelled"
        assert await family.statuses() == ["cancelled", "completed", "cancelled"]
        assert await family.ends() == ["cancelled", 100, "cancelled"]
        assert await worker(backend).claim_ids(9) == []

    async def test_items_of_a_held_parent_go_when_its_cancel_takes_effect(
        self, backend: Backend
    ) -> None:
        """Until then it may yet complete."""
        held, family = await beside(backend)
        await backend.cancel("i-1", None, None)
        assert await family.statuses() == ["in_progress", "in_progress"]
        assert await held.complete("mine") == "cancelled"
        assert await family.statuses() == ["cancelled", "cancelled"]

    @pytest.mark.parametrize("end", ["time", "release", "give back"])
    async def test_items_go_with_a_parent_whose_holder_is_gone(
        self, backend: Backend, clock: VirtualClock, end: str
    ) -> None:
        """A cancel that takes effect with the end of a lease is one like any other."""
        held, family = await beside(backend)
        await backend.cancel("i-1", None, None)
        if end == "time":
            clock.advance(31)
        elif end == "release":
            await backend.release(held.worker.name)
        else:
            await backend.give_back("i-1", held.fence)
        assert (await backend.get("i-1")).status == "cancelled"
        assert await family.statuses() == ["cancelled", "cancelled"]

    async def test_items_go_with_a_failed_parent(self, backend: Backend) -> None:
        """Whatever it failed of."""
        held, family = await beside(backend)
        await family.end(0)
        await held.fail("mine")
        assert (await backend.get("i-1")).status == "failed"
        assert await family.statuses() == ["completed", "cancelled"]

    async def test_a_group_is_over_alone(self, backend: Backend) -> None:
        """Items of other groups of the same parent go on, and so does the parent."""
        held = await start(backend, SPREADING_TWICE)
        await held.complete([[1, 2, 3], [4, 5]])
        assert held.state == "parked"
        names = await items_of(backend, "i-1")
        values = {decode_payload(await backend.input(name)): name for name in names}
        assert sorted(values) == [1, 2, 3, 4, 5]
        await (await held_by(worker(backend), values[2])).fail("broken")
        held = await held_by(worker(backend), "i-1")
        assert held.state == "parked"
        statuses = {value: (await backend.get(name)).status for value, name in values.items()}
        assert statuses == {
            1: "cancelled",
            2: "failed",
            3: "cancelled",
            4: "in_progress",
            5: "in_progress",
        }
        for value in (4, 5):
            await (await held_by(worker(backend), values[value])).complete(10 * value)
        [step] = (await held_by(worker(backend), "i-1")).steps
        failed, completed = step.input
        assert type(failed).__name__ == "MapError"
        assert completed == [40, 50]

    async def test_a_group_that_is_over_tells_nothing(self, backend: Backend) -> None:
        """Its items end, by the cancel and later, and the parent that goes on does not hear."""
        await backend.submit([new_instance(SPREADING_BESIDE_TWICE, "i-1", [[1, 2], [3]])], "fail")
        held = await held_by(worker(backend), "i-1")
        names = await items_of(backend, "i-1")
        values = {decode_payload(await backend.input(name)): name for name in names}
        assert sorted(values) == [1, 2, 3]
        late = await held_by(worker(backend, "worker-2"), values[1])
        await held.fail("mine")
        assert (await backend.get("i-1")).status == "in_progress"
        assert (await backend.get(values[2])).status == "cancelled"
        assert (await backend.get(values[3])).status == "in_progress"
        assert await late.complete("late") == "ok"
        every = [f"\x01{group}" for group in range(20)]
        assert (await backend.news("i-1", held.fence, every)).events == ()
        await (await held_by(worker(backend, "worker-2"), values[3])).complete(30)
        assert len((await backend.news("i-1", held.fence, every)).events) == 1
        await held.complete("mine")
        assert held.steps[0].input == {"parts": [30], "own": "mine"}
        await held.complete("joined")
        [failed, joined] = held.steps[0].input
        assert (failed.message, joined) == ("mine", "joined")

    async def test_items_may_have_items(self, backend: Backend, clock: VirtualClock) -> None:
        """An end counts for the parent alone, whose end counts for its own."""
        family = await spread(backend, NESTED, ([1, 2], [3]))
        for index in (0, 1):
            held = await family.hold(index)
            assert held.state == "parked"
        inner = [await items_of(backend, name) for name in family.items]
        assert [len(names) for names in inner] == [2, 1]
        await (await held_by(worker(backend), inner[1][0])).complete(30)
        assert await family.told() == 0
        assert (await family.hold(1)).state == "completed"
        for name, value in zip(inner[0], (10, 20), strict=True):
            await (await held_by(worker(backend), name)).complete(value)
        assert await family.told() == 0
        assert (await family.hold(0)).state == "completed"
        assert await family.told() == 1
        assert await family.ends() == [[10, 20], [30]]
        assert (await family.hold_parent()).steps[0].input == [[10, 20], [30]]

    async def test_items_of_items_go_too(self, backend: Backend) -> None:
        """With whoever is above them."""
        family = await spread(backend, NESTED, ([1, 2], [3], [4]))
        for index in (0, 1):
            await family.hold(index)
        inner = [await items_of(backend, name) for name in family.items]
        await (await held_by(worker(backend), inner[0][0])).complete(10)
        held = await held_by(worker(backend), inner[1][0])
        await backend.cancel("i-1", None, None)
        assert await family.statuses() == ["cancelled"] * 3
        statuses = [(await backend.get(name)).status for names in inner for name in names]
        assert statuses == ["completed", "cancelled", "in_progress"]
        assert (await backend.news(held.instance_id, held.fence, [])).cancel


async def beside(backend: Backend) -> tuple[Held, Family]:
    """A parent of two items that is held, because it has a step of its own to do."""
    await backend.submit([new_instance(SPREADING_BESIDE, "i-1", ["a", "b"])], "fail")
    held = await held_by(worker(backend), "i-1")
    assert [step.task.name for step in held.steps] == ["own"]
    names = await items_of(backend, "i-1")
    assert len(names) == 2
    group = int(names[0].rpartition(".")[2].partition("[")[0])
    return held, Family(backend, "i-1", group, names)
