"""Durable workflows in plain Python: functions that survive crashes, with nothing to deploy.

After every task its result and the next position are committed in one step; a killed process costs
at most the step it was in. `Flow` chains tasks into a `Workflow`, `WorkflowClient` submits
instances of it, `Worker` runs them, a backend keeps them.
"""

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
