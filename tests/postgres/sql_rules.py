"""The rules that SQL of the Postgres store keeps, each a function from a statement to its offences.

They keep the store within what PostgreSQL 13 to 18 and the distributed engines that speak its
language take, within what a connection pooler leaves in place, and within a bounded number of rows
for each statement. A rule's docstring is the reason for it, and what an offender reads. They judge
text, and know nothing of what the statements are for.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tests.postgres.sql_text import Scope, Source, Token, scopes, sources, words

__all__ = ["GROWING", "MIGRATION_RULES", "RULES", "SMALL", "Rule", "offences"]

GROWING = {
    "instances": ("instance",),
    **dict.fromkeys(("cells", "steps", "garbage"), ("instance",)),
    **dict.fromkeys(("inputs", "events"), ("id",)),
    "item_groups": ("parent",),
    "items": ("parent", "item"),
}
"""Tables with rows for every instance, and the column that each of their keys begins with: its id,
its number, or the number under which it is a parent or an item."""
SMALL = {
    "definitions": "one for each version of a workflow",
    "lanes": "one for each definition and set of tags",
    "workers": "one for each living worker",
    "worker_names": "one for each worker there ever was",
    "listeners": "one for each process that listens",
}
"""Tables that stay small however many instances there are, and what a row of each is."""

Rule = Callable[[Sequence[Token]], Iterator[str]]

_IF_NOT = "(?:if not exists )?"
_CONSTANTS = {"true", "false", "null"}
_OF_A_SESSION = {"declare", "fetch", "prepare", "deallocate", "discard", "load", "reset"}


def offences(statement: Sequence[Token], rules: Sequence[Rule]) -> list[str]:
    """What a statement does that it must not, each with the rule's name and reason."""
    return [
        f"{rule.__name__}: {found}. {' '.join((rule.__doc__ or '').split())}"
        for rule in rules
        for found in rule(statement)
    ]


def _matching(statement: Sequence[Token], *patterns: str) -> Iterator[str]:
    line = words(statement)
    for pattern in patterns:
        if found := re.search(rf"(?<![\w$]){pattern}(?![\w$])", line):
            yield found[0].strip()


# What distributed engines and poolers do not take.


def advisory_locks(statement: Sequence[Token]) -> Iterator[str]:
    """They belong to a session, which a pooler hands to others, and to one node."""
    yield from _matching(statement, r"pg_(?:try_)?advisory_\w+")


def code_on_the_server(statement: Sequence[Token]) -> Iterator[str]:
    """Code that is stored in the database needs rights and languages, and versions of its own."""
    kinds = "function|procedure|trigger|rule|aggregate|operator|language|cast|event trigger"
    yield from _matching(
        statement, rf"create (?:or replace )?(?:constraint )?(?:{kinds})", r"\$\$", "execute"
    )
    if statement[0].text in ("do", "call"):
        yield statement[0].text


def extensions(statement: Sequence[Token]) -> Iterator[str]:
    """Extensions need a superuser, or are not there at all."""
    yield from _matching(statement, "extension", "foreign data wrapper", "foreign table")


def whole_table_locks(statement: Sequence[Token]) -> Iterator[str]:
    """A lock on a table stops every worker; rows are locked instead."""
    if statement[0].text in ("lock", "truncate", "vacuum", "analyze", "cluster", "reindex"):
        yield statement[0].text


def tables_that_are_not_durable(statement: Sequence[Token]) -> Iterator[str]:
    """Temporary tables belong to a session; unlogged ones are empty after a crash."""
    yield from _matching(statement, "temp", "temporary", "unlogged")
    for scope in scopes(statement).all():
        if scope.own[0].text in ("select", "with"):
            yield from _matching(scope.own, "(?<!insert )(?<!merge )into")


def hidden_sequences(statement: Sequence[Token]) -> Iterator[str]:
    """A sequence of the schema is drawn from where a statement says so.

    SERIAL and IDENTITY make one that a column owns and the server names.
    """
    yield from _matching(statement, r"(?:small|big)?serial[248]?", "as identity", "owned by")


def system_columns(statement: Sequence[Token]) -> Iterator[str]:
    """Row addresses and transaction numbers mean something else, or nothing, elsewhere."""
    yield from _matching(statement, r"(?:ctid|[xc]min|[xc]max|tableoid|oid|txid_\w+|pg_\w*xact\w*)")


def notifications(statement: Sequence[Token]) -> Iterator[str]:
    """They are hints, and sent from one place.

    Not every engine has them, and commits that notify wait for each other.
    """
    yield from _matching(statement, "pg_notify")
    if statement[0].text in ("listen", "notify", "unlisten"):
        yield statement[0].text


def isolation_levels(statement: Sequence[Token]) -> Iterator[str]:
    """Correctness must not hang on a level that an engine maps to another."""
    levels = ("serializable", "repeatable read", "isolation level", "deferrable")
    yield from _matching(statement, *levels)


def session_state(statement: Sequence[Token]) -> Iterator[str]:
    """Behind a pooler the next transaction may run in another session."""
    yield from _matching(statement, "with hold", "search_path", "current_schema", "set session")
    if statement[0].text in _OF_A_SESSION:
        yield statement[0].text
    if statement[0].text == "set" and statement[1].text != "local":
        yield "set"


def inheritance_and_partitions(statement: Sequence[Token]) -> Iterator[str]:
    """Engines that spread tables do it in their own way."""
    if statement[0].text in ("create", "alter"):
        yield from _matching(statement, "inherits?", "partition (?:by|of)", "attach partition")


def types_and_constraints_of_our_own(statement: Sequence[Token]) -> Iterator[str]:
    """Plain types and keys are what all engines agree on.

    Enums cannot be changed in a transaction everywhere; a foreign key locks a row of another table,
    maybe on another node, with each insert; exclusion needs an index type that few have.
    """
    yield from _matching(
        statement, "create (?:type|domain|collation)", "references", "foreign key", "exclude using"
    )


def generated_columns(statement: Sequence[Token]) -> Iterator[str]:
    """They differ between engines and versions, and virtual ones came with 18."""
    yield from _matching(statement, "generated")


def newer_than_13(statement: Sequence[Token]) -> Iterator[str]:
    """PostgreSQL 13 is supported, which does not have it."""
    if statement[0].text == "merge":
        yield "merge"
    yield from _matching(
        statement,
        *("merge into", "nulls not distinct", "json_table", "without overlaps", "any_value"),
        *("is (?:not )?json", "returning (?:with|old|new)", "security_invoker", "uuidv7"),
        *("random_normal", "array_(?:sample|shuffle)", "json_(?:scalar|serialize|array|object)"),
        *("regexp_(?:like|count|substr|instr)", "date_bin", "bit_count", "range_agg", "date_add"),
        *("search (?:breadth|depth) first", "trim_array", "string_to_table", "pg_input_\\w+"),
    )


def modified_twice(statement: Sequence[Token]) -> Iterator[str]:
    """A statement changes a table in one place.

    What two parts of one statement do to the same row is not defined; CockroachDB refuses the
    statement. An INSERT without ON CONFLICT does not count.
    """
    changed = Counter(
        source.name
        for scope in scopes(statement).all()
        for source in sources(scope)
        if f"{_changes(scope)} {source.name.replace('.', ' . ')} " in words(scope.own)
    )
    yield from (name for name, times in changed.items() if times > 1)


def _changes(scope: Scope) -> str:
    """The words before the name of the table that a scope changes rows of."""
    line = words(scope.own)
    found = re.search(
        r"(?<!do )(?<!for )(?<!key )update|delete from|insert into(?=.* on conflict)", line
    )
    return found[0] if found else "nothing"


# What would surprise.


def every_column(statement: Sequence[Token]) -> Iterator[str]:
    """A column that a later version adds would come back to a program that does not expect it."""
    for scope in scopes(statement).all():
        # The columns of a function, or of a query with a name, are listed where it stands.
        listed = all(one.kind == "function" or one.name in scope.named for one in sources(scope))
        if not listed or "returning *" in words(scope.own):
            yield from _matching(scope.own, r"(?:select|all|distinct|returning|,|\.) \*")


def bare_names(statement: Sequence[Token]) -> Iterator[str]:
    """A name without its schema means whatever the search path says; write sayiir.name."""
    outermost = scopes(statement)
    for scope in outermost.all():
        for source in sources(scope):
            known = source.name in scope.named or source.name.startswith("sayiir.")
            if source.kind in ("table", "target") and not known:
                yield source.name or "a table"
    for at, token in enumerate(statement):
        called = [before.text for before in statement[max(at - 2, 0) : at]]
        cast = [after.text for after in statement[at + 1 : at + 3]] == ["::", "regclass"]
        drawn = called in (["nextval", "("], ["setval", "("], ["currval", "("])
        if token.kind == "string" and (cast or drawn) and not token.text.startswith("'sayiir."):
            yield token.text


def surprising_defaults(statement: Sequence[Token]) -> Iterator[str]:
    """A default is a constant.

    Another one is computed wherever the row happens to be made, and an added column is not free.
    """
    if statement[0].text not in ("create", "alter"):
        return
    for place, token in enumerate(statement):
        if token.text != "default":
            continue
        at = place + (statement[place + 1].text == "-")
        value, following = statement[at + 1], [one.text for one in statement[at + 2 : at + 3]]
        constant = value.kind in ("number", "string") or value.text in _CONSTANTS
        if not constant or following in (["("], ["+"], ["-"], ["*"], ["/"], ["||"]):
            yield f"default {value.text}"


def keys(statement: Sequence[Token]) -> Iterator[str]:
    """Every key of a table that grows with instances begins with the instance.

    Engines that spread rows do it by the beginning of the key, so all of an instance lies together.
    """
    line = words(statement)
    if made := re.match(rf"create unique index {_IF_NOT}\w+ on sayiir \. (\w+) (.*)", line):
        yield from _keys_of(made[1], _columns(made[2]))
    if not (made := re.match(rf"create table {_IF_NOT}(?:sayiir \. )?(\w+) \( (.*)", line)):
        return
    table, body = made[1], made[2]
    if table not in GROWING and table not in SMALL:
        yield f"nobody said whether table {table} grows with instances: say it in GROWING or SMALL"
    if "primary key" not in body:
        yield f"table {table} has no primary key"
    for kind in ("primary key", "unique"):
        # Behind the column, or with a list of columns.
        for column in re.findall(rf"(?:^|, )(\w+) [^,]*?{kind}(?! \()", body):
            yield from _keys_of(table, (column,))
        for columns in re.findall(rf"{kind} (\( [^)]*\))", body):
            yield from _keys_of(table, _columns(columns))


def _columns(listed: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", listed.partition("(")[2].partition(")")[0]))


def _keys_of(table: str, key: tuple[str, ...]) -> Iterator[str]:
    if key[0] not in GROWING.get(table, key):
        yield f"a key of {table} begins with {key[0]}"


def unbounded(statement: Sequence[Token]) -> Iterator[str]:
    """A table that grows with instances is never gone through as a whole.

    Each query of one has a LIMIT, or takes its rows by the instance's own number or id, or by its
    parent's.
    """
    if statement[0].text == "create":
        return
    for scope in scopes(statement).all():
        found = list(sources(scope))
        for one in found:
            table = one.name.removeprefix("sayiir.")
            if one.kind == "table" and table in GROWING and not _is_bounded(scope, found):
                yield f"of {table} any number of rows"


def _is_bounded(scope: Scope, found: Sequence[Source]) -> bool:
    line = words(scope.own)
    if " limit " in line:
        return True
    side = r"(?:(\w+) \. )?(?:instance|id|parent|item)"
    if re.search(rf"(?<![\w.]){side} (?:= (?:any \(|\$\d|''|\( \))|in \()", line):
        return True
    # By the key of a row that comes from elsewhere: a list of parameters, a query that has a name
    # and is judged by itself, or the query around this one.
    large = {one.alias for one in found if one.name.removeprefix("sayiir.") in GROWING}
    others = re.findall(rf"{side} = (\w+) \. \w+", line)
    others += [(mine, other) for other, mine in re.findall(rf"(\w+) \. \w+ = {side}", line)]
    return any(other not in large for _, other in others)


# What a schema in use does not bear.


def old_workers(statement: Sequence[Token]) -> Iterator[str]:
    """What older workers read and write must stay as they know it.

    They are still running when a schema is migrated.
    """
    if statement[0].text == "drop":
        yield "drop"
    if statement[0].text == "alter":
        yield from _matching(
            statement, "drop(?! default| not null)", "rename", "type", "set not null"
        )
        added = re.search(rf"add (?:column )?{_IF_NOT}\w+ ([^,]*not null[^,]*)", words(statement))
        if added is not None and " default " not in added[1]:
            yield "a column that must be given and that they do not know"


def not_in_a_transaction(statement: Sequence[Token]) -> Iterator[str]:
    """A migration is one transaction, so that it is there or not."""
    yield from _matching(statement, "concurrently")
    if statement[0].text in ("begin", "commit", "rollback", "start", "end"):
        yield statement[0].text


RULES: tuple[Rule, ...] = (
    *(advisory_locks, code_on_the_server, extensions, whole_table_locks),
    *(tables_that_are_not_durable, hidden_sequences, system_columns, notifications),
    *(isolation_levels, session_state, inheritance_and_partitions),
    *(types_and_constraints_of_our_own, generated_columns, newer_than_13, modified_twice),
    *(every_column, bare_names, surprising_defaults, keys, unbounded),
)
"""For every statement."""
MIGRATION_RULES: tuple[Rule, ...] = (*RULES, old_workers, not_in_a_transaction)
"""For what is run once, under a lock, while older workers go on."""
