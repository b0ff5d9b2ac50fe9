"""The replay: what the store recorded of one instance, walked through as the flow should have gone.

It is what an oracle of `shapes` talks to. At each body it holds together what the body was given,
what it answered and what was recorded; it collects what does not fit (`breaches`) and goes on with
what was recorded. At the end it names what was recorded or executed and should not have been.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sayiir import EventTimeout, LoopResult
from sayiir._codec import decode_payload, read_error
from sayiir._core import StepRow
from sayiir.backends import HistoryRow, InstanceRow

from .bodies import Body
from .executions import Execution
from .ledger import digest
from .shapes import Fails, Oracle

FINAL = ("completed", "failed", "elapsed")


class Stuck(Exception):
    """There is no record to go on with."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """What the store said of one instance at one moment."""

    row: InstanceRow
    history: Sequence[HistoryRow]


@dataclass(frozen=True, slots=True)
class Share:
    """One use of a spread map: what its items were given, what they came to, and their oracle."""

    path: str
    given: list[Any]
    outputs: list[Any]
    item: Oracle


@dataclass(slots=True)
class Recorded:
    """A `Replay` of one instance; see the module's opening."""

    photograph: Photograph
    executions: Sequence[Execution]
    breaches: list[str] = field(default_factory=list)
    consumed: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """The events that waits were given, by name, in order."""
    shares: list[Share] = field(default_factory=list)
    """Spread maps, of whose items there are records of their own."""
    _rows: dict[str, list[StepRow]] = field(default_factory=lambda: defaultdict(list))
    _ran: dict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list))
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for line in self.photograph.history:
            self._rows[line.step.path].append(line.step)
        for execution in self.executions:
            self._ran[execution.path].append(execution)

    def object(self, clause: str, text: str) -> None:
        """Take down a breach of a clause of the checker."""
        self.breaches.append(f"({clause}) {self.photograph.row.instance_id}: {text}")

    # What oracles ask.

    def ran(self, body: Body, path: str, given: Any) -> Any:
        """See `Replay.ran`."""
        row = self._body(body, path, given, "completed")
        output = None if row.output is None else decode_payload(row.output)
        made = [one for one in self._ran[path] if one.attempt == row.attempt]
        if digest(output) not in {one.digest for one in made if one.outcome == "end"}:
            self.object("ii", f"{path} has a result that no execution of it gave: {output!r}")
        expected = body.answer(given, row.attempt, _mark(output))
        if digest(expected) != digest(output):
            self.object("iii", f"{path} gave {output!r}, and should have given {expected!r}")
        return output

    def fell(self, body: Body, path: str, given: Any) -> None:
        """See `Replay.fell`."""
        row = self._body(body, path, given, "failed")
        if row.error is None or read_error(row.error).error_type != "Broken":
            self.object("ii", f"{path} failed with another error than its own")

    def _body(self, body: Body, path: str, given: Any, outcome: str) -> StepRow:
        self._seen.add(path)
        for execution in self._ran[path]:
            if execution.given != digest(given):
                self.object("iii", f"{execution} was given something else than {given!r}")
        rows = self._rows[path]
        if not rows:
            raise Stuck(f"{path} has no record")
        expected = ["retried"] * (body.attempts(given) - 1) + [outcome]
        if [row.outcome for row in rows] != expected:
            self.object("ii", f"{path} is recorded as {_outline(rows)}, not as {expected}")
        if [row.attempt for row in rows] != list(range(1, len(rows) + 1)):
            self.object("ii", f"the attempts of {path} are recorded as {_outline(rows)}")
        return rows[-1]

    def got(self, path: str, name: str) -> Any:
        """See `Replay.got`."""
        row = self._single(path, "completed")
        payload = None if row.output is None else decode_payload(row.output)
        self.consumed[name].append(payload)
        return payload

    def elapsed(self, path: str) -> None:
        """See `Replay.elapsed`."""
        row = self._single(path, "elapsed")
        if row.output is not None:
            output = decode_payload(row.output)
            if output != EventTimeout(row.name):
                self.object("ii", f"{path} elapsed with {output!r}")

    def shared(self, path: str, given: list[Any], item: Oracle) -> list[Any]:
        """See `Replay.shared`."""
        row = self._single(path, "completed")
        outputs = None if row.output is None else decode_payload(row.output)
        if not isinstance(outputs, list) or len(outputs) != len(given):
            raise Stuck(f"{path} has {outputs!r}, and was given {len(given)} items")
        self.shares.append(Share(path, given, outputs, item))
        return outputs

    def _single(self, path: str, outcome: str) -> StepRow:
        self._seen.add(path)
        rows = self._rows[path]
        if not rows:
            raise Stuck(f"{path} has no record")
        if [row.outcome for row in rows] != [outcome]:
            self.object("ii", f"{path} is recorded as {_outline(rows)}, not once as {outcome}")
        return rows[-1]

    # What the checker asks.

    def walk(self, oracle: Oracle, given: Any) -> None:
        """Follow the oracle from the input to the end, and compare the end."""
        row = self.photograph.row
        try:
            expected = oracle(self, given)
        except Stuck as stuck:
            self.object("iii", f"it is {row.status}, and {stuck}")
            return
        except Fails as failure:
            error = None if row.error is None else read_error(row.error)
            told = None if error is None else (error.error_type, error.path)
            if row.status != "failed" or told != (failure.error_type, failure.path):
                self.object("iii", f"it is {row.status} ({told}), and should have been: {failure}")
        except Exception as error:
            # What was recorded is anything; that the oracle cannot make sense of it is a finding.
            self.object("iii", f"its records cannot be followed: {error!r}")
            return
        else:
            output = None if row.output is None else decode_payload(row.output)
            if row.status != "completed" or digest(output) != digest(expected):
                self.object("iii", f"it is {row.status} with {output!r}, not {expected!r}")
        for path in sorted({*self._rows, *self._ran} - self._seen):
            if self._rows[path] or self._ran[path]:
                self.object("iii", f"{path} should never have begun")


def _mark(output: Any) -> str:
    """The execution that made this output, by its own words."""
    match output:
        case {"by": str(by)} | [{"by": str(by)}, *_]:
            return by
        case LoopResult():
            return _mark(output.value)
        case _:
            return ""


def _outline(rows: Sequence[StepRow]) -> str:
    return ", ".join(f"{row.outcome} (attempt {row.attempt})" for row in rows)
