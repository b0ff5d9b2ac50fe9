"""`sayiir migrate`: bring a database's schema to this version, or say what that would do.

Promises that a dry run changes nothing and that its exit code tells whether there is something to
do; that what is migrated is migrated as by any backend that opens it: forward only, in one
transaction, by one process. So does the script that a dry run prints for PostgreSQL: whoever runs
it comes to the same schema, and when the schema has changed since, it stops and changes nothing.
What a schema holds is not known here, but for where its version is noted.
"""

import asyncio
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import click

from sayiir import PostgresBackend, _core
from sayiir._url import address_of
from sayiir.cli.session import Refused, json_option, opened, place, reporting, url_option
from sayiir.cli.terminal import note, say, say_json

__all__ = ["command"]

_EXIT_CODES = """\b
Exit codes:
  0    done, or there is nothing to do
  1    refused: the database cannot be used, or is of a newer version
  2    wrong arguments
  3    with --dry-run: there is something to do
  130  interrupted by Ctrl-C
"""
_WOULD_CHANGE = 3


@dataclass(frozen=True, slots=True)
class Change:
    """From which version of a schema to which; 0 is none at all."""

    before: int
    after: int
    sql: str = ""
    """A script that does it, where there is one."""

    def words(self, *, only_said: bool) -> str:
        """The change as a sentence goes on.

        >>> Change(1, 2).words(only_said=True), Change(0, 2).words(only_said=False)
        ('would be migrated from version 1 to 2', 'made, version 2')
        """
        would = "would be " if only_said else ""
        if self.before == self.after:
            return f"has version {self.after}; there is nothing to do" if self.after else ""
        if self.before == 0:
            return f"{would}made, version {self.after}"
        return f"{would}migrated from version {self.before} to {self.after}"


@click.command("migrate", epilog=_EXIT_CODES)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Change nothing; for PostgreSQL print a script that psql can run.",
)
@url_option
@json_option
def command(dry_run: bool, url: str | None, as_json: bool) -> None:
    """Bring the schema of a database to this version, and say from which to which.

    Workers and clients do so by themselves when they connect. This is for those that may not change
    a schema, and for whoever wants to look at it first. It only goes forward, one process does it
    and others wait, and older workers go on meanwhile.
    """
    with reporting(as_json):
        where = place(url)
        change = _change(url, dry_run)
    if as_json:
        told = {"from": change.before, "to": change.after, "dry_run": dry_run}
        say_json({"database": where, **told, **({"sql": change.sql} if dry_run else {})})
    else:
        sentence = f"{where}: {change.words(only_said=dry_run) or 'there is no schema to migrate'}"
        if change.sql:
            # The SQL alone goes where a file may be made of it.
            note(sentence)
            say(change.sql, lines=True)
        else:
            say(sentence)
    if dry_run and change.before != change.after:
        click.get_current_context().exit(_WOULD_CHANGE)


def _change(url: str | None, dry_run: bool) -> Change:
    address = address_of(url)
    if address.scheme == "memory":
        return Change(0, 0)
    if address.scheme == "sqlite":
        return _sqlite(url, Path(address.path), dry_run)
    return asyncio.run(_postgres(url, dry_run))


async def _postgres(url: str | None, dry_run: bool) -> Change:
    backend = opened(url, make=False)
    assert isinstance(backend, PostgresBackend)
    try:
        if not dry_run:
            return Change(*await backend.migrate())
        found = await backend.schema_version()
    finally:
        await backend.close()
    known = _core.postgres_migrations()
    newest = known[-1][0]
    if found > newest:
        raise _newer(url, found, newest)
    missing = [(version, sql) for version, sql in known if version > found]
    return Change(found, newest, _script(backend.schema, found, missing) if missing else "")


_OPEN = """\
-- PostgreSQL, schema "{schema}": from version {found} to {newest}, all of it or nothing.
-- Run it as the schema's owner:  psql --set=ON_ERROR_STOP=1 --file=THIS_FILE URL
BEGIN;
SET LOCAL lock_timeout = 0;

"""
# Making a schema takes a right on the database even where it is there already, and nothing here can
# tell whether it is.
_MAKE = """\
-- If the schema is there already and you may not make one, leave this statement out.
CREATE SCHEMA IF NOT EXISTS "{schema}";
CREATE TABLE IF NOT EXISTS sayiir.schema_version
    (one integer PRIMARY KEY CHECK (one = 1), version integer NOT NULL);
INSERT INTO sayiir.schema_version (one, version) VALUES (1, 0) ON CONFLICT (one) DO NOTHING;

"""
# Not every engine runs code of ours; in each a text that is no number is an error that tells it.
_LOCK = """\
-- Nobody migrates meanwhile; and if somebody has since this was printed, it ends here.
SELECT CASE WHEN version = {found} THEN version
            ELSE CAST('schema {schema} has version ' || CAST(version AS text)
                      || ', and this script is for version {found}: print it anew' AS integer)
       END AS version_before
FROM sayiir.schema_version WHERE one = 1 FOR UPDATE;

"""
_STEP = """\
{sql}
UPDATE sayiir.schema_version SET version = {version} WHERE one = 1;

"""


def _script(schema: str, found: int, missing: list[tuple[int, str]]) -> str:
    """What brings a schema from a version to the newest, or stops and leaves it as it is.

    >>> print(_script("shop", 1, [(2, "CREATE TABLE sayiir.t (a integer);")]))  # doctest: +ELLIPSIS
    -- PostgreSQL, schema "shop": from version 1 to 2, all of it or nothing.
    ...
    CREATE TABLE "shop".t (a integer);
    UPDATE "shop".schema_version SET version = 2 WHERE one = 1;
    <BLANKLINE>
    COMMIT;
    """
    facts = {"schema": schema, "found": found, "newest": missing[-1][0]}
    parts = [_OPEN, _LOCK] if found else [_OPEN, _MAKE, _LOCK]
    script = "".join(part.format(**facts) for part in parts)
    for version, sql in missing:
        script += _STEP.format(sql=sql.rstrip(), version=version)
    return f"{script}COMMIT;".replace("sayiir.", f'"{schema}".')


def _sqlite(url: str | None, path: Path, dry_run: bool) -> Change:
    """Opening a file migrates it."""
    before = _identity(path)
    if dry_run:
        fresh = _fresh_identity()
        if before is None:
            return Change(0, fresh.version)
        if before.application != fresh.application:
            raise _refused(url, "it is a database of another program")
        if before.version > fresh.version:
            raise _newer(url, before.version, fresh.version)
        return Change(before.version, fresh.version)
    asyncio.run(_open_and_close(url))
    after = _identity(path)
    assert after is not None
    return Change(before.version if before else 0, after.version)


async def _open_and_close(url: str | None) -> None:
    await opened(url, make=True).close()


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whose a file is, and which version its schema has."""

    application: int
    version: int


def _identity(path: Path) -> _Identity | None:
    """What a file says of itself, or nothing if there is none or it is empty."""
    # Only here, before and after a backend has it open: two copies of SQLite must not have a file
    # open at once in one process.
    import sqlite3

    if not path.exists() or path.stat().st_size == 0:
        return None
    # A reader makes a write-ahead log where there is none, and cannot remove it; but then nobody
    # writes, and it can do without.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as db:
            [(application,)] = db.execute("PRAGMA application_id").fetchall()
            [(version,)] = db.execute("PRAGMA user_version").fetchall()
    except sqlite3.Error as failure:
        raise Refused(
            f"the database at {path} cannot be read: {failure}", "BackendUnavailableError"
        ) from None
    return _Identity(application, version)


def _fresh_identity() -> _Identity:
    """What this version makes."""
    with tempfile.TemporaryDirectory(prefix="sayiir-") as folder:
        path = Path(folder, "fresh.db")
        asyncio.run(_open_and_close(f"sqlite:///{quote(str(path))}"))
        made = _identity(path)
    assert made is not None
    return made


def _newer(url: str | None, found: int, newest: int) -> Refused:
    return _refused(
        url,
        f"its schema has version {found}, and this version of sayiir knows up to {newest}; use a "
        "newer one",
    )


def _refused(url: str | None, what: str) -> Refused:
    return Refused(f"the database at {place(url)}: {what}", "SnapshotFormatError")
