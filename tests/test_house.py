"""The rules of the house, as a test: who may know whom, and what may stand where.

Each rule is a function from text to a list of offences, so that it can be tried on a bad example
before it is trusted on the tree; its message gives the reason. The tree judged is the sources,
not the installed wheel. The rules read syntax alone and refuse to know what the code does.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import sayiir

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "sayiir"

LAYERS = (
    {"_core", "_duration", "_errors"},
    {
        *("_clock", "_codec", "_context", "_plain", "_policy", "_status", "_values"),
        *("_logging", "_metrics", "_tracing", "codecs"),
        *("_inspect", "_notebook", "_snapshot", "codec"),
    },
    {
        *("_annotation", "_fields", "_form", "_models", "_output", "_signature", "_union"),
        *("_assembly", "_branches", "_draw", "_flow", "_fresh", "_picture", "_task", "_workflow"),
    },
    {"backends"},
    {
        *("_argument", "_conflict", "_ending", "_handle", "_listing", "_outcome", "_submission"),
        *("_client", "_loop_thread", "_sync_client", "_url", "_watching"),
        *("_invoke", "_leases", "_observation", "_process", "_runner", "_watchdog", "_worker"),
    },
    {"_run", "asgi", "cli", "testing"},
)
FOLDERS = {"backends", "cli", "testing"}
EXECUTING = {
    *("_invoke", "_leases", "_observation", "_process", "_runner", "_watchdog", "_worker"),
}
SUBMITTING = LAYERS[4] - EXECUTING
# They stand above the package's face and may use it as a user would; below, it would be a cycle.
USERS = {"__main__", "cli", "testing"}
MAY_START_THREADS = EXECUTING | {"_ending", "backends", "_loop_thread", "_run", "cli", "testing"}
# Loading code or objects by a stored name is how data becomes a program. An exception needs its
# module, the name it uses, and a reason beside it.
DANGEROUS_ALLOWED = {
    ("cli", "import_module"),  # a fixed table of its own commands
    ("__init__", "import_module"),  # a fixed table of its own modules
}
DANGEROUS_MODULES = {"dill", "cloudpickle", "marshal", "pickle", "shelve"}
DANGEROUS_CALLS = {"__import__", "compile", "eval", "exec", "import_module"}

PURE_CRATE_REFUSES = {"pyo3", "tokio", "rand", "getrandom", "rusqlite", "tokio-postgres", "chrono"}
PURE_CRATE_MODULES = ("time", "thread", "fs", "net", "process", "env")
VAGUE = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
# Written in halves so that this file passes its own rule.
HOSTS = re.compile(
    "|".join((r"py" + r"pi\.", r"python" + r"hosted", r"crates" + r"\.io", r"index-" + "url"))
)
CARGO_SOURCE = '"registry+https://github.com/rust-lang/crates' + '.io-index"'
NOT_OURS = {
    ".git",
    ".hypothesis",
    ".venv",
    "__pycache__",
    "target",
    "dist",
    "build",
    "node_modules",
    "results",
}


def module_of(path: Path) -> str:
    """The first name below the package: `backends/memory.py` is `backends`."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.partition(".")[0]


def imported(source: str, package: str = "sayiir") -> Iterator[str]:
    """Every dotted name that is imported, `from a import b` as `a.b`, as seen from `package`.

    What stands under `if TYPE_CHECKING:` is left out: it names a shape and runs nothing, so the
    module can still be loaded, tested and replaced alone.
    """
    for node in running(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            # Ruff refuses relative imports that climb, so one dot is all there can be.
            prefix = f"{package}.{base}".rstrip(".") if node.level else base
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it that a running program can reach."""
    yield node
    below: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        below = node.orelse
    for child in below:
        yield from running(child)


def layer_of(module: str) -> int | None:
    return next((n for n, names in enumerate(LAYERS) if module in names), None)


def layer_offences(module: str, source: str) -> list[str]:
    """A module that knows what stands above it can be neither tested nor replaced alone."""
    if module in {"__init__", "__main__"}:
        return []
    own = layer_of(module)
    if own is None:
        return [f"{module} has no layer: add it to LAYERS in tests/test_house.py"]
    offences = []
    package = f"sayiir.{module}" if module in FOLDERS else "sayiir"
    for name in imported(source, package):
        top, _, rest = name.partition(".")
        if top != "sayiir":
            continue
        target = rest.partition(".")[0]
        layer = layer_of(target)
        if layer is None:
            if module not in USERS:
                offences.append(f"{module} imports {name} through the package's face: a cycle")
        elif layer > own:
            offences.append(f"{module} imports {target}, which stands above it")
        elif module in SUBMITTING and target in EXECUTING:
            offences.append(f"{module} imports {target}: submitting must not import executing")
        elif module in EXECUTING and target in SUBMITTING:
            offences.append(f"{module} imports {target}: it stands beside, not below")
    return offences


def clock_offences(module: str, source: str) -> list[str]:
    """Time is read in one place, so that a test can hold it still."""
    if module == "_clock":
        return []
    offences = [
        f"{module} imports {name}: ask _clock"
        for name in imported(source)
        if name.partition(".")[0] == "time"
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            owner = ast.unparse(node.value)
            if owner.split(".")[-1] in {"datetime", "date"}:
                offences.append(f"{module} reads {owner}.{node.attr}: ask _clock")
    return offences


def thread_offences(module: str, source: str) -> list[str]:
    """Threads and processes are started where work is run; elsewhere they are a surprise.

    Whoever needs a thread has one and is none: a class of ours that inherited from Thread would
    share private names with it, and each CPython adds to those (3.13 came with `_handle`).
    """
    inherited = [
        f"{module}: {node.name} inherits from {ast.unparse(base)}: give it a thread instead"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if ast.unparse(base).rpartition(".")[2] in {"Thread", "Timer", "Process"}
    ]
    if module in MAY_START_THREADS:
        return inherited
    return inherited + [
        f"{module} imports {name}: threads belong to {sorted(MAY_START_THREADS)}"
        for name in imported(source)
        if name.partition(".")[0] in {"threading", "_thread", "multiprocessing", "concurrent"}
    ]


def danger_offences(module: str, source: str) -> list[str]:
    """What is stored is data: it is never turned into code, objects or imports."""
    found = {name.partition(".")[0] for name in imported(source)} & DANGEROUS_MODULES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            # `re.compile` and its like are other functions of the same name.
            name = ast.unparse(node.func)
            last = name.split(".")[-1]
            if last in DANGEROUS_CALLS and (name == last or last == "import_module"):
                found.add(last)
    return [
        f"{module} uses {name}: data must not become code"
        for name in sorted(found)
        if (module, name) not in DANGEROUS_ALLOWED
    ]


def print_offences(module: str, source: str) -> list[str]:
    """A library's words go to logging, where its user decides."""
    if module in {"cli", "__main__"}:
        return []
    return [
        f"{module} prints on line {node.lineno}: use logging"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]


def opening_offences(module: str, source: str) -> list[str]:
    """A reader meets the theory of a file before its code."""
    return [] if ast.get_docstring(ast.parse(source)) else [f"{module} opens without a docstring"]


def face_offences(source: str) -> list[str]:
    """The package's face re-exports and loads nothing until asked, so that importing it is free."""
    offences = []
    exported: list[str] = []
    seen: dict[str, list[str]] = {}
    loaded: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                exported = ast.literal_eval(node.value)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                seen = {
                    one.module or "": [alias.name for alias in one.names]
                    for one in node.body
                    if isinstance(one, ast.ImportFrom) and one.level == 1
                }
                if len(seen) != len(node.body):
                    offences.append("__init__ shows checkers more than its own modules' names")
            case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id="TYPE_CHECKING"))):
                loaded = {
                    home: names.split()
                    for one in node.body
                    if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "_NAMES"
                    for home, names in ast.literal_eval(one.value).items()
                }
            case _ if not harmless(node):
                offences.append(f"__init__ does more than re-export: {ast.unparse(node)[:60]}")
    if not exported or exported != sorted(set(exported)):
        offences.append("__all__ of __init__ must be there, sorted and without repetition")
    if seen != loaded:
        wrong = [home for home in {**seen, **loaded} if seen.get(home) != loaded.get(home)]
        offences.append(f"__init__ shows checkers other names than it loads: those of {wrong}")
    return offences


def harmless(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id="__version__" | "TYPE_CHECKING")]):
            return isinstance(node.value, ast.Constant)
        case ast.Expr(value=ast.Constant()) | ast.Delete(targets=[ast.Name(id="TYPE_CHECKING")]):
            return True
        case _:
            return False


def name_offences(path: str) -> list[str]:
    """A file is a noun; a name that fits everything collects everything."""
    words = set(re.split(r"[^a-z]+", Path(path).stem.lower()))
    return [f"{path}: name it after what it holds, not {word}" for word in sorted(words & VAGUE)]


def text_offences(name: str, text: str) -> list[str]:
    """Unfinished work, and addresses that hold on one machine only, do not reach the tree."""
    offences = [f"{name}: unfinished: {mark}" for mark in UNFINISHED.findall(text)]
    # A folder right below the root, such as a container's, is too short to be anyone's own.
    offences.extend(
        f"{name}: names a folder of this machine: {place}"
        for place in (ROOT, Path.home())
        if len(place.parts) > 2 and re.search(re.escape(str(place)) + r"(?![\w-])", text)
    )
    if name == "Cargo.lock":
        sources = re.findall(r"^source = (.*)$", text, flags=re.MULTILINE)
        return offences + [f"{name}: foreign source {s}" for s in sources if s != CARGO_SOURCE]
    return offences + [f"{name}: names a registry host: {host}" for host in HOSTS.findall(text)]


def crate_offences(crate: str, manifest: str, sources: dict[str, str]) -> list[str]:
    """The core decides without touching the world, and neither it nor the store knows Python."""
    parsed = tomllib.loads(manifest)
    refused = {"core": PURE_CRATE_REFUSES, "store": {"pyo3"}}.get(crate, set())
    offences = [
        f"{crate} depends on {name}: see the crates in docs/design.md"
        for name in sorted(refused & set(parsed.get("dependencies", {})))
    ]
    if crate != "core":
        return offences
    if "#![forbid(unsafe_code)]" not in sources.get("lib.rs", ""):
        offences.append("core/src/lib.rs must say #![forbid(unsafe_code)]")
    one_of = "|".join(PURE_CRATE_MODULES)
    impure = re.compile(rf"\bstd::(?:(?:{one_of})\b|\{{[^}}]*\b(?:{one_of})\b)")
    for name, source in sources.items():
        code = re.sub(r"//[^\n]*", "", source)
        offences.extend(f"core/{name} uses {hit}: pass it in" for hit in impure.findall(code))
    return offences


def rust_opening_offences(name: str, source: str) -> list[str]:
    """A reader of Rust meets the theory first too."""
    return [] if source.startswith("//!") else [f"{name} opens without a //! comment"]


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tree_files(*suffixes: str) -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        ours = not any(part in NOT_OURS or part.endswith("_cache") for part in inside)
        if path.suffix == ".so":  # what `maturin develop` leaves behind; git ignores it
            continue
        if ours and path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


SOURCE_RULES = (
    layer_offences,
    clock_offences,
    thread_offences,
    danger_offences,
    print_offences,
    opening_offences,
)


@pytest.mark.parametrize("rule", SOURCE_RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[str, str], list[str]]) -> None:
    offences = []
    for path in python_files():
        offences += [
            f"{path.relative_to(ROOT)}: {offence}"
            for offence in rule(module_of(path), path.read_text(encoding="utf-8"))
        ]
    assert not offences, "\n".join([rule.__doc__ or "", *offences])


BAD_SOURCES = [
    (layer_offences, "_flow", "from sayiir._worker import Worker"),
    (layer_offences, "_status", "from . import _client"),
    (layer_offences, "_client", "from ._runner import Runner"),
    (layer_offences, "_worker", "import sayiir._client"),
    (layer_offences, "backends", "from sayiir import task"),
    (layer_offences, "_errors", "if not TYPE_CHECKING:\n    from ._flow import Flow"),
    (layer_offences, "_errors", "if TYPE_CHECKING:\n    pass\nelse:\n    import sayiir._flow"),
    (layer_offences, "_new", ""),
    (clock_offences, "_worker", "from time import monotonic"),
    (clock_offences, "_status", "import datetime\ndatetime.datetime.now()"),
    (thread_offences, "_flow", "from concurrent.futures import ThreadPoolExecutor"),
    (thread_offences, "_leases", "import threading\nclass Renewer(threading.Thread): ..."),
    (danger_offences, "_codec", "import pickle"),
    (danger_offences, "_task", "eval('1')"),
    (danger_offences, "_invoke", "import importlib\nimportlib.import_module(name)"),
    (print_offences, "_worker", "print('here')"),
    (opening_offences, "_task", "import re"),
]


@pytest.mark.parametrize(("rule", "module", "source"), BAD_SOURCES)
def test_a_bad_module_breaks_its_rule(
    rule: Callable[[str, str], list[str]], module: str, source: str
) -> None:
    assert len(rule(module, source)) == 1


def test_a_good_module_breaks_none() -> None:
    source = (
        '"""A client."""\nimport re\nfrom ._status import Status\nre.compile("a")\n'
        "if TYPE_CHECKING:\n    from ._worker import Worker\n"
    )
    assert [rule("_client", source) for rule in SOURCE_RULES] == [[]] * len(SOURCE_RULES)


def test_the_face_only_re_exports() -> None:
    assert face_offences((PACKAGE / "__init__.py").read_text(encoding="utf-8")) == []
    assert [name for name in sayiir.__all__ if not hasattr(sayiir, name)] == []
    assert {*sayiir.__all__} <= {*dir(sayiir)}


@pytest.mark.parametrize(
    "source",
    [
        "__all__ = ['b', 'a']",
        "__all__ = ['a', 'a']",
        "from ._task import task\n__all__ = ['task']",
        "if TYPE_CHECKING:\n    from ._task import task\n__all__ = ['task']",
        "if TYPE_CHECKING:\n    import click\n__all__ = ['click']",
        "import click\n__all__ = ['click']",
        "def f() -> None: ...\n__all__ = ['f']",
    ],
)
def test_a_face_that_does_more_is_seen(source: str) -> None:
    assert len(face_offences(source)) == 1


def test_files_are_named_after_what_they_hold() -> None:
    offences = []
    for path in tree_files(".py", ".rs", ".sql"):
        offences += name_offences(str(path.relative_to(ROOT)))
    assert not offences, "\n".join(offences)
    assert name_offences("python/sayiir/_task_utils.py")
    assert not name_offences("python/sayiir/_task.py")


def test_nothing_is_left_unfinished_or_bound_to_a_machine() -> None:
    offences = []
    for path in tree_files():
        # What is not text (golden bytes) has no words to judge.
        text = path.read_bytes().decode("utf-8", errors="replace")
        offences += text_offences(str(path.relative_to(ROOT)), text)
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "# TO" + "DO: later"),
        ("a.md", f"run it in {ROOT}"),
        ("a.toml", "see https://py" + "pi.org/simple"),
        ("Cargo.lock", 'source = "registry+https://mirror.example/index"'),
    ],
)
def test_a_bad_text_is_seen(name: str, text: str) -> None:
    assert len(text_offences(name, text)) == 1


def rust_sources(crate: str) -> dict[str, str]:
    base = ROOT / "rust" / crate / "src"
    return {
        str(path.relative_to(base)): path.read_text(encoding="utf-8")
        for path in sorted(base.rglob("*.rs"))
    }


@pytest.mark.parametrize("crate", ["core", "store", "py"])
def test_the_crates_keep_apart(crate: str) -> None:
    manifest = (ROOT / "rust" / crate / "Cargo.toml").read_text(encoding="utf-8")
    offences = crate_offences(crate, manifest, rust_sources(crate))
    for name, source in rust_sources(crate).items():
        offences += rust_opening_offences(f"{crate}/src/{name}", source)
    assert not offences, "\n".join(offences)


SAFE = {"lib.rs": "//! Pure.\n#![forbid(unsafe_code)]\n"}


@pytest.mark.parametrize(
    ("crate", "manifest", "sources"),
    [
        ("core", "[dependencies]\npyo3 = '1'", SAFE),
        ("core", "[dependencies.tokio]\nversion = '1'", SAFE),
        ("core", "", {"lib.rs": "//! Unsafe."}),
        ("core", "", SAFE | {"id.rs": "use std::time::Instant;"}),
        ("core", "", SAFE | {"id.rs": "use std::{fmt, thread};"}),
        ("store", "[dependencies]\npyo3 = '1'", {}),
    ],
)
def test_a_bad_crate_is_seen(crate: str, manifest: str, sources: dict[str, str]) -> None:
    assert len(crate_offences(crate, manifest, sources)) == 1
    assert rust_opening_offences("id.rs", "use std::fmt;")


def test_what_is_tested_is_the_installed_wheel() -> None:
    """The source tree lacks what the wheel's packing may lose; only the wheel reaches a user."""
    assert PACKAGE not in Path(sayiir.__file__).resolve().parents
