"""Contract: what can be read of an instance, listing, and removing it."""

from __future__ import annotations

from typing import Any

import pytest

from sayiir._codec import decode_payload, read_error
from sayiir._errors import InstanceNotFoundError, InvalidStateError
from sayiir._flow import Flow
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import DELAYED, LISTENING, ONE, OTHER, RETRYING, TWO, Anything, new_instance
from ._ground import Ground, end_as, everything, held_by, start, submit
from ._hand import HandWorker


def output_of(step: Any) -> Any:
    """The value a step row holds."""
    return None if step is None else decode_payload(step.output)


class ReadContract(Ground):
    """`get`, `history`, `step`, `rows`, `input` and `delete`."""

    async def test_the_time_is_the_clocks(self, backend: Backend, clock: VirtualClock) -> None:
        """Leases, timers and rows go by `now`."""
        before = backend.now()
        clock.advance(90)
        assert (before, backend.now()) == (clock() - 90, clock())

    async def test_a_completed_instance_has_its_output(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """And the moment it ended."""
        created = clock()
        held = await start(backend, ONE)
        clock.advance(3)
        await held.complete({"sum": [1, 2]})
        clock.advance(3)
        row = await backend.get("i-1")
        assert (row.status, row.error, row.worker_id) == ("completed", None, None)
        assert (row.created_at, row.updated_at, row.ended_at) == (created, created + 3, created + 3)
        assert row.output is not None
        assert decode_payload(row.output) == {"sum": [1, 2]}

    async def test_a_failed_instance_has_its_error(self, backend: Backend) -> None:
        """And no output."""
        await end_as(backend, "failed")
        row = await backend.get("i-1")
        assert (row.status, row.output) == ("failed", None)
        assert row.error is not None
        error = read_error(row.error)
        assert (error.error_type, error.message) == ("ValueError", "broken")

    async def test_a_commit_moves_the_time_of_the_last_change(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """But not that of the creation."""
        created = clock()
        held = await start(backend, TWO)
        clock.advance(3)
        await held.complete()
        row = await backend.get("i-1")
        assert (row.created_at, row.updated_at, row.steps) == (created, created + 3, 1)

    async def test_history_is_in_the_order_it_was_written(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Numbered from 0, with worker, attempt, outcome and times of each row."""
        held = await start(backend, RETRYING)
        begun = clock()
        clock.advance(2)
        await held.fail("first")
        await end_as(backend, "completed", "noise")
        clock.advance(60)
        held = await held_by(HandWorker(backend, [RETRYING], "worker-2"), "i-1")
        clock.advance(5)
        await held.complete("ok")
        first, second = await backend.history("i-1")
        assert (first.worker_id, second.worker_id) == ("worker-1", "worker-2")
        assert [row.step.seq for row in (first, second)] == [0, 1]
        assert (first.step.path, first.step.name) == ("flaky", "flaky")
        assert (first.step.outcome, first.step.attempt) == ("retried", 1)
        assert (first.step.started_at, first.step.ended_at) == (begun, begun + 2)
        assert first.step.output is None
        assert first.step.error is not None
        assert read_error(first.step.error).message == "first"
        assert (second.step.outcome, second.step.attempt) == ("completed", 2)
        assert (second.step.started_at, second.step.ended_at) == (begun + 62, begun + 67)
        assert (output_of(second.step), second.step.error) == ("ok", None)

    async def test_history_has_what_elapsed_and_what_failed(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A delay that is over is a row too."""
        await (await start(backend, DELAYED)).complete("x")
        clock.advance(60)
        held = await held_by(HandWorker(backend, [DELAYED]), "i-1")
        await held.fail()
        rows = await backend.history("i-1")
        assert [(row.step.path, row.step.outcome) for row in rows] == [
            ("before", "completed"),
            ("nap", "elapsed"),
            ("after", "failed"),
        ]
        assert (await backend.get("i-1")).steps == 3

    async def test_a_fresh_instance_has_no_history(self, backend: Backend) -> None:
        """An empty one, not an error."""
        await submit(backend, ONE, "i-1")
        assert list(await backend.history("i-1")) == []
        assert await backend.step("i-1", "only") is None

    async def test_rows_by_number(self, backend: Backend) -> None:
        """Those that were asked for; missing ones are left out."""
        held = await start(backend, TWO)
        await held.complete("a")
        await held.complete("b")
        rows = await backend.rows("i-1", [1])
        assert [(row.seq, row.path, output_of(row)) for row in rows] == [(1, "second", "b")]
        rows = await backend.rows("i-1", [0, 1, 2, 77])
        assert sorted((row.seq, output_of(row)) for row in rows) == [(0, "a"), (1, "b")]
        assert list(await backend.rows("i-1", [])) == []
        assert list(await backend.rows("i-1", [9])) == []

    async def test_a_step_by_path_before_one_by_name(self, backend: Backend) -> None:
        """A path names one place in the flow, a name perhaps several."""
        child: Anything = Flow("child").then(abs, name="same").build()
        flow: Anything = Flow("nested").then(abs, name="same").then_flow(child).build()
        held = await start(backend, flow)
        await held.complete("top")
        await held.complete("inner")
        assert output_of(await backend.step("i-1", "same")) == "top"
        assert output_of(await backend.step("i-1", "child/same")) == "inner"
        assert await backend.step("i-1", "child") is None
        assert await backend.step("i-1", "SAME") is None

    async def test_the_newest_step_of_a_name(self, backend: Backend) -> None:
        """Where no path is called like that."""
        one: Anything = Flow("one").then(abs, name="same").build()
        two: Anything = Flow("two").then(abs, name="same").build()
        held = await start(backend, Flow("twice").then_flow(one).then_flow(two).build())
        await held.complete(1)
        assert output_of(await backend.step("i-1", "same")) == 1
        await held.complete(2)
        assert output_of(await backend.step("i-1", "same")) == 2

    async def test_only_a_step_with_an_output(self, backend: Backend, clock: VirtualClock) -> None:
        """A failed attempt has none; one that returned None has."""
        held = await start(backend, RETRYING)
        await held.fail()
        assert await backend.step("i-1", "flaky") is None
        clock.advance(60)
        await (await held_by(held.worker, "i-1")).complete(None)
        step = await backend.step("i-1", "flaky")
        assert step is not None
        assert (step.attempt, output_of(step)) == (2, None)

    @pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
    @pytest.mark.parametrize("force", [False, True])
    async def test_an_ended_instance_can_be_deleted(
        self, backend: Backend, end: str, force: bool
    ) -> None:
        """With its history and its input; the others stay."""
        await end_as(backend, end)
        await submit(backend, ONE, "i-2")
        await backend.delete("i-1", force)
        with pytest.raises(InstanceNotFoundError):
            await everything(backend, "i-1")
        assert [row.instance_id for row in (await backend.find()).rows] == ["i-2"]

    async def test_a_living_instance_is_deleted_only_by_force(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Held, ready, parked or paused."""
        await submit(backend, ONE, "held", "ready", "paused")
        held = await held_by(HandWorker(backend, [ONE]), "held")
        late = held.completion()
        await backend.pause("paused", None, None)
        await (await start(backend, DELAYED, "delayed")).complete()
        await (await start(backend, LISTENING, "listening")).complete()
        for row in (await backend.find()).rows:
            before = await everything(backend, row.instance_id)
            with pytest.raises(InvalidStateError) as caught:
                await backend.delete(row.instance_id, False)
            assert caught.value.state == row.status
            assert caught.value.instance_id == row.instance_id
            assert await everything(backend, row.instance_id) == before
            await backend.delete(row.instance_id, True)
        assert list((await backend.find()).rows) == []
        assert await backend.next_wake() is None
        clock.advance(3600)
        worker = HandWorker(backend, [ONE, DELAYED, LISTENING])
        assert await worker.claim_ids(9) == []
        assert await held.send(late) == "lease_lost"
        assert await backend.release("worker-1") == 0

    async def test_a_deleted_id_is_free(self, backend: Backend) -> None:
        """What comes after it has nothing of it: no rows, no events, no keys."""
        await (await start(backend, LISTENING)).complete("old")
        await backend.send_event("i-1", "stop", b"old", "k")
        await backend.delete("i-1", True)
        await backend.submit([new_instance(ONE, "i-1", "new")], "fail")
        held = await held_by(HandWorker(backend, [ONE]), "i-1")
        assert [step.input for step in held.steps] == ["new"]
        assert not (await backend.news("i-1", held.fence, ["stop", "go"])).events
        assert await backend.send_event("i-1", "stop", b"new", "k")
        assert (await backend.get("i-1")).steps == 0

    async def test_a_late_write_does_not_reach_the_next_of_an_id(self, backend: Backend) -> None:
        """Fences never come twice, also not after a delete."""
        old = await start(backend, ONE)
        late = old.completion("old")
        await backend.delete("i-1", True)
        new = await start(backend, ONE, name="worker-1")
        assert new.fence != old.fence
        before = await everything(backend, "i-1")
        assert await old.send(late) == "lease_lost"
        assert await everything(backend, "i-1") == before

    async def test_definitions_of_one_name_live_side_by_side(self, backend: Backend) -> None:
        """Each instance keeps its own."""
        await submit(backend, ONE, "i-1")
        await submit(backend, OTHER, "i-2")
        first, second = await backend.get("i-1"), await backend.get("i-2")
        assert first.workflow_id == second.workflow_id
        assert first.definition_hash != second.definition_hash
        assert await HandWorker(backend, [OTHER]).claim_ids(9) == ["i-2"]
