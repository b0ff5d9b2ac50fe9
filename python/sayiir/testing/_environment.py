"""A place for workflows in a test: a memory backend, a client, a worker, and a clock that obeys.

Nothing happens behind the test's back: steps run inside the calls of the environment that say so,
and when such a call is over, every instance has ended or is parked. Time stands still until the
test moves it, so thirty days pass in milliseconds and no test depends on how fast a machine is.

It needs no test framework. `TestEnvironment.sync` is the same for code without an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sayiir import _clock
from sayiir._argument import checked_moment
from sayiir._client import WorkflowClient
from sayiir._duration import Duration, parse_duration
from sayiir._handle import typed_status
from sayiir._status import WorkflowStatus
from sayiir._workflow import Workflow
from sayiir.backends import InMemoryBackend

from ._catalogue import Catalogue, WatchedBackend
from ._clocks import VirtualClock
from ._driving import Driver
from ._histories import History
from ._mocking import Mock

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sayiir._handle import WorkflowHandle
    from sayiir._sync_client import SyncWorkflowHandle

    from ._sync_environment import SyncTestEnvironment

__all__ = ["Instance", "TestEnvironment"]

In = TypeVar("In")
Out = TypeVar("Out")

Instance: TypeAlias = "str | WorkflowStatus[Any] | WorkflowHandle[Any] | SyncWorkflowHandle[Any]"
"""How a call says which instance is meant: by its id, or by what the environment gave back."""


class TestEnvironment:
    """A memory backend with a clock of its own, and a worker that works when it is told to.

    The pytest fixture `sayiir_env` is one. Elsewhere use it as a context manager.

    Args:
        workflows: Workflows that are known from the beginning; `run` and `submit` add theirs.
        start: What the clock shows first (aware); by default the real time, to the second.
        patience: How much real time may pass without any step coming to an end, until a call gives
            up with `TimeoutError`.

    Raises:
        TypeError: What is given as a workflow is none; `start` is no datetime.
        ValueError: `start` is naive, or `patience` is not a positive duration.

    >>> import asyncio
    >>> from sayiir import Flow
    >>> remind = Flow("remind").delay("a month", "30d").then(lambda who: f"hi {who}").build()
    >>> async def main():
    ...     async with TestEnvironment() as env:
    ...         parked = await env.run(remind, "Ada")
    ...         await env.advance("30d")
    ...         return parked.delay_id, (await env.status(parked)).output
    >>> asyncio.run(main())
    ('a month', 'hi Ada')
    """

    # Not for pytest to collect, whatever its name.
    __test__ = False

    def __init__(
        self,
        *workflows: Workflow[Any, Any],
        start: datetime | None = None,
        patience: Duration = "30s",
    ) -> None:
        moment = checked_moment("start", start)
        self._clock = VirtualClock(float(int(_clock.now())) if moment is None else moment)
        self._catalogue = Catalogue()
        self._backend = WatchedBackend(self._clock, self._catalogue.submitted)
        self._client = WorkflowClient(self._backend)
        self._driver = Driver(
            self._backend,
            self._catalogue.programs,
            parse_duration(patience, name="patience", allow_zero=False),
        )
        self._sync: SyncTestEnvironment | None = None
        self.add(*workflows)

    @property
    def backend(self) -> InMemoryBackend:
        """Where instances live; give it to the code under test."""
        return self._backend

    @property
    def client(self) -> WorkflowClient:
        """A client of the backend, for every call that the environment does not have itself."""
        return self._client

    @property
    def now(self) -> datetime:
        """What the clock shows (aware, UTC)."""
        return datetime.fromtimestamp(self._clock.time, UTC)

    @property
    def sync(self) -> SyncTestEnvironment:
        """The same environment for code without an event loop."""
        if self._sync is None:
            from ._sync_environment import SyncTestEnvironment

            self._sync = SyncTestEnvironment(self)
        return self._sync

    def add(self, *workflows: Workflow[Any, Any]) -> None:
        """Make workflows known, so that mocks of their tasks are found; adding twice is fine.

        Workflows that are submitted through a client of the backend run without that. Of several
        with one definition hash the functions of the one that was added last are run.
        """
        for workflow in workflows:
            self._catalogue.add(workflow)

    async def submit(
        self,
        workflow: Workflow[In, Out],
        input: In | None = None,
        *,
        instance_id: str | None = None,
    ) -> WorkflowHandle[Out]:
        """Create an instance and run nothing yet. Arguments and errors as `WorkflowClient.submit`.

        Raises:
            LookupError: There is a mock of a task that no known workflow has.
        """
        self.add(workflow)
        self._catalogue.check_mocks()
        return await self._client.submit(workflow, instance_id, input)

    async def run(
        self,
        workflow: Workflow[In, Out],
        input: In | None = None,
        *,
        instance_id: str | None = None,
    ) -> WorkflowStatus[Out]:
        """Submit, `run_until_idle`, and give the status: ended, or parked at a delay or an event.

        A failure is in the status, not raised; `result` raises. Errors as `submit`.
        """
        handle = await self.submit(workflow, input, instance_id=instance_id)
        await self.run_until_idle()
        return await self._status(handle.instance_id, workflow)

    async def run_until_idle(self) -> None:
        """Run all that can run now; afterwards every instance has ended or is parked.

        The clock does not move: delays, waits for events and the waits between retries are parked.

        Raises:
            TimeoutError: A step does not come to an end; see `patience`.
            LookupError: There is a mock of a task that no known workflow has.
        """
        await self._driver.run_until_idle()

    async def advance(self, duration: Duration) -> None:
        """Let so much time pass, and everything happen that is due in it, each at its moment.

        What is ready now runs first, before the clock moves. Raises as `run_until_idle`.

        Raises:
            ValueError: The duration is malformed or negative.
        """
        seconds = parse_duration(duration, name="duration", allow_zero=True)
        await self._advance_to(self._clock.time + seconds)

    async def advance_to(self, moment: datetime) -> None:
        """Let time pass until this moment (aware); see `advance`.

        Raises:
            ValueError: It is naive, or in the clock's past.
        """
        target = checked_moment("moment", moment)
        if target is None:
            raise TypeError("moment must be a datetime, got None")
        if target < self._clock.time:
            raise ValueError(f"the clock does not go back: it shows {self.now}, not yet {moment}")
        await self._advance_to(target)

    async def send_event(
        self, instance: Instance, name: str, payload: Any = None
    ) -> WorkflowStatus[Any]:
        """Send an event, `run_until_idle`, and give the status of the instance then.

        Raises:
            InvalidStateError: The instance has ended. Others as `WorkflowClient.send_event`.
        """
        instance_id = _id_of(instance)
        await self._client.send_event(instance_id, name, payload)
        await self.run_until_idle()
        return await self.status(instance_id)

    async def cancel(self, instance: Instance, reason: str | None = None) -> WorkflowStatus[Any]:
        """Cancel an instance, `run_until_idle`, and give its status then.

        Raises as `WorkflowClient.cancel`.
        """
        instance_id = _id_of(instance)
        await self._client.cancel(instance_id, reason)
        await self.run_until_idle()
        return await self.status(instance_id)

    async def result(self, instance: Instance) -> Any:
        """The output, as the last step's annotation says; time passes as long as it is needed.

        The clock goes from timer to timer, through delays, retries and timeouts, until the instance
        has ended.

        Raises:
            WorkflowFailed, WorkflowCancelled: It ended so.
            RuntimeError: It will not end by itself: it awaits an event, or is paused.
            InstanceNotFoundError: There is no such instance.
        """
        instance_id = _id_of(instance)
        while True:
            await self.run_until_idle()
            status = await self.status(instance_id)
            if status.is_terminal():
                # Raises what is to be raised; the status has the output in the workflow's types.
                await self._client.result(instance_id)
                if status.output_error is not None:
                    raise status.output_error
                return status.output
            wake = await self._next_wake()
            if wake is None or status.is_paused():
                raise RuntimeError(_stranded(status))
            self._move_to(wake)

    async def status(self, instance: Instance) -> WorkflowStatus[Any]:
        """The status now. Raises `InstanceNotFoundError`."""
        instance_id = _id_of(instance)
        row = await self._backend.get(instance_id)
        return await self._status(instance_id, self._catalogue.find(row.definition_hash))

    async def history(self, instance: Instance) -> History:
        """The steps that have run, oldest first. Raises `InstanceNotFoundError`."""
        return History(await self._client.history(_id_of(instance)))

    def mock(
        self,
        task: str | Callable[..., Any],
        *,
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> Mock:
        """Let something else be called in a task's place, until the mock is removed.

        The step keeps its retries, its timeout and its place in the history; the workflow is not
        changed. Of several mocks of one task the newest answers, until its `times` are over.

        Args:
            task: Its name (every use of it), its function, or a path as in `Workflow.iter_nodes`.
            returns: What it returns; `None` if nothing else is said.
            raises: The exception, or its class, that it raises.
            side_effect: What is called with the task's input; `def` or `async def`.
            times: So many calls are answered by this mock; later ones by the mock before it, else
                by the task itself. By default all.

        Returns:
            The mock, whose `calls` are the inputs. `with env.mock(…) as calls:` removes it behind
            the block.

        Raises:
            TypeError: Arguments that do not go together, or are of the wrong kind.
            ValueError: `times` is below 1.
            LookupError: Not here, but when something is run: no known workflow has such a task.
        """
        return self._catalogue.mocks.mock(
            task, returns=returns, raises=raises, side_effect=side_effect, times=times
        )

    def spy(self, task: str | Callable[..., Any]) -> Mock:
        """Record the calls of a task and let it run. Arguments and returns as `mock`."""
        return self._catalogue.mocks.add(task, None, None)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Within the block, work is done as soon as it is there, as with a worker beside the test.

        For code under test that submits and awaits the result itself, such as an endpoint.

        Raises:
            Exception: At the end of the block, what `run_until_idle` raised meanwhile.

        >>> import asyncio
        >>> from sayiir import Flow
        >>> shout = Flow("shout").then(str.upper).build()
        >>> async def main():
        ...     async with TestEnvironment() as env, env.working():
        ...         return await (await env.client.submit(shout, input="hey")).result()
        >>> asyncio.run(main())
        'HEY'
        """
        from ._working import working_on

        async with working_on(self._backend, self.run_until_idle):
            yield

    def close(self) -> None:
        """Let threads go. Calling it twice is fine."""
        self._driver.close()
        if self._sync is not None:
            self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TestEnvironment at {self.now:%Y-%m-%d %H:%M:%S} with {self._backend!r}>"

    async def _status(
        self, instance_id: str, workflow: Workflow[Any, Out] | None
    ) -> WorkflowStatus[Out]:
        status = await self._client.status(instance_id)
        return status if workflow is None else typed_status(status, workflow)

    async def _advance_to(self, target: float) -> None:
        while True:
            await self.run_until_idle()
            wake = await self._next_wake()
            if wake is None or wake > target:
                break
            self._move_to(wake)
        self._move_to(target)
        await self.run_until_idle()

    async def _next_wake(self) -> float | None:
        """When the next timer is due that is not due yet."""
        wake = await self._backend.next_wake()
        return None if wake is None or wake <= self._clock.time else wake

    def _move_to(self, moment: float) -> None:
        self._driver.hold(moment - self._clock.time)
        self._clock.time = moment


def _id_of(instance: Instance) -> str:
    """The id of what is meant.

    Raises:
        TypeError: It is not an instance.
    """
    given: object = instance
    found = given if isinstance(given, str) else getattr(given, "instance_id", None)
    if not isinstance(found, str):
        raise TypeError(
            f"an instance is its id, its status or its handle, got {type(instance).__name__}"
        )
    return found


def _stranded(status: WorkflowStatus[Any]) -> str:
    """Why an instance does not end, and what to do."""
    name = repr(status.instance_id)
    if status.is_paused():
        return f"instance {name} is paused and does not end; call env.client.unpause({name})"
    if status.signal_name is not None:
        return (
            f"instance {name} awaits event {status.signal_name!r} and does not end by itself; "
            f"call env.send_event({name}, {status.signal_name!r}, …)"
        )
    return f"instance {name} is {status.status} and nothing is due that could bring it to an end"
