"""A terminal for the papers: types the commands of a page into one shell and reads the answers.

A `console` block is a transcript: lines that begin with `$ ` are typed, the lines below one are
what it must print, compared as doctest does (`...` stands for anything, spaces count once). All
blocks of a page go to one `bash`, so what one command leaves (a file, a process in the
background) is there for the next. Whoever only looks (`sayiir runs show`, `list`) looks again
until it sees what the page shows, as a reader would; nothing here waits for a length of time.
"""

import doctest
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 60.0
_LOOKS = ("sayiir runs show", "sayiir runs list")
_MARK = "-- end of the answer --"
# What a shell that nobody sits at says of a process that was ended, whenever it comes to notice.
_OBITUARY = re.compile(r"^bash: line \d+: +\d+ (Killed|Terminated).*\n", flags=re.MULTILINE)
_COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def commands(transcript: str) -> Iterator[tuple[str, str]]:
    r"""The commands of a transcript, each with what it is said to print.

    >>> list(commands("$ cat bank.txt\n30\n$ sayiir run \\\n    shop:order\n"))
    [('cat bank.txt', '30\n'), ('sayiir run \\\n    shop:order', '')]
    """
    command, answer = "", ""
    for line in transcript.splitlines():
        if command.endswith("\\"):
            command += f"\n{line}"
        elif line.startswith("$ "):
            if command:
                yield command, answer
            command, answer = line[2:], ""
        else:
            answer += f"{line}\n"
    if command:
        yield command, answer


def agrees(want: str, got: str) -> bool:
    """Whether what was printed is what the page shows."""
    return doctest.OutputChecker().check_output(want, got, _COMPARE)


class Terminal:
    """One shell in a folder; leaving it ends whatever was started in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # So that all its processes are one group, which ends with it.
            start_new_session=True,
        )
        self._unread = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.communicate()

    def type(self, command: str) -> tuple[str, int]:
        """Type a command; what it printed, and its exit code."""
        assert self.shell.stdin is not None
        # Not `echo; echo $?`, which would be the code of the first one.
        self.shell.stdin.write(f"{command}\nprintf '\\n{_MARK} %d\\n' $?\n".encode())
        self.shell.stdin.flush()
        before, _, behind = self._read_until_mark(command).rpartition(f"\n{_MARK}")
        return _OBITUARY.sub("", before), int(behind)

    def _read_until_mark(self, command: str) -> str:
        assert self.shell.stdout is not None
        descriptor = self.shell.stdout.fileno()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            head, mark, tail = self._unread.partition(_MARK)
            code, end, rest = tail.partition("\n")
            if mark and end:
                self._unread = rest
                return head + mark + code
            left = deadline - time.monotonic()
            ready, _, _ = select.select([descriptor], [], [], max(left, 0))
            late = f"{command!r} has not ended after {PATIENCE_S:.0f} s"
            assert ready, f"{late}: {self._unread}\n{self._logs()}"
            data = os.read(descriptor, 65536)
            assert data, f"the shell has ended at {command!r}: {self._unread}"
            self._unread += data.decode()

    def follow(self, transcript: str) -> None:
        """Type every command of a transcript and hold the answers against it."""
        for command, want in commands(transcript):
            deadline = time.monotonic() + PATIENCE_S
            while True:
                got, code = self.type(command)
                if agrees(want, got) or not command.startswith(_LOOKS):
                    break
                assert time.monotonic() < deadline, f"$ {command}\nshows {got}\nwanted {want}"
            assert agrees(want, got), f"$ {command}\nprinted {got}\nwanted {want}\n{self._logs()}"
            # What goes wrong must be shown to go wrong.
            assert code == 0 or want, f"$ {command}\nended with {code}: {got}"

    def _logs(self) -> str:
        """What processes in the background have left, for whoever reads the failure."""
        return "\n".join(path.read_text("utf-8") for path in sorted(self._folder.glob("*.log")))
