"""The SQL of the Postgres store keeps the rules of `sql_rules`, and each rule finds its offenders.

Judged are the migrations as they lie in the sources, and every statement that the store sends. What
is allowed to break a rule stands here with its reason, and an exception that nothing needs fails.
"""

from pathlib import Path

import pytest
from tests.postgres import sql_rules
from tests.postgres.sql_rules import MIGRATION_RULES, RULES, offences
from tests.postgres.sql_text import scopes, sources, split, tokens

from sayiir import _core
from sayiir.backends import _caller

SQL = Path(__file__).resolve().parents[2] / "rust" / "store" / "src" / "sql"
MIGRATIONS = sorted(SQL.glob("postgres_*.sql"))
STATEMENTS = _core.postgres_statements() | _caller.STATEMENTS
"""Every statement by its name, those on a connection of the caller's as well."""

_HELD = "as many rows as a worker holds instances, which its concurrency bounds"
_COUNTED = "it counts, for an operator or an idle worker, and returns a row for each kind"
_APART = (
    "its parts never meet in a row; CockroachDB has a setting for it, docs/postgres.md names it"
)
EXCEPTIONS = {
    ("submit.create", "modified_twice"): _APART,
    ("commit.apply", "modified_twice"): _APART,
    ("caller.create", "modified_twice"): _APART,
    ("hint.tell", "notifications"): "this is the one place",
    ("caller.tell", "notifications"): "and this is the one on a connection of the caller's",
    ("claim.again", "unbounded"): _HELD,
    ("lease.free", "unbounded"): _HELD,
    ("timer.next", "unbounded"): "the first entry of an index",
    ("backlog.ready", "unbounded"): _COUNTED,
    ("report.instances", "unbounded"): _COUNTED,
    ("report.workers", "unbounded"): _COUNTED,
    ("report.definitions", "unbounded"): _COUNTED,
    ("report.state", "unbounded"): "the first entry of an index",
    ("report.state", "bare_names"): "the server's own statistics are always on the path",
}
"""What a statement may do all the same: its name and the rule's, and why."""


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.name)
def test_a_migration_keeps_the_rules(path: Path) -> None:
    statements = split(path.read_text(encoding="utf-8"))
    assert statements
    assert [found for one in statements for found in offences(one, MIGRATION_RULES)] == []


def test_migrations_are_numbered_and_all_known() -> None:
    known = _core.postgres_migrations()
    assert [version for version, _ in known] == list(range(1, len(known) + 1))
    assert [path.name for path in MIGRATIONS] == [f"postgres_{n:04}.sql" for n, _ in known]
    for path, (_, sql) in zip(MIGRATIONS, known, strict=True):
        assert sql == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_a_statement_keeps_the_rules(name: str) -> None:
    allowed = {rule for statement, rule in EXCEPTIONS if statement == name}
    parts = split(STATEMENTS[name])
    assert len(parts) == 1, "a prepared statement is one statement"
    found = offences(parts[0], RULES)
    assert [one for one in found if one.partition(":")[0] not in allowed] == []


def test_every_exception_is_needed() -> None:
    rules = {rule.__name__: rule for rule in RULES}
    for (name, rule), reason in EXCEPTIONS.items():
        [statement] = split(STATEMENTS[name])
        assert list(rules[rule](statement)), f"{name} needs no exception from {rule} ({reason})"


# One offender for each thing that is forbidden: a rule that misses its own is no rule.
FORBIDDEN: dict[str, list[str]] = {
    "advisory_locks": [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock($1) FROM sayiir.workers w",
        "SELECT PG_ADVISORY_UNLOCK_ALL()",
    ],
    "code_on_the_server": [
        "CREATE FUNCTION sayiir.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE PROCEDURE sayiir.f() AS $$ BEGIN END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER t AFTER INSERT ON sayiir.steps EXECUTE FUNCTION sayiir.f()",
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON sayiir.steps",
        "CREATE RULE r AS ON INSERT TO sayiir.steps DO NOTHING",
        "DO $body$ BEGIN PERFORM 1; END $body$",
        "CALL sayiir.tidy()",
    ],
    "extensions": ["CREATE EXTENSION pgcrypto", "CREATE FOREIGN TABLE sayiir.t (a int)"],
    "whole_table_locks": [
        "LOCK TABLE sayiir.workers",
        "LOCK sayiir.workers IN SHARE MODE",
        "TRUNCATE sayiir.garbage",
        "VACUUM sayiir.steps",
    ],
    "tables_that_are_not_durable": [
        "CREATE TEMP TABLE sayiir.t (a int)",
        "CREATE TEMPORARY TABLE sayiir.t (a int)",
        "CREATE UNLOGGED TABLE sayiir.t (a int)",
        "SELECT w.worker INTO sayiir.copy FROM sayiir.workers w",
    ],
    "hidden_sequences": [
        "CREATE TABLE sayiir.lanes (lane bigserial PRIMARY KEY)",
        "CREATE TABLE sayiir.lanes (lane serial4 PRIMARY KEY)",
        "CREATE TABLE sayiir.lanes (lane int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
        "ALTER SEQUENCE sayiir.small_numbers OWNED BY sayiir.lanes.lane",
    ],
    "system_columns": [
        "DELETE FROM sayiir.garbage WHERE ctid = ANY($1)",
        "SELECT i.xmin FROM sayiir.instances i WHERE i.instance = $1",
        "SELECT w.oid FROM sayiir.workers w",
        "SELECT tableoid FROM sayiir.workers",
        "SELECT txid_current()",
        "SELECT pg_current_xact_id()",
    ],
    "notifications": [
        "LISTEN sayiir",
        "NOTIFY sayiir, 'work'",
        "UNLISTEN *",
        "SELECT pg_notify('sayiir', 'work')",
    ],
    "isolation_levels": [
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SET LOCAL TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "BEGIN READ ONLY DEFERRABLE",
    ],
    "session_state": [
        "SET statement_timeout = 5",
        "SET search_path TO sayiir",
        "SET LOCAL search_path TO sayiir",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE p AS SELECT 1",
        "DISCARD ALL",
    ],
    "inheritance_and_partitions": [
        "CREATE TABLE sayiir.workers (worker int PRIMARY KEY) INHERITS (sayiir.people)",
        "CREATE TABLE sayiir.steps (instance bigint PRIMARY KEY) PARTITION BY HASH (instance)",
        "CREATE TABLE sayiir.steps PARTITION OF sayiir.all_steps DEFAULT",
        "ALTER TABLE sayiir.steps ATTACH PARTITION sayiir.s FOR VALUES IN (1)",
    ],
    "types_and_constraints_of_our_own": [
        "CREATE TYPE sayiir.status AS ENUM ('ready')",
        "CREATE DOMAIN sayiir.micros AS bigint",
        "CREATE TABLE sayiir.lanes (lane int PRIMARY KEY REFERENCES sayiir.definitions)",
        "ALTER TABLE sayiir.lanes ADD FOREIGN KEY (lane) REFERENCES sayiir.definitions",
        "CREATE TABLE sayiir.lanes (lane int PRIMARY KEY, EXCLUDE USING gist (lane WITH =))",
    ],
    "generated_columns": [
        "CREATE TABLE sayiir.lanes (lane int PRIMARY KEY, two int GENERATED ALWAYS AS (1) STORED)",
    ],
    "newer_than_13": [
        "MERGE INTO sayiir.workers w USING (SELECT 1) s ON true WHEN MATCHED THEN DO NOTHING",
        "WITH a AS (SELECT 1) MERGE INTO sayiir.workers w USING a ON true WHEN MATCHED THEN DELETE",
        "CREATE TABLE sayiir.lanes (lane int PRIMARY KEY, a int UNIQUE NULLS NOT DISTINCT)",
        "UPDATE sayiir.workers SET name = $1 WHERE worker = $2 RETURNING old.name",
        "CREATE VIEW sayiir.v WITH (security_invoker = true) AS SELECT 1 AS a",
        "SELECT any_value(w.name) FROM sayiir.workers w",
        "SELECT uuidv7()",
    ],
    "modified_twice": [
        (
            "WITH a AS (DELETE FROM sayiir.cells WHERE instance = $1) "
            "UPDATE sayiir.cells SET strand = 1 WHERE instance = $2"
        ),
        (
            "WITH a AS (INSERT INTO sayiir.cells (instance) VALUES ($1) ON CONFLICT DO NOTHING), "
            "b AS (DELETE FROM sayiir.cells k WHERE k.instance = $1) SELECT 1"
        ),
    ],
    "every_column": [
        "SELECT * FROM sayiir.workers",
        "SELECT w.* FROM sayiir.workers w",
        "SELECT w.name, * FROM sayiir.workers w",
        "WITH n AS (SELECT 1 AS a) SELECT n.a, w.* FROM n, sayiir.workers w",
        "SELECT DISTINCT * FROM sayiir.workers w",
        "DELETE FROM sayiir.workers WHERE worker = $1 RETURNING *",
    ],
    "bare_names": [
        "SELECT name FROM workers",
        "SELECT w.name FROM sayiir.definitions d, workers w",
        "SELECT w.name FROM sayiir.definitions d LEFT JOIN workers w ON true",
        "SELECT (SELECT count(d) FROM definitions d) AS n",
        "WITH w AS (SELECT 1 AS a) SELECT w.a FROM w JOIN x ON x.a = w.a",
        "INSERT INTO workers (name) VALUES ($1)",
        "WITH a AS (SELECT 1 AS n) INSERT INTO workers (worker) SELECT a.n FROM a",
        "UPDATE workers SET name = $1",
        "WITH gone AS (DELETE FROM workers WHERE worker = $1 RETURNING name) SELECT name FROM gone",
        "DELETE FROM sayiir.workers w USING lanes l WHERE l.lane = w.worker",
        "CREATE TABLE workers (worker int PRIMARY KEY)",
        "CREATE INDEX IF NOT EXISTS by_name ON workers (name)",
        "CREATE VIEW people AS SELECT w.name FROM sayiir.workers w",
        "CREATE SEQUENCE numbers",
        "ALTER TABLE workers ADD COLUMN colour text",
        "SELECT nextval('numbers')",
        "SELECT 'workers'::regclass",
        "SELECT name FROM public.workers",
    ],
    "surprising_defaults": [
        "CREATE TABLE sayiir.workers (worker int PRIMARY KEY, at timestamptz DEFAULT now())",
        "CREATE TABLE sayiir.workers (worker bigint PRIMARY KEY DEFAULT nextval('sayiir.n'))",
        "CREATE TABLE sayiir.lanes (lane int PRIMARY KEY, at date DEFAULT CURRENT_DATE)",
        "ALTER TABLE sayiir.workers ADD COLUMN lot double precision DEFAULT random()",
        "ALTER TABLE sayiir.workers ADD COLUMN lot int DEFAULT 1 + 1",
    ],
    "keys": [
        "CREATE TABLE sayiir.steps (seq int, instance bigint, PRIMARY KEY (seq, instance))",
        "CREATE TABLE sayiir.events (event bigint PRIMARY KEY, id text NOT NULL)",
        "CREATE TABLE sayiir.instances (instance bigint PRIMARY KEY, place bigint NOT NULL UNIQUE)",
        "CREATE TABLE sayiir.cells (instance bigint, strand int)",
        "CREATE TABLE sayiir.surprises (surprise bigint PRIMARY KEY)",
        "CREATE UNIQUE INDEX by_key ON sayiir.events (key, id)",
    ],
    "unbounded": [
        "SELECT i.id FROM sayiir.instances i WHERE i.status = 0",
        "SELECT count(s.seq) FROM sayiir.steps s",
        "UPDATE sayiir.instances SET status = 0 WHERE wake_us <= $1",
        "DELETE FROM sayiir.events WHERE early AND came_us <= $1",
        "SELECT i.id FROM sayiir.instances i JOIN sayiir.steps s ON s.instance = i.instance",
        (
            "SELECT w.name FROM sayiir.workers w WHERE EXISTS "
            "(SELECT 1 FROM sayiir.instances i WHERE i.holder = w.worker)"
        ),
        (
            "WITH a AS (SELECT i.instance FROM sayiir.instances i) "
            "DELETE FROM sayiir.steps s USING a WHERE s.instance = a.instance"
        ),
        "INSERT INTO sayiir.garbage (instance) SELECT i.instance FROM sayiir.instances i",
    ],
}
FORBIDDEN_IN_MIGRATIONS: dict[str, list[str]] = {
    "old_workers": [
        "DROP TABLE sayiir.garbage",
        "ALTER TABLE sayiir.workers DROP COLUMN name",
        "ALTER TABLE sayiir.workers RENAME COLUMN name TO title",
        "ALTER TABLE sayiir.workers ALTER COLUMN worker TYPE bigint",
        "ALTER TABLE sayiir.workers ALTER COLUMN look_us SET NOT NULL",
        "ALTER TABLE sayiir.workers ADD COLUMN colour text NOT NULL",
    ],
    "not_in_a_transaction": [
        "CREATE INDEX CONCURRENTLY by_name ON sayiir.workers (name)",
        "COMMIT",
        "BEGIN",
    ],
}
RULE_OF = {rule.__name__: rule for rule in MIGRATION_RULES}


def test_every_rule_has_an_offender_and_a_reason() -> None:
    assert [rule.__name__ for rule in RULES] == list(FORBIDDEN)
    assert RULE_OF.keys() - FORBIDDEN.keys() == FORBIDDEN_IN_MIGRATIONS.keys()
    assert all(rule.__doc__ for rule in MIGRATION_RULES)


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        (rule, sql)
        for rule, offenders in {**FORBIDDEN, **FORBIDDEN_IN_MIGRATIONS}.items()
        for sql in offenders
    ],
)
def test_what_is_forbidden_is_found(rule: str, sql: str) -> None:
    [statement] = split(sql)
    assert list(RULE_OF[rule](statement)), f"{rule} finds nothing in: {sql}"
    # Neither the case of letters, nor how it is laid out, nor a comment hides it.
    [statement] = split(f"/* x */ {sql.swapcase().replace(' ', chr(10) + chr(9))} -- end")
    if "'" not in sql:
        assert list(RULE_OF[rule](statement)), f"{rule} finds nothing when it is laid out otherwise"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT i.id, count(*) OVER (PARTITION BY i.lane) FROM sayiir.instances i LIMIT $1",
        "SELECT 2 * w.lease_us, extract(epoch FROM clock_timestamp()) FROM sayiir.workers w",
        (
            "SELECT i.instance FROM sayiir.instances i WHERE i.holder IS NULL AND i.lane = $1 "
            "ORDER BY i.order_us LIMIT $2 FOR UPDATE SKIP LOCKED"
        ),
        (
            "WITH a AS (SELECT u.n FROM unnest($1::bigint[]) AS u(n)), "
            "b (n) AS MATERIALIZED (UPDATE sayiir.instances i SET status = 0 FROM a "
            "WHERE i.instance = a.n RETURNING i.instance) SELECT b.n FROM b"
        ),
        (
            "INSERT INTO sayiir.inputs (id, token, input) "
            "SELECT u.a, u.b, u.c FROM unnest($1::text[], $2::bigint[], $3::bytea[]) u (a, b, c) "
            "ON CONFLICT (id) DO UPDATE SET token = excluded.token"
        ),
        "DELETE FROM sayiir.events WHERE id = $1 AND event = ANY ($2)",
        "DELETE FROM sayiir.events WHERE id = ANY ($1)",
        "SELECT event FROM sayiir.events WHERE id IN (SELECT u.a FROM unnest($1::text[]) u(a))",
        "SELECT w.name FROM sayiir.workers w WHERE w.name IS DISTINCT FROM $1",
        (
            "SELECT u.a FROM unnest($1::text[]) WITH ORDINALITY AS u(a, n) WHERE EXISTS "
            "(SELECT 1 FROM sayiir.inputs n WHERE n.id = u.a)"
        ),
        "SELECT 'LOCK TABLE; SELECT * FROM x' AS text -- ctid, LISTEN, DO $$",
        "SELECT nextval('sayiir.instance_numbers')",
        "WITH n AS (SELECT u.* FROM unnest($1::int[]) AS u (a)) SELECT n.* FROM n",
        "WITH n AS (INSERT INTO sayiir.garbage (instance) VALUES ($1)) SELECT 1",
        "SELECT s.seq FROM sayiir.steps s JOIN unnest($1::int[]) AS x (a) ON x.a = s.instance",
        (
            "WITH a AS (INSERT INTO sayiir.garbage (instance) VALUES ($1)) "
            "DELETE FROM sayiir.garbage WHERE instance = $2"
        ),
        (
            "WITH a AS (SELECT instance FROM sayiir.garbage LIMIT 1 FOR UPDATE SKIP LOCKED) "
            "DELETE FROM sayiir.garbage USING a WHERE garbage.instance = a.instance"
        ),
        "SET LOCAL statement_timeout = 5",
        (
            "CREATE TABLE sayiir.cells (instance bigint NOT NULL, a int DEFAULT -1, "
            "b text DEFAULT 'now()', c int DEFAULT 0, PRIMARY KEY (instance, a))"
        ),
        "ALTER TABLE sayiir.workers ADD COLUMN colour text NOT NULL DEFAULT 'grey'",
        "ALTER TABLE sayiir.workers ALTER COLUMN name DROP NOT NULL",
    ],
)
def test_what_is_allowed_is_left_alone(sql: str) -> None:
    [statement] = split(sql)
    assert offences(statement, MIGRATION_RULES) == []


def test_an_offence_is_told_with_its_reason() -> None:
    [statement] = split("SELECT name FROM workers")
    [said] = offences(statement, RULES)
    assert said.startswith("bare_names: workers. ")
    assert "write sayiir.name" in said


def test_where_rows_come_from() -> None:
    [statement] = split(
        "WITH n AS (SELECT 1 AS a FROM sayiir.lanes) SELECT l.a FROM sayiir.lanes AS l "
        "LEFT JOIN LATERAL (SELECT 2 AS b FROM sayiir.workers w) x ON true, unnest($1::int[]) u(c)"
    )
    outer, first, second = scopes(statement).all()
    assert [(one.kind, one.name, one.alias) for one in sources(outer)] == [
        ("table", "sayiir.lanes", "l"),
        ("subquery", "", "x"),
        ("function", "unnest", "u"),
    ]
    assert [one.name for one in sources(first)] == ["sayiir.lanes"]
    assert [one.alias for one in sources(second)] == ["w"]
    assert outer.named == {"n"}


def test_every_table_of_the_schema_is_said_to_grow_or_not() -> None:
    made = {
        source.name.removeprefix("sayiir.")
        for path in MIGRATIONS
        for statement in split(path.read_text(encoding="utf-8"))
        if [token.text for token in statement[:2]] == ["create", "table"]
        for source in sources(scopes(statement))
    }
    assert made <= {*sql_rules.GROWING, *sql_rules.SMALL}
    assert sql_rules.GROWING.keys() <= made


def test_comments_and_strings_hide_nothing_and_are_nothing() -> None:
    assert [token.text for token in tokens("a/* b */'c''d'--e\nf$x$g;$x$")] == [
        *("a", "'c''d'", "f"),
        "$x$g;$x$",
    ]
