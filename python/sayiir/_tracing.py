"""Traces of OpenTelemetry, from the caller's span to the steps that a worker runs.

`opentelemetry-api` is used when it is installed and the program has set a tracer provider; it is
never imported before somebody else did, unless `Worker(tracing=True)` asks for it. Promises that a
program without it pays one look into `sys.modules` per submit, event or lease, and nothing per
step; and that nothing which goes wrong with a stored trace keeps an instance from going on.

How a trace crosses: `submit` sends the new instance an event that no wait can await, with the
propagator's headers and the time. It is kept, moved and removed like any other event, on every
backend, and exists only where it is used. Who drives the instance reads it and leaves it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ._codec import ErrorText, decode_payload, describe_error, encode_payload
from ._errors import InvalidStateError, SayiirError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

    from ._core import Program, Run, Step
    from .backends import Backend, InstanceRow, NewInstance

__all__ = ["LINK_AFTER_S", "SpanOfDrive", "Tracing", "carried", "carrier_of_here", "tracing_here"]

TRACE_EVENT = "\u0002trace"
"""The event that carries a trace; it has a character that no user's event can have."""
LINK_AFTER_S = 60.0
"""Whoever takes an instance up later than this after its submit begins a trace of its own, linked
to the caller's: a trace that goes on after days is one that no tool shows."""

_last: tuple[TracerProvider, Tracing] | None = None


def tracing_here() -> Tracing | None:
    """What to trace with, if the program has set a tracer provider."""
    # A provider cannot have been set by a program that never imported this.
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    global _last
    if _last is None or _last[0] is not provider:
        _last = provider, Tracing()
    return _last[1]


def carrier_of_here() -> dict[str, str] | None:
    """The current span, in the form that crosses to another process; `None` without tracing."""
    if tracing_here() is None:
        return None
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier or None


def carried(carrier: dict[str, str] | None) -> AbstractContextManager[None]:
    """What runs inside belongs to the span that was carried here."""
    return contextlib.nullcontext() if carrier is None else _inside(carrier)


@contextmanager
def _inside(carrier: dict[str, str]) -> Iterator[None]:
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


class Tracing:
    """Makes spans.

    Raises:
        ImportError: `opentelemetry-api` is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import context, propagate, trace
        except ImportError as missing:
            raise ImportError(
                "tracing=True needs the package opentelemetry-api, which is not installed; "
                'pip install "sayiir[otel]", or leave the argument out'
            ) from missing
        self._context, self._propagate, self._trace = context, propagate, trace
        self._tracer = trace.get_tracer("sayiir")

    # On the side of the caller.

    async def submit(
        self,
        backend: Backend,
        instances: Sequence[NewInstance],
        program: Program,
        policy: str,
        *,
        checked: bool,
    ) -> Sequence[InstanceRow | None]:
        """`Backend.submit` in a span, of which the instances' runs will be the continuation.

        Args:
            backend: Where to.
            instances: All of one workflow.
            program: What they run.
            policy: As for `Backend.submit`.
            checked: The ids are known to be free, as far as can be known before the call.
        """
        attributes: dict[str, Any] = {"sayiir.workflow": program.name}
        if len(instances) == 1:
            attributes["sayiir.instance"] = instances[0].instance_id
        else:
            attributes["sayiir.instances"] = len(instances)
        with self._producing(f"submit {program.name}", attributes):
            headers = self._headers(backend.now())
            # A worker may begin within the same millisecond, so the event goes first. Only where
            # an instance of the id may be there, which is to be replaced or kept, it must not.
            first = policy == "fail" or checked
            if first:
                await self._send(backend, [new.instance_id for new in instances], headers)
            found = await backend.submit(instances, policy)
            if not first:
                fresh = [
                    new.instance_id
                    for new, row in zip(instances, found, strict=True)
                    if row is None
                ]
                await self._send(backend, fresh, headers)
            return found

    async def _send(self, backend: Backend, ids: Sequence[str], headers: bytes) -> None:
        async def send(instance_id: str) -> None:
            # One that has ended is in the way of the submit too, which says so.
            with contextlib.suppress(InvalidStateError):
                await backend.send_event(instance_id, TRACE_EVENT, headers, None)

        await asyncio.gather(*map(send, ids))

    async def submit_on(
        self,
        send: Callable[[str, str, bytes, str | None], Any],
        submit: Callable[[], Any],
        instance_id: str,
        workflow_id: str,
        now: float,
    ) -> InstanceRow | None:
        """A submit in a caller's transaction, in a span as `submit`."""
        attributes = {"sayiir.workflow": workflow_id, "sayiir.instance": instance_id}
        with self._producing(f"submit {workflow_id}", attributes):
            found: InstanceRow | None = await submit()
            if found is None:
                # Nobody sees the instance before the commit, so the order does not matter.
                await send(instance_id, TRACE_EVENT, self._headers(now), None)
            return found

    async def send_event(
        self,
        send: Callable[[str, str, bytes, str | None], Any],
        instance_id: str,
        name: str,
        sealed: bytes,
        key: str | None,
    ) -> None:
        """Sends an event in a span."""
        attributes = {"sayiir.instance": instance_id, "sayiir.event": name}
        with self._producing(f"send_event {name}", attributes):
            await send(instance_id, name, sealed, key)

    def _producing(self, name: str, attributes: dict[str, Any]) -> AbstractContextManager[Span]:
        kind = self._trace.SpanKind.PRODUCER
        return self._tracer.start_as_current_span(name, kind=kind, attributes=attributes)

    def _headers(self, now: float) -> bytes:
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier)
        return encode_payload({"headers": carrier, "at": now})

    # On the side of whoever drives the instance.

    async def opened(self, run: Run, backend: Backend, worker_id: str) -> SpanOfDrive:
        """The span of one lease: from taking the instance up to letting it go."""
        caller, at = self._caller(await self._stored(run, backend))
        links = []
        parent = self._context.Context()
        if caller is not None:
            if backend.now() - at <= LINK_AFTER_S:
                parent = caller
            else:
                spoken = self._trace.get_current_span(caller).get_span_context()
                links = [self._trace.Link(spoken)]
        name = run.program.name
        attributes = {
            "sayiir.workflow": name,
            "sayiir.instance": run.instance_id,
            "sayiir.worker": worker_id,
        }
        kind = self._trace.SpanKind.CONSUMER
        span = self._tracer.start_span(
            f"run {name}", parent, kind=kind, attributes=attributes, links=links
        )
        return SpanOfDrive(self, span, self._trace.set_span_in_context(span, parent), attributes)

    async def _stored(self, run: Run, backend: Backend) -> bytes | None:
        try:
            news = await backend.news(run.instance_id, run.fence, (TRACE_EVENT,))
        except SayiirError:
            # Whatever it is, the instance's own calls meet it too, and they are heard.
            return None
        sent = [event.payload for event in news.events if event.name == TRACE_EVENT]
        return sent[0] if sent else None

    def _caller(self, sealed: bytes | None) -> tuple[Context | None, float]:
        """The caller's context and the time of the submit, as far as they can be read."""
        try:
            stored = None if sealed is None else decode_payload(sealed)
            headers, at = (None, 0.0) if stored is None else (stored["headers"], stored["at"])
            if not headers or not isinstance(at, float):
                return None, 0.0
            caller = self._propagate.extract(headers, self._context.Context())
        except (SayiirError, LookupError, TypeError, AttributeError):
            return None, 0.0
        spoken = self._trace.get_current_span(caller).get_span_context()
        return (caller, at) if spoken.is_valid else (None, 0.0)


class SpanOfDrive:
    """The span of one lease, and what begins and ends the spans of its steps."""

    def __init__(
        self, tracing: Tracing, span: Span, inside: Context, attributes: dict[str, str]
    ) -> None:
        self._tracing = tracing
        self._span = span
        self._inside = inside
        self._attributes = attributes

    def begin(self, step: Step) -> tuple[Span, Any]:
        """A step begins: its span is the current one from here on."""
        tracing = self._tracing
        span = tracing._tracer.start_span(
            step.path,
            self._inside,
            attributes={
                **self._attributes,
                "sayiir.path": step.path,
                "sayiir.task": step.task.name,
                "sayiir.attempt": step.attempt,
            },
        )
        inside = tracing._trace.set_span_in_context(span, self._inside)
        return span, tracing._context.attach(inside)

    def end(self, begun: tuple[Span, Any], outcome: str, error: BaseException | None) -> None:
        """The step has ended, on the same thread and in the same coroutine."""
        span, token = begun
        self._tracing._context.detach(token)
        span.set_attribute("sayiir.outcome", outcome)
        if error is not None:
            span.set_status(self._tracing._trace.StatusCode.ERROR, _recorded(span, error))
        span.end()

    def close(self, state: str) -> None:
        """The lease has ended, with the instance in this state."""
        self._span.set_attribute("sayiir.state", state)
        if state in ("failed", "broken"):
            self._span.set_status(self._tracing._trace.StatusCode.ERROR)
        self._span.end()


def _recorded(span: Span, error: BaseException) -> str:
    """Record an exception; its type's name."""
    text = getattr(error, "text", None)
    if not isinstance(text, ErrorText):
        text = describe_error(error)
    # By hand: what came from another process is here as text alone, and the text of an exception
    # may be without bounds, or fail.
    said = {"type": text.error_type, "message": text.message, "stacktrace": text.traceback}
    span.add_event("exception", {f"exception.{key}": value for key, value in said.items()})
    return text.error_type
