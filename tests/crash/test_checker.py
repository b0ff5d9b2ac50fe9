"""The checker on trial: ledgers and histories with one breach each, and which clause must object.

The forger plays one instance of a flow through a worker that does everything right, and then one
thing wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sayiir import Flow
from sayiir._codec import encode_payload
from sayiir._core import StepRow
from sayiir.backends import HistoryRow, InstanceRow

from .bodies import Body
from .checker import BreachError, Checker, Tally
from .ledger import Ledger, Record, digest, read
from .replay import Photograph
from .shapes import Replay, Shape, chain, then

A, B = Body("a"), Body("b")
FLOW = then(then(Flow("pair"), A).wait_for_event("go", node="wait"), B).build()
GIVEN = {"n": 5, "by": "client"}
SENT = [{"n": 1, "by": "first"}, {"n": 2, "by": "second"}]


def pair(replay: Replay, value: Any) -> Any:
    replay.ran(A, "a", value)
    return chain(replay, (B,), replay.got("wait", "go"))


SHAPES = {"pair": Shape(FLOW, pair, ("go",))}


@dataclass(slots=True)
class Forger:
    """One instance as it should be, until somebody changes it."""

    records: list[Record] = field(default_factory=list)
    row: InstanceRow = field(
        default_factory=lambda: InstanceRow("i", "pair", "00" * 32, "completed", 0.0, 9.0, 9.0)
    )
    history: list[HistoryRow] = field(default_factory=list)
    clock: float = 0.0

    def note(self, who: str, kind: str, **fields: Any) -> Record:
        """Somebody says something, a second after the last word."""
        self.clock += 1
        record = Record(self.clock, who, kind, fields.pop("instance", "i"), **fields)
        self.records.append(record)
        return record

    def run(self, body: Body, path: str, given: Any, who: str, fence: int) -> Any:
        """A whole execution; what it answered."""
        self.begin(path, given, who, fence)
        return self.end(body, path, given, who, fence)

    def begin(self, path: str, given: Any, who: str, fence: int) -> None:
        """An execution starts."""
        keys = {"path": path, "attempt": 1, "fence": fence}
        self.note(who, "start", digest=digest(given), **keys)

    def end(self, body: Body, path: str, given: Any, who: str, fence: int) -> Any:
        """An execution ends; what it answered."""
        answer = body.answer(given, 1, f"{who}.{fence}")
        keys = {"path": path, "attempt": 1, "fence": fence}
        self.note(who, "end", digest=digest(answer), **keys)
        return answer

    def record(self, path: str, output: Any, name: str = "w1", attempt: int = 1) -> None:
        """A row of the history."""
        seq = len(self.history)
        sealed = encode_payload(output)
        row = StepRow(
            seq, path, path, attempt, "completed", output=sealed, started_at=0.0, ended_at=0.0
        )
        self.history.append(HistoryRow(row, f"{name}~0123456789ab"))

    def finish(self, output: Any) -> None:
        """The instance has this output."""
        self.row = replace(self.row, output=encode_payload(output))

    def check(self, last: bool = True, first: Photograph | None = None) -> Tally:
        """What the checker says."""
        photograph = Photograph(self.row, tuple(self.history))
        before = {"i": photograph if first is None else first}
        return Checker(self.records, SHAPES, before, {"i": photograph} if last else {}).prove()


def begun() -> Forger:
    """Submitted, with its events sent and three workers at hand."""
    forger = Forger()
    for who in ("w1", "w2", "w3"):
        forger.note(who, "hello", instance="", detail=who)
    forger.note("c", "submit", detail={"shape": "pair", "given": GIVEN})
    forger.note("c", "ack")
    for place, payload in enumerate(SENT):
        detail = {"name": "go", "key": f"k{place}", "payload": payload}
        forger.note("c", "event", detail=detail)
    return forger


def ended(forger: Forger, event: Any = SENT[0], fence: int = 2, who: str = "w1") -> Forger:
    """The second half: the event, the last body, the end."""
    forger.record("wait", event, who)
    output = forger.run(B, "b", event, who, fence)
    forger.record("b", output, who)
    forger.finish(output)
    return forger


def whole() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    return ended(forger)


def crashed() -> Forger:
    """The first worker dies over its body, and the second one does it again."""
    forger = begun()
    forger.begin("a", GIVEN, "w1", 1)
    forger.note("fleet", "kill", instance="", detail="w1")
    forger.record("a", forger.run(A, "a", GIVEN, "w2", 2), "w2")
    return ended(forger, fence=3, who="w2")


def stood_still() -> Forger:
    """The first worker is stopped, and ends its body too late; nobody listens to it."""
    forger = begun()
    forger.begin("a", GIVEN, "w1", 1)
    forger.note("fleet", "stop", instance="", detail="w1")
    forger.begin("a", GIVEN, "w2", 2)
    forger.note("fleet", "cont", instance="", detail="w1")
    forger.end(A, "a", GIVEN, "w1", 1)
    forger.record("a", forger.end(A, "a", GIVEN, "w2", 2), "w2")
    return ended(forger, fence=3, who="w2")


def test_what_is_right_passes() -> None:
    assert whole().check().repeated == 0
    after_crash = crashed().check()
    assert (after_crash.repeated, after_crash.kills_that_hit, after_crash.bodies) == (1, 1, 2)
    late = stood_still().check()
    assert (late.repeated, late.late, late.taken_over, late.stops) == (1, 1, 1, 1)


def unfinished() -> Forger:
    forger = begun()
    forger.row = replace(forger.row, status="in_progress", ended_at=None)
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    return forger


def uncalled_for() -> Forger:
    forger = whole()
    forger.begin("c", GIVEN, "w1", 1)
    return forger


def with_result_of_nobody() -> Forger:
    forger = begun()
    forger.run(A, "a", GIVEN, "w1", 1)
    forger.record("a", A.answer(GIVEN, 1, "nobody"))
    return ended(forger)


def with_two_results() -> Forger:
    forger = whole()
    forger.record("a", A.answer(GIVEN, 1, "w1.1"))
    return forger


def with_a_gap() -> Forger:
    forger = whole()
    forger.history.pop(1)
    return forger


def with_wrong_attempt() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1), attempt=2)
    return ended(forger)


def given_another_result() -> Forger:
    """The first execution was recorded, and the next body got what the second one answered."""
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    forger.record("wait", SENT[0])
    other = {**SENT[0], "by": "another"}
    output = forger.run(B, "b", other, "w1", 2)
    forger.record("b", output)
    forger.finish(output)
    return forger


def with_wrong_answer() -> Forger:
    forger = begun()
    wrong = {"n": 1, "by": "w1.1"}
    forger.begin("a", GIVEN, "w1", 1)
    forger.note("w1", "end", path="a", attempt=1, fence=1, digest=digest(wrong))
    forger.record("a", wrong)
    return ended(forger)


def with_wrong_output() -> Forger:
    forger = whole()
    forger.finish({"n": 3, "by": "somebody"})
    return forger


def failed() -> Forger:
    forger = whole()
    forger.row = replace(forger.row, status="failed", output=None)
    return forger


def twice_in_one_lease() -> Forger:
    forger = begun()
    forger.run(A, "a", GIVEN, "w1", 1)
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    return ended(forger)


def twice_without_a_crash() -> Forger:
    forger = crashed()
    forger.records = [record for record in forger.records if record.kind != "kill"]
    return forger


def two_at_once() -> Forger:
    """Another instance's crash is no excuse: one begins while the other is at work."""
    forger = begun()
    forger.begin("a", GIVEN, "w1", 1)
    forger.begin("b", SENT[0], "w2", 2)
    forger.record("a", forger.end(A, "a", GIVEN, "w1", 1))
    forger.record("wait", SENT[0], "w2")
    output = forger.end(B, "b", SENT[0], "w2", 2)
    forger.record("b", output, "w2")
    forger.finish(output)
    return forger


def again_after_completion() -> Forger:
    forger = whole()
    forger.run(A, "a", GIVEN, "w2", 3)
    return forger


def with_wrong_event() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    return ended(forger, SENT[1])


def held() -> Forger:
    forger = whole()
    forger.row = replace(forger.row, worker_id="w1~0123456789ab")
    return forger


def late_write() -> Forger:
    """The one that stood still is recorded, though another had taken over."""
    forger = begun()
    forger.begin("a", GIVEN, "w1", 1)
    forger.note("fleet", "stop", instance="", detail="w1")
    forger.begin("a", GIVEN, "w2", 2)
    forger.note("fleet", "cont", instance="", detail="w1")
    forger.record("a", forger.end(A, "a", GIVEN, "w1", 1))
    forger.end(A, "a", GIVEN, "w2", 2)
    return ended(forger, fence=3, who="w2")


def with_falling_fences() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 5))
    forger.note("fleet", "stop", instance="", detail="w1")
    return ended(forger, fence=2)


def with_one_fence_for_two() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1))
    return ended(forger, fence=1, who="w2")


def under_another_name() -> Forger:
    forger = begun()
    forger.record("a", forger.run(A, "a", GIVEN, "w1", 1), "w3")
    return ended(forger)


@pytest.mark.parametrize(
    ("forge", "clause", "says"),
    [
        (unfinished, "i", "never ended"),
        (uncalled_for, "iii", "c should never have begun"),
        (with_result_of_nobody, "ii", "no execution"),
        (with_two_results, "ii", "a has 2 results"),
        (with_a_gap, "ii", "stands at place"),
        (with_wrong_attempt, "ii", "attempts of a"),
        (given_another_result, "iii", "was given something else"),
        (with_wrong_answer, "iii", "should have given"),
        (with_wrong_output, "iii", "it is completed with"),
        (failed, "iii", "it is failed"),
        (twice_in_one_lease, "iv", "twice under one lease"),
        (twice_without_a_crash, "iv", "nothing befell it"),
        (two_at_once, "iv", "was running"),
        (again_after_completion, "v", "was completed"),
        (with_wrong_event, "vii", "came as"),
        (held, "viii", "still held by w1"),
        (late_write, "ix", "a late write was accepted"),
        (with_falling_fences, "ix", "after a row under fence 5"),
        (with_one_fence_for_two, "ix", "shares its fence"),
        (under_another_name, "ix", "recorded as one of w3"),
    ],
)
def test_each_breach_is_seen(forge: Callable[[], Forger], clause: str, says: str) -> None:
    with pytest.raises(BreachError) as caught:
        forge().check()
    assert f"({clause}) i: " in str(caught.value)
    assert says in str(caught.value)


def test_what_is_lost_is_seen() -> None:
    with pytest.raises(BreachError, match=r"\(i\) i: it was acknowledged, and is not there"):
        whole().check(last=False)
    stray = whole()
    stray.records = [record for record in stray.records if record.kind != "submit"]
    with pytest.raises(BreachError, match=r"\(i\) i: nobody submitted it"):
        stray.check()


def test_what_changes_after_its_end_is_seen() -> None:
    forger = whole()
    before = Photograph(forger.row, tuple(forger.history))
    assert forger.check(first=before).changed == 0
    for row in (replace(forger.row, updated_at=10.0), replace(forger.row, status="cancelled")):
        changed = Photograph(row, before.history)
        with pytest.raises(BreachError, match=r"\(vi\) i: its end changed"):
            forger.check(first=changed)
    longer = Photograph(forger.row, before.history[:-1])
    with pytest.raises(BreachError, match=r"\(vi\) i: its end changed"):
        forger.check(first=longer)


def test_an_end_without_a_beginning_is_no_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "w1")
    ledger.note("end", "i", path="a", attempt=1, fence=1)
    ledger.close()
    with pytest.raises(ValueError, match="had not begun"):
        Checker(read(tmp_path), SHAPES, {}, {}).prove()


# Items of a spread map, which are instances of their own.

C = Body("c", act="list", size=2)


def shared(replay: Replay, value: Any) -> Any:
    return replay.shared("each", replay.ran(C, "c", value), lambda item, x: item.ran(A, "a", x))


SPREAD = then(Flow("shared"), C).map(A.task(), name="each", spread=True).build()


def family(changed: str = "") -> dict[str, Forger]:
    """A parent and its two items, where all is well but for one thing."""
    parent = Forger()
    parent.note("w1", "hello", instance="", detail="w1")
    parent.note("c", "submit", detail={"shape": "shared", "given": GIVEN})
    parent.note("c", "ack")
    given = parent.run(C, "c", GIVEN, "w1", 1)
    parent.record("c", given)
    made, outputs = {"i": parent}, []
    for index, item in enumerate(given):
        name = f"i~1.3[{index}]"
        own = Forger(clock=parent.clock)
        own.row = replace(own.row, instance_id=name)
        taken = given[0] if changed == "another input" else item
        for kind, value in (("start", taken), ("end", A.answer(taken, 1, "w1.0"))):
            own.note("w1", kind, instance=name, path="a", attempt=1, fence=1, digest=digest(value))
        output = A.answer(taken, 1, "w1.0")
        own.record("a", output)
        own.finish(output)
        parent.clock = own.clock
        outputs.append(output)
        if not (index == 1 and changed == "one is missing"):
            made[name] = own
    if changed == "one is doubled":
        twin = made["i~1.3[1]"]
        twin.row = replace(twin.row, instance_id="i~2.3[1]")
        made |= {"i~2.3[1]": twin, "i~1.3[1]": family()["i~1.3[1]"]}
    if changed == "outputs are swapped":
        outputs.reverse()
    if changed == "one never ended":
        made["i~1.3[0]"].row = replace(made["i~1.3[0]"].row, status="waiting")
    parent.record("each", outputs)
    parent.finish(outputs)
    return made


def check_family(made: dict[str, Forger]) -> Tally:
    records = [record for forger in made.values() for record in forger.records]
    last = {name: Photograph(one.row, tuple(one.history)) for name, one in made.items()}
    shapes = {"shared": Shape(SPREAD, shared)}
    return Checker(sorted(records, key=lambda one: one.at), shapes, {}, last).prove()


def test_a_family_that_is_right_passes() -> None:
    tally = check_family(family())
    assert (tally.instances, tally.bodies, tally.repeated) == (1, 3, 0)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ("one is missing", r"\(i\) i: each has the items"),
        ("one is doubled", r"\(i\) i: each has the items"),
        ("another input", r"\(iii\) i~1.3\[1\]: .* was given something else"),
        ("outputs are swapped", r"\(iii\) i: each\[0\] is"),
        ("one never ended", r"\(i\) i~1.3\[0\]: it never ended"),
    ],
)
def test_each_breach_of_a_family_is_seen(changed: str, says: str) -> None:
    with pytest.raises(BreachError, match=says):
        check_family(family(changed))
