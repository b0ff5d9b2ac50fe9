"""Tables in notebooks: what they tell, that they tell no payload, and that no name is obeyed."""

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast
from xml.etree import ElementTree

import pytest
from IPython.core.formatters import HTMLFormatter

from sayiir import (
    Flow,
    InMemoryBackend,
    InstanceInfo,
    InstancePage,
    Status,
    StepInfo,
    SyncWorkflowClient,
    Workflow,
    WorkflowClient,
    WorkflowStatus,
    run_durable_workflow,
)
from sayiir._listing import History

HOSTILE = "<script>alert(1)</script> & \"a\" 'b' \u202e ]]> -->"
AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def canary(_: Any) -> str:
    return "canary"


def fail(_: Any) -> None:
    raise ValueError("canary of an error")


TELLING: Workflow[Any, str] = Flow("telling").then(canary).build()
FAILING: Workflow[Any, None] = Flow("failing").then(fail).build()


class Shown(Protocol):
    def _repr_html_(self) -> str: ...


def cells(shown: object) -> list[list[str]]:
    """The texts of a table, row by row: its title first."""
    page = cast(Shown, shown)._repr_html_()
    # What a notebook asks for is what it gets.
    assert HTMLFormatter()(shown) == page
    assert "canary" not in page
    table = ElementTree.fromstring(page)
    assert table.tag == "table"
    assert {element.tag for element in table.iter()} <= {
        *("table", "caption", "tr", "th", "td", "bdi")
    }
    title = "".join(table.find("caption").itertext())  # type: ignore[union-attr]
    return [[title], *(["".join(cell.itertext()) for cell in row] for row in table.findall("tr"))]


def test_a_status() -> None:
    status: WorkflowStatus[Any] = WorkflowStatus(
        "o-1",
        "order",
        Status.AWAITING_SIGNAL,
        signal_name="approved",
        wake_at=AT,
        created_at=AT - timedelta(days=1),
    )
    assert cells(status) == [
        ["o-1 (order)"],
        ["status", "awaiting_signal"],
        ["awaits event", "approved"],
        ["until", "2026-01-02 03:04:05 UTC"],
        ["created", "2026-01-01 03:04:05 UTC"],
    ]


def test_of_an_output_only_type_and_size_are_told() -> None:
    backend = InMemoryBackend()
    told = cells(run_durable_workflow(TELLING, "t", 1, backend))
    assert told[1] == ["status", "completed"]
    [output] = [value for name, value in told[1:] if name == "output"]
    assert output.startswith("str, ")
    assert output.endswith(" bytes")
    damaged: WorkflowStatus[Any] = WorkflowStatus(
        "d", "w", Status.COMPLETED, output_bytes=b"canary", decode=int
    )
    assert cells(damaged)[2] == ["output", "damaged, 6 bytes"]
    # There is nothing to be told of an output that was never decoded.
    assert cells(WorkflowStatus("d", "w", Status.COMPLETED))[1:] == [["status", "completed"]]


def test_of_an_error_only_the_type_is_told() -> None:
    told = cells(run_durable_workflow(FAILING, "f", 1, InMemoryBackend()))
    assert ["error", "ValueError"] in told


async def test_a_handle_tells_what_it_knows() -> None:
    async with WorkflowClient(InMemoryBackend()) as client:
        handle = await client.submit(TELLING, "t", "canary")
        assert cells(handle) == [["t (telling)"], ["status", "in_progress"]]
        await handle.pause("too early", "ann")
        await handle.refresh()
        assert cells(handle)[1:4] == [
            ["status", "paused"],
            ["reason", "too early"],
            ["paused by", "ann"],
        ]


def test_a_handle_without_a_loop() -> None:
    with SyncWorkflowClient(InMemoryBackend()) as client:
        assert cells(client.submit(TELLING, "t", 1))[0] == ["t (telling)"]


def test_pages_and_histories() -> None:
    backend = InMemoryBackend()
    run_durable_workflow(TELLING, "t", "canary", backend)
    run_durable_workflow(FAILING, "f", "canary", backend)
    with SyncWorkflowClient(backend) as client:
        title, head, *rows = cells(client.list_instances())
        assert (title, head) == (
            ["2 instances"],
            ["id", "workflow", "status", "created", "updated", "steps"],
        )
        assert [row[:3] for row in rows] == [
            ["f", "failing", "failed"],
            ["t", "telling", "completed"],
        ]
        assert cells(client.list_instances(limit=1))[0] == ["1 instance, and there are more"]
        history = client.history("f")
        title, head, row = cells(history)
        assert (title, head[:3], row[:3]) == (
            ["1 step"],
            ["path", "attempt", "outcome"],
            ["fail", "1", "failed"],
        )
        assert row[-1] == "ValueError"
        # It is a list all the same.
        assert history == list(history)
        assert isinstance(history, list)
        assert repr(history) == repr(list(history))


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000])
def test_tables_are_bounded_and_say_so(count: int) -> None:
    info = InstanceInfo("i", "w", "00" * 32, Status.COMPLETED, AT, AT)
    step = StepInfo("a", "a", 1, "w", AT, AT, "completed")
    for shown in (InstancePage((info,) * count), History([step] * count)):
        rows = cells(shown)[2:]
        if count <= 100:
            assert len(rows) == count
        else:
            assert len(rows) == 101
            assert rows[-1] == [f"… {count - 100} more"]


def test_no_name_is_obeyed() -> None:
    status: WorkflowStatus[Any] = WorkflowStatus(
        HOSTILE, HOSTILE, Status.PAUSED, reason=HOSTILE, paused_by="\x00\x1b\ud800"
    )
    assert cells(status) == [
        [f"{HOSTILE} ({HOSTILE})"],
        ["status", "paused"],
        ["reason", HOSTILE],
        ["paused by", "���"],
    ]
    step = StepInfo(HOSTILE, HOSTILE, 1, HOSTILE, AT, AT, "failed", HOSTILE, HOSTILE)
    assert cells(History([step]))[2][0] == HOSTILE
    info = InstanceInfo(HOSTILE, HOSTILE, "00" * 32, Status.FAILED, AT, AT)
    assert cells(InstancePage((info,)))[2][:2] == [HOSTILE, HOSTILE]
