"""Items of spread maps in the pure-Python backend: how they are made, counted, given up, removed.

A group lives as long as its parent. `left` is zero once the parent was told, or awaits it no more,
and from then on nothing about it changes. Whoever calls holds the lock; whom else a call concerns
is noted in `_told`, to be told when the lock is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benches.python_index import EventBox
from benches.python_record import ENDED, PARKED, Asked, Instance, Kin
from sayiir._codec import encode_payload
from sayiir._core import Batch

__all__ = ["Families", "Group"]


@dataclass(slots=True)
class Group:
    """The items of one use of a spread map, by their indexes."""

    count: int
    left: int
    fail_fast: bool
    items: list[Instance | None] = field(default_factory=list)
    """Those that were made; none where one was removed."""


class Families:
    """What an instance's end, removal and checkpoints mean to its parent and to its items.

    Args:
        create: Makes an instance of an id, a workflow's name and hash, an input, tags, a priority.
        stop: Lets a cancel take effect on an instance that nobody holds.
        place: Indexes an instance that nobody holds.
        erase: Removes an instance.
    """

    def __init__(
        self,
        create: Callable[[str, str, str, bytes, tuple[list[str], int], float], Instance],
        stop: Callable[[Instance, Asked, float], None],
        place: Callable[[Instance, float], None],
        erase: Callable[[Instance, float], None],
    ) -> None:
        self._create, self._stop, self._place, self._erase = create, stop, place, erase
        self._groups: dict[int, dict[int, Group]] = {}
        self._told: list[tuple[str, str]] = []

    def told(self) -> list[tuple[str, str]]:
        """The hints about instances that were not those of the calls, once."""
        told, self._told = self._told, []
        return told

    def change(
        self, parent: Instance, batch: Batch | None, over: list[int] | None, now: float
    ) -> None:
        """What a checkpoint changes about the items of its instance."""
        for number in list(self._groups.get(parent.number, ())) if over is None else over:
            self.give_up(parent, number, now)
        if batch is None:
            return
        groups = self._groups.setdefault(parent.number, {})
        group = groups.setdefault(batch.group, Group(batch.count, batch.count, batch.fail_fast))
        workflow, definition_hash, entry = batch.workflow, batch.definition_hash, batch.entry
        for instance_id, payload in batch.items:
            item = self._create(instance_id, workflow, definition_hash, payload, entry, now)
            item.kin = Kin(parent, batch.group, len(group.items))
            group.items.append(item)
        self._told.append(("work", parent.instance_id))

    def ended(self, one: Instance, failed: bool, now: float) -> None:
        """An instance ended, or is removed before; an item's parent may have to know."""
        kin = one.kin
        if kin is None:
            return
        group = self._groups.get(kin.parent.number, {}).get(kin.group)
        if group is None or not group.left:
            return
        group.left = 0 if failed and group.fail_fast else group.left - 1
        parent = kin.parent
        if group.left or parent.status in ENDED:
            return
        if parent.events is None:
            parent.events = EventBox()
        parent.events.push(f"\x01{kin.group}", encode_payload([]), None)
        if parent.lease is not None:
            self._told.append(("news", parent.instance_id))
        else:
            if parent.status in PARKED:
                self._place(parent, now)
            self._told.append(("work", parent.instance_id))

    def give_up(self, parent: Instance, number: int, now: float) -> None:
        """Nobody awaits a group any more: what has not ended of it is cancelled."""
        group = self._groups.get(parent.number, {}).get(number)
        if group is None:
            return
        group.left = 0
        for item in group.items:
            if item is None or item.status in ENDED:
                continue
            if item.pending is None or not item.pending.cancel:
                reason = f"an item of '{parent.instance_id}', which does not await it any more"
                item.asked = Asked(True, reason, None)
            if item.lease is None and item.asked is not None:
                self._stop(item, item.asked, now)
                self._told.append(("ended", item.instance_id))
            else:
                self._told.append(("news", item.instance_id))

    def finished(self, one: Instance, now: float) -> None:
        """An instance has ended, however that came."""
        for number in list(self._groups.get(one.number, ())):
            self.give_up(one, number, now)
        self.ended(one, one.status != "completed", now)

    def leave(self, one: Instance, now: float) -> None:
        """An instance is about to be removed; its items go with it."""
        if one.status not in ENDED:
            self.ended(one, True, now)
        kin = one.kin
        if kin is not None:
            group = self._groups.get(kin.parent.number, {}).get(kin.group)
            if group is not None:
                group.items[kin.index] = None
        for group in self._groups.pop(one.number, {}).values():
            for item in group.items:
                if item is not None:
                    hint = "ended" if item.status in ENDED else "news"
                    self._told.append((hint, item.instance_id))
                    self._erase(item, now)

    def ends(self, parent: Instance, number: int) -> list[tuple[str, bytes | None]]:
        """How the items of a group ended."""
        group = self._groups.get(parent.number, {}).get(number)
        return [] if group is None else [_end(item) for item in group.items]


def _end(item: Instance | None) -> tuple[str, bytes | None]:
    if item is None or item.status == "cancelled":
        return "cancelled", None
    if item.status in ENDED:
        return item.status, item.result
    return "unended", None
