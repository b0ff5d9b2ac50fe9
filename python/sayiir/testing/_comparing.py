"""What a run came to, and how two runs differ, in words.

Values are compared as they are stored, and as they are read where the bytes differ. Nothing is run
here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sayiir._codec import decode_payload

__all__ = ["Outcome", "difference"]

LONGEST_VALUE = 300
"""So many characters of a value are shown."""


@dataclass(slots=True)
class Outcome:
    """All of a run that another run is compared with."""

    status: str = ""
    output: bytes | None = None
    error: str | None = None
    """Type and text of the failure, if it failed."""
    steps: dict[str, bytes] = field(default_factory=dict)
    """The stored output of each step by its path, in the order of their ends."""
    commits: list[tuple[str, ...]] = field(default_factory=list)
    """The paths of the steps in each commit."""
    bodies: list[tuple[str, int]] = field(default_factory=list)
    """Path and attempt of each body, in the order of their beginnings."""
    observed: object = None


def difference(expected: Outcome, found: Outcome, first: str, second: str) -> str | None:
    """How the second run differs from the first, in lines; `None` if it does not.

    `first` and `second` say which is which: "without the crash", "with it".
    """
    lines = []
    if found.status != expected.status or found.error != expected.error:
        lines += [f"The end {first}: {_end(expected)}", f"The end {second}: {_end(found)}"]
    elif not _same(expected.output, found.output):
        lines += [
            f"The output {first}: {_shown(expected.output)}",
            f"The output {second}: {_shown(found.output)}",
        ]
    if expected.observed != found.observed:
        lines += [
            f"Observed {first}: {_cut(repr(expected.observed))}",
            f"Observed {second}: {_cut(repr(found.observed))}",
        ]
    if not lines:
        return None
    for path, output in expected.steps.items():
        if path in found.steps and not _same(output, found.steps[path]):
            was, now = _shown(output), _shown(found.steps[path])
            lines.insert(0, f"The first step that differs: {path!r} gave {was}, then {now}")
            break
    return "\n".join(lines)


def _same(one: bytes | None, other: bytes | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or bool(decode_payload(one) == decode_payload(other))


def _end(outcome: Outcome) -> str:
    what = f" with {outcome.error}" if outcome.error else ""
    return f"{outcome.status}{what}"


def _shown(output: bytes | None) -> str:
    return "nothing" if output is None else _cut(repr(decode_payload(output)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
