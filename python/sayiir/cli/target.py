"""`module:attribute`: what a user names on his own command line: workflows, and a codec.

Promises that a wrong name is answered with one sentence that says which part of it is wrong, and
exit code 2. The module is found as `python` would find it in the current directory. Nothing that
was stored is ever imported.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from inspect import iscoroutine
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sayiir import Flow, Workflow
from sayiir.cli.terminal import safe

if TYPE_CHECKING:
    from sayiir.codecs import Codec

__all__ = ["CODEC_VARIABLE", "named_codec", "named_workflow", "named_workflows"]

CODEC_VARIABLE = "SAYIIR_CODEC"
"""The environment variable that names the codec of the backends that commands open."""

_FLEET_FORM = "a workflow, a list of them, or a function without arguments that returns either"


def named_workflows(targets: Sequence[str]) -> list[Workflow[Any, Any]]:
    """All workflows that the targets name, each definition once.

    Raises:
        click.UsageError: A target cannot be had, or is something else.

    >>> named_workflows(["math:pi"])
    Traceback (most recent call last):
    ...
    click.exceptions.UsageError: 'math:pi' is a float; it must be …
    """
    known: dict[str, Workflow[Any, Any]] = {}
    for target in targets:
        for workflow in _workflows_of(target):
            known.setdefault(workflow.definition_hash, workflow)
    return list(known.values())


def named_workflow(target: str) -> Workflow[Any, Any]:
    """The one workflow that the target names.

    Raises:
        click.UsageError: It cannot be had, or is something else, or several.
    """
    workflows = named_workflows([target])
    if len(workflows) > 1:
        names = ", ".join(repr(workflow.workflow_id) for workflow in workflows)
        raise click.UsageError(
            safe(f"{target!r} names {len(workflows)} workflows ({names}); name one of them")
        )
    return workflows[0]


def named_codec() -> Codec | None:
    """The codec that the environment names; `None` when it names none.

    Raises:
        click.UsageError: It cannot be had, or is something else.
    """
    target = os.environ.get(CODEC_VARIABLE, "")
    if not target:
        return None
    from sayiir.codecs import checked_codec

    try:
        return checked_codec(_attribute(target, "a codec", "shop.settings:codec"))
    except TypeError as mistake:
        raise click.UsageError(safe(f"{target!r}, named in {CODEC_VARIABLE}: {mistake}")) from None


def _workflows_of(target: str) -> list[Workflow[Any, Any]]:
    named = _attribute(target, "a workflow", "shop.orders:workflow")
    made = named
    if callable(named) and not isinstance(named, Iterable):
        made = _called(target, named)
    several = isinstance(made, Iterable) and not isinstance(made, str | bytes | dict)
    listed = list(made) if several else [made]
    if not listed:
        raise click.UsageError(safe(f"{target!r} is empty; there must be a workflow in it"))
    for one in listed:
        if not isinstance(one, Workflow):
            verb = "has" if several else "is" if made is named else "returned"
            hint = f"it must be {_FLEET_FORM}"
            if isinstance(one, Flow):
                hint = "call .build() on it"
            raise click.UsageError(
                safe(f"{target!r} {verb} {_article(type(one).__name__)}; {hint}")
            )
    return listed


def _attribute(target: str, what: str, example: str) -> Any:
    module_name, colon, path = target.partition(":")
    names = path.split(".")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *names]):
        form = f"write module:attribute, such as {example}"
        raise click.UsageError(safe(f"{target!r} is no name of {what}; {form}"))
    if module_name.endswith(".py") and Path(module_name).is_file():
        # Not imported: as a module of that name it would run, and then be said not to be there.
        right = f"{module_name.removesuffix('.py')}:{path}"
        raise click.UsageError(
            safe(f"{module_name!r} is a file; name its module, without .py: {right}")
        )
    module = _module(module_name)
    found: Any = module
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            raise click.UsageError(
                safe(f"module {module_name!r} has no {path!r}{_there_is(module)}")
            ) from None
    return found


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{name}.".startswith(f"{missing.name}."):
            raise click.UsageError(
                safe(f"there is no module {missing.name!r} in {here} or on the Python path")
            ) from None
        raise _broken(name, missing) from missing
    except (Exception, SystemExit) as failure:
        raise _broken(name, failure) from failure


def _broken(module: str, failure: BaseException) -> click.UsageError:
    return click.UsageError(
        safe(f"module {module!r} cannot be imported: {_in_words(failure)}{_place(failure)}")
    )


def _called(target: str, function: Callable[[], Any]) -> Any:
    try:
        made = function()
        # A generator runs only now.
        made = list(made) if isinstance(made, Iterator) else made
    except (Exception, SystemExit) as failure:
        raise click.UsageError(
            safe(f"{target!r} failed when it was called: {_in_words(failure)}{_place(failure)}")
        ) from failure
    if iscoroutine(made):
        made.close()
        raise click.UsageError(
            safe(f"{target!r} is an async function; it must be a plain one that returns workflows")
        )
    return made


def _in_words(failure: BaseException) -> str:
    words = str(failure)
    return f"{type(failure).__name__}: {words}" if words else type(failure).__name__


def _place(failure: BaseException) -> str:
    """Where a user's code broke: its innermost line that is not of the import machinery."""
    frames = [
        frame
        for frame in traceback.extract_tb(failure.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    if not frames or f"{os.sep}importlib{os.sep}" in frames[-1].filename:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _there_is(module: ModuleType) -> str:
    """The workflows that a module does have, to choose from."""
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Workflow))
    return f"; its workflows are {', '.join(names[:10])}" if names else ""


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
