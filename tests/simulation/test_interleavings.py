"""Single interleavings that once went wrong, as short as they can be told.

The simulator found them; here they stand by themselves, so that a change of its dice cannot lose
them. Each drives one instance by the storage contract, call by call.
"""

from __future__ import annotations

from typing import Any

from sayiir import Flow, RetryPolicy, Workflow, task
from sayiir._codec import decode_payload, encode_payload, read_error
from sayiir._core import Claimant, Commit, MemoryStore, Run, Step, Turn

from .worker import Answer, here

TTL = 30.0


class Hand:
    """One worker with one instance in its hand; the clock is `now`."""

    def __init__(self, workflow: Workflow[Any, Any], given: Any) -> None:
        self.store = MemoryStore()
        self.claimant = Claimant("w", [workflow.program], lease_ttl=TTL)
        self.now = 0.0
        self.store.submit([("i", workflow.program, encode_payload(given), None)], "fail", 0.0)

    def claim(self) -> Run:
        (claim,) = self.store.claim(self.claimant, 1, self.now)
        rows = self.store.rows("i", claim.referenced())
        return Run(self.claimant, claim, rows, self.store.input("i"), self.now)

    def settle(self, run: Run, answer: Answer) -> list[Step]:
        """Write and take up until there is nothing to write; all steps that came out."""
        steps: list[Step] = []
        answer = here(answer)
        while isinstance(answer, Turn):
            steps += answer.steps
            if answer.commit is None:
                return steps
            answer = here(run.committed(*self.store.commit(answer.commit, self.now), self.now))
        return [*steps, answer]

    def fail(self, run: Run, step: Step) -> Step | Turn:
        return here(run.failed(step, "Broken", "no", "", [], True, None, 0.0, self.now))


def commit_of(answer: Answer) -> Commit:
    assert isinstance(answer, Turn)
    assert answer.commit is not None
    return answer.commit


def test_a_step_that_goes_out_with_a_commit_is_not_paused_away() -> None:
    body = Flow("body").then(lambda x: x, name="a").then(lambda x: x, name="b").build()
    hand = Hand(Flow("f").map(body, name="each").build(), [1, 2])
    run = hand.claim()
    first, second = hand.settle(run, run.attend(0.0))
    leading = commit_of(run.completed(first, 1, 0.0))
    run.completed(second, 2, 0.0)
    reply = hand.store.commit(leading, 0.0)
    hand.store.pause("i", None, None, 0.0)
    answer = here(run.committed(*reply, 0.0))
    running = [answer] if isinstance(answer, Step) else answer.steps
    while isinstance(answer, Turn) and answer.commit is not None:
        answer = here(run.committed(*hand.store.commit(answer.commit, 0.0), 0.0))
        running = [*running, *(answer.steps if isinstance(answer, Turn) else [answer])]
    assert not any(step.cancelled for step in running), "a running step was paused away"


def test_an_event_that_is_heard_of_twice_is_consumed_once() -> None:
    fork = Flow("f").fork()
    for name in ("left", "right"):
        fork = fork.branch(Flow(name).wait_for_event("go").build(), name=name)
    fork = fork.branch(lambda x: x, name="work")
    hand = Hand(fork.join(lambda found: found).build(), 1)
    run = hand.claim()
    (work,) = hand.settle(run, run.attend(0.0))
    hand.store.send_event("i", "go", encode_payload("first"), None, 0.0)
    *_, events = hand.store.news("i", run.fence, run.awaits(), 0.0)
    answer = run.attend(0.0, events=events)
    run.attend(0.0, events=events)
    assert hand.settle(run, answer) == []
    assert [row.path for row, _ in hand.store.history("i")] == ["fork/left/go"]
    hand.settle(run, run.completed(work, "done", 0.0))
    hand.store.send_event("i", "go", encode_payload("second"), None, 0.0)
    run = hand.claim()
    *_, events = hand.store.news("i", run.fence, run.awaits(), 0.0)
    (join,) = hand.settle(run, run.attend(0.0, events=events))
    assert join.input == {"left": "first", "right": "second", "work": "done"}


def steps_of(answer: Answer) -> list[Step]:
    answer = here(answer)
    return [answer] if isinstance(answer, Step) else list(answer.steps)


def test_what_an_event_leads_to_waits_for_its_commit_and_comes_again() -> None:
    wait = Flow("f").wait_for_event("go", timeout="10s", on_timeout="continue")
    hand = Hand(wait.then(lambda x: x, name="a").build(), 1)
    run = hand.claim()
    assert hand.settle(run, run.attend(0.0)) == []
    for payload in ("first", "second"):
        hand.store.send_event("i", "go", encode_payload(payload), None, hand.now)
    # The first holder is killed before it has written anything, and then the time is over, too.
    for now in (1.0, 1.0 + TTL):
        hand.now = now
        run = hand.claim()
        *_, events = hand.store.news("i", run.fence, run.awaits(), now)
        answer = run.attend(now, events=events)
        assert steps_of(answer) == []
    (step,) = hand.settle(run, answer)
    assert step.input == "first"
    assert [row.path for row, _ in hand.store.history("i")] == ["go"]
    hand.settle(run, run.completed(step, "done", hand.now))
    assert hand.store.get("i", hand.now)["status"] == "completed"


def test_what_a_timeout_leads_to_waits_for_its_commit() -> None:
    wait = Flow("f").wait_for_event("go", timeout="10s", on_timeout="continue")
    hand = Hand(wait.then(lambda x: x, name="a").build(), 1)
    run = hand.claim()
    assert hand.settle(run, run.attend(0.0)) == []
    hand.now = 10.0
    run = hand.claim()
    # Whoever came after this one might meet an event.
    answer = run.attend(10.0)
    assert steps_of(answer) == []
    assert len(hand.settle(run, answer)) == 1


def test_an_event_does_not_overtake_the_position_that_waits_for_it() -> None:
    left = Flow("left").then(lambda x: x, name="a").wait_for_event("go").then(lambda x: x, name="b")
    fork = Flow("f").fork().branch(left.build()).branch(lambda x: x, name="right")
    hand = Hand(fork.join(lambda found: found).build(), 1)
    run = hand.claim()
    steps = hand.settle(run, run.attend(0.0))
    first = next(step for step in steps if step.path.endswith("a"))
    leading = run.completed(first, 1, 0.0)
    hand.store.send_event("i", "go", encode_payload("now"), None, 0.0)
    *_, events = hand.store.news("i", run.fence, run.awaits(), 0.0)
    assert steps_of(run.attend(0.0, events=events)) == []
    (after,) = hand.settle(run, leading)
    assert after.input == "now"


def test_a_failure_after_a_takeover_stops_the_other_items() -> None:
    broken = task(retries=RetryPolicy(max_retries=1, initial_delay_secs=5.0))(lambda x: x)
    hand = Hand(Flow("f").map(broken, name="each", concurrency=2).build(), [1, 2])
    run = hand.claim()
    first, second = hand.settle(run, run.attend(0.0))
    hand.settle(run, hand.fail(run, first))
    hand.settle(run, hand.fail(run, second))
    hand.now = 5.0
    run = hand.claim()
    first, second = hand.settle(run, run.attend(5.0))
    ending = hand.fail(run, first)
    assert second.cancelled, "the other item still runs"
    hand.fail(run, second)
    hand.settle(run, ending)
    fields = hand.store.get("i", hand.now)
    assert fields["status"] == "failed"
    assert fields["error"] is not None
    assert read_error(fields["error"]).error_type == "Broken"


def test_a_lease_that_is_given_back_goes_to_the_next_worker() -> None:
    hand = Hand(Flow("f").then(lambda x: x + 1, name="a").build(), 1)
    lost = hand.claim()
    (step,) = hand.settle(lost, lost.attend(0.0))
    assert hand.store.give_back("i", lost.fence, 0.0)
    assert not hand.store.give_back("i", lost.fence, 0.0)
    run = hand.claim()
    late = commit_of(lost.completed(step, 99, 0.0))
    assert hand.store.commit(late, 0.0)[0] == "lease_lost"
    (step,) = hand.settle(run, run.attend(0.0))
    hand.settle(run, run.completed(step, step.fn(step.input), 0.0))
    output = hand.store.get("i", 0.0)["output"]
    assert output is not None
    assert decode_payload(output) == 2


def numbers(count: int) -> list[int]:
    return list(range(count))


def spread(name: str, body: Any) -> Workflow[Any, Any]:
    return Flow(name).then(numbers).map(body, name="each", spread=True).build()


def test_two_groups_that_fail_in_one_turn() -> None:
    both = Flow("f").fork().branch(spread("left", numbers)).branch(spread("right", numbers))
    hand = Hand(both.join(lambda found: found).build(), 2)
    run = hand.claim()
    for step in hand.settle(run, run.attend(0.0)):
        hand.settle(run, run.completed(step, [1, 2], 0.0))
    for claim in hand.store.claim(hand.claimant, 4, 0.0):
        name = claim.instance_id
        item = Run(hand.claimant, claim, [], hand.store.input(name), 0.0)
        [step] = hand.settle(item, item.attend(0.0))
        hand.settle(item, hand.fail(item, step))
    run = hand.claim()
    *_, events = hand.store.news("i", run.fence, run.awaits(), 0.0)
    turn = here(run.attend(0.0, events=events))
    assert isinstance(turn, Turn)
    assert len(turn.gather) == 2
    ends = [(group, hand.store.items("i", group)) for group in turn.gather]
    hand.settle(run, run.gathered(ends, 0.0))
    fields = hand.store.get("i", 0.0)
    assert fields["status"] == "failed"
    assert fields["error"] is not None
    assert read_error(fields["error"]).error_type == "Broken"


def test_what_comes_in_the_place_of_an_item_is_no_item() -> None:
    flow, other = spread("f", numbers), Flow("other").then(numbers).build()
    hand = Hand(flow, 2)
    hand.claimant = Claimant("w", [flow.program, other.program], lease_ttl=TTL)
    run = hand.claim()
    [step] = hand.settle(run, run.attend(0.0))
    hand.settle(run, run.completed(step, [1, 2], 0.0))
    # What follows lives where the parent and its items have been.
    hand.store.delete("i", True, 0.0)
    submits = [(name, made.program) for name, made in (("i", flow), ("a", other), ("b", other))]
    for name, program in submits:
        hand.store.submit([(name, program, encode_payload(2), None)], "fail", 0.0)
    run = hand.claim()
    [step] = hand.settle(run, run.attend(0.0))
    hand.settle(run, run.completed(step, [1, 2], 0.0))
    for name in ("a", "b"):
        claim = hand.store.claim_one(hand.claimant, name, 0.0)
        assert claim is not None
        run = Run(hand.claimant, claim, [], hand.store.input(name), 0.0)
        [step] = hand.settle(run, run.attend(0.0))
        hand.settle(run, run.completed(step, 0, 0.0))
    fields = hand.store.get("i", 0.0)
    assert (fields["status"], fields["reason"]) == ("waiting", None)
