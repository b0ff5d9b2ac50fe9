"""Traces: the caller's goes on in whoever runs the steps, and nothing is paid where there is none.

The spans are those of the real SDK, kept in memory.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from benches.python_backend import PythonBackend
from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from tests import tracing_tasks
from tests.working import LONG, NEVER, Altered, Places

from sayiir import (
    Flow,
    InMemoryBackend,
    InstanceAlreadyExistsError,
    PostgresBackend,
    RetryPolicy,
    SyncWorkflowClient,
    Worker,
    WorkflowClient,
    WorkflowFailed,
    get_task_context,
    run_workflow,
    task,
)
from sayiir._codec import encode_payload
from sayiir._tracing import LINK_AFTER_S, TRACE_EVENT
from sayiir.backends import Backend, News


class Spans(SpanProcessor):
    """What was traced."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self.tracer = provider.get_tracer("tests")
        self._all: list[ReadableSpan] = []
        self._more = asyncio.Event()
        provider.add_span_processor(self)

    def on_end(self, span: ReadableSpan) -> None:
        self._all.append(span)
        # Whoever waits does so on the loop on which what it waits for ends.
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_soon(self._more.set)

    def all(self) -> list[ReadableSpan]:
        return list(self._all)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def the(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    async def until(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Those of this name, once there are so many."""
        async with asyncio.timeout(LONG):
            while len(self.named(name)) < count:
                self._more.clear()
                await self._more.wait()
        return self.named(name)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """A program that has set a tracer provider, which can really be set only once."""
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield Spans(provider)
    provider.shutdown()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.trace_id
    return number


@task
async def first(value: int) -> int:
    return value + 1


@task
def second(value: int) -> int:
    # In a thread: what the task traces itself belongs to its step.
    with trace.get_tracer("of the user").start_as_current_span("inside"):
        return value + 1


two = Flow("two").then(first).then(second).build()


async def test_the_callers_trace_goes_on_in_the_worker(backend: Backend, spans: Spans) -> None:
    async with Worker(backend, two, worker_id="w", poll_interval=NEVER):
        with spans.tracer.start_as_current_span("request") as request:
            handle = await WorkflowClient(backend).submit(two, "t-1", 1)
        assert await handle.result(LONG) == 3
        [run] = await spans.until("run two")
    submit = spans.the("submit two")
    assert submit.kind is SpanKind.PRODUCER
    assert parent_of(submit) == request.get_span_context().span_id
    assert run.kind is SpanKind.CONSUMER
    assert parent_of(run) == id_of(submit)
    for number, name in enumerate(("first", "second")):
        step = spans.the(name)
        assert parent_of(step) == id_of(run)
        assert dict(step.attributes or {}) == {
            "sayiir.workflow": "two",
            "sayiir.instance": "t-1",
            "sayiir.worker": "w",
            "sayiir.path": name,
            "sayiir.task": name,
            "sayiir.attempt": 1,
            "sayiir.outcome": "completed",
        }, number
    assert parent_of(spans.the("inside")) == id_of(spans.the("second"))
    assert len({trace_of(span) for span in spans.all()}) == 1
    assert (run.attributes or {})["sayiir.state"] == "completed"


async def test_what_is_carried_is_no_event_of_the_users(backend: Backend, spans: Spans) -> None:
    """An event of any name that a user may choose is still the next one that a wait gets."""
    flow = Flow("asks").wait_for_event("answer").then(first).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval=NEVER):
        handle = await client.submit(flow, "q-1")
        await client.send_event("q-1", "answer", 41)
        assert await handle.result(LONG) == 42
    sent = spans.the("send_event answer")
    assert sent.kind is SpanKind.PRODUCER
    assert (sent.attributes or {})["sayiir.instance"] == "q-1"
    assert [step.path for step in await client.history("q-1")] == ["answer", "first"]
    with pytest.raises(ValueError, match="event name"):
        await client.send_event("q-1", TRACE_EVENT)


async def test_a_failure_is_recorded_with_each_attempt(backend: Backend, spans: Spans) -> None:
    @task(retries=RetryPolicy(max_retries=1, initial_delay_secs=0.0))
    async def fails(value: int) -> int:
        raise ValueError("no funds")

    flow = Flow("failing").then(fails).build()
    async with Worker(backend, flow, poll_interval="50ms"):
        with pytest.raises(WorkflowFailed):
            await (await WorkflowClient(backend).submit(flow, input=1)).result(LONG)
        attempts = await spans.until("fails", 2)
    told = [(span.attributes or {}) for span in attempts]
    assert [(one["sayiir.attempt"], one["sayiir.outcome"]) for one in told] == [
        (1, "retried"),
        (2, "failed"),
    ]
    for span in attempts:
        assert span.status.status_code is StatusCode.ERROR
        [event] = span.events
        assert event.name == "exception"
        assert (event.attributes or {})["exception.message"] == "no funds"


async def test_branches_are_beside_one_another(backend: Backend, spans: Spans) -> None:
    meeting = asyncio.Barrier(2)

    async def meet(value: int) -> int:
        await meeting.wait()
        with trace.get_tracer("of the user").start_as_current_span("within"):
            await asyncio.sleep(0)
        return value

    flow = (
        Flow("forked")
        .fork()
        .branch(meet, name="left")
        .branch(meet, name="right")
        .join(lambda both: sum(both.values()))
        .build()
    )
    async with Worker(backend, flow, poll_interval=NEVER):
        assert await (await WorkflowClient(backend).submit(flow, input=4)).result(LONG) == 8
        [run] = await spans.until("run forked")
    steps = [spans.the("fork/left/meet"), spans.the("fork/right/meet")]
    assert {parent_of(step) for step in steps} == {id_of(run)}
    assert {parent_of(one) for one in spans.named("within")} == {id_of(step) for step in steps}


async def test_after_a_long_wait_a_trace_of_its_own_is_linked(places: Places, spans: Spans) -> None:
    at = [1_000_000.0]
    backend = places(clock=lambda: at[0])
    flow = Flow("waits").then(first).wait_for_event("go").then(second).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval="50ms"):
        handle = await client.submit(flow, "l-1", 1)
        submit = spans.the("submit waits")
        [early] = await spans.until("run waits")
        at[0] += LINK_AFTER_S + 1
        await client.send_event("l-1", "go", 5)
        assert await handle.result(LONG) == 6
        late = (await spans.until("run waits", 2))[1]
    assert parent_of(early) == id_of(submit)
    assert not early.links
    assert (early.attributes or {})["sayiir.state"] == "parked"
    assert late.parent is None
    assert trace_of(late) != trace_of(submit)
    [link] = late.links
    assert (link.context.trace_id, link.context.span_id) == (trace_of(submit), id_of(submit))
    assert parent_of(spans.the("second")) == id_of(late)


async def test_a_batch_has_one_span_that_all_go_on_from(backend: Backend, spans: Spans) -> None:
    client = WorkflowClient(backend)
    async with Worker(backend, two, poll_interval=NEVER):
        for handle in await client.submit_many(two, [(f"b-{n}", n) for n in range(3)]):
            await handle.result(LONG)
        runs = await spans.until("run two", 3)
    submit = spans.the("submit two")
    assert (submit.attributes or {})["sayiir.instances"] == 3
    assert {parent_of(run) for run in runs} == {id_of(submit)}


async def test_whoever_comes_second_does_not_take_a_trace_over(
    backend: Backend, spans: Spans
) -> None:
    client = WorkflowClient(backend)
    await client.submit(two, "mine", 1)
    with pytest.raises(InstanceAlreadyExistsError):
        await client.submit(two, "mine", 1)
    await client.submit(two, "mine", 1, conflict_policy="use_existing")
    await client.submit_many(two, [("mine", 1)], conflict_policy="use_existing")
    async with Worker(backend, two, poll_interval=NEVER):
        await client.result("mine", LONG)
        [run] = await spans.until("run two")
    assert parent_of(run) == id_of(spans.named("submit two")[0])


async def test_a_replaced_instance_goes_on_from_who_replaced_it(
    backend: Backend, spans: Spans
) -> None:
    client = WorkflowClient(backend, conflict_policy="terminate_existing")
    await client.submit(two, "again", 1)
    await client.submit_many(two, [("again", 1)])
    async with Worker(backend, two, poll_interval=NEVER):
        await client.result("again", LONG)
        [run] = await spans.until("run two")
    assert parent_of(run) == id_of(spans.named("submit two")[1])


def test_a_caller_without_a_loop_is_followed_too(spans: Spans) -> None:
    backend = InMemoryBackend()
    worker = Worker(backend, two, poll_interval=NEVER).start()
    try:
        with SyncWorkflowClient(backend) as client:
            with spans.tracer.start_as_current_span("view") as view:
                handle = client.submit(two, input=1)
            assert handle.result(LONG) == 3
    finally:
        worker.stop()
    assert parent_of(spans.the("submit two")) == view.get_span_context().span_id
    assert parent_of(spans.the("run two")) == id_of(spans.the("submit two"))


def test_what_runs_right_here_is_traced_too(spans: Spans) -> None:
    with spans.tracer.start_as_current_span("script") as script:
        assert run_workflow(two, 1) == 3
        assert trace.get_current_span() is script
    assert trace_of(spans.the("second")) == script.get_span_context().trace_id


def test_a_process_goes_on_with_the_trace(spans: Spans) -> None:
    """Its own spans are its own program's matter; what it is told is whose child they are."""
    headers = run_workflow(Flow("apart").then(tracing_tasks.says_where_it_is).build(), None)
    said = trace.get_current_span(propagate.extract(headers)).get_span_context()
    step = spans.the("says_where_it_is")
    assert (said.trace_id, said.span_id) == (trace_of(step), id_of(step))


def test_a_failure_in_a_process_is_recorded(spans: Spans) -> None:
    with pytest.raises(Exception, match="out of paper"):
        run_workflow(Flow("apart").then(tracing_tasks.runs_out).build(), 1)
    [event] = spans.the("runs_out").events
    attributes = event.attributes or {}
    assert attributes["exception.type"] == "OSError"
    assert attributes["exception.message"] == "out of paper"
    assert "tracing_tasks.py" in str(attributes["exception.stacktrace"])


async def test_a_cancelled_step_is_told_as_interrupted(spans: Spans) -> None:
    backend = InMemoryBackend()
    begun = asyncio.Event()

    @task
    async def endless(value: int) -> int:
        begun.set()
        await asyncio.Event().wait()
        return value

    flow = Flow("endless").then(endless).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval=NEVER):
        await client.submit(flow, "e-1", 1)
        await begun.wait()
        await client.cancel("e-1")
        [run] = await spans.until("run endless")
    assert (spans.the("endless").attributes or {})["sayiir.outcome"] == "interrupted"
    assert (run.attributes or {})["sayiir.state"] == "cancelled"


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"no payload at all",
        encode_payload(None),
        encode_payload(17),
        encode_payload({"headers": {}, "at": 0.0}),
        encode_payload({"headers": {"traceparent": "garbage"}, "at": 0.0}),
        encode_payload({"headers": [1], "at": 0.0}),
        encode_payload({"headers": {"traceparent": 5}, "at": 0.0}),
        encode_payload({"headers": {"traceparent": "00-" + "1" * 32 + "-" + "1" * 16 + "-01"}}),
    ],
)
async def test_a_damaged_trace_stops_nobody(spans: Spans, stored: bytes) -> None:
    backend = PythonBackend()
    await backend.send_event("d-1", TRACE_EVENT, stored, None)
    # Its own would be the second one.
    async with Worker(backend, two, poll_interval=NEVER):
        handle = await WorkflowClient(backend).submit(two, "d-1", 1)
        assert await handle.result(LONG) == 3
        [run] = await spans.until("run two")
    assert run.parent is None
    assert not run.links


class Broken(SpanProcessor):
    """A processor of the user's that fails at every span."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.kind is not SpanKind.PRODUCER:
            raise RuntimeError("out of order")

    def on_end(self, span: ReadableSpan) -> None:
        if span.kind is not SpanKind.PRODUCER:
            raise RuntimeError("out of order")


@pytest.mark.parametrize("method", ["on_start", "on_end"])
async def test_what_cannot_be_traced_goes_on_all_the_same(
    spans: Spans,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = "on_end" if method == "on_start" else "on_start"
    monkeypatch.setattr(Broken, other, getattr(SpanProcessor, other))
    spans.provider.add_span_processor(Broken())
    # The user's own span in the second task would be a failure of the task.
    flow = Flow("robust").then(first).then(first).build()
    backend = InMemoryBackend()
    async with Worker(backend, flow, poll_interval=NEVER):
        assert await (await WorkflowClient(backend).submit(flow, "r-1", 1)).result(LONG) == 3
    assert "instance 'r-1' could not be traced" in caplog.text


class Question:
    """A backend that takes its time to say whose trace an instance belongs to."""

    def __init__(self, places: Places) -> None:
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()
        asked, let_go = self.asked, self.let_go

        class Slow(Altered):
            async def news(self, instance_id: str, fence: int, names: Sequence[str]) -> News:
                if TRACE_EVENT in names:
                    asked.set()
                    await let_go.wait()
                return await super().news(instance_id, fence, names)

        self.backend = places(Slow)


async def test_who_is_told_to_stop_while_it_asks_for_a_trace_begins_nothing(
    places: Places, spans: Spans
) -> None:
    question = Question(places)
    backend = question.backend
    async with Worker(backend, two, poll_interval=NEVER, grace=LONG) as worker:
        handle = await WorkflowClient(backend).submit(two, "s-1", 1)
        await question.asked.wait()
        stopping = asyncio.ensure_future(worker.aclose())
        await asyncio.sleep(0)
        assert not worker.running
        question.let_go.set()
        await stopping
    assert not spans.named("first")
    assert (await backend.get("s-1")).worker_id is None
    async with Worker(backend, two, poll_interval=NEVER):
        assert await handle.result(LONG) == 3


async def test_a_cancel_that_comes_while_it_asks_for_a_trace_is_heard(
    places: Places, spans: Spans
) -> None:
    question = Question(places)
    backend = question.backend

    @task
    async def endless(value: int) -> int:
        await asyncio.Event().wait()
        return value

    flow = Flow("endless").then(endless).build()
    client = WorkflowClient(backend)
    async with Worker(backend, flow, poll_interval=NEVER):
        await client.submit(flow, "e-2", 1)
        await question.asked.wait()
        await client.cancel("e-2")
        # The hint comes in the next turn of the loop, while it still asks.
        await asyncio.sleep(0)
        question.let_go.set()
        [run] = await spans.until("run endless")
    assert (run.attributes or {})["sayiir.state"] == "cancelled"


async def test_who_does_not_want_it_has_none(spans: Spans) -> None:
    backend = InMemoryBackend()
    async with Worker(backend, two, poll_interval=NEVER, tracing=False):
        await (await WorkflowClient(backend).submit(two, input=1)).result(LONG)
    assert {span.name for span in spans.all()} == {"submit two", "inside"}


async def test_without_a_provider_there_is_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    seen = []

    @task
    async def looks(value: int) -> int:
        seen.append(trace.get_current_span().get_span_context().is_valid)
        return value

    flow = Flow("untraced").then(looks).build()
    sent: list[str] = []
    stop = backend.listen(lambda kind, about: sent.append(kind))
    async with Worker(backend, flow, poll_interval=NEVER):
        await (await WorkflowClient(backend).submit(flow, input=1)).result(LONG)
    stop()
    assert seen == [False]
    assert "news" not in sent, "an event was sent that nobody needs"


async def test_who_insists_may_set_the_provider_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = Flow("insists").then(first).build()
    backend = InMemoryBackend()
    async with Worker(backend, flow, poll_interval=NEVER, tracing=True):
        assert await (await WorkflowClient(backend).submit(flow, input=1)).result(LONG) == 2
    with pytest.raises(TypeError, match="tracing must be True, False or None, got str"):
        Worker(backend, flow, tracing="yes")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r'pip install "sayiir\[otel\]"'):
        Worker(backend, flow, tracing=True)


def test_a_program_that_does_not_use_it_never_imports_it() -> None:
    program = (
        "import sys; from sayiir import Flow, run_workflow\n"
        "assert run_workflow(Flow('a').then(abs).build(), -1) == 1\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONG)


async def test_a_submit_in_a_transaction_of_the_callers_carries_it(
    places: Places, spans: Spans
) -> None:
    backend = places()
    if not isinstance(backend, PostgresBackend):
        # There is no such transaction; the refusal is tested elsewhere.
        with pytest.raises(TypeError, match="connection= needs a PostgresBackend"):
            await WorkflowClient(backend).submit(two, input=1, connection=object())
        return
    import psycopg
    from tests.postgres import server

    await backend.backlog()
    url = server.required(swift=True).url()
    client = WorkflowClient(backend)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        handle = await client.submit(two, "c-1", 1, connection=connection)
    async with Worker(backend, two, poll_interval="50ms"):
        assert await handle.result(LONG) == 3
        [run] = await spans.until("run two")
    assert parent_of(run) == id_of(spans.the("submit two"))


async def test_a_tasks_own_context_is_its_own(spans: Spans) -> None:
    """What one step leaves attached is gone in the next one."""
    seen = []

    @task(run_in="inline")
    def attaches(value: int) -> int:
        context.attach(context.set_value("left", "behind"))
        return value

    @task
    async def looks(value: int) -> int:
        asked = get_task_context()
        seen.append((context.get_value("left"), None if asked is None else asked.path))
        return value

    run_here = Flow("tidy").then(attaches).then(looks).build()
    backend = InMemoryBackend()
    async with Worker(backend, run_here, poll_interval=NEVER):
        await (await WorkflowClient(backend).submit(run_here, input=1)).result(LONG)
    assert seen == [(None, "looks")]
