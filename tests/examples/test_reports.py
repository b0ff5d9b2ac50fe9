"""The web service: a real server, killed in the middle of a stream that goes on after it."""

import json
import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .program import LONG, Place, line_with

CHAPTERS = 6
PATHS = {"outline", "bind", *(f"write[{number}]" for number in range(CHAPTERS))}


@contextmanager
def serving(place: Place) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server on a port that is free, and somebody who calls it."""
    with place.started("reports", PORT="0", PACE="0.2") as server:
        found = re.search(r"http://127\.0\.0\.1:\d+", line_with(server, "running on"))
        assert found is not None
        # Whatever proxy the machine has is not asked.
        with httpx.Client(base_url=found[0], timeout=LONG, trust_env=False) as client:
            yield server, client


def events(client: httpx.Client, name: str, seen: int = 0) -> Generator[tuple[int, str, Any]]:
    """What the server streams: the number, the kind and the data of each event."""
    headers = {"last-event-id": str(seen)}
    with client.stream("GET", f"/reports/{name}/progress", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if line:
                field, _, value = line.partition(": ")
                event[field] = value
            else:
                yield int(event["id"]), event["event"], json.loads(event["data"])


def test_a_report_and_its_stream_go_on_after_the_server_was_killed(place: Place) -> None:
    with serving(place) as (server, client):
        ordered = client.post("/reports/sea", json={"chapters": CHAPTERS})
        assert (ordered.status_code, ordered.json()["status"]) == (202, "in_progress")
        stream = events(client, "sea")
        before = [next(stream) for _ in range(3)]
        server.kill()
        stream.close()
    assert [number for number, _, _ in before] == [1, 2, 3]
    assert before[0][2] == {"path": "outline", "attempt": 1, "outcome": "completed"}
    with serving(place) as (server, client):
        *after, end = events(client, "sea", seen=3)
        assert [number for number, _, _ in after] == list(range(4, len(PATHS) + 1))
        assert end == (len(PATHS), "end", {"status": "completed"})
        steps = [data for _, kind, data in [*before, *after] if kind == "step"]
        assert {step["path"] for step in steps} == PATHS
        assert {step["outcome"] for step in steps} == {"completed"}
        pages = sum(len(f"chapter {number}") for number in range(1, CHAPTERS + 1))
        assert client.get("/reports/sea").json() == {
            "name": "sea",
            "status": "completed",
            "report": {"chapters": CHAPTERS, "pages": pages},
            "error": None,
        }
        ended = client.delete("/reports/sea")
        assert ended.status_code == 409
        assert "it is completed" in ended.json()["error"]


def test_what_cannot_be_done_is_answered_with_a_code_and_a_sentence(place: Place) -> None:
    with serving(place) as (server, client):
        unknown = client.get("/reports/none/progress")
        assert unknown.status_code == 404
        assert "there is no instance 'none'" in unknown.json()["error"]
        assert client.post("/reports/sea", json={"chapters": 0}).status_code == 422
        assert client.get("/reports/%00").status_code == 422
        assert client.post("/reports/sea", json={"chapters": 100}).status_code == 202
        twice = client.post("/reports/sea", json={"chapters": 1})
        assert twice.status_code == 409
        assert "already exists" in twice.json()["error"]
        assert client.delete("/reports/sea").status_code == 204
        *_, end = events(client, "sea")
        assert end[2] == {"status": "cancelled"}
        assert client.delete("/reports/sea").status_code == 204
        # Asked to stop, it stops; the worker gives back what it has.
        server.send_signal(signal.SIGINT)
        line_with(server, "Application shutdown complete")
        assert server.wait(LONG) == 0
