"""`sayiir doctor`: is the database well, is the work being done, and what to do if not.

Promises one line for each fact, a suggestion with each problem, and an exit code that a monitor can
use. A database that is not there is not made. What counts as a problem is in `checkup`.
"""

import asyncio
from typing import Any

import click

from sayiir import SayiirError
from sayiir._url import address_of
from sayiir.cli.argument import Length
from sayiir.cli.checkup import Facts, Problem, examine, problems_of
from sayiir.cli.session import Refused, json_option, opened, place, reporting, url_option
from sayiir.cli.terminal import note, say, say_json, seconds

__all__ = ["command"]

_EXIT_CODES = """\b
Exit codes:
  0    healthy
  1    there are problems, or the database cannot be used
  2    wrong arguments
  130  interrupted by Ctrl-C
"""


@click.command("doctor", epilog=_EXIT_CODES)
@click.option("--read-only", is_flag=True, help="Write no probe; the time of a write is not known.")
@click.option(
    "--patience",
    type=Length(),
    default="2s",
    show_default=True,
    help="How long ready work is watched before it counts as taken by nobody.",
)
@url_option
@json_option
def command(read_only: bool, patience: float, url: str | None, as_json: bool) -> None:
    """Examine a database and the work in it.

    Tells the versions, the file and its integrity or the server and its clock, who holds work, how
    many instances there are in each state, ready work that no living worker takes, and how long a
    durable write takes, measured with a probe that is deleted again. Names each problem with what
    to do about it.
    """
    with reporting(as_json):
        where = place(url)
    facts = Facts()
    try:
        facts = asyncio.run(_examined(url, patience, read_only))
        problems = problems_of(facts)
    except (Refused, SayiirError) as failure:
        # What keeps it from being examined is the finding.
        remedy = _REMEDIES.get((address_of(url).scheme, _kind(failure)), "see the logs")
        problems = [Problem(str(failure), remedy)]
    if as_json:
        told = [{"problem": one.problem, "suggestion": one.suggestion} for one in problems]
        say_json({**facts.told(), "healthy": not problems, "problems": told})
    else:
        _write(where, facts)
        for one in problems:
            note(f"problem: {one.problem}\n  what to do: {one.suggestion}", lines=True)
    click.get_current_context().exit(1 if problems else 0)


_ANOTHER = "name another database with --url or SAYIIR_DATABASE_URL"
_REMEDIES = {
    ("sqlite", "BackendUnavailableError"): "check the path, its permissions and the space on the "
    f"disk; {_ANOTHER}",
    ("sqlite", "SnapshotFormatError"): "check that this is the right file; for a newer schema, "
    "install the version of sayiir that wrote it",
    ("postgresql", "BackendUnavailableError"): "check that the server runs and can be reached from "
    f"here, and the user, the password and the database's name; {_ANOTHER}",
    ("postgresql", "SnapshotFormatError"): "check that this is the right database and schema; for "
    "an older schema run 'sayiir migrate', for a newer one install the version of sayiir that made "
    "it",
}
# What a fact is called where people read it, if not by its name.
_SHOWN = {"database_bytes": "bytes", "ready_oldest_age": "oldest ready"}


async def _examined(url: str | None, patience_s: float, read_only: bool) -> Facts:
    backend = opened(url, make=False)
    try:
        return await examine(backend, patience_s, read_only)
    finally:
        await backend.close()


def _kind(failure: Refused | SayiirError) -> str:
    return failure.kind if isinstance(failure, Refused) else type(failure).__name__


def _words(fact: Any) -> Any:
    """A fact for people; those that are no whole number are seconds."""
    if fact is None:
        return "none"
    return seconds(fact) if isinstance(fact, float) else fact


def _write(where: str, facts: Facts) -> None:
    lines: dict[str, Any] = {
        "sayiir": f"{facts.version}, Python {facts.python}, {facts.platform}",
        "database": where,
    }
    for name, fact in facts.backend.items():
        # Where it is stands above.
        if name not in ("path", "server"):
            lines[_SHOWN.get(name, name.replace("_", " "))] = _words(fact)
    if facts.now is not None:
        counts = [f"{count} {status}" for status, count in sorted(facts.instances.items()) if count]
        lines["instances"] = ", ".join(counts) or "none"
        held = [f"{worker['worker_id']} ({worker['held']})" for worker in facts.workers]
        lines["held by"] = ", ".join(held) or "nobody"
        lines["a write"] = "not tried" if facts.write_s is None else seconds(facts.write_s)
    for name, fact in lines.items():
        say(f"{name:<14}  {fact}")
