"""What every command that opens a backend shares: its options, its client and its errors.

Promises that a refusal becomes one sentence on stderr, and with `--json` one object on stdout as
well; exit code 1 for what a backend or a workflow refused, 2 for a wrong argument. A command that
only looks never makes a database. Refuses to know what commands do.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from sayiir import PostgresBackend, SayiirError, WorkflowClient
from sayiir._url import address_of, connect
from sayiir.backends import Backend
from sayiir.cli.target import named_codec
from sayiir.cli.terminal import note, say_json

__all__ = ["Refused", "ask", "json_option", "opened", "place", "reporting", "url_option"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Refused(click.ClickException):
    """What was asked for cannot be had: said on stderr, and as JSON where that was asked for.

    >>> Refused("it is over", "InvalidStateError").exit_code
    1
    """

    def __init__(self, message: str, kind: str, **more: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.as_json = False
        self.facts: dict[str, object] = {"error": message, "type": kind, **more}

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it."""
        note(f"Error: {self.message}", lines=True)
        if self.as_json:
            say_json(self.facts)


class WrongArgument(Refused):
    """What was said makes no sense.

    >>> WrongArgument("limit must be from 1 to 1000, got 0", "ValueError").exit_code
    2
    """

    exit_code = 2


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn what the package raises into a `Refused` that is said in the way asked for."""
    try:
        try:
            yield
        except (SayiirError, TimeoutError) as failure:
            about = getattr(failure, "instance_id", None)
            more = {} if about is None else {"instance_id": about}
            raise Refused(str(failure), type(failure).__name__, **more) from failure
        except (TypeError, ValueError) as mistake:
            # What the client says of its arguments, which are the user's.
            raise WrongArgument(str(mistake), type(mistake).__name__) from mistake
    except Refused as refused:
        refused.as_json = as_json
        raise


def url_option(command: F) -> F:
    """`--url`, for every command that opens a backend."""
    return click.option(
        "--url",
        metavar="URL",
        help="Where instances are: sqlite:///relative/path, sqlite:////absolute/path, or "
        "postgresql://user@host/database.  [default: $SAYIIR_DATABASE_URL, else "
        "sqlite:///sayiir.db]",
    )(command)


def json_option(command: F) -> F:
    """`--json`: one object on stdout in place of words."""
    return click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")(
        command
    )


def place(url: str | None) -> str:
    """Where a URL leads, for people: `memory`, the absolute path of a file, or a server's schema.

    >>> place("memory://")
    'memory'
    >>> place("postgresql://app:secret@db.example/shop")
    'postgresql://app@db.example:5432/shop, schema sayiir'
    """
    address = address_of(url)
    match address.scheme:
        case "memory":
            return "memory"
        case "sqlite":
            # Not resolved: what a link leads to is not what the user knows it by.
            return str(Path.cwd() / address.path)
        case "postgresql":
            # Nothing is connected to before the first call.
            backend = PostgresBackend(address.path, **{**address.options, "migrate": False})
            return f"{backend.store.shown()}, schema {backend.schema}"


def opened(url: str | None, *, make: bool) -> Backend:
    """The backend of a URL; without `make`, a file or a schema must be there already.

    Raises:
        Refused: There is no such file. A schema is missed by the first call.
        click.UsageError: `SAYIIR_CODEC` names no codec.
        ValueError, SayiirError: As `sayiir.connect`.
    """
    address = address_of(url)
    if address.scheme == "sqlite" and not make and not os.path.lexists(address.path):
        raise Refused(
            f"there is no database at {place(url)}; if something was submitted, it was to another "
            "one: name it with --url or SAYIIR_DATABASE_URL",
            "BackendUnavailableError",
        )
    codec = named_codec()
    if address.scheme == "postgresql" and not make:
        return PostgresBackend(address.path, codec=codec, **{**address.options, "migrate": False})
    return connect(url) if codec is None else connect(url, codec=codec)


def ask(
    url: str | None,
    as_json: bool,
    question: Callable[[WorkflowClient], Awaitable[T]],
    *,
    make: bool = False,
) -> T:
    """What a client of a backend answers, on an event loop of its own.

    Without `make` the backend must be there already.

    Raises:
        Refused: Something was refused.
    """

    async def answer() -> T:
        backend = opened(url, make=make)
        try:
            async with WorkflowClient(backend) as client:
                return await question(client)
        finally:
            await backend.close()

    with reporting(as_json):
        return asyncio.run(answer())
