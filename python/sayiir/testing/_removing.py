"""Contract: a parent is removed, and its items with it, and theirs; now or soon after."""

# Asserting is what a suite does.

from __future__ import annotations

import pytest

from sayiir._errors import InstanceNotFoundError, InvalidStateError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._family import Family, end_complete, items_of, spread, until_gone, worker
from ._flows import NESTED, SPREADING, new_instance
from ._ground import Ground, held_by, start


class GoneContract(Ground):
    """What is removed together."""

    @pytest.mark.parametrize("ended", [False, True])
    async def test_items_are_removed_with_their_parent(
        self, backend: Backend, clock: VirtualClock, ended: bool
    ) -> None:
        """Whatever became of them; a holder of one can write no more."""
        family = await spread(backend, values=range(4))
        await family.end(0)
        await backend.pause(family.items[1], None, None)
        held = await family.hold(2, "worker-2")
        with pytest.raises(InvalidStateError):
            await backend.delete("i-1", False)
        assert await family.statuses() == ["completed", "paused", "in_progress", "in_progress"]
        if ended:
            await backend.cancel("i-1", None, None)
        await backend.delete("i-1", not ended)
        await until_gone(backend, clock, "i-1~")
        for name in family.items:
            with pytest.raises(InstanceNotFoundError):
                await backend.history(name)
        with pytest.raises(InstanceNotFoundError):
            await backend.items("i-1", family.group)
        assert await held.complete("late") == "lease_lost"
        assert len((await backend.find()).rows) == 0
        assert len(await backend.backlog()) == 0

    async def test_items_of_items_are_removed_too(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """All the way down, and nobody else."""
        family = await spread(backend, NESTED, ([1, 2], [3]))
        other = await spread(backend, NESTED, ([1, 2],), "i-2")
        for one in (family, other):
            await one.hold(0)
        await backend.delete("i-1", True)
        await until_gone(backend, clock, "i-1~")
        assert await other.statuses() == ["waiting"]
        assert len(await items_of(backend, other.items[0])) == 2

    async def test_a_removed_item_takes_its_own_along(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """And counts as ended, for a parent that goes on."""
        family = await spread(backend, NESTED, ([1, 2], [3]))
        await family.hold(0)
        await backend.delete(family.items[0], True)
        await until_gone(backend, clock, f"{family.items[0]}~")
        assert await family.statuses_of(family.items[1:]) == ["in_progress"]
        assert await family.ends() == ["cancelled", "unended"]
        assert await family.told() == 1

    async def test_a_new_parent_of_the_same_id(self, backend: Backend, clock: VirtualClock) -> None:
        """Has items of its own; those of the former one do not disturb it, and go."""
        former = await spread(backend)
        await former.end(0)
        held = await former.hold(1, "worker-2")
        await backend.submit([new_instance(SPREADING, "i-1")], "terminate_existing")
        parent = await held_by(worker(backend), "i-1")
        commit = parent.completion([7, 8])
        assert await parent.send(commit) == "ok"
        batch = commit.batch
        assert batch is not None
        names = [name for name, _ in batch.items]
        assert set(names).isdisjoint(former.items)
        assert await held.complete("late") != "ok"
        family = Family(backend, "i-1", batch.group, names)
        assert await family.ends() == ["unended", "unended"]
        await end_complete(family, 0, clock)
        assert await family.told() == 0
        await end_complete(family, 1, clock)
        assert await family.told() == 1
        assert (await family.hold_parent()).steps[0].input == [0, 100]
        prefix = former.items[0].rpartition("[")[0]
        await until_gone(backend, clock, prefix)
        assert await family.statuses() == ["completed", "completed"]

    async def test_a_deleted_parent_can_be_made_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Under its id, again and again."""
        seen: set[str] = set()
        for _ in range(3):
            family = await spread(backend)
            assert seen.isdisjoint(family.items)
            seen.update(family.items)
            await family.end(0)
            await backend.delete("i-1", True)
        family = await spread(backend)
        await family.end(0, 1, 2)
        assert (await family.hold_parent()).steps[0].input == [0, 100, 200]
        await backend.delete("i-1", True)
        await until_gone(backend, clock, "i-1~")

    async def test_many_items_are_removed(self, backend: Backend, clock: VirtualClock) -> None:
        """More than a store removes at once; its other work goes on meanwhile."""
        held = await start(backend, SPREADING)
        await held.complete(list(range(2_001)))
        family = await spread(backend, SPREADING, (1,), "i-2")
        await backend.delete("i-1", True)
        await family.end(0)
        assert await family.told() == 1
        await until_gone(backend, clock, "i-1~")
        assert len((await backend.find()).rows) == 2
