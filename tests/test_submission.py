"""Ids that are generated: random, nobody else's, and nearly in order.

What is submitted is in `test_client.py`.
"""

import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from sayiir._submission import fresh_id

# A program of its own, since a process with threads is not to be forked.
FORKING = """
import os
from sayiir._submission import fresh_id
fresh_id()  # More are drawn than are given out.
child = os.fork()
if child:
    os.waitpid(child, 0)  # Lines that are written at once may be mixed.
print("".join(fresh_id() for _ in range(100)), flush=True)
"""


def test_generated_ids_are_uuids_and_none_comes_twice() -> None:
    with ThreadPoolExecutor(4) as threads:
        drawn = [threads.submit(lambda: [fresh_id() for _ in range(1_000)]) for _ in range(4)]
    ids = [one for each in drawn for one in each.result()]
    assert len(set(ids)) == len(ids) == 4_000
    for one in ids:
        made = uuid.UUID(one)
        assert (made.hex, made.version, made.variant) == (one, 7, uuid.RFC_4122)


def test_generated_ids_begin_with_the_time() -> None:
    # More are drawn than are given out, so the first ones may be of a while ago.
    before = time.time_ns() // 1_000_000
    last = [fresh_id() for _ in range(1_000)][-1]
    assert before <= int(last[:12], 16) <= time.time_ns() // 1_000_000


def test_a_forked_process_generates_ids_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.split()
    assert [len(line) for line in lines] == [3_200, 3_200]
    ours, theirs = ({line[at : at + 32] for at in range(0, 3_200, 32)} for line in lines)
    assert len(ours) == len(theirs) == 100
    assert ours.isdisjoint(theirs)
