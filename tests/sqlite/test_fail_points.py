"""Death at every fail point of the protocol: what was answered stays, and nothing is half done.

A walk through all calls leaves the file in one known state after each of them. A process that dies
somewhere in its n-th call must leave the state before that call or the one after it, to the last
column of the last row; then a fresh process opens the file and brings everything to the right end.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sayiir._core import fail_points

from .orders import Nursery
from .picture import Picture, difference, opened, take_picture
from .walk import SPOILED, oracle, parent_of

POINTS = fail_points()
CALLS = sorted({point.split(".")[0] for point in POINTS})
TIMES = (1, 4, 16, 64, 128)
"""At which of its passages a point is died at; beyond the last passage the walk survives."""
ON_MACHINE_TIME = {"lease.due", "lease.suspect", "lease.orphans"}
"""Statements that the walk, whose time is its own, does not come to; taking over does."""
ONCE_A_SECOND = ("log.", "lease.orphans")
RECOVERED = 1
"""So many deaths at each point are followed by a recovery; all of them are looked at."""
ENDED, CANCELLED = (4, 5, 6), (2, 4)
"""Numbers in the columns `status` and `asked`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all deaths have in common."""

    nurseries: tuple[Nursery, ...]
    base: Path
    """The file that every walk begins with."""
    files: list[Path]
    """That file after each call of the walk."""
    states: list[Picture]
    """What stands in each of these."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("walk")
    base = folder / "base.db"
    with Nursery() as one, Nursery() as two:
        assert one.order("prepare", base, folder / "prepare") == 0
        walked = folder / "walked" / base.name
        walked.parent.mkdir()
        shutil.copyfile(base, walked)
        assert one.order("look", walked, walked.parent / "diary") == 0
        calls = int((walked.parent / "diary").read_text().split()[-2])
        files = [base]
        files += [walked.parent / str(number) / base.name for number in range(1, calls + 1)]
        yield Ground((one, two), base, files, [take_picture(file) for file in files])
    shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class Death:
    """One child's end."""

    fail_at: str
    died: bool
    state: Picture


def die_taking_over(ground: Ground, nursery: Nursery, folder: Path, fail_at: str) -> Death:
    """Let one child take work over from a dead worker until it dies; it has changed no work yet."""
    folder.mkdir()
    path = folder / "store.db"
    shutil.copyfile(ground.base, path)
    code = nursery.order("take_over", path, folder / "diary", fail_at)
    assert code in (0, -signal.SIGABRT), f"{fail_at}: {code}"
    state = take_picture(path)
    if code != 0:
        before = ground.states[0].digests
        assert state.digests | {"workers": ""} == before | {"workers": ""}, fail_at
    return Death(fail_at, code != 0, state)


def die(ground: Ground, nursery: Nursery, folder: Path, fail_at: str) -> Death:
    """Let one child take the walk until it dies, and look at what it leaves."""
    folder.mkdir()
    path = folder / "store.db"
    shutil.copyfile(ground.base, path)
    code = nursery.order("walk", path, folder / "diary", fail_at)
    assert code in (0, -signal.SIGABRT), f"{fail_at}: {code}"
    diary = (folder / "diary").read_text().splitlines() if (folder / "diary").exists() else []
    begun = sum(line.startswith("begin ") for line in diary)
    answered = sum(line.startswith("ack ") for line in diary)
    assert answered in (begun, begun - 1)
    state = take_picture(path)
    if state not in ground.states[answered : begun + 1]:
        told = difference(ground.files[answered], path)
        pytest.fail(f"died at {fail_at} in call {diary[-1:]}; against the state before:\n{told}")
    return Death(fail_at, code != 0, state)


def recover(nursery: Nursery, folder: Path, death: Death) -> None:
    """Let a fresh process finish the work, and hold it against the oracle."""
    path, report = folder / "store.db", folder / "report"
    assert nursery.order("recover", path, report) == 0, death.fail_at
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    column = death.state.column
    before = {column(row, "id"): row for row in death.state.instances}
    before.pop(SPOILED, None)
    assert found.keys() == before.keys()
    after = take_picture(path)
    rows = {column(row, "id"): row for row in after.instances}
    for name, fate in found.items():
        row = before[name]
        if column(row, "status") in ENDED:
            assert rows[name] == row, f"{death.fail_at}: {name} had ended and has changed"
        if fate["status"] == "cancelled":
            unwanted = found.get(parent_of(name), {}).get("status") in ("failed", "cancelled")
            asked = column(row, "asked") in CANCELLED
            assert asked or unwanted, f"{death.fail_at}: nobody cancelled {name}"
            continue
        answer = oracle(fate["workflow"], fate["input"])
        wanted = "failed" if answer is None else "completed"
        assert (fate["status"], fate["output"]) == (wanted, answer), f"{death.fail_at}: {name}"
    with opened(path) as connection:
        held = connection.execute("SELECT id FROM instances WHERE holder IS NOT NULL").fetchall()
        assert held == [], death.fail_at
        for table in ("cells", "garbage"):
            assert connection.execute(f"SELECT * FROM {table}").fetchall() == [], death.fail_at


def test_every_statement_stands_in_a_call_of_the_walk(ground: Ground) -> None:
    """The walk is long, every call of it that writes leaves another state than the one before."""
    assert len(POINTS) >= 30
    assert len(ground.states) > 150
    changes = sum(a != b for a, b in pairwise(ground.states))
    assert changes > 100


@pytest.mark.parametrize("call", CALLS)
def test_death_leaves_what_was_answered_and_nothing_half_done(
    ground: Ground, tmp_path: Path, call: str
) -> None:
    points = [point for point in POINTS if point.split(".")[0] == call]

    def all_deaths(part: int) -> None:
        nursery = ground.nurseries[part]
        for point in points[part::2]:
            for number, time in enumerate(TIMES):
                folder = tmp_path / f"{point}-{time}"
                abroad = point.rpartition(".")[0] in ON_MACHINE_TIME
                dying = die_taking_over if abroad else die
                death = dying(ground, nursery, folder, f"{point}:{time}")
                if not death.died:
                    assert number > 0, f"the walk does not come to {point}"
                    break
                if number < RECOVERED:
                    recover(nursery, folder, death)
                shutil.rmtree(folder)
                if point.startswith(ONCE_A_SECOND):
                    break

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(all_deaths, (0, 1)))
