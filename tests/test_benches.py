"""What the benches measure with: figures that are not times are as large as they have to be."""

from __future__ import annotations

from random import Random

import pytest
from benches.store import POSTGRES, SQLITE, Store, space, url_of
from benches.workload import WOKEN

from sayiir import WorkflowClient

COUNT, SIZE = 200, 10_000


@pytest.mark.parametrize("store", [SQLITE, POSTGRES], ids=lambda store: store.name)
async def test_the_space_of_a_place_grows_by_what_is_put_there(store: Store) -> None:
    # Noise, which no server can pack.
    noise = Random(7)
    async with store.opened() as backend:
        client = WorkflowClient(backend)
        await client.submit(WOKEN, input=1)
        before = space(url_of(backend))
        await client.submit_many(WOKEN, [(None, noise.randbytes(SIZE)) for _ in range(COUNT)])
        each = (space(url_of(backend)) - before) / COUNT
    assert SIZE <= each < 2 * SIZE
