"""Backends by URL: `memory://`, `sqlite:///path`, `postgresql://user@host/database`.

Reads a URL strictly and opens what it names; a mistake is refused with a sentence that says how to
write it. Of what it refuses only the scheme and the names of options get into a message, as the
rest may hold a password. It does not know what a backend does.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ._duration import Duration, parse_duration
from .backends import Backend, InMemoryBackend, PostgresBackend, SqliteBackend

if TYPE_CHECKING:
    from .codecs import Codec, PayloadCodec

__all__ = ["DEFAULT_URL", "URL_VARIABLE", "Address", "address_of", "connect"]

DEFAULT_URL = "sqlite:///sayiir.db"
"""What is opened when nothing is said: a file in the current directory."""
URL_VARIABLE = "SAYIIR_DATABASE_URL"
"""The environment variable that says something else."""

_FORMS = (
    "there are memory://, sqlite:///relative/path, sqlite:////absolute/path and "
    "postgresql://user@host/database"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_OPTION = re.compile(r"[a-z_]{1,32}")
_KEYWORDS = re.compile(r"\s*(host|hostaddr|port|dbname|user|password)\s*=")
"""How libpq's other form begins."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says, once it is known to make sense.

    >>> address_of("sqlite:///var/app.db?synchronous=normal")
    Address(scheme='sqlite', options={'synchronous': 'normal'})
    """

    scheme: Literal["memory", "sqlite", "postgresql"]
    path: str = field(default="", repr=False)
    """Of a file, as it stands in the URL: relative to the current directory, or absolute. Of a
    server, the URL without our own options; it may hold a password."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the backend."""
    what: str = field(default="url", repr=False, compare=False)
    """How a message calls the URL."""


def connect(url: str | None = None, *, codec: Codec | PayloadCodec | None = None) -> Backend:
    """Open the backend that a URL names; it is the caller's to close.

    Args:
        url: `memory://`: instances in this process, gone with it, and a new place for each call.
            `sqlite:///app.db`: a file, relative to the current directory;
            `sqlite:////var/lib/app.db`: one with an absolute path. Other characters than letters,
            digits and `/` may be written as `%20`. Options follow a `?`, with `&` between them:
            `synchronous=full` or `normal`, and the durations `keep_completed`, `keep_events` and
            `timeout`, each as in `SqliteBackend`. `postgresql://user:password@host:5432/app`: a
            server, as libpq reads it, with these options of `PostgresBackend` besides: `schema`,
            `max_connections`, `notify=on` or `off`, `migrate=on` or `off`, and the durations
            `statement_timeout`, `connect_timeout`, `timeout`, `keep_completed`, `keep_events`; it
            is connected to with the first call. Without a URL the environment variable
            `SAYIIR_DATABASE_URL` says it, and where that is not set either, or empty, it is
            `sqlite:///sayiir.db`.
        codec: How payloads are stored; see `sayiir.codecs`.

    Raises:
        TypeError: The URL is not text, or `codec` is no codec.
        ValueError: It is malformed, has an unknown option, or is of a scheme that this version
            does not have.
        BackendUnavailableError: The file cannot be opened or made.
        SnapshotFormatError: The file is no database of this package, or of a newer version.

    >>> connect("memory://")
    <InMemoryBackend with 0 instances>
    >>> connect("sqlite://app.db")
    Traceback (most recent call last):
    ...
    ValueError: url has a host after sqlite://, and a file needs none; …
    """
    address = address_of(url)
    if address.scheme == "memory":
        return InMemoryBackend(codec=codec)
    if address.scheme == "postgresql":
        try:
            return PostgresBackend(address.path, codec=codec, **address.options)
        except ValueError as refusal:
            raise ValueError(f"{address.what}: {refusal}") from None
    return SqliteBackend(address.path, codec=codec, **address.options)


def address_of(url: object = None) -> Address:
    """Read a URL, the environment's or the default one, without opening anything.

    Raises:
        TypeError: The URL is not text.
        ValueError: It is malformed, has an unknown option, or is of a scheme that this version
            does not have.

    >>> address_of("memory://").scheme
    'memory'
    """
    what = "url"
    if url is None:
        # An empty variable is how many environments say "not set".
        said = os.environ.get(URL_VARIABLE, "")
        url, what = (said, f"the url in {URL_VARIABLE}") if said else (DEFAULT_URL, what)
    if not isinstance(url, str):
        raise TypeError(f"url must be a str or None, got {type(url).__name__}")
    if url.endswith(("\n", "\r")):
        raise ValueError(f"{what} ends with a line break, as text from a file does; strip it")
    scheme, separator, rest = url.partition("://")
    # What is no scheme may be anything, so it is not shown.
    if not separator or not _SCHEME.fullmatch(scheme):
        begun = next((one for one in _SCHEMES if url.startswith(f"{one}:")), None)
        if begun is not None:
            raise ValueError(f"{what} must have '//' behind '{begun}:'; {_FORMS}")
        if _KEYWORDS.match(url):
            raise ValueError(f"{what} must not be of the form 'host=… dbname=…'; {_FORMS}")
        raise ValueError(f"{what} must begin with a scheme; {_FORMS}")
    match scheme.lower():
        case "memory":
            if rest:
                raise ValueError(
                    f"{what} must be memory:// with nothing behind it; each has its own instances"
                )
            return Address("memory")
        case "sqlite":
            return _sqlite(what, rest)
        case "postgresql" | "postgres":
            return _postgres(what, rest)
    plain, plus, driver = scheme.partition("+")
    if plus and plain.lower() in _SCHEMES:
        raise ValueError(
            f"{what} has '+{driver}' in its scheme, which names a driver; leave it out"
        )
    raise ValueError(f"{what} has the scheme {scheme!r}, which has no backend; {_FORMS}")


def _sqlite(what: str, rest: str) -> Address:
    """The address behind `sqlite://`."""
    if "#" in rest:
        raise ValueError(f"{what} has a '#' in it; write %23 for one in a path; {_FORMS}")
    location, question, query = rest.partition("?")
    if not location:
        raise ValueError(f"{what} names no file; {_FORMS}")
    if not location.startswith("/"):
        raise ValueError(
            f"{what} has a host after sqlite://, and a file needs none; three slashes begin a "
            f"relative path, four an absolute one; {_FORMS}"
        )
    path = _unquoted(what, "path", location[1:])
    if not path.strip("/"):
        raise ValueError(f"{what} names no file; {_FORMS}")
    if path == ":memory:":
        raise ValueError(f"{what} asks SQLite for memory; write memory:// for that; {_FORMS}")
    return Address("sqlite", path, _options(what, query) if question else {})


def _postgres(what: str, rest: str) -> Address:
    """The address behind `postgresql://`: our options apart from the others."""
    location, question, query = rest.partition("?")
    if "@" in query:
        # What stands before it would be a part of the password, and no option may quote that.
        raise ValueError(
            f"{what} has an '@' behind its '?'; write %3F for a '?' in a user name or a password, "
            "and %40 for an '@' in an option"
        )
    theirs: list[str] = []
    options: dict[str, Any] = {}
    for pair in query.split("&") if question else ():
        name, _, text = pair.partition("=")
        read = _SERVER_OPTIONS.get(name)
        if read is None:
            _not_ours(what, name)
            theirs.append(pair)
        elif name in options:
            raise ValueError(f"{what} has the option {name!r} twice; say it once")
        else:
            options[name] = read(f"{what}: {name}", _unquoted(what, f"option {name!r}", text))
    path = f"postgresql://{location}" + ("?" + "&".join(theirs) if theirs else "")
    return Address("postgresql", path, options, what)


def _not_ours(what: str, name: str) -> None:
    """Refuse what is not libpq's either, as far as that is for certain."""
    if name == "service":
        raise ValueError(
            f"{what} names a service, and service files are not read here; write host, port and "
            "database into it"
        )
    small = name.lower()
    if small != name and (small in _SERVER_OPTIONS or small.startswith("ssl")):
        # Nothing of the name is shown that is not known: it may be a part of a password.
        known = small if small in _SERVER_OPTIONS else "ssl…"
        raise ValueError(f"{what} has the option {known!r} in capitals; write it in small letters")
    # Names of libpq's are not as near to ours as a slip is.
    near = difflib.get_close_matches(name, _SERVER_OPTIONS, 1, 0.88)
    if near:
        raise ValueError(f"{what} has an option that is not known; did you mean {near[0]!r}?")


def _options(what: str, query: str) -> dict[str, Any]:
    """The options behind the question mark, checked but left as text."""
    options: dict[str, Any] = {}
    for pair in query.split("&"):
        name, equals, text = pair.partition("=")
        check = _CHECKS.get(name)
        if check is None or not equals:
            # Something else than a name may be a part of a secret with a stray mark in it.
            shown = f" {name!r}" if _OPTION.fullmatch(name) else ""
            known = ", ".join(f"{known}=…" for known in _CHECKS)
            raise ValueError(
                f"{what} has an option{shown} that is not known or has no value; "
                f"there are {known}; with memory:// there is none"
            )
        if name in options:
            raise ValueError(f"{what} has the option {name!r} twice; say it once")
        options[name] = _unquoted(what, f"option {name!r}", text)
        check(f"{what}: {name}", options[name])
    return options


def _synchronous(what: str, text: str) -> None:
    if text not in ("full", "normal"):
        raise ValueError(f"{what} must be 'full' or 'normal'")


def _duration(what: str, text: str) -> None:
    parse_duration(text, name=what)


def _switch(what: str, text: str) -> bool:
    switches = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if text.lower() not in switches:
        raise ValueError(f"{what} must be 'on' or 'off'")
    return switches[text.lower()]


def _number(what: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{what} must be a number")
    return int(text)


def _time(what: str, text: str) -> Duration:
    # A bare number means seconds, as libpq has it.
    duration: Duration = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text
    parse_duration(duration, name=what, allow_zero=True)
    return duration


def _word(_: str, text: str) -> str:
    return text


_SCHEMES = ("memory", "sqlite", "postgresql", "postgres")
_SERVER_OPTIONS: dict[str, Callable[[str, str], object]] = {
    "schema": _word,
    "max_connections": _number,
    "statement_timeout": _time,
    "connect_timeout": _time,
    "timeout": _time,
    "keep_completed": _time,
    "keep_events": _time,
    "notify": _switch,
    "migrate": _switch,
}
_CHECKS: dict[str, Callable[[str, str], None]] = {
    "synchronous": _synchronous,
    "keep_completed": _duration,
    "keep_events": _duration,
    "timeout": _duration,
}


def _unquoted(what: str, part: str, text: str) -> str:
    """Text with its percent escapes resolved."""

    def byte(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise ValueError(
                f"{what} has a '%' in its {part} that two hexadecimal digits do not follow; "
                "write %25 for the character itself"
            )
        return bytes([int(found[1], 16)])

    try:
        resolved = _ESCAPE.sub(byte, text.encode()).decode()
    except UnicodeError:
        # Not chained: the cause quotes the text.
        raise ValueError(f"{what} has a {part} that is not UTF-8 text") from None
    if "\0" in resolved:
        raise ValueError(f"{what} has a NUL character in its {part}, which no file name can hold")
    return resolved
