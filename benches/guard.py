"""The regression guard: what the hot paths cost in instructions, held against a committed baseline.

    python -m benches.guard              # compare; ends with 1 when something moved
    python -m benches.guard --write      # make the baseline anew, after a change that is meant

Seconds depend on the machine and on who else uses it; instructions hardly do. Each case runs under
valgrind's callgrind twice, with different rounds; the difference by round is what one costs,
without the start of the program. More than 3 % above the baseline is a regression; more than 3 %
below is a gain that the baseline does not know yet and that would hide the next loss, so that
fails too.

The cases in Rust are `rust/store/benches/instructions.rs`; those of the value codec are here, since
it reads Python objects, and run against the installed `sayiir._core`. Counts are those of one
compiler and one target: with others there is nothing to compare, which is said and ends with 2.
It refuses to install anything, and knows nothing of seconds.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Finding", "compare"]

ROOT = Path(__file__).parent.parent
BASELINE = Path(__file__).parent / "baseline" / "instructions.json"
ALLOWED = 0.03
"""How far a count may be from its baseline, as a share of it."""
MAKE_ANEW = "make guard-baseline"

# Fewer rounds where one is long.
ROUNDS = {"memory, 1,000 steps of one instance": 5}
USUAL_ROUNDS = 200

# Encoded and decoded in a loop whose own cost is small beside them.
CODEC_CASES = {
    "value, encode 100 B": "encode_value(small)",
    "value, decode 100 B": "decode_value(small_bytes)",
    "value, encode 10 kB": "encode_value(large)",
    "value, decode 10 kB": "decode_value(large_bytes)",
}
CODEC_PROGRAM = """
import gc, sys
from sayiir._core import decode_value, encode_value
gc.disable()
small = {"id": 12345, "customer": "Ada Lovelace", "paid": True, "total": 99.95,
         "tags": ["new", "gift"], "lines": [{"sku": "A-1", "n": 2}]}
large = {"orders": [dict(small) for _ in range(80)]}
small_bytes, large_bytes = encode_value(small), encode_value(large)
for _ in range(int(sys.argv[1])):
    WORK
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One case against its baseline; `None` where it is unknown on one side.

    >>> Finding("step", 1000, 1020).verdict, Finding("step", 1000, 1050).verdict
    ('ok', 'slower')
    """

    case: str
    before: int | None
    now: int | None

    @property
    def change(self) -> float:
        """As a share of the baseline."""
        return (self.now or 0) / self.before - 1 if self.before else 0.0

    @property
    def verdict(self) -> str:
        """`ok`, `slower`, `faster`, `new` or `gone`; only the first lets the guard pass."""
        if self.before is None:
            return "new"
        if self.now is None:
            return "gone"
        if abs(self.change) <= ALLOWED:
            return "ok"
        return "slower" if self.change > 0 else "faster"


def compare(before: Mapping[str, int], now: Mapping[str, int]) -> list[Finding]:
    """Every case that either side knows.

    >>> [one.verdict for one in compare({"a": 100, "b": 100}, {"a": 104, "c": 1})]
    ['slower', 'gone', 'new']
    """
    cases = dict.fromkeys([*before, *now])
    return [Finding(case, before.get(case), now.get(case)) for case in cases]


def main(arguments: list[str]) -> int:
    """Count, then compare or write; the exit status."""
    if arguments not in ([], ["--write"]):
        return _say("usage: python -m benches.guard [--write]")
    if shutil.which("valgrind") is None:
        return _say("valgrind is missing, which counts the instructions: apt-get install valgrind")
    found = conditions()
    if not arguments:
        if not BASELINE.exists():
            return _say(f"there is no baseline: {MAKE_ANEW}")
        baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
        if differing := [key for key in found if found[key] != baseline["made_with"].get(key)]:
            for key in differing:
                print(f"{key}: baseline {baseline['made_with'].get(key)}, here {found[key]}")
            return _say(
                "counts of different tools cannot be compared; use those of the baseline, or make "
                f"one of your own from the commit before your change: {MAKE_ANEW}"
            )
    counts = dict(counted())
    if arguments:
        document = {"format": 1, "made_with": found, "instructions": counts}
        BASELINE.parent.mkdir(parents=True, exist_ok=True)
        BASELINE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {BASELINE.relative_to(ROOT)}: {len(counts)} cases")
        return 0
    findings = compare(baseline["instructions"], counts)
    _print(findings)
    moved = [one for one in findings if one.verdict != "ok"]
    if moved:
        print(
            f"{len(moved)} of {len(findings)} cases moved by more than {ALLOWED:.0%}. Undo what "
            f"costs more; if it is meant, or gained, commit a new baseline with "
            f"the reason: {MAKE_ANEW}"
        )
    return 1 if moved else 0


def conditions() -> dict[str, str]:
    """What the counts depend on, beside the code."""
    rustc = _output("rustc", "-vV")
    return {
        "rustc": _field(rustc, "release"),
        "target": _field(rustc, "host"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": " ".join(platform.libc_ver()),
    }


def counted() -> Iterator[tuple[str, int]]:
    """Each case and what one round of it costs."""
    program = _built()
    for case in _output(program, "--list").splitlines():
        yield case, _one(case, program, case)
    for case, work in CODEC_CASES.items():
        yield case, _one(case, sys.executable, "-c", CODEC_PROGRAM.replace("WORK", work))


def _one(case: str, *command: str) -> int:
    rounds = ROUNDS.get(case, USUAL_ROUNDS)
    few, many = (_instructions(*command, str(n)) for n in (rounds, 3 * rounds))
    return round((many - few) / (2 * rounds))


def _instructions(*command: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        # The same words at every run, so that sets and dicts of them are laid out alike.
        ended = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *command],
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise SystemExit(f"{command[0]} failed under valgrind:\n{ended.stderr[-2_000:]}")
        found = re.search(r"Collected *: *(\d+)", ended.stderr)
    if found is None:
        raise SystemExit(f"valgrind said no count:\n{ended.stderr[-2_000:]}")
    return int(found[1])


def _built() -> str:
    """The program with the cases, built like a release."""
    lines = _output(
        *("cargo", "bench", "--quiet", "--no-run", "--locked", "--package=sayiir-store"),
        *("--bench=instructions", "--message-format=json"),
    )
    messages: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    return next(
        str(one["executable"])
        for one in messages
        if one["reason"] == "compiler-artifact" and one["target"]["name"] == "instructions"
    )


def _output(*command: str) -> str:
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return ended.stdout


def _field(text: str, name: str) -> str:
    return next(line.partition(": ")[2] for line in text.splitlines() if line.startswith(name))


def _print(findings: list[Finding]) -> None:
    width = max(len(one.case) for one in findings)
    for one in findings:
        before, now = (f"{n:,}" if n is not None else "–" for n in (one.before, one.now))
        print(f"{one.case:{width}}  {before:>12}  {now:>12}  {one.change:+7.2%}  {one.verdict}")


def _say(text: str) -> int:
    print(f"guard: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
