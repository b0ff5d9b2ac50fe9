"""Death at every fail point of the protocol: what was answered stays, and nothing is half done.

As `tests/sqlite/test_fail_points.py`, on a database. A walk through the protocol, at times of its
own, leaves one known state after each of its calls. A process that dies somewhere in its n-th call
must leave the state before that call or the one after it, to the last column of the last row; then
a fresh process brings everything to the right end. What the walk does not come to, because it
happens on the database's own time, or only when something goes wrong, is died at in other deeds;
begun anew, they must come to the end that they come to undisturbed.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.postgres.picture import TABLES, Picture, difference, take_picture
from tests.postgres.server import required
from tests.postgres.waiting import until
from tests.sqlite.orders import Nursery
from tests.sqlite.walk import oracle, parent_of

from sayiir import PostgresBackend
from sayiir._core import fail_points

POINTS = fail_points("postgres")
NAMES = list(dict.fromkeys(point.rpartition(".")[0] for point in POINTS))
CALLS = sorted({name.split(".")[0] for name in NAMES})
TIMES = (1, 6)
"""At which of its passages a point is died at; beyond the last passage the walk survives."""
AT_ONCE = 3
"""Databases, each with one process that dies."""
ENDED, CANCELLED = (4, 5, 6), (2, 4)
"""Numbers in the columns `status` and `asked`."""

DEEDS = {
    "take_over": ("lease.suspect", "lease.orphans"),
    "sweep": tuple(name for name in NAMES if name.startswith("sweep.")),
    "tell": (
        *("clock.read", "hint.listen", "hint.listener", "hint.others", "hint.tell", "hint.drop"),
        *("renew.alerted", "instance.ended", "claim.ready"),
    ),
    "lose": (
        *("claim.again", "submit.token", "event.token", "commit.done_before", "end.rollback"),
    ),
}
"""Where the statements are come to that the walk does not come to."""
NOT_REACHED: dict[str, str] = {}
"""Statements that no call of a user's can be made to come to at will, and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and a process that dies on it; used by one thread at a time."""

    nursery: Nursery
    url: str
    eye: psycopg.Connection[Any]

    def clear(self) -> None:
        """Begin again with an empty schema."""
        names = ", ".join(f"sayiir.{name}" for name in (*TABLES, "listeners"))
        self.eye.execute(f"TRUNCATE {names}".encode())

    def order(self, deed: str, log: Path, fail_at: str | None = None) -> int:
        """How a child ended that did this; the server has noticed that it is gone."""
        code = self.nursery.order(f"tests.postgres.deeds:{deed}", self.url, log, fail_at)
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        # What it had asked for before it died may still be under way.
        until(lambda: self.eye.execute(others).fetchone() == (0,), "the sessions of a child end")
        return code

    def picture(self) -> Picture:
        """What stands there now."""
        return take_picture(self.eye)


class Places:
    """Some databases, lent one by one."""

    def __init__(self, places: list[Place]) -> None:
        self.count = len(places)
        self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)

    @contextmanager
    def one(self) -> Iterator[Place]:
        """One that nobody else has."""
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all deaths have in common."""

    places: Places
    folder: Path
    states: list[Picture]
    """What stands there before the walk, and after each of its calls."""
    goals: dict[str, Picture]
    """What every other deed comes to."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("deaths")
    server = required(swift=True)
    with ExitStack() as stack:
        places = []
        for _ in range(AT_ONCE):
            url = server.fresh_database()
            asyncio.run(make_schema(url))
            eye = stack.enter_context(psycopg.connect(url, autocommit=True))
            nursery = stack.enter_context(Nursery("tests.postgres.deeds"))
            places.append(Place(nursery, url, eye))
        one = places[0]
        yield Ground(
            Places(places),
            folder,
            states_of_the_walk(one, folder),
            {deed: end_of(one, deed, folder / deed) for deed in DEEDS},
        )


async def make_schema(url: str) -> None:
    backend = PostgresBackend(url)
    await backend.migrate()
    await backend.close()


def states_of_the_walk(place: Place, folder: Path) -> list[Picture]:
    """Take the walk undisturbed, with a picture before it and after every call."""
    place.clear()
    first = place.picture()
    assert place.order("look", folder / "look") == 0
    return [first, *pickle.loads((folder / "look").read_bytes())]


def end_of(place: Place, deed: str, folder: Path) -> Picture:
    """What a deed comes to when nobody dies."""
    folder.mkdir()
    place.clear()
    assert place.order("prepare", folder / "prepare") == 0
    assert place.order(deed, folder / "log") == 0
    return place.picture().without_times()


def deed_of(point: str) -> str:
    """Where a point is come to."""
    name = point.rpartition(".")[0]
    return next((deed for deed, names in DEEDS.items() if name in names), "walk")


def die_walking(ground: Ground, place: Place, folder: Path, fail_at: str, *, go_on: bool) -> bool:
    """Let a child take the walk until it dies, and judge what it leaves; whether it died."""
    folder.mkdir()
    place.clear()
    code = place.order("walk", folder / "diary", fail_at)
    assert code in (0, -signal.SIGABRT), f"{fail_at}: {code}"
    diary = (folder / "diary").read_text().splitlines() if (folder / "diary").exists() else []
    begun = sum(line.startswith("begin ") for line in diary)
    answered = sum(line.startswith("ack ") for line in diary)
    assert answered in (begun, begun - 1)
    state, allowed = place.picture(), ground.states[answered : begun + 1]
    if state not in allowed and diary[-1].startswith("begin ") and "claim" in diary[-1]:
        state, allowed = state.during_a_claim(), [one.during_a_claim() for one in allowed]
    if state not in allowed:
        told = difference(allowed[0], state)
        pytest.fail(f"died at {fail_at} in call {diary[-1:]}; against the state before:\n{told}")
    if code != 0 and go_on:
        recover(place, folder / "report", fail_at)
    return code != 0


def recover(place: Place, report: Path, fail_at: str) -> None:
    """Let a fresh process finish the work, and hold it against the oracle."""
    picture = place.picture()
    before = picture.instances()
    assert place.order("recover", report) == 0, fail_at
    fates: dict[str, dict[str, Any]] = json.loads(report.read_text())
    found = {picture.ids.get(name, name): fate for name, fate in fates.items()}
    assert found.keys() == before.keys()
    after = place.picture()
    rows = after.instances()
    for name, fate in found.items():
        row = before[name]
        if row["status"] in ENDED:
            # Its number is told as a place, which hangs on the other rows.
            same = rows[name] | {"instance": row["instance"]}
            assert same == row, f"{fail_at}: {name} had ended and has changed"
        if fate["status"] == "cancelled":
            unwanted = found.get(parent_of(name), {}).get("status") in ("failed", "cancelled")
            assert row["asked"] in CANCELLED or unwanted, f"{fail_at}: nobody cancelled {name}"
            continue
        answer = oracle(fate["workflow"], fate["input"])
        wanted = "failed" if answer is None else "completed"
        assert (fate["status"], fate["output"]) == (wanted, answer), f"{fail_at}: {name}"
    assert [row["id"] for row in rows.values() if row["holder"] is not None] == [], fail_at
    assert after.tables["cells"] == frozenset(), fail_at


def die_doing(ground: Ground, place: Place, folder: Path, deed: str, fail_at: str) -> bool:
    """Let a child do something until it dies, and another one do it again; whether one died."""
    folder.mkdir()
    place.clear()
    assert place.order("prepare", folder / "prepare") == 0
    code = place.order(deed, folder / "log", fail_at)
    assert code in (0, -signal.SIGABRT), f"{fail_at}: {code}"
    if code != 0:
        assert place.order(deed, folder / "log") == 0, fail_at
    end = place.picture().without_times()
    assert end == ground.goals[deed], f"{fail_at}:\n{difference(ground.goals[deed], end)}"
    return code != 0


def test_every_statement_stands_in_a_call(ground: Ground) -> None:
    """The walk is long, and most of its calls leave another state than the one before."""
    assert len(POINTS) >= 30
    assert len(ground.states) > 100
    changes = sum(a != b for a, b in pairwise(ground.states))
    assert changes > 70
    assert set(NOT_REACHED) <= set(NAMES)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("call", CALLS)
def test_death_leaves_what_was_answered_and_nothing_half_done(
    ground: Ground, tmp_path: Path, call: str
) -> None:
    def die_at(point: str) -> None:
        deed = deed_of(point)
        with ground.places.one() as place:
            if deed != "walk":
                died = die_doing(ground, place, tmp_path / point, deed, point)
                assert died, f"{deed} does not come to {point}"
                return
            for number, passage in enumerate(TIMES):
                at = f"{point}:{passage}"
                if not die_walking(ground, place, tmp_path / at, at, go_on=number == 0):
                    assert number > 0, f"the walk does not come to {point}"
                    return

    names = (name for name in NAMES if name.split(".")[0] == call and name not in NOT_REACHED)
    points = [f"{name}.{side}" for name in names for side in ("before", "after")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(die_at, points))
