"""FastAPI and Starlette: a client, and on request a worker, that live as long as the application.

`lifespan` makes what an application passes as `lifespan=`; `client_of` gives the client to a
request. A backend named by URL is opened when the application starts, in the process that serves,
so several server processes and a reloading server each have one of their own. It is closed when
the application ends; a backend object stays with whoever made it.

It does not know routes, and does not turn errors into answers. It is imported by its own name,
`sayiir.asgi`, and needs Starlette; `import sayiir` loads neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.requests import HTTPConnection

from ._client import WorkflowClient
from ._conflict import ConflictPolicyLike, conflict_policy_of
from ._url import connect
from ._worker import Worker
from ._workflow import Workflow
from .backends import Backend

__all__ = ["Lifespan", "client_of", "lifespan"]

STATE_KEY = "sayiir"

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
"""What FastAPI and Starlette take as `lifespan=`."""


def lifespan(
    backend: Backend | str | None = None,
    workflows: Workflow[Any, Any] | Iterable[Workflow[Any, Any]] = (),
    *,
    worker: bool | Callable[[Backend], Worker] = False,
    conflict_policy: ConflictPolicyLike = "fail",
    inner: Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
) -> Lifespan:
    """The lifespan of an application that submits workflows, and runs them if it is asked to.

    Args:
        backend: A URL as for `sayiir.connect`, opened at start-up and closed at shutdown; None for
            `SAYIIR_DATABASE_URL`, else `sqlite:///sayiir.db`; or a backend, which stays open.
        workflows: What the worker runs; a client alone needs none.
        worker: Whether a worker runs on the application's loop. A function makes one with settings
            of its own from the backend, such as
            `lambda backend: Worker(backend, flow, lease_ttl="5s")`. At shutdown it lets running
            steps end within its `grace` before the backend closes.
        conflict_policy: As for `WorkflowClient`.
        inner: A lifespan of the application's own. It begins after the client and the worker, ends
            before them, and what it yields is in `request.state` too.

    Raises:
        TypeError: `backend` or `worker` is something else.
        ValueError: The policy is unknown, `worker=True` has no workflows, or workflows are given
            that nothing would run.
        BackendUnavailableError: At start-up: what the URL names cannot be opened.

    >>> import asyncio
    >>> from starlette.applications import Starlette
    >>> from sayiir import Flow
    >>> greet = Flow("greet").then(lambda name: f"hello {name}").build()
    >>> app = Starlette(lifespan=lifespan("memory://", greet, worker=True))
    >>> async def as_a_server_does():
    ...     async with app.router.lifespan_context(app) as state:
    ...         return await (await state["sayiir"].submit(greet, input="world")).result()
    >>> asyncio.run(as_a_server_does())
    'hello world'
    """
    if backend is not None and not isinstance(backend, Backend | str):
        raise TypeError(
            "backend must be a URL such as 'sqlite:///app.db', a backend or None, got "
            f"{type(backend).__name__}; the order is lifespan(backend, workflows)"
        )
    if not isinstance(worker, bool) and not callable(worker):
        raise TypeError(
            "worker must be True, False or a function that makes a Worker from a backend, got "
            f"{type(worker).__name__}"
        )
    policy = conflict_policy_of(conflict_policy)
    able = (workflows,) if isinstance(workflows, Workflow) else tuple(workflows)
    if worker is True and not able:
        raise ValueError("worker=True has nothing to run; pass workflows=[…]")
    if worker is not True and able:
        raise ValueError("workflows are what worker=True runs; pass that, or leave them out")

    @asynccontextmanager
    async def live(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            if isinstance(backend, Backend):
                opened = backend
            else:
                opened = connect(backend)
                stack.push_async_callback(opened.close)
            client = await stack.enter_async_context(WorkflowClient(opened, policy))
            if worker is not False:
                made = Worker(opened, able) if worker is True else worker(opened)
                await stack.enter_async_context(made)
            theirs = None if inner is None else await stack.enter_async_context(inner(app))
            if theirs and STATE_KEY in theirs:
                raise ValueError(
                    f"the inner lifespan yields {STATE_KEY!r}, where the client goes; rename it"
                )
            yield {**(theirs or {}), STATE_KEY: client}

    return live


def client_of(connection: HTTPConnection) -> WorkflowClient:
    """The client of the application that serves this request or websocket.

    In FastAPI it is a dependency: `Annotated[WorkflowClient, Depends(client_of)]`.

    Raises:
        RuntimeError: The application has no `lifespan` of this module, or it has not started.

    >>> client_of(HTTPConnection({"type": "http"}))
    Traceback (most recent call last):
    ...
    RuntimeError: this application has no workflow client; …
    """
    client = getattr(connection.state, STATE_KEY, None)
    if not isinstance(client, WorkflowClient):
        raise RuntimeError(
            "this application has no workflow client; make it with "
            "lifespan=sayiir.asgi.lifespan(…), and let its lifespan run: an in-process test "
            "enters it with TestClient(app) as a context manager"
        )
    return client
