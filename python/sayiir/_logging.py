"""Which instance and which step a log record is about.

A record that is emitted while a task runs, by whatever logger, can carry who was running: put a
`TaskLogFilter` on a handler. The engine's own records about an instance carry the same fields
always, from `fields_of` and `fields_about`. This module sets nothing up: handlers, levels and
formats are the program's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ._context import current

if TYPE_CHECKING:
    from ._context import StepLike

__all__ = ["FIELDS", "TaskLogFilter", "fields_about", "fields_of"]

FIELDS = (
    "sayiir_workflow",
    "sayiir_instance",
    "sayiir_path",
    "sayiir_task",
    "sayiir_attempt",
)
"""The attributes of a record that is about a step; one about an instance has the first two."""


def fields_of(step: StepLike) -> dict[str, object]:
    """The fields of a record about a step, for `extra=`."""
    return {
        "sayiir_workflow": step.workflow_id,
        "sayiir_instance": step.instance_id,
        "sayiir_path": step.path,
        "sayiir_task": step.task.name,
        "sayiir_attempt": step.attempt,
    }


def fields_about(instance_id: str, workflow_id: str) -> dict[str, object]:
    """The fields of a record about an instance, for `extra=`.

    >>> fields_about("order-1", "order")
    {'sayiir_workflow': 'order', 'sayiir_instance': 'order-1'}
    """
    return {"sayiir_workflow": workflow_id, "sayiir_instance": instance_id}


class TaskLogFilter(logging.Filter):
    """Adds to every record which task was running: on a handler, for any logger's records.

    The attributes are `sayiir_workflow`, `sayiir_instance`, `sayiir_path`, `sayiir_task` and
    `sayiir_attempt` (a number, from 1), ready for a format such as
    `"%(levelname)s %(sayiir_instance)s %(sayiir_path)s %(message)s"`. Nothing is dropped. It works
    in coroutines, in threads, in asyncio tasks that a task starts, and in the processes of
    `run_in="process"` if logging is set up there. A record must pass the filter on the thread that
    emits it: with a `QueueHandler` it belongs on that, not on the handlers behind the queue.

    Args:
        missing: What an attribute is when no task is running, or when the record is about an
            instance and not about a step of it. `None` suits records written as JSON.

    >>> import logging
    >>> record = logging.makeLogRecord({"msg": "charged"})
    >>> TaskLogFilter().filter(record), record.sayiir_instance
    (True, '-')
    """

    def __init__(self, missing: str | None = "-") -> None:
        if missing is not None and not isinstance(missing, str):
            raise TypeError(f"missing must be a str or None, got {type(missing).__name__}")
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes that the record does not have; always `True`."""
        there = record.__dict__
        step = current.get()
        # What the engine says of an instance stays as it was said, and nothing is mixed into it.
        if step is not None and "sayiir_instance" not in there:
            there.update(fields_of(step))
        for name in FIELDS:
            there.setdefault(name, self._missing)
        return True
