"""A nightly job: collect the figures of a day, leave time for late ones, send the report.

    python examples/nightly.py [DAY] [--late 15m]

For cron or a systemd timer: it drives the job itself, without a worker. A DAY is an instance of
its own, so a job that is started twice runs once. While it sleeps nothing holds it: kill the
program, reboot, run it again, and it goes on with what is left of the delay and does not collect
anew. The jobs live in `sayiir.db`, or where `SAYIIR_DATABASE_URL` says. Without arguments it is
yesterday's job, and late figures have three seconds.
"""

import argparse
import sys
import time
from datetime import UTC, date, datetime, timedelta
from typing import TypedDict

from sayiir import (
    Flow,
    Workflow,
    WorkflowStatus,
    connect,
    resume_workflow,
    run_durable_workflow,
    task,
)

SALES = {"bread": 120, "salt": 15}
LATE_SALES = {"salt": 5}


class Figures(TypedDict):
    """What was sold on a day."""

    day: str
    sold: dict[str, int]


@task(retries=3, timeout="5m")
def collect(day: str) -> Figures:
    """Ask the shops what they sold."""
    print(f"collecting the figures of {day}", flush=True)
    return {"day": day, "sold": SALES}


@task(retries=3, timeout="5m")
def add_late(figures: Figures) -> Figures:
    """Ask the shops that were late."""
    sold = {item: n + LATE_SALES.get(item, 0) for item, n in figures["sold"].items()}
    return {**figures, "sold": sold}


@task(retries=3)
def report(figures: Figures) -> str:
    """The mail that the boss gets."""
    return f"{figures['day']}: " + ", ".join(f"{n} {item}" for item, n in figures["sold"].items())


def job(late: str) -> Workflow[str, str]:
    """The job, with so much time for late figures.

    How long a delay takes is no part of what a workflow is: it may be changed while jobs are under
    way. One that sleeps already wakes when it was going to.
    """
    return (
        Flow("nightly")
        .then(collect)
        .delay("late-figures", late)
        .then(add_late)
        .then(report)
        .build()
    )


def sleep_until(moment: datetime) -> None:
    """Sleep in this process; the job itself needs nobody who waits for it."""
    time.sleep(max((moment - datetime.now(UTC)).total_seconds(), 0.0))


def run(day: str, workflow: Workflow[str, str]) -> WorkflowStatus[str]:
    """Drive the job of a day to its end, from wherever it is."""
    job_id = f"nightly-{day}"
    backend = connect()
    status = run_durable_workflow(workflow, job_id, day, backend, "use_existing")
    said: datetime | None = None
    while status.is_waiting() and status.wake_at is not None:
        if said != status.wake_at:
            said = status.wake_at
            print(f"sleeping until {said.isoformat()}", flush=True)
        sleep_until(status.wake_at)
        status = resume_workflow(workflow, job_id, backend)
    return status


def main() -> int:
    """Run the job of one day and print its report."""
    yesterday = (datetime.now().astimezone() - timedelta(days=1)).date()
    parser = argparse.ArgumentParser(description="the nightly job")
    parser.add_argument("day", nargs="?", type=date.fromisoformat, default=yesterday)
    parser.add_argument("--late", default="3s", help="how long to wait for late figures: 3s, 15m")
    arguments = parser.parse_args()
    status = run(arguments.day.isoformat(), job(arguments.late))
    if not status.is_completed():
        print(f"{status.instance_id} is {status.status}: {status.error or status.reason}")
        return 1
    print(status.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
