"""The two builders a flow lends out: branches that all run, and branches of which one runs.

A builder is open from `Flow.fork` to `join`, or from `Flow.route` to `done`. While it is open the
flow itself refuses other calls, so a forgotten `join` is noticed; once closed, the builder does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._assembly import Assembly, Branch, Step
from ._draw import Block
from ._policy import check_name
from ._workflow import Workflow

if TYPE_CHECKING:
    from ._flow import Flow

__all__ = ["BranchBuilder", "ForkBuilder", "RouteBuilder"]

In = TypeVar("In")
Out_co = TypeVar("Out_co", covariant=True)
B = TypeVar("B")


def _missing(assembly: Assembly, name: str, what: str, end: str) -> AttributeError:
    """The error for a method that a builder does not have, maybe because it is a flow's."""
    if name.startswith("_"):
        return AttributeError(name)
    return AttributeError(
        f"{assembly.where}: there is no .{name} on an open builder; end {what} with {end} first, "
        "which gives the flow back"
    )


class ForkBuilder(Generic[In, Out_co]):
    """Branches that run at the same time. Begun by `Flow.fork`, ended by `join`.

    >>> from sayiir import Flow
    >>> builder = Flow("both").fork().branch(abs, name="size").branch(str, name="text")
    >>> builder.join(lambda results: results["text"] * results["size"]).build().workflow_id
    'both'
    """

    __slots__ = ("_assembly", "_branches", "_flow", "_name")

    def __init__(self, flow: Flow[In, Out_co], assembly: Assembly, name: str) -> None:
        self._name = check_name(f"{assembly.where}: fork name", name)
        assembly.begin("fork()", f"finish fork {self._name!r} with .join(…)")
        self._assembly = assembly
        self._flow: Flow[In, Out_co] | None = flow
        self._branches: list[Branch] = []

    @overload
    def branch(
        self, step: Workflow[Out_co, Any], /, *more: Step, name: str | None = None
    ) -> ForkBuilder[In, Out_co]: ...
    @overload
    def branch(
        self,
        step: Callable[[Out_co], object] | Callable[[], object],
        /,
        *more: Step,
        name: str | None = None,
    ) -> ForkBuilder[In, Out_co]: ...
    def branch(self, *steps: Step, name: str | None = None) -> ForkBuilder[In, Out_co]:
        """Add a branch: steps in a row, the first of which receives the fork's input.

        Args:
            steps: Callables or built workflows, at least one.
            name: The key of the branch's output in what `join` receives; otherwise the name of
                the first step.

        Raises:
            TypeError: A step is neither callable nor a built workflow.
            ValueError: There are no steps, another branch has this name, or the fork is finished.
        """
        self._open()
        assembly = self._assembly
        if name is not None:
            name = check_name(f"{assembly.where}, fork {self._name!r}: branch name", name)
        taken = [branch for branch, _ in self._branches]
        what = f"a branch of fork {self._name!r}"
        key, block = assembly.chain(steps, what, name=name, taken=taken)
        self._branches.append((key, block))
        return self

    @overload
    def join(
        self, fn: Callable[[dict[str, Any]], Awaitable[B]], *, name: str | None = None
    ) -> Flow[In, B]: ...
    @overload
    def join(
        self, fn: Callable[[dict[str, Any]], B], *, name: str | None = None
    ) -> Flow[In, B]: ...
    def join(self, fn: Callable[[dict[str, Any]], Any], *, name: str | None = None) -> Any:
        """End the fork: `fn` receives `{branch name: output}` once all branches are done.

        Args:
            fn: A task; it passes on what it returns.
            name: The task's name; otherwise the function's own.

        Raises:
            TypeError: `fn` cannot be called with one argument.
            ValueError: There are no branches, or the fork is finished.
        """
        flow = self._open()
        self._assembly.add_fork(self._name, self._branches, fn, name)
        self._flow = None
        return flow

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _missing(self._assembly, name, f"fork {self._name!r}", ".join(…)")

    def _open(self) -> Flow[In, Out_co]:
        if self._flow is None:
            raise ValueError(
                f"{self._assembly.where}: fork {self._name!r} is finished; "
                "begin another with .fork()"
            )
        return self._flow


class RouteBuilder(Generic[In, Out_co]):
    """Branches of which a key chooses one. Begun by `Flow.route`, ended by `done`.

    >>> from sayiir import Flow
    >>> flow = Flow("support").route(str.lower, keys=["bill", "tech"])
    >>> flow = flow.branch("bill", str.upper).branch("tech", str.title).default_branch(len).done()
    >>> [node.id for node in flow.build().iter_nodes()]
    ['route', 'route/bill/upper', 'route/tech/title', 'route/~default/len']
    """

    __slots__ = ("_arms", "_assembly", "_default", "_flow", "_key", "_keys", "_name")

    def __init__(
        self,
        flow: Flow[In, Out_co],
        assembly: Assembly,
        key_fn: Callable[[Any], Any],
        keys: Iterable[str],
        name: str,
    ) -> None:
        self._name = check_name(f"{assembly.where}: route name", name)
        place = f"{assembly.where}, route {self._name!r}"
        if isinstance(keys, str) or not isinstance(keys, Iterable):
            raise TypeError(f"{place}: keys must be a list of str, got {type(keys).__name__}")
        if isinstance(key_fn, Workflow):
            raise TypeError(f"{place}: the key is chosen by a function, got a workflow")
        declared: list[str] = []
        for key in keys:
            text = check_name(f"{place}: key", key)
            if text in declared:
                raise ValueError(f"{place}: the key {text!r} is declared twice")
            declared.append(text)
        assembly.ready("route()")
        self._key = assembly.define(key_fn)
        assembly.begin("route()", f"finish route {self._name!r} with .done()")
        self._assembly = assembly
        self._flow: Flow[In, Out_co] | None = flow
        self._keys = declared
        self._arms: list[Branch] = []
        self._default: Block | None = None

    @overload
    def branch(
        self, key: str, step: Workflow[Out_co, Any], /, *more: Step, name: str | None = None
    ) -> RouteBuilder[In, Out_co]: ...
    @overload
    def branch(
        self,
        key: str,
        step: Callable[[Out_co], object] | Callable[[], object],
        /,
        *more: Step,
        name: str | None = None,
    ) -> RouteBuilder[In, Out_co]: ...
    def branch(self, key: str, *steps: Step, name: str | None = None) -> RouteBuilder[In, Out_co]:
        """Say what runs for a key: steps in a row; the first receives what `key_fn` received.

        Args:
            key: One of the declared keys.
            steps: Callables or built workflows, at least one.
            name: The first step's name; otherwise its own.

        Raises:
            TypeError: The key is no text, or a step is neither callable nor a built workflow.
            ValueError: The key is not declared or has a branch already, there are no steps, or
                the route is finished.
        """
        self._open()
        place = f"{self._assembly.where}, route {self._name!r}"
        key = check_name(f"{place}: key", key)
        if key not in self._keys:
            known = ", ".join(map(repr, self._keys)) or "none"
            raise ValueError(f"{place}: the key {key!r} is not declared; keys= has {known}")
        if any(key == taken for taken, _ in self._arms):
            raise ValueError(f"{place}: the key {key!r} has a branch already")
        self._arms.append((key, self._chain(steps, f"branch {key!r}", name)))
        return self

    @overload
    def default_branch(
        self, step: Workflow[Out_co, Any], /, *more: Step, name: str | None = None
    ) -> RouteBuilder[In, Out_co]: ...
    @overload
    def default_branch(
        self,
        step: Callable[[Out_co], object] | Callable[[], object],
        /,
        *more: Step,
        name: str | None = None,
    ) -> RouteBuilder[In, Out_co]: ...
    def default_branch(self, *steps: Step, name: str | None = None) -> RouteBuilder[In, Out_co]:
        """Say what runs for every key that has no branch of its own.

        Args:
            steps: Callables or built workflows, at least one.
            name: The first step's name; otherwise its own.

        Raises:
            TypeError: A step is neither callable nor a built workflow.
            ValueError: There is a default branch already, there are no steps, or the route is
                finished.
        """
        self._open()
        if self._default is not None:
            raise ValueError(
                f"{self._assembly.where}, route {self._name!r}: there is a default branch already"
            )
        self._default = self._chain(steps, "default branch", name)
        return self

    def done(self) -> Flow[In, dict[str, Any]]:
        """End the route, which passes on `{"branch": key, "result": output}`.

        Raises:
            ValueError: A declared key has no branch and there is no default one, there are no
                branches at all, or the route is finished.
        """
        flow = self._open()
        place = f"{self._assembly.where}, route {self._name!r}"
        covered = {key for key, _ in self._arms}
        missing = [key for key in self._keys if key not in covered]
        if missing and self._default is None:
            raise ValueError(
                f"{place}: no branch for {', '.join(map(repr, missing))}; "
                "add .branch(key, …) for each, or a .default_branch(…)"
            )
        if not self._arms and self._default is None:
            raise ValueError(f"{place}: there are no branches")
        self._assembly.add_route(self._name, self._key, self._arms, self._default)
        self._flow = None
        return cast("Flow[In, dict[str, Any]]", flow)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _missing(self._assembly, name, f"route {self._name!r}", ".done()")

    def _chain(self, steps: tuple[Step, ...], what: str, name: str | None) -> Block:
        place = f"{what} of route {self._name!r}"
        return self._assembly.chain(steps, place, first_name=name)[1]

    def _open(self) -> Flow[In, Out_co]:
        if self._flow is None:
            raise ValueError(
                f"{self._assembly.where}: route {self._name!r} is finished; "
                "begin another with .route(…)"
            )
        return self._flow


BranchBuilder = RouteBuilder
"""The older name of `RouteBuilder`."""
