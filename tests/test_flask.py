"""Flask with the synchronous client: views on many threads, beside a worker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from sayiir import Flow, InMemoryBackend, InstanceNotFoundError, SyncWorkflowClient, Worker

GREET = Flow("greet").then(lambda name: f"hello {name}").build()


@pytest.fixture
def app() -> Iterator[Flask]:
    backend = InMemoryBackend()
    app = Flask("app")
    with SyncWorkflowClient(backend) as client, Worker(backend, GREET):

        @app.post("/<name>")
        def submit(name: str) -> ResponseReturnValue:
            return jsonify(id=client.submit(GREET, name, name).instance_id), 202

        @app.get("/<name>")
        def result(name: str) -> ResponseReturnValue:
            return jsonify(output=client.result(name, timeout=20))

        @app.errorhandler(InstanceNotFoundError)
        def missing(error: InstanceNotFoundError) -> ResponseReturnValue:
            return jsonify(error=str(error)), 404

        yield app


def test_a_view_submits_and_another_shows(app: Flask) -> None:
    web = app.test_client()
    assert web.post("/ann").status_code == 202
    assert web.get("/ann").get_json() == {"output": "hello ann"}


def test_an_error_of_the_client_becomes_an_answer(app: Flask) -> None:
    answer = app.test_client().get("/nobody")
    assert answer.status_code == 404
    assert "nobody" in answer.get_json()["error"]


def test_threads_share_the_client(app: Flask) -> None:
    def visit(number: int) -> str:
        web = app.test_client()
        web.post(f"/visitor-{number}")
        output: str = web.get(f"/visitor-{number}").get_json()["output"]
        return output

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(visit, range(40))] == [f"hello visitor-{n}" for n in range(40)]
