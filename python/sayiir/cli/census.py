"""What the demo counts: a workflow that finds Python files, measures each, and joins the figures.

Promises that a file which cannot be read or parsed becomes a row that says why, never a failure,
and that the same tree gives the same report. Refuses to know who runs the workflow, where its
results are kept and how they are shown.
"""

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TypedDict

from sayiir import Flow, Workflow, task

__all__ = [
    "FileFacts",
    "Progress",
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


class Progress:
    """How far a run has come, for someone who watches from another thread.

    >>> progress = Progress()
    >>> progress.found = 2
    >>> progress.advance()
    >>> progress.analysed, progress.found
    (1, 2)
    """

    def __init__(self) -> None:
        self.found: int | None = None
        self.analysed = 0
        self._lock = Lock()

    def advance(self) -> None:
        """Count one more file; safe from any thread."""
        with self._lock:
            self.analysed += 1


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


def census(concurrency: int, progress: Progress) -> Workflow[Scan, Report]:
    """The workflow: find the files, analyse up to `concurrency` of them at once, report.

    `progress` is told of every file while the workflow runs; nothing in it is durable.

    >>> [node.kind for node in census(4, Progress()).iter_nodes()][0]
    'task'
    """

    @task("find_files")
    def find_and_tell(scan: Scan) -> list[str]:
        paths = find_files(scan)
        progress.found = len(paths)
        return paths

    @task("analyse")
    def analyse_and_tell(path: str) -> FileFacts:
        facts = analyse(path)
        progress.advance()
        return facts

    return (
        Flow("stdlib-report")
        .then(find_and_tell)
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
