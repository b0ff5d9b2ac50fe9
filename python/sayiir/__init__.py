"""Durable workflows in plain Python: functions that survive crashes, with nothing to deploy.

After every task its result and the next position are committed in one step; a killed process costs
at most the step it was in. `Flow` chains tasks into a `Workflow`, `WorkflowClient` submits
instances of it, `Worker` runs them, a backend keeps them.

Importing the package loads none of its modules: a module is loaded when one of its names is first
asked for, as `from sayiir import Flow` does, so that a program pays for what it uses.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._client import (
        ConflictPolicy,
        InstanceInfo,
        InstancePage,
        StepInfo,
        WorkflowClient,
        WorkflowHandle,
    )
    from ._context import TaskContext, TaskExecutionContext, get_task_context
    from ._duration import parse_duration
    from ._errors import (
        BackendError,
        BackendUnavailableError,
        CodecError,
        DecodeError,
        DefinitionMismatchError,
        EncodeError,
        InstanceAlreadyExistsError,
        InstanceNotFoundError,
        InvalidStateError,
        LeaseLostError,
        NonRetryable,
        RetryAfter,
        SayiirError,
        SnapshotFormatError,
        TaskError,
        TaskTimeout,
        WorkflowCancelled,
        WorkflowError,
        WorkflowFailed,
    )
    from ._flow import BranchBuilder, Flow, ForkBuilder, RouteBuilder
    from ._logging import TaskLogFilter
    from ._metrics import WorkerMetrics
    from ._policy import RetryPolicy, TaskMetadata
    from ._run import (
        cancel_workflow,
        cancel_workflow_async,
        pause_workflow,
        pause_workflow_async,
        resume_workflow,
        resume_workflow_async,
        run_durable_workflow,
        run_durable_workflow_async,
        run_workflow,
        run_workflow_async,
        send_signal,
        send_signal_async,
        unpause_workflow,
        unpause_workflow_async,
    )
    from ._status import Status, WorkflowStatus
    from ._sync_client import SyncWorkflowClient, SyncWorkflowHandle
    from ._task import task
    from ._url import connect
    from ._values import EventTimeout, LoopResult, MapError, OnError, OnMax, OnTimeout
    from ._worker import Worker
    from ._workflow import NodeInfo, Workflow
    from .backends import Backend, InMemoryBackend, PostgresBackend, SqliteBackend

__version__ = "2.0.0a1"

__all__ = [
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

if not TYPE_CHECKING:  # A checker that saw `__getattr__` would believe in any name.
    # Where the names above are, once more; a test holds the two together.
    _NAMES = {
        "_client": """
            ConflictPolicy InstanceInfo InstancePage StepInfo WorkflowClient WorkflowHandle
        """,
        "_context": "TaskContext TaskExecutionContext get_task_context",
        "_duration": "parse_duration",
        "_errors": """
            BackendError BackendUnavailableError CodecError DecodeError DefinitionMismatchError
            EncodeError InstanceAlreadyExistsError InstanceNotFoundError InvalidStateError
            LeaseLostError NonRetryable RetryAfter SayiirError SnapshotFormatError TaskError
            TaskTimeout WorkflowCancelled WorkflowError WorkflowFailed
        """,
        "_flow": "BranchBuilder Flow ForkBuilder RouteBuilder",
        "_logging": "TaskLogFilter",
        "_metrics": "WorkerMetrics",
        "_policy": "RetryPolicy TaskMetadata",
        "_run": """
            cancel_workflow cancel_workflow_async pause_workflow pause_workflow_async
            resume_workflow resume_workflow_async run_durable_workflow
            run_durable_workflow_async run_workflow run_workflow_async send_signal
            send_signal_async unpause_workflow unpause_workflow_async
        """,
        "_status": "Status WorkflowStatus",
        "_sync_client": "SyncWorkflowClient SyncWorkflowHandle",
        "_task": "task",
        "_url": "connect",
        "_values": "EventTimeout LoopResult MapError OnError OnMax OnTimeout",
        "_worker": "Worker",
        "_workflow": "NodeInfo Workflow",
        "backends": "Backend InMemoryBackend PostgresBackend SqliteBackend",
    }
    _HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        """Load the module of a name, and keep what it has there, so that this is asked once.

        Raises:
            AttributeError: There is no such name.
            ImportError: Its module cannot be loaded; the import of it says why.
        """
        from importlib import import_module

        if name == "backends":  # Ever since there after `import sayiir` alone.
            return import_module(".backends", __name__)
        if name not in _HOMES:
            text = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=import_module(__name__))
        found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING
