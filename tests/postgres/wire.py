"""Just enough of PostgreSQL's wire protocol: messages, and which transaction each belongs to.

A message is a type, its length and a body; `read_message` takes one off a stream. `Script` follows
what a client asks and what the server answers on one connection, and so knows of each answer
whether it is the one that says "committed", and of which statements. Clients may be ahead of their
answers (pipelining), with statements prepared or plain, in explicit transactions or in implicit
ones. Refuses to know encryption, and who wants to know.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_BYTES = 64 * 1024**2
_BEGIN = re.compile(r"(?:^|;)\s*(?:BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_END = re.compile(r"(?:^|;)\s*(?:COMMIT|END|ROLLBACK(?!\s+TO)|ABORT)\b", re.IGNORECASE)
_COMMIT = re.compile(r"(?:^|;)\s*(?:COMMIT|END)\b", re.IGNORECASE)
_WRITE = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_LOCK = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)


class Message(NamedTuple):
    """One message of either side."""

    kind: bytes
    body: bytes

    def encode(self) -> bytes:
        r"""As it crosses.

        >>> Message(b"Z", b"I").encode()
        b'Z\x00\x00\x00\x05I'
        """
        return self.kind + struct.pack("!i", len(self.body) + 4) + self.body


async def read_message(reader: asyncio.StreamReader, *, kind: bool = True) -> Message:
    """The next message; the first one of a client has no kind.

    Raises:
        asyncio.IncompleteReadError: The other side ended.
        ValueError: This is not the protocol.
    """
    head = await reader.readexactly(5 if kind else 4)
    [length] = struct.unpack("!i", head[-4:])
    if not 4 <= length <= MOST_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return Message(head[:-4], await reader.readexactly(length - 4))


def texts(body: bytes) -> Iterator[str]:
    r"""The zero-ended texts that a body begins with.

    >>> list(texts(b"s1\0SELECT 1\0"))
    ['s1', 'SELECT 1']
    """
    while (end := body.find(0)) >= 0:
        yield body[:end].decode(errors="replace")
        body = body[end + 1 :]


@dataclass(slots=True)
class Transaction:
    """What a client asked for in one transaction, in order."""

    statements: list[str] = field(default_factory=list)
    explicit: bool = False
    failed: bool = False
    judged: bool = False
    """Whether its end was already told."""

    @property
    def writes(self) -> bool:
        """Whether it changes anything, as far as its texts tell.

        >>> Transaction(["SELECT 1 FROM t FOR UPDATE SKIP LOCKED"]).writes
        False
        >>> Transaction(["WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x"]).writes
        True
        """
        return any(_WRITE.search(_LOCK.sub("", text)) for text in self.statements)

    def mentions(self, word: str) -> bool:
        """Whether one of its statements has this text in it."""
        return any(word in text for text in self.statements)


@dataclass(slots=True)
class _Cycle:
    """What is answered with one "ready for query"."""

    transaction: Transaction
    ends: bool
    """Whether the transaction ends with it, if nothing fails."""


class Script:
    """One connection's questions and answers."""

    def __init__(self) -> None:
        self._prepared: dict[str, str] = {}
        self._asked = Transaction()
        self._ends = False
        self._open: deque[_Cycle] = deque()

    def ask(self, message: Message) -> tuple[Transaction | None, list[str]]:
        """A client says this.

        Returns:
            The transaction whose commit it asks for, if it does; the statements it has executed.
        """
        ran: list[str] = []
        match message.kind:
            case b"P":
                name, text, *_ = texts(message.body)
                self._prepared[name] = text
            case b"B":
                portal = message.body.index(0)
                name = next(texts(message.body[portal + 1 :]))
                ran.append(self._prepared.get(name, ""))
            case b"Q":
                ran.append(next(texts(message.body)))
        asked = self._asked
        wanted = False
        for text in ran:
            asked.statements.append(text)
            asked.explicit |= _BEGIN.search(text) is not None
            self._ends |= _END.search(text) is not None
            wanted |= _COMMIT.search(text) is not None
        if message.kind in (b"Q", b"S"):
            implicit = not asked.explicit and not self._ends
            wanted |= implicit and bool(asked.statements)
            ends = self._ends or implicit
            self._open.append(_Cycle(asked, ends))
            if ends:
                self._asked, self._ends = Transaction(), False
        return (asked if wanted else None), ran

    def answer(self, message: Message) -> Transaction | None:
        """The server says this; the transaction that the answer says is committed, if it does."""
        transaction = self._open[0].transaction if self._open else self._asked
        match message.kind:
            case b"E":
                transaction.failed = True
            case b"C" if message.body == b"COMMIT\0" and not transaction.judged:
                transaction.judged = True
                return transaction
            case b"Z" if self._open:
                cycle = self._open.popleft()
                ended = cycle.ends and message.body == b"I" and not transaction.failed
                if ended and not transaction.judged and not transaction.explicit:
                    transaction.judged = True
                    return transaction
        return None
