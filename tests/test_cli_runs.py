"""`sayiir run`, `runs` and `doctor`: what they do, what they say, and with which exit code.

Most of it is tried on a backend in memory that stands in for what a URL opens, so that every state
is at hand at once; the way through a file and through a server, one command after the other, is
tried at the end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.postgres.server import required

from sayiir import (
    Flow,
    InMemoryBackend,
    SyncWorkflowClient,
    Worker,
    Workflow,
    run_durable_workflow,
)
from sayiir._core import Claimant
from sayiir.cli import checkup, main
from sayiir.cli.checkup import Facts, StuckWork, problems_of

HOSTILE = "[red]a[/red]\u202e 100%_'; --🦀"
WORKFLOWS = """
from sayiir import Flow, task


@task
def add(number):
    return (number or 0) + 1


@task
def fail(number):
    raise ValueError("no [bold]funds[/bold] \\x1b[31m")


one = Flow("one").then(add).build()
failing = Flow("failing").then(add).then(fail).build()
asking = Flow("asking").then(add).wait_for_event("answer").build()
odd = Flow("odd").then(lambda _: {1, 2}).build()
"""


def fail(_: Any) -> None:
    raise ValueError("no [bold]funds[/bold] \x1b[31m\nsecond line")


SUM = Flow("sum").then(lambda x: x + 1, name="first").then(lambda x: x + 1, name="second").build()
FAILING = Flow("failing").then(lambda x: x, name="first").then(fail).build()
ASKING = Flow("asking").wait_for_event("answer", timeout="2h").build()
NAPPING = Flow("napping").delay("nap", "1h").build()
ODD = Flow("odd").then(lambda _: {1, 2}, name="odd").build()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> InMemoryBackend:
    place = InMemoryBackend()
    monkeypatch.setattr("sayiir.cli.session.connect", lambda url: place)
    return place


def sayiir(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(
        main, args, input=stdin, env={"SAYIIR_DATABASE_URL": "memory://", "COLUMNS": "300"}
    )


def runs(*args: str, code: int = 0) -> Result:
    result = sayiir("runs", *args)
    assert result.exit_code == code, result.output
    return result


def answer(*args: str, code: int = 0) -> Any:
    """What is said with --json: one object, and nothing else on stdout."""
    return json.loads(runs(*args, "--json", code=code).stdout)


@pytest.fixture
def states(backend: InMemoryBackend) -> InMemoryBackend:
    """One instance in each state, each named after it."""
    run_durable_workflow(SUM, "completed", 1, backend)
    run_durable_workflow(FAILING, "failed", 1, backend)
    run_durable_workflow(ASKING, "awaiting_signal", None, backend)
    run_durable_workflow(NAPPING, "waiting", None, backend)
    with SyncWorkflowClient(backend) as client:
        client.submit(SUM, "in_progress", 1)
        client.submit(SUM, "paused", 1)
        client.pause("paused", "too early", "ops")
        client.submit(SUM, "cancelled", 1)
        client.cancel("cancelled", "too late", "ops")
    return backend


# Lists.


def test_a_list_is_newest_first(states: InMemoryBackend) -> None:
    lines = runs("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "WORKFLOW", "STATUS", "CREATED", "UPDATED", "STEPS"]
    assert [line.split()[0] for line in lines[1:]] == [
        *("cancelled", "paused", "in_progress", "waiting", "awaiting_signal", "failed"),
        "completed",
    ]
    for line in lines[1:]:
        assert line.split()[0] == line.split()[2]


def test_a_list_as_json(states: InMemoryBackend) -> None:
    page = answer("list")
    assert page["cursor"] is None
    assert [row["instance_id"] == row["status"] for row in page["rows"]] == [True] * 7
    [row] = answer("list", "--status", "completed")["rows"]
    assert (row["workflow"], row["definition_hash"]) == ("sum", SUM.definition_hash)
    assert (row["steps"], row["tags"], row["priority"], row["worker_id"]) == (2, [], 3, None)
    assert row["ended_at"] >= row["created_at"] > "2024"


def test_filters(states: InMemoryBackend) -> None:
    def ids(*args: str) -> list[str]:
        return [row["instance_id"] for row in answer("list", *args)["rows"]]

    assert ids("--status", "paused") == ["paused"]
    assert ids("--workflow", "asking") == ["awaiting_signal"]
    assert ids("--prefix", "c") == ["cancelled", "completed"]
    assert ids("--prefix", "%") == []
    assert ids("--created-after", "1h", "--status", "failed") == ["failed"]
    assert ids("--created-before", "1h") == []
    assert ids("--created-before", "2100-01-01", "--status", "failed") == ["failed"]
    assert ids("--created-after", "2100-01-01") == []


def test_pages(states: InMemoryBackend) -> None:
    seen: list[str] = []
    page = answer("list", "--limit", "3")
    while True:
        seen += [row["instance_id"] for row in page["rows"]]
        if page["cursor"] is None:
            break
        page = answer("list", "--limit", "3", "--cursor", page["cursor"])
    assert len(seen) == len(set(seen)) == 7
    assert "there are more: --cursor" in runs("list", "--limit", "3").stderr
    assert "more" not in runs("list", "--limit", "7").stderr


def test_an_empty_list(backend: InMemoryBackend) -> None:
    result = runs("list")
    assert (result.stdout, result.stderr) == ("", "no instances match\n")
    assert answer("list") == {"rows": [], "cursor": None}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--status", "done"), "'done'"),
        (("--limit", "0"), "limit"),
        (("--limit", "1001"), "limit"),
        (("--limit", "many"), "limit"),
        (("--created-after", "soon"), "is no time"),
        (("--cursor", "x"), "cursor"),
        (("--workflow", ""), "workflow"),
        (("--prefix", "a" * 300), "id_prefix"),
    ],
)
def test_bad_filters(backend: InMemoryBackend, args: tuple[str, str], says: str) -> None:
    assert says in runs("list", *args, code=2).stderr


# One instance.


@pytest.mark.parametrize(
    ("instance_id", "says"),
    [
        ("completed", ["status      completed", "ended   ", "first", "second"]),
        ("awaiting_signal", ["waits for   event answer (at answer), until 2"]),
        ("waiting", ["waits for   delay nap, until 2", "no step has ended yet"]),
        ("paused", ["paused      by ops: too early"]),
        ("cancelled", ["cancelled   by ops: too late", "ended   "]),
        ("in_progress", ["status      in_progress", "no step has ended yet"]),
        (
            "failed",
            [
                "error: ValueError: no [bold]funds[/bold] \\x1b[31m\nsecond line",
                "Traceback (most recent call last):",
                "in fail",
                "ValueError: no [bold]funds[/bold] \\x1b[31m\n",
            ],
        ),
    ],
)
def test_show(states: InMemoryBackend, instance_id: str, says: list[str]) -> None:
    out = runs("show", instance_id).stdout
    for text in [f"instance    {instance_id}\n", *says]:
        assert text in out
    assert "\x1b" not in out


def test_show_as_json(states: InMemoryBackend) -> None:
    facts = answer("show", "failed")
    assert facts["error"]["type"] == "ValueError"
    assert facts["error"]["message"] == "no [bold]funds[/bold] \x1b[31m\nsecond line"
    assert "in fail" in facts["error"]["traceback"]
    assert [(step["path"], step["attempt"], step["outcome"]) for step in facts["history"]] == [
        ("first", 1, "completed"),
        ("fail", 1, "failed"),
    ]
    assert answer("show", "completed")["error"] is None
    assert answer("show", "awaiting_signal")["signal"] == "answer"
    assert answer("show", "waiting")["delay"] == "nap"
    paused = answer("show", "paused")
    assert (paused["reason"], paused["by"]) == ("too early", "ops")


def test_show_says_who_holds_it(backend: InMemoryBackend) -> None:
    hold(backend, "held", tags=("gpu", "eu"))
    facts = answer("show", "held")
    assert facts["worker_id"] == "w1"
    assert facts["tags"] == ["eu", "gpu"] or facts["tags"] == ["gpu", "eu"]
    assert "held by     w1\n" in runs("show", "held").stdout
    runs("pause", "held", "--reason", "wait", "--by", "me")
    assert "asked to stop  by me: wait" in runs("show", "held").stdout.replace("   ", "  ")


def test_no_payload_is_shown(backend: InMemoryBackend) -> None:
    run_durable_workflow(Flow("echo").then(lambda x: x, name="e").build(), "a", "c4n4ry", backend)
    for args in (["list"], ["show", "a"]):
        assert "c4n4ry" not in runs(*args).output + runs(*args, "--json").output


def test_hostile_names_are_shown_as_they_are(backend: InMemoryBackend) -> None:
    workflow = Flow(HOSTILE).wait_for_event(HOSTILE).build()
    run_durable_workflow(workflow, HOSTILE, None, backend)
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert answer("list", "--prefix", HOSTILE)["rows"][0]["instance_id"] == HOSTILE
    for args in (["list"], ["show", HOSTILE]):
        out = runs(*args).stdout
        assert shown in out
        assert "\u202e" not in out + runs(*args, "--json").stdout
    runs("pause", HOSTILE, "--reason", "[b]\x1b[31m\n", "--by", HOSTILE)
    assert f"by {shown}: [b]\\x1b[31m\\n" in runs("show", HOSTILE).stdout
    assert shown in runs("delete", HOSTILE, "--force").stdout


# Steering.


def test_steering(backend: InMemoryBackend) -> None:
    with SyncWorkflowClient(backend) as client:
        client.submit(SUM, "a", 1)
        assert runs("pause", "a", "--reason", "why").stdout == "a is paused\n"
        assert client.status("a").reason == "why"
        assert answer("pause", "a") == {"instance_id": "a", "status": "paused"}
        assert runs("unpause", "a").stdout == "a goes on\n"
        assert client.status("a").is_in_progress()
        assert runs("cancel", "a", "--by", "me").stdout == "a is cancelled\n"
        assert client.status("a").cancelled_by == "me"
        assert answer("cancel", "a") == {"instance_id": "a", "status": "cancelled"}
        assert runs("delete", "a").stdout == "a is deleted\n"
        assert len(client.list_instances()) == 0


def test_what_is_held_is_asked_to_stop(backend: InMemoryBackend) -> None:
    hold(backend, "a")
    assert runs("pause", "a").stdout == "a will be paused after its running step\n"
    assert runs("cancel", "a").stdout == "a will be cancelled at its next step\n"
    assert answer("cancel", "a") == {"instance_id": "a", "status": "in_progress"}
    runs("delete", "a", code=1)
    assert answer("delete", "a", "--force") == {"instance_id": "a", "deleted": True}


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (["show", "none"], "InstanceNotFoundError"),
        (["cancel", "none"], "InstanceNotFoundError"),
        (["pause", "none"], "InstanceNotFoundError"),
        (["unpause", "none"], "InstanceNotFoundError"),
        (["result", "none"], "InstanceNotFoundError"),
        (["delete", "none"], "InstanceNotFoundError"),
        (["cancel", "completed"], "InvalidStateError"),
        (["pause", "failed"], "InvalidStateError"),
        (["unpause", "in_progress"], "InvalidStateError"),
        (["delete", "waiting"], "InvalidStateError"),
        (["send", "completed", "answer"], "InvalidStateError"),
        (["result", "failed"], "WorkflowFailed"),
        (["result", "cancelled"], "WorkflowCancelled"),
        (["result", "waiting", "--timeout", "0"], "TimeoutError"),
    ],
)
def test_refusals(states: InMemoryBackend, args: list[str], kind: str) -> None:
    plain = runs(*args, code=1)
    assert plain.stdout == ""
    assert plain.stderr.startswith("Error: ")
    assert f"'{args[1]}'" in plain.stderr
    assert "\x1b" not in plain.stderr
    said = answer(*args, code=1)
    assert said["type"] == kind
    # The text is in JSON as it is, on a terminal it is shown.
    assert args[1] in said["error"]


@pytest.mark.parametrize("command", ["show", "cancel", "pause", "unpause", "result", "delete"])
@pytest.mark.parametrize("instance_id", ["", " ", "a" * 257, "a\nb"])
def test_bad_ids(backend: InMemoryBackend, command: str, instance_id: str) -> None:
    assert "instance_id" in runs(command, instance_id, code=2).stderr
    assert answer(command, instance_id, code=2)["type"] == "ValueError"


def test_an_id_may_look_like_an_option(backend: InMemoryBackend) -> None:
    run_durable_workflow(ASKING, "--force", None, backend)
    assert runs("show", "--", "--force").exit_code == 0


# Events and results.


def test_an_event_is_sent(states: InMemoryBackend, tmp_path: Path) -> None:
    result = runs("send", "awaiting_signal", "answer", '{"yes": [true]}')
    assert result.stdout == "event answer was sent to awaiting_signal\n"
    status = run_durable_workflow(
        ASKING, "awaiting_signal", None, states, conflict_policy="use_existing"
    )
    assert status.output == {"yes": [True]}


@pytest.mark.parametrize(
    ("args", "stdin", "payload"),
    [([], None, None), (["5"], None, 5), (["-"], b'["\xc3\xbc"]', ["ü"]), (["@f"], None, {"a": 1})],
)
def test_where_a_payload_comes_from(
    backend: InMemoryBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    stdin: bytes | None,
    payload: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text('{"a": 1}')
    result = sayiir("runs", "send", "a", "answer", *args, stdin=stdin)
    assert result.exit_code == 0
    assert "there is no instance a yet" in result.stderr
    assert run_durable_workflow(ASKING, "a", None, backend).output == payload


def test_a_key_counts_once(backend: InMemoryBackend) -> None:
    twice = Flow("twice").wait_for_event("e").wait_for_event("e").build()
    for payload in ("1", "2"):
        assert answer("send", "a", "e", payload, "--key", "k") == {
            "instance_id": "a",
            "event": "e",
            "status": None,
        }
    assert run_durable_workflow(twice, "a", None, backend).is_awaiting_signal()
    # Another one wakes it.
    assert answer("send", "a", "e")["status"] == "in_progress"


def test_a_bad_payload_sends_nothing(backend: InMemoryBackend) -> None:
    assert "the payload is no JSON" in runs("send", "a", "answer", "yes", code=2).stderr
    assert "event name" in runs("send", "a", "", code=2).stderr
    assert run_durable_workflow(ASKING, "a", None, backend).is_awaiting_signal()


def test_results(states: InMemoryBackend) -> None:
    assert runs("result", "completed").stdout == "3\n"
    assert answer("result", "completed") == {
        "instance_id": "completed",
        "status": "completed",
        "output": 3,
    }
    run_durable_workflow(ODD, "odd", None, states)
    result = runs("result", "odd")
    assert result.stdout == "{1, 2}\n"
    assert "no JSON" in result.stderr
    assert answer("result", "odd")["repr"] == "{1, 2}"
    assert "type" in answer("result", "failed", code=1)


def test_a_result_is_waited_for(backend: InMemoryBackend) -> None:
    with SyncWorkflowClient(backend) as client:
        client.submit(SUM, "a", 1)
        with Worker(backend, SUM, poll_interval="1h"):
            assert runs("result", "a", "--timeout", "30s").stdout == "3\n"


# Running here.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "workflows_of_test.py").write_text(WORKFLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "workflows_of_test", raising=False)
    return tmp_path


def test_run_prints_the_output(here: Path, backend: InMemoryBackend) -> None:
    result = sayiir("run", "workflows_of_test:one", "--input", "41", "--id", "a")
    assert (result.exit_code, result.stdout) == (0, "42\n")
    assert result.stderr == "instance a of workflow one\n"
    # The same once more does not run it again, whatever the input.
    result = sayiir("run", "workflows_of_test:one", "--input", "1", "--id", "a", "--json")
    assert json.loads(result.stdout) == {
        "instance_id": "a",
        "status": "completed",
        "output": 42,
    }


def test_run_without_an_id_is_a_new_instance(here: Path, backend: InMemoryBackend) -> None:
    told = [json.loads(sayiir("run", "workflows_of_test:one", "--json").stdout) for _ in "ab"]
    assert told[0]["output"] == told[1]["output"] == 1
    assert told[0]["instance_id"] != told[1]["instance_id"]


def test_run_reads_stdin(here: Path, backend: InMemoryBackend) -> None:
    result = sayiir("run", "workflows_of_test:one", "--input", "-", stdin=b" 41\n")
    assert result.stdout == "42\n"


def test_run_of_an_output_that_is_no_json(here: Path, backend: InMemoryBackend) -> None:
    result = sayiir("run", "workflows_of_test:odd")
    assert (result.exit_code, result.stdout) == (0, "{1, 2}\n")
    assert "The output is no JSON (a value of type set)" in result.stderr


def test_run_says_why_it_failed(here: Path, backend: InMemoryBackend) -> None:
    result = sayiir("run", "workflows_of_test:failing", "--id", "a")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "in fail\n" in result.stderr
    assert (
        "Error: task 'fail' of instance 'a' failed with ValueError: "
        "no [bold]funds[/bold] \\x1b[31m\n" in result.stderr
    )
    assert "\x1b" not in result.stderr
    told = json.loads(sayiir("run", "workflows_of_test:failing", "--id", "a", "--json").stdout)
    assert (told["type"], told["instance_id"]) == ("TaskError", "a")
    assert "in fail" in told["traceback"]


@pytest.mark.parametrize(("paused", "says"), [(True, "unpause"), (False, "was cancelled")])
def test_run_of_what_was_stopped(
    here: Path, backend: InMemoryBackend, paused: bool, says: str
) -> None:
    sayiir("run", "workflows_of_test:one", "--id", "b")
    from workflows_of_test import one  # type: ignore[import-not-found]

    with SyncWorkflowClient(backend) as client:
        client.submit(one, "a", 1)
        (client.pause if paused else client.cancel)("a")
    # What is opened stands in for the file.
    url = "sqlite:///stand-in.db"
    result = sayiir("run", "workflows_of_test:one", "--id", "a", "--url", url)
    assert result.exit_code == 1
    assert says in result.stderr


def test_run_of_another_definition(here: Path, backend: InMemoryBackend) -> None:
    run_durable_workflow(SUM, "a", 1, backend)
    result = sayiir("run", "workflows_of_test:one", "--id", "a", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["type"] == "DefinitionMismatchError"


@pytest.mark.parametrize("args", [("--id", ""), ("--id", "a\nb"), ("--input", "x")])
def test_run_refuses_bad_arguments(
    here: Path, backend: InMemoryBackend, args: tuple[str, str]
) -> None:
    assert sayiir("run", "workflows_of_test:one", *args).exit_code == 2


# The doctor.


def hold(
    backend: InMemoryBackend, instance_id: str, tags: tuple[str, ...] = ()
) -> Workflow[Any, Any]:
    """An instance that worker w1 holds, and its workflow."""
    from sayiir import task

    work = task("work", tags=tags)(lambda x: x)
    workflow = Flow("held").then(work).build()
    with SyncWorkflowClient(backend) as client:
        client.submit(workflow, instance_id, 1)
    claimant = Claimant("w1~000000000000", [workflow.program], lease_ttl=3600.0, width=1)
    assert backend.store.claim(claimant, 1, backend.now())
    return workflow


def doctor(*args: str, code: int = 0) -> Result:
    result = sayiir("doctor", "--patience", "0", *args)
    assert result.exit_code == code, result.output
    return result


def test_a_healthy_place(states: InMemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncWorkflowClient(states) as client:
        client.delete("in_progress", force=True)
    hold(states, "held")
    result = doctor()
    assert result.stderr == ""
    assert "instances       1 awaiting_signal, 1 cancelled, 1 completed" in result.stdout
    assert "held by         w1 (1)" in result.stdout
    told = json.loads(doctor("--json").stdout)
    assert (told["healthy"], told["problems"]) == (True, [])
    assert told["instances"]["paused"] == 1
    assert 0 < told["write_s"] < 60
    # The probe is gone again.
    assert answer("list", "--prefix", checkup.PROBE)["rows"] == []


def test_read_only_writes_nothing(
    backend: InMemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a write")

    for name in ("submit", "delete", "send_event", "claim"):
        monkeypatch.setattr(InMemoryBackend, name, refuse)
    assert "a write         not tried" in doctor("--read-only").stdout


def test_work_that_nobody_takes(states: InMemoryBackend) -> None:
    result = doctor(code=1)
    assert "problem: 1 ready instances of workflow 'sum'" in result.stderr
    assert "what to do: start a worker that has this definition" in result.stderr
    told = json.loads(doctor("--json", code=1).stdout)
    assert not told["healthy"]
    assert told["stuck"][0]["definition_hash"] == SUM.definition_hash
    assert told["problems"][0]["suggestion"]


def test_work_behind_a_busy_worker_is_not_stuck(backend: InMemoryBackend) -> None:
    workflow = hold(backend, "held", tags=("gpu",))
    with SyncWorkflowClient(backend) as client:
        client.submit(workflow, "next", 1)
    doctor()


def test_work_that_is_taken_while_it_is_watched_is_not_stuck(backend: InMemoryBackend) -> None:
    with SyncWorkflowClient(backend) as client, Worker(backend, SUM, poll_interval="1h"):
        client.submit_many(SUM, [(None, n) for n in range(100)])
        assert sayiir("doctor", "--patience", "1h").exit_code == 0


def test_a_missing_database_is_the_finding(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--json", "--url", f"sqlite:///{tmp_path}/no.db"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["healthy"]
    assert f"there is no database at {tmp_path}/no.db" in told["problems"][0]["problem"]


NOW = 1_800_000_000.0
WORKER = {"worker_id": "w1", "expires_at": NOW - 61, "held": 3}
SERVED = {"server": "postgresql://app@db:5432/shop", "schema": "sayiir", "clock_skew": 0.001}


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"backend": {"integrity": "page 7 is torn"}}, "damaged: page 7 is torn"),
        ({"backend": {"journal_mode": "delete"}}, "journal mode is delete"),
        ({"backend": {"wal_bytes": 2**30}}, "write-ahead log has grown to 1024 MiB"),
        ({"free": 2**20}, "only 1 MiB are free"),
        ({"now": 5.0}, "the clock says 1970-01-01T00:00:05.000Z"),
        ({"newest": NOW + 3600}, "3600.0 s in the future"),
        ({"newest": 1e300}, "in the future"),
        ({"workers": [WORKER]}, "3 instances are held by workers that have not been heard of"),
        ({"stuck": [StuckWork("w", "ab" * 32, ("gpu",), 5)]}, "5 ready instances of workflow 'w'"),
        ({"write_s": 0.5}, "takes 500 ms"),
        ({"backend": SERVED, "write_s": 0.5}, "takes 500 ms"),
        ({"backend": {**SERVED, "clock_skew": -90.0}}, "and of the server are 90.0 s apart"),
        ({"backend": {**SERVED, "dead_rows": 100_001}}, "100001 dead rows wait for a vacuum"),
        ({"backend": {**SERVED, "ready_oldest_age": 601.0}}, "has waited for 601.0 s"),
        (
            {
                "backend": {**SERVED, "ready_oldest_age": 1e6},
                "stuck": [StuckWork("w", "ab" * 32, (), 5)],
            },
            "5 ready instances of workflow 'w'",
        ),
    ],
)
def test_each_problem_has_a_suggestion(facts: dict[str, Any], says: str) -> None:
    [found] = problems_of(Facts(**{"now": NOW, **facts}))
    assert says in found.problem
    assert len(found.suggestion) > 20


def test_what_is_well_is_no_problem() -> None:
    assert problems_of(Facts()) == []
    well = Facts(
        now=NOW,
        newest=NOW + 59,
        free=2**40,
        write_s=0.09,
        backend={"integrity": "ok", "journal_mode": "wal", "wal_bytes": 2**20},
        workers=[{**WORKER, "expires_at": NOW - 59}, {**WORKER, "held": 0}],
        instances={"failed": 9, "paused": 9},
    )
    assert problems_of(well) == []
    ages = {"clock_skew": -59.0, "dead_rows": 100_018, "ready_oldest_age": 599.0}
    well.backend = {**SERVED, **ages}
    assert problems_of(well) == []


def test_what_is_slow_is_looked_for_where_it_is() -> None:
    [local] = problems_of(Facts(write_s=0.5))
    [served] = problems_of(Facts(write_s=0.5, backend=SERVED))
    assert "this disk" in local.suggestion
    assert "server" in served.suggestion


# Through a file.


@pytest.fixture
def url(here: Path) -> str:
    return f"sqlite:///{here}/app.db"


def test_commands_share_a_file(url: str) -> None:
    def run(*args: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, [*args, "--url", url, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    assert run("run", "workflows_of_test:one", "--id", "a", "--input", "1")["output"] == 2
    assert run("run", "workflows_of_test:failing", "--id", "b", code=1)["type"] == "TaskError"
    assert [row["instance_id"] for row in run("runs", "list")["rows"]] == ["b", "a"]
    assert run("runs", "show", "b")["error"]["type"] == "ValueError"
    assert run("runs", "send", "c", "answer", '"yes"')["status"] is None
    assert run("run", "workflows_of_test:asking", "--id", "c")["output"] == "yes"
    assert run("runs", "result", "c")["output"] == "yes"
    assert run("runs", "delete", "c")["deleted"]
    assert run("runs", "result", "c", code=1)["type"] == "InstanceNotFoundError"
    told = run("doctor", "--patience", "0")
    assert told["healthy"]
    assert told["instances"] == {"completed": 1, "failed": 1}
    assert told["backend"]["integrity"] == "ok"
    assert {"path", "bytes", "journal_mode", "synchronous", "schema_version"} <= set(
        told["backend"]
    )


def test_the_doctor_sees_who_holds_work(url: str) -> None:
    with SyncWorkflowClient.from_url(url) as client:
        client.submit(SUM, "a", 1)
        claimant = Claimant("w1~000000000000", [SUM.program], lease_ttl=3600.0, width=1)
        assert client.run(client.backend.claim, claimant, 1)
        told = json.loads(CliRunner().invoke(main, ["doctor", "--json", "--url", url]).stdout)
        assert told["healthy"]
        [worker] = told["workers"]
        assert (worker["worker_id"], worker["held"]) == ("w1", 1)
        assert worker["expires_at"] > told["now"]


@pytest.mark.parametrize("content", [b"no database at all\n" * 100, b"SQLite format 3\0" * 300])
def test_a_file_that_is_no_database_is_the_finding(here: Path, content: bytes) -> None:
    (here / "bad.db").write_bytes(content)
    url = "sqlite:///bad.db"
    result = CliRunner().invoke(main, ["doctor", "--json", "--url", url])
    assert result.exit_code == 1
    assert f"{here}/bad.db" in json.loads(result.stdout)["problems"][0]["problem"]
    result = CliRunner().invoke(main, ["runs", "list", "--json", "--url", url])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["type"] == "SnapshotFormatError"
    assert (here / "bad.db").read_bytes() == content


def test_a_closed_pipe_is_no_traceback(url: str) -> None:
    with SyncWorkflowClient.from_url(url) as client:
        client.submit_many(SUM, [(f"{n:03}-{'x' * 200}", n) for n in range(1000)])
    listing = subprocess.Popen(
        [sys.executable, "-m", "sayiir", "runs", "list", "--limit", "1000", "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    assert listing.stdout.readline().startswith(b"ID ")
    listing.stdout.close()
    assert listing.stderr is not None
    with listing.stderr:
        assert b"Traceback" not in listing.stderr.read()
    assert listing.wait(60) == 1


# Through a server.


@pytest.fixture
def served(here: Path) -> Iterator[str]:
    server, schema = required(swift=True), f"cli_{token_hex(6)}"
    yield server.url(schema=schema)
    server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def test_commands_share_a_schema(served: str) -> None:
    def run(*args: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, [*args, "--url", served, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    assert run("run", "workflows_of_test:one", "--id", "a", "--input", "1")["output"] == 2
    assert run("run", "workflows_of_test:failing", "--id", "b", code=1)["type"] == "TaskError"
    assert [row["instance_id"] for row in run("runs", "list")["rows"]] == ["b", "a"]
    assert run("runs", "send", "c", "answer", '"yes"')["status"] is None
    assert run("run", "workflows_of_test:asking", "--id", "c")["output"] == "yes"
    assert run("runs", "delete", "c")["deleted"]
    told = run("doctor", "--patience", "0")
    assert told["healthy"]
    assert told["instances"] == {"completed": 1, "failed": 1}
    assert {"server", "server_version", "schema", "schema_version", "database_bytes"} <= set(
        told["backend"]
    )


def test_the_doctor_speaks_of_a_server(served: str) -> None:
    with SyncWorkflowClient.from_url(served) as client:
        client.submit(SUM, "a", 1)
        claimant = Claimant("w1~000000000000", [SUM.program], lease_ttl=3600.0, width=1)
        assert client.run(client.backend.claim, claimant, 1)
        result = CliRunner().invoke(main, ["doctor", "--url", served])
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert "@127.0.0.1:" in lines["database"]
    assert lines["database"].endswith(f"schema {served.rpartition('=')[2]}")
    assert {"schema", "server", "bytes", "connections", "clock", "dead", "held", "a"} <= set(lines)
    assert "held by         w1 (1)" in result.stdout
    assert "server version  1" in result.stdout
    # The password is nobody's business.
    assert served.partition("@")[0].rpartition(":")[2] not in result.output


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://app:hunter2@127.0.0.1:1/shop", "check that the server runs"),
        (None, "run 'sayiir migrate'"),
    ],
)
def test_a_server_that_cannot_be_used_is_the_finding(
    served: str, url: str | None, says: str
) -> None:
    result = CliRunner().invoke(main, ["doctor", "--json", "--url", url or served])
    assert result.exit_code == 1
    [told] = json.loads(result.stdout)["problems"]
    assert says in told["suggestion"]
    assert "127.0.0.1" in told["problem"]
    assert "hunter2" not in result.output
