"""What has run, as an assertion reads it.

A `History` is the list of an instance's steps with the questions that tests ask of it. The
assertions take a history, or the list that `WorkflowClient.history` gives, and say what has run
when they fail. Nothing here asks a backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from sayiir._listing import StepInfo

__all__ = ["History", "assert_never_ran", "assert_ran", "assert_ran_once"]

ENDED_WELL = ("completed", "elapsed")


class History(Sequence[StepInfo]):
    """The steps of one instance, oldest first; each attempt of a step is one entry.

    Steps are named by their path, or by the name of their task, delay or wait.

    >>> from sayiir import Flow
    >>> from sayiir.testing import TestEnvironment
    >>> env = TestEnvironment()
    >>> flow = Flow("sum").then(abs, name="a").then(abs, name="b").build()
    >>> history = env.sync.history(env.sync.run(flow, -1))
    >>> history.paths, history.attempts("a"), len(history)
    (['a', 'b'], 1, 2)
    >>> env.close()
    """

    __slots__ = ("_steps",)

    def __init__(self, steps: Iterable[StepInfo]) -> None:
        self._steps = tuple(steps)

    @property
    def paths(self) -> list[str]:
        """The paths of the steps that came to a good end, in the order of their ends."""
        return [step.path for step in self._steps if step.outcome in ENDED_WELL]

    @property
    def tasks(self) -> list[str]:
        """As `paths`, the names of the tasks, delays and waits."""
        return [step.task for step in self._steps if step.outcome in ENDED_WELL]

    def of(self, name: str) -> list[StepInfo]:
        """Every attempt of the steps of this path, else of this name."""
        by_path = [step for step in self._steps if step.path == name]
        return by_path or [step for step in self._steps if step.task == name]

    def attempts(self, name: str) -> int:
        """How many attempts of it have ended, good or bad."""
        return len(self.of(name))

    @overload
    def __getitem__(self, index: int) -> StepInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StepInfo]: ...
    def __getitem__(self, index: int | slice) -> StepInfo | Sequence[StepInfo]:
        return self._steps[index]

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[StepInfo]:
        return iter(self._steps)

    def __eq__(self, other: object) -> bool:
        return self._steps == other._steps if isinstance(other, History) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._steps)

    def __repr__(self) -> str:
        return f"<History of {len(self)} steps: {', '.join(map(_line, self._steps)) or 'none'}>"

    def __str__(self) -> str:
        if not self._steps:
            return "  (nothing has run)"
        return "\n".join(f"  {number}. {_line(step)}" for number, step in enumerate(self, 1))


def assert_ran(history: Iterable[StepInfo], *names: str) -> None:
    """Assert that these steps came to a good end, in this order; others may have run between them.

    Args:
        history: What `TestEnvironment.history` or `WorkflowClient.history` gave.
        names: Paths, or names of tasks, delays and waits; one that ran twice may be named twice.

    Raises:
        AssertionError: One did not, or not in this order.

    >>> assert_ran([], "charge")
    Traceback (most recent call last):
    AssertionError: 'charge' did not run to a good end. The history:
      (nothing has run)
    """
    seen = History(history)
    done = [step for step in seen if step.outcome in ENDED_WELL]
    at = 0
    before = None
    for name in names:
        found = next((n for n in range(at, len(done)) if _is(done[n], name)), None)
        if found is None:
            early = any(_is(step, name) for step in done[:at])
            what = (
                f"{name!r} did not run behind {before!r}"
                if early
                else f"{name!r} did not run to a good end"
            )
            raise AssertionError(f"{what}. The history:\n{seen}")
        at, before = found + 1, name


def assert_ran_once(history: Iterable[StepInfo], *names: str) -> None:
    """Assert of each of these steps that it had one attempt, and that it came to a good end.

    Arguments as for `assert_ran`; the order does not matter.

    Raises:
        AssertionError: One did not, or had several.
    """
    seen = History(history)
    for name in names:
        found = seen.of(name)
        if len(found) != 1 or found[0].outcome not in ENDED_WELL:
            what = f"had {len(found)} attempts" if len(found) != 1 else f"{found[0].outcome}"
            raise AssertionError(f"{name!r} {what}, not one good one. The history:\n{seen}")


def assert_never_ran(history: Iterable[StepInfo], *names: str) -> None:
    """Assert of each of these steps that no attempt of it has ended, good or bad.

    Arguments as for `assert_ran`. A name that the workflow does not have never ran either.

    Raises:
        AssertionError: One did.
    """
    seen = History(history)
    for name in names:
        if found := seen.of(name):
            raise AssertionError(f"{name!r} ran {len(found)} times. The history:\n{seen}")


def _is(step: StepInfo, name: str) -> bool:
    return name in (step.path, step.task)


def _line(step: StepInfo) -> str:
    """One step for a reader."""
    attempt = "" if step.attempt <= 1 else f", attempt {step.attempt}"
    error = "" if step.error_type is None else f" with {step.error_type}"
    name = step.path if step.path.split("/")[-1] == step.task else f"{step.path} ({step.task})"
    return f"{name}: {step.outcome}{error}{attempt}"
