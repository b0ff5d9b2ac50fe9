"""An example as a process: started as its reader starts it, listened to, killed, and run again.

Each runs in the current directory that a test gives it and finds its database as the test says;
nothing of this machine's settings reaches it. What it says is waited for, never guessed, and with
warnings as errors it may say nothing else. Refuses to know what an example does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sayiir

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
MORTAL = Path(__file__).with_name("mortal.py")
LONG = 60.0
"""Seconds until a program that does not end is a failed test."""


@dataclass(frozen=True)
class Place:
    """Where examples run: a directory, and a database, by default the file in it."""

    folder: Path
    url: str | None = None

    def environment(self, **more: str) -> dict[str, str]:
        """What a process is started with, and `more`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SAYIIR_")}
        # Started elsewhere, so that it finds the package where this process found it.
        kept["PYTHONPATH"] = str(Path(sayiir.__file__).resolve().parent.parent)
        # An example that is imported leaves nothing beside itself.
        kept["PYTHONDONTWRITEBYTECODE"] = "1"
        # What they pretend to do takes no time here.
        kept["PACE"] = "0"
        if self.url is not None:
            kept["SAYIIR_DATABASE_URL"] = self.url
        return kept | more

    def run(self, name: str, *arguments: str, said: str = "") -> list[str]:
        """Run an example to its end; the lines that it printed.

        Args:
            name: Of its file, without the ending.
            arguments: Of its command line.
            said: What somebody types in.

        Raises:
            AssertionError: It did not end well, or complained.
        """
        done = self._done([str(EXAMPLES / f"{name}.py"), *arguments], said)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout.splitlines()

    def run_until(
        self, name: str, function: str, call: int, *arguments: str, said: str = ""
    ) -> list[str]:
        """Run an example that is killed after a call of one of its functions; what it printed.

        Raises:
            AssertionError: It ended otherwise.
        """
        done = self._done([str(MORTAL), name, function, str(call), *arguments], said)
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, ""), done.stdout
        return done.stdout.splitlines()

    def _done(self, command: list[str], said: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", *command],
            input=said,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
            cwd=self.folder,
            env=self.environment(),
        )

    @contextmanager
    def started(
        self, name: str, *arguments: str, **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """An example that is running; it is killed at the end, if it still is."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
            # Somebody is there, and types nothing.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment(**environment),
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read what the program says until a line holds these words; that line.

    Raises:
        AssertionError: It ended without having said it.
    """
    heard: list[str] = []
    for line in said_by(process):
        heard.append(line)
        if words in line:
            return line.rstrip("\n")
    raise AssertionError(f"nobody said {words!r}, but: {''.join(heard)}")


def said_by(process: subprocess.Popen[str]) -> IO[str]:
    """What the program says."""
    assert process.stdout is not None
    return process.stdout
