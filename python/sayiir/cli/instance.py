"""An instance and its history as the command line tells of them: plain facts, and pages of text.

The one place that chooses which facts are told and by what names. They hold no input and no output.
Promises that every fact is JSON, and that times are ISO 8601 in UTC.
"""

from typing import Any

from sayiir import InstanceInfo, Status, StepInfo
from sayiir._listing import page_of
from sayiir.backends import InstanceRow, Page
from sayiir.backends._view import status_of
from sayiir.cli.terminal import draw, say, seconds, stamp

__all__ = ["Facts", "facts_of", "facts_of_row", "facts_of_step", "write_instance", "write_list"]

Facts = dict[str, Any]
"""Names and what is true, all of it JSON."""


def facts_of(info: InstanceInfo) -> Facts:
    """What a list tells of an instance."""
    return {
        "instance_id": info.instance_id,
        "workflow": info.workflow_id,
        "definition_hash": info.definition_hash,
        "status": str(info.status),
        "created_at": stamp(info.created_at),
        "updated_at": stamp(info.updated_at),
        "ended_at": stamp(info.ended_at),
        "wake_at": stamp(info.wake_at),
        "priority": info.priority,
        "tags": list(info.tags),
        "worker_id": info.worker_id,
        "steps": info.steps,
    }


def facts_of_row(row: InstanceRow) -> Facts:
    """What is told of one instance by itself."""
    [info] = page_of(Page((row,)))
    status = status_of(row)
    error = None
    if status.status is Status.FAILED:
        error = {
            "type": status.error_type,
            "message": status.error,
            "traceback": status.traceback,
        }
    return {
        **facts_of(info),
        "delay": status.delay_id,
        "signal": status.signal_name,
        "signal_at": status.signal_id,
        "reason": row.reason,
        "by": row.by,
        "error": error,
    }


def facts_of_step(step: StepInfo) -> Facts:
    """What is told of one execution of a step."""
    return {
        "path": step.path,
        "task": step.task,
        "attempt": step.attempt,
        "outcome": step.outcome,
        "worker_id": step.worker_id,
        "started_at": stamp(step.started_at),
        "ended_at": stamp(step.ended_at),
        "took_s": (step.ended_at - step.started_at).total_seconds(),
        "error_type": step.error_type,
        "error": step.error,
    }


def write_instance(facts: Facts, history: list[Facts]) -> None:
    """Write one instance and its history to stdout, for people."""
    lines = {
        "instance": facts["instance_id"],
        "workflow": f"{facts['workflow']} (definition {facts['definition_hash'][:12]})",
        "status": facts["status"],
        "created": facts["created_at"],
        "updated": facts["updated_at"],
        "ended": facts["ended_at"],
        "held by": facts["worker_id"],
        "waits for": _waits_for(facts),
        _request(facts): _who_and_why(facts),
        "tags": ", ".join(facts["tags"]),
        "priority": str(facts["priority"]),
    }
    for name, text in lines.items():
        if text:
            say(f"{name:<10}  {text}")
    error = facts["error"]
    if error is not None:
        say("")
        say(f"error: {error['type']}: {error['message']}", lines=True)
        if error["traceback"]:
            say(error["traceback"].rstrip(), lines=True)
    say("")
    if not history:
        say("no step has ended yet")
        return
    columns = ("path", "attempt", "outcome", "worker", "started", "took", "error")
    draw({name: name in ("path", "worker", "error") for name in columns}, map(_step_cells, history))


def write_list(rows: list[Facts]) -> None:
    """Write a page of instances to stdout, for people."""
    columns = ("id", "workflow", "status", "created", "updated", "steps")
    draw({name: name in ("id", "workflow") for name in columns}, map(_row_cells, rows))


def _row_cells(row: Facts) -> list[str]:
    moments = (_to_the_second(row[name]) for name in ("created_at", "updated_at"))
    return [row["instance_id"], row["workflow"], row["status"], *moments, str(row["steps"])]


def _to_the_second(moment: str) -> str:
    return moment.partition(".")[0] + "Z"


def _step_cells(step: Facts) -> list[str]:
    words = ": ".join(step[key] for key in ("error_type", "error") if step[key])
    # The whole of it is in --json; here it shares a line with six others.
    first = words.partition("\n")[0]
    short = first[:99] + "…" if len(words) > 100 else first
    named = (str(step[name]) for name in ("path", "attempt", "outcome", "worker_id"))
    # The year is told above, and the whole of it in --json.
    started = _to_the_second(step["started_at"])[5:].replace("T", " ")
    return [*named, started, seconds(step["took_s"]), short]


def _waits_for(facts: Facts) -> str | None:
    until = f"until {facts['wake_at']}" if facts["wake_at"] else ""
    if facts["signal"]:
        limit = f", {until}" if until else ""
        return f"event {facts['signal']} (at {facts['signal_at']}){limit}"
    if facts["delay"]:
        return f"delay {facts['delay']}, {until}"
    return until or None


def _request(facts: Facts) -> str:
    return facts["status"] if facts["status"] in ("paused", "cancelled") else "asked to stop"


def _who_and_why(facts: Facts) -> str | None:
    words = [f"by {facts['by']}" if facts["by"] else "", facts["reason"] or ""]
    return ": ".join(word for word in words if word) or None
