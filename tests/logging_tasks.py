"""A task for a process of its own, in a module that sets logging up where it is imported.

The records go to the file that the environment names, so that they can be read by whoever started
the process. Knows nothing of the tests.
"""

import logging
import os

from sayiir import TaskLogFilter, task

LOG = "LOG_OF_PROCESSES"
_log = logging.getLogger("tests.logging_tasks")

if LOG in os.environ:
    _handler = logging.FileHandler(os.environ[LOG])
    _handler.addFilter(TaskLogFilter())
    _handler.setFormatter(
        logging.Formatter(
            "%(sayiir_workflow)s %(sayiir_instance)s %(sayiir_path)s %(sayiir_attempt)s %(message)s"
        )
    )
    _log.addHandler(_handler)
    _log.setLevel(logging.INFO)


@task(run_in="process")
def speaks(value: int) -> int:
    _log.info("in a process")
    return value
