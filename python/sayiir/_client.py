"""The client: submit workflows, follow them, steer them.

It never executes a task and imports nothing that does. It checks arguments before it calls, encodes
what is sent and decodes what is asked for; every state and every refusal is the backend's. Any
number of event loops and threads may share a client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._argument import (
    checked_backend,
    checked_flag,
    checked_limit,
    checked_moment,
    checked_name,
    checked_note,
    checked_output,
    checked_prefix,
    checked_status,
    checked_statuses,
    checked_step_count,
    checked_task,
    checked_workflow,
)
from ._codec import at_rest_of, from_rest, to_rest
from ._conflict import ConflictPolicy, ConflictPolicyLike, conflict_policy_of
from ._core import opened_snapshot, stored_snapshot
from ._duration import Duration, parse_duration
from ._ending import Endings
from ._errors import DecodeError, EncodeError, InstanceAlreadyExistsError
from ._handle import WorkflowHandle
from ._listing import History, InstanceInfo, InstancePage, StepInfo, page_of, step_of
from ._outcome import outcome_of
from ._output import made_output
from ._status import Status, WorkflowStatus
from ._submission import checked_items, fresh_id, new_instance, submit_in_transaction
from ._tracing import tracing_here
from ._url import connect
from ._watching import Sights, Steps
from ._workflow import Workflow
from .backends._caller import in_transaction_of
from .backends._connections import recognise
from .backends._view import status_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .backends import Backend, InstanceRow
    from .codecs import Codec, PayloadCodec

__all__ = [
    "ConflictPolicy",
    "InstanceInfo",
    "InstancePage",
    "StepInfo",
    "WorkflowClient",
    "WorkflowHandle",
]

In = TypeVar("In")
Out = TypeVar("Out")
R = TypeVar("R")
D = TypeVar("D")


class WorkflowClient:
    """Submits workflows to a backend and controls their instances, from an event loop.

    Any number of clients and workers can share a backend. Leaving `async with`, or `close`, ends
    the client; the backend goes on, unless the client made it itself (`from_url`).

    Args:
        backend: Where instances live.
        conflict_policy: What `submit` does when its id is taken, unless it says so itself.

    Raises:
        TypeError: `backend` is not a backend, or `conflict_policy` is not text.
        ValueError: There is no such policy.

    >>> import asyncio
    >>> from sayiir import Flow, InMemoryBackend, WorkflowClient
    >>> greet = Flow("greet").then(lambda name: f"hello {name}").build()
    >>> async def main():
    ...     async with WorkflowClient(InMemoryBackend()) as client:
    ...         await client.submit(greet, "g-1", "world")
    ...         await client.pause("g-1", reason="too early")
    ...         return await client.status("g-1")
    >>> asyncio.run(main())
    <WorkflowStatus 'g-1' of 'greet': paused>
    """

    __slots__ = (
        "__weakref__",
        "_backend",
        "_closed",
        "_codec",
        "_endings",
        "_owns_backend",
        "_policy",
        "_sights",
    )

    def __init__(self, backend: Backend, conflict_policy: ConflictPolicyLike = "fail") -> None:
        self._backend = checked_backend(backend)
        self._codec = at_rest_of(backend)
        self._policy = conflict_policy_of(conflict_policy)
        self._endings = Endings(backend)
        self._sights = Sights(backend)
        self._owns_backend = False
        self._closed = False

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        conflict_policy: ConflictPolicyLike = "fail",
        *,
        codec: Codec | PayloadCodec | None = None,
    ) -> Self:
        """A client with a backend of its own, which it closes with itself.

        Args:
            url: `memory://`, `sqlite:///relative/path` or `sqlite:////absolute/path`, as for
                `sayiir.connect`; without one `SAYIIR_DATABASE_URL`, else `sqlite:///sayiir.db`.
            conflict_policy: As for the class.
            codec: How payloads are stored; see `sayiir.codecs`.

        Raises:
            TypeError: `url` is not text.
            ValueError: It is malformed, or of a scheme that this version does not have.
            BackendUnavailableError: What it names cannot be opened.
            SnapshotFormatError: What it names is not this package's, or of a newer version.

        >>> WorkflowClient.from_url("memory://").backend
        <InMemoryBackend with 0 instances>
        """
        # Before anything is opened that nobody would close.
        policy = conflict_policy_of(conflict_policy)
        client = cls(connect(url, codec=codec), policy)
        client._owns_backend = True
        return client

    def with_conflict_policy(self, conflict_policy: ConflictPolicyLike) -> Self:
        """Another client of the same backend, with this policy. Raises as the class.

        It is closed by itself; a backend made by `from_url` stays with the first client.
        """
        return type(self)(self.backend, conflict_policy)

    @property
    def backend(self) -> Backend:
        """Where instances live.

        Raises:
            RuntimeError: The client is closed. So it is in every other call.
        """
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return self._backend

    @property
    def conflict_policy(self) -> ConflictPolicy:
        """What `submit` does when its id is taken, unless it says so itself."""
        return self._policy

    async def close(self) -> None:
        """End the client: calls that wait raise `RuntimeError`, as do later calls.

        Closing twice is fine. The backend is closed only if the client made it.
        """
        if not self._closed:
            self._closed = True
            self._endings.close()
            self._sights.close()
            if self._owns_backend:
                await self._backend.close()

    async def __aenter__(self) -> Self:
        _ = self.backend
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def submit(
        self,
        workflow: Workflow[In, Out],
        instance_id: str | None = None,
        input: In | None = None,
        *,
        conflict_policy: ConflictPolicyLike | None = None,
        start_at: datetime | None = None,
        connection: object | None = None,
    ) -> WorkflowHandle[Out]:
        """Create an instance, durably; a worker that has the workflow will run it.

        The conflict policy is applied before the input is encoded.

        With a `connection` the instance is part of the transaction that is open on it, beside your
        own rows: it exists if and only if you commit, and workers wake with the commit. Until then
        nobody else sees it: `status` and the handle's calls raise `InstanceNotFoundError`. Needs a
        `PostgresBackend`, and a connection to the same database::

            async with pool.connection() as connection:  # psycopg; it commits at the end
                await connection.execute("INSERT INTO orders …")
                handle = await client.submit(order, "order-1", items, connection=connection)
            await handle.result()

        Args:
            workflow: What to run.
            instance_id: 1 to 256 bytes of UTF-8; without one it is generated.
            input: What the first task receives.
            conflict_policy: What to do when the id is taken; the client's policy if not given.
            start_at: Not to be started before this moment (aware).
            connection: Whose transaction the instance is part of: a `Connection` or
                `AsyncConnection` of psycopg 3, a connection of asyncpg, or a `Connection`,
                `Session`, `AsyncConnection` or `AsyncSession` of SQLAlchemy with one of the two. A
                blocking one is used on another thread while this call is awaited.

        Raises:
            TypeError: An argument is of the wrong kind, or the backend is not the connection's.
            ValueError: The id is unacceptable, the policy unknown, `start_at` naive, or the
                connection closed, in a failed transaction, or to another database. What else goes
                wrong on the connection is its driver's error.
            InstanceAlreadyExistsError: The id is taken, under `fail`.
            DefinitionMismatchError: It is taken by another definition, under `fail` or
                `use_existing`.
            EncodeError: The input cannot be stored.
        """
        program = checked_workflow(workflow).program
        policy = self._policy if conflict_policy is None else conflict_policy_of(conflict_policy)
        start = checked_moment("start_at", start_at)
        backend = self.backend
        row = None
        if named := instance_id is not None:
            checked_name("instance_id", instance_id)
        else:
            instance_id = fresh_id()
        if connection is not None:
            row = await submit_in_transaction(
                backend, connection, workflow, instance_id, input, start, policy, self._codec
            )
            return self._handle(workflow, instance_id, row, start, None)
        if named:
            row = await backend.check_submit(instance_id, program, policy)
        since = None
        if row is None:
            new = new_instance(workflow, instance_id, input, start, self._codec)
            since = self._endings.mark()
            if (tracing := tracing_here()) is None:
                [row] = await backend.submit((new,), policy)
            else:
                [row] = await tracing.submit(backend, (new,), program, policy, checked=True)
        return self._handle(workflow, instance_id, row, start, since)

    async def submit_many(
        self,
        workflow: Workflow[In, Out],
        items: Iterable[tuple[str | None, In]],
        *,
        conflict_policy: ConflictPolicyLike | None = None,
        start_at: datetime | None = None,
    ) -> list[WorkflowHandle[Out]]:
        """Create many instances of one workflow, all or none, in one commit.

        Args:
            workflow: What to run.
            items: `(instance_id, input)` pairs; an id of `None` is generated.
            conflict_policy: As for `submit`, for each item.
            start_at: As for `submit`, for each item.

        Returns:
            A handle for each item, in order.

        Raises:
            TypeError, ValueError: As `submit`; also for an id that comes twice.
            InstanceAlreadyExistsError, DefinitionMismatchError, EncodeError: As `submit`; then no
                instance was created.
        """
        program = checked_workflow(workflow).program
        policy = self._policy if conflict_policy is None else conflict_policy_of(conflict_policy)
        start = checked_moment("start_at", start_at)
        pairs = checked_items(items)
        backend = self.backend
        existing: dict[str, InstanceRow] = {}
        try:
            batch = [
                new_instance(workflow, name, value, start, self._codec) for name, value in pairs
            ]
        except EncodeError:
            # A conflict comes before the encoding, and an existing instance needs no input. To find
            # that out only now saves every batch that can be encoded a question for each item.
            for name, _ in pairs:
                row = await backend.check_submit(name, program, policy)
                if row is not None:
                    existing[name] = row
            batch = [
                new_instance(workflow, name, value, start, self._codec)
                for name, value in pairs
                if name not in existing
            ]
        since = self._endings.mark()
        if batch:
            if (tracing := tracing_here()) is None:
                rows = await backend.submit(batch, policy)
            else:
                rows = await tracing.submit(backend, batch, program, policy, checked=False)
            for new, found in zip(batch, rows, strict=True):
                if found is not None:
                    existing[new.instance_id] = found
        return [self._handle(workflow, name, existing.get(name), start, since) for name, _ in pairs]

    def _handle(
        self,
        workflow: Workflow[Any, Out],
        instance_id: str,
        row: InstanceRow | None,
        start: float | None,
        since: int | None,
    ) -> WorkflowHandle[Out]:
        """A handle on what is there, or on what was just created."""
        if row is not None:
            since = None
        elif start is not None and start <= self._backend.now():
            start = None
        return WorkflowHandle(self, instance_id, workflow, row, start, since)

    async def status(self, instance_id: str) -> WorkflowStatus[Any]:
        """What is true of an instance now. Never raises because of what is stored in it.

        Raises:
            InstanceNotFoundError: There is no such instance.
        """
        row = await self.backend.get(checked_name("instance_id", instance_id))
        return status_of(row, self._codec)

    async def result(
        self,
        instance_id: str,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the word of the published API
    ) -> Any:
        """Wait for the end of an instance and return its output, as plain data.

        A handle knows the workflow, and so of what type the output is: see `WorkflowHandle.result`.

        Args:
            instance_id: The instance.
            timeout: How long to wait, in any form a duration may have; 0 looks once; otherwise
                for ever.

        Raises:
            WorkflowFailed: It failed; the `__cause__` is the `TaskError`, if a task was to blame.
            WorkflowCancelled: It was cancelled.
            TimeoutError: It has not ended in time.
            InstanceNotFoundError: There is no such instance, or it was deleted meanwhile.
            DecodeError: The stored output is damaged.
            RuntimeError: The client was closed meanwhile.
        """
        checked_name("instance_id", instance_id)
        limit = (
            None if timeout is None else parse_duration(timeout, name="timeout", allow_zero=True)
        )
        _ = self.backend
        end = await self._endings.wait(instance_id, limit)
        return outcome_of(instance_id, end, self._codec)

    async def _own_result(self, instance_id: str, since: int | None) -> Any:
        """The result of an instance that this client created when `Endings.mark` said `since`."""
        _ = self.backend
        end = await self._endings.wait(instance_id, None, since)
        return outcome_of(instance_id, end, self._codec)

    def watch(self, instance_id: str, after: int = 0) -> AsyncIterator[StepInfo]:
        """The steps of an instance as they end, whoever runs it, until it has ended itself.

        First come those that have ended already, then each within about a second of its end, mostly
        at once. An iteration that is given up can be gone on with, and needs no closing.

        Args:
            instance_id: The instance.
            after: How many steps to leave out, because they were seen already.

        Raises:
            TypeError, ValueError: The id is unacceptable, or `after` is no number of steps.
            InstanceNotFoundError: There is no such instance, it was deleted meanwhile, or another
                of its id replaced it. This and the next are raised where the steps are awaited.
            RuntimeError: The client was closed meanwhile.

        >>> import asyncio
        >>> from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
        >>> clean = Flow("clean").then(str.strip, name="trim").then(str.title, name="big").build()
        >>> async def main():
        ...     backend = InMemoryBackend()
        ...     async with WorkflowClient(backend) as client, Worker(backend, clean):
        ...         await client.submit(clean, "c-1", " ada ")
        ...         return [(step.path, step.outcome) async for step in client.watch("c-1")]
        >>> asyncio.run(main())
        [('trim', 'completed'), ('big', 'completed')]
        """
        checked_name("instance_id", instance_id)
        checked_step_count("after", after)
        _ = self.backend
        return Steps(self._sights.on(instance_id), after)

    async def wait_until(
        self,
        instance_id: str,
        *statuses: Status | str,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the word of the published API
    ) -> WorkflowStatus[Any]:
        """Wait until an instance is in one of these states; at once if it is.

        A state that an instance passes through without staying may be missed.

        Args:
            instance_id: The instance.
            statuses: At least one state or its text, such as `"awaiting_signal"`.
            timeout: How long to wait, in any form a duration may have; 0 looks once; otherwise
                for ever.

        Returns:
            Its status.

        Raises:
            TypeError, ValueError: There is no such state, or none is given.
            InvalidStateError: It has ended in another state.
            TimeoutError: It is in none of them in time.
            InstanceNotFoundError: There is no such instance, it was deleted meanwhile, or another
                of its id replaced it.
            RuntimeError: The client was closed meanwhile.

        >>> import asyncio
        >>> from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
        >>> order = Flow("order").wait_for_event("approved").build()
        >>> async def main():
        ...     backend = InMemoryBackend()
        ...     async with WorkflowClient(backend) as client, Worker(backend, order):
        ...         await client.submit(order, "o-1")
        ...         return await client.wait_until("o-1", "awaiting_signal", timeout="10s")
        >>> asyncio.run(main()).signal_name
        'approved'
        """
        checked_name("instance_id", instance_id)
        wanted = checked_statuses(statuses)
        limit = (
            None if timeout is None else parse_duration(timeout, name="timeout", allow_zero=True)
        )
        _ = self.backend
        row = await self._sights.until(instance_id, wanted, limit)
        return status_of(row, self._codec)

    async def cancel(
        self, instance_id: str, reason: str | None = None, cancelled_by: str | None = None
    ) -> None:
        """Cancel an instance: at once if no worker holds it, else at its next step.

        A running async task is cancelled; work that ends first counts as ended. Cancelling twice is
        fine.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It has completed or failed.
        """
        checked_name("instance_id", instance_id)
        why = checked_note("reason", reason)
        who = checked_note("cancelled_by", cancelled_by)
        await self.backend.cancel(instance_id, why, who)

    async def pause(
        self, instance_id: str, reason: str | None = None, paused_by: str | None = None
    ) -> None:
        """Hold an instance back: at once if no worker holds it, else after its running step.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It has ended.
        """
        checked_name("instance_id", instance_id)
        why = checked_note("reason", reason)
        who = checked_note("paused_by", paused_by)
        await self.backend.pause(instance_id, why, who)

    async def unpause(self, instance_id: str) -> None:
        """Let a paused instance go on from where it was.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It is not paused.
        """
        await self.backend.unpause(checked_name("instance_id", instance_id))

    async def send_event(
        self,
        instance_id: str,
        name: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send a named payload to an instance, which need not exist yet.

        Events are kept in order per instance and name until the instance waits for one.

        With a `connection` the event is part of the transaction that is open on it, as for
        `submit`: it was sent if and only if you commit. Events of several transactions are in the
        order in which they were sent, not committed. Should the instance end before the commit, the
        event is dropped.

        Args:
            instance_id: The instance.
            name: The event's name, as in `Flow.wait_for_event`.
            payload: What the wait passes on.
            idempotency_key: An event of the same name and key has no effect a second time.
            connection: Whose transaction the event is part of, as for `submit`.

        Raises:
            TypeError, ValueError: As `submit`, for the connection.
            EncodeError: The payload cannot be stored.
            InvalidStateError: The instance has ended.
        """
        checked_name("instance_id", instance_id)
        checked_name("event name", name)
        if idempotency_key is not None:
            checked_name("idempotency_key", idempotency_key)
        send: Callable[[str, str, bytes, str | None], Awaitable[bool]] = self.backend.send_event
        if connection is not None:
            there = in_transaction_of(self.backend)
            send = partial(there.send_event_on, recognise(connection))
        try:
            sealed = to_rest(self._codec, payload, instance_id, "event", name)
        except EncodeError as failure:
            raise EncodeError(
                f"event {name!r} was not sent to instance {instance_id!r}: "
                f"of its payload, {failure}"
            ) from failure
        if (tracing := tracing_here()) is None:
            await send(instance_id, name, sealed, idempotency_key)
        else:
            await tracing.send_event(send, instance_id, name, sealed, idempotency_key)

    send_signal = send_event
    """The older name of `send_event`."""

    @overload
    async def get_task_result(self, instance_id: str, task: str, default: Any = None) -> Any: ...
    @overload
    async def get_task_result(
        self, instance_id: str, task: Callable[..., Awaitable[R]], default: None = None
    ) -> R | None: ...
    @overload
    async def get_task_result(
        self, instance_id: str, task: Callable[..., Awaitable[R]], default: D
    ) -> R | D: ...
    @overload
    async def get_task_result(
        self, instance_id: str, task: Callable[..., R], default: None = None
    ) -> R | None: ...
    @overload
    async def get_task_result(
        self, instance_id: str, task: Callable[..., R], default: D
    ) -> R | D: ...
    async def get_task_result(
        self, instance_id: str, task: str | Callable[..., Any], default: Any = None
    ) -> Any:
        """The newest output of one step of an instance, running or ended.

        Args:
            instance_id: The instance.
            task: The step's path, or its task's name, or the function itself, if it stands in the
                flow under its own name.
            default: What to return when the step never completed; a value of your own tells that
                from a task that returned `None`.

        Raises:
            TypeError: `task` is neither text nor a function that can be a task.
            ValueError: It is a name that no task can have, or a lambda, which has none.
            InstanceNotFoundError: There is no such instance.
            DecodeError: The stored output is damaged, or does not fit the annotation.
        """
        checked_name("instance_id", instance_id)
        wanted = checked_task(task)
        convert = None if isinstance(task, str) else checked_output(task)
        step = await self.backend.step(instance_id, wanted)
        if step is None or step.output is None:
            return default
        what = f"the output of {wanted!r} of instance {instance_id!r}"
        try:
            plain = from_rest(self._codec, step.output, instance_id, "step", step.path)
        except DecodeError as failure:
            raise DecodeError(f"{what} cannot be decoded: {failure}") from failure
        return made_output(convert, plain, what)

    async def list_instances(
        self,
        *,
        status: Status | str | None = None,
        workflow: Workflow[Any, Any] | str | None = None,
        id_prefix: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> InstancePage:
        """Instances that match everything given, newest first, a page at a time.

        Args:
            status: Only those in this state.
            workflow: Only those of this workflow, or of any with this name.
            id_prefix: Only those whose ids begin with this.
            created_after: Only those submitted after this moment (aware).
            created_before: Only those submitted before this moment (aware).
            limit: How many at most, 1 to 1000.
            cursor: The `next_cursor` of the page before.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: One is unacceptable, or the cursor is not one that a page gave.
        """
        state = checked_status("status", status)
        if isinstance(workflow, Workflow):
            workflow = workflow.workflow_id
        elif workflow is not None:
            workflow = checked_name("workflow", workflow)
        if cursor is not None and not isinstance(cursor, str):
            raise TypeError(f"cursor must be a str or None, got {type(cursor).__name__}")
        page = await self.backend.find(
            status=None if state is None else state.value,
            workflow=workflow,
            id_prefix=checked_prefix("id_prefix", id_prefix),
            created_after=checked_moment("created_after", created_after),
            created_before=checked_moment("created_before", created_before),
            limit=checked_limit("limit", limit),
            cursor=cursor,
        )
        return page_of(page)

    async def history(self, instance_id: str) -> list[StepInfo]:
        """Every execution of a step of an instance, in the order they were written.

        Raises:
            InstanceNotFoundError: There is no such instance.
        """
        rows = await self.backend.history(checked_name("instance_id", instance_id))
        return History(step_of(row) for row in rows)

    async def export(self, instance_id: str) -> bytes:
        """Everything that is stored of an instance, as bytes that `import_` takes on any backend.

        All of it is of one moment; the instance stays as it is and goes on. What a worker is doing
        right now is not in it, so wherever the bytes are imported that step is the next one. To
        move an instance, cancel it here once it goes on elsewhere. The bytes hold its input, its
        results and its events in the clear, whatever the backend's codec: keep them like a secret.
        `sayiir.codec` reads them.

        Args:
            instance_id: The instance, in any state.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It is an item of a spread map, or awaits the items of one.
            DecodeError: A payload is damaged, or needs a codec that the backend does not have.

        >>> import asyncio
        >>> from sayiir import Flow, InMemoryBackend, WorkflowClient
        >>> two = Flow("two").delay("rest", "1h").then(lambda x: x).build()
        >>> async def main():
        ...     async with WorkflowClient(InMemoryBackend()) as here:
        ...         await here.submit(two, "t-1", 7)
        ...         moved = await here.export("t-1")
        ...     async with WorkflowClient(InMemoryBackend()) as there:
        ...         return await there.import_(moved, "t-2")
        >>> asyncio.run(main())
        't-2'
        """
        checked_name("instance_id", instance_id)
        return opened_snapshot(self._codec, await self.backend.export(instance_id))

    async def import_(self, data: bytes, new_id: str | None = None) -> str:
        """Create an instance from bytes that `export` gave; it goes on where that one stood.

        Finished steps are not executed again. Nobody holds it, a pause or a cancel that was pending
        takes effect, and a worker that has its definition takes it up. Its idempotency keys contain
        its id: under a new id a step that had begun has another key than before.

        Args:
            data: The bytes.
            new_id: An id for it here; without one it keeps its own.

        Returns:
            Its id.

        Raises:
            TypeError: `data` is not bytes, or `new_id` is not text.
            ValueError: `new_id` is unacceptable.
            InstanceAlreadyExistsError: The id is taken; nothing changes.
            SnapshotFormatError: The bytes are damaged, foreign or of a newer version, or no
                snapshot of an instance; nothing is stored.
            EncodeError: The backend's codec cannot store a payload; nothing is stored.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data must be the bytes of an export, got {type(data).__name__}")
        if new_id is not None:
            checked_name("new_id", new_id)
        instance_id, stored = stored_snapshot(self._codec, data, new_id)
        try:
            await self.backend.import_(stored, instance_id)
        except InstanceAlreadyExistsError as taken:
            raise InstanceAlreadyExistsError(
                f"nothing was imported: instance {instance_id!r} already exists; give the imported"
                " one another id with new_id",
                instance_id=instance_id,
            ) from taken
        return instance_id

    async def delete(self, instance_id: str, force: bool = False) -> None:
        """Remove an instance with its history and its events.

        Args:
            instance_id: The instance.
            force: Also if it has not ended; a worker that holds it can no longer write.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It has not ended, and `force` is false.
        """
        checked_name("instance_id", instance_id)
        await self.backend.delete(instance_id, checked_flag("force", force))

    def __repr__(self) -> str:
        state = "closed" if self._closed else repr(self._backend)
        return f"<WorkflowClient {self._policy}: {state}>"
