"""What the demo counts: a workflow that finds Python files, measures each, and joins the figures.

Promises that a file which cannot be read or parsed becomes a row that says why, never a failure,
and that the same tree gives the same report. Refuses to know who runs the workflow, where its
results are kept and how they are shown.
"""

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from sayiir import Flow, Workflow, get_task_context, task

__all__ = [
    "ANALYSE",
    "FIND",
    "FileFacts",
    "Report",
    "Scan",
    "analyse",
    "census",
    "find_files",
    "measure",
    "report",
]

# Installed packages live below the standard library on most machines and are none of its files.
_FOREIGN = {"site-packages", "dist-packages", "__pycache__"}

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCK = (
    *_FUNCTION,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
_TOP = 10

# Names of the workflow's steps, for whoever reads its history: `analyse[0]`, `analyse[1]`, …
FIND = "find_files"
ANALYSE = "analyse"


class Scan(TypedDict):
    """Where to look (`root`, a folder) and how many files to take (`limit`; None: all)."""

    root: str
    limit: int | None


class FileFacts(TypedDict):
    """One file's figures; `problem` says why there are none, and is None when there are."""

    path: str
    lines: int
    functions: int
    classes: int
    nesting: int
    problem: str | None


class Report(TypedDict):
    """The sums over all files, the files without figures, and the ten most deeply nested."""

    files: int
    lines: int
    functions: int
    classes: int
    unparsable: list[FileFacts]
    top: list[FileFacts]


def find_files(scan: Scan) -> list[str]:
    """Paths of the Python files below `scan["root"]`, sorted, without installed packages.

    >>> find_files({"root": str(Path(os.__file__).parent / "json"), "limit": 1})[0][-11:]
    '__init__.py'
    """
    paths: list[str] = []
    for folder, folders, files in os.walk(scan["root"]):
        folders[:] = [name for name in folders if name not in _FOREIGN]
        paths.extend(_text(Path(folder, name)) for name in files if name.endswith(".py"))
    paths.sort()
    return paths[: scan["limit"]]


def analyse(path: str) -> FileFacts:
    """Read and parse one file and count what is in it."""
    lines = 0
    try:
        source = Path(path).read_bytes()
        lines = len(source.splitlines())
        tree = ast.parse(source, filename=path)
    # The standard library's own tests hold files that are broken on purpose, and each of these is
    # how one kind of broken shows: syntax and encoding, NUL bytes, nesting beyond the parser.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _facts(path, lines, problem=f"{type(error).__name__}: {error}")
    return _facts(path, lines, *measure(tree))


def report(files: list[FileFacts]) -> Report:
    """Join the figures of all files; the deepest nesting first, then the most lines."""
    ranked = sorted(files, key=lambda facts: (-facts["nesting"], -facts["lines"], facts["path"]))
    return Report(
        files=len(files),
        lines=sum(facts["lines"] for facts in files),
        functions=sum(facts["functions"] for facts in files),
        classes=sum(facts["classes"] for facts in files),
        unparsable=[facts for facts in files if facts["problem"] is not None],
        top=[facts for facts in ranked if facts["problem"] is None][:_TOP],
    )


def census(concurrency: int, began: Callable[[str], None] | None = None) -> Workflow[Scan, Report]:
    """The workflow: find the files, analyse up to `concurrency` of them at once, report.

    `began` is told the path of every step that begins to analyse a file, on the step's thread and
    as often as it begins; it is no part of the definition, and nothing it does is durable.

    >>> [node.kind for node in census(4).iter_nodes()][0]
    'task'
    >>> census(4).definition_hash == census(8, print).definition_hash
    True
    """

    @task(ANALYSE)
    def analyse_and_tell(path: str) -> FileFacts:
        context = get_task_context()
        if began is not None and context is not None:
            began(context.path)
        return analyse(path)

    return (
        Flow("stdlib-report")
        .then(find_files, name=FIND)
        .map(analyse_and_tell, concurrency=concurrency)
        .then(report)
        .build()
    )


def measure(tree: ast.Module) -> tuple[int, int, int]:
    r"""How many functions and classes there are, and how deep blocks stand within one another.

    Definitions, conditions, loops, `with`, `try` and `match` are blocks; an `elif` stands beside
    its `if`, not within it. Lambdas are expressions and are not counted.

    >>> measure(ast.parse("def f():\n  if 1:\n    pass\n  elif 2:\n    pass"))
    (1, 0, 2)
    """
    functions = classes = deepest = 0
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        functions += isinstance(node, _FUNCTION)
        classes += isinstance(node, ast.ClassDef)
        for child in _statements(node):
            beside = isinstance(node, ast.If) and _is_elif(child, node)
            waiting.append((child, depth + (isinstance(child, _BLOCK) and not beside)))
    return functions, classes, deepest


def _text(path: Path) -> str:
    # A name that is not UTF-8 cannot be a value of a step. Its stand-in names no file, so it ends
    # as a row that says so.
    return str(path).encode("utf-8", "replace").decode("utf-8")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What a block holds directly: only statements open blocks, so expressions are passed over."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inside = getattr(node, field, None)
        # A lambda's and a conditional expression's `body` is no list of statements.
        if isinstance(inside, list):
            yield from inside


def _is_elif(child: ast.AST, parent: ast.If) -> bool:
    # The tree has no `elif`; it is an `if` alone in the `else`, written in its parent's column.
    return (
        isinstance(child, ast.If)
        and parent.orelse == [child]
        and child.col_offset == parent.col_offset
    )


def _facts(
    path: str,
    lines: int,
    functions: int = 0,
    classes: int = 0,
    nesting: int = 0,
    problem: str | None = None,
) -> FileFacts:
    return FileFacts(
        path=path,
        lines=lines,
        functions=functions,
        classes=classes,
        nesting=nesting,
        problem=problem,
    )
