"""What stands in `docs/postgres.md` runs: its program, its grants, its settings, every query.

The program runs as the role that the page grants rights to, on a schema that somebody else made, so
that the grants are all it needs; then every statement of the page runs, in its order, on what the
program left behind. The lists of tables and indexes are those of the schema.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from tests.postgres.server import Server, required

from sayiir.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "postgres.md"
TEXT = PAGE.read_text(encoding="utf-8")
FENCE = re.compile(r"^```(sql|python postgres)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
ROLES = {name: f"sayiir_{name}_{token_hex(4)}" for name in ("app", "watcher")}
"""The roles of the page, under names that a server of somebody's own does not have."""
PASSWORD = token_hex(8)

# The beginning of a query's block, and what must be among its rows.
FOUND: dict[str, list[tuple[Any, ...]]] = {
    "SELECT usename": [],
    "SELECT c.relname": [("schema_version",), ("steps",)],
    "SELECT indexrelname": [("instances_ready",), ("steps_pkey",)],
    "SELECT relname": [("instances",), ("events",)],
    "SELECT pid, usename": [],
    "SELECT slot_name": [],
    "SELECT gid": [],
    "SELECT date_trunc": [],
    "SELECT workflow, status": [
        ("order", "awaiting_signal", 1),
        ("order", "completed", 3),
        ("order", "failed", 1),
    ],
    "SELECT workflow, tags": [],
    "SELECT worker, instances_held": [],
    "SELECT i.id": [("order-wrong", "order", "check", 1)],
    "SELECT id, status": [("order-4", "awaiting_signal", "paid", None)],
    "SELECT name": [("check",), ("paid",), ("confirm",)],
    "SELECT seq": [(0, "check", 1, "completed"), (1, "paid", 1, "completed")],
    "SELECT status, count": [],
    "SELECT id, workflow, pending": [],
    "SELECT a.pid": [],
}


def blocks(kind: str) -> list[tuple[int, str]]:
    """Those of a kind, each with the line it begins on."""
    return [
        (TEXT.count("\n", 0, found.start(2)) + 1, found[2])
        for found in FENCE.finditer(TEXT)
        if found[1] == kind
    ]


def statements(block: str) -> list[str]:
    renamed = re.sub(r"\b(TO|ROLE) (\w+)", lambda found: f"{found[1]} {ROLES[found[2]]}", block)
    return [one.strip() for one in renamed.split(";") if one.strip()]


def roles_of(block: str) -> set[str]:
    return set(re.findall(r"\bTO (\w+)", block))


@pytest.fixture(scope="module")
def server() -> Server:
    return required()


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """A database whose schema was made by its owner, with the roles that the page speaks of."""
    url = server.fresh_database()
    made = CliRunner().invoke(main, ["migrate", "--url", url])
    assert made.exit_code == 0, made.output
    for role in ROLES.values():
        server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    yield url
    for role in ROLES.values():
        server.execute(f"DROP OWNED BY {role}", database=url.rpartition("/")[2])
        server.execute(f"DROP ROLE {role}")


def as_role(url: str, role: str) -> str:
    return re.sub(r"//[^@]*@", f"//{ROLES[role]}:{PASSWORD}@", url)


@pytest.fixture(scope="module")
def worked(url: str) -> str:
    """The database after the page's program has run, with the rights that the page gives it."""
    grants, *_ = blocks("sql")
    assert roles_of(grants[1]) == {"app"}
    with psycopg.connect(url, autocommit=True) as owner:
        for statement in statements(grants[1]):
            owner.execute(statement.encode())
    [(line, program)] = blocks("python postgres")
    module = ModuleType("paper_of_postgres")
    sys.modules[module.__name__] = module
    try:
        exec(compile("\n" * (line - 1) + program, str(PAGE), "exec"), module.__dict__)
        asyncio.run(module.__dict__["main"](as_role(url, "app")))
    finally:
        del sys.modules[module.__name__]
    return url


def test_every_statement_of_the_page_runs(worked: str) -> None:
    seen = set()
    with psycopg.connect(worked, autocommit=True) as owner:
        for line, block in blocks("sql"):
            for statement in statements(block):
                try:
                    cursor = owner.execute(statement.encode())
                except psycopg.Error as error:
                    raise AssertionError(f"docs/postgres.md, line {line}: {error}") from error
                if cursor.description is None:
                    continue
                [beginning] = [one for one in FOUND if re.match(rf"{re.escape(one)}\b", statement)]
                seen.add(beginning)
                rows = cursor.fetchall()
                for row in FOUND[beginning]:
                    fitting = [one for one in rows if one[: len(row)] == row or one == row]
                    assert fitting, f"line {line}: {row} is not among {rows}"
    assert seen == FOUND.keys(), "a query of the page is gone, or begins otherwise"


def test_who_may_watch_sees_the_views_and_nothing_else(worked: str) -> None:
    [grants] = [block for _, block in blocks("sql") if roles_of(block) == {"watcher"}]
    with psycopg.connect(worked, autocommit=True) as owner:
        for statement in statements(grants):
            owner.execute(statement.encode())
        views = owner.execute(
            "SELECT table_name FROM information_schema.views WHERE table_schema = 'sayiir'"
        ).fetchall()
        tables = owner.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = 'sayiir' AND table_type = 'BASE TABLE'"
        ).fetchall()
    assert len(views) == 5
    assert len(tables) > 8
    with psycopg.connect(as_role(worked, "watcher"), autocommit=True) as watcher:
        for (view,) in views:
            watcher.execute(f"SELECT count(*) FROM sayiir.{view}".encode())
        for (table,) in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                watcher.execute(f"SELECT count(*) FROM sayiir.{table}".encode())


def test_a_role_behind_a_pooler_is_told_what_a_session_is_told() -> None:
    sources = (PAGE.parents[1] / "rust/store/src/postgres/mod.rs").read_text(encoding="utf-8")
    sessions = set(re.findall(r"SET (\w+) = ", sources)) - {"client_min_messages"}
    assert len(sessions) > 4
    assert set(re.findall(r"ALTER ROLE app SET (\w+) = ", TEXT)) == sessions


def listed(heading: str) -> set[str]:
    """The names in the first column of the table that follows a heading."""
    section = TEXT.partition(f"\n{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert rows is not None
    cells = [row.split("|")[1] for row in rows[0].splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def test_the_tables_and_indexes_of_the_page_are_those_of_the_schema(worked: str) -> None:
    with psycopg.connect(worked, autocommit=True) as owner:
        tables = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'sayiir'")
        assert listed("## The schema") == {name for (name,) in tables}
        indexes = owner.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'sayiir'"
            " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        )
        # One that comes with a key of the table has the server's name.
        assert listed("### Indexes") - {"inputs.id"} == {name for (name,) in indexes}
