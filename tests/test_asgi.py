"""The lifespan of FastAPI and Starlette applications, with the real packages."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.types import Receive, Scope, Send

from sayiir import Flow, InMemoryBackend, Worker, WorkflowClient
from sayiir.asgi import client_of, lifespan

GREET = Flow("greet").then(lambda name: f"hello {name}").build()
Client = Annotated[WorkflowClient, Depends(client_of)]

PROGRAM = """
from pathlib import Path
from typing import Annotated
from fastapi import Depends, FastAPI
from sayiir import Flow, Worker, WorkflowClient, task
from sayiir.asgi import client_of, lifespan

@task
def first(name: str) -> str:
    with Path("firsts").open("a") as pen:
        pen.write(name)
    return name

flow = Flow("flow").then(first).wait_for_event("go").build()
app = FastAPI(lifespan=lifespan("sqlite:///app.db", worker=lambda b: Worker(b, flow, lease_ttl=1)))
Client = Annotated[WorkflowClient, Depends(client_of)]

@app.post("/{name}")
async def submit(name: str, client: Client) -> str:
    return (await client.submit(flow, name, name)).instance_id

@app.post("/{name}/go")
async def go(name: str, client: Client) -> str:
    await client.send_event(name, "go", "gone")
    return await client.result(name, timeout=20)

@app.get("/{name}")
async def status(name: str, client: Client) -> str:
    return (await client.status(name)).status
"""


@asynccontextmanager
async def entered(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process, whose lifespan runs as under a server."""
    async with app.router.lifespan_context(app) as state:

        async def stateful(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(stateful)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as web:
            yield web


def application(**given: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(**given))

    @app.post("/{name}")
    async def greet(name: str, client: Client) -> str:
        output: str = await (await client.submit(GREET, name, name)).result(timeout=10)
        return output

    return app


async def test_a_request_is_served_by_the_client_and_the_worker() -> None:
    async with entered(application(backend="memory://", workflows=[GREET], worker=True)) as web:
        assert (await web.post("/ann")).json() == "hello ann"


async def test_a_backend_object_is_shared_and_stays_open() -> None:
    backend = InMemoryBackend()
    app = application(backend=backend, worker=lambda backend: Worker(backend, GREET))
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(app)
        assert state is not None
        client = state["sayiir"]
        assert client.backend is backend
        # This transport runs no lifespan, so the state has to be handed over.
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as web:
            with pytest.raises(RuntimeError, match="no workflow client"):
                await web.post("/ann")
        assert await (await client.submit(GREET, "ann", "ann")).result(timeout=10) == "hello ann"
    with pytest.raises(RuntimeError, match="closed"):
        await client.status("ann")
    assert (await WorkflowClient(backend).status("ann")).output == "hello ann"


async def test_a_lifespan_of_ones_own_stands_inside() -> None:
    seen = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("begun")
        yield {"greeting": "welcome"}
        seen.append("ended")

    app = FastAPI(lifespan=lifespan("memory://", inner=own))

    @app.get("/")
    async def both(request: Request, client: Client) -> list[str]:
        return [request.state.greeting, type(client).__name__]

    async with entered(app) as web:
        assert (await web.get("/")).json() == ["welcome", "WorkflowClient"]
        assert seen == ["begun"]
    assert seen == ["begun", "ended"]


async def test_an_inner_lifespan_may_not_take_the_place_of_the_client() -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"sayiir": "mine"}

    app = FastAPI(lifespan=lifespan("memory://", inner=own))
    with pytest.raises(ValueError, match="rename"):
        async with entered(app):
            pytest.fail("it has begun")


async def test_a_url_is_opened_when_the_application_starts(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    app = application(backend=f"sqlite:///{path}", workflows=GREET, worker=True)
    assert not path.exists()
    for name in ("ann", "bob"):  # An application may start again.
        async with entered(app) as web:
            assert (await web.post(f"/{name}")).json() == f"hello {name}"


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"backend": 7}, TypeError, "backend must be a URL"),
        ({"backend": GREET}, TypeError, "the order is"),
        ({"worker": "yes"}, TypeError, "worker must be"),
        ({"worker": True}, ValueError, "nothing to run"),
        ({"workflows": GREET}, ValueError, "worker=True runs"),
        ({"conflict_policy": "perhaps"}, ValueError, "conflict_policy"),
    ],
)
def test_wrong_arguments_are_refused(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        lifespan(**given)


def test_the_package_alone_does_not_load_starlette() -> None:
    program = "import sys, sayiir; assert 'starlette' not in sys.modules, 'loaded'"
    subprocess.run([sys.executable, "-c", program], check=True)


@asynccontextmanager
async def served(
    folder: Path,
) -> AsyncIterator[tuple[httpx.AsyncClient, "subprocess.Popen[bytes]"]]:
    """The program under uvicorn, on a socket that listens from the start, so nothing is lost."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "program:app", "--fd", str(door.fileno())]
        # Awaiting its start gains nothing, and this one can be waited for with a limit.
        process = subprocess.Popen(  # noqa: ASYNC220
            command, cwd=folder, pass_fds=[door.fileno()], env=os.environ
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as web:
            yield web, process
    finally:
        process.kill()
        process.wait()


async def test_a_served_application_goes_on_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    async with served(tmp_path) as (web, process):
        assert (await web.post("/ann")).json() == "ann"
        while (await web.get("/ann")).json() != "awaiting_signal":
            pass
        process.kill()
    async with served(tmp_path) as (web, process):
        assert (await web.post("/ann/go")).json() == "gone"
        process.send_signal(signal.SIGTERM)
        # Uvicorn raises the signal again for itself once the lifespan has ended.
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert (tmp_path / "firsts").read_text(encoding="utf-8") == "ann"
