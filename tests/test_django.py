"""Django with the synchronous client: views, and submits in the transaction of the ORM.

Django is set up once in a process and for good, so each test is a program of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.postgres.server import required

PREAMBLE = """
import os, sys
from urllib.parse import urlsplit, unquote
import django
from django.conf import settings
from django.http import JsonResponse
from django.test import Client
from django.urls import path
from sayiir import Flow, InstanceNotFoundError, SyncWorkflowClient, Worker

url = os.environ["STORE"]
parts = urlsplit(url)
settings.configure(
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]), "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "", "PORT": parts.port or "",
    }} if parts.scheme.startswith("postgres") else {},
)
django.setup()
greet = Flow("greet").then(lambda name: f"hello {name}").build()
client = SyncWorkflowClient.from_url(url)
"""

VIEWS = """
def submit(request, name):
    return JsonResponse({"id": client.submit(greet, name, name).instance_id}, status=202)

def status(request, name):
    now = client.status(name)
    return JsonResponse({"status": now.status, "output": now.output})

urlpatterns = [path("submit/<name>", submit), path("status/<name>", status)]
web = Client()
with client, Worker(client.backend, greet):
    assert web.post("/submit/ann").status_code == 202
    client.result("ann", timeout=20)
    assert web.get("/status/ann").json() == {"status": "completed", "output": "hello ann"}
"""

TRANSACTION = """
from django.db import connection, transaction

def submit(name):
    connection.ensure_connection()
    client.submit(greet, name, name, connection=connection.connection)

client.list_instances()  # The tables are there before the transaction is.
try:
    with transaction.atomic():
        submit("dropped")
        raise LookupError("the view fails")
except LookupError:
    pass
try:
    client.status("dropped")
except InstanceNotFoundError:
    pass
else:
    raise AssertionError("the rollback left the instance")
with transaction.atomic():
    submit("kept")
    try:
        client.status("kept")
    except InstanceNotFoundError:
        pass
    else:
        raise AssertionError("it is seen before the commit")
with Worker(client.backend, greet):
    assert client.result("kept", timeout=20) == "hello kept"
connection.close()
client.close()
"""


def run(program: str, store: str, folder: Path) -> None:
    """Run a program to its end; what it says is said when it fails."""
    path = folder / "program.py"
    path.write_text(PREAMBLE + program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        env={**os.environ, "STORE": store},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_views_submit_and_show(tmp_path: Path) -> None:
    run(VIEWS, "sqlite:///app.db", tmp_path)


def test_an_instance_is_part_of_the_transaction_of_the_orm(tmp_path: Path) -> None:
    run(TRANSACTION, required().fresh_database(), tmp_path)
