"""A workflow run again and again, with a crash at every checkpoint, and its outputs compared.

Whatever a worker does is lost when it crashes, except for what it has committed; another one goes
on from there when the lease has run out. `crash_after_each_step` lets a worker die at every commit
of a run in turn: once before it, so that the step's body runs a second time, and once behind it, so
that everything is read back from the store. A workflow whose steps may be repeated comes to the
same output each time; where one does not, the step that differs is named.

It all happens in memory and in virtual time. What a step does outside of its return value is seen
through `observe`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sayiir._argument import checked_workflow
from sayiir._codec import decode_payload
from sayiir._workflow import Workflow

from ._comparing import Outcome, difference
from ._mocking import Mocks
from ._rehearsal import Crash, Rehearsal

__all__ = ["CrashPoint", "CrashReport", "crash_after_each_step", "crash_after_each_step_async"]

In = TypeVar("In")
Out = TypeVar("Out")

Event = tuple[str, Any]
Mocked = Mapping["str | Callable[..., Any]", Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """One moment at which the worker died, and what the workflow made of it."""

    number: int
    """Which commit of the run it was, from 1."""
    moment: Literal["before", "after"]
    """Whether the worker died before the commit was made or behind it."""
    steps: tuple[str, ...]
    """The paths of the steps whose results were in the commit."""
    repeated: tuple[str, ...]
    """The paths of the steps whose bodies ran again because of the crash."""

    def __str__(self) -> str:
        steps = ", ".join(map(repr, self.steps)) or "its position alone"
        return f"{self.moment} checkpoint {self.number}, of {steps}"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What `crash_after_each_step` gives when all is well."""

    output: Any
    """What the workflow came to, with and without crashes; `None` if it failed every time alike."""
    points: tuple[CrashPoint, ...]
    """Where it was made to crash, in order."""


async def crash_after_each_step_async(
    workflow: Workflow[In, Any],
    input: In | None = None,
    *,
    events: Sequence[Event] = (),
    mocks: Mocked | None = None,
    reset: Callable[[], object] | None = None,
    observe: Callable[[], object] | None = None,
    limit: int = 500,
) -> CrashReport:
    """See `crash_after_each_step`, of which this is the twin for code on an event loop.

    >>> import asyncio
    >>> from sayiir import Flow
    >>> flow = Flow("sum").then(abs, name="a").delay("rest", "1h").then(str, name="b").build()
    >>> report = asyncio.run(crash_after_each_step_async(flow, -7))
    >>> report.output, len(report.points)
    ('7', 4)
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, got {limit}")
    rehearsed = _mocked(checked_workflow(workflow), mocks)

    async def once(crash: Crash | None = None) -> Outcome:
        if reset is not None:
            reset()
        rehearsal = Rehearsal(rehearsed, input, tuple(events), crash)
        outcome = await rehearsal.run()
        outcome.observed = None if observe is None else observe()
        return outcome

    name = repr(workflow.workflow_id)
    expected = await once()
    again = await once()
    if (found := difference(expected, again, "the first time", "the second time")) is not None:
        raise AssertionError(
            f"workflow {name} does not do the same a second time, without any crash.\n{found}\n"
            "If the first run left something behind, undo it in reset=…"
        )
    if 2 * len(expected.commits) > limit:
        raise ValueError(
            f"workflow {name} has {len(expected.commits)} checkpoints, which makes "
            f"{2 * len(expected.commits)} runs, and the limit is {limit}; give it a smaller input, "
            "or a higher limit=…"
        )
    points = []
    for number in range(1, len(expected.commits) + 1):
        for moment in ("before", "after"):
            outcome = await once(Crash(number, moment))
            point = _point(number, moment, expected, outcome)
            found = difference(expected, outcome, "without the crash", "with it")
            if found is not None:
                raise AssertionError(_indictment(name, point, found))
            points.append(point)
    output = expected.output
    return CrashReport(None if output is None else decode_payload(output), tuple(points))


def crash_after_each_step(
    workflow: Workflow[In, Any],
    input: In | None = None,
    *,
    events: Sequence[Event] = (),
    mocks: Mocked | None = None,
    reset: Callable[[], object] | None = None,
    observe: Callable[[], object] | None = None,
    limit: int = 500,
) -> CrashReport:
    """Assert that a workflow comes to the same output wherever its worker crashes.

    It is run twice without a crash, and then with one before and one behind each of its
    checkpoints. Delays, retries and timeouts take no time.

    Args:
        workflow: What is run; it is not changed.
        input: Its input.
        events: `(name, payload)` pairs that are sent right after the submit, in this order.
        mocks: What is called in place of tasks, by name, path or function: each takes the task's
            input.
        reset: Called before each run, to undo what the former one did outside.
        observe: Called after each run; what it returns must be the same each time. For effects that
            the output does not show.
        limit: The most runs with a crash.

    Returns:
        The output, and every point at which there was a crash.

    Raises:
        AssertionError: It came to something else; the text names the crash, the first step that
            differs, and both outputs. Also when it never ends for want of an event.
        LookupError: A mock is for a task that the workflow does not have.
        ValueError: It has more checkpoints than the `limit` allows.
        RuntimeError: Called on a running event loop; use `crash_after_each_step_async`.

    >>> from sayiir import Flow
    >>> from sayiir.testing import crash_after_each_step
    >>> ledger = []
    >>> def charge(cents):
    ...     ledger.append(cents)
    ...     return len(ledger)
    >>> flow = Flow("pay").then(charge).build()
    >>> crash_after_each_step(flow, 5, reset=ledger.clear)
    Traceback (most recent call last):
    AssertionError: workflow 'pay' comes to something else when its worker crashes...
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            coroutine = crash_after_each_step_async(
                workflow,
                input,
                events=events,
                mocks=mocks,
                reset=reset,
                observe=observe,
                limit=limit,
            )
            return runner.run(coroutine, context=contextvars.copy_context())
    raise RuntimeError(
        "crash_after_each_step() would block the running event loop; use "
        "`await crash_after_each_step_async(…)` instead"
    )


def _mocked(workflow: Workflow[In, Out], mocks: Mocked | None) -> Workflow[In, Out]:
    """The workflow with its mocks in place."""
    if not mocks:
        return workflow
    placed = Mocks()
    for target, stand_in in mocks.items():
        placed.mock(target, side_effect=stand_in)
    placed.check([workflow])
    return placed.applied(workflow)


def _point(
    number: int, moment: Literal["before", "after"], expected: Outcome, outcome: Outcome
) -> CrashPoint:
    steps = outcome.commits[number - 1] if len(outcome.commits) >= number else ()
    # Counted by step: in a fork the bodies may begin in another order.
    left = list(expected.bodies)
    repeated = []
    for body in outcome.bodies:
        if body in left:
            left.remove(body)
        else:
            repeated.append(body[0])
    return CrashPoint(number, moment, steps, tuple(repeated))


def _indictment(name: str, point: CrashPoint, found: str) -> str:
    """What to say of a workflow that is not the same after a crash."""
    again = ", ".join(map(repr, point.repeated))
    ran = f"; after it {again} ran again" if again else ""
    return (
        f"workflow {name} comes to something else when its worker crashes.\n"
        f"The crash: {point}{ran}.\n{found}\n"
        "A step may run again after a crash: let what it returns and does depend on its input "
        "alone, and give services that it calls the idempotency_key of get_task_context()"
    )
