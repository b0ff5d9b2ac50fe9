"""Contract: an instance goes out as a snapshot, and comes in as one, in one step."""

# Asserting is what a suite does.

from __future__ import annotations

import pytest

from sayiir._codec import encode_payload
from sayiir._errors import (
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    SnapshotFormatError,
)
from sayiir.backends import Backend
from sayiir.codec import Snapshot, SnapshotEvent, decode_snapshot, encode_snapshot

from ._clocks import VirtualClock
from ._family import spread
from ._flows import DELAYED, FORKED, LISTENING, ONE, TWO
from ._ground import Ground, end_as, everything, held_by, start, submit
from ._hand import HandWorker

GO = encode_payload("went")


class MoveContract(Ground):
    """`export` and `import_`."""

    async def test_what_comes_in_is_what_went_out(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Everything that can be read of it, but for its id and who holds it; the old one stays."""
        held = await start(backend, TWO)
        await held.complete("half")
        clock.advance(5)
        before = await everything(backend, "i-1")
        data = await backend.export("i-1")
        assert await everything(backend, "i-1") == before
        await backend.import_(data, "i-2")
        row, payload, history = await everything(backend, "i-2")
        assert (payload, history) == before[1:]
        assert (row.worker_id, row.status) == (None, "in_progress")
        same = ("workflow_id", "definition_hash", "created_at", "updated_at", "steps", "tags")
        assert [getattr(row, name) for name in same] == [getattr(before[0], name) for name in same]
        again = decode_snapshot(await backend.export("i-2"))
        assert again.replace(instance_id="i-1") == decode_snapshot(data)
        assert await held.complete("old") == "ok", "the old one goes on"
        other = await held_by(HandWorker(backend, [TWO], "worker-2"), "i-2")
        assert [step.path for step in other.steps] == ["second"]
        assert await other.complete("new") == "ok"
        assert (await backend.get("i-2")).status == "completed"

    async def test_a_fresh_instance_moves(self, backend: Backend) -> None:
        """One that nothing has happened to, also before its start."""
        await submit(backend, ONE, "i-1")
        await backend.import_(await backend.export("i-1"), "i-2")
        worker = HandWorker(backend, [ONE])
        assert sorted(await worker.claim_ids(5)) == ["i-1", "i-2"]

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    async def test_an_ended_instance_moves(self, backend: Backend, status: str) -> None:
        """With its result, or with the reason of its end; nothing happens to it any more."""
        await end_as(backend, status)
        await backend.import_(await backend.export("i-1"), "i-2")
        old, new = await backend.get("i-1"), await backend.get("i-2")
        assert new.status == status
        same = ("output", "error", "reason", "by", "ended_at", "updated_at", "steps")
        assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
        with pytest.raises(InvalidStateError):
            await backend.send_event("i-2", "go", GO, None)
        assert await HandWorker(backend, [ONE]).claim_ids() == []

    async def test_a_timer_moves(self, backend: Backend, clock: VirtualClock) -> None:
        """It wakes when the old one does, also when that is over by then."""
        held = await start(backend, DELAYED)
        await held.complete("x")
        data = await backend.export("i-1")
        await backend.cancel("i-1", None, None)
        await backend.import_(data, "i-2")
        row = await backend.get("i-2")
        wake_at = row.wake_at
        assert (row.status, row.delay_id) == ("waiting", "nap")
        assert wake_at is not None
        assert await backend.next_wake() == wake_at
        worker = HandWorker(backend, [DELAYED])
        assert await worker.claim_ids() == []
        clock.advance(wake_at - clock())
        assert await worker.claim_ids() == ["i-2"]
        await backend.import_(data, "i-3")
        assert await worker.claim_ids() == ["i-3"]

    async def test_events_move_with_their_keys(self, backend: Backend) -> None:
        """Buffered ones in their order; a key that was known stays known."""
        await submit(backend, LISTENING, "i-1")
        for number, key in enumerate(("k", None, "l")):
            await backend.send_event("i-1", "go", encode_payload(number), key)
        await backend.import_(await backend.export("i-1"), "i-2")
        assert not await backend.send_event("i-2", "go", GO, "k")
        held = await held_by(HandWorker(backend, [LISTENING]), "i-2")
        found = (await backend.news("i-2", held.fence, ["go"] * 5)).events
        assert [event.payload for event in found] == [encode_payload(number) for number in range(3)]

    async def test_an_event_wakes_what_came_in(self, backend: Backend) -> None:
        """A wait is one here too; what came early for the id comes first, and once."""
        held = await start(backend, LISTENING)
        await held.complete("x")
        data = decode_snapshot(await backend.export("i-1"))
        assert (data.status, data.awaits) == ("awaiting_signal", ("go",))
        await backend.import_(encode_snapshot(data), "i-2")
        worker = HandWorker(backend, [LISTENING])
        assert await worker.claim_ids() == []
        await backend.send_event("i-2", "go", GO, None)
        assert await worker.claim_ids() == ["i-2"]
        known = SnapshotEvent("go", "known", 0.0, None)
        waiting = SnapshotEvent("other", "k", 0.0, GO)
        data = data.replace(events=(known, waiting))
        await backend.send_event("i-3", "go", GO, "known")
        await backend.import_(encode_snapshot(data), "i-3")
        assert await worker.claim_ids() == []
        await backend.send_event("i-4", "go", GO, "early")
        await backend.import_(encode_snapshot(data), "i-4")
        assert not await backend.send_event("i-4", "go", GO, "early")
        assert await worker.claim_ids() == ["i-4"]

    @pytest.mark.parametrize(("ask", "word"), [("cancel", "cancelled"), ("pause", "paused")])
    async def test_a_pending_request_takes_effect(
        self, backend: Backend, clock: VirtualClock, ask: str, word: str
    ) -> None:
        """Nobody holds what came in, so there is nobody to wait for."""
        await start(backend, TWO)
        await getattr(backend, ask)("i-1", "enough", "ops")
        data = await backend.export("i-1")
        clock.advance(1)
        await backend.import_(data, "i-2")
        row = await backend.get("i-2")
        assert (row.status, row.reason, row.by) == (word, "enough", "ops")
        assert row.updated_at == clock()
        worker = HandWorker(backend, [TWO])
        assert await worker.claim_ids() == []
        if ask == "pause":
            assert await backend.unpause("i-2") == "in_progress"
            assert await worker.claim_ids() == ["i-2"]

    async def test_a_paused_instance_moves(self, backend: Backend, clock: VirtualClock) -> None:
        """It goes back to where it was when it is unpaused."""
        held = await start(backend, DELAYED)
        await held.complete("x")
        await backend.pause("i-1", "hush", "ops")
        await backend.import_(await backend.export("i-1"), "i-2")
        row = await backend.get("i-2")
        assert (row.status, row.reason, row.by) == ("paused", "hush", "ops")
        assert await backend.unpause("i-2") == "waiting"
        clock.advance(3600)
        assert await HandWorker(backend, [DELAYED]).claim_ids(2) == ["i-2"]

    async def test_concurrent_strands_move(self, backend: Backend) -> None:
        """What one branch has done is done, and the other one is next."""
        held = await start(backend, FORKED)
        await held.complete("L", "left")
        await backend.import_(await backend.export("i-1"), "i-2")
        other = await held_by(HandWorker(backend, [FORKED], "worker-2"), "i-2")
        assert [step.task.name for step in other.steps] == ["right"]
        await other.complete("R")
        assert [step.task.name for step in other.steps] == ["join"]

    async def test_an_id_that_is_taken(self, backend: Backend) -> None:
        """Is refused, and nothing changes."""
        held = await start(backend, TWO)
        await held.complete("half")
        data = await backend.export("i-1")
        before = await everything(backend, "i-1")
        with pytest.raises(InstanceAlreadyExistsError) as caught:
            await backend.import_(data, "i-1")
        assert "i-1" in str(caught.value)
        assert await everything(backend, "i-1") == before

    async def test_nobody_to_export(self, backend: Backend) -> None:
        """An instance that is not there."""
        with pytest.raises(InstanceNotFoundError):
            await backend.export("nobody")

    async def test_bytes_that_are_no_snapshot(self, backend: Backend) -> None:
        """Foreign, damaged, or of a position that the definition does not have: nothing is made."""
        held = await start(backend, TWO)
        await held.complete("half")
        data = await backend.export("i-1")
        good = decode_snapshot(data)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        misfit = encode_snapshot(good.replace(cells=(), cursor=await _cursor(backend)))
        for bad in (b"", b"SYRS", GO, data[:-1], data + b"\0", bytes(flipped), misfit):
            with pytest.raises(SnapshotFormatError):
                await backend.import_(bad, "i-2")
        with pytest.raises(InstanceNotFoundError):
            await backend.get("i-2")
        assert len((await backend.find()).rows) == 2

    async def test_spread_maps_do_not_move(self, backend: Backend) -> None:
        """Neither who awaits items, nor an item; the words say why."""
        family = await spread(backend, values=range(2))
        for name in ("i-1", family.items[0]):
            with pytest.raises(InvalidStateError, match="spread map"):
                await backend.export(name)


async def _cursor(backend: Backend) -> bytes | None:
    """A position in an instance of another shape."""
    held = await start(backend, DELAYED, "other")
    await held.complete("x")
    snapshot: Snapshot = decode_snapshot(await backend.export("other"))
    return snapshot.cursor
