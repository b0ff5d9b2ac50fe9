"""The racer program: submits what it is told, at the moment it is told, and says what came of it.

`python -m tests.crash.racer SETTINGS`. Each line it reads is an id and a policy; it submits with
its own name as the input, takes the outcome down in its ledger, and answers `done`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from sayiir import ConflictPolicy, Flow, InstanceAlreadyExistsError, WorkflowClient, connect

from .ledger import Ledger
from .program import Settings, say

RACE = Flow("race").then(str, name="echo").build()


async def outcome(client: WorkflowClient, instance: str, policy: str, given: str) -> str:
    """`created`, `found`, `refused`, or what else was raised."""
    try:
        handle = await client.submit(RACE, instance, given, conflict_policy=ConflictPolicy(policy))
    except InstanceAlreadyExistsError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    # Only what was there before has a past.
    return "created" if handle.details.created_at is None else "found"


async def main(settings: Settings) -> None:
    """Submit once for each line, until there are no more lines."""
    ledger = Ledger(Path(settings.folder), settings.who)
    backend = connect(settings.url)
    client = WorkflowClient(backend)
    # The first call opens what a backend opens when it is first used.
    await client.list_instances(limit=1)
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        instance, policy = line.split()
        came = await outcome(client, instance, policy, settings.who)
        ledger.note("raced", instance, detail=came)
        say("done")
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
