"""The simulator: a world in one thread, moved by a virtual clock and one seed.

Several workers drive random flows on one store. What happens next is drawn from the seed: a claim,
the end of a running step, a commit, the taking up of its reply, a crash between any two of these, a
long sleep with leases in hand, news that are stale when they arrive, a jump of the clock, an event,
a cancel, a pause. Workers' own clocks may be wrong by an hour; the store's never is. A claim is
taken up in every way there is: inside of Rust, with what it brought along or by asking for that,
and with commits that go through the worker or straight to a storage thread. After that comes the
*drain*: healthy workers and the clock take everything to its end, and the books are read.

Promises that a seed decides everything: `simulate(seed)` gives the same trace each time. Refuses to
know what the outcome should be (`oracle`) and what is forbidden on the way (`books`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from sayiir import InstanceNotFoundError, RetryAfter
from sayiir._codec import decode_payload
from sayiir._core import Claimant, MemoryStore, Program, Run, Step, Turn

from .books import MICROSECOND, TERMINAL, Book, Tenure, Violation, parent_of
from .flows import Made, Pace, make_flow
from .oracle import item_blocks
from .stores import Shared, Store, memory_store
from .worker import Answer, Held, Worker, call, here

HOUR = 3_600.0
LEASE_TTL = 30.0
ACTIONS = 220
DRAIN_ROUNDS = 3_000
"""Far more than any flow needs; a drain that uses them up is stuck."""


@dataclass(eq=False, slots=True)
class World:
    """Everything there is in one simulation."""

    seed: int
    rng: Random
    now: float
    store: Store
    flows: list[Made]
    books: dict[str, Book]
    skewed: bool
    skews: dict[str, float] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    deadlines: dict[str, float] = field(default_factory=dict)
    """When the leases of each name run out unless it renews, by the clock of the world."""
    items: dict[str, Made] = field(default_factory=dict)
    """What the items of spread maps run, by name."""
    twins: set[str] = field(default_factory=set)
    """Names that two workers have had at the same time."""
    tenures: list[Tenure] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    made_workers: int = 0
    draining: bool = False

    @classmethod
    def of(cls, seed: int, make_store: Callable[[], Store] = memory_store) -> World:
        """The world as this seed begins it, on a store of its own."""
        rng = Random(seed)
        pace = Pace()
        flows = [make_flow(rng, f"flow{n}", pace) for n in range(rng.randint(1, 2))]
        world = cls(seed, rng, pace.epoch, make_store(), flows, {}, rng.random() < 0.3)
        for made in flows:
            for name, block in item_blocks(made.name, made.block):
                world.items[name] = Made(name, block, made.workflow)
        for n in range(rng.randint(1, 3)):
            made = rng.choice(flows)
            given: Any = rng.choice([n, [n], None, {"order": n}])
            world.books[f"i{n}"] = Book(f"i{n}", made, given, world.skews)
        for _ in range(rng.randint(1, 4)):
            world.hire()
        return world

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now - 1.7e9:.6f} {text}")

    # The population.

    def hire(self, *, healthy: bool = False, name: str | None = None) -> Worker:
        """A worker that knows every flow."""
        rng = self.rng
        if name is None:
            name = f"w{self.made_workers}"
            self.made_workers += 1
            wrong = self.skewed and not healthy and rng.random() < 0.7
            self.skews[name] = rng.choice([-HOUR, HOUR, -0.25, 40.0]) if wrong else 0.0
        tags = None if healthy or rng.random() < 0.5 else rng.choice([["gpu"], ["eu"], []])
        programs: list[Program] = [made.workflow.program for made in self.flows]
        width = 64 if healthy else rng.choice([1, 2, 8, 64])
        claimant = Claimant(name, programs, tags=tags, lease_ttl=LEASE_TTL, width=width)
        worker = Worker(name, self.skews[name], claimant)
        self.workers.append(worker)
        self.say(f"hire {name} tags={tags} width={width} skew={worker.skew:g}")
        return worker

    def clock(self, worker: Worker) -> float:
        """What the worker takes for the time."""
        return self.now + worker.skew

    def pass_time(self, to: float) -> None:
        """The clock jumps; leases of workers that were not renewed are over."""
        to = max(to, self.now)
        for worker in self.workers:
            # Most workers renew all the time; some are kept from it by what they run.
            if worker.asleep_until <= self.now and (self.draining or self.rng.random() < 0.85):
                self.renew(worker, LEASE_TTL + to - self.now)
        self.now = to
        self.say("clock")
        for tenure in self.tenures:
            # The store counts in whole microseconds.
            if self.deadlines[tenure.worker] <= self.now + 2 * MICROSECOND:
                tenure.expired = True
        self.tenures = [tenure for tenure in self.tenures if tenure.intact]

    def renew(self, worker: Worker, lease_ttl: float = LEASE_TTL) -> list[str]:
        """The worker prolongs its leases; what was asked of its instances."""
        pending = sorted(self.store.renew(worker.name, lease_ttl, self.now))
        deadline = self.deadlines.get(worker.name, 0.0)
        # What has run out already may or may not come back; the books expect neither.
        if deadline > self.now:
            self.deadlines[worker.name] = max(deadline, self.now + lease_ttl)
        return pending

    # What a worker does, one call at a time.

    def claim(self, worker: Worker) -> bool:
        """Ask for work in one of the two ways there are."""
        # On the way inside of Rust every call is one to the store too, and has the store's clock.
        native = self.rng.random() < 0.4 and worker.skew == 0.0
        if isinstance(self.store, MemoryStore) and native:
            run = self.store.claim_run(worker.claimant, self.now)
            found = [] if run is None else [self._take(worker, run.instance_id, run.fence)]
            for held in found:
                held.run, held.native = run, True
                held.news = (False, False, False, [])
        else:
            claims = self.store.claim(worker.claimant, self.rng.randint(1, 3), self.now)
            found = []
            for claim in claims:
                held = self._take(worker, claim.instance_id, claim.fence)
                held.claim = claim
                found.append(held)
        worker.held.extend(found)
        if found:
            deadline = self.deadlines.get(worker.name, 0.0)
            self.deadlines[worker.name] = max(deadline, self.now + LEASE_TTL)
        names = [f"{held.book.instance_id}/{held.tenure.fence}" for held in found]
        if found:
            self.say(f"{worker.name} claims{' natively' if native else ''} {names}")
        return bool(found)

    def _take(self, worker: Worker, instance_id: str, fence: int) -> Held:
        tenure = self.book_of(instance_id).claimed(fence, worker.name)
        self.tenures.append(tenure)
        return Held(tenure, None)

    def book_of(self, instance_id: str) -> Book:
        """The book of an instance; that of an item is begun when it is first seen."""
        if instance_id not in self.books:
            fields = self.store.get(instance_id, self.now)
            made = self.items[fields["workflow_id"]]
            given = decode_payload(self.store.input(instance_id))
            book = Book(instance_id, made, given, self.skews)
            book.submitted_at = fields["created_at"]
            book.belong_to(self.books[parent_of(instance_id)])
            self.books[instance_id] = book
        return self.books[instance_id]

    def open(self, worker: Worker, held: Held) -> None:
        """Load what the claim refers to and look for news; both may be old when they are used."""
        claim = held.claim
        if claim is None:
            raise Violation("a claim was opened twice")
        if self.line_breaks():
            self.break_off(worker, held)
            return
        if claim.complete:
            held.claim = None
            now = self.clock(worker)
            if isinstance(self.store, Shared) and worker.skew == 0.0 and claim.fence % 2:
                run = self.store.carried(worker.claimant, claim, now)
            else:
                run = Run.carried(worker.claimant, claim, now)
            held.run = run
            self.act(worker, held, "begins with what it was given of", lambda: run.begin(now))
            return
        try:
            rows = self.store.rows(claim.instance_id, claim.referenced())
            sealed = self.store.input(claim.instance_id)
        except InstanceNotFoundError:
            self.drop(worker, held)
            return
        held.claim = None
        held.run = Run(worker.claimant, claim, rows, sealed, self.clock(worker))
        self.look(worker, held)

    def look(self, worker: Worker, held: Held) -> None:
        """Fetch news; they are attended to by a later call."""
        run = held.run
        if run is None:
            return
        if held.native:
            held.news = (False, False, False, [])
            return
        held.news = self.store.news(run.instance_id, run.fence, run.awaits(), self.now)
        lost, cancel, pause, events = held.news
        if lost and held.tenure.intact:
            raise held.book.fail(f"{worker.name} was told that its good lease is lost")
        self.say(
            f"{worker.name} news of {run.instance_id}: {lost=} {cancel=} {pause=} "
            f"{[seq for seq, _, _ in events]}"
        )

    def attend(self, worker: Worker, held: Held) -> None:
        """Attend to the news, or to the time alone."""
        run, news = held.run, held.news
        if run is None or news is None:
            return
        held.news = None
        lost, cancel, pause, events = news
        now = self.clock(worker)
        self.act(
            worker,
            held,
            "attends to",
            lambda: run.attend(now, lost=lost, cancel=cancel, pause=pause, events=events),
        )

    def ask_for_ends(self, worker: Worker, held: Held) -> None:
        """Find out how the items of groups ended that are over; it is told by a later call."""
        if self.line_breaks():
            self.break_off(worker, held)
            return
        name, groups = held.book.instance_id, sorted(held.gathering)
        try:
            held.ends = [(group, list(self.store.items(name, group))) for group in groups]
        except InstanceNotFoundError:
            self.drop(worker, held)
            return
        self.say(f"{worker.name} asks for the ends of {name}: {groups}")

    def tell_ends(self, worker: Worker, held: Held) -> None:
        """Tell the run how the items ended."""
        run, ends = held.run, held.ends
        if run is None or ends is None:
            return
        held.gathering -= {group for group, _ in ends}
        held.ends = None
        now = self.clock(worker)
        counts = [(group, len(items)) for group, items in ends]
        verb = f"gathers {counts} for"
        self.act(worker, held, verb, lambda: run.gathered(ends, now))

    def write(self, worker: Worker, held: Held) -> None:
        """Hand the commit to the store."""
        commit, book, tenure = held.commit, held.book, held.tenure
        if commit is None:
            return
        held.commit = None
        breaks = self.line_breaks()
        if breaks and self.rng.random() < 0.5:
            self.break_off(worker, held)
            return
        kind, events = self.store.commit(commit, self.now)
        held.reply = (kind, events)
        self.say(
            f"{worker.name} writes {book.instance_id}/{tenure.fence} {commit.next}"
            f"{' quiescent' if commit.quiescent else ''}: {kind} {[seq for seq, _, _ in events]}"
        )
        self.written(worker, held, kind, commit.next)
        if breaks and kind != "lease_lost" and not held.gone:
            self.break_off(worker, held)

    def land(self, worker: Worker, held: Held, ticket: int) -> None:
        """Learn what became of a commit that a run has handed to the store by itself."""
        book, tenure = held.book, held.tenure
        if held.commit is not None or held.reply is not None:
            raise book.fail("a second commit was handed over before the first one was answered")
        assert isinstance(self.store, Shared)
        kind, events = held.reply = self.store.landed(ticket)
        self.say(
            f"{worker.name} handed over {book.instance_id}/{tenure.fence}: {kind} "
            f"{[seq for seq, _, _ in events]}"
        )
        fields = {} if kind == "lease_lost" else self.store.get(book.instance_id, self.now)
        if fields.get("status") in ("completed", "failed"):
            self.written(worker, held, kind, fields["status"])
        else:
            self.written(worker, held, kind, "hold" if fields.get("worker_id") else "park")

    def written(self, worker: Worker, held: Held, kind: str, what: str) -> None:
        """Check the answer to a commit, and note what it changed."""
        book, tenure = held.book, held.tenure
        if kind == "lease_lost":
            if tenure.intact:
                raise book.fail(f"{worker.name} holds it, and its commit was refused")
            return
        if book.tenure is not tenure or tenure.given_back:
            raise book.fail(f"a late commit under fence {tenure.fence} was answered with {kind}")
        self.wrote(tenure)
        if kind == "ok" and what in ("park", "hand_over", "completed", "failed"):
            tenure.given_back = True
        if kind in ("cancelled", "paused"):
            tenure.given_back = True
            book.paused = book.paused or kind == "paused"
            book.cancel_applied = book.cancel_applied or kind == "cancelled"
        if kind == "ok" and what not in ("completed", "failed") and book.cancel_asked:
            raise book.fail("a cancel is pending, and a commit that goes on was answered with ok")
        self.look_for_end(book)

    def line_breaks(self) -> bool:
        """Whether a call to the store fails, before or after it took effect."""
        return not self.draining and self.rng.random() < 0.02

    def break_off(self, worker: Worker, held: Held) -> None:
        """The worker got no answer: it lets the instance be, and has its lease to give back."""
        self.say(f"{worker.name} gets no answer about {held.book.instance_id}/{held.tenure.fence}")
        self.drop(worker, held)
        worker.broken.append(held)

    def give_back(self, worker: Worker) -> None:
        """The worker gives back one lease that it cannot use."""
        tenure = worker.broken.pop(0).tenure
        given = self.store.give_back(tenure.book.instance_id, tenure.fence, self.now)
        self.say(f"{worker.name} gives back {tenure.book.instance_id}/{tenure.fence}: {given}")
        if given != tenure.intact and not (given and self.may_still_hold(tenure)):
            raise tenure.book.fail(f"giving back fence {tenure.fence} was answered with {given}")
        tenure.expired = True

    def may_still_hold(self, tenure: Tenure) -> bool:
        """Whether the lease has run out without anybody having noticed yet."""
        return tenure.book.tenure is tenure and not tenure.given_back

    def take_up(self, worker: Worker, held: Held) -> None:
        """Take up the store's reply."""
        run, reply = held.run, held.reply
        if run is None or reply is None:
            return
        held.reply = None
        kind, events = reply
        now = self.clock(worker)
        self.act(worker, held, f"takes up {kind} for", lambda: run.committed(kind, events, now))

    def finish(self, worker: Worker, held: Held, step: Step) -> None:
        """A running body returns or raises."""
        held.running.remove(step)
        self.report(worker, held, step)

    def finish_in_vain(self, worker: Worker, held: Held) -> None:
        """A body ends whose outcome nobody wants any more."""
        self.report(worker, held, held.unwanted.pop(0))

    def report(self, worker: Worker, held: Held, step: Step) -> None:
        run = held.run
        if run is None:
            return
        now = self.clock(worker)
        what = f"{step.path} attempt {step.attempt} of"
        try:
            value = call(step)
        except Exception as error:
            allowed = step.task.is_retryable(error)
            wait = error.seconds if isinstance(error, RetryAfter) else None
            name, text, unit = type(error).__name__, str(error), self.rng.random()
            self.act(
                worker,
                held,
                f"fails {what}",
                lambda: run.failed(step, name, text, "", [], allowed, wait, unit, now),
            )
        else:
            self.act(worker, held, f"ends {what}", lambda: run.completed(step, value, now))

    def interrupt(self, worker: Worker, held: Held, step: Step) -> None:
        """The worker stops a body before its end."""
        run = held.run
        if run is None:
            return
        held.running.remove(step)
        held.tenure.interrupted.add((step.path, step.attempt))
        now = self.clock(worker)
        self.act(worker, held, f"stops {step.path} of", lambda: run.interrupted(step, now))

    def act(self, worker: Worker, held: Held, verb: str, call: Callable[[], Answer]) -> None:
        """One call of a run, and everything that its answer asks for."""
        book, tenure = held.book, held.tenure
        fresh = book.tenure is tenure and not tenure.given_back
        answer = call()
        if answer is None:
            raise book.fail("the run had nothing to begin with")
        turn = answer if isinstance(answer, Turn) else None
        ticket = answer if isinstance(answer, int) else None if turn is None else turn.ticket
        state = "held" if turn is None else turn.state
        steps = [answer] if isinstance(answer, Step) else [] if turn is None else list(turn.steps)
        self.say(
            f"{worker.name} {verb} {book.instance_id}/{tenure.fence}: {state} "
            f"{[f'{step.path}@{step.attempt}' for step in steps]}"
            f"{' commit' if turn is not None and turn.commit is not None else ''}"
        )
        if held.native:
            self.wrote(tenure)
            if fresh and state in ("parked", "handed_over", "completed", "failed"):
                tenure.given_back = True
            if fresh and state in ("cancelled", "paused"):
                tenure.given_back = True
                book.paused = book.paused or state == "paused"
                book.cancel_applied = book.cancel_applied or state == "cancelled"
            if state == "lost" and tenure.intact:
                raise book.fail(f"{worker.name} holds it natively, and was told it is lost")
        if turn is not None:
            if turn.commit is not None:
                if held.commit is not None or held.reply is not None:
                    raise book.fail("a second commit came before the first one was answered")
                held.commit = turn.commit
            gone = set(turn.abandoned)
            held.unwanted += [step for step in held.running if step.ticket in gone]
            held.running = [step for step in held.running if step.ticket not in gone]
            held.stop_asked = held.stop_asked or turn.cancel
            held.gathering |= set(turn.gather)
        held.wake_at = None if turn is None else turn.wake_at
        for step in steps:
            book.started(tenure, step, self.now)
            held.running.append(step)
        if held.native:
            self.look_for_end(book)
        if ticket is not None:
            self.land(worker, held, ticket)
        if state != "held":
            self.leave(worker, held, state)

    def leave(self, worker: Worker, held: Held, state: str) -> None:
        """The run is over for this worker; what it still had running reports in vain."""
        if held.gone:
            return
        if any(not step.cancelled for step in held.running):
            raise held.book.fail(f"it is {state}, and a running step is not told so")
        self.drop(worker, held)
        for step in [*held.running, *held.unwanted]:
            if self.rng.random() < 0.5:
                self.report(worker, held, step)
        held.running, held.unwanted = [], []
        self.send_what_is_left(worker, held, state)

    def send_what_is_left(self, worker: Worker, held: Held, state: str) -> None:
        """A commit or a reply that was on its way when the run ended must not revive it."""
        if held.commit is not None:
            self.write(worker, held)
        if held.reply is not None and held.run is not None:
            kind, events = held.reply
            held.reply = None
            answer = here(held.run.committed(kind, events, self.clock(worker)))
            self.say(f"{worker.name} takes up {kind} late: {answer}")
            if isinstance(answer, Step) or answer.steps or answer.state == "held":
                raise held.book.fail(f"a late reply {kind} revived a run that is {state}")

    def drop(self, worker: Worker, held: Held) -> None:
        held.gone = True
        if held in worker.held:
            worker.held.remove(held)

    def wrote(self, tenure: Tenure) -> None:
        """Look at the history after a call that may have added to it."""
        book = tenure.book
        if book.replaced:
            # The history is that of the new instance; its own book would notice a stray line.
            return
        shown = self.store.history(book.instance_id)
        book.wrote(tenure, shown)
        if self.rng.random() < 0.1:
            book.compare(shown)

    def look_for_end(self, book: Book) -> None:
        """Remember the terminal state as soon as the holder has brought it about."""
        if book.tenure is None or book.replaced:
            return
        if book.tenure.given_back and book.ended is None:
            fields = self.store.get(book.instance_id, self.now)
            if fields["status"] in TERMINAL:
                book.saw_end(dict(fields))

    def calls(self, worker: Worker) -> Iterator[Callable[[], None]]:
        """Every call that this worker could make next for what it holds."""
        if worker.broken:
            yield partial(self.give_back, worker)
        for held in worker.held:
            if held.claim is not None:
                yield partial(self.open, worker, held)
                continue
            if held.commit is not None:
                yield partial(self.write, worker, held)
            if held.reply is not None:
                yield partial(self.take_up, worker, held)
            if held.news is not None:
                yield partial(self.attend, worker, held)
            elif held.wake_at is not None and held.wake_at <= self.clock(worker):
                yield partial(self.look, worker, held)
            if held.ends is not None:
                yield partial(self.tell_ends, worker, held)
            elif held.gathering:
                yield partial(self.ask_for_ends, worker, held)
            for step in held.running:
                yield partial(self.finish, worker, held, step)
                if held.stop_asked:
                    yield partial(self.interrupt, worker, held, step)
            if held.unwanted:
                yield partial(self.finish_in_vain, worker, held)
