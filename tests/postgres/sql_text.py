"""SQL as tokens, statements and scopes: as much of the language as a rule about it needs.

It reads what a PostgreSQL parser would accept and says nothing about anything else: comments are
dropped, strings and quoted names are single tokens, and a subquery is a scope of its own. It knows
no rule and no table.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

__all__ = ["Scope", "Source", "Token", "scopes", "sources", "split", "tokens", "words"]

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<body>    \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$ )
    | (?P<param>   \$\d+ )
    | (?P<string>  [eE]?'(?:[^']|'')*' )
    | (?P<quoted>  "(?:[^"]|"")*" )
    | (?P<number>  \d+(?:\.\d+)? )
    | (?P<word>    [A-Za-z_][A-Za-z0-9_]* )
    | (?P<mark>    ::|<>|<=|>=|!=|\|\||\S )
    """,
    re.VERBOSE | re.DOTALL,
)
_STARTS = {"select", "insert", "update", "delete", "with", "values", "merge"}
# Between their parentheses FROM is punctuation.
_FROM_INSIDE = {"extract", "substring", "trim", "overlay", "position"}
# What may follow the name of a table without being another name for it.
_AFTER_NAME = {
    *(
        "as",
        "on",
        "using",
        "where",
        "set",
        "join",
        "left",
        "right",
        "inner",
        "full",
        "cross",
        "for",
    ),
    *("natural", "group", "order", "limit", "offset", "returning", "union", "values", "select"),
    *("default", "do", "overriding", "fetch", "having", "window", "with", "except", "intersect"),
    *("tablesample", "rename", "add", "alter", "drop", "owner", "start", "increment", "cascade"),
}
_ENDS_A_LIST = {
    *("where", "group", "order", "limit", "offset", "having", "window", "union", "except", "fetch"),
    *("intersect", "for", "returning", "set", "select", "values"),
}


class Token(NamedTuple):
    """One token; words are in lower case, everything else as it was written."""

    kind: str
    text: str

    def __bool__(self) -> bool:
        return self.kind != "end"


_END = Token("end", "")


def tokens(sql: str) -> list[Token]:
    r"""The tokens of a text, without its comments.

    >>> [token.text for token in tokens("SELECT 'a;b' -- no\n FROM t")]
    ['select', "'a;b'", 'from', 't']
    """
    found = []
    for match in _TOKEN.finditer(sql):
        kind = str(match.lastgroup if match.lastgroup != "tag" else "body")
        if kind != "comment":
            found.append(Token(kind, match[0].lower() if kind == "word" else match[0]))
    return found


def split(sql: str) -> list[list[Token]]:
    """The statements of a text, each as its tokens.

    >>> len(split("SELECT ';'; SELECT 2;"))
    2
    """
    statements: list[list[Token]] = [[]]
    for token in tokens(sql):
        if token.text == ";":
            statements.append([])
        else:
            statements[-1].append(token)
    return [statement for statement in statements if statement]


def words(statement: Sequence[Token]) -> str:
    """The words and marks of a statement in one line, strings and quoted names left out.

    >>> words(tokens("SELECT count(*) FROM t WHERE a = 'lock table'"))
    "select count ( * ) from t where a = '' "
    """
    shown = {"string": "''", "quoted": '""', "body": "$$"}
    return " ".join(shown.get(token.kind, token.text) for token in statement) + " "


@dataclass(slots=True)
class Source:
    """Something that rows come from, or go to."""

    name: str
    """As written, schema and all; empty for a subquery."""
    alias: str
    kind: str
    """`table`, `function`, `subquery`, or `target` for a table that rows are inserted into."""


@dataclass(slots=True)
class Scope:
    """A query without its subqueries, which are scopes within it."""

    own: list[Token] = field(default_factory=list)
    """Its tokens; a subquery is left as an empty pair of parentheses."""
    inner: list["Scope"] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    """Names that its WITH gives to queries, and those of the scopes around it."""

    def all(self) -> Iterator["Scope"]:
        """This scope and those within it."""
        yield self
        for scope in self.inner:
            yield from scope.all()


def scopes(statement: Sequence[Token]) -> Scope:
    """The outermost scope of a statement.

    >>> [len(scope.own) for scope in scopes(tokens("SELECT (SELECT 1) FROM t")).all()]
    [5, 2]
    """
    named = set(_named(statement))
    root = Scope(named=named)
    stack = [(root, 0)]
    depth = 0
    for at, token in enumerate(statement):
        following = statement[at + 1] if at + 1 < len(statement) else _END
        if token.text == ")":
            if len(stack) > 1 and stack[-1][1] == depth:
                stack.pop()
            depth -= 1
        stack[-1][0].own.append(token)
        if token.text == "(":
            depth += 1
            if following.kind == "word" and following.text in _STARTS:
                scope = Scope(named=named)
                stack[-1][0].inner.append(scope)
                stack.append((scope, depth))
    return root


def _named(statement: Sequence[Token]) -> Iterator[str]:
    """Names before `AS (SELECT …`, with or without a list of columns."""
    texts = [token.text for token in statement]
    for at, text in enumerate(texts):
        if text != "as":
            continue
        after = at + 1
        while texts[after : after + 1] in (["not"], ["materialized"]):
            after += 1
        begins = texts[after : after + 1] == ["("] and texts[after + 1 : after + 2] != []
        if not begins or texts[after + 1] not in _STARTS:
            continue
        before = at - 1
        if texts[before] == ")":
            while texts[before] != "(":
                before -= 1
            before -= 1
        yield texts[before]


def sources(scope: Scope) -> Iterator[Source]:
    """Where the rows of a scope come from, and where they go.

    >>> [s.name for s in sources(scopes(tokens("DELETE FROM a.b USING c, d.e x WHERE 1 = 1")))]
    ['a.b', 'c', 'd.e']
    """
    own = scope.own
    openers: list[str] = []
    # How deep in parentheses the list is whose commas part sources from each other.
    listing: int | None = None
    for at, token in enumerate(own):
        if token.text == "(":
            openers.append(own[at - 1].text if at else "")
        elif token.text == ")" and openers:
            openers.pop()
        elif token.text == "," and listing == len(openers):
            yield _source(own, at + 1, may_call=True)
        elif token.kind != "word":
            continue
        elif _introduces(own, at, openers[-1] if openers else ""):
            if token.text in ("from", "using"):
                listing = len(openers)
            source = _source(own, at + 1, may_call=token.text in ("from", "join", "using"))
            yield replace(source, kind="target") if token.text == "into" else source
        elif token.text in _ENDS_A_LIST and listing == len(openers):
            listing = None


def _introduces(own: Sequence[Token], at: int, opener: str) -> bool:
    """Whether a table stands behind this word."""
    text = own[at].text
    before = own[at - 1].text if at else ""
    following = own[at + 1].text if at + 1 < len(own) else ""
    first = own[0].text
    match text:
        case "from":
            return before != "distinct" and opener not in _FROM_INSIDE
        case "join":
            return True
        case "into":
            return before in ("insert", "merge")
        case "update":
            # Not FOR UPDATE, DO UPDATE, FOR NO KEY UPDATE, ON UPDATE.
            return before not in ("for", "do", "key", "on")
        case "using":
            return first != "create" and following != "("
        case "on":
            return first == "create" and "index" in (token.text for token in own[:at])
        case "table" | "view" | "sequence":
            return first in ("create", "alter", "drop", "lock", "truncate", "comment")
        case "references":
            return first in ("create", "alter")
    return False


def _source(own: Sequence[Token], at: int, *, may_call: bool) -> Source:
    """The source that begins here."""

    def text(offset: int = 0) -> str:
        return own[at + offset].text if at + offset < len(own) else ""

    while text() in ("lateral", "only", "if", "not", "exists"):
        at += 1
    kind, name = "table", ""
    if text() == "(":
        kind = "subquery"
    else:
        name = text()
        at += 1
        while text() == ".":
            name += "." + text(1)
            at += 2
        if may_call and text() == "(":
            kind = "function"
    if kind != "table":
        at = _closing(own, at) + 1
        while text() == "with" and text(1) == "ordinality":
            at += 2
    if text() == "as":
        at += 1
    alias = ""
    if at < len(own) and own[at].kind in ("word", "quoted") and text() not in _AFTER_NAME:
        alias = text()
    return Source(name, alias or name.rpartition(".")[2], kind)


def _closing(own: Sequence[Token], at: int) -> int:
    """The parenthesis that closes the one here."""
    depth = 0
    for place in range(at, len(own)):
        depth += {"(": 1, ")": -1}.get(own[place].text, 0)
        if depth == 0:
            return place
    return len(own) - 1
