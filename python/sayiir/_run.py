"""Running workflows right here, without a worker: the functions of published 1.0.0 and their twins.

The same engine, the same leases and the same results as a worker: the instance is submitted,
claimed by its id, and driven. What parks for a backoff is waited for; `run_durable_workflow`
returns at delays and events, `run_workflow` waits for them too. `KeyboardInterrupt` and
`SystemExit` propagate and leave the instance where it was, to be resumed.

Each function has a twin whose name ends in `_async`, for code that runs on an event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from ._client import WorkflowClient
from ._codec import at_rest_of, from_rest, read_error
from ._conflict import ConflictPolicyLike
from ._core import Claimant, Run
from ._duration import Duration, parse_duration
from ._errors import TaskError, TaskTimeout, WorkflowCancelled, WorkflowError
from ._handle import typed_status
from ._invoke import Invoker, default_processes
from ._leases import keep_leases
from ._logging import fields_about
from ._observation import observation_of
from ._output import made_output, output_converter
from ._runner import Runner
from ._status import WorkflowStatus
from ._submission import fresh_id
from ._worker import take_up
from ._workflow import Workflow
from .backends import Backend, InMemoryBackend, InstanceRow
from .backends._view import holder_name, worker_name

__all__ = [
    "cancel_workflow",
    "cancel_workflow_async",
    "pause_workflow",
    "pause_workflow_async",
    "resume_workflow",
    "resume_workflow_async",
    "run_durable_workflow",
    "run_durable_workflow_async",
    "run_workflow",
    "run_workflow_async",
    "send_signal",
    "send_signal_async",
    "unpause_workflow",
    "unpause_workflow_async",
]

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

_log = logging.getLogger("sayiir.run")

WIDTH = 64
"""How many steps of the instance run at once."""
LEASE_TTL = "30s"
PRIVATE_LEASE_TTL = 10 * 365 * 86_400.0
POLL = 0.25
"""How often, in seconds, an instance that somebody else holds is looked at when no hint comes."""


async def run_workflow_async(
    workflow: Workflow[In, Out],
    input: In,
    *,
    instance_id: str | None = None,
    backend: Backend | None = None,
    conflict_policy: ConflictPolicyLike | None = None,
) -> Out:
    """Run a workflow to its end and give its output; the twin of `run_workflow`.

    >>> import asyncio
    >>> from sayiir import Flow, run_workflow_async
    >>> double = Flow("double").then(lambda x: x * 2).build()
    >>> asyncio.run(run_workflow_async(double, 21))
    42
    """
    private = backend is None
    place = InMemoryBackend() if backend is None else backend
    chosen = fresh_id() if instance_id is None else instance_id
    client = WorkflowClient(place, conflict_policy or "fail")
    await client.submit(workflow, chosen, input)
    row, error = await _drive(
        place,
        workflow,
        chosen,
        through_parks=True,
        lease_ttl=None if private else parse_duration(LEASE_TTL),
    )
    if row.status == "completed" and row.output is not None:
        output: Out = made_output(
            output_converter(workflow),
            from_rest(at_rest_of(place), row.output, chosen, "output"),
            f"the output of instance {chosen!r}",
        )
        return output
    if row.status == "failed":
        raise _task_error(row, error)
    if row.status == "cancelled":
        raise WorkflowCancelled(await client.status(chosen))
    waits = f" for event {row.signal_name!r}" if row.signal_name else ""
    raise WorkflowError(
        f"instance {chosen!r} did not complete: it is {row.status}{waits}; go on with "
        "resume_workflow(…), or use run_durable_workflow(…) to see its status",
        instance_id=chosen,
    )


async def run_durable_workflow_async(
    workflow: Workflow[In, Out],
    instance_id: str,
    input: In,
    backend: Backend | None = None,
    conflict_policy: ConflictPolicyLike | None = None,
    *,
    lease_ttl: Duration = LEASE_TTL,
) -> WorkflowStatus[Out]:
    """Run a workflow until it ends or parks; the twin of `run_durable_workflow`."""
    lease = parse_duration(lease_ttl, name="lease_ttl", allow_zero=False)
    place = InMemoryBackend() if backend is None else backend
    client = WorkflowClient(place, conflict_policy or "fail")
    await client.submit(workflow, instance_id, input)
    await _drive(place, workflow, instance_id, through_parks=False, lease_ttl=lease)
    return typed_status(await client.status(instance_id), workflow)


async def resume_workflow_async(
    workflow: Workflow[In, Out],
    instance_id: str,
    backend: Backend,
    *,
    lease_ttl: Duration = LEASE_TTL,
) -> WorkflowStatus[Out]:
    """Go on with an instance; the twin of `resume_workflow`."""
    lease = parse_duration(lease_ttl, name="lease_ttl", allow_zero=False)
    client = WorkflowClient(backend)
    row = await _known(workflow, instance_id, backend)
    if row.status not in ("completed", "failed", "cancelled", "paused"):
        await _drive(backend, workflow, instance_id, through_parks=False, lease_ttl=lease)
    return typed_status(await client.status(instance_id), workflow)


async def cancel_workflow_async(
    instance_id: str,
    backend: Backend,
    reason: str | None = None,
    cancelled_by: str | None = None,
) -> None:
    """Cancel an instance; the twin of `cancel_workflow`."""
    await WorkflowClient(backend).cancel(instance_id, reason=reason, cancelled_by=cancelled_by)


async def pause_workflow_async(
    instance_id: str,
    backend: Backend,
    reason: str | None = None,
    paused_by: str | None = None,
) -> None:
    """Pause an instance; the twin of `pause_workflow`."""
    await WorkflowClient(backend).pause(instance_id, reason=reason, paused_by=paused_by)


async def unpause_workflow_async(instance_id: str, backend: Backend) -> None:
    """Take a pause back; the twin of `unpause_workflow`."""
    await WorkflowClient(backend).unpause(instance_id)


async def send_signal_async(
    instance_id: str, signal_name: str, payload: object, backend: Backend
) -> None:
    """Send an event; the twin of `send_signal`."""
    await WorkflowClient(backend).send_event(instance_id, signal_name, payload)


# Without an event loop.


def run_workflow(
    workflow: Workflow[In, Out],
    input: In,
    *,
    instance_id: str | None = None,
    backend: Backend | None = None,
    conflict_policy: ConflictPolicyLike | None = None,
) -> Out:
    """Run a workflow to its end, here and now, and give its output.

    Args:
        workflow: What to run.
        input: What its first step gets.
        instance_id: The id to run under; by default a fresh one.
        backend: Where the instance lives; by default in memory, gone afterwards.
        conflict_policy: What to do when the id is taken: `"fail"` (default), `"use_existing"` (go
        on
            with it), `"terminate_existing"`.

    Raises:
        TaskError: A task failed; the original exception is its `__cause__`.
        WorkflowCancelled: Somebody cancelled it.
        WorkflowError: It waits for an event that cannot come, or was paused.
        InstanceAlreadyExistsError, DefinitionMismatchError: The id is taken.
        EncodeError: The input cannot be stored.
        RuntimeError: Called on a running event loop; use `run_workflow_async`.

    >>> from sayiir import Flow, run_workflow
    >>> run_workflow(Flow("double").then(lambda x: x * 2).build(), 21)
    42
    """
    return _blocking(
        "run_workflow",
        run_workflow_async(
            workflow,
            input,
            instance_id=instance_id,
            backend=backend,
            conflict_policy=conflict_policy,
        ),
    )


def run_durable_workflow(
    workflow: Workflow[In, Out],
    instance_id: str,
    input: In,
    backend: Backend | None = None,
    conflict_policy: ConflictPolicyLike | None = None,
    *,
    lease_ttl: Duration = LEASE_TTL,
) -> WorkflowStatus[Out]:
    """Run a workflow, here and now, until it ends or parks at a delay or an event.

    Failures are in the status, not raised. Arguments and other errors as for `run_workflow`, and
    `lease_ttl`: after how long without a sign of life of this process somebody else may go on with
    the instance. It is renewed however long a task takes; a program that is run again right after
    a crash waits for the rest of it, and says so once to the logger `sayiir.run`.

    >>> from sayiir import Flow, run_durable_workflow
    >>> status = run_durable_workflow(Flow("nap").delay("rest", "1h").build(), "run-1", None)
    >>> status.status, status.delay_id
    (<Status.WAITING: 'waiting'>, 'rest')
    """
    return _blocking(
        "run_durable_workflow",
        run_durable_workflow_async(
            workflow, instance_id, input, backend, conflict_policy, lease_ttl=lease_ttl
        ),
    )


def resume_workflow(
    workflow: Workflow[In, Out],
    instance_id: str,
    backend: Backend,
    *,
    lease_ttl: Duration = LEASE_TTL,
) -> WorkflowStatus[Out]:
    """Go on with an instance, here and now, until it ends or parks again.

    Finished tasks are not run again. An instance that somebody else is advancing is waited for; two
    concurrent resumes run each task once. `lease_ttl` is as for `run_durable_workflow`.

    Raises:
        InstanceNotFoundError: There is no such instance.
        DefinitionMismatchError: It belongs to another definition.
        RuntimeError: Called on a running event loop; use `resume_workflow_async`.

    >>> from sayiir import Flow, InMemoryBackend, resume_workflow, run_durable_workflow, send_signal
    >>> flow = Flow("ask").wait_for_event("answer").then(lambda x: x + 1).build()
    >>> backend = InMemoryBackend()
    >>> run_durable_workflow(flow, "run-1", None, backend).signal_name
    'answer'
    >>> send_signal("run-1", "answer", 41, backend)
    >>> resume_workflow(flow, "run-1", backend).output
    42
    """
    return _blocking(
        "resume_workflow",
        resume_workflow_async(workflow, instance_id, backend, lease_ttl=lease_ttl),
    )


def cancel_workflow(
    instance_id: str,
    backend: Backend,
    reason: str | None = None,
    cancelled_by: str | None = None,
) -> None:
    """Cancel an instance, as `WorkflowClient.cancel`."""
    _blocking("cancel_workflow", cancel_workflow_async(instance_id, backend, reason, cancelled_by))


def pause_workflow(
    instance_id: str,
    backend: Backend,
    reason: str | None = None,
    paused_by: str | None = None,
) -> None:
    """Pause an instance, as `WorkflowClient.pause`."""
    _blocking("pause_workflow", pause_workflow_async(instance_id, backend, reason, paused_by))


def unpause_workflow(instance_id: str, backend: Backend) -> None:
    """Take a pause back, as `WorkflowClient.unpause`."""
    _blocking("unpause_workflow", unpause_workflow_async(instance_id, backend))


def send_signal(instance_id: str, signal_name: str, payload: object, backend: Backend) -> None:
    """Send an event to an instance, as `WorkflowClient.send_event`."""
    _blocking("send_signal", send_signal_async(instance_id, signal_name, payload, backend))


# Driving.


def _blocking(name: str, coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:
            # The caller's context variables are the tasks' too.
            return runner.run(coroutine, context=contextvars.copy_context())
    coroutine.close()
    raise RuntimeError(
        f"{name}() would block the running event loop; use `await {name}_async(…)` instead"
    )


async def _known(workflow: Workflow[Any, Any], instance_id: str, backend: Backend) -> InstanceRow:
    """The row of an existing instance of this definition."""
    row = await backend.get(instance_id)
    await backend.check_submit(instance_id, workflow.program, "use_existing")
    return row


async def _drive(
    backend: Backend,
    workflow: Workflow[Any, Any],
    instance_id: str,
    *,
    through_parks: bool,
    lease_ttl: float | None,
) -> tuple[InstanceRow, BaseException | None]:
    """Advance one instance as far as it goes here; the row then, and a task's exception.

    Without a `lease_ttl` the store is private: nobody else can see it.
    """
    private = lease_ttl is None
    claimant = Claimant(
        holder_name(f"run-{os.getpid()}"),
        [workflow.program],
        # Nobody else can see a private store, so nobody could take its lease over.
        lease_ttl=PRIVATE_LEASE_TTL if lease_ttl is None else lease_ttl,
        width=WIDTH,
    )
    items = None
    if workflow.program.items:
        items = Claimant(
            claimant.worker_id,
            workflow.program.items,
            lease_ttl=claimant.lease_ttl,
            width=WIDTH,
        )
    native = backend if isinstance(backend, InMemoryBackend) and backend.codec is None else None
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    invoker = Invoker(threads=WIDTH, processes=default_processes(), name="sayiir-run")
    observation = observation_of(backend, worker_name(claimant.worker_id), None, None)
    runner = Runner(backend, invoker, worker_only=False, native=native, observation=observation)

    def hear(kind: str, about: str) -> None:
        # Nobody's id: another process did something, maybe to this instance.
        if about in ("", instance_id) or about.startswith(instance_id + "~"):
            loop.call_soon_threadsafe(changed.set)
            if kind == "news":
                loop.call_soon_threadsafe(runner.news, about or instance_id)

    stop_listening = backend.listen(hear)
    stop_leases = None
    error: BaseException | None = None
    told = None
    try:
        while True:
            changed.clear()
            run = await _claim(backend, native, claimant, instance_id)
            if run is not None:
                if stop_leases is None and not private:
                    stop_leases = keep_leases(backend, claimant, lambda about: hear("news", about))
                drive = await runner.drive(run)
                error = drive.error
            row = await backend.get(instance_id)
            if run is None and row.worker_id not in (None, told):
                told = row.worker_id
                _say_who_has_it(row)
            if items is not None and _awaits_items(row):
                pause = await _do_items(backend, runner, items, instance_id, through_parks)
            else:
                pause = _pause(row, backend.now(), through_parks, private)
            if pause is None:
                return row, error
            try:
                async with asyncio.timeout(pause):
                    await changed.wait()
            except TimeoutError:
                pass
    finally:
        stop_listening()
        if stop_leases is not None:
            await asyncio.to_thread(stop_leases)
        await backend.release(claimant.worker_id)
        invoker.close()


async def _claim(
    backend: Backend, native: InMemoryBackend | None, claimant: Claimant, instance_id: str
) -> Run | None:
    if native is not None:
        return native.store.claim_run_one(claimant, instance_id, native.clock())
    claim = await backend.claim_one(claimant, instance_id)
    return None if claim is None else await take_up(backend, claimant, claim)


def _say_who_has_it(row: InstanceRow) -> None:
    """Log that an instance is in other hands, for whoever wonders why nothing happens."""
    assert row.worker_id is not None
    _log.info(
        "instance %r is held by %s; waiting until it lets go. If that process is dead, its lease "
        "runs out by itself, within the lease_ttl that it was started with",
        row.instance_id,
        worker_name(row.worker_id),
        extra=fields_about(row.instance_id, row.workflow_id),
    )


def _awaits_items(row: InstanceRow) -> bool:
    """Whether the items of a spread map are all that a parked instance waits for."""
    return row.status == "waiting" and row.wake_at is None and row.worker_id is None


async def _do_items(
    backend: Backend, runner: Runner, items: Claimant, instance_id: str, through_parks: bool
) -> float | None:
    """Do what can be done of items; how long to wait then, `None` when nothing more comes of it."""
    claims = await backend.claim(items, WIDTH)
    runs = [await take_up(backend, items, claim) for claim in claims]
    if claims:
        await asyncio.gather(*(runner.drive(run) for run in runs if run is not None))
        return 0.0
    if not through_parks:
        # Somebody else may be at them; what only waits is left, as any delay or event is.
        prefix = instance_id + "~"
        active = await backend.find(status="in_progress", id_prefix=prefix, limit=1)
        return POLL if active.rows else None
    wake = await backend.next_wake()
    if not isinstance(backend, InMemoryBackend):
        return POLL
    return None if wake is None else max(wake - backend.now(), 0.0)


def _pause(row: InstanceRow, now: float, through_parks: bool, private: bool) -> float | None:
    """How long to wait before looking again; `None` when there is nothing more to do here."""
    if row.status in ("completed", "failed", "cancelled", "paused"):
        return None
    if row.worker_id is not None or row.status == "in_progress":
        return POLL
    wake = None if row.wake_at is None else max(row.wake_at - now, 0.0)
    if row.status == "waiting" and (through_parks or row.delay_id is None) and wake is not None:
        return min(wake, 3600.0)
    if row.status == "awaiting_signal" and through_parks:
        if wake is not None:
            return min(wake, 3600.0)
        return None if private else 3600.0
    return None


def _task_error(row: InstanceRow, cause: BaseException | None) -> TaskError:
    text = read_error(row.error) if row.error is not None else None
    if text is None:
        raise WorkflowError(f"instance {row.instance_id!r} failed", instance_id=row.instance_id)
    kind = TaskTimeout if text.error_type == "TaskTimeout" else TaskError
    error = kind(
        text.task,
        text.path,
        text.error_type,
        text.message,
        text.traceback or None,
        instance_id=row.instance_id,
    )
    if cause is not None and type(cause).__name__ == text.error_type:
        error.__cause__ = cause
    return error
