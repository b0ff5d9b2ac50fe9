"""How payloads are stored: as JSON, compressed, encrypted, with pickles, or in a way of your own.

`Codec` says it, and is given to a backend: `SqliteBackend(path, codec=Codec(…))`, and so for the
others and for `connect`. It concerns new payloads only. Each payload says in its header what was
done to it, so what was stored under other settings stays readable. Clients and workers use the
codec of their backend; nothing else has to know of it. What is done to the bytes is Rust
(`rust/py/src/at_rest`); this module checks arguments and keeps keys.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from ._core import MAX_PAYLOAD_BYTES, AtRest

__all__ = ["Codec", "KeyRing", "Keys", "PayloadCodec", "PickleWarning", "Place"]

KEY_BYTES = 32
MAX_KEY_ID_BYTES = 64

Keys: TypeAlias = Callable[[str | None], tuple[str, bytes]]
"""Gives a key by its id, or with `None` the one to encrypt with now: the id and 32 bytes."""


class PickleWarning(UserWarning):
    """Somebody asked for pickles, which run code when they are read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a payload belongs.

    >>> Place("order-1", "step", "charge")
    Place(instance_id='order-1', role='step', name='charge')
    """

    instance_id: str
    """The instance's id; of an item of a spread map without the part that changes with each lease
    of the parent, such as `order-1~.5[0]` for `order-1~3.5[0]`."""
    role: Literal["input", "output", "step", "event"]
    """Whether it is the instance's input or output, the output of a step, or an event's payload."""
    name: str = ""
    """The path of the step, or the name of the event."""


@runtime_checkable
class PayloadCodec(Protocol):
    """A way of your own to store payloads, after everything that `Codec` does.

    Both methods may be called from any thread and must not take long; what they raise is the cause
    of an `EncodeError` or a `DecodeError`.
    """

    @property
    def id(self) -> int:
        """A number from 0 to 255 that is stored with each payload, to know it by later."""

    def encode(self, payload: bytes, place: Place) -> bytes:
        """What to store for this payload."""

    def decode(self, payload: bytes, place: Place) -> bytes:
        """What `encode` was given, byte by byte."""


class KeyRing:
    """Keys by their ids, and which of them encrypts.

    To rotate, add a key and make it the current one, first on every process that reads, as a key
    that is there but not current; keep the old ones for as long as anything is stored that was
    encrypted with them. An id is given to one key, for ever.

    Args:
        keys: Each key, 32 random bytes (`os.urandom(32)`), by an id of 1 to 64 bytes. The ids are
            stored in the clear.
        current: The id of the one to encrypt with; may be left out when there is only one.

    Raises:
        TypeError: A key is not bytes, or an id not text.
        ValueError: A key has another length, an id is too long or empty, or `current` is not among
            them.

    >>> import os
    >>> KeyRing({"2025": os.urandom(32), "2026": os.urandom(32)}, current="2026")
    <KeyRing 2025, 2026 (current)>
    """

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: Mapping[str, bytes], current: str | None = None) -> None:
        if not isinstance(keys, Mapping):
            raise TypeError(f"keys must be a dict of keys by their ids, got {type(keys).__name__}")
        for key_id, key in keys.items():
            _check_key(key_id, key)
        if not keys:
            raise ValueError("keys must not be empty; give one key at least")
        if current is None:
            if len(keys) > 1:
                raise ValueError("current must say which of the keys to encrypt with")
            current = next(iter(keys))
        if current not in keys:
            raise ValueError(f"current must be the id of one of the keys, got {current!r}")
        self._keys = dict(keys)
        self._current = current

    def __call__(self, key_id: str | None) -> tuple[str, bytes]:
        """The key with this id, or the current one. Raises `KeyError` for one that is not there."""
        wanted = self._current if key_id is None else key_id
        return wanted, self._keys[wanted]

    def __repr__(self) -> str:
        ids = (f"{one} (current)" if one == self._current else one for one in self._keys)
        return f"<KeyRing {', '.join(ids)}>"


class Codec:
    """How a backend's payloads are stored: inputs, outputs of steps and instances, and events.

    Args:
        format: `"msgpack"`, or `"json"`: text that can be read in SQL. Values over 16 MiB stay
            MessagePack.
        compress_above: Payloads of more bytes than this are compressed with Zstandard, where that
            makes them smaller; `None`: none are.
        keys: Encrypts every payload with AES-256-GCM, bound to its instance and its place: a
            `KeyRing`, or any function that gives a key by its id, and with `None` the current one.
            It is asked for the current key with every call that stores something, so it should
            answer from memory; keys by their ids are remembered.
        pickle: `True`: a value that could not be stored otherwise is stored as a pickle, and
            pickles are read; `"read"`: only that. Reading a pickle can run any code, so whoever can
            write to the database can then do anything in your workers.
        own: A step of your own, after all these.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind, or out of range.

    >>> Codec("json", compress_above=4096)
    <Codec json, zstd above 4096 bytes>
    """

    __slots__ = ("_shown", "at_rest")

    at_rest: AtRest
    """What does it."""

    def __init__(
        self,
        format: Literal["msgpack", "json"] = "msgpack",  # noqa: A002 - the word for it
        *,
        compress_above: int | None = None,
        keys: Keys | None = None,
        pickle: bool | Literal["read"] = False,
        own: PayloadCodec | None = None,
    ) -> None:
        if not isinstance(format, str):
            raise TypeError(f"format must be a str, got {type(format).__name__}")
        if format not in ("msgpack", "json"):
            raise ValueError(
                f"format must be 'msgpack' or 'json', got {format[:20]!r}; "
                "for pickles say pickle=True"
            )
        if compress_above is not None:
            if isinstance(compress_above, bool) or not isinstance(compress_above, int):
                raise TypeError(
                    "compress_above must be a number of bytes or None, got "
                    f"{type(compress_above).__name__}"
                )
            if not 0 <= compress_above <= MAX_PAYLOAD_BYTES:
                raise ValueError(
                    f"compress_above must be 0 to {MAX_PAYLOAD_BYTES} bytes, got {compress_above}"
                )
        if isinstance(keys, Mapping):
            raise TypeError("keys must be a KeyRing or a function; write KeyRing({…}, current=…)")
        if keys is not None and not callable(keys):
            raise TypeError(f"keys must be a KeyRing or a function, got {type(keys).__name__}")
        if keys is not None:
            # A ring that cannot encrypt is found out now, and not when a task has run.
            _check_answer(keys)
        if not isinstance(pickle, bool) and pickle != "read":
            raise ValueError("pickle must be False, True or 'read'")
        if pickle:
            warnings.warn(
                "pickles run code when they are read: whoever can write to this backend's database "
                "can then do anything in this process; leave pickle= out where values can be "
                "dataclasses or models",
                PickleWarning,
                stacklevel=2,
            )
        self.at_rest = AtRest(
            json=format == "json",
            write_pickles=pickle is True,
            read_pickles=bool(pickle),
            compress_above=compress_above,
            keys=keys,
            own=None if own is None else _own_parts(own),
        )
        shown = [
            format,
            None if compress_above is None else f"zstd above {compress_above} bytes",
            None if keys is None else "AES-256-GCM",
            f"pickle={pickle!r}" if pickle else None,
            None if own is None else f"own codec {own.id}",
        ]
        self._shown = ", ".join(part for part in shown if part is not None)

    def __repr__(self) -> str:
        return f"<Codec {self._shown}>"


def checked_codec(value: object) -> Codec | None:
    """A backend's `codec` argument: a `Codec`, or a step of one's own alone.

    Raises:
        TypeError: It is something else.

    >>> checked_codec("json")
    Traceback (most recent call last):
    ...
    TypeError: codec must be a sayiir.codecs.Codec, got str; write Codec('json')
    """
    if value is None or isinstance(value, Codec):
        return value
    if isinstance(value, PayloadCodec) and not isinstance(value, type):
        return Codec(own=value)
    hint = "; write Codec('json')" if isinstance(value, str) else ""
    if isinstance(value, KeyRing):
        hint = "; write Codec(keys=…)"
    kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    raise TypeError(f"codec must be a sayiir.codecs.Codec, got {kind}{hint}")


def _check_key(key_id: object, key: object) -> None:
    if not isinstance(key_id, str):
        raise TypeError(f"the id of a key must be a str, got {type(key_id).__name__}")
    if not 1 <= len(key_id.encode()) <= MAX_KEY_ID_BYTES:
        raise ValueError(f"the id of a key must be 1 to {MAX_KEY_ID_BYTES} bytes, got {key_id!r}")
    if not isinstance(key, bytes):
        raise TypeError(f"key {key_id!r} must be bytes, got {type(key).__name__}")
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"key {key_id!r} must be {KEY_BYTES} bytes, got {len(key)}; make one with "
            "os.urandom(32)"
        )


def _check_answer(keys: Keys) -> None:
    try:
        answer: object = keys(None)
    except Exception as failure:
        raise ValueError(
            f"keys(None) must give the current key, and raised {type(failure).__name__}"
        ) from failure
    if isinstance(answer, Coroutine):
        answer.close()
        raise TypeError("keys must be a plain function, got an async one")
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(f"keys(None) must give (id, key), got {type(answer).__name__}")
    _check_key(*answer)


def _own_parts(own: object) -> tuple[int, Callable[..., Any], Callable[..., Any]]:
    if isinstance(own, type) or not isinstance(own, PayloadCodec):
        raise TypeError(
            f"own must have id, encode and decode as PayloadCodec says, got {type(own).__name__}"
        )
    number, encode, decode = own.id, own.encode, own.decode
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"the id of a codec must be an int, got {type(number).__name__}")
    if not 0 <= number <= 255:
        raise ValueError(f"the id of a codec must be 0 to 255, got {number}")

    def encoded(payload: bytes, instance_id: str, role: Any, name: str) -> bytes:
        return _checked_bytes("encode()", encode(payload, Place(instance_id, role, name)))

    def decoded(payload: bytes, instance_id: str, role: Any, name: str) -> bytes:
        return _checked_bytes("decode()", decode(payload, Place(instance_id, role, name)))

    return number, encoded, decoded


def _checked_bytes(what: str, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must give bytes, got {type(value).__name__}")
    return value
