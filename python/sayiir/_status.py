"""What is true of an instance, as of one moment.

A `WorkflowStatus` is a photograph: it never changes and asks nobody. Looking at it never raises;
a stored output that cannot be decoded shows as `output_error`. Where the facts come from, and how
bytes become values, is not known here: the decoder is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from ._errors import DecodeError
from ._notebook import facts_table, moment_text

__all__ = ["Status", "WorkflowStatus"]

Out_co = TypeVar("Out_co", covariant=True)


class Status(StrEnum):
    """The states of an instance. Each equals its text, so `status == "completed"` works.

    >>> Status.COMPLETED == "completed" and Status.COMPLETED.is_terminal
    True
    """

    IN_PROGRESS = "in_progress"
    """A step is due or running."""
    WAITING = "waiting"
    """Parked until a moment: a delay, or the wait before a retry."""
    AWAITING_SIGNAL = "awaiting_signal"
    """Parked until an event arrives."""
    PAUSED = "paused"
    """Held back until someone unpauses it."""
    COMPLETED = "completed"
    """Over, with an output."""
    FAILED = "failed"
    """Over, with an error."""
    CANCELLED = "cancelled"
    """Over, because someone cancelled it."""

    @property
    def is_terminal(self) -> bool:
        """Whether an instance in this state will never change again."""
        return self in _TERMINAL


_TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

_UNDECODED: Any = object()


@dataclass(frozen=True)
class WorkflowStatus(Generic[Out_co]):
    """The state of one instance and what goes with it.

    Two are equal when all their facts are. The representation shows no output and no error text,
    so it is safe to log.

    >>> status = WorkflowStatus("order-1", "order", "waiting", delay_id="cool-off")
    >>> status
    <WorkflowStatus 'order-1' of 'order': waiting>
    >>> status.is_waiting(), status.is_terminal(), status.output
    (True, False, None)
    """

    instance_id: str
    """The instance's id."""
    workflow_id: str
    """The name of the workflow it runs."""
    status: Status
    """The state; may be given as its text."""
    error: str | None = None
    """Why it failed."""
    error_type: str | None = None
    """Name of the class of the exception it failed with."""
    traceback: str | None = None
    """The formatted traceback of that exception."""
    reason: str | None = None
    """Why it was cancelled or paused, as given in the call."""
    cancelled_by: str | None = None
    """Who cancelled it, as given in the call."""
    paused_by: str | None = None
    """Who paused it, as given in the call."""
    wake_at: datetime | None = None
    """When it goes on by itself (aware, UTC)."""
    delay_id: str | None = None
    """The name of the delay it is parked at."""
    signal_id: str | None = None
    """The name of the node it awaits an event at."""
    signal_name: str | None = None
    """The name of the event it awaits."""
    created_at: datetime | None = None
    """When it was submitted (aware, UTC)."""
    updated_at: datetime | None = None
    """When it last changed (aware, UTC)."""
    output_bytes: bytes | None = None
    """The encoded output, if it completed."""
    decode: Callable[[bytes], Any] | None = field(default=None, compare=False)
    """How to read `output_bytes`."""
    _output: Any = field(default=_UNDECODED, init=False, compare=False)
    _output_error: DecodeError | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))

    @property
    def output(self) -> Out_co | None:
        """The output of a completed instance.

        It is decoded on first use and kept. `None` when there is none, when it is `None`, and
        when it cannot be decoded, in which case `output_error` says why.

        >>> WorkflowStatus("a", "w", "completed", output_bytes=b"41", decode=int).output
        41
        """
        if self._output is _UNDECODED:
            self._decode_output()
        value: Out_co | None = self._output
        return value

    @property
    def output_error(self) -> DecodeError | None:
        """Why the stored output cannot be decoded, or `None`.

        >>> WorkflowStatus("a", "w", "completed", output_bytes=b"?", decode=int).output_error
        DecodeError("the output of instance 'a' cannot be decoded: ValueError")
        """
        if self._output is _UNDECODED:
            self._decode_output()
        return self._output_error

    def _decode_output(self) -> None:
        value = None
        if self.output_bytes is not None and self.decode is not None:
            try:
                value = self.decode(self.output_bytes)
            except DecodeError as error:
                object.__setattr__(self, "_output_error", error)
            except Exception as cause:
                # The cause's text may quote the payload, so only its type goes into ours.
                refusal = DecodeError(
                    f"the output of instance {self.instance_id!r} cannot be decoded: "
                    f"{type(cause).__name__}"
                )
                refusal.__cause__ = cause
                object.__setattr__(self, "_output_error", refusal)
        object.__setattr__(self, "_output", value)

    def is_completed(self) -> bool:
        """Whether it is over, with an output."""
        return self.status is Status.COMPLETED

    def is_failed(self) -> bool:
        """Whether it is over, with an error."""
        return self.status is Status.FAILED

    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.status is Status.CANCELLED

    def is_in_progress(self) -> bool:
        """Whether a step is due or running."""
        return self.status is Status.IN_PROGRESS

    def is_paused(self) -> bool:
        """Whether it is held back until someone unpauses it."""
        return self.status is Status.PAUSED

    def is_waiting(self) -> bool:
        """Whether it is parked until a moment."""
        return self.status is Status.WAITING

    def is_awaiting_signal(self) -> bool:
        """Whether it is parked until an event arrives."""
        return self.status is Status.AWAITING_SIGNAL

    def is_terminal(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.status.is_terminal

    def __repr__(self) -> str:
        more = f" with {self.error_type}" if self.error_type else ""
        return f"<WorkflowStatus {self.instance_id!r} of {self.workflow_id!r}: {self.status}{more}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: its facts, of an output and an error only the type."""
        output = None
        if self.output_bytes is not None:
            known = type(self.output).__name__ if self.output_error is None else "damaged"
            output = f"{known}, {len(self.output_bytes):,} bytes"
        return facts_table(
            f"{self.instance_id} ({self.workflow_id})",
            {
                "status": self.status,
                "error": self.error_type,
                "output": output,
                "reason": self.reason,
                "cancelled by": self.cancelled_by,
                "paused by": self.paused_by,
                "delay": self.delay_id,
                "awaits event": self.signal_name,
                "until": moment_text(self.wake_at),
                "created": moment_text(self.created_at),
                "updated": moment_text(self.updated_at),
            },
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # The decoder belongs to this process; what it makes of the output is what travels.
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        state.update(_output=self.output, _output_error=self.output_error, decode=None)
        return _restore, (state,)


def _restore(state: dict[str, Any]) -> WorkflowStatus[Any]:
    """A pickled status with its output already decoded."""
    status: WorkflowStatus[Any] = object.__new__(WorkflowStatus)
    for name, value in state.items():
        object.__setattr__(status, name, value)
    return status
