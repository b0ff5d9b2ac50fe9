"""What a submit gives back: a handle on one instance.

A handle remembers the instance's id, the client it came from, and what was true when it was made.
It decides nothing: each of its calls is the client's call of the same name. It knows the workflow,
so an output is made what the last step's return annotation says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._output import made_output, output_converter
from ._status import Status, WorkflowStatus
from .backends._view import moment, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._client import WorkflowClient
    from ._duration import Duration
    from ._listing import StepInfo
    from ._workflow import Workflow
    from .backends import InstanceRow

__all__ = ["WorkflowHandle", "typed_status"]

Out_co = TypeVar("Out_co", covariant=True)


def typed_status(
    status: WorkflowStatus[Any], workflow: Workflow[Any, Out_co]
) -> WorkflowStatus[Out_co]:
    """The status of an instance of this workflow, with an output of the workflow's type.

    >>> from sayiir import Flow
    >>> shout = Flow("shout").then(str.upper).build()
    >>> typed_status(WorkflowStatus("s-1", "shout", Status.PAUSED), shout)
    <WorkflowStatus 's-1' of 'shout': paused>
    """
    convert = output_converter(workflow)
    plain = status.decode
    if convert is None or plain is None or status.output_bytes is None:
        return status
    what = f"the output of instance {status.instance_id!r}"
    return replace(status, decode=lambda sealed: made_output(convert, plain(sealed), what))


class WorkflowHandle(Generic[Out_co]):
    """One instance, whose workflow gives `Out_co`. Made by `WorkflowClient.submit`.

    >>> import asyncio
    >>> from sayiir import Flow, InMemoryBackend, WorkflowClient
    >>> shout = Flow("shout").then(str.upper, name="upper").build()
    >>> async def main():
    ...     handle = await WorkflowClient(InMemoryBackend()).submit(shout, "s-1", "hey")
    ...     await handle.cancel("changed my mind")
    ...     return handle, await handle.refresh()
    >>> asyncio.run(main())
    (<WorkflowHandle 's-1' of 'shout': cancelled>, <WorkflowStatus 's-1' of 'shout': cancelled>)
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_row",
        "_since",
        "_start_at",
        "_status",
        "_workflow",
        "instance_id",
    )

    instance_id: str
    """The instance's id, given or generated."""

    def __init__(
        self,
        client: WorkflowClient,
        instance_id: str,
        workflow: Workflow[Any, Out_co],
        row: InstanceRow | None,
        start_at: float | None,
        since: int | None,
    ) -> None:
        self.instance_id = instance_id
        self._client = client
        self._workflow = workflow
        self._row = row
        self._start_at = start_at
        self._since = since
        self._status: WorkflowStatus[Out_co] | None = None

    @property
    def status(self) -> Status:
        """The state as of the submit, or of the last `refresh`; asks nobody.

        A fresh instance is in progress, or waiting for its `start_at`. An enum that equals its
        string.
        """
        return self.details.status

    @property
    def output(self) -> Out_co | None:
        """The output, if the instance had completed as of `status`; else `None`."""
        return self.details.output

    @property
    def error(self) -> str | None:
        """The text of the failure, if the instance had failed as of `status`; else `None`."""
        return self.details.error

    @property
    def reason(self) -> str | None:
        """Why it was paused or cancelled, if it was as of `status`; else `None`."""
        return self.details.reason

    @property
    def details(self) -> WorkflowStatus[Out_co]:
        """Everything known as of `status`; the times of a fresh instance only after a `refresh`."""
        if self._status is None:
            # Most handles are never asked, so it is put together on first use.
            if self._row is not None:
                self._status = typed_status(
                    status_of(self._row, self._client._codec), self._workflow
                )
            else:
                state = Status.IN_PROGRESS if self._start_at is None else Status.WAITING
                self._status = WorkflowStatus(
                    self.instance_id,
                    self._workflow.workflow_id,
                    state,
                    wake_at=moment(self._start_at),
                )
        return self._status

    async def result(
        self,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the word of the published API
    ) -> Out_co:
        """Wait for the end and return the output, as the last step's annotation says.

        Raises:
            DecodeError: The output does not fit what the last step says it returns.
            Exception: What `WorkflowClient.result` raises.
        """
        if timeout is None and self._since is not None:
            plain = await self._client._own_result(self.instance_id, self._since)
        else:
            plain = await self._client.result(self.instance_id, timeout)
        made: Out_co = made_output(
            output_converter(self._workflow), plain, f"the output of instance {self.instance_id!r}"
        )
        return made

    async def refresh(self) -> WorkflowStatus[Out_co]:
        """Ask for the status now and keep it as `details`. Raises as `WorkflowClient.status`."""
        plain = await self._client.status(self.instance_id)
        self._status = typed_status(plain, self._workflow)
        return self._status

    async def history(self) -> list[StepInfo]:
        """Every execution of a step. See `WorkflowClient.history`."""
        return await self._client.history(self.instance_id)

    def watch(self, after: int = 0) -> AsyncIterator[StepInfo]:
        """The steps as they end, until the instance has. See `WorkflowClient.watch`."""
        return self._client.watch(self.instance_id, after)

    async def wait_until(
        self,
        *statuses: Status | str,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the word of the published API
    ) -> WorkflowStatus[Out_co]:
        """Wait for one of these states and keep it as `details`. See `WorkflowClient.wait_until`.

        >>> import asyncio
        >>> from sayiir import Flow, InMemoryBackend, WorkflowClient
        >>> shout = Flow("shout").then(str.upper).build()
        >>> async def main():
        ...     handle = await WorkflowClient(InMemoryBackend()).submit(shout, "s-1", "hey")
        ...     await handle.pause()
        ...     return await handle.wait_until("paused", "completed")
        >>> asyncio.run(main())
        <WorkflowStatus 's-1' of 'shout': paused>
        """
        plain = await self._client.wait_until(self.instance_id, *statuses, timeout=timeout)
        self._status = typed_status(plain, self._workflow)
        return self._status

    async def cancel(self, reason: str | None = None, cancelled_by: str | None = None) -> None:
        """Cancel the instance. See `WorkflowClient.cancel`."""
        await self._client.cancel(self.instance_id, reason, cancelled_by)

    async def pause(self, reason: str | None = None, paused_by: str | None = None) -> None:
        """Pause the instance. See `WorkflowClient.pause`."""
        await self._client.pause(self.instance_id, reason, paused_by)

    async def unpause(self) -> None:
        """Let the paused instance go on. See `WorkflowClient.unpause`."""
        await self._client.unpause(self.instance_id)

    async def send_event(
        self, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> None:
        """Send the instance an event. See `WorkflowClient.send_event`."""
        await self._client.send_event(
            self.instance_id, name, payload, idempotency_key=idempotency_key
        )

    def _repr_html_(self) -> str:
        """How a notebook shows it: `details`, which asks nobody."""
        return self.details._repr_html_()

    def __repr__(self) -> str:
        workflow = self._workflow.workflow_id
        return f"<WorkflowHandle {self.instance_id!r} of {workflow!r}: {self.status}>"
