"""One use of a spread map in a test: a parent, the items that it made, and ways for those to end.

It promises to look at the backend from outside: what a parent was told is counted by a holder that
takes nothing, and gives the lease back. It refuses to know which of all this is right.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sayiir._codec import decode_payload
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import (
    COLLECTING,
    NESTED,
    ONE,
    SPREADING,
    SPREADING_BESIDE,
    SPREADING_BESIDE_TWICE,
    SPREADING_NAPS,
    SPREADING_TAGGED,
    SPREADING_TWICE,
    Anything,
    new_instance,
)
from ._ground import held_by, start
from ._hand import HandWorker, Held

__all__ = [
    "NOT_COMPLETED",
    "WAYS_TO_END",
    "Family",
    "Way",
    "end_complete",
    "items_of",
    "spread",
    "until_gone",
    "worker",
]

WORKFLOWS = [
    ONE,
    SPREADING,
    COLLECTING,
    SPREADING_TAGGED,
    SPREADING_NAPS,
    SPREADING_BESIDE,
    SPREADING_BESIDE_TWICE,
    SPREADING_TWICE,
    NESTED,
]


def worker(backend: Backend, name: str = "worker-1") -> HandWorker:
    """A worker that has all the workflows with spread maps."""
    return HandWorker(backend, WORKFLOWS, name)


async def items_of(backend: Backend, parent: str) -> list[str]:
    """The ids of the items of an instance, as far as they exist, by group and index."""
    found, cursor = [], None
    while True:
        page = await backend.find(id_prefix=f"{parent}~", limit=1000, cursor=cursor)
        found += [row.instance_id for row in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    mine = [name for name in found if name.rpartition("~")[0] == parent]
    return sorted(mine, key=lambda name: [int(n) for n in re.findall(r"\d+", name[-12:])[-2:]])


async def until_gone(backend: Backend, clock: VirtualClock, prefix: str) -> None:
    """See that no instance is left whose id begins so: now, or soon after, as calls go on."""
    for _ in range(500):
        left = (await backend.find(id_prefix=prefix, limit=5)).rows
        if not left:
            return
        clock.advance(1)
        await backend.release("nobody")
    raise AssertionError(f"items are left of a parent that is gone: {left}")


@dataclass
class Family:
    """A parent and one group of its items."""

    backend: Backend
    parent: str
    group: int
    items: list[str]

    async def hold(self, index: int, name: str = "worker-1") -> Held:
        """Claim an item."""
        return await held_by(worker(self.backend, name), self.items[index])

    async def hold_parent(self) -> Held:
        """Claim the parent, which must be ready, and let the engine do what is to be done."""
        return await held_by(worker(self.backend), self.parent)

    async def end(self, *indexes: int) -> None:
        """Complete items, with the hundredfold of their index."""
        for index in indexes:
            await (await self.hold(index)).complete(100 * index)

    async def ends(self) -> list[object]:
        """How the items ended: an output, or the word."""
        ends = await self.backend.items(self.parent, self.group)
        return [
            decode_payload(sealed) if word == "completed" and sealed is not None else word
            for word, sealed in ends
        ]

    async def told(self) -> int:
        """How often the parent was told that the group is over; it is free and stays ready."""
        claimant = worker(self.backend, "onlooker").claimant
        claim = await self.backend.claim_one(claimant, self.parent)
        if claim is None:
            return 0
        names = [f"\x01{self.group}"] * 9
        news = await self.backend.news(self.parent, claim.fence, names)
        await self.backend.give_back(self.parent, claim.fence)
        return len(news.events)

    async def statuses(self) -> list[str]:
        """Where the items stand."""
        return await self.statuses_of(self.items)

    async def statuses_of(self, names: Sequence[str]) -> list[str]:
        """Where some of them stand."""
        return [(await self.backend.get(name)).status for name in names]


async def spread(
    backend: Backend,
    workflow: Anything = SPREADING,
    values: Sequence[object] = (0, 1, 2),
    parent: str = "i-1",
) -> Family:
    """An instance that has spread these values and is parked."""
    held = await start(backend, workflow, parent)
    commit = held.completion(list(values))
    assert await held.send(commit) == "ok"
    batch = commit.batch
    assert batch is not None, "the list came back and no items were made"
    return Family(backend, parent, batch.group, [name for name, _ in batch.items])


Way = Callable[[Family, int, VirtualClock], Awaitable[object]]


async def end_complete(family: Family, index: int, _: VirtualClock) -> None:
    """It returned."""
    await family.end(index)


async def end_fail(family: Family, index: int, _: VirtualClock) -> None:
    """It raised."""
    await (await family.hold(index)).fail("broken")


async def end_cancel(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody cancels it while it is free."""
    assert await family.backend.cancel(family.items[index], "enough", None) == "cancelled"


async def end_cancel_paused(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody cancels it while it is paused."""
    await family.backend.pause(family.items[index], None, None)
    assert await family.backend.cancel(family.items[index], None, None) == "cancelled"


async def end_cancel_released(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody cancels it while it is held, and its worker gives all leases back."""
    held = await family.hold(index)
    await family.backend.cancel(held.instance_id, None, None)
    await family.backend.release(held.worker.name)


async def end_cancel_given_back(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody cancels it while it is held, and its holder cannot go on."""
    held = await family.hold(index)
    await family.backend.cancel(held.instance_id, None, None)
    assert await family.backend.give_back(held.instance_id, held.fence)


async def end_cancel_expired(family: Family, index: int, clock: VirtualClock) -> None:
    """Somebody cancels it while it is held, and its worker is heard of no more."""
    held = await family.hold(index)
    await family.backend.cancel(held.instance_id, None, None)
    clock.advance(31)
    assert (await family.backend.get(held.instance_id)).status == "cancelled"


async def end_delete(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody deletes it before it has begun."""
    await family.backend.delete(family.items[index], True)


async def end_delete_held(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody deletes it while it is held."""
    held = await family.hold(index)
    await family.backend.delete(held.instance_id, True)
    assert await held.complete("late") == "lease_lost"


async def end_replaced(family: Family, index: int, _: VirtualClock) -> None:
    """Somebody submits another instance in its place."""
    new = new_instance(ONE, family.items[index])
    await family.backend.submit([new], "terminate_existing")


NOT_COMPLETED: list[Way] = [
    end_fail,
    end_cancel,
    end_cancel_paused,
    end_cancel_released,
    end_cancel_given_back,
    end_cancel_expired,
    end_delete,
    end_delete_held,
    end_replaced,
]
WAYS_TO_END: list[Way] = [end_complete, *NOT_COMPLETED]
