"""Stored positions that somebody forged: well sealed, and wrong.

A checksum finds what decays, not what is written on purpose or by a faulty program. Real positions
of a flow of every node kind are changed at random and sealed again; taking one up either works or
sets the instance aside, and never panics, hangs or takes memory without bound.
"""

import os
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from sayiir import Flow, LoopResult, SnapshotFormatError
from sayiir._core import Claim, Claimant, MemoryStore, Run, Step, StepRow, Turn, encode_payload

HEADER = 12
VALUES = ([1, 2, 3], "x", "y", LoopResult.again("x"), LoopResult.done([1]), 5)
SEED = int(os.environ.get("SAYIIR_SEED", "7"))


def same(x: Any) -> Any:
    return x


INNER = Flow("inner").then(same).wait_for_event("e", timeout=5).then(same).build()
NAP = Flow("nap").then(same).delay("d", 1).then(same).build()
TURN = (
    Flow("turn")
    .then(same)
    .route(same, keys=["x", "y"])
    .branch("x", same)
    .branch("y", INNER)
    .done()
    .then(same)
    .build()
)
FLOW = (
    Flow("all")
    .then(same)
    .fork()
    .branch(INNER, name="a")
    .branch(same, same, name="b")
    .join(same, name="j")
    .map(NAP, concurrency=2, on_error="collect")
    .then(same, name="k")
    .loop(TURN, max_iterations=3)
    .delay("z", 5)
    .then(same)
    .build()
)
CLAIMANT = Claimant("w", [FLOW.program], width=4)

Answer = Step | Turn | int
State = tuple[Claim, list[StepRow], bytes]


def advance(
    rng: random.Random, run: Run, answer: Answer, now: float, store: MemoryStore | None
) -> None:
    """End some steps in any order; without a store every commit is taken for written."""
    live: list[Step] = []
    for _ in range(rng.randrange(1, 8)):
        while isinstance(answer, Turn):
            live += answer.steps
            if answer.commit is None:
                break
            kind, events = ("ok", []) if store is None else store.commit(answer.commit, now)
            answer = run.committed(kind, events, now)
        if isinstance(answer, Step):
            live.append(answer)
        if not live:
            return
        answer = run.completed(live.pop(rng.randrange(len(live))), rng.choice(VALUES), now)


def real_states(rng: random.Random) -> list[State]:
    """Positions that the engine itself has written, from worlds that go their own ways."""
    states: list[State] = []
    for _ in range(60):
        store, now = MemoryStore(), 1.0
        store.submit([("i", FLOW.program, encode_payload([1, 2, 3]), None)], "fail", now)
        for _ in range(30):
            now += rng.choice((0.0, 0.5, 6.0))
            claim = store.claim_one(CLAIMANT, "i", now)
            if claim is None:
                if store.get("i", now)["ended_at"] is not None:
                    break
                store.send_event("i", "e", encode_payload(1), None, now)
                continue
            rows, given = store.rows("i", claim.referenced()), store.input("i")
            states.append((claim, store.rows("i", list(range(claim.next_seq))), given))
            run = Run(CLAIMANT, claim, rows, given, now)
            advance(rng, run, run.attend(now), now, store)
            store.give_back("i", claim.fence, now)
    return states


def forged(rng: random.Random, sealed: bytes) -> bytes:
    body = bytearray(sealed[HEADER:])
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(body)) if body else 0
        match rng.randrange(4):
            case 0 if body:
                del body[at]
            case 1:
                body.insert(at, rng.randrange(256))
            case _ if body:
                body[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    sum_ = zlib.crc32(sealed[4:8] + bytes(body))
    return sealed[:8] + struct.pack("<I", sum_) + bytes(body)


def forged_claim(rng: random.Random, claim: Claim) -> Claim:
    cursor: bytes | None = claim.cursor
    cells: Sequence[tuple[int, bytes]] = claim.cells
    if cursor is not None and (not cells or rng.random() < 0.5):
        cursor = forged(rng, cursor)
    elif cells:
        chosen = rng.randrange(len(cells))
        cells = [(n, forged(rng, b) if i == chosen else b) for i, (n, b) in enumerate(cells)]
    return Claim(
        "i",
        claim.fence,
        claim.definition_hash,
        cursor=cursor,
        cells=cells,
        next_seq=claim.next_seq,
        next_strand=claim.next_strand,
    )


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_a_forged_position_never_harms(seed: int) -> None:
    rng = random.Random(seed)
    states = real_states(rng)
    refused = taken = 0
    for _ in range(20_000):
        claim, rows, given = rng.choice(states)
        bad = forged_claim(rng, claim)
        run = Run(CLAIMANT, bad, rows, given, 100.0)
        try:
            answer = run.attend(100.0, events=[(0, "e", encode_payload(1))])
        except SnapshotFormatError:
            refused += 1
            continue
        if isinstance(answer, Turn) and answer.commit is not None and answer.commit.result:
            refused += 1
        else:
            taken += 1
        advance(rng, run, answer, 100.0, None)
    # Both happen, else the test looks at nothing.
    assert refused > 1_000, seed
    assert taken > 1_000, seed
