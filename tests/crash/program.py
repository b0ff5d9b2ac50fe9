"""What every program of the fleet has: its settings, and a word to whoever started it.

Settings cross as JSON, in the one argument of a program; words cross on its standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker program is told; times in seconds."""

    url: str
    folder: str
    """Where ledgers are kept."""
    who: str = ""
    """This process, and no other."""
    name: str = "worker"
    """Its worker id; several may have the same."""
    repertoire: str = "shapes"
    pace: float = 0.03
    seed: int = 0
    lease_ttl: float = 1.0
    poll_interval: float = 0.2
    concurrency: int = 4
    grace: float = 30.0

    def to_json(self) -> str:
        """As the program takes it."""
        return json.dumps(asdict(self))


def say(word: str) -> None:
    """A word to whoever started this program."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
