"""Fate: what befalls the world of the simulator, and how everything comes to an end.

`simulate` is the whole of one run: some hundred accidents drawn from the seed, then the drain, then
the books. It knows what can happen to workers and instances, and leaves what a worker does with an
instance to `simulator`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sayiir import InstanceNotFoundError, InvalidStateError
from sayiir._codec import encode_payload

from .books import TERMINAL, Book, Violation
from .simulator import ACTIONS, DRAIN_ROUNDS, HOUR, LEASE_TTL, World
from .stores import Store, memory_store
from .worker import Held, Worker


def simulate(seed: int, make_store: Callable[[], Store] = memory_store) -> list[str]:
    """Run the world of a seed to its end; the trace of what happened.

    Raises:
        Violation: A promise was broken. The message holds the seed and the end of the trace.
    """
    world = World.of(seed, make_store)
    try:
        for _ in range(ACTIONS):
            happen(world)
        drain(world)
        for book in world.books.values():
            book.at_end = dict(world.store.get(book.instance_id, world.now))
        for book in world.books.values():
            book.compare(world.store.history(book.instance_id))
            book.judge(book.at_end)
            compare_items(world, book)
        for worker in world.workers:
            if world.store.release(worker.name, world.now):
                raise Violation(f"{worker.name} still holds a lease when everything is over")
    except Exception as error:
        tail = "\n  ".join(world.trace[-60:])
        raise Violation(
            f"{type(error).__name__}: {error}\n  {tail}\nrun it again with SAYIIR_SEED={seed}"
        ) from error
    return world.trace


def happen(world: World) -> None:
    """One thing happens."""
    rng = world.rng
    choice = rng.random()
    awake = [worker for worker in world.workers if worker.asleep_until <= world.now]
    if choice < 0.62 and awake:
        busy = [worker for worker in awake if worker.held]
        worker = rng.choice(busy if busy and rng.random() < 0.8 else awake)
        calls = list(world.calls(worker))
        if calls and rng.random() < 0.9:
            rng.choice(calls)()
        else:
            world.claim(worker)
        return
    if choice < 0.72 and awake:
        visit(world, rng.choice(awake))
        return
    if choice < 0.80:
        world.pass_time(next_moment(world))
        return
    if choice < 0.84:
        accident(world)
        return
    book = rng.choice(list(world.books.values()))
    deeds = [
        submit,
        submit,
        send,
        send,
        send,
        replace,
        ask_cancel,
        ask_pause,
        ask_unpause,
        ask_unpause,
    ]
    rng.choice(deeds)(world, book)


def visit(world: World, worker: Worker) -> None:
    """A worker renews, and attends to something for no reason."""
    rng = world.rng
    renew(world, worker)
    ready = [held for held in worker.held if held.run is not None and held.news is None]
    if ready and rng.random() < 0.5:
        world.look(worker, rng.choice(ready))
    if ready and rng.random() < 0.1:
        step_down(world, worker)


def renew(world: World, worker: Worker) -> None:
    """The worker prolongs its leases and looks at what was asked of it."""
    pending = world.renew(worker)
    if pending:
        world.say(f"{worker.name} renews, pending {pending}")
    for held in worker.held:
        if held.book.instance_id in pending and held.news is None:
            world.look(worker, held)


def step_down(world: World, worker: Worker) -> None:
    """The worker starts nothing new and gives back what is quiet."""
    for held in list(worker.held):
        run = held.run
        if run is not None:
            # Some workers do not wait for what is running.
            held.stop_asked = held.stop_asked or world.rng.random() < 0.5
            now = world.clock(worker)
            world.act(worker, held, "drains", partial(run.drain, now))


def accident(world: World) -> None:
    """A worker crashes, or sleeps for so long that its leases may run out."""
    rng = world.rng
    busy = [worker for worker in world.workers if worker.held]
    worker = rng.choice(busy if busy and rng.random() < 0.8 else world.workers)
    if rng.random() < 0.4:
        worker.asleep_until = world.now + rng.choice([1.0, LEASE_TTL, 3 * LEASE_TTL])
        world.say(f"{worker.name} sleeps")
        return
    world.say(f"{worker.name} crashes with {len(worker.held)} held")
    world.workers.remove(worker)
    if rng.random() < 0.3:
        # Another life under the same name begins with giving back what the former one held.
        give_back(world, worker)
        world.hire(name=worker.name)
        if rng.random() < 0.3:
            world.workers.append(worker)
            world.twins.add(worker.name)
            world.say(f"{worker.name} was not dead: there are two of that name")
    else:
        world.hire()


def give_back(world: World, worker: Worker) -> None:
    """All leases of a name go back to the store."""
    count = world.store.release(worker.name, world.now)
    world.say(f"{worker.name} releases {count}")
    world.deadlines.pop(worker.name, None)
    for tenure in world.tenures:
        if tenure.worker == worker.name:
            tenure.expired = True
    world.tenures = [tenure for tenure in world.tenures if tenure.intact]


def next_moment(world: World) -> float:
    """Where the clock jumps to."""
    rng = world.rng
    ahead = list(world.deadlines.values())
    ahead += [worker.asleep_until for worker in world.workers]
    ahead += [
        held.wake_at for worker in world.workers for held in worker.held if held.wake_at is not None
    ]
    timer = world.store.next_wake()
    if timer is not None:
        ahead.append(timer)
    ahead = [moment for moment in ahead if world.now < moment < world.now + 3 * HOUR]
    if ahead and rng.random() < 0.6:
        return min(ahead)
    return world.now + rng.choice([0.001, 0.4, 1.0, 10.0, LEASE_TTL, 100.0, HOUR])


# What clients do.


def submit(world: World, book: Book, policy: str = "fail") -> None:
    """The instance comes into being, now and then with a time to start at."""
    if book.submitted_at is not None:
        return
    later = world.now + 50.0 if world.rng.random() < 0.2 else None
    program, sealed = book.made.workflow.program, encode_payload(book.given)
    world.store.submit([(book.instance_id, program, sealed, later)], policy, world.now)
    book.submitted_at = world.now if later is None else later
    world.say(f"submit ({policy}) {book.instance_id} of {book.made.name}, not before {later}")


def replace(world: World, book: Book) -> None:
    """A new instance takes the place of the old one, with all that belonged to it."""
    if book.submitted_at is None or book.parent is not None or world.rng.random() < 0.7:
        return
    fresh = Book(book.instance_id, world.rng.choice(world.flows), ["again"], world.skews)
    for gone in (book, *book.descendants()):
        gone.replaced = True
        if gone.tenure is not None:
            gone.tenure.given_back = True
        del world.books[gone.instance_id]
    world.books[book.instance_id] = fresh
    submit(world, fresh, "terminate_existing")


def send(world: World, book: Book, name: str | None = None) -> None:
    """An event, now and then one that was sent before."""
    rng = world.rng
    name = rng.choice(["go", "ok"]) if name is None else name
    key = rng.choice([None, None, None, "k1", "k2"])
    payload = ["event", name, len(book.sent[name])]
    try:
        fresh = world.store.send_event(
            book.instance_id, name, encode_payload(payload), key, world.now
        )
    except InvalidStateError:
        expect_end(world, book, TERMINAL)
        return
    world.say(f"send {name} to {book.instance_id} key={key}: {fresh}")
    if fresh != (key is None or (name, key) not in book.keys):
        raise book.fail(f"event {name!r} with key {key!r} was taken for {fresh=}")
    if key is not None:
        book.keys.add((name, key))
    if fresh:
        book.sent[name].append(payload)


def expect_end(world: World, book: Book, states: frozenset[str]) -> None:
    """A call was refused because of the instance's state: rightly so?"""
    fields = dict(world.store.get(book.instance_id, world.now))
    if fields["status"] not in states:
        raise book.fail(f"a call was refused although it is {fields['status']}")
    if fields["status"] in TERMINAL:
        book.saw_end(fields)


def ask(world: World, book: Book, verb: str, call: Callable[[], str], may: frozenset[str]) -> str:
    """A control call; the status it answered, or nothing if it was refused."""
    try:
        status = call()
    except InvalidStateError:
        expect_end(world, book, may)
        status = ""
    except InstanceNotFoundError:
        if book.submitted_at is not None:
            raise
        status = ""
    world.say(f"{verb} {book.instance_id}: {status}")
    return status


def ask_cancel(world: World, book: Book) -> None:
    if world.rng.random() < 0.85:
        return
    may = frozenset({"completed", "failed"})
    status = ask(
        world,
        book,
        "cancel",
        lambda: world.store.cancel(book.instance_id, None, None, world.now),
        may,
    )
    if status:
        book.cancel_asked = True
    if status == "cancelled":
        book.cancel_applied = True
        if book.tenure is not None:
            book.tenure.given_back = True


def ask_pause(world: World, book: Book) -> None:
    status = ask(
        world,
        book,
        "pause",
        lambda: world.store.pause(book.instance_id, None, None, world.now),
        TERMINAL,
    )
    if status == "paused":
        book.paused = True
        if book.tenure is not None:
            book.tenure.given_back = True


def ask_unpause(world: World, book: Book) -> None:
    states = frozenset({"in_progress", "waiting", "awaiting_signal"}) | TERMINAL
    was_paused = book.paused
    status = ask(
        world, book, "unpause", lambda: world.store.unpause(book.instance_id, world.now), states
    )
    # The end of its parent cancels an item, too.
    of_a_parent = book.parent is not None and over(world, book)
    if was_paused and not status and not book.cancel_applied and not of_a_parent:
        raise book.fail("it is paused, and cannot be unpaused")
    if status:
        book.paused = False


def compare_items(world: World, book: Book) -> None:
    """What the store says of the items of an instance is what it says of each of them."""
    for (_, group), family in book.families.items():
        ends = world.store.items(book.instance_id, group)
        for index, item in family.items():
            fields = item.at_end
            sealed = {"completed": fields["output"], "failed": fields["error"]}
            known = (fields["status"], sealed.get(fields["status"]))
            if ends[index] != known:
                raise item.fail(f"its parent is told that it is {ends[index]}, not {known}")


# The end.


def drain(world: World) -> None:
    """Only healthy workers from now on; the clock runs until everything has ended."""
    world.say("drain")
    world.draining = True
    for worker in list(world.workers):
        # Each of two workers of one name keeps the other's leases alive, also a dead one's.
        if worker.skew or worker.claimant.tags is not None or worker.name in world.twins:
            step_down(world, worker)
            settle(world, worker)
            give_back(world, worker)
            world.workers.remove(worker)
        worker.asleep_until = 0.0
    world.hire(healthy=True)
    for book in world.books.values():
        submit(world, book)
    for _ in range(DRAIN_ROUNDS):
        busy = False
        for worker in world.workers:
            renew(world, worker)
            while world.claim(worker):
                busy = True
            busy = settle(world, worker) or busy
        if busy:
            continue
        if all(over(world, book) for book in world.books.values()):
            return
        move_on(world)
    raise Violation(f"stuck: {[world.store.get(i, world.now) for i in world.books]}")


def settle(world: World, worker: Worker) -> bool:
    """Make every call there is to make, in any order."""
    busy = False
    while calls := list(world.calls(worker)):
        world.rng.choice(calls)()
        busy = True
    return busy


def over(world: World, book: Book) -> bool:
    return world.store.get(book.instance_id, world.now)["status"] in TERMINAL


def move_on(world: World) -> None:
    """Nothing can be done at this moment: bring about the next one at which something can."""
    stopped = []
    for book in world.books.values():
        fields = world.store.get(book.instance_id, world.now)
        name = fields["signal_name"]
        if fields["status"] == "paused":
            ask_unpause(world, book)
            stopped.append(book)
        elif name in ("go", "ok") and (fields["wake_at"] is None or world.rng.random() < 0.5):
            send(world, book, name)
            stopped.append(book)
    if stopped:
        return
    for worker in world.workers:
        for held in worker.held:
            awaited = sorted(set(awaits(held)) & {"go", "ok"})
            if awaited:
                send(world, held.book, awaited[0])
                world.look(worker, held)
                return
    # Leases of workers that are gone run out by themselves.
    moments = [world.deadlines[tenure.worker] for tenure in world.tenures]
    moments += [
        held.wake_at for worker in world.workers for held in worker.held if held.wake_at is not None
    ]
    timer = world.store.next_wake()
    if timer is not None:
        moments.append(timer)
    ahead = [moment for moment in moments if moment > world.now]
    world.pass_time(min(ahead, default=world.now + 1.0))


def awaits(held: Held) -> list[str]:
    return [] if held.run is None else held.run.awaits()
