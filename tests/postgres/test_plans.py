"""How the server finds rows: by an index, whatever is in the tables, and whatever it knows of them.

Statements are planned as the store's sessions have them planned: once, for batches of any size. A
table is nearly empty and was never analysed, or full of what ended and what is parked. That a claim
costs the same among a million finished instances is counted in pages it touches, not in time.
"""

import re
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from tests.postgres.server import required

from sayiir import Flow, PostgresBackend, WorkflowClient
from sayiir._core import postgres_statements

GROWING = ("instances", "inputs", "steps", "cells", "events", "item_groups", "items")
SELDOM = ("report.", "sweep.", "backlog.", "lease.orphans", "list.all")
"""What counts everything, or goes through a table piece by piece in no hurry."""
PLANNING = (
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)
FEW, MANY = (2_000, 200), (1_000_000, 100_000)
"""Finished and parked instances."""
_numbers = count()

flow = Flow("planned").then(lambda value: value).build()


@pytest.fixture
async def schema() -> str:
    """A schema that an instance was submitted to; the server drops it with its database."""
    name = f"plans_{next(_numbers)}"
    backend = PostgresBackend(required(swift=True).url(), schema=name)
    await WorkflowClient(backend).submit(flow, "first", input=1)
    await backend.close()
    return name


@pytest.fixture
def session(schema: str) -> Iterator[psycopg.Connection]:
    """A connection with the settings of the store's own, in this schema."""
    server = required(swift=True)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for setting in PLANNING:
            connection.execute(setting.encode())
        yield connection
    server.execute(f"DROP SCHEMA {schema} CASCADE")


def fill(session: psycopg.Connection, schema: str, finished: int, parked: int) -> None:
    """Instances that ended, with a step each, and instances that wait for an event or a time.

    The first half of those that ended are items of the other half, two in each group.
    """
    into = (
        f"INSERT INTO {schema}.instances (instance, id, definition, lane, status, priority,"
        " order_us, fence, created_us, updated_us, ended_us, wake_us, awaits, next_seq,"
        " next_strand, steps) SELECT {first} + n, {name} || n, definition, lane, {status}, 3, n, 1,"
        " n, n, {ended}, {wake}, {awaits}, 1, 1, 1 FROM generate_series(1, {count}) n,"
        f" {schema}.lanes"
    )
    done = {"first": 10_000_000, "name": "'done-'", "status": 4, "ended": "n", "wake": "NULL"}
    session.execute(into.format(**done, awaits="NULL", count=finished).encode())
    wait = {"first": 50_000_000, "name": "'parked-'", "status": 2, "ended": "NULL"}
    wait |= {"wake": "9000000000000000 + n", "awaits": "ARRAY['go']"}
    session.execute(into.format(**wait, count=parked).encode())
    session.execute(
        f"INSERT INTO {schema}.steps SELECT instance, 1, 2, 0, 1, NULL, NULL, 's', NULL, 'x' "
        f"FROM {schema}.instances".encode()
    )
    session.execute(
        f"INSERT INTO {schema}.inputs SELECT instance, 1, id, 'x' FROM {schema}.instances"
        # The one that was submitted has its input.
        " ON CONFLICT DO NOTHING".encode()
    )
    half = f"FROM generate_series(1, {finished // 2}) n"
    session.execute(
        f"INSERT INTO {schema}.items SELECT 10000001 + {finished} - (n + 1) / 2, 1, n % 2,"
        f" 10000000 + n {half}".encode()
    )
    session.execute(
        f"INSERT INTO {schema}.item_groups SELECT DISTINCT parent, 1, 2, 0, false"
        f" FROM {schema}.items".encode()
    )


def plan(session: psycopg.Connection, text: str, schema: str) -> str:
    """How a statement is executed, for arguments of any kind."""
    text = text.replace("sayiir.", f"{schema}.")
    arguments = max((int(number) for number in re.findall(r"\$(\d+)", text)), default=0)
    given = f"({', '.join(['NULL'] * arguments)})" if arguments else ""
    session.execute(f"PREPARE judged AS {text}".encode())
    rows = session.execute(f"EXPLAIN EXECUTE judged{given}".encode()).fetchall()
    session.execute("DEALLOCATE judged")
    return "\n".join(line for (line,) in rows)


def judge(session: psycopg.Connection, schema: str) -> None:
    for name, text in postgres_statements().items():
        if name.startswith(SELDOM) or name == "event.new":
            continue
        how = plan(session, text, schema)
        scanned = [table for table in GROWING if re.search(rf"Seq Scan on {table}\b", how)]
        assert not scanned, f"{name} reads all of {scanned}:\n{how}"


@pytest.mark.parametrize("analysed", [False, True])
def test_no_table_that_grows_is_ever_read_through(
    schema: str, session: psycopg.Connection, analysed: bool
) -> None:
    judge(session, schema)
    fill(session, schema, *FEW)
    if analysed:
        session.execute("ANALYZE")
    judge(session, schema)


def pages_of_a_claim(session: psycopg.Connection, schema: str) -> int:
    """How many pages a claim of ten touches, and it must find the one instance that is ready."""
    text = postgres_statements()["claim.take"].replace("sayiir.", f"{schema}.")
    session.execute(f"PREPARE claim AS {text}".encode())
    [[lane]] = session.execute(f"SELECT lane FROM {schema}.lanes".encode()).fetchall()
    with session.transaction(force_rollback=True):
        session.execute(f"INSERT INTO {schema}.workers VALUES (99, 'w', 1, 1, NULL, 1)".encode())
        run = f"EXPLAIN (ANALYZE, BUFFERS, TIMING off) EXECUTE claim(ARRAY[{lane}], 10, 'w', 7)"
        how = "\n".join(line for (line,) in session.execute(run.encode()).fetchall())
    session.execute("DEALLOCATE claim")
    top = how.splitlines()[0]
    assert "rows=1 loops=1" in top.split("(actual")[1], how
    found = re.search(r"Buffers: shared hit=(\d+)(?: read=(\d+))?", how)
    assert found is not None, how
    return int(found[1]) + int(found[2] or 0)


def claims_cost_the_same(session: psycopg.Connection, schema: str, size: tuple[int, int]) -> None:
    before = pages_of_a_claim(session, schema)
    fill(session, schema, *size)
    session.execute(f"VACUUM ANALYZE {schema}.instances".encode())
    after = pages_of_a_claim(session, schema)
    # Deeper trees: a page more for each level of each index on the way.
    assert after <= before + 40, f"{before} pages, then {after}"
    judge(session, schema)


def test_a_claim_among_many_touches_no_more_pages(schema: str, session: psycopg.Connection) -> None:
    claims_cost_the_same(session, schema, (20_000, 2_000))


@pytest.mark.soak
def test_a_claim_among_a_million_touches_no_more_pages(
    schema: str, session: psycopg.Connection
) -> None:
    claims_cost_the_same(session, schema, MANY)
