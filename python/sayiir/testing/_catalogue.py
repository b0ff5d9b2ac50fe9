"""Which workflows a test environment can run, and with which functions.

Workflows become known by being added; of those that somebody submits through a client only the
engine's form is seen, which is enough to run them, but not to find a task to mock. So that no mock
is passed by unseen, such a submit is refused while there are mocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sayiir._argument import checked_workflow
from sayiir._workflow import Workflow
from sayiir.backends import InMemoryBackend, InstanceRow, NewInstance

from ._mocking import Mocks

if TYPE_CHECKING:
    from sayiir._core import Program

    from ._clocks import VirtualClock

__all__ = ["Catalogue", "WatchedBackend"]


class Catalogue:
    """The workflows that are known, and the mocks of their tasks.

    >>> from sayiir import Flow
    >>> catalogue = Catalogue()
    >>> catalogue.add(Flow("size").then(abs).build())
    >>> [program.name for program in catalogue.programs()]
    ['size']
    """

    def __init__(self) -> None:
        self.mocks = Mocks()
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self._submitted: dict[str, Program] = {}
        # Changes with everything that becomes known.
        self._edition = 0
        self._programs: tuple[tuple[int, int], tuple[Program, ...]] | None = None

    def add(self, workflow: Workflow[Any, Any]) -> None:
        """Make a workflow known; of several with one hash the last one is run.

        Raises:
            TypeError: It is none.
        """
        found = checked_workflow(workflow).definition_hash
        if self._workflows.get(found) is not workflow:
            self._workflows[found] = workflow
            self._edition += 1

    def find(self, definition_hash: str) -> Workflow[Any, Any] | None:
        """The workflow with this hash, if it was added."""
        return self._workflows.get(definition_hash)

    def check_mocks(self) -> None:
        """Refuse a mock of a task that no known workflow has.

        Raises:
            LookupError: There is one.
        """
        if self._workflows:
            self.mocks.check([*self._workflows.values()])

    def submitted(self, instances: Sequence[NewInstance]) -> None:
        """Take note of what somebody submits, before it is done.

        Raises:
            LookupError: There are mocks, and the tasks of this one are not known.
        """
        for program in (new.program for new in instances):
            if self.mocks:
                self._require_known(program)
            if self._submitted.get(program.definition_hash) is not program:
                self._submitted[program.definition_hash] = program
                self._edition += 1

    def programs(self) -> Sequence[Program]:
        """What can be run now, mocks in place; the same object until something changes.

        Raises:
            LookupError: As `check_mocks` and `submitted`.
        """
        state = self._edition, self.mocks.edition
        if self._programs is None or self._programs[0] != state:
            self.check_mocks()
            programs = dict(self._submitted)
            for program in programs.values() if self.mocks else ():
                self._require_known(program)
            for found, workflow in self._workflows.items():
                programs[found] = self.mocks.applied(workflow).program
            self._programs = state, tuple(programs.values())
        return self._programs[1]

    def _require_known(self, program: Program) -> None:
        """Refuse to run past a mock that could be of one of the tasks."""
        if program.definition_hash not in self._workflows:
            raise LookupError(
                f"workflow {program.name!r} was submitted through a client, so its tasks are not "
                "known, and there are mocks; call env.add(workflow) first"
            )


class WatchedBackend(InMemoryBackend):
    """A memory backend that tells of what is submitted to it, before it is.

    Args:
        clock: The time that it goes by.
        tell: Called with the instances; what it raises, the submit raises.
    """

    __slots__ = ("_tell",)

    def __init__(self, clock: VirtualClock, tell: Callable[[Sequence[NewInstance]], None]) -> None:
        super().__init__(clock=clock)
        self._tell = tell

    async def submit(
        self, instances: Sequence[NewInstance], policy: str
    ) -> Sequence[InstanceRow | None]:
        """See `Backend.submit`."""
        self._tell(instances)
        return await super().submit(instances, policy)
