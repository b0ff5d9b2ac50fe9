"""A picture of a schema: every row of every table, in a form that two runs have in common.

What is different by chance in two runs that do the same is left out or told in other words: numbers
that the server gives away, which have gaps after a death, stand as places in their order, or as the
names they stand for; random tokens are not told. Of definitions and lanes only those are told that
an instance refers to: they are made ahead of their first instance, and mean nothing without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
Rows = frozenset[tuple[tuple[str, Any], ...]]
TABLES = (
    *("definitions", "lanes", "workers", "worker_names", "garbage", "item_groups", "items"),
    *("instances", "inputs", "cells", "steps", "events"),
)
"""All but the listeners, which come and go with their processes."""
NUMBERED = ("instance", "parent", "item")
"""Columns with the number of an instance."""
BY_LIFE = ("fence", "worker", "holder", "lease", "alert")
"""Columns that tell how often, and by whom."""
NOBODY: dict[str, Rows] = {"workers": frozenset(), "worker_names": frozenset()}
"""Without who was there."""
WAITING = (0, 1, 2)
"""Numbers in the column `status`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What stood in a schema; equal pictures are of equal contents."""

    tables: dict[str, Rows]
    ids: dict[str, str] = field(default_factory=dict, compare=False)
    """How the ids of items are told, which have the fence in them of the commit that made them."""

    def instances(self) -> dict[str, Row]:
        """The rows of this table by their ids."""
        rows = map(dict, self.tables["instances"])
        return {row["id"]: row for row in rows}

    def during_a_claim(self) -> Picture:
        """As it may be when a claim has only looked around: who looks, and what is due, is open.

        A claim that finds nothing looks for what it did not know of, in a transaction of its own,
        and is made again.
        """

        def blurred(row: Row) -> Row:
            due = row["holder"] is None and row["status"] in WAITING and row["wake_us"] is not None
            return row | {"status": "timer"} if due else row

        tables = self.tables | NOBODY
        return Picture(tables | {"instances": _rows(map(blurred, self.instances().values()))})

    def without_times(self) -> Picture:
        """As another run leaves it, at another time: without times, fences, leases and workers."""

        def timeless(row: Row) -> Row:
            kept = (name for name in row if not name.endswith("_us") and name not in BY_LIFE)
            return {name: row[name] for name in kept}

        tables = {name: _rows(map(timeless, map(dict, rows))) for name, rows in self.tables.items()}
        return Picture(tables | NOBODY)


def take_picture(connection: psycopg.Connection[Any], schema: str = "sayiir") -> Picture:
    """What stands in a schema."""
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = {
            table: cursor.execute(f'SELECT * FROM "{schema}".{table}'.encode()).fetchall()
            for table in TABLES
        }
    hashes = {row["definition"]: row["hash"].hex() for row in found["definitions"]}
    lanes = {row["lane"]: (hashes[row["definition"]], row["tags"]) for row in found["lanes"]}
    names = {row["worker"]: row["name"] for row in found["worker_names"]}
    instances = _places(
        row[column]
        for rows in found.values()
        for row in rows
        for column in NUMBERED
        if column in row
    )
    ids = _told_ids(found["instances"], found["items"])
    events = _places(row["event"] for row in found["events"])
    meant: dict[str, Callable[[Any], Any]] = {
        "definition": hashes.__getitem__,
        "lane": lanes.__getitem__,
        "holder": lambda worker: None if worker is None else names.get(worker, "nobody"),
        "worker": names.__getitem__,
        **dict.fromkeys(NUMBERED, instances.__getitem__),
        "id": lambda name: ids.get(name, name),
        "event": events.__getitem__,
        "lease": lambda lease: None if lease is None else "one",
        "token": lambda token: "one",
    }

    def told(row: Row) -> Row:
        if "fence" in row:
            # The higher part is the number of the instance.
            row = row | {"fence": row["fence"] - (row["instance"] << 20)}
        return {name: meant.get(name, _same)(value) for name, value in row.items()}

    tables = {table: _rows(map(told, rows)) for table, rows in found.items()}
    used = {dict(row)["lane"] for row in tables["instances"]}
    tables["lanes"] = frozenset(row for row in tables["lanes"] if dict(row)["lane"] in used)
    known = {definition for definition, _ in used}
    tables["definitions"] = frozenset(
        row for row in tables["definitions"] if dict(row)["definition"] in known
    )
    return Picture(tables, ids)


def difference(left: Picture, right: Picture) -> str:
    """Where two pictures differ, row by row, for a reader."""
    found = []
    for name in TABLES:
        one, two = left.tables[name], right.tables[name]
        found += [f"{name} - {dict(row)}" for row in sorted(one - two, key=repr)]
        found += [f"{name} + {dict(row)}" for row in sorted(two - one, key=repr)]
    return "\n".join(found)


def _rows(rows: Iterable[Row]) -> Rows:
    """Rows as they can be compared; lists are tuples."""
    return frozenset(
        tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in row.items()
        )
        for row in rows
    )


def _places(numbers: Iterable[int]) -> dict[int, int]:
    return {number: place for place, number in enumerate(sorted(set(numbers)))}


def _told_ids(instances: Iterable[Row], items: Iterable[Row]) -> dict[str, str]:
    parents = {row["item"]: row["parent"] for row in items}
    told = {}
    for row in instances:
        if row["instance"] in parents:
            parent, _, tail = row["id"].rpartition("~")
            fence, _, rest = tail.partition(".")
            # As above.
            since = int(fence, 16) - (parents[row["instance"]] << 20)
            told[row["id"]] = f"{parent}~{since}.{rest}"
    return told


def _same(value: Any) -> Any:
    return value
