"""Tasks that run in a process of their own. A spawned child imports this module by its name.

They tell what they did through what they return and through files, because nothing else crosses.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from sayiir import NonRetryable, RetryAfter, RetryPolicy, get_task_context, task

AT_ONCE = RetryPolicy(max_retries=2, initial_delay_secs=0.001)


def noted(folder: str) -> int:
    """Leave a mark in a folder; how many there are now."""
    marks = Path(folder)
    (marks / f"{len(list(marks.iterdir()))}-{os.getpid()}").touch()
    return len(list(marks.iterdir()))


@task(run_in="process")
def pid(_: Any) -> int:
    return os.getpid()


@task(run_in="process", retries=3, tags=["x"], timeout="1m")
def context(_: Any) -> dict[str, Any]:
    seen = get_task_context()
    assert seen is not None
    return {
        "workflow_id": seen.workflow_id,
        "instance_id": seen.instance_id,
        "task_id": seen.task_id,
        "path": seen.path,
        "attempt": seen.attempt,
        "deadline": seen.deadline,
        "tags": list(seen.metadata.tags),
        "workflow_metadata": seen.workflow_metadata,
        "key": seen.idempotency_key,
        "cancelled": seen.cancelled,
    }


@task(run_in="process")
def echo(value: Any) -> Any:
    return value


@task(run_in="process", retries=AT_ONCE)
def retried(folder: str) -> int:
    count = noted(folder)
    if count < 3:
        raise ConnectionError(f"attempt {count}")
    return count


@task(
    run_in="process",
    retries=RetryPolicy(max_retries=2, initial_delay_secs=0.001, retry_on=(KeyError,)),
)
def not_covered(folder: str) -> None:
    noted(folder)
    raise ValueError("not covered")


@task(run_in="process", retries=AT_ONCE)
def never_again(folder: str) -> None:
    noted(folder)
    raise NonRetryable("for good")


@task(run_in="process", retries=AT_ONCE)
def again_at_once(folder: str) -> int:
    count = noted(folder)
    if count < 2:
        raise RetryAfter(0)
    return count


@task(run_in="process")
def chained(_: Any) -> None:
    try:
        raise KeyError("account")
    except KeyError as error:
        raise ValueError("no funds") from error


@task(run_in="process")
def unstorable(_: Any) -> Any:
    return (n for n in range(3))


@task(run_in="process")
def exits(_: Any) -> None:
    raise SystemExit(3)


@task(run_in="process")
def dies(_: Any) -> None:
    os._exit(7)


@task(run_in="process", retries=AT_ONCE)
def dies_once(folder: str) -> int:
    count = noted(folder)
    if count < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


@task(run_in="process", timeout=1.0)
def stuck(folder: str) -> None:
    noted(folder)
    while True:
        time.sleep(0.01)


@task(run_in="process")
def endless(folder: str) -> None:
    (Path(folder) / "entered").touch()
    # Opening the pipe waits for whoever reads from it.
    (Path(folder) / "begun").write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


@task(run_in="process", timeout=0.1)
def brief(value: int) -> int:
    return value + 1
