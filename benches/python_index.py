"""The two structures that the pure-Python backend finds its instances and events with.

`Index` is a priority queue whose entries can be withdrawn; `EventBox` holds the buffered events of
one instance. Both promise that a call costs what it touches and that what was withdrawn does not
pile up. Neither knows clocks, locks or leases.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import Generic, TypeVar

from sayiir.backends import Event

__all__ = ["Entry", "EventBox", "Index"]

T = TypeVar("T")


class Entry(Generic[T]):
    """One entry of an `Index`; `index` is `None` once it was taken or withdrawn."""

    __slots__ = ("index", "item", "key")

    def __init__(self, key: tuple[float, int], item: T, index: Index[T]) -> None:
        self.key = key
        self.item = item
        self.index: Index[T] | None = index

    def withdraw(self) -> None:
        """Take it out of its index, wherever in it it is."""
        if self.index is not None:
            self.index.forget(self)


class Index(Generic[T]):
    """A heap of items by `(order, number)`, smallest first.

    >>> index = Index()
    >>> late, soon = index.push((9.0, 1), "late"), index.push((1.0, 2), "soon")
    >>> soon.withdraw()
    >>> index.pop()
    'late'
    >>> index.first() is None
    True
    """

    __slots__ = ("_heap", "_pushed", "_withdrawn")

    def __init__(self) -> None:
        # The second part is unique, so that entries themselves are never compared.
        self._heap: list[tuple[tuple[float, int], int, Entry[T]]] = []
        self._pushed = count()
        self._withdrawn = 0

    def push(self, key: tuple[float, int], item: T) -> Entry[T]:
        """Add an item; the entry is the handle to withdraw it with."""
        entry = Entry(key, item, self)
        heapq.heappush(self._heap, (key, next(self._pushed), entry))
        return entry

    def __len__(self) -> int:
        return len(self._heap) - self._withdrawn

    def first(self) -> Entry[T] | None:
        """The smallest entry, which stays."""
        heap = self._heap
        while heap:
            entry = heap[0][2]
            if entry.index is not None:
                return entry
            heapq.heappop(heap)
            self._withdrawn -= 1
        return None

    def pop(self) -> T:
        """Take out the smallest item.

        Raises:
            IndexError: There is none.
        """
        entry = self.first()
        if entry is None:
            raise IndexError("pop from an empty index")
        heapq.heappop(self._heap)
        entry.index = None
        return entry.item

    def forget(self, entry: Entry[T]) -> None:
        """Leave the entry where it is and sweep when most of the heap is such leftovers."""
        entry.index = None
        self._withdrawn += 1
        if self._withdrawn > 64 and 2 * self._withdrawn > len(self._heap):
            self._heap = [row for row in self._heap if row[2].index is not None]
            heapq.heapify(self._heap)
            self._withdrawn = 0


class EventBox:
    """The buffered events of one instance: first in, first out per name, each key once.

    >>> box = EventBox()
    >>> box.push("go", b"1", "k"), box.push("go", b"2", "k"), box.push("go", b"3", None)
    (0, None, 1)
    >>> [event.payload for event in box.oldest(["go", "go"])]
    [b'1', b'3']
    """

    __slots__ = ("_by_name", "_keys", "_next")

    def __init__(self) -> None:
        self._by_name: dict[str, deque[Event]] = {}
        self._keys: dict[tuple[str, str], int] = {}
        self._next = 0

    def __bool__(self) -> bool:
        return any(self._by_name.values())

    def push(self, name: str, payload: bytes, key: str | None) -> int | None:
        """Buffer an event; its number, or `None` when the key was seen before."""
        if key is not None:
            if (name, key) in self._keys:
                return None
            self._keys[name, key] = self._next
        seq = self._next
        self._next += 1
        self._by_name.setdefault(name, deque()).append(Event(seq, name, payload))
        return seq

    def adopt(self, name: str, payload: bytes | None, key: str | None) -> None:
        """Buffer an event of a snapshot, or its key alone; what had this key before is dropped."""
        if key is not None and (name, key) in self._keys:
            self.forget(self._keys[name, key])
        if payload is not None:
            self.push(name, payload, key)
        elif key is not None:
            self._keys[name, key] = self._next
            self._next += 1

    def kept(self) -> list[tuple[str, str | None, bytes | None]]:
        """Name, key and payload of what is buffered, in order, and keys of what was consumed."""
        keys = {(name, seq): key for (name, key), seq in self._keys.items()}
        events = [event for queue in self._by_name.values() for event in queue]
        kept: list[tuple[int, str, str | None, bytes | None]] = [
            (event.seq, event.name, keys.pop((event.name, event.seq), None), event.payload)
            for event in events
        ]
        kept.extend((seq, name, key, None) for (name, seq), key in keys.items())
        kept.sort(key=lambda one: one[0])
        return [(name, key, payload) for _, name, key, payload in kept]

    def has(self, names: Iterable[str]) -> bool:
        """Whether there is an event of one of these names."""
        return any(self._by_name.get(name) for name in names)

    def oldest(self, names: Sequence[str]) -> tuple[Event, ...]:
        """Of each name as many events as it is asked for, oldest first."""
        found: list[Event] = []
        for name, wanted in Counter(names).items():
            found.extend(islice(self._by_name.get(name, ()), wanted))
        found.sort(key=lambda event: event.seq)
        return tuple(found)

    def forget(self, seq: int) -> None:
        """Drop an event as if it had never come; its key may come again."""
        self.remove((seq,))
        self._keys = {pair: number for pair, number in self._keys.items() if number != seq}

    def remove(self, seqs: Iterable[int]) -> None:
        """Take out events by number; their keys stay known."""
        gone = set(seqs)
        for queue in self._by_name.values():
            # What is consumed is the oldest of its name, save in rare races.
            while queue and queue[0].seq in gone:
                gone.remove(queue.popleft().seq)
        for name in list(self._by_name) if gone else ():
            self._by_name[name] = deque(e for e in self._by_name[name] if e.seq not in gone)
