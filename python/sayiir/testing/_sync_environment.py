"""The environment for code without an event loop: the same calls, without `await`.

Each call runs the call of the same name of `TestEnvironment` on a loop that is the environment's
own and that nobody else uses; arguments, returns and errors are described there. Between two calls
nothing runs. It decides nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sayiir._duration import Duration
from sayiir._status import WorkflowStatus
from sayiir._workflow import Workflow

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._environment import Instance, TestEnvironment
    from ._histories import History
    from ._mocking import Mock

__all__ = ["SyncTestEnvironment"]

P = ParamSpec("P")
T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")


class SyncTestEnvironment:
    """`TestEnvironment.sync`: the environment's calls for code without an event loop.

    On a thread with a running event loop they raise `RuntimeError`. As a context manager it closes
    the environment.

    >>> from sayiir import Flow
    >>> from sayiir.testing import TestEnvironment
    >>> rest = Flow("rest").delay("night", "8h").then(lambda _: "awake").build()
    >>> with TestEnvironment().sync as env:
    ...     env.run(rest).status, env.result(env.run(rest))
    (<Status.WAITING: 'waiting'>, 'awake')
    """

    def __init__(self, environment: TestEnvironment) -> None:
        self._environment = environment
        self._loop: asyncio.Runner | None = None

    @property
    def environment(self) -> TestEnvironment:
        """The environment that it is a view of: its backend, its client, its mocks."""
        return self._environment

    @property
    def now(self) -> datetime:
        """What the clock shows (aware, UTC)."""
        return self._environment.now

    def submit(
        self,
        workflow: Workflow[In, Any],
        input: In | None = None,
        *,
        instance_id: str | None = None,
    ) -> str:
        """Create an instance and run nothing yet; its id. See `TestEnvironment.submit`."""
        submit = self._environment.submit
        return self._do(submit, workflow, input, instance_id=instance_id).instance_id

    def run(
        self,
        workflow: Workflow[In, Out],
        input: In | None = None,
        *,
        instance_id: str | None = None,
    ) -> WorkflowStatus[Out]:
        """Submit and run until it ends or parks. See `TestEnvironment.run`."""
        return self._do(self._environment.run, workflow, input, instance_id=instance_id)

    def run_until_idle(self) -> None:
        """Run all that can run now. See `TestEnvironment.run_until_idle`."""
        self._do(self._environment.run_until_idle)

    def advance(self, duration: Duration) -> None:
        """Let so much time pass. See `TestEnvironment.advance`."""
        self._do(self._environment.advance, duration)

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until this moment. See `TestEnvironment.advance_to`."""
        self._do(self._environment.advance_to, moment)

    def send_event(self, instance: Instance, name: str, payload: Any = None) -> WorkflowStatus[Any]:
        """Send an event and run. See `TestEnvironment.send_event`."""
        return self._do(self._environment.send_event, instance, name, payload)

    def result(self, instance: Instance) -> Any:
        """The output, whatever time it takes. See `TestEnvironment.result`."""
        return self._do(self._environment.result, instance)

    def status(self, instance: Instance) -> WorkflowStatus[Any]:
        """The status now. See `TestEnvironment.status`."""
        return self._do(self._environment.status, instance)

    def history(self, instance: Instance) -> History:
        """The steps that have run. See `TestEnvironment.history`."""
        return self._do(self._environment.history, instance)

    def cancel(self, instance: Instance, reason: str | None = None) -> WorkflowStatus[Any]:
        """Cancel it and give its status. See `TestEnvironment.cancel`."""
        return self._do(self._environment.cancel, instance, reason)

    def mock(
        self,
        task: str | Callable[..., Any],
        *,
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> Mock:
        """Let something else be called in a task's place. See `TestEnvironment.mock`."""
        return self._environment.mock(
            task, returns=returns, raises=raises, side_effect=side_effect, times=times
        )

    def spy(self, task: str | Callable[..., Any]) -> Mock:
        """Record the calls of a task and let it run. See `TestEnvironment.spy`."""
        return self._environment.spy(task)

    def close(self) -> None:
        """End the loop, if there is one. Calling it twice is fine."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._environment.close()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._environment)[1:]}"

    def _do(
        self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call to its end on the loop of its own."""
        name = getattr(call, "__name__", "this")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None:
                # With a factory, so that it does not become anybody's current loop.
                self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            return self._loop.run(call(*args, **kwargs), context=contextvars.copy_context())
        raise RuntimeError(
            f"env.sync.{name}() would block the running event loop; use `await env.{name}(…)`"
        )
