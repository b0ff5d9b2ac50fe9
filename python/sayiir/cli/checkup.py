"""What is wrong with a backend and what to do about it: measurements, and judgements of them.

`examine` asks a backend and measures; `problems_of` judges what was found and touches nothing, so
that every judgement can be tried on facts made up for it. Promises that the only thing ever written
is a probe which is gone again afterwards, and nothing at all when that was asked for. How it is
shown is not known here.
"""

import asyncio
import math
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Protocol, runtime_checkable

from sayiir import Flow, Status, WorkflowClient, __version__, _clock
from sayiir._submission import fresh_id
from sayiir.backends import Backend, Backlog, InstanceRow
from sayiir.backends._view import worker_name
from sayiir.cli.terminal import seconds, stamp

__all__ = ["Facts", "Problem", "StuckWork", "examine", "problems_of"]

PROBE = "sayiir-doctor-probe"
"""The name of the workflow that write latency is measured with."""
PROBES = 5
SLOW_WRITE_S = 0.1
SKEW_S = 60.0
"""So far may the clocks of a server and of this machine be apart, or a stored time ahead."""
WAITED_S = 600.0
"""So long may ready work have waited."""
DEAD_ROWS = 100_000
"""So many rows may wait for a vacuum, besides one for each instance."""
LITTLE_SPACE = 256 * 1024 * 1024
MUCH_WAL = 256 * 1024 * 1024
_LOOK_EVERY_S = 0.1
_PAGE = 1000
_MOST_PAGES = 20


@runtime_checkable
class Examinable(Protocol):
    """A backend that can say how it is."""

    async def doctor(self) -> dict[str, object]:
        """See `SqliteBackend.doctor`, `PostgresBackend.doctor`."""


@dataclass(frozen=True, slots=True)
class StuckWork:
    """Ready instances that nobody took while they were watched."""

    workflow: str
    definition_hash: str
    tags: tuple[str, ...]
    ready: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, and what to do about it."""

    problem: str
    suggestion: str


@dataclass(slots=True)
class Facts:
    """What was found. Times are seconds since 1970 UTC, sizes are bytes.

    >>> Facts().instances
    {}
    """

    version: str = __version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    backend: dict[str, Any] = field(default_factory=dict)
    """What the backend says of itself: file or server, size, schema, what may be wrong with it."""
    now: float | None = None
    """The backend's clock; `None` if the backend could not be opened."""
    newest: float | None = None
    """The newest time of creation or change that is stored."""
    workers: list[dict[str, Any]] = field(default_factory=list)
    """Who holds leases: `worker_id expires_at held`."""
    instances: dict[str, int] = field(default_factory=dict)
    """How many there are in each state."""
    stuck: list[StuckWork] = field(default_factory=list)
    free: int | None = None
    """What is free where the file is."""
    write_s: float | None = None
    """How long a small durable write takes; `None` if nothing was to be written."""

    def told(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        told = asdict(self)
        told["now"] = _stamp(self.now)
        told["newest"] = _stamp(self.newest)
        told["workers"] = [
            {**worker, "expires_at": _stamp(worker["expires_at"])} for worker in self.workers
        ]
        told["stuck"] = [{**asdict(one), "tags": list(one.tags)} for one in self.stuck]
        return told


async def examine(backend: Backend, patience_s: float, read_only: bool) -> Facts:
    """Ask a backend how it is.

    Args:
        backend: Open.
        patience_s: How long ready work is watched before it counts as stuck, in seconds.
        read_only: Write no probe.

    Raises:
        SayiirError: The backend cannot answer.
    """
    facts = Facts(now=backend.now())
    if isinstance(backend, Examinable):
        said = dict(await backend.doctor())
        facts.workers = _workers(said.pop("workers", []))
        facts.instances = _counts(said.pop("instances", {}))
        said.pop("definitions", None)
        facts.backend = said
        if isinstance(path := said.get("path"), str):
            facts.free = shutil.disk_usage(Path(path).parent).free
    else:
        rows = await _some_rows(backend)
        facts.backend = {"kind": type(backend).__name__}
        facts.instances = dict(Counter(str(row.status) for row in rows))
        held = Counter(row.worker_id for row in rows if row.worker_id is not None)
        facts.workers = [
            {"worker_id": worker_name(holder), "expires_at": None, "held": count}
            for holder, count in held.items()
        ]
    newest = await backend.find(limit=1)
    facts.newest = max((max(r.created_at, r.updated_at) for r in newest.rows), default=None)
    facts.stuck = await _stuck(backend, patience_s)
    if not read_only:
        facts.write_s = await _write_latency(backend)
    return facts


async def _stuck(backend: Backend, patience_s: float) -> list[StuckWork]:
    """Ready work of which nobody takes anything, and that no busy worker could come to."""
    waiting = {_key(one): one for one in await backend.backlog()}
    deadline = _clock.monotonic() + patience_s
    while waiting and _clock.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = {_key(one): one for one in await backend.backlog()}
        # Less of it than before: somebody takes it.
        waiting = {
            key: one for key, one in waiting.items() if key in now and now[key].ready >= one.ready
        }
    if not waiting:
        return []
    return [
        StuckWork(one.workflow_id, one.definition_hash, tuple(one.tags), one.ready)
        for one in waiting.values()
        if not await _served(backend, one)
    ]


async def _served(backend: Backend, waiting: Backlog) -> bool:
    """Whether somebody who could do this is merely busy, as far as can be seen."""
    cursor = None
    for _ in range(_MOST_PAGES):
        page = await backend.find(
            status=Status.IN_PROGRESS.value,
            workflow=waiting.workflow_id,
            limit=_PAGE,
            cursor=cursor,
        )
        for row in page.rows:
            # Whoever holds an instance has its definition, and offers what its step needs.
            same = row.definition_hash == waiting.definition_hash
            if same and row.worker_id is not None and set(waiting.tags) <= set(row.tags):
                return True
        cursor = page.cursor
        if cursor is None:
            return False
    # The queue is so long that it cannot be said; a false alarm would be worse.
    return True


def _key(one: Backlog) -> tuple[str, tuple[str, ...]]:
    return one.definition_hash, tuple(one.tags)


async def _write_latency(backend: Backend) -> float:
    """The median time of a durable write: a probe's submit or delete."""
    probe = Flow(PROBE).delay("never", "1h").build()
    # Not to be begun before it is gone: no worker sees it as work that it cannot do.
    later = datetime.fromtimestamp(backend.now() + 86_400, UTC)
    times: list[float] = []
    client = WorkflowClient(backend)
    try:
        for _ in range(PROBES):
            instance_id = f"{PROBE}-{fresh_id()}"
            began = _clock.monotonic()
            await client.submit(probe, instance_id, start_at=later)
            submitted = _clock.monotonic()
            await client.delete(instance_id, force=True)
            times += [submitted - began, _clock.monotonic() - submitted]
    finally:
        await client.close()
    return median(times)


async def _some_rows(backend: Backend) -> list[InstanceRow]:
    """All instances, or the newest of very many."""
    rows: list[InstanceRow] = []
    cursor = None
    for _ in range(_MOST_PAGES):
        page = await backend.find(limit=_PAGE, cursor=cursor)
        rows += page.rows
        cursor = page.cursor
        if cursor is None:
            break
    return rows


def _workers(said: object) -> list[dict[str, Any]]:
    assert isinstance(said, list)
    return [
        {
            "worker_id": worker_name(str(worker["worker_id"])),
            "expires_at": worker["expires_at"],
            "held": worker["held"],
        }
        for worker in said
    ]


def _counts(said: object) -> dict[str, int]:
    assert isinstance(said, dict)
    return {str(status): int(count) for status, count in said.items()}


def problems_of(facts: Facts) -> list[Problem]:
    """What is wrong, the worst first.

    >>> problems_of(Facts(now=1.8e9, write_s=0.5))[0].problem
    'a small durable write takes 500 ms'
    """
    found: list[Problem] = []
    for judge in _JUDGES:
        found += judge(facts)
    return found


def _integrity(facts: Facts) -> Iterable[Problem]:
    integrity = facts.backend.get("integrity", "ok")
    if integrity != "ok":
        yield Problem(
            f"the database is damaged: {integrity}",
            "stop the workers, copy the file and its -wal and -shm away, and restore a backup; "
            "what can still be read comes out with the .recover command of the sqlite3 shell",
        )


def _space(facts: Facts) -> Iterable[Problem]:
    if facts.free is not None and facts.free < LITTLE_SPACE:
        yield Problem(
            f"only {facts.free // 1024**2} MiB are free where the database is",
            "make room: writes fail, and work stops, when nothing is left",
        )
    wal = facts.backend.get("wal_bytes") or 0
    if wal > MUCH_WAL:
        yield Problem(
            f"the write-ahead log has grown to {wal // 1024**2} MiB",
            "something reads for a very long time and keeps it from being folded in: end that "
            "reader (a backup, an open shell)",
        )


def _journal(facts: Facts) -> Iterable[Problem]:
    mode = facts.backend.get("journal_mode")
    if mode is not None and str(mode).lower() != "wal":
        yield Problem(
            f"the journal mode is {mode}, not wal: readers and writers stop each other",
            "move the database to a local file system; network file systems cannot do better",
        )


def _time(facts: Facts) -> Iterable[Problem]:
    if facts.now is None:
        return
    if facts.now < datetime(2024, 1, 1, tzinfo=UTC).timestamp():
        yield Problem(
            f"the clock says {_stamp(facts.now)}, which cannot be",
            "set the clock: delays, leases and timeouts go by it",
        )
    elif facts.newest is not None and facts.newest > facts.now + SKEW_S:
        ahead = seconds(facts.newest - facts.now)
        yield Problem(
            f"the newest instance was written {ahead} in the future of this clock",
            "the clock was set back, or another machine's is ahead: have them kept by NTP",
        )


def _clocks(facts: Facts) -> Iterable[Problem]:
    skew = facts.backend.get("clock_skew")
    if skew is not None and abs(skew) > SKEW_S:
        yield Problem(
            f"the clocks of this machine and of the server are {seconds(abs(skew))} apart",
            "have both kept by NTP: leases and delays go by the server's, and what a program says "
            "of the time of day, as in delay_until and start_at, by its own machine's",
        )


def _vacuum(facts: Facts) -> Iterable[Problem]:
    dead = facts.backend.get("dead_rows")
    if dead is not None and dead > DEAD_ROWS + sum(facts.instances.values()):
        yield Problem(
            f"{dead} dead rows wait for a vacuum, so that every query takes longer",
            "look for what keeps autovacuum from them: the oldest transaction, a replication slot "
            "that nobody reads, a prepared transaction; then run VACUUM once",
        )


def _leases(facts: Facts) -> Iterable[Problem]:
    overdue = -math.inf if facts.now is None else facts.now - SKEW_S
    dead = [
        worker
        for worker in facts.workers
        if worker["expires_at"] is not None and worker["expires_at"] < overdue
    ]
    held = sum(worker["held"] for worker in dead)
    if held:
        names = _some(worker["worker_id"] for worker in dead)
        yield Problem(
            f"{held} instances are held by workers that have not been heard of for a minute: "
            f"{names}",
            "start a worker that has their workflows; it takes them over",
        )


def _work(facts: Facts) -> Iterable[Problem]:
    for stuck in facts.stuck:
        needs = f" that offers the tags {', '.join(stuck.tags)}" if stuck.tags else ""
        yield Problem(
            f"{stuck.ready} ready instances of workflow {stuck.workflow!r} (definition "
            f"{stuck.definition_hash[:12]}) are taken by no worker",
            f"start a worker that has this definition{needs}: sayiir worker module:attribute; a "
            "workflow whose structure was changed has another definition",
        )


def _waiting(facts: Facts) -> Iterable[Problem]:
    age = facts.backend.get("ready_oldest_age")
    # Work that nobody takes at all is told of by `_work`.
    if age is not None and age > WAITED_S and not facts.stuck:
        yield Problem(
            f"the oldest ready instance has waited for {seconds(age)}",
            "more comes than is done: start more workers, or give them more --concurrency",
        )


def _speed(facts: Facts) -> Iterable[Problem]:
    if facts.write_s is not None and facts.write_s > SLOW_WRITE_S:
        yield Problem(
            f"a small durable write takes {seconds(facts.write_s)}",
            "look at the way to the server, at its disk, and at what else runs on it"
            if "server" in facts.backend
            else "look at what else uses this disk; a faster one helps, and synchronous=normal in "
            "the URL if the last moments before a power cut may be lost",
        )


_JUDGES: Sequence[Callable[[Facts], Iterable[Problem]]] = (
    *(_integrity, _space, _time, _clocks, _journal, _leases, _work, _waiting, _vacuum, _speed),
)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _stamp(at: float | None) -> str | None:
    if at is None:
        return None
    try:
        return stamp(datetime.fromtimestamp(at, UTC))
    except (OverflowError, ValueError):
        # A clock, or a row, may say anything; that is what is to be found out.
        return f"{at:g} s since 1970"
