"""How the papers become a site: `make docs`.

The source folder is the repository itself, so the pages here, the README, the changelog and the
page of the examples are one site, and a link that works in the repository works there too. What a
reader of the repository has no use for (the navigation) is not written into the pages but added
here. Nothing is fetched from a network, and every warning is an error.
"""

import tomllib
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring

import sayiir
import sayiir.asgi
import sayiir.backends
import sayiir.codec
import sayiir.codecs
import sayiir.testing

HERE = Path(__file__).resolve().parent
CHAPTERS = {
    "Begin": ["README", "docs/tutorial", "examples/README"],
    "Write": [
        "docs/tasks",
        "docs/flows",
        "docs/events",
        "docs/values",
        "docs/codecs",
        "docs/testing",
        "docs/frameworks",
    ],
    "Run": [
        "docs/workers",
        "docs/sqlite",
        "docs/postgres",
        "docs/cli",
        "docs/observing",
        "docs/moving",
    ],
    "Decide": ["docs/reliability", "docs/performance", "docs/coming-from", "docs/questions"],
    "Look up": [
        "docs/reference",
        "docs/reference-storage",
        "docs/format",
        "docs/design",
        "CHANGELOG",
        "CONTRIBUTING",
    ],
}

project = "sayiir"
author = copyright = "sayiir contributors"  # noqa: A001 - Sphinx reads this name
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/*.md"]
# Folders that hold no pages and much else.
exclude_patterns = [".*", "benches", "build", "dist", "python", "rust", "target", "tests"]

html_theme = "furo"
html_title = f"sayiir {release}"
html_additional_pages = {"index": "index.html"}
html_copy_source = False
html_show_sourcelink = False
templates_path = ["_templates"]

# Links to a section are written as the repository's viewer makes them.
myst_heading_anchors = 4

# A word in single backticks is a name of ours, and becomes a link where the reference has it.
default_role = "py:obj"
# A name that begins with a dot may be meant in several places.
suppress_warnings = ["ref.python"]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False

nitpicky = True

PUBLIC = (
    sayiir,
    sayiir.asgi,
    sayiir.backends,
    sayiir.codec,
    sayiir.codecs,
    sayiir.testing,
)
# Made for the user by something else, so how it is made is nobody's business.
GIVEN = {
    "BranchBuilder",
    "ForkBuilder",
    "InstanceInfo",
    "InstancePage",
    "RouteBuilder",
    "StepInfo",
    "SyncWorkflowHandle",
    "TaskContext",
    "Workflow",
    "WorkflowHandle",
    "WorkflowStatus",
}


def chapter_of(name: str) -> str | None:
    """The chapter that a page is put into, if one names it."""
    return next((chapter for chapter, pages in CHAPTERS.items() if name in pages), None)


def add_navigation(app: Sphinx, name: str, content: list[str]) -> None:
    """Give the first page the tables of contents, of the pages that exist."""
    if name != root_doc:
        return
    found = app.project.docnames
    unnamed = sorted(page for page in found - {root_doc} if chapter_of(page) is None)
    for chapter, pages in CHAPTERS.items():
        listed = [page for page in pages if page in found]
        if chapter == "Look up":
            listed += unnamed
        lines = "\n".join(f"/{page}" for page in listed)
        content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {chapter}\n\n{lines}\n```\n"


def find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Lead a type in a signature, named by its private module, to its public name."""
    last = str(node["reftarget"]).rpartition(".")[2]
    for module in PUBLIC:
        target = f"{module.__name__}.{last}"
        if last in module.__all__ and target != node["reftarget"]:
            domain = env.domains.python_domain
            found: nodes.reference | None = domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", target, node, content
            )
            if found is not None:
                return found
    return None


def has_no_page(_: Sphinx, __: object, node: pending_xref) -> bool | None:
    """Whether a word or a type is none of our public names, so that no page explains it.

    It may be Python's, a type variable, or what only an author of backends ever holds.
    """
    last = str(node["reftarget"]).rpartition(".")[2]
    ours = any(last in module.__all__ for module in PUBLIC)
    return True if node.get("refdomain") == "py" and not ours else None


class Docstring(GoogleDocstring):
    """Our docstrings: types stand in signatures, so a colon in a sentence is only a colon."""

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        return [("", "", self._dedent(self._consume_to_next_section()))]


def read_docstring(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Make the sections of a docstring what Sphinx reads."""
    # An attribute's would be searched for a type before its first colon.
    kind = "method" if what in ("attribute", "data", "property") else what
    lines[:] = Docstring(list(lines), Config(), app, kind, name, found, options).lines()


def hide_making(_: Sphinx, what: str, name: str, *__: object) -> tuple[str, None] | None:
    """Leave out the arguments of what nobody makes by hand."""
    return ("", None) if what == "class" and name.rpartition(".")[2] in GIVEN else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this once."""
    # Dumps of bytes, encodings, drawings as text: they are shown as they are.
    for language in ("hash", "hex", "mermaid"):
        app.add_lexer(language, TextLexer)
    app.connect("source-read", add_navigation)
    app.connect("warn-missing-reference", has_no_page)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", hide_making)
    app.connect("missing-reference", find_public_name)
    return {"parallel_read_safe": True}
