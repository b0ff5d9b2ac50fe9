"""The fleet: programs in processes of their own, started, killed, stopped and waited for.

Every process has a name that no other ever had (`who`), and whatever is done to it is taken down in
the ledger of the fleet before it is done. What the programs say is waited for, never guessed. At
the end no process is left. Refuses to know what the programs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import sayiir

from .ledger import Ledger
from .program import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
# Started elsewhere, so that they find the package where this process found it.
PATHS = (str(Path(sayiir.__file__).resolve().parent.parent), str(ROOT))


class Gone(Exception):
    """The process ended instead of saying what was waited for."""


class Program:
    """One process of the fleet."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process) -> None:
        self.settings = settings
        self.who = settings.who
        self._process = process
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        """What it says, line by line; `None` when it can say no more."""
        self._ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether nobody has seen it end."""
        return self._process.returncode is None

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            word = line.decode().strip()
            if word == "ready":
                self._ready.set()
            else:
                self._said.put_nowait(word)
        self._said.put_nowait(None)

    async def say(self) -> str:
        """Wait for the next thing it says.

        Raises:
            Gone: It ended first.
        """
        word = await self._said.get()
        if word is None:
            self._said.put_nowait(None)
            raise Gone(f"{self.who} has ended; its last words:\n{self.complaint()}")
        return word

    async def until(self, word: str) -> None:
        """Wait until it says this word.

        Raises:
            Gone: It ended first.
        """
        while await self.say() != word:
            pass

    async def ready(self) -> None:
        """Wait until it is at work; before that a signal would find nobody to hear it.

        Raises:
            Gone: It ended first.
        """
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._listening}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            raise Gone(f"{self.who} was never ready; its last words:\n{self.complaint()}")

    async def tell(self, line: str) -> None:
        """Give it a line to read.

        Raises:
            Gone: It has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise Gone(f"{self.who} ended; its last words:\n{self.complaint()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.running:
            # It may have ended, and nobody has looked yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> int:
        """Wait for its end; its exit code, negative for the signal that killed it."""
        code = await self._process.wait()
        await self._listening
        return code

    async def finish(self) -> int:
        """Give it nothing more to read, and wait for its end; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self.ended()

    def complaint(self) -> str:
        """What it wrote on its standard error."""
        return (Path(self.settings.folder) / f"{self.who}.err").read_text(errors="replace")


class Fleet:
    """All processes of one test; use it as `async with Fleet(settings) as fleet:`.

    `settings` are those of every process, but for its names.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.programs: list[Program] = []
        self._ledger = Ledger(Path(settings.folder), "fleet")
        self._killed: set[str] = set()
        self._still: list[Program] = []

    async def start(self, module: str = "worker", name: str = "worker") -> Program:
        """Start a program of this folder; returns before it has said anything."""
        who = f"{module}-{len(self.programs)}"
        settings = replace(self.settings, who=who, name=name)
        path = os.pathsep.join(PATHS)
        errors = os.open(Path(settings.folder) / f"{who}.err", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"tests.crash.{module}", settings.to_json()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": path},
            )
        finally:
            os.close(errors)
        program = Program(settings, process)
        self.programs.append(program)
        return program

    async def start_ready(self, *names: str) -> list[Program]:
        """Workers of these names, when all of them are ready."""
        started = [await self.start("worker", name) for name in names]
        for program in started:
            await program.ready()
        return started

    async def kill(self, program: Program) -> None:
        """SIGKILL; returns when it is dead."""
        self._ledger.note("kill", detail=program.who)
        self._killed.add(program.who)
        program.send(signal.SIGKILL)
        await program.ended()

    def was_killed(self, program: Program) -> bool:
        """Whether its end was ours to bring."""
        return program.who in self._killed

    def ask_to_stop(self, program: Program, number: signal.Signals) -> None:
        """SIGTERM or SIGINT: it should end by itself."""
        self._ledger.note("asked_to_stop", detail=program.who)
        program.send(number)

    def stop(self, program: Program) -> None:
        """SIGSTOP: it stands still from now on."""
        self._ledger.note("stop", detail=program.who)
        self._still.append(program)
        program.send(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT to all that stand still: they go on, and know of nothing."""
        while self._still:
            program = self._still.pop()
            program.send(signal.SIGCONT)
            self._ledger.note("cont", detail=program.who)

    async def retire(self) -> None:
        """SIGTERM to all workers that run, and wait for them.

        Raises:
            AssertionError: One of them did not end well.
        """
        running = [program for program in self.programs if program.running]
        for program in running:
            await program.ready()
            program.send(signal.SIGTERM)
        for program in running:
            code = await program.ended()
            assert code == 0, f"{program.who} ended with {code}:\n{program.complaint()}"

    def complaints(self) -> list[str]:
        """The processes that told of an error nobody caught, with what they said."""
        told = ((program.who, program.complaint()) for program in self.programs)
        return [f"{who}: {text[:4000]}" for who, text in told if "Traceback" in text]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in self.programs:
            program.send(signal.SIGKILL)
        for program in self.programs:
            await program.ended()
        self._ledger.close()
