"""The notebook: what one kernel submitted ends in the next, and its outputs are as printed."""

import os
import signal

import nbformat
import pytest
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbclient import NotebookClient

from sayiir import WorkflowClient

from .program import EXAMPLES, Place

NOTEBOOK = EXAMPLES / "notebook.ipynb"


def as_printed() -> nbformat.NotebookNode:
    """The notebook as it stands in the repository, with the outputs that a reader sees."""
    read: nbformat.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    return read


def outputs_of(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """What stands below each cell of code."""
    return [
        [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]
        for outputs in (cell["outputs"] for cell in notebook.cells if cell.cell_type == "code")
    ]


@pytest.fixture
def environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """What a kernel is started with, which is what this process has."""
    wanted = place.environment(JUPYTER_PLATFORM_DIRS="1")
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return place


async def run(notebook: nbformat.NotebookNode, place: Place, last: str) -> int:
    """Run its cells in a kernel of its own, to the first that has `last` in it, and kill that.

    Returns:
        The number of the kernel's process.
    """
    client = NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(place.folder)}}
    )
    async with client.async_setup_kernel():
        assert client.km is not None
        assert isinstance(client.km.provisioner, LocalProvisioner)
        pid = client.km.provisioner.pid
        assert pid is not None
        for number, cell in enumerate(notebook.cells):
            await client.async_execute_cell(cell, number)
            if last in cell.source:
                break
        os.kill(pid, signal.SIGKILL)
    return pid


async def test_what_a_killed_kernel_submitted_ends_in_the_next(environment: Place) -> None:
    first = await run(as_printed(), environment, "client.submit")
    async with WorkflowClient.from_url(f"sqlite:///{environment.folder}/sayiir.db") as client:
        assert not (await client.status("essay-1")).is_terminal()
        notebook = as_printed()
        second = await run(notebook, environment, "client.close")
        assert outputs_of(notebook) == outputs_of(as_printed())
        status, history = await client.status("essay-1"), await client.history("essay-1")
    assert status.output == "The sea, an essay of 23 words"
    # Worker ids name the process.
    assert {step.path: f"-{second}-" in step.worker_id for step in history}["cover"]
    assert all(
        f"-{first}-" in step.worker_id or f"-{second}-" in step.worker_id for step in history
    )


def test_the_notebook_carries_its_outputs_and_nothing_of_a_machine() -> None:
    notebook = as_printed()
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata.language_info == {"name": "python"}
