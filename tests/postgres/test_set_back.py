"""A database that was set back under a living worker: what builds on what is gone is refused.

A standby that took over without the last commits has the right fence and the wrong position. A
checkpoint says which position it builds on, so it leaves no hole in the history; whoever claims the
instance next goes on from what is there.
"""

from collections.abc import AsyncIterator
from itertools import count

import pytest_asyncio
from tests.postgres.server import Server, required

from sayiir import Flow, PostgresBackend
from sayiir.testing import HandWorker, new_instance

_numbers = count()
three = (
    Flow("set-back")
    .then(lambda value: value, name="one")
    .then(lambda value: value, name="two")
    .then(lambda value: value, name="three")
    .build()
)


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[PostgresBackend]:
    """One in a schema of its own."""
    made = PostgresBackend(required(swift=True).url(), schema=f"set_back_{next(_numbers)}")
    yield made
    await made.close()
    required(swift=True).execute(f"DROP SCHEMA {made.schema} CASCADE")


def forget_last_step(server: Server, schema: str) -> None:
    """What the database looks like when its last commit was lost."""
    server.execute(f"DELETE FROM {schema}.steps WHERE seq = (SELECT max(seq) FROM {schema}.steps)")
    server.execute(f"UPDATE {schema}.instances SET next_seq = next_seq - 1, steps = steps - 1")


async def test_a_checkpoint_that_builds_on_what_is_gone_is_refused(
    backend: PostgresBackend,
) -> None:
    await backend.submit([new_instance(three, "i-1", 7)], "fail")
    [held] = await HandWorker(backend, [three]).claim()
    assert await held.complete(1) == "ok"
    assert await held.complete(2) == "ok"
    forget_last_step(required(swift=True), backend.schema)
    assert await held.complete(3) == "lease_lost"
    assert [row.step.path for row in await backend.history("i-1")] == ["one"]
    assert (await backend.get("i-1")).status == "in_progress"
