"""A web service: it takes an order for a report, says how it stands, and streams its progress.

    python examples/reports.py          # or: uvicorn --app-dir examples reports:app

    curl -X POST localhost:8000/reports/sea -H 'content-type: application/json' -d '{"chapters": 9}'
    curl localhost:8000/reports/sea                  # the status
    curl -N localhost:8000/reports/sea/progress      # the steps, as server-sent events
    curl -X DELETE localhost:8000/reports/sea        # cancel it

Kill the server while a report is being written and start it again: the report goes on, and a
browser that lost the stream gets the steps that it has not seen. Reports live in `sayiir.db`, or
where `SAYIIR_DATABASE_URL` says. `PORT` is another port. It needs `fastapi` and `uvicorn`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, Path, Request
from fastapi.responses import JSONResponse, StreamingResponse

from sayiir import (
    Flow,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    Worker,
    WorkflowClient,
    WorkflowError,
    task,
)

PACE = float(os.environ.get("PACE", "1"))  # Seconds for a chapter: time to watch, and to kill.


@task
def outline(chapters: int) -> list[str]:
    """What the chapters are about."""
    return [f"chapter {number}" for number in range(1, chapters + 1)]


@task(retries=3, timeout="5m")
async def write(chapter: str) -> int:
    """Write one chapter; how many pages it has."""
    await asyncio.sleep(PACE)
    return len(chapter)


@task
def bind(pages: list[int]) -> dict[str, int]:
    """Put the chapters together."""
    return {"chapters": len(pages), "pages": sum(pages)}


workflow = Flow("report").then(outline).map(write, concurrency=2).then(bind).build()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A client for the requests, and a worker beside them.

    The worker may as well be a program of its own: `sayiir worker reports:workflow`.
    """
    async with (
        WorkflowClient.from_url() as client,
        # Short, so that whoever goes on after a kill need not wait the usual 30 s.
        Worker(client.backend, workflow, lease_ttl="1s"),
    ):
        app.state.client = client
        yield


def client_of(request: Request) -> WorkflowClient:
    """The client that `lifespan` made."""
    client: WorkflowClient = request.app.state.client
    return client


app = FastAPI(title="Reports", lifespan=lifespan)
Client = Annotated[WorkflowClient, Depends(client_of)]
Name = Annotated[str, Path(pattern=r"^[\w-]{1,60}$")]
Chapters = Annotated[int, Body(ge=1, le=100, embed=True)]
STATUS_CODES = {InstanceNotFoundError: 404, InstanceAlreadyExistsError: 409, InvalidStateError: 409}


@app.exception_handler(WorkflowError)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """What the client refuses is an answer, with the client's own words; the rest is our fault."""
    code = next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, code)


@app.post("/reports/{name}", status_code=202)
async def order_report(name: Name, chapters: Chapters, client: Client) -> dict[str, Any]:
    """Order a report. It will be written whatever becomes of this process: it is on the disk."""
    handle = await client.submit(workflow, name, chapters)
    return {"name": handle.instance_id, "status": handle.status}


@app.get("/reports/{name}")
async def status(name: Name, client: Client) -> dict[str, Any]:
    """How the report stands."""
    now = await client.status(name)
    return {"name": name, "status": now.status, "report": now.output, "error": now.error}


@app.delete("/reports/{name}", status_code=204)
async def cancel(name: Name, client: Client) -> None:
    """Write no further."""
    await client.cancel(name, reason="cancelled by request")


@app.get("/reports/{name}/progress")
async def progress(
    name: Name, client: Client, last_event_id: Annotated[int, Header(ge=0)] = 0
) -> StreamingResponse:
    """The steps that ended, and those that will, until the report ends.

    At `end` a browser closes its `EventSource`; left open, it would ask again.
    """
    await client.status(name)  # Refuses an unknown one while it can still be said with a code.
    return StreamingResponse(steps_of(name, client, last_event_id), media_type="text/event-stream")


async def steps_of(name: str, client: WorkflowClient, seen: int) -> AsyncIterator[str]:
    """The history from `seen` on, as events. Rows are only added, so a number finds its row."""
    async for step in client.watch(name, after=seen):
        seen += 1
        fact = {"path": step.path, "attempt": step.attempt, "outcome": step.outcome}
        yield f"id: {seen}\nevent: step\ndata: {json.dumps(fact)}\n\n"
    now = await client.status(name)
    yield f"id: {seen}\nevent: end\ndata: {json.dumps({'status': now.status})}\n\n"


if __name__ == "__main__":
    # A stream would hold up the end of the server for as long as its report takes.
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=1)
