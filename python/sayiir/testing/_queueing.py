"""Contract: which instance comes next, and that nothing stands in its way."""

# Asserting is what a suite does.

from __future__ import annotations

import pytest

from sayiir._core import AGEING_SECONDS
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import (
    DELAYED,
    HANDING_OVER,
    LISTENING,
    ONE,
    OTHER,
    TWO,
    Anything,
    new_instance,
    prioritised,
    tagged,
)
from ._ground import Ground, held_by, start, submit
from ._hand import HandWorker

LEVELS = {priority: prioritised(priority) for priority in (1, 2, 3, 4, 5)}


class QueueContract(Ground):
    """The order of claims, and what a worker does not see."""

    async def test_an_empty_backend_gives_nothing(self, backend: Backend) -> None:
        """No claims, no error."""
        assert await HandWorker(backend, [ONE]).claim_ids(10) == []

    async def test_oldest_first(self, backend: Backend, clock: VirtualClock) -> None:
        """Of equal priority, by age, and within one moment in the order of submission."""
        for instance_id in ("b", "a", "d"):
            await submit(backend, ONE, instance_id)
        clock.advance(1)
        await submit(backend, ONE, "c")
        assert await HandWorker(backend, [ONE]).claim_ids(10) == ["b", "a", "d", "c"]

    async def test_the_first_priority_comes_first(self, backend: Backend) -> None:
        """From 1 to 5, in whatever order they came."""
        for priority in (4, 1, 5, 3, 2):
            await submit(backend, LEVELS[priority], f"p{priority}")
        worker = HandWorker(backend, list(LEVELS.values()))
        assert await worker.claim_ids(2) == ["p1", "p2"]
        assert await worker.claim_ids(9) == ["p3", "p4", "p5"]

    @pytest.mark.parametrize(("low", "high"), [(5, 1), (2, 1), (4, 3), (5, 3)])
    @pytest.mark.parametrize(
        ("ahead", "first"), [(-1.0, "high"), (0.0, "low"), (1.0, "low")], ids=["less", "as", "more"]
    )
    async def test_waiting_makes_up_for_priority(
        self, backend: Backend, clock: VirtualClock, low: int, high: int, ahead: float, first: str
    ) -> None:
        """Each level is worth `AGEING_SECONDS`; what has waited longer than that goes first."""
        await submit(backend, LEVELS[low], "low")
        clock.advance((low - high) * AGEING_SECONDS + ahead)
        await submit(backend, LEVELS[high], "high")
        worker = HandWorker(backend, [LEVELS[low], LEVELS[high]])
        assert (await worker.claim_ids(1)) == [first]

    async def test_a_stream_of_first_priority_starves_nobody(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """With ever newer work of priority 1, the one of priority 5 is claimed all the same."""
        await submit(backend, LEVELS[5], "patient")
        worker = HandWorker(backend, list(LEVELS.values()))
        claimed: list[str] = []
        for n in range(40):
            await submit(backend, LEVELS[1], f"urgent-{n}")
            claimed += await worker.claim_ids(1)
            clock.advance(10)
            await worker.renew()
        assert claimed.index("patient") == 4 * AGEING_SECONDS // 10

    async def test_age_counts_from_when_it_could_start(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A start time does not let an instance overtake what was ready before."""
        later = clock() + 100
        await backend.submit([new_instance(ONE, "scheduled", start_at=later)], "fail")
        clock.advance(50)
        await submit(backend, ONE, "ready")
        clock.advance(70)
        await submit(backend, ONE, "fresh")
        assert await HandWorker(backend, [ONE]).claim_ids(9) == ["ready", "scheduled", "fresh"]

    async def test_parking_does_not_cost_age(self, backend: Backend, clock: VirtualClock) -> None:
        """What was woken is as old as it is."""
        await (await start(backend, LISTENING, "woken")).complete()
        clock.advance(5)
        await submit(backend, ONE, "younger")
        await backend.send_event("woken", "go", b"", None)
        assert await HandWorker(backend, [ONE, LISTENING]).claim_ids(9) == ["woken", "younger"]

    async def test_one_order_over_definitions_and_tags(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Age and priority are compared between all that the worker can do."""
        kinds = [ONE, tagged("gpu"), OTHER, tagged("gpu", "eu"), LEVELS[3]]
        ids = []
        for n in range(20):
            await submit(backend, kinds[(n * 3) % 5], f"i-{n}")
            ids.append(f"i-{n}")
            clock.advance(1)
        worker = HandWorker(backend, kinds)
        assert await worker.claim_ids(7) + await worker.claim_ids(50) == ids

    @pytest.mark.parametrize(
        ("offered", "needed", "able"),
        [
            (None, [], True),
            (None, ["gpu"], True),
            (["cpu"], [], True),
            (["cpu"], ["gpu"], False),
            (["gpu"], ["gpu"], True),
            (["eu", "gpu"], ["gpu"], True),
            (["gpu"], ["eu", "gpu"], False),
            (["eu", "gpu"], ["gpu", "eu"], True),
            (["GPU"], ["gpu"], False),
        ],
    )
    async def test_tags_are_a_subset(
        self, backend: Backend, offered: list[str] | None, needed: list[str], able: bool
    ) -> None:
        """A step's tags are among the worker's; a worker without tags takes everything."""
        workflow = tagged(*needed) if needed else ONE
        await submit(backend, workflow, "i-1")
        worker = HandWorker(backend, [workflow], tags=offered)
        claimed = await worker.claim_ids()
        assert claimed == (["i-1"] if able else [])

    @pytest.mark.parametrize("foreign", [OTHER, tagged("gpu")], ids=["definition", "tags"])
    async def test_what_a_worker_cannot_do_is_never_in_its_way(
        self, backend: Backend, clock: VirtualClock, foreign: Anything
    ) -> None:
        """However much of it there is, and however old it is."""
        await submit(backend, foreign, *(f"foreign-{n}" for n in range(1000)))
        clock.advance(3600)
        ids = [f"mine-{n}" for n in range(20)]
        await submit(backend, ONE, *ids)
        workflows = [ONE] if foreign is OTHER else [ONE, foreign]
        worker = HandWorker(backend, workflows, tags=["cpu"])
        assert await worker.claim_ids(1) + await worker.claim_ids(50) == ids

    async def test_a_worker_without_workflows_gets_nothing(self, backend: Backend) -> None:
        """It can do none of them."""
        await submit(backend, ONE, "i-1")
        assert await HandWorker(backend, []).claim_ids(10) == []

    async def test_the_backlog_is_what_is_ready(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """By definition and tags; nothing that is held, parked, paused or over."""
        special = tagged("eu", "gpu")

        async def backlog() -> list[tuple[str, str, list[str], int]]:
            return sorted(
                (one.workflow_id, one.definition_hash, sorted(one.tags), one.ready)
                for one in await backend.backlog()
            )

        assert await backlog() == []
        await submit(backend, ONE, "i-1", "i-2", "i-3")
        await submit(backend, special, "i-4")
        await (await start(backend, LISTENING, "i-5")).complete()
        await backend.submit([new_instance(OTHER, "i-6", start_at=clock() + 60)], "fail")
        theirs = (special.workflow_id, special.definition_hash, ["eu", "gpu"], 1)
        assert await backlog() == sorted([("one", ONE.definition_hash, [], 3), theirs])
        held = await held_by(HandWorker(backend, [ONE]), "i-2")
        await backend.pause("i-1", None, None)
        assert await backlog() == sorted([("one", ONE.definition_hash, [], 1), theirs])
        await held.complete()
        await backend.cancel("i-3", None, None)
        await backend.delete("i-4", True)
        assert await backlog() == []
        await backend.send_event("i-5", "go", b"", None)
        assert await backlog() == [("listening", LISTENING.definition_hash, [], 1)]

    async def test_the_backlog_says_for_how_long_the_next_one_has_been_ready(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Since it came, its start, its timer, its event or its last checkpoint."""

        async def ages() -> dict[str, float]:
            return {one.workflow_id: round(one.age, 3) for one in await backend.backlog()}

        await submit(backend, ONE, "i-1")
        assert await ages() == {"one": 0.0}
        clock.advance(5)
        await submit(backend, ONE, "i-2")
        assert await ages() == {"one": 5.0}
        await held_by(HandWorker(backend, [ONE]), "i-1")
        clock.advance(1)
        assert await ages() == {"one": 1.0}
        await backend.delete("i-2", True)
        await (await start(backend, LISTENING, "i-3")).complete()
        clock.advance(40)
        await backend.send_event("i-3", "go", b"", None)
        clock.advance(2)
        assert (await ages())["listening"] == 2.0
        await backend.delete("i-3", True)
        await backend.submit([new_instance(OTHER, "i-4", start_at=clock() + 60)], "fail")
        await (await start(backend, DELAYED, "i-5")).complete()
        nap = await backend.get("i-5")
        assert nap.wake_at is not None
        clock.advance(max(nap.wake_at - clock(), 60) + 7)
        await HandWorker(backend, [TWO]).claim_ids()
        found = await ages()
        assert found[OTHER.workflow_id] == pytest.approx(clock() - (nap.created_at + 60), abs=0.1)
        assert found[DELAYED.workflow_id] == pytest.approx(clock() - nap.wake_at, abs=0.1)

    async def test_the_next_step_has_needs_of_its_own(self, backend: Backend) -> None:
        """An instance whose next step needs other tags goes back and waits for who has them."""
        plain = HandWorker(backend, [HANDING_OVER], tags=["cpu"])
        await submit(backend, HANDING_OVER, "i-1")
        held = await held_by(plain, "i-1")
        assert await held.complete("half") == "ok"
        assert held.state == "handed_over"
        row = await backend.get("i-1")
        assert (row.status, row.worker_id) == ("in_progress", None)
        assert (list(row.tags), row.priority) == (["gpu"], 1)
        assert await plain.claim_ids() == []
        special = HandWorker(backend, [HANDING_OVER], "worker-2", tags=["gpu"])
        [taken] = await special.claim()
        assert (list(taken.claim.tags), taken.claim.priority) == (["gpu"], 1)
        assert [step.input for step in taken.steps] == ["half"]
        assert await taken.complete("whole") == "ok"
        assert (await backend.get("i-1")).status == "completed"

    async def test_the_next_step_has_a_priority_of_its_own(self, backend: Backend) -> None:
        """It counts from the commit that leads to the step."""
        await submit(backend, HANDING_OVER, "raised")
        plain = HandWorker(backend, [HANDING_OVER], tags=["cpu"])
        held = await held_by(plain, "raised")
        await submit(backend, LEVELS[2], "second")
        await held.complete()
        both = HandWorker(backend, [HANDING_OVER, LEVELS[2]], "worker-2")
        assert await both.claim_ids(9) == ["raised", "second"]

    async def test_a_holder_that_stops_gives_its_place_to_another(self, backend: Backend) -> None:
        """After a drain the instance is ready for somebody else, where it was."""
        held = await start(backend, HANDING_OVER)
        await held.drain()
        assert await held.complete("half") == "ok"
        assert held.state == "handed_over"
        other = await held_by(HandWorker(backend, [HANDING_OVER], "worker-2"), "i-1")
        assert [step.task.name for step in other.steps] == ["special"]
