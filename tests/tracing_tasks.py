"""Tasks for a process of their own that say which trace they are in.

Knows nothing of the tests.
"""

from opentelemetry import propagate

from sayiir import task


@task(run_in="process")
def says_where_it_is() -> dict[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@task(run_in="process")
def runs_out(value: int) -> int:
    raise OSError("out of paper")
