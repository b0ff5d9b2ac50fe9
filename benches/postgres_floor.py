"""What PostgreSQL alone takes for the work of an instance: the rows, the durability, and no engine.

A bare script might store three-step instances like this: one connection of `asyncpg`, the quickest
driver that Python has, statements that were prepared once, and lists of values that a statement
unnests. So many instances advance in lock step, one statement a round, which is a transaction of
its own: submitted, claimed, and each of three steps committed with its position, every write after
the first under a fence. Nothing is encoded, decoded, looked for, waited for or called.

It promises the durability of the backend it is compared with, on the same server. It has no index
but the keys, and knows neither flows nor workers. What every row holds is made up before the clock
starts; what the driver makes of it counts.

Run it alone as `python -m benches.postgres_floor [url]`; without a URL it starts a server.
"""

from __future__ import annotations

import asyncio
import os
import sys
from time import perf_counter
from types import TracebackType
from typing import Self

import asyncpg  # type: ignore[import-untyped]

from benches.postgres_server import served

__all__ = ["STEPS", "PostgresFloor"]

STEPS = 3
"""Steps of an instance."""

CURSOR = b"c" * 60
PAYLOAD = b"p" * 100
NOW = 1_700_000_000_000_000
COMPLETED = 4

SCHEMA = """
DROP SCHEMA IF EXISTS floor CASCADE;
CREATE SCHEMA floor;
CREATE TABLE floor.instance (
    key bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, definition integer NOT NULL,
    lane integer NOT NULL, status smallint NOT NULL, priority smallint NOT NULL, cursor bytea,
    next_seq integer NOT NULL, fence bigint NOT NULL, holder integer, order_us bigint NOT NULL,
    created_us bigint NOT NULL, updated_us bigint NOT NULL, wake_us bigint
) WITH (fillfactor = 70);
CREATE TABLE floor.input (instance bigint PRIMARY KEY, payload bytea NOT NULL);
CREATE TABLE floor.step (
    instance bigint NOT NULL, seq integer NOT NULL, attempt integer NOT NULL,
    started_us bigint NOT NULL, ended_us bigint NOT NULL, outcome smallint NOT NULL,
    path text NOT NULL, name text NOT NULL, worker text NOT NULL, output bytea,
    PRIMARY KEY (instance, seq)
);
"""
# A plan that is kept was made while the tables were nearly empty, and would go through all of them
# for ever after: what a script that knows its tables says once.
BY_KEYS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
SUBMIT = """
WITH new AS (
    SELECT key, id, payload
    FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS u (key, id, payload)
), made AS (
    INSERT INTO floor.instance (key, id, definition, lane, status, priority, next_seq, fence,
                                order_us, created_us, updated_us)
    SELECT key, id, 1, 1, 0, 3, 0, 0, $4, $4, $4 FROM new
)
INSERT INTO floor.input (instance, payload) SELECT key, payload FROM new
"""
CLAIM = """
UPDATE floor.instance i SET fence = i.fence + 1, holder = 1, updated_us = $3
FROM unnest($1::bigint[], $2::bigint[]) AS u (key, fence)
WHERE i.key = u.key AND i.fence = u.fence
"""
STEP = """
WITH done AS (
    SELECT key, fence, cursor, output
    FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
        AS u (key, fence, cursor, output)
), moved AS (
    UPDATE floor.instance i
    SET cursor = done.cursor, next_seq = $5 + 1, updated_us = $7, status = $8, holder = $9
    FROM done WHERE i.key = done.key AND i.fence = done.fence
    RETURNING i.key
)
INSERT INTO floor.step (instance, seq, attempt, started_us, ended_us, outcome, path, name, worker,
                        output)
SELECT done.key, $5, 1, $7, $7, 0, $6, 'noop', 'worker-1', done.output
FROM done JOIN moved ON moved.key = done.key
"""


class PostgresFloor:
    """Tables of its own in the database of a URL, in the schema `floor`; made afresh when entered.

    >>> async def main():
    ...     async with PostgresFloor(served().url()) as floor:
    ...         await floor.instances(in_flight=4, count=8)
    ...         return await floor.stored()
    >>> asyncio.run(main())
    (8, 24)
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = 1

    async def __aenter__(self) -> Self:
        self._db = await asyncpg.connect(self._url)
        await self._db.execute(SCHEMA + BY_KEYS)
        self._submit = await self._db.prepare(SUBMIT)
        self._claim = await self._db.prepare(CLAIM)
        self._step = await self._db.prepare(STEP)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._db.execute("DROP SCHEMA floor CASCADE")
        await self._db.close()

    async def instances(self, in_flight: int, count: int) -> float:
        """Seconds for each of `count` instances, from submit to completion."""
        took = 0.0
        for _ in range(count // in_flight):
            keys = list(range(self._next, self._next + in_flight))
            self._next += in_flight
            # Random, as ids are: that is what an index on them has to take.
            ids = [os.urandom(16).hex() for _ in keys]
            payloads, cursors = [PAYLOAD] * in_flight, [CURSOR] * in_flight
            unclaimed, claimed = [0] * in_flight, [1] * in_flight
            start = perf_counter()
            await self._submit.fetch(keys, ids, payloads, NOW)
            await self._claim.fetch(keys, unclaimed, NOW)
            for seq in range(STEPS):
                last = seq + 1 == STEPS
                await self._step.fetch(
                    *(keys, claimed, cursors, payloads, seq, f"step-{seq}", NOW),
                    *((COMPLETED, None) if last else (0, 1)),
                )
            took += perf_counter() - start
        return took / (count // in_flight * in_flight)

    async def commits(self, count: int) -> list[float]:
        """Seconds of each of `count` checkpoints of one held instance, a transaction each."""
        key = self._next
        self._next += 1
        await self._submit.fetch([key], [os.urandom(16).hex()], [PAYLOAD], NOW)
        took = []
        for seq in range(count):
            row = ([key], [0], [CURSOR], [PAYLOAD], seq, f"step-{seq}", NOW, 0, 1)
            start = perf_counter()
            await self._step.fetch(*row)
            took.append(perf_counter() - start)
        return took

    async def stored(self) -> tuple[int, int]:
        """How many instances have completed, and how many step rows there are."""
        completed, steps = await self._db.fetchrow(
            "SELECT (SELECT count(*) FROM floor.instance WHERE status = 4),"
            " (SELECT count(*) FROM floor.step)"
        )
        return completed, steps


async def main(url: str) -> None:
    """Print the floors of this machine."""
    async with PostgresFloor(url) as floor:
        middle = sorted(await floor.commits(1_000))[500] * 1e3
        print(f"one commit {middle:.3f} ms (median)")
        for in_flight, count in ((1, 512), (16, 4_096), (64, 16_384), (256, 32_768)):
            took = min([await floor.instances(in_flight, count // 4) for _ in range(4)])
            print(f"{in_flight} in flight: {1 / took:,.0f} instances/s")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else served().url()))
