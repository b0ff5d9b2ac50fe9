"""Contract: items of spread maps, how they are made, and what their parent learns of their ends."""

# Asserting is what a suite does.

from __future__ import annotations

import asyncio

import pytest

from sayiir._codec import decode_payload, encode_payload, read_error
from sayiir._core import Turn
from sayiir._errors import InstanceNotFoundError
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._family import (
    NOT_COMPLETED,
    WAYS_TO_END,
    Family,
    Way,
    end_fail,
    items_of,
    spread,
    worker,
)
from ._flows import (
    COLLECTING,
    DELAYED,
    ONE,
    SPREADING,
    SPREADING_NAPS,
    SPREADING_TAGGED,
    new_instance,
    prioritised,
)
from ._ground import Ground, held_by, start, submit
from ._hand import HandWorker

WORDS = {"end_complete": 0, "end_fail": "failed"}
"""What `items` says of the first one that ended so; `cancelled` of all the other ways."""


class SpreadContract(Ground):
    """A commit's `batch`, the count of a group, its event, and `items`."""

    async def test_items_are_made_with_the_commit(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Under the ids it names, with their inputs, ready; not before it, and nothing else."""
        held = await start(backend, SPREADING)
        commit = held.completion(["a", None, {"c": 3}])
        batch = commit.batch
        assert batch is not None
        assert await items_of(backend, "i-1") == []
        clock.advance(5)
        assert await held.send(commit) == "ok"
        names = [name for name, _ in batch.items]
        assert await items_of(backend, "i-1") == names
        assert len((await backend.find()).rows) == 4
        for name, sealed in batch.items:
            row = await backend.get(name)
            assert (row.status, row.workflow_id) == ("in_progress", batch.workflow)
            assert row.definition_hash == batch.definition_hash
            assert (row.created_at, row.ended_at, row.steps) == (clock(), None, 0)
            assert (row.worker_id, row.output, row.error) == (None, None, None)
            assert await backend.input(name) == sealed
        inputs = [decode_payload(await backend.input(name)) for name in names]
        assert inputs == ["a", None, {"c": 3}]
        parent = await backend.get("i-1")
        assert (parent.status, parent.wake_at, parent.worker_id) == ("waiting", None, None)

    async def test_items_are_for_whoever_has_the_workflow(self, backend: Backend) -> None:
        """And for nobody else; the parent needs no holder for that."""
        family = await spread(backend)
        assert await HandWorker(backend, [ONE, COLLECTING, DELAYED]).claim_ids(9) == []
        assert await HandWorker(backend, [SPREADING], "worker-2").claim_ids(2) == family.items[:2]
        assert await HandWorker(backend, [SPREADING], "worker-3").claim_ids(9) == family.items[2:]
        assert await HandWorker(backend, [SPREADING]).claim_one(family.items[0]) is None

    async def test_items_go_by_their_tags_and_priority(self, backend: Backend) -> None:
        """Those of their own first step, as for any instance."""
        family = await spread(backend, SPREADING_TAGGED, (1, 2))
        older = prioritised(2)
        await submit(backend, older, "older")
        workflows = [SPREADING_TAGGED, older]
        assert await HandWorker(backend, workflows, "plain", tags=["cpu"]).claim_ids(9) == ["older"]
        await backend.release("plain")
        row = await backend.get(family.items[0])
        assert (list(row.tags), row.priority) == (["gpu"], 1)
        gpu = HandWorker(backend, workflows, "gpu", tags=["gpu"])
        assert await gpu.claim_ids(9) == [*family.items, "older"]

    @pytest.mark.parametrize("parent", ["p" * 256, "é" * 128, "\U0001f600" * 64, "a%_'~[0]"])
    async def test_any_parent_can_have_items(self, backend: Backend, parent: str) -> None:
        """Ids of items are as long as ids may be, and differ."""
        family = await spread(backend, SPREADING, range(11), parent)
        assert len(set(family.items)) == 11
        assert all(len(name.encode()) <= 256 for name in family.items)
        assert await family.statuses() == ["in_progress"] * 11
        for index in range(11):
            await family.end(index)
        held = await family.hold_parent()
        assert held.steps[0].input == [100 * n for n in range(11)]

    async def test_an_item_is_an_instance(self, backend: Backend, clock: VirtualClock) -> None:
        """It parks, is paused and sent events, has a history and an end of its own."""
        family = await spread(backend, SPREADING_NAPS)
        await (await family.hold(0)).complete("x")
        row = await backend.get(family.items[0])
        assert (row.status, row.wake_at, row.delay_id) == ("waiting", clock() + 60, "nap")
        assert await backend.pause(family.items[1], "lunch", "ops") == "paused"
        assert await backend.unpause(family.items[1]) == "in_progress"
        assert await backend.send_event(family.items[1], "go", encode_payload(1), "key")
        assert not await backend.send_event(family.items[1], "go", encode_payload(1), "key")
        clock.advance(60)
        held = await family.hold(0)
        await held.complete("y")
        row = await backend.get(family.items[0])
        assert (row.status, row.ended_at, row.steps) == ("completed", clock(), 3)
        assert row.output == encode_payload("y")
        history = await backend.history(family.items[0])
        assert [step.step.path for step in history] == ["before", "nap", "after"]
        assert [step.step.path for step in await backend.history("i-1")] == ["list"]

    async def test_a_stale_fence_makes_no_items(self, backend: Backend) -> None:
        """A commit that is refused brings nothing; the holder's brings its own."""
        held = await start(backend, SPREADING)
        commit = held.completion([1, 2])
        await backend.release("worker-1")
        other = await held_by(worker(backend, "worker-2"), "i-1")
        assert await held.send(commit) == "lease_lost"
        assert await items_of(backend, "i-1") == []
        assert await other.complete([3]) == "ok"
        assert await held.send(commit) == "lease_lost"
        [name] = await items_of(backend, "i-1")
        assert decode_payload(await backend.input(name)) == 3

    async def test_many_items_come_in_batches(self, backend: Backend) -> None:
        """Those not yet made count: who was there first does not make the parent ready."""
        held = await start(backend, COLLECTING)
        commit = held.completion(list(range(1_002)))
        batch = commit.batch
        assert batch is not None
        assert (batch.first, batch.count, len(batch.items)) == (0, 1_002, 1_000)
        assert await held.send(commit) == "ok"
        first = [name for name, _ in batch.items]
        done = Family(backend, "i-1", batch.group, first)
        await done.end(0)
        await asyncio.gather(*(backend.delete(name, True) for name in first[1:]))
        turn = held.run.committed("ok", [], backend.now())
        assert isinstance(turn, Turn)
        assert turn.commit is not None
        batch = turn.commit.batch
        assert batch is not None
        assert (batch.group, batch.first, batch.count) == (done.group, 1_000, 1_002)
        names = [f"\x01{batch.group}"]
        assert (await backend.news("i-1", held.fence, names)).events == ()
        assert await held.send(turn.commit) == "ok"
        family = Family(backend, "i-1", batch.group, [name for name, _ in batch.items])
        await family.end(0)
        assert await family.told() == 0
        await family.end(1)
        assert await family.told() == 1
        assert await family.ends() == [0, *["cancelled"] * 999, 0, 100]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    async def test_the_last_end_wakes_the_parent(
        self, backend: Backend, order: tuple[int, ...]
    ) -> None:
        """Once, whichever is the last; outputs come in the order of the items."""
        family = await spread(backend)
        for index in order[:-1]:
            await family.end(index)
            assert await family.told() == 0
            assert (await backend.get("i-1")).status == "waiting"
        await family.end(order[-1])
        assert (await backend.get("i-1")).status == "in_progress"
        assert await family.told() == 1
        assert await family.ends() == [0, 100, 200]
        held = await family.hold_parent()
        assert held.steps[0].input == [0, 100, 200]
        assert await held.complete("done") == "ok"
        assert (await backend.get("i-1")).status == "completed"
        paths = [row.step.path for row in await backend.history("i-1")]
        assert paths == ["list", "each", "after"]

    @pytest.mark.parametrize("way", WAYS_TO_END)
    async def test_every_end_counts(self, backend: Backend, clock: VirtualClock, way: Way) -> None:
        """However an item ends, it is one less, once."""
        family = await spread(backend, COLLECTING, (0, 1))
        await way(family, 0, clock)
        assert await family.told() == 0
        await family.end(1)
        assert await family.told() == 1
        assert await family.ends() == [WORDS.get(way.__name__, "cancelled"), 100]
        assert len((await family.hold_parent()).steps) == 1

    @pytest.mark.parametrize("way", WAYS_TO_END)
    async def test_the_last_end_may_be_any(
        self, backend: Backend, clock: VirtualClock, way: Way
    ) -> None:
        """Also one that no worker brings about."""
        family = await spread(backend, COLLECTING, (0, 1))
        await family.end(1)
        await way(family, 0, clock)
        assert await family.told() == 1

    @pytest.mark.parametrize("way", NOT_COMPLETED)
    async def test_one_is_enough_where_one_fails_all(
        self, backend: Backend, clock: VirtualClock, way: Way
    ) -> None:
        """The parent is told at once, and not again by those that end after that."""
        family = await spread(backend)
        await way(family, 1, clock)
        assert await family.told() == 1
        word = WORDS.get(way.__name__, "cancelled")
        assert await family.ends() == ["unended", word, "unended"]
        await (await family.hold(0)).fail()
        await family.end(2)
        assert await family.told() == 1
        assert await family.ends() == ["failed", word, 200]
        await family.hold_parent()
        assert (await backend.get("i-1")).status == "failed"

    async def test_a_completed_item_fails_nothing(self, backend: Backend) -> None:
        """Not even when it is deleted afterwards, though its output is gone then."""
        family = await spread(backend)
        await family.end(0)
        await backend.delete(family.items[0], False)
        assert await family.told() == 0
        assert await family.ends() == ["cancelled", "unended", "unended"]
        await family.end(1)
        assert await family.told() == 0
        await family.end(2)
        assert await family.told() == 1

    async def test_what_takes_the_place_of_an_item_is_none(self, backend: Backend) -> None:
        """Its end is nobody's business but its own."""
        family = await spread(backend, COLLECTING, (0, 1, 2))
        await backend.submit([new_instance(ONE, family.items[0])], "terminate_existing")
        await (await family.hold(0)).complete("not an item")
        await family.end(1)
        assert await family.told() == 0
        assert await family.ends() == ["cancelled", 100, "unended"]
        await family.end(2)
        assert await family.told() == 1

    async def test_items_that_park_have_not_ended(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Nor those that are paused, held, or given back."""
        family = await spread(backend, SPREADING_NAPS, range(4))
        await (await family.hold(0)).complete("x")
        await backend.pause(family.items[1], None, None)
        await family.hold(2, "worker-2")
        await family.hold(3, "worker-3")
        await backend.release("worker-3")
        assert await family.told() == 0
        assert await family.ends() == ["unended"] * 4
        clock.advance(3600)
        assert await family.told() == 0

    async def test_what_a_failed_item_raised_is_known(self, backend: Backend) -> None:
        """Its error record, as it was written."""
        family = await spread(backend)
        await end_fail(family, 1, VirtualClock())
        [_, (word, record), _] = await backend.items("i-1", family.group)
        assert word == "failed"
        assert record == (await backend.get(family.items[1])).error
        assert record is not None
        text = read_error(record)
        assert text is not None
        assert (text.error_type, text.message) == ("ValueError", "broken")

    async def test_items_of_nobody(self, backend: Backend) -> None:
        """Of an unknown instance they are refused; an unknown group has none."""
        with pytest.raises(InstanceNotFoundError, match="nobody") as caught:
            await backend.items("nobody", 1)
        assert caught.value.instance_id == "nobody"
        await submit(backend, ONE, "plain")
        assert list(await backend.items("plain", 1)) == []
        family = await spread(backend)
        assert list(await backend.items("i-1", family.group + 1)) == []
        assert list(await backend.items(family.items[0], family.group)) == []

    async def test_a_parent_that_dies_before_it_gathered_is_told_again(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Its event stays until its commit takes it."""
        family = await spread(backend)
        await family.end(0, 1, 2)
        for name in ("worker-2", "worker-3"):
            claimant = worker(backend, name).claimant
            assert await backend.claim_one(claimant, "i-1") is not None
            clock.advance(31)
        assert await family.told() == 1
        assert (await family.hold_parent()).steps[0].input == [0, 100, 200]

    async def test_a_gathered_group_is_told_no_more(self, backend: Backend) -> None:
        """The event goes with the commit that gathers."""
        family = await spread(backend)
        await family.end(0, 1, 2)
        held = await family.hold_parent()
        assert held.kinds == ["ok"]
        assert (await backend.news("i-1", held.fence, [f"\x01{family.group}"])).events == ()
        assert await family.ends() == [0, 100, 200]
