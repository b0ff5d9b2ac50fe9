"""What a client may expect of instances, as a dictionary: the model of `test_model.py`.

It says for every call what the answer is and what is true afterwards, in the words of a user: flows
are short lists of nodes, time is a number that is set from outside. It promises to be simple enough
to be believed by reading, and asks no backend and no engine anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sayiir import EventTimeout

AGEING = 30.0
TTL = 30.0
WEEK = 7 * 86_400.0
ENDED = ("completed", "failed", "cancelled")
PARKED = ("waiting", "awaiting_signal")


class RefusedError(Exception):
    """The call is refused: the class of the error and the state it names."""


@dataclass(frozen=True)
class Node:
    """A task (or several at once), a delay, or a wait for the event `go`."""

    kind: str
    names: tuple[str, ...]
    seconds: float | None = None
    """Of a delay, of a wait's timeout, of the backoff before a task's only retry."""


TASK, FORK, DELAY, WAIT = "task", "fork", "delay", "wait"
FLOWS: dict[str, tuple[Node, ...]] = {
    "tour": (
        Node(TASK, ("first",), 10.0),
        Node(DELAY, ("rest",), 100.0),
        Node(WAIT, ("door",)),
        Node(TASK, ("last",)),
    ),
    "patient": (Node(WAIT, ("one",), 50.0), Node(WAIT, ("two",)), Node(TASK, ("last",))),
    "pair": (Node(FORK, ("left", "right")), Node(TASK, ("join",))),
}
PRIORITIES = {"tour": 1, "patient": 3, "pair": 3}


@dataclass
class Asked:
    """A cancel or a pause."""

    cancel: bool
    reason: str | None
    by: str | None
    pending: bool = True
    resume: str = ""


@dataclass
class Record:
    """What is true of one instance."""

    instance_id: str
    flow: str
    number: int
    created: float
    value: Any
    """What the next node receives."""
    status: str = "in_progress"
    start_at: float | None = None
    wake_at: float | None = None
    parked: Node | None = None
    at: int = 0
    attempt: int = 0
    branches: dict[str, Any] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    worker: str | None = None
    fence: int = 0
    asked: Asked | None = None
    events: list[Any] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    history: list[tuple[str, int, str]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    @property
    def node(self) -> Node | None:
        """Where it stands; `None` at the end."""
        nodes = FLOWS[self.flow]
        return nodes[self.at] if self.at < len(nodes) else None

    @property
    def pending(self) -> Asked | None:
        """A request that waits for the holder."""
        return self.asked if self.asked is not None and self.asked.pending else None

    @property
    def order(self) -> tuple[float, int]:
        """The smallest is claimed first."""
        since = max(self.created, self.start_at or 0.0)
        return since + (PRIORITIES[self.flow] - 1) * AGEING, self.number


class Model:
    """All instances, all leases and the time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.records: dict[str, Record] = {}
        self.early: dict[str, list[tuple[float, Any, str | None]]] = {}
        self.leases: dict[str, float] = {}
        self.count = 0

    # Calls of a client.

    def submit(
        self, instance_id: str, flow: str, policy: str, value: Any, start_at: float | None = None
    ) -> str:
        """Create it or not; the status that the handle shows."""
        self.forget_early()
        old = self.records.get(instance_id)
        if old is not None and policy != "terminate_existing":
            if old.flow != flow:
                raise RefusedError("DefinitionMismatchError", None)
            if policy == "fail":
                raise RefusedError("InstanceAlreadyExistsError", None)
            return old.status
        self.count += 1
        new = Record(instance_id, flow, self.count, self.now(), value, start_at=start_at)
        if start_at is not None and start_at > self.now():
            new.status, new.wake_at = "waiting", start_at
        for _, payload, key in self.early.pop(instance_id, []):
            self.push(new, payload, key)
        self.records[instance_id] = new
        return new.status

    def find(self, instance_id: str) -> Record:
        """The record. Raises `RefusedError`."""
        if instance_id not in self.records:
            raise RefusedError("InstanceNotFoundError", None)
        return self.records[instance_id]

    def request(self, instance_id: str, cancel: bool, reason: str, by: str) -> None:
        """A cancel or a pause."""
        one = self.find(instance_id)
        if one.status == ("cancelled" if cancel else "paused"):
            return
        if one.status in ENDED:
            raise RefusedError("InvalidStateError", one.status)
        if one.pending is None or (cancel and not one.pending.cancel):
            one.asked = Asked(cancel, reason, by)
            if one.worker is None:
                self.take_effect(one)

    def unpause(self, instance_id: str) -> None:
        """Back to where it was."""
        one = self.find(instance_id)
        asked = one.asked
        if asked is None or asked.cancel:
            raise RefusedError("InvalidStateError", one.status)
        one.asked = None
        if not asked.pending:
            one.status = asked.resume
            self.wake(one)

    def send(self, instance_id: str, payload: Any, key: str | None) -> None:
        """An event of the name `go`."""
        one = self.records.get(instance_id)
        if one is None:
            self.forget_early()
            early = self.early.setdefault(instance_id, [])
            if key is None or key not in {known for _, _, known in early}:
                early.append((self.now(), payload, key))
            return
        if one.status in ENDED:
            raise RefusedError("InvalidStateError", one.status)
        self.push(one, payload, key)
        if one.parked is not None and one.parked.kind == WAIT:
            self.wake(one)

    def push(self, one: Record, payload: Any, key: str | None) -> None:
        """Buffer an event whose key is new."""
        if key is None or key not in one.keys:
            one.events.append(payload)
            one.keys |= {key} if key is not None else set()

    def forget_early(self) -> None:
        """Events for an instance that never came are kept for a week."""
        for instance_id, early in list(self.early.items()):
            self.early[instance_id] = [one for one in early if one[0] + WEEK > self.now()]

    def delete(self, instance_id: str, force: bool) -> None:
        """Remove it."""
        one = self.find(instance_id)
        if one.status not in ENDED and not force:
            raise RefusedError("InvalidStateError", one.status)
        del self.records[instance_id]

    # Workers.

    def claim(self, worker: str) -> Record | None:
        """The instance that a worker gets now."""
        for one in self.records.values():
            if one.wake_at is not None and one.wake_at <= self.now():
                self.wake(one)
        ready = [
            one
            for one in self.records.values()
            if one.status == "in_progress" and one.worker is None
        ]
        if not ready:
            return None
        one = min(ready, key=lambda record: record.order)
        self.renew(worker)
        self.count += 1
        one.worker, one.fence, one.wake_at = worker, self.count, None
        parked, one.parked = one.parked, None
        if parked is not None and parked.kind == DELAY:
            one.history.append(("rest", 1, "elapsed"))
            one.at += 1
        elif parked is not None and parked.kind == WAIT:
            self.receive(one, parked)
        self.go_on(one, committed=parked is not None and parked.kind != TASK)
        return one

    def renew(self, worker: str) -> None:
        """A sign of life: its leases last for their whole length again."""
        self.leases[worker] = self.now() + TTL

    def release(self, worker: str) -> int:
        """A worker gives everything back; how much it was."""
        self.leases.pop(worker, None)
        return sum(self.let_go(one) for one in self.records.values() if one.worker == worker)

    def expire(self) -> None:
        """Leases that were not renewed end; call it whenever time has passed."""
        for worker, until in list(self.leases.items()):
            if until <= self.now():
                self.release(worker)

    def complete(self, one: Record, name: str, value: Any) -> None:
        """A step returned."""
        one.running.remove(name)
        one.history.append((name, one.attempt + 1, "completed"))
        one.outputs[name] = value
        one.attempt = 0
        node = one.node
        assert node is not None
        if node.kind == FORK:
            one.branches[name] = value
            if len(one.branches) < len(node.names):
                pending = one.pending
                if pending is not None and pending.cancel:
                    self.let_go(one)
                return
            # Branches come in the order of the definition, whichever ended first.
            value = {branch: one.branches[branch] for branch in node.names}
        one.value = value
        one.at += 1
        self.go_on(one, committed=True)

    def fail(self, one: Record, name: str) -> None:
        """A step raised."""
        one.attempt += 1
        node = one.node
        assert node is not None
        if node.seconds is not None and one.attempt == 1:
            one.history.append((name, 1, "retried"))
            self.park(one, node, "waiting", self.now() + node.seconds)
        else:
            one.history.append((name, one.attempt, "failed"))
            self.finish(one, "failed")

    # How it goes on.

    def go_on(self, one: Record, *, committed: bool) -> None:
        """Advance a held instance until it runs steps, parks or ends."""
        while (node := one.node) is not None:
            if node.kind in (TASK, FORK):
                if committed and one.pending is not None:
                    self.let_go(one)
                else:
                    one.running = [name for name in node.names if name not in one.branches]
                return
            until = None if node.seconds is None else self.now() + node.seconds
            if node.kind == DELAY or one.pending is not None or not one.events:
                status = "waiting" if node.kind == DELAY else "awaiting_signal"
                self.park(one, node, status, until)
                return
            self.receive(one, node)
            committed = True
        one.output = one.value
        self.finish(one, "completed")

    def receive(self, one: Record, node: Node) -> None:
        """A wait ends, with an event or without."""
        outcome = "completed" if one.events else "elapsed"
        one.value = one.events.pop(0) if one.events else EventTimeout("go")
        one.history.append((node.names[0], 1, outcome))
        one.outputs[node.names[0]] = one.value
        one.at += 1

    def park(self, one: Record, node: Node, status: str, wake_at: float | None) -> None:
        """Wait without a worker."""
        one.status, one.parked, one.wake_at = status, node, wake_at
        self.let_go(one)

    def let_go(self, one: Record) -> int:
        """The lease ends, and what was asked takes effect."""
        one.worker, one.running = None, []
        if one.pending is not None:
            self.take_effect(one)
        else:
            self.wake(one)
        return 1

    def take_effect(self, one: Record) -> None:
        """A cancel or a pause happens."""
        asked = one.asked
        assert asked is not None
        asked.pending = False
        if asked.cancel:
            self.finish(one, "cancelled")
        else:
            asked.resume, one.status = one.status, "paused"

    def finish(self, one: Record, status: str) -> None:
        """It is over."""
        if status != "cancelled":
            one.asked = None
        one.status, one.parked, one.wake_at = status, None, None
        one.worker, one.running, one.events = None, [], []

    def wake(self, one: Record) -> None:
        """Ready again, if its time or its event has come."""
        due = one.wake_at is not None and one.wake_at <= self.now()
        waits = one.parked is not None and one.parked.kind == WAIT
        if one.status in PARKED and (due or (waits and one.events)):
            one.status = "in_progress"
