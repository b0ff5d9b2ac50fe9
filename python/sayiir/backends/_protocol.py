"""The storage contract: what a backend must do, in Python.

Promises a backend makes:

* Every call is atomic, and what it returned is as durable as the backend is.
* A commit is applied if and only if its fence is the instance's current one and the instance is
  held; otherwise nothing is written and the answer is `lease_lost`.
* At most one worker holds an instance. A lease ends with a commit that gives it back, with
  `release`, or when its worker was not renewed for a lease's length. Every claim raises the fence.
* A cancel or pause of an instance that nobody holds takes effect at once; a held one is cancelled
  by its next commit that does not end it, and paused by the next one that is `quiescent` or parks.
* Events are first in, first out per instance and name; they may come before their instance; a
  repeated key has no effect.
* Claims come by priority, each level worth `AGEING_SECONDS` of waiting, then oldest first; an
  instance whose definition or tags the claimant lacks is never in the way of one it can do.
* The instances that a commit's `batch` brings are items of the committing one: made with the
  commit, under the ids it names. The end of an item (or its removal), in the same step, counts
  down its group, which begins with `count`. When nothing is left, or an item of a `fail_fast` group
  ends other than completed, the parent gets one event under `group_event(group)`, which wakes it
  like any other. Groups in a commit's `over`, and all of a parent that ended, was cancelled or is
  removed, are awaited no more: in the same step their unended items are cancelled (held ones asked
  to be). When the parent is removed its items are too, now or soon after; age alone does not remove
  them.
* A ready instance is one that is in progress and not held, that is parked and whose time has come,
  or that is parked and for which an awaited event is buffered.

It does not know flows or values: positions, payloads and records are bytes to it. Methods may be
called from several event loops and threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from sayiir._core import Claim, Claimant, Commit, Program, StepRow

    from ._hub import Listener
    from ._rows import Backlog, HistoryRow, InstanceRow, NewInstance, News, Page, Reply

__all__ = ["Backend"]


@runtime_checkable
class Backend(Protocol):
    """See the module's opening for what the methods promise together."""

    def now(self) -> float:
        """The time that leases and timers go by, in seconds since 1970 UTC."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener for hints; what comes back removes it."""

    async def check_submit(
        self, instance_id: str, program: Program, policy: str
    ) -> InstanceRow | None:
        """What `submit` would say, before anything is encoded.

        The existing row under `use_existing`; `None` when the submit may go on.

        Raises:
            InstanceAlreadyExistsError: The id is taken, under `fail`.
            DefinitionMismatchError: It is taken by another definition, under `fail` or
                `use_existing`.
        """

    async def submit(
        self, instances: Sequence[NewInstance], policy: str
    ) -> Sequence[InstanceRow | None]:
        """Create instances, all or none; for each `None`, or the existing row under `use_existing`.

        Of many concurrent submits of one id exactly one creates. `terminate_existing` removes the
        old instance, its events and its history in the same step. Ids within a batch differ.

        Raises:
            InstanceAlreadyExistsError, DefinitionMismatchError: As `check_submit`.
        """

    async def claim(self, claimant: Claimant, limit: int) -> Sequence[Claim]:
        """Lease up to `limit` ready instances to a worker, best first."""

    async def claim_one(self, claimant: Claimant, instance_id: str) -> Claim | None:
        """Lease this instance if it is ready and nobody holds it.

        Raises:
            InstanceNotFoundError: There is no such instance.
        """

    async def renew(self, worker_id: str, lease_ttl: float) -> Sequence[str]:
        """Prolong all leases of a worker; ids of its instances with a pending cancel or pause."""

    async def release(self, worker_id: str) -> int:
        """Give back all leases of a worker; how many there were."""

    async def give_back(self, instance_id: str, fence: int) -> bool:
        """Give one lease back, if this fence still holds it; for a holder that cannot go on."""

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Reply]:
        """Apply checkpoints, each atomically; one reply each, in order."""

    async def news(self, instance_id: str, fence: int, names: Sequence[str]) -> News:
        """What the holder should know; of each name as many events as it is asked for."""

    async def input(self, instance_id: str) -> bytes:
        """The sealed input. Raises `InstanceNotFoundError`."""

    async def rows(self, instance_id: str, seqs: Sequence[int]) -> Sequence[StepRow]:
        """The step rows with these numbers; missing ones are left out."""

    async def send_event(
        self, instance_id: str, name: str, payload: bytes, key: str | None
    ) -> bool:
        """Buffer an event and wake its instance if that waits for it; `False`: the key was known.

        Raises:
            InvalidStateError: The instance has ended.
        """

    async def cancel(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """Cancel, or ask the holder to; the status after the call.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It has completed or failed.
        """

    async def pause(self, instance_id: str, reason: str | None, by: str | None) -> str:
        """Pause, or ask the holder to; the status after the call.

        Raises as `cancel`, and `InvalidStateError` for a cancelled instance.
        """

    async def unpause(self, instance_id: str) -> str:
        """Back to where it was; takes a pause back that has not taken effect.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It is neither paused nor about to be.
        """

    async def get(self, instance_id: str) -> InstanceRow:
        """One instance. Raises `InstanceNotFoundError`."""

    async def find(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        id_prefix: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Instances that match everything given, newest first.

        Raises:
            ValueError: The cursor is not one that a page gave.
        """

    async def history(self, instance_id: str) -> Sequence[HistoryRow]:
        """All step rows in the order they were written. Raises `InstanceNotFoundError`."""

    async def step(self, instance_id: str, path_or_name: str) -> StepRow | None:
        """The newest step row with an output and this path, else with this name.

        Raises:
            InstanceNotFoundError: There is no such instance.
        """

    async def items(self, instance_id: str, group: int) -> Sequence[tuple[str, bytes | None]]:
        """How the items of one of its groups ended, by their indexes; a word and bytes for each.

        `completed` with the sealed output, `failed` with the error record, `cancelled` (also one
        that was deleted) and `unended`.

        Raises:
            InstanceNotFoundError: There is no such instance.
        """

    async def export(self, instance_id: str) -> bytes:
        """Everything that is stored of an instance, all of the same moment; see `encode_snapshot`.

        What a worker that holds it has not committed is not in it, nor is the lease.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It is an item of a spread map, or awaits some.
        """

    async def import_(self, snapshot: bytes, instance_id: str) -> None:
        """Create an instance under this id as a snapshot says, in one step, held by nobody.

        It is ready or parked as its position and its time say; a pending cancel or pause takes
        effect. Events that came early for the id are its own, before those of the snapshot; one
        whose name and key the snapshot knows is dropped. Nothing is stored of a snapshot that
        `check_snapshot` refuses.

        Raises:
            InstanceAlreadyExistsError: The id is taken.
            SnapshotFormatError: The bytes are no snapshot, or one that no instance could have.
        """

    async def delete(self, instance_id: str, force: bool) -> None:
        """Remove an instance, its history, its events and its items.

        Raises:
            InstanceNotFoundError: There is no such instance.
            InvalidStateError: It has not ended, and `force` is false.
        """

    async def backlog(self) -> Sequence[Backlog]:
        """What is ready and not held, by definition and tags; cheap."""

    async def next_wake(self) -> float | None:
        """The earliest moment at which a parked instance becomes ready by itself."""

    async def close(self) -> None:
        """Give up connections and threads; further calls need not work."""
