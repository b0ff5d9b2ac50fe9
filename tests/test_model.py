"""Every client call, in any order, against a dictionary: backends in step with one another.

A state machine submits, steers, claims, ends steps, lets workers die and lets time pass. Each call
is made on every backend, and in memory by both ways that a worker may take; a file and a schema are
opened twice, for the client and for the workers. All must answer alike, and as `tests.model` says.
The engine is driven by hand, so nothing waits and the clock stands still until it is moved. A
failure prints the calls that lead to it and the blob that brings it back.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sayiir import InMemoryBackend, WorkflowCancelled, WorkflowError, WorkflowFailed
from sayiir.testing import VirtualClock

from .model import ENDED, FLOWS, Model, RefusedError
from .sides import BUILT, Hold, NativeWorker, Side, facts_at, facts_of
from .working import BACKENDS, Places

IDS = ("i-1", "i-2", "j-1")
POLICIES = ("fail", "fail", "use_existing", "terminate_existing")
NEVER_RAN = "it never ran"


ids = st.sampled_from(IDS)
flows = st.sampled_from(sorted(FLOWS))
policies = st.sampled_from(POLICIES)
picks = st.integers(0, 11)
"""Which one of several; taken modulo how many there are."""


class Instances(RuleBasedStateMachine):
    """See the module's opening."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.places = [Places(kind) for kind in BACKENDS]
        self.sides = [Side(InMemoryBackend(clock=self.clock), NativeWorker)]
        for make in self.places:
            backend = make(clock=self.clock)
            elsewhere = make.again(backend) if make.kind in ("sqlite", "postgres") else None
            self.sides.append(Side(backend, elsewhere=elsewhere))
        self.model = Model(self.clock)
        self.runner = asyncio.Runner()
        self.holds: list[Hold] = []
        self.names = ["w-1", "w-2"]
        self.values = 0

    @initialize(flow=flows)
    def begin(self, flow: str) -> None:
        """So that no search is wasted on an empty world."""
        self.submit("i-1", flow, "fail", None)

    def teardown(self) -> None:
        for side in self.sides:
            self.runner.run(side.client.close())
        for made in self.places:
            self.runner.run(made.close())
        self.runner.close()

    # Saying the same to everybody.

    def fresh(self) -> int:
        """A value that was never used before."""
        self.values += 1
        return self.values

    def ask(self, call: Callable[[Side], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Make a call on every side; what came back, refusals included."""

        async def answer(side: Side) -> Any:
            try:
                return await call(side)
            except WorkflowError as error:
                return type(error).__name__, getattr(error, "state", None)

        async def answers() -> list[Any]:
            return await asyncio.gather(*map(answer, self.sides))

        return self.runner.run(answers())

    def expect(
        self, model: Callable[[], Any], call: Callable[[Side], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Make a call on every side and on the model; all must say the same."""
        try:
            expected = model()
        except RefusedError as refusal:
            expected = refusal.args
        answers = self.ask(call)
        assert answers == [expected] * len(self.sides)
        return expected

    # The client's calls.

    @rule(name=ids, flow=flows, policy=policies, later=st.sampled_from([None, 20.0]))
    def submit(self, name: str, flow: str, policy: Any, later: float | None) -> None:
        value, at = self.fresh(), None if later is None else self.clock() + later

        async def call(side: Side) -> Any:
            start = None if at is None else datetime.fromtimestamp(at, UTC)
            handle = await side.client.submit(
                BUILT[flow], name, value, conflict_policy=policy, start_at=start
            )
            return str(handle.status)

        self.expect(lambda: self.model.submit(name, flow, policy, value, at), call)

    @rule(flow=flows, policy=policies, pair=st.permutations(IDS))
    def submit_many(self, flow: str, policy: Any, pair: list[str]) -> None:
        items = [(name, self.fresh()) for name in pair[:2]]

        def model() -> list[str]:
            for name, _ in items:
                if name in self.model.records and policy != "terminate_existing":
                    self.model.submit(name, flow, policy, None)
            return [self.model.submit(name, flow, policy, value) for name, value in items]

        async def call(side: Side) -> Any:
            handles = await side.client.submit_many(BUILT[flow], items, conflict_policy=policy)
            return [str(handle.status) for handle in handles]

        self.expect(model, call)

    @rule(name=ids, cancel=st.booleans())
    def cancel_or_pause(self, name: str, cancel: bool) -> None:
        why = f"reason {self.fresh()}"
        self.expect(
            lambda: self.model.request(name, cancel, why, "ops"),
            lambda side: (side.client.cancel if cancel else side.client.pause)(name, why, "ops"),
        )

    @rule(name=ids)
    def unpause(self, name: str) -> None:
        self.expect(lambda: self.model.unpause(name), lambda side: side.client.unpause(name))

    @rule(name=ids, key=st.sampled_from([None, None, "k", "l"]))
    def send_event(self, name: str, key: str | None) -> None:
        payload = {"event": self.fresh()}
        self.expect(
            lambda: self.model.send(name, payload, key),
            lambda side: side.client.send_event(name, "go", payload, idempotency_key=key),
        )

    @rule(name=ids, times=st.integers(2, 3))
    def send_event_again(self, name: str, times: int) -> None:
        """A sender that had no answer repeats itself, with the same key."""
        for _ in range(times):
            self.send_event(name, "again")

    @rule(name=ids)
    def result(self, name: str) -> None:
        def model() -> Any:
            one = self.model.find(name)
            if one.status not in ENDED:
                return "not yet"
            return one.output if one.status == "completed" else one.status

        async def call(side: Side) -> Any:
            try:
                return await side.client.result(name, timeout=1e-6)
            except TimeoutError:
                return "not yet"
            except (WorkflowFailed, WorkflowCancelled) as error:
                return str(error.status.status)

        self.expect(model, call)

    @rule(name=ids, node=st.sampled_from(["first", "rest", "door", "one", "left", "last", "?"]))
    def get_task_result(self, name: str, node: str) -> None:
        self.expect(
            lambda: self.model.find(name).outputs.get(node, NEVER_RAN),
            lambda side: side.client.get_task_result(name, node, NEVER_RAN),
        )

    @rule(
        status=st.sampled_from([None, "in_progress", "waiting", "paused", "cancelled"]),
        flow=st.none() | flows,
        prefix=st.sampled_from([None, "i-", "j-", "x"]),
        limit=st.integers(1, 3),
    )
    def list_instances(self, status: Any, flow: Any, prefix: Any, limit: int) -> None:
        def model() -> list[str]:
            return [
                one.instance_id
                for one in sorted(self.model.records.values(), key=lambda one: -one.number)
                if status in (None, one.status)
                and flow in (None, one.flow)
                and one.instance_id.startswith(prefix or "")
            ]

        async def call(side: Side) -> list[str]:
            found, cursor = [], None
            while True:
                page = await side.client.list_instances(
                    status=status, workflow=flow, id_prefix=prefix, limit=limit, cursor=cursor
                )
                assert len(page) <= limit
                found += [one.instance_id for one in page]
                cursor = page.next_cursor
                if cursor is None:
                    return found

        self.expect(model, call)

    @rule(name=ids, force=st.sampled_from([False, False, True]))
    def delete(self, name: str, force: bool) -> None:
        self.expect(
            lambda: self.model.delete(name, force), lambda side: side.client.delete(name, force)
        )

    # Workers and time.

    @rule(pick=picks)
    def claim(self, pick: int) -> None:
        worker = self.names[pick % len(self.names)]
        record = self.model.claim(worker)
        claims = self.ask(lambda side: side.worker(worker).claim())
        expected = [] if record is None else [record.instance_id]
        assert [[held.instance_id for held in claim] for claim in claims] == [expected] * len(
            claims
        )
        if record is not None:
            held = [one for claim in claims for one in claim]
            running = list(record.running)
            for one in held:
                assert [step.task.name for step in one.steps] == running
                assert all(step.input == record.value for step in one.steps)
                assert all(step.attempt == record.attempt + 1 for step in one.steps)
            if record.worker is not None:
                self.holds.append(Hold(worker, record, record.fence, held, running))

    @precondition(lambda self: self.holds)
    @rule(pick=picks, which=picks, fails=st.sampled_from([False, False, False, True]))
    def end_a_step(self, pick: int, which: int, fails: bool) -> None:
        hold = self.holds[pick % len(self.holds)]
        name = hold.running.pop(which % len(hold.running))
        value, record = [self.fresh()], hold.record
        current = self.is_current(hold)
        if current and fails:
            self.model.fail(record, name)
        elif current:
            self.model.complete(record, name, value)
        for held in hold.held:
            report = held.fail("told to", name) if fails else held.complete(value, name)
            self.runner.run(report)
        self.look_at(hold, current)

    @rule(pick=picks, times=st.integers(1, 4))
    def work(self, pick: int, times: int) -> None:
        """What workers mostly do, so that instances get somewhere."""
        for _ in range(times):
            self.claim(pick)
            if self.holds:
                self.end_a_step(len(self.holds) - 1, 0, fails=False)

    @precondition(lambda self: self.holds)
    @rule(pick=picks, cancel=st.booleans(), back=st.booleans())
    def ask_a_holder(self, pick: int, cancel: bool, back: bool) -> None:
        """A cancel or a pause of what is held, perhaps taken back, and then a step ends."""
        name = self.holds[pick % len(self.holds)].record.instance_id
        self.cancel_or_pause(name, cancel)
        if back:
            self.unpause(name)
        self.end_a_step(pick, 0, fails=False)

    @precondition(lambda self: self.holds)
    @rule(pick=picks)
    def attend(self, pick: int) -> None:
        """A holder looks for news; it must not change what follows."""
        hold = self.holds[pick % len(self.holds)]
        for held in hold.held:
            self.runner.run(held.attend())
        self.look_at(hold, self.is_current(hold))

    def is_current(self, hold: Hold) -> bool:
        """Whether the worker still holds what it believes to hold."""
        one = self.model.records.get(hold.record.instance_id)
        return one is hold.record and one.worker is not None and one.fence == hold.fence

    def look_at(self, hold: Hold, current: bool) -> None:
        """Compare what the holders know with the model, and let go of what is over."""
        record = hold.record
        if current and record.worker is not None:
            assert [held.state for held in hold.held] == ["held"] * len(hold.held)
            hold.running = list(record.running)
            for held in hold.held:
                assert sorted(step.task.name for step in held.steps) == sorted(hold.running)
            return
        over = "lost" if not current else record.status
        over = "parked" if over in ("waiting", "awaiting_signal", "in_progress") else over
        assert [held.state for held in hold.held] == [over] * len(hold.held)
        self.holds.remove(hold)

    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        name = self.names[pick % len(self.names)]

        def model() -> list[str]:
            held = [one for one in self.model.records.values() if one.worker == name]
            if name in self.model.leases:
                self.model.renew(name)
            return sorted(one.instance_id for one in held if one.pending is not None)

        self.expect(model, lambda side: side.worker(name).renew())

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        name = self.names[pick % len(self.names)]
        self.expect(lambda: self.model.release(name), lambda side: side.backend.release(name))

    @rule(pick=picks)
    def crash(self, pick: int) -> None:
        """A worker is gone, without a word; another one comes in its place."""
        at = pick % len(self.names)
        self.holds = [hold for hold in self.holds if hold.worker != self.names[at]]
        self.names[at] = f"w-{self.fresh()}-again"

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0, 29.0, 31.0, 100.0, 3 * 86_400.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.expire()

    # What is true at every moment.

    def facts(self, name: str) -> dict[str, Any]:
        return facts_of(self.model.find(name))

    @invariant()
    def all_agree(self) -> None:
        for name in IDS:
            self.expect(partial(self.facts, name), partial(facts_at, name=name))

    @invariant()
    def the_next_timer_is_known(self) -> None:
        times = [
            one.wake_at
            for one in self.model.records.values()
            if one.wake_at is not None and one.status in ("waiting", "awaiting_signal")
        ]
        self.expect(lambda: min(times, default=None), lambda side: side.backend.next_wake())


def test_every_call_in_any_order() -> None:
    run_state_machine_as_test(
        Instances, settings=settings(max_examples=100, stateful_step_count=40)
    )


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_call_in_any_order_for_long(soak_rounds: Callable[[int], Iterator[int]]) -> None:
    """Rounds of 50 searches of 100 calls, 5,000 in all, as far as the time goes."""
    for number in soak_rounds(100):
        run_state_machine_as_test(
            seed(number)(Instances), settings=settings(max_examples=50, stateful_step_count=100)
        )
