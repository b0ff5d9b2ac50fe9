"""The client for code without an event loop.

Every call is the call of the same name of `WorkflowClient`, run on a loop thread of the client's
own; arguments, returns and errors are the same and are described there. Nothing is decided here.
Statements on a connection of the caller's are made on the caller's thread, which waits for the call
anyway: so what is bound to a thread, or is interrupted on it, finds itself where it expects to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ._client import WorkflowClient
from ._conflict import ConflictPolicy, ConflictPolicyLike
from ._loop_thread import LoopThread
from .backends._connections import Errand, recognise

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._duration import Duration
    from ._handle import WorkflowHandle
    from ._listing import InstancePage, StepInfo
    from ._status import Status, WorkflowStatus
    from ._workflow import Workflow
    from .backends import Backend
    from .codecs import Codec, PayloadCodec

__all__ = ["SyncWorkflowClient", "SyncWorkflowHandle"]

P = ParamSpec("P")
T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)
R = TypeVar("R")
D = TypeVar("D")


class SyncWorkflowHandle(Generic[Out_co]):
    """One instance, whose workflow gives `Out_co`. Made by `SyncWorkflowClient.submit`.

    Its members are those of `WorkflowHandle`.

    >>> from sayiir import Flow, InMemoryBackend
    >>> shout = Flow("shout").then(str.upper, name="upper").build()
    >>> with SyncWorkflowClient(InMemoryBackend()) as client:
    ...     handle = client.submit(shout, "s-1", "hey")
    ...     handle.pause()
    ...     handle.refresh()
    <WorkflowStatus 's-1' of 'shout': paused>
    """

    __slots__ = ("__weakref__", "_client", "_handle")

    def __init__(self, client: SyncWorkflowClient, handle: WorkflowHandle[Out_co]) -> None:
        self._client = client
        self._handle = handle

    @property
    def instance_id(self) -> str:
        """The instance's id, given or generated."""
        return self._handle.instance_id

    @property
    def status(self) -> Status:
        """The state as of the submit, or of the last `refresh`; asks nobody."""
        return self._handle.status

    @property
    def output(self) -> Out_co | None:
        """The output, if the instance had completed as of `status`; else `None`."""
        return self._handle.output

    @property
    def error(self) -> str | None:
        """The text of the failure, if the instance had failed as of `status`; else `None`."""
        return self._handle.error

    @property
    def reason(self) -> str | None:
        """Why it was paused or cancelled, if it was as of `status`; else `None`."""
        return self._handle.reason

    @property
    def details(self) -> WorkflowStatus[Out_co]:
        """Everything known as of `status`; the times of a fresh instance only after a `refresh`."""
        return self._handle.details

    def result(self, timeout: Duration | None = None) -> Out_co:
        """Wait for the end and return the output. See `WorkflowClient.result`."""
        return self._client.run(self._handle.result, timeout)

    def refresh(self) -> WorkflowStatus[Out_co]:
        """Ask for the status now and keep it as `details`. Raises as `WorkflowClient.status`."""
        return self._client.run(self._handle.refresh)

    def history(self) -> list[StepInfo]:
        """Every execution of a step. See `WorkflowClient.history`."""
        return self._client.history(self.instance_id)

    def watch(self, after: int = 0) -> Iterator[StepInfo]:
        """The steps as they end, until the instance has. See `WorkflowClient.watch`."""
        return self._client.watch(self.instance_id, after)

    def wait_until(
        self, *statuses: Status | str, timeout: Duration | None = None
    ) -> WorkflowStatus[Out_co]:
        """Wait for one of these states. See `WorkflowClient.wait_until`."""
        return self._client.run(self._handle.wait_until, *statuses, timeout=timeout)

    def cancel(self, reason: str | None = None, cancelled_by: str | None = None) -> None:
        """Cancel the instance. See `WorkflowClient.cancel`."""
        self._client.run(self._handle.cancel, reason, cancelled_by)

    def pause(self, reason: str | None = None, paused_by: str | None = None) -> None:
        """Pause the instance. See `WorkflowClient.pause`."""
        self._client.run(self._handle.pause, reason, paused_by)

    def unpause(self) -> None:
        """Let the paused instance go on. See `WorkflowClient.unpause`."""
        self._client.run(self._handle.unpause)

    def send_event(
        self, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> None:
        """Send the instance an event. See `WorkflowClient.send_event`."""
        self._client.run(self._handle.send_event, name, payload, idempotency_key=idempotency_key)

    def _repr_html_(self) -> str:
        """How a notebook shows it: `details`, which asks nobody."""
        return self._handle._repr_html_()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle)[1:]}"


class SyncWorkflowClient:
    """Submits workflows to a backend and controls their instances, from code without a loop.

    Its methods are those of `WorkflowClient`, without `await`, and it may be used from any number
    of threads. On a thread with a running event loop they raise `RuntimeError`, as they would block
    it. Leaving `with`, or `close`, ends the client.

    Args:
        backend: Where instances live.
        conflict_policy: What `submit` does when its id is taken, unless it says so itself.

    Raises:
        TypeError: `backend` is not a backend, or `conflict_policy` is not text.
        ValueError: There is no such policy.

    >>> from sayiir import Flow, InMemoryBackend
    >>> greet = Flow("greet").then(lambda name: f"hello {name}").build()
    >>> with SyncWorkflowClient(InMemoryBackend()) as client:
    ...     handle = client.submit(greet, "g-1", "world")
    ...     client.cancel("g-1", reason="wrong world")
    ...     client.status("g-1").reason
    'wrong world'
    """

    __slots__ = ("__weakref__", "_client", "_owns_thread", "_thread")

    def __init__(self, backend: Backend, conflict_policy: ConflictPolicyLike = "fail") -> None:
        self._serve(WorkflowClient(backend, conflict_policy), None)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        conflict_policy: ConflictPolicyLike = "fail",
        *,
        codec: Codec | PayloadCodec | None = None,
    ) -> Self:
        """A client with a backend of its own. See `WorkflowClient.from_url`.

        >>> SyncWorkflowClient.from_url("memory://").backend
        <InMemoryBackend with 0 instances>
        """
        client = cls.__new__(cls)
        client._serve(WorkflowClient.from_url(url, conflict_policy, codec=codec), None)
        return client

    def with_conflict_policy(self, conflict_policy: ConflictPolicyLike) -> Self:
        """Another client of the same backend, with this policy. Raises as the class.

        It shares this client's thread, and so ends with it.
        """
        client = type(self).__new__(type(self))
        client._serve(self._client.with_conflict_policy(conflict_policy), self._thread)
        return client

    def _serve(self, client: WorkflowClient, thread: LoopThread | None) -> None:
        """Take up a client, on a shared thread or on a new one."""
        self._client = client
        self._owns_thread = thread is None
        self._thread = LoopThread("sayiir-client") if thread is None else thread

    @property
    def backend(self) -> Backend:
        """Where instances live. Raises `RuntimeError` if the client is closed."""
        return self._client.backend

    @property
    def conflict_policy(self) -> ConflictPolicy:
        """What `submit` does when its id is taken, unless it says so itself."""
        return self._client.conflict_policy

    def run(
        self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an async function on the client's thread and wait for it.

        Raises:
            RuntimeError: This thread has a running event loop, or the client is closed.
        """
        if _on_a_loop():
            raise RuntimeError(
                "SyncWorkflowClient would block the event loop that runs on this thread; "
                "use WorkflowClient and await its methods"
            )
        return self._thread.run(call, *args, **kwargs)

    def _run_on(
        self, connection: object | None, call: Callable[[object | None], Coroutine[Any, Any, T]]
    ) -> T:
        """As `run`, for a call whose statements on a connection are made on this thread."""
        if connection is None:
            return self.run(call, None)
        errands = _Errands()
        foreign = recognise(connection, errands.place)
        if not foreign.blocking:
            raise TypeError(
                f"connection must be a blocking one, got {type(connection).__module__}."
                f"{type(connection).__qualname__}, which is awaited; use WorkflowClient with it"
            )
        return errands.run(self, call, foreign)

    def close(self) -> None:
        """End the client and its thread; a backend of its own (`from_url`) too.

        Calls of other threads that are under way raise `RuntimeError`. Closing twice is fine.
        """
        if not self._thread.closed:
            # Past `run`, since closing is short and allowed on a thread with a running loop.
            self._thread.run(self._client.close)
        if self._owns_thread:
            self._thread.close()

    def __enter__(self) -> Self:
        _ = self.backend
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(
        self,
        workflow: Workflow[In, Out],
        instance_id: str | None = None,
        input: In | None = None,
        *,
        conflict_policy: ConflictPolicyLike | None = None,
        start_at: datetime | None = None,
        connection: object | None = None,
    ) -> SyncWorkflowHandle[Out]:
        """Create an instance, durably. See `WorkflowClient.submit`.

        With a `connection`, a blocking one, the instance is part of its transaction::

            with Session(engine) as session, session.begin():  # SQLAlchemy; it commits at the end
                session.add(Order(id="order-1"))
                handle = client.submit(order, "order-1", items, connection=session)
            handle.result()
        """
        handle = self._run_on(
            connection,
            lambda on: self._client.submit(
                workflow,
                instance_id,
                input,
                conflict_policy=conflict_policy,
                start_at=start_at,
                connection=on,
            ),
        )
        return SyncWorkflowHandle(self, handle)

    def submit_many(
        self,
        workflow: Workflow[In, Out],
        items: Iterable[tuple[str | None, In]],
        *,
        conflict_policy: ConflictPolicyLike | None = None,
        start_at: datetime | None = None,
    ) -> list[SyncWorkflowHandle[Out]]:
        """Create many instances, all or none. See `WorkflowClient.submit_many`."""
        handles = self.run(
            self._client.submit_many,
            workflow,
            items,
            conflict_policy=conflict_policy,
            start_at=start_at,
        )
        return [SyncWorkflowHandle(self, handle) for handle in handles]

    def status(self, instance_id: str) -> WorkflowStatus[Any]:
        """What is true of an instance now. See `WorkflowClient.status`."""
        return self.run(self._client.status, instance_id)

    def result(self, instance_id: str, timeout: Duration | None = None) -> Any:
        """Wait for the end and return the output. See `WorkflowClient.result`."""
        return self.run(self._client.result, instance_id, timeout)

    def watch(self, instance_id: str, after: int = 0) -> Iterator[StepInfo]:
        """The steps of an instance as they end. See `WorkflowClient.watch`.

        >>> from sayiir import Flow, InMemoryBackend, Worker
        >>> shout = Flow("shout").then(str.upper, name="upper").build()
        >>> backend = InMemoryBackend()
        >>> worker = Worker(backend, shout).start()
        >>> with SyncWorkflowClient(backend) as client:
        ...     handle = client.submit(shout, "s-1", "hey")
        ...     [step.path for step in client.watch("s-1")]
        ['upper']
        >>> worker.stop()
        """
        # The arguments are checked here and now; what is asked of the backend is asked later.
        return self._drawn(self._client.watch(instance_id, after))

    def _drawn(self, steps: AsyncIterator[StepInfo]) -> Iterator[StepInfo]:
        async def draw() -> StepInfo | None:
            return await anext(steps, None)

        while (step := self.run(draw)) is not None:
            yield step

    def wait_until(
        self, instance_id: str, *statuses: Status | str, timeout: Duration | None = None
    ) -> WorkflowStatus[Any]:
        """Wait until an instance is in one of these states. See `WorkflowClient.wait_until`."""
        return self.run(self._client.wait_until, instance_id, *statuses, timeout=timeout)

    def cancel(
        self, instance_id: str, reason: str | None = None, cancelled_by: str | None = None
    ) -> None:
        """Cancel an instance. See `WorkflowClient.cancel`."""
        self.run(self._client.cancel, instance_id, reason, cancelled_by)

    def pause(
        self, instance_id: str, reason: str | None = None, paused_by: str | None = None
    ) -> None:
        """Hold an instance back. See `WorkflowClient.pause`."""
        self.run(self._client.pause, instance_id, reason, paused_by)

    def unpause(self, instance_id: str) -> None:
        """Let a paused instance go on. See `WorkflowClient.unpause`."""
        self.run(self._client.unpause, instance_id)

    def send_event(
        self,
        instance_id: str,
        name: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send a named payload to an instance. See `WorkflowClient.send_event`.

        With a `connection`, a blocking one, the event is part of its transaction.
        """
        self._run_on(
            connection,
            lambda on: self._client.send_event(
                instance_id, name, payload, idempotency_key=idempotency_key, connection=on
            ),
        )

    send_signal = send_event
    """The older name of `send_event`."""

    @overload
    def get_task_result(self, instance_id: str, task: str, default: Any = None) -> Any: ...
    @overload
    def get_task_result(
        self, instance_id: str, task: Callable[..., Awaitable[R]], default: None = None
    ) -> R | None: ...
    @overload
    def get_task_result(
        self, instance_id: str, task: Callable[..., Awaitable[R]], default: D
    ) -> R | D: ...
    @overload
    def get_task_result(
        self, instance_id: str, task: Callable[..., R], default: None = None
    ) -> R | None: ...
    @overload
    def get_task_result(self, instance_id: str, task: Callable[..., R], default: D) -> R | D: ...
    def get_task_result(
        self, instance_id: str, task: str | Callable[..., Any], default: Any = None
    ) -> Any:
        """The newest output of one step. See `WorkflowClient.get_task_result`."""
        call: Callable[..., Coroutine[Any, Any, Any]] = self._client.get_task_result
        return self.run(call, instance_id, task, default)

    def list_instances(
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
        """Instances that match, a page at a time. See `WorkflowClient.list_instances`."""
        return self.run(
            self._client.list_instances,
            status=status,
            workflow=workflow,
            id_prefix=id_prefix,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )

    def history(self, instance_id: str) -> list[StepInfo]:
        """Every execution of a step. See `WorkflowClient.history`."""
        return self.run(self._client.history, instance_id)

    def export(self, instance_id: str) -> bytes:
        """An instance as bytes. See `WorkflowClient.export`."""
        return self.run(self._client.export, instance_id)

    def import_(self, data: bytes, new_id: str | None = None) -> str:
        """Create an instance from such bytes. See `WorkflowClient.import_`."""
        return self.run(self._client.import_, data, new_id)

    def delete(self, instance_id: str, force: bool = False) -> None:
        """Remove an instance. See `WorkflowClient.delete`."""
        self.run(self._client.delete, instance_id, force)

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"


class _Errands:
    """What a call on the client's thread has the waiting thread do, one thing after the other."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def place(self, errand: Errand, interrupt: Callable[[], None]) -> Awaitable[Any]:
        """Have the waiting thread do this; a `Place`. Who is interrupted there sees to it there."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, failure: Exception | None) -> None:
            if answer.done():
                return
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)

        def do() -> None:
            result, failure = None, None
            try:
                result = errand()
            except Exception as error:
                failure = error
            # The loop is closed if the client was meanwhile, which `run` finds out by itself.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        self._due.put(do)
        return answer

    def run(
        self,
        client: SyncWorkflowClient,
        call: Callable[[object | None], Coroutine[Any, Any, T]],
        connection: object,
    ) -> T:
        """Make the call and do the errands until it ends; what it returns or raises."""
        due = self._due

        async def begin() -> tuple[asyncio.Task[T], Callable[[], object]]:
            task = asyncio.ensure_future(call(connection))
            task.add_done_callback(lambda _: due.put(None))
            loop = asyncio.get_running_loop()
            return task, lambda: loop.call_soon_threadsafe(task.cancel)

        task, cancel = client.run(begin)
        try:
            while (do := due.get()) is not None:
                do()
        except BaseException:
            with suppress(RuntimeError):
                cancel()
            raise
        if task.cancelled():
            raise RuntimeError("the client was closed while the call was under way")
        return task.result()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
