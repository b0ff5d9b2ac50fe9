"""The builder: how an author says which step follows which.

Each call adds a node and returns the same flow under a new type: `Flow[In, Out]` takes `In` and,
so far, gives `Out`. A step that cannot take what the one before it gives is an error in a type
checker; what a checker cannot see is refused when the call is made, with the names of the flow and
the node. Nothing is executed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Required,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from ._assembly import Assembly, Step
from ._branches import BranchBuilder, ForkBuilder, RouteBuilder
from ._duration import Duration
from ._values import LoopResult, MapError, OnError, OnMax, OnTimeout
from ._workflow import NodeInfo, Workflow

if TYPE_CHECKING:
    from ._fresh import FreshFlow

__all__ = ["BranchBuilder", "Flow", "ForkBuilder", "NodeInfo", "RouteBuilder", "Workflow"]

In = TypeVar("In")
Out_co = TypeVar("Out_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

OnMaxLike: TypeAlias = OnMax | Literal["fail", "exit_with_last"]
OnErrorLike: TypeAlias = OnError | Literal["fail", "collect"]
OnTimeoutLike: TypeAlias = OnTimeout | Literal["fail", "continue"]


class MapOptions(TypedDict, total=False):
    """The keywords of `Flow.map`."""

    concurrency: int | None
    on_error: Literal["fail", OnError.FAIL]
    name: str | None
    spread: bool


class CollectOptions(TypedDict, total=False):
    """The keywords of `Flow.map` when failures are collected."""

    concurrency: int | None
    on_error: Required[Literal["collect", OnError.COLLECT]]
    name: str | None
    spread: bool


class LoopOptions(TypedDict, total=False):
    """The keywords of `Flow.loop`."""

    max_iterations: int
    on_max: OnMaxLike
    name: str | None


class Flow(Generic[In, Out_co]):
    """A workflow in the making: add steps, then `build`.

    Args:
        name: The workflow's name: 1 to 256 bytes of UTF-8, without control characters.
        metadata: Anything to be seen by the tasks as `get_task_context().workflow_metadata`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The name is unacceptable.

    A *step* is any callable that takes one argument (the output of the step before) or none, or
    a whole built workflow. A flow may be built again and again; what was built never changes.

    >>> from sayiir import Flow
    >>> flow = Flow("order").then(str.strip, name="trim").delay("cool-off", "30s")
    >>> [node.kind for node in flow.build().iter_nodes()]
    ['task', 'delay']
    """

    __slots__ = ("_assembly",)

    _assembly: Assembly

    def __new__(
        cls, name: str = "workflow", metadata: Mapping[str, Any] | None = None
    ) -> FreshFlow:
        """Begin a flow. A type checker takes it for one whose first step is still open."""
        flow = super().__new__(cls)
        flow._assembly = Assembly(name, metadata)
        return cast("FreshFlow", flow)

    @overload
    def then(self, step: Workflow[Out_co, B], *, name: str | None = None) -> Flow[In, B]: ...
    @overload
    def then(
        self, step: Callable[[Out_co], Awaitable[B]], *, name: str | None = None
    ) -> Flow[In, B]: ...
    @overload
    def then(self, step: Callable[[Out_co], B], *, name: str | None = None) -> Flow[In, B]: ...
    @overload
    def then(self, step: Callable[[], Awaitable[B]], *, name: str | None = None) -> Flow[In, B]: ...
    @overload
    def then(self, step: Callable[[], B], *, name: str | None = None) -> Flow[In, B]: ...
    def then(self, step: Step, *, name: str | None = None) -> Flow[Any, Any]:
        """Add a task; it receives the output of the step before and passes on its own.

        Args:
            step: Any callable, decorated with `@task` or not, or a built workflow.
            name: Its name here; otherwise the decorated name or the function's own. Lambdas are
                called `lambda_0`, `lambda_1`, ….

        Raises:
            TypeError: It is not callable, or requires more than one argument.
            ValueError: The name is unacceptable, or a fork or route is unfinished.

        >>> Flow("math").then(lambda x: x + 1).build().iter_nodes()[0].id
        'lambda_0'
        """
        self._assembly.add_step(step, name)
        return self

    def then_flow(self, workflow: Workflow[Out_co, B], *, name: str | None = None) -> Flow[In, B]:
        """Add a whole built workflow as one step; it passes on that workflow's output.

        Args:
            workflow: What `build` returned. The same one may be added several times.
            name: Its name here; otherwise the workflow's.

        Raises:
            TypeError: It is not a built workflow.
            ValueError: The name is unacceptable, or a fork or route is unfinished.

        >>> child = Flow("child").then(abs).build()
        >>> [n.id for n in Flow("parent").then_flow(child).build().iter_nodes()]
        ['child', 'child/abs']
        """
        self._assembly.add_child(workflow, name)
        return cast("Flow[In, B]", self)

    def fork(self, *, name: str = "fork") -> ForkBuilder[In, Out_co]:
        """Begin branches that run at the same time on the same input; end them with `join`.

        >>> flow = Flow("both").fork().branch(abs).branch(str).join(dict)
        >>> [n.id for n in flow.build().iter_nodes()]
        ['fork', 'fork/abs/abs', 'fork/str/str', 'dict']
        """
        return ForkBuilder(self, self._assembly, name)

    @overload
    def map(
        self: Flow[In, Sequence[A]], step: Workflow[A, B], **options: Unpack[CollectOptions]
    ) -> Flow[In, list[B | MapError]]: ...
    @overload
    def map(
        self: Flow[In, Sequence[A]],
        step: Callable[[A], Awaitable[B]],
        **options: Unpack[CollectOptions],
    ) -> Flow[In, list[B | MapError]]: ...
    @overload
    def map(
        self: Flow[In, Sequence[A]], step: Callable[[A], B], **options: Unpack[CollectOptions]
    ) -> Flow[In, list[B | MapError]]: ...
    @overload
    def map(
        self: Flow[In, Sequence[A]], step: Workflow[A, B], **options: Unpack[MapOptions]
    ) -> Flow[In, list[B]]: ...
    @overload
    def map(
        self: Flow[In, Sequence[A]],
        step: Callable[[A], Awaitable[B]],
        **options: Unpack[MapOptions],
    ) -> Flow[In, list[B]]: ...
    @overload
    def map(
        self: Flow[In, Sequence[A]], step: Callable[[A], B], **options: Unpack[MapOptions]
    ) -> Flow[In, list[B]]: ...
    def map(
        self,
        step: Step,
        *,
        concurrency: int | None = None,
        on_error: OnErrorLike = "fail",
        name: str | None = None,
        spread: bool = False,
    ) -> Flow[Any, Any]:
        """Run a step for each item of the list the previous step returned.

        Passes on the list of outputs in the order of the items.

        Args:
            step: A callable or a built workflow; it receives one item.
            concurrency: The most items at work at once; `None` leaves it to the worker.
            on_error: `"fail"` fails the instance; `"collect"` puts a `MapError` in the place of
                the failed item's output.
            name: The node's name; otherwise the step's.
            spread: Make each item an instance of its own, which any worker that has this workflow
                may take, while this instance waits and costs nothing. For items that are heavy or
                many; see the notes below.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: `concurrency` is below 1, `on_error` is another word, or `concurrency` is
                given with `spread`.

        With `spread` the items are made in batches of up to 1,000, at most 100,000 of them. Their
        ids begin with this instance's id and `~`. They are cancelled when nobody awaits them any
        more (the map failed, the instance was cancelled, terminated or deleted), and removed with
        the instance. A pause of the instance does not reach items that exist already.

        >>> [n.id for n in Flow("sizes").map(len, concurrency=8).build().iter_nodes()]
        ['len', 'len[]']
        >>> Flow("sizes").map(len, spread=True).build().iter_nodes()[0].kind
        'spread'
        """
        self._assembly.add_map(step, concurrency, on_error, name, spread)
        return self

    def route(
        self,
        key_fn: Callable[[Out_co], Awaitable[str] | str],
        *,
        keys: Iterable[str] = (),
        name: str = "route",
    ) -> RouteBuilder[In, Out_co]:
        """Begin a choice: `key_fn` returns a key, and the branch of that key runs.

        Passes on `{"branch": key, "result": output}`. The branch receives what `key_fn` received.

        Args:
            key_fn: A task that returns one of the keys.
            keys: All the keys there are; each needs a branch, unless there is a default one.
            name: The node's name.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: A key is given twice or is unacceptable as a name.

        >>> flow = Flow("r").route(str.lower, keys=["a"]).branch("a", str.strip).done()
        >>> [n.id for n in flow.build().iter_nodes()]
        ['route', 'route/a/strip']
        """
        return RouteBuilder(self, self._assembly, key_fn, keys, name)

    @overload
    def loop(
        self, step: Callable[[Out_co], Awaitable[LoopResult[B]]], /, **options: Unpack[LoopOptions]
    ) -> Flow[In, B]: ...
    @overload
    def loop(
        self, step: Callable[[Out_co], LoopResult[B]], /, **options: Unpack[LoopOptions]
    ) -> Flow[In, B]: ...
    @overload
    def loop(
        self,
        step: Callable[[Out_co], Awaitable[dict[str, Any]] | dict[str, Any]],
        /,
        **options: Unpack[LoopOptions],
    ) -> Flow[In, Any]: ...
    @overload
    def loop(
        self, step: Workflow[Out_co, LoopResult[B]], /, **options: Unpack[LoopOptions]
    ) -> Flow[In, B]: ...
    @overload
    def loop(
        self,
        step: Callable[[Out_co], object] | Workflow[Out_co, Any],
        second: Step,
        /,
        *more: Step,
        **options: Unpack[LoopOptions],
    ) -> Flow[In, Any]: ...
    def loop(
        self,
        *steps: Step,
        max_iterations: int = 10,
        on_max: OnMaxLike = "fail",
        name: str | None = None,
    ) -> Flow[Any, Any]:
        """Repeat steps until the last of them returns `LoopResult.done(value)`.

        `LoopResult.again(value)` gives `value` to the first step for another turn. Passes on the
        value of the last result.

        Args:
            steps: The body, at least one step.
            max_iterations: The most turns, at least 1.
            on_max: When the turns are used up, `"fail"` fails the instance and
                `"exit_with_last"` passes on the last value.
            name: The node's name; otherwise the first step's.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: There is no body, `max_iterations` is below 1, or `on_max` another word.

        >>> def halve(x: int) -> LoopResult[int]:
        ...     return LoopResult.done(x) if x < 2 else LoopResult.again(x // 2)
        >>> [n.id for n in Flow("halves").loop(halve).build().iter_nodes()]
        ['halve', 'halve#']
        """
        self._assembly.add_loop(steps, max_iterations, on_max, name)
        return self

    def delay(self, name: str, duration: Duration) -> Self:
        """Wait; the delay is durable and holds no worker. Passes on its input.

        Args:
            name: The node's name.
            duration: How long, in any form a duration may have.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: The duration is negative, not finite, over 100 years, or malformed.

        >>> Flow("calm").delay("cool-off", "1h30m").build().iter_nodes()[0].timeout_secs
        5400.0
        """
        self._assembly.add_delay(name, duration)
        return self

    def delay_until(self, name: str, moment: datetime) -> Self:
        """Wait until a moment; one in the past is no wait. Passes on its input.

        Args:
            name: The node's name.
            moment: An aware datetime.

        Raises:
            TypeError: It is not a datetime.
            ValueError: It has no time zone.

        >>> from datetime import UTC, datetime
        >>> flow = Flow("party").delay_until("midnight", datetime(2030, 1, 1, tzinfo=UTC))
        >>> flow.build().iter_nodes()[0].kind
        'delay_until'
        """
        self._assembly.add_delay_until(name, moment)
        return self

    def wait_for_event(
        self,
        name: str,
        *,
        node: str | None = None,
        timeout: Duration | None = None,
        on_timeout: OnTimeoutLike = "fail",
    ) -> Flow[In, Any]:
        """Wait for a named event sent from outside. Passes on its payload.

        The payload takes the place of the value before the wait. To go on with both, fork: one
        branch keeps the value, one waits, and the join gets what each gave, by its name.

        Args:
            name: The event's name.
            node: The node's name; otherwise the event's.
            timeout: How long to wait at most; `None` is for ever.
            on_timeout: After that time, `"fail"` fails the instance and `"continue"` passes on
                an `EventTimeout`.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: A name is unacceptable, `timeout` is not positive, or `on_timeout` is
                another word.

        >>> Flow("review").wait_for_event("approved", timeout="2d").build().iter_nodes()[0].kind
        'wait'
        >>> def keep(order: dict) -> dict:
        ...     return order
        >>> def sign(both: dict) -> dict:
        ...     return {**both["order"], "by": both["answer"]}
        >>> wait = Flow("wait").wait_for_event("approved").build()
        >>> flow = Flow("signed").fork().branch(keep, name="order").branch(wait, name="answer")
        >>> flow.join(sign).build().iter_nodes()[0].kind
        'fork'
        """
        self._assembly.add_wait(name, node, timeout, on_timeout)
        return self

    def wait_for_signal(
        self,
        signal_name: str,
        *,
        name: str | None = None,
        node: str | None = None,
        timeout: Duration | None = None,
        on_timeout: OnTimeoutLike = "fail",
    ) -> Flow[In, Any]:
        """The older spelling of `wait_for_event`; `name` is its older spelling of `node`.

        >>> Flow("review").wait_for_signal("approved", name="gate").build().iter_nodes()[0].id
        'gate'
        """
        if name is not None and node is not None:
            raise ValueError(
                f"{self._assembly.where}: wait_for_signal() got both name and node; keep node"
            )
        self._assembly.add_wait(signal_name, name if node is None else node, timeout, on_timeout)
        return self

    def build(self) -> Workflow[In, Out_co]:
        """The workflow as it stands. It is immutable; the flow may go on and be built again.

        Raises:
            ValueError: There are no steps, a fork or route is unfinished, or nesting or size is
                over the engine's limits.

        >>> Flow("hello").then(str.upper).build().workflow_id
        'hello'
        """
        return self._assembly.build()

    def __repr__(self) -> str:
        return f"<Flow {self._assembly.name!r}: {len(self._assembly.nodes)} nodes>"
