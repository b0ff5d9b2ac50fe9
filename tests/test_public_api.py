"""The face of the package: which names there are, what they take, and what importing them costs.

Whoever changes one of these lists changes what users rely on, and should mean it. How the calls
behave is tested elsewhere.
"""

import builtins
import inspect
import re
import subprocess
import sys
from importlib import resources
from types import ModuleType
from typing import Any

import pytest

import sayiir
from sayiir import codecs

NAMES = [
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "BranchBuilder",
    "CodecError",
    "ConflictPolicy",
    "DecodeError",
    "DefinitionMismatchError",
    "EncodeError",
    "EventTimeout",
    "Flow",
    "ForkBuilder",
    "InMemoryBackend",
    "InstanceAlreadyExistsError",
    "InstanceInfo",
    "InstanceNotFoundError",
    "InstancePage",
    "InvalidStateError",
    "LeaseLostError",
    "LoopResult",
    "MapError",
    "NodeInfo",
    "NonRetryable",
    "OnError",
    "OnMax",
    "OnTimeout",
    "PostgresBackend",
    "RetryAfter",
    "RetryPolicy",
    "RouteBuilder",
    "SayiirError",
    "SnapshotFormatError",
    "SqliteBackend",
    "Status",
    "StepInfo",
    "SyncWorkflowClient",
    "SyncWorkflowHandle",
    "TaskContext",
    "TaskError",
    "TaskExecutionContext",
    "TaskLogFilter",
    "TaskMetadata",
    "TaskTimeout",
    "Worker",
    "WorkerMetrics",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowClient",
    "WorkflowError",
    "WorkflowFailed",
    "WorkflowHandle",
    "WorkflowStatus",
    "__version__",
    "cancel_workflow",
    "cancel_workflow_async",
    "connect",
    "get_task_context",
    "parse_duration",
    "pause_workflow",
    "pause_workflow_async",
    "resume_workflow",
    "resume_workflow_async",
    "run_durable_workflow",
    "run_durable_workflow_async",
    "run_workflow",
    "run_workflow_async",
    "send_signal",
    "send_signal_async",
    "task",
    "unpause_workflow",
    "unpause_workflow_async",
]

TREE = """
SayiirError (RuntimeError)
  WorkflowError
    TaskError
      TaskTimeout (TimeoutError)
    WorkflowFailed
    WorkflowCancelled
    InstanceAlreadyExistsError
    DefinitionMismatchError
    BackendError
      InstanceNotFoundError (LookupError)
      InvalidStateError
      LeaseLostError
      BackendUnavailableError (ConnectionError)
  CodecError
    EncodeError (TypeError)
    DecodeError (ValueError)
    SnapshotFormatError
"""
"""A child is further in; in brackets is what else it is."""

CLIENT = {
    "__init__": "(backend, conflict_policy='fail')",
    "from_url": "(url=None, conflict_policy='fail', *, codec=None)",
    "with_conflict_policy": "(conflict_policy)",
    "submit": "(workflow, instance_id=None, input=None, *, conflict_policy=None, start_at=None, "
    "connection=None)",
    "submit_many": "(workflow, items, *, conflict_policy=None, start_at=None)",
    "status": "(instance_id)",
    "result": "(instance_id, timeout=None)",
    "cancel": "(instance_id, reason=None, cancelled_by=None)",
    "pause": "(instance_id, reason=None, paused_by=None)",
    "unpause": "(instance_id)",
    "send_event": "(instance_id, name, payload=None, *, idempotency_key=None, connection=None)",
    "send_signal": "(instance_id, name, payload=None, *, idempotency_key=None, connection=None)",
    "get_task_result": "(instance_id, task, default=None)",
    "list_instances": "(*, status=None, workflow=None, id_prefix=None, created_after=None, "
    "created_before=None, limit=100, cursor=None)",
    "history": "(instance_id)",
    "watch": "(instance_id, after=0)",
    "wait_until": "(instance_id, *statuses, timeout=None)",
    "delete": "(instance_id, force=False)",
    "export": "(instance_id)",
    "import_": "(data, new_id=None)",
    "close": "()",
}
AT_ONCE = {"__init__", "from_url", "watch", "with_conflict_policy"}
HANDLE = {
    "result": "(timeout=None)",
    "refresh": "()",
    "history": "()",
    "watch": "(after=0)",
    "wait_until": "(*statuses, timeout=None)",
    "cancel": "(reason=None, cancelled_by=None)",
    "pause": "(reason=None, paused_by=None)",
    "unpause": "()",
    "send_event": "(name, payload=None, *, idempotency_key=None)",
}
RUNNING = {
    "run_workflow": "(workflow, input, *, instance_id=None, backend=None, conflict_policy=None)",
    "run_durable_workflow": "(workflow, instance_id, input, backend=None, conflict_policy=None, *, "
    "lease_ttl='30s')",
    "resume_workflow": "(workflow, instance_id, backend, *, lease_ttl='30s')",
    "cancel_workflow": "(instance_id, backend, reason=None, cancelled_by=None)",
    "pause_workflow": "(instance_id, backend, reason=None, paused_by=None)",
    "unpause_workflow": "(instance_id, backend)",
    "send_signal": "(instance_id, signal_name, payload, backend)",
}
# What nobody pays for who does not ask for it.
OPTIONAL = {
    *("click", "rich", "pydantic", "msgspec", "pytest", "hypothesis"),
    *("opentelemetry", "prometheus_client"),
    *("psycopg", "asyncpg", "sqlalchemy", "sqlite3", "multiprocessing", "pickle", "shelve"),
    *("concurrent.futures.process", "urllib.request", "http.client", "unittest"),
}


def shape(function: Any) -> str:
    """The parameters without their types, and without `self` and `cls`."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters))


def public(cls: type) -> dict[str, Any]:
    """What a class itself offers: its calls and properties."""
    return {
        name: value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        for name, value in vars(cls).items()
        if not name.startswith("_")
    }


def test_the_names_are_these_and_sorted() -> None:
    assert sayiir.__all__ == NAMES == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)
    assert all(hasattr(sayiir, name) for name in NAMES)


def test_the_names_of_codecs_are_these_and_load_with_the_first_use() -> None:
    names = ["Codec", "KeyRing", "Keys", "PayloadCodec", "PickleWarning", "Place"]
    assert sorted(codecs.__all__) == names
    script = (
        "import sys, sayiir; sayiir.connect('memory://'); print('sayiir.codecs' in sys.modules)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert asked.stdout == "False\n"


def test_nothing_else_shows() -> None:
    others = {
        name
        for name, value in vars(sayiir).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert others <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_thing_says_what_it_is(name: str) -> None:
    thing = getattr(sayiir, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*", thing)
        return
    own = thing.__doc__ if isinstance(thing, type) else inspect.getdoc(thing)
    assert own, f"{name} has no docstring"
    assert own.strip().split("\n")[0].endswith((".", ":")), f"{name} opens without a sentence"
    if isinstance(thing, type):
        for member, value in public(thing).items():
            if callable(value) or isinstance(value, property):
                assert inspect.getdoc(value), f"{name}.{member} has no docstring"


def test_the_exceptions_are_this_tree() -> None:
    above: list[str] = []
    for line in TREE.strip().split("\n"):
        found = re.fullmatch(r"( *)(\w+)(?: \((\w+)\))?", line)
        assert found is not None
        depth, name, other = len(found[1]) // 2, found[2], found[3]
        del above[depth:]
        expected = [getattr(sayiir, above[-1])] if above else []
        expected += [getattr(builtins, other)] if other else []
        assert list(getattr(sayiir, name).__bases__) == expected, name
        above.append(name)
    exceptions = {
        name
        for name in NAMES
        if isinstance(getattr(sayiir, name), type)
        and issubclass(getattr(sayiir, name), BaseException)
    }
    assert exceptions - set(re.findall(r"\w+Error|Task\w+|Work\w+", TREE)) == {
        "NonRetryable",
        "RetryAfter",
    }


def test_the_calls_of_the_client() -> None:
    offered = public(sayiir.WorkflowClient)
    calls = {name: shape(value) for name, value in offered.items() if callable(value)}
    calls["__init__"] = shape(sayiir.WorkflowClient.__init__)
    assert calls == CLIENT
    for name, value in offered.items():
        if callable(value):
            assert inspect.iscoroutinefunction(value) is (name not in AT_ONCE), name
    assert {name for name, value in offered.items() if not callable(value)} == {
        "backend",
        "conflict_policy",
    }


def test_the_client_without_a_loop_has_the_same_calls() -> None:
    offered = public(sayiir.SyncWorkflowClient)
    calls = {name: shape(value) for name, value in offered.items() if callable(value)}
    calls["__init__"] = shape(sayiir.SyncWorkflowClient.__init__)
    assert {name: calls[name] for name in CLIENT} == CLIENT
    assert not any(inspect.iscoroutinefunction(value) for value in offered.values())


def test_the_calls_of_a_handle() -> None:
    for handle in (sayiir.WorkflowHandle, sayiir.SyncWorkflowHandle):
        offered = public(handle)
        assert {name: shape(offered[name]) for name in HANDLE} == HANDLE
        assert {"status", "output"} <= set(offered)
    assert "instance_id" in public(sayiir.WorkflowHandle)


@pytest.mark.parametrize("name", RUNNING)
def test_running_here_and_its_twin(name: str) -> None:
    function, twin = getattr(sayiir, name), getattr(sayiir, f"{name}_async")
    assert shape(function) == shape(twin) == RUNNING[name]
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(function)


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter loads for this, beyond its own."""
    program = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_it_loads_nothing() -> None:
    assert loaded_by("import sayiir") == {"sayiir"}


def test_writing_flows_loads_no_event_loop() -> None:
    loaded = loaded_by(
        "from sayiir import Flow, LoopResult, RetryPolicy, SayiirError, TaskContext, task; "
        "Flow('one').then(task(lambda x: x, name='same')).build()"
    )
    assert {"sayiir._core", "sayiir._flow"} <= loaded
    assert {"asyncio", "logging", "socket", "ssl", "threading", "uuid"} & loaded == set()
    assert {"sayiir._picture", "sayiir._run", "sayiir._worker", "sayiir.backends"} & loaded == set()
    assert OPTIONAL & loaded == set()


def test_submitting_loads_nothing_that_runs() -> None:
    loaded = loaded_by("from sayiir import WorkflowClient")
    assert {"sayiir._client", "asyncio"} <= loaded
    assert {"sayiir._run", "sayiir._runner", "sayiir._worker", "sayiir.testing"} & loaded == set()
    assert OPTIONAL & loaded == set()


def test_running_loads_nothing_optional() -> None:
    assert OPTIONAL & loaded_by("from sayiir import *") == set()


def test_an_unknown_name_is_refused_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match=r"^module 'sayiir' has no attribute 'Flwo'$") as found:
        _ = sayiir.Flwo  # type: ignore[attr-defined]
    # What an interpreter goes by when it asks "Did you mean: 'Flow'?".
    assert (found.value.name, found.value.obj) == ("Flwo", sayiir)
    with pytest.raises(ImportError, match=r"^cannot import name 'Flwo' from 'sayiir' \("):
        exec("from sayiir import Flwo")


def test_a_module_that_cannot_be_loaded_says_why() -> None:
    program = "import sys; sys.modules['sayiir._core'] = None; import sayiir; sayiir.Flow"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ModuleNotFoundError: import of sayiir._core ")


def test_the_backends_are_there_without_being_imported() -> None:
    program = "import sayiir; print(sayiir.backends.InMemoryBackend is sayiir.InMemoryBackend)"
    asked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert asked.stdout == "True\n"


def test_it_is_typed() -> None:
    assert (resources.files("sayiir") / "py.typed").is_file()
    assert (resources.files("sayiir") / "_core.pyi").is_file()
