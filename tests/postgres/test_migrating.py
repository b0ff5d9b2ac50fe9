"""A schema of an earlier version, with work in every state: it is migrated, and all of it goes on.

What version 2 brought is taken away from a schema of today, which leaves what version 1 made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.golden.write_store import DELAYED, FLOWS, PLAIN, SHARED, Whole, run_on
from tests.postgres.schema import Schema

from sayiir import SnapshotFormatError, Worker, WorkflowClient
from sayiir.testing import HandWorker, new_instance

LONG = 30.0
GIVEN = 5
BACK_TO_1 = (
    "DROP VIEW sayiir.items_readable; DROP TABLE sayiir.items; DROP TABLE sayiir.item_groups;"
    " UPDATE sayiir.schema_version SET version = 1"
)


@pytest_asyncio.fixture
async def schema() -> AsyncIterator[Schema]:
    async with Schema.fresh() as made:
        yield made


async def of_version_1(schema: Schema) -> None:
    """Instances that are new, parked and half done, in a schema as version 1 made it."""
    backend = schema.backend()
    worker = HandWorker(backend, FLOWS, "w-1")

    async def begin(name: str, workflow: Whole) -> None:
        await backend.submit([new_instance(workflow, name, GIVEN)], "fail")
        if name != "fresh":
            held = await worker.claim_one(name)
            assert held is not None
            if name == "half":
                await held.complete(GIVEN + 1)
            else:
                await run_on(held)

    await begin("fresh", PLAIN)
    await begin("half", PLAIN)
    await begin("done", PLAIN)
    await begin("parked", DELAYED)
    await backend.release("w-1")
    await backend.close()
    await schema.rows(BACK_TO_1)


async def test_work_of_version_1_goes_on_in_version_2(schema: Schema) -> None:
    await of_version_1(schema)
    backend = schema.backend()
    client = WorkflowClient(backend)
    async with Worker(backend, FLOWS, poll_interval="50ms"):
        assert await client.result("done", LONG) == GIVEN + 2
        for name in ("fresh", "half"):
            assert await client.result(name, LONG) == GIVEN + 2
        assert (await client.status("parked")).status == "waiting"
        # What is new runs beside it.
        shared = await client.submit(SHARED, "shared", GIVEN)
        assert await shared.result(LONG) == 3 * GIVEN + 6
    assert await schema.rows("SELECT version FROM sayiir.schema_version") == [(2,)]
    assert await schema.rows("SELECT count(*) FROM sayiir.items_readable") == [(3,)]


async def test_many_that_meet_version_1_at_once_migrate_it_once(schema: Schema) -> None:
    await of_version_1(schema)
    backends = [schema.backend() for _ in range(6)]
    pages = await asyncio.gather(*(backend.find() for backend in backends))
    assert {len(page.rows) for page in pages} == {4}
    assert await schema.rows("SELECT version FROM sayiir.schema_version") == [(2,)]


async def test_a_backend_that_must_not_migrate_says_what_to_do(schema: Schema) -> None:
    await of_version_1(schema)
    with pytest.raises(SnapshotFormatError, match=r"has version 1.* run 'sayiir migrate'"):
        await schema.backend(migrate=False).find()
