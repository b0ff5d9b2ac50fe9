"""The script of `sayiir migrate --dry-run`: whoever runs it comes to what `sayiir migrate` makes.

It is run here as psql would run it, statement after statement of one text, on a connection that
begins no transaction by itself. Two schemas are the same when the server describes them in the same
words, all but their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.postgres.server import Server, required

from sayiir import Flow, SyncWorkflowClient, _core
from sayiir.cli import main

MIGRATIONS = _core.postgres_migrations()
NEWEST = MIGRATIONS[-1][0]
ONE = Flow("one").then(lambda x: x).build()
DESCRIPTIONS = (
    """SELECT c.relname, c.relkind::text, c.relpersistence::text, c.reloptions, c.relacl::text,
       pg_get_userbyid(c.relowner), CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END
       FROM pg_class c WHERE c.relnamespace = %s::regnamespace ORDER BY 1""",
    """SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default,
       collation_name FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
       FROM pg_constraint WHERE connamespace = %s::regnamespace ORDER BY 1, 2""",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1",
    """SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle,
       cache_size FROM pg_sequences WHERE schemaname = %s ORDER BY 1""",
)
"""Asked of the server about a schema."""


@pytest.fixture
def server() -> Server:
    return required(swift=True)


@pytest.fixture
def schemas(server: Server) -> Iterator[tuple[str, str]]:
    """The names of two schemas that are not there."""
    names = f"script_{token_hex(6)}", f"made_{token_hex(6)}"
    yield names
    for name in names:
        server.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def sayiir_migrate(url: str, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["migrate", "--url", url, *args])
    assert result.exit_code == code, result.output
    return result


def script(url: str) -> str:
    """What a dry run prints on its standard output, where a file is made of it."""
    return sayiir_migrate(url, "--dry-run", code=3).stdout


def run(server: Server, text: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(text.encode())


def described(server: Server, schema: str) -> list[str]:
    """All that the server says of a schema, and which version it notes, without the name."""
    rows = [row for asked in DESCRIPTIONS for row in server.execute(asked, (schema,))]
    rows += server.execute(f"SELECT one, version FROM {schema}.schema_version")
    return [repr(row).replace(schema, "SCHEMA") for row in rows]


def make_first(server: Server, schema: str) -> None:
    """The schema as version 1 left it."""
    server.execute(f"CREATE SCHEMA {schema}")
    run(
        server,
        f"CREATE TABLE {schema}.schema_version"
        " (one integer PRIMARY KEY CHECK (one = 1), version integer NOT NULL);"
        f"INSERT INTO {schema}.schema_version VALUES (1, 1);"
        + MIGRATIONS[0][1].replace("sayiir.", f"{schema}."),
    )


@pytest.mark.parametrize("before", ["nothing", "an empty schema", "a former version"])
def test_the_script_makes_what_migrate_makes(
    server: Server, schemas: tuple[str, str], before: str
) -> None:
    by_hand, made = schemas
    for name in schemas:
        if before == "an empty schema":
            server.execute(f"CREATE SCHEMA {name}")
        elif before == "a former version":
            make_first(server, name)
    url = server.url(schema=by_hand)
    run(server, script(url))
    sayiir_migrate(server.url(schema=made))
    known = described(server, made)
    assert known[-1] == f"(1, {NEWEST})"
    assert len(known) > 100
    assert described(server, by_hand) == known
    for args in ((), ("--dry-run",)):
        said = sayiir_migrate(url, *args).stdout
        assert f"has version {NEWEST}; there is nothing to do" in said
    with SyncWorkflowClient.from_url(server.url(schema=by_hand, migrate="off")) as client:
        client.submit(ONE, "a", 1)
        assert client.status("a").status == "in_progress"


def test_a_script_that_has_run_stops_and_changes_nothing(
    server: Server, schemas: tuple[str, str]
) -> None:
    text = script(server.url(schema=schemas[0]))
    run(server, text)
    before = described(server, schemas[0])
    with pytest.raises(psycopg.DataError, match=f"has version {NEWEST}, .* for version 0: print"):
        run(server, text)
    assert described(server, schemas[0]) == before


def test_a_script_stops_when_somebody_has_migrated_since(
    server: Server, schemas: tuple[str, str]
) -> None:
    make_first(server, schemas[0])
    url = server.url(schema=schemas[0])
    text = script(url)
    sayiir_migrate(url)
    before = described(server, schemas[0])
    with pytest.raises(psycopg.DataError, match=f"has version {NEWEST}, .* for version 1: print"):
        run(server, text)
    assert described(server, schemas[0]) == before


def test_a_script_that_fails_on_the_way_leaves_nothing(
    server: Server, schemas: tuple[str, str]
) -> None:
    text = script(server.url(schema=schemas[0]))
    with pytest.raises(psycopg.errors.UndefinedTable):
        run(server, text.replace("COMMIT;", "SELECT 1 FROM nowhere; COMMIT;"))
    asked = "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
    assert server.execute(asked, (schemas[0],)) == [(0,)]


def test_a_script_waits_for_whoever_migrates(server: Server, schemas: tuple[str, str]) -> None:
    make_first(server, schemas[0])
    text = script(server.url(schema=schemas[0]))
    with psycopg.connect(server.url()) as other:
        other.execute(f"UPDATE {schemas[0]}.schema_version SET version = 99".encode())
        impatient = text.replace("lock_timeout = 0", "lock_timeout = 50")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(server, impatient)
        other.rollback()
    run(server, text)
    assert server.execute(f"SELECT version FROM {schemas[0]}.schema_version") == [(NEWEST,)]
