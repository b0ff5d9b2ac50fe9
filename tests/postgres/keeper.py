"""The keeper of one server: its parent process, which ends it when nobody is left to end it.

`python keeper.py` reads one order a line, as JSON, and answers each with one line. It is a process
of its own, between the test run and the server, because a run may be killed: then its end of the
pipe is closed by the kernel, the keeper reads the end of its orders, stops the server and removes
its folder. A signal on the parent's death (PR_SET_PDEATHSIG) would be shorter, but exists on Linux
alone, is lost when the server changes its user, comes when the *thread* ends that made the process,
and removes no folder.

That the server is gone means that its last child is gone: they all inherit the end of a pipe that
nobody ever writes to, and it is closed when the last of them has died. A server killed by SIGKILL
leaves children for a moment, and must not be started again before that.

Refuses to know clusters, databases and tests; uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}
PATIENCE_S = 60.0
"""Until a server that does not start or end is given up."""
GLANCE_S = 0.005
"""Between two looks at the file in which a server says that it is ready."""


class Trouble(Exception):
    """What was ordered did not happen; the text says why."""


class Keeper:
    """Starts and ends the server; one at a time."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._alive = -1
        """Closed at the other end when the last process of the server is gone."""

    def start(
        self, command: list[str], user: int | None, group: int | None, data: str, log: str
    ) -> None:
        """Start it, and wait until it takes connections.

        Raises:
            Trouble: It ended, did not get ready, or runs already.
        """
        if self._server is not None:
            raise Trouble("the server runs already; stop it first")
        self._alive, held = os.pipe()
        become: dict[str, Any] = {}
        if user is not None:
            become = {"user": user, "group": group, "extra_groups": []}
        try:
            with Path(log).open("ab") as output:
                self._server = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=data,
                    env=clean_environment(),
                    pass_fds=[held],
                    start_new_session=True,
                    **become,
                )
        finally:
            os.close(held)
        try:
            self._wait_for(self._server, Path(data, "postmaster.pid"))
        except Trouble:
            self.stop("immediate")
            raise

    def _wait_for(self, server: subprocess.Popen[bytes], status: Path) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_ready(server.pid, status):
            if server.poll() is not None:
                raise Trouble(f"the server ended with {server.returncode} as it started")
            if time.monotonic() > end:
                raise Trouble(f"the server was not ready after {PATIENCE_S:.0f} s")
            time.sleep(GLANCE_S)

    def stop(self, mode: str) -> None:
        """End it, and wait until none of its processes is left; nothing happens if none runs.

        Raises:
            Trouble: It did not end.
        """
        if self._server is None:
            return
        if self._server.poll() is None:
            self._server.send_signal(SIGNALS[mode])
        try:
            self._server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Trouble(f"the server did not end ({mode}) in {PATIENCE_S:.0f} s") from None
        gone, _, _ = select.select([self._alive], [], [], PATIENCE_S)
        if not gone:
            raise Trouble("the server ended, but not all of its processes")
        os.close(self._alive)
        self._server = None

    def obey(self, order: dict[str, Any]) -> None:
        """Do what one line says."""
        match order.pop("do"):
            case "start":
                self.start(**order)
            case "stop":
                self.stop(**order)


def is_ready(pid: int, status: Path) -> bool:
    """Whether the server of this process says in its file that it takes connections."""
    try:
        lines = status.read_text().splitlines()
    except FileNotFoundError:
        return False
    # The file may still be the one that a killed server left behind.
    return len(lines) > 7 and int(lines[0]) == pid and lines[7].strip() == "ready"


def clean_environment() -> dict[str, str]:
    """The environment without what a server or a client of it would read from it."""
    names = ("LANG", "LANGUAGE", "TZ")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_")) and name not in names
    }
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def main(folder: str) -> None:
    """Obey until there are no more orders, then end the server and remove the folder."""
    keeper = Keeper()
    try:
        for line in sys.stdin:
            try:
                keeper.obey(json.loads(line))
                answer = "ok"
            except (OSError, Trouble) as error:
                answer = " ".join(f"{error}".split())
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    finally:
        keeper.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
