"""The type of a flow that has no step yet.

The first step of a flow decides what the workflow takes; every later one has to fit the step
before it. A type checker sees that difference through `FreshFlow`: it is what `Flow(…)` is taken
to be until the first step is added. It exists for the checkers alone. At run time a flow is a
`Flow` from beginning to end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, Unpack, overload

from ._assembly import Step
from ._branches import RouteBuilder
from ._flow import CollectOptions, Flow, LoopOptions, MapOptions
from ._values import LoopResult, MapError
from ._workflow import Workflow

__all__ = ["FreshFlow"]

A = TypeVar("A")
B = TypeVar("B")


class FreshFlow(Flow[Any, Any]):
    """A flow without steps, whose first step may take anything.

    >>> type(Flow("x")).__name__
    'Flow'
    """

    __slots__ = ()

    @overload
    def then(self, step: Workflow[A, B], *, name: str | None = None) -> Flow[A, B]: ...
    @overload
    def then(self, step: Callable[[A], Awaitable[B]], *, name: str | None = None) -> Flow[A, B]: ...
    @overload
    def then(self, step: Callable[[A], B], *, name: str | None = None) -> Flow[A, B]: ...
    @overload
    def then(
        self, step: Callable[[], Awaitable[B]], *, name: str | None = None
    ) -> Flow[object, B]: ...
    @overload
    def then(self, step: Callable[[], B], *, name: str | None = None) -> Flow[object, B]: ...
    @overload
    def then(self, step: Callable[[Any], B], *, name: str | None = None) -> Flow[Any, B]: ...
    def then(self, step: Step, *, name: str | None = None) -> Flow[Any, Any]:
        """See `Flow.then`."""
        return super().then(step, name=name)

    def then_flow(self, workflow: Workflow[A, B], *, name: str | None = None) -> Flow[A, B]:
        """See `Flow.then_flow`."""
        return super().then_flow(workflow, name=name)

    @overload
    def map(
        self, step: Workflow[A, B], **options: Unpack[CollectOptions]
    ) -> Flow[Sequence[A], list[B | MapError]]: ...
    @overload
    def map(
        self, step: Callable[[A], Awaitable[B]], **options: Unpack[CollectOptions]
    ) -> Flow[Sequence[A], list[B | MapError]]: ...
    @overload
    def map(
        self, step: Callable[[A], B], **options: Unpack[CollectOptions]
    ) -> Flow[Sequence[A], list[B | MapError]]: ...
    @overload
    def map(
        self, step: Workflow[A, B], **options: Unpack[MapOptions]
    ) -> Flow[Sequence[A], list[B]]: ...
    @overload
    def map(
        self, step: Callable[[A], Awaitable[B]], **options: Unpack[MapOptions]
    ) -> Flow[Sequence[A], list[B]]: ...
    @overload
    def map(
        self, step: Callable[[A], B], **options: Unpack[MapOptions]
    ) -> Flow[Sequence[A], list[B]]: ...
    def map(self, step: Any, **options: Any) -> Flow[Any, Any]:
        """See `Flow.map`."""
        return super().map(step, **options)

    def route(
        self,
        key_fn: Callable[[A], Awaitable[str] | str],
        *,
        keys: Iterable[str] = (),
        name: str = "route",
    ) -> RouteBuilder[A, A]:
        """See `Flow.route`."""
        return super().route(key_fn, keys=keys, name=name)

    @overload
    def loop(
        self,
        step: Callable[[A], Awaitable[LoopResult[B]]],
        /,
        **options: Unpack[LoopOptions],
    ) -> Flow[A, B]: ...
    @overload
    def loop(
        self,
        step: Callable[[A], LoopResult[B]],
        /,
        **options: Unpack[LoopOptions],
    ) -> Flow[A, B]: ...
    @overload
    def loop(
        self,
        step: Callable[[A], Awaitable[dict[str, Any]] | dict[str, Any]],
        /,
        **options: Unpack[LoopOptions],
    ) -> Flow[A, Any]: ...
    @overload
    def loop(
        self,
        step: Workflow[A, LoopResult[B]],
        /,
        **options: Unpack[LoopOptions],
    ) -> Flow[A, B]: ...
    @overload
    def loop(
        self,
        step: Callable[[A], object] | Workflow[A, Any],
        second: Step,
        /,
        *more: Step,
        **options: Unpack[LoopOptions],
    ) -> Flow[A, Any]: ...
    def loop(self, *steps: Any, **options: Unpack[LoopOptions]) -> Flow[Any, Any]:
        """See `Flow.loop`."""
        return super().loop(*steps, **options)
