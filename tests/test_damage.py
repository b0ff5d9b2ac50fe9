"""Stored bytes that are damaged: the instance is set aside with its reason, the others go on.

Bytes can be damaged on their way out of a backend in Python only, so these run on the one in pure
Python; what meets the damage is the same engine for all. Damaged files are in `sqlite/`.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest
from benches.python_backend import PythonBackend

from sayiir import Flow, Worker, WorkflowClient, WorkflowFailed
from sayiir._core import Claim, Claimant

from .working import LONG, NEVER


def add_one(x: int) -> int:
    return x + 1


# It parks, so that a stored position is read again, and it forks, so that there are cells.
FLOW = (
    Flow("damaged")
    .then(add_one)
    .fork()
    .branch(add_one, name="left")
    .branch(Flow("inner").wait_for_event("go").build(), name="right")
    .join(lambda both: both["left"] + both["right"], name="total")
    .build()
)


class Damaging(PythonBackend):
    """Flips or cuts one stored byte string of chosen instances when they are claimed again."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def spoil(self, data: bytes) -> bytes:
        """The bytes with one bit changed, or without their end."""
        at = self._rng.randrange(len(data))
        if self._rng.random() < 0.3:
            return data[:at]
        changed = data[at] ^ (1 << self._rng.randrange(8))
        return data[:at] + bytes([changed]) + data[at + 1 :]

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        return [self._damaged(claim) for claim in await super().claim(claimant, limit)]

    def _damaged(self, claim: Claim) -> Claim:
        if not claim.instance_id.startswith("bad") or claim.cursor is None:
            return claim
        cursor, cells = claim.cursor, claim.cells
        if cells and self._rng.random() < 0.5:
            strand, cell = cells[0]
            cells = [(strand, self.spoil(cell)), *cells[1:]]
        else:
            cursor = self.spoil(cursor)
        return Claim(
            claim.instance_id,
            claim.fence,
            claim.definition_hash,
            cursor=cursor,
            cells=cells,
            next_seq=claim.next_seq,
            next_strand=claim.next_strand,
            tags=claim.tags,
            priority=claim.priority,
        )

    async def input(self, instance_id: str) -> bytes:
        sealed = await super().input(instance_id)
        return self.spoil(sealed) if instance_id.startswith("input") else sealed


@pytest.mark.parametrize("seed", range(10))
async def test_damaged_instances_are_set_aside_and_the_others_go_on(seed: int) -> None:
    backend = Damaging(random.Random(seed))
    client = WorkflowClient(backend)
    ids = [f"{kind}-{n}" for n in range(10) for kind in ("bad", "input", "good")]
    handles = await client.submit_many(FLOW, [(one, 1) for one in ids])
    async with Worker(backend, FLOW, concurrency=4, poll_interval=NEVER):
        for handle in handles:
            if not handle.instance_id.startswith("input"):
                await handle.send_event("go", 10)
        for handle in handles:
            if handle.instance_id.startswith("good"):
                assert await handle.result(timeout=LONG) == 13
            elif handle.instance_id.startswith("input"):
                with pytest.raises(WorkflowFailed, match="DecodeError"):
                    await handle.result(timeout=LONG)
    for handle in handles:
        if handle.instance_id.startswith("bad"):
            # The event may have been there before it parked; then nothing was read again.
            status = await handle.refresh()
            assert status.is_completed() or status.error_type == "SnapshotFormatError"
            assert status.output == (13 if status.is_completed() else None)


async def test_a_damaged_position_says_so() -> None:
    backend = Damaging(random.Random(1))
    client = WorkflowClient(backend)
    handle = await client.submit(FLOW, "bad", 1)
    async with Worker(backend, FLOW, poll_interval=NEVER):
        while (await handle.refresh()).signal_name is None:  # noqa: ASYNC110
            await asyncio.sleep(0)  # nothing tells a client that an instance has parked
        await handle.send_event("go", 10)
        with pytest.raises(WorkflowFailed, match="the stored state of this instance") as caught:
            await handle.result(timeout=LONG)
    assert caught.value.status.error_type == "SnapshotFormatError"
    assert await client.get_task_result("bad", "fork/left/add_one", "none") == 3
