"""The last items of a spread map end at the very moment at which something befalls their parent.

Each seed brings a parent to where its last two items run, and, beside them, in half of the stories,
a step of its own, so that it parks at that moment, too. Then everything is let go at once: both
items end, and the parent is cancelled, paused, deleted or replaced. Whatever comes first, no body
runs twice, nothing is stranded, and the parent ends as the table of states says. `SAYIIR_SEED=n`
runs one seed alone.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from sayiir import (
    Flow,
    InstanceNotFoundError,
    InvalidStateError,
    Worker,
    Workflow,
    WorkflowClient,
    get_task_context,
    task,
)

from .working import LONG, Places

ACTS = ("nothing", "cancel", "pause", "delete", "replace", "cancel an item", "delete an item")
ENDED = ("completed", "failed", "cancelled")
COUNT = 140
ON_A_SERVER = 56


class Scene:
    """A backend, and flows whose bodies wait to be let go."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.backend = make()
        self.client = WorkflowClient(self.backend)
        self.gates: dict[str, asyncio.Event] = {}
        self.inside: Counter[str] = Counter()
        self.starts: Counter[tuple[str, str]] = Counter()

        async def gated(value: Any) -> Any:
            context = get_task_context()
            assert context is not None
            self.starts[context.instance_id, context.path] += 1
            root = context.instance_id.partition("~")[0]
            self.inside[root] += 1
            try:
                await self.gates.setdefault(root, asyncio.Event()).wait()
            finally:
                self.inside[root] -= 1
            return value

        def flow(on_error: Any) -> Workflow[Any, Any]:
            spread = Flow(f"parts-{on_error}").map(
                task("part")(gated), spread=True, on_error=on_error, name="parts"
            )
            return spread.build()

        self.alone = {rule: flow(rule) for rule in ("fail", "collect")}
        self.beside: dict[str, Workflow[Any, Any]] = {
            rule: Flow(f"beside-{rule}")
            .fork()
            .branch(whole, name="parts")
            .branch(task("own")(gated))
            .join(lambda both: both["parts"])
            .build()
            for rule, whole in self.alone.items()
        }

    async def until(self, fact: Callable[[], Awaitable[bool]]) -> None:
        """Wait until this is true; the worker gets a turn each time."""
        async with asyncio.timeout(LONG):
            while not await fact():  # noqa: ASYNC110
                await asyncio.sleep(0)


class Story:
    """One seed."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.chance = chance = random.Random(seed)
        self.name = f"i-{seed}"
        self.act = ACTS[seed % len(ACTS)]
        self.busy = chance.random() < 0.5
        self.rule = chance.choice(["fail", "collect"])
        self.workflow = (scene.beside if self.busy else scene.alone)[self.rule]
        self.refused = False

    def __str__(self) -> str:
        return f"{self.name}: {self.act}, {self.workflow.workflow_id}"

    async def tell(self) -> None:
        """Play it, and judge it."""
        scene, running = self.scene, 3 if self.busy else 2
        await scene.client.submit(self.workflow, self.name, ["a", "b"])

        async def all_run() -> bool:
            return scene.inside[self.name] == running

        await scene.until(all_run)
        items = await self.items()
        assert len(items) == 2
        deeds = [self.let_go(), self.do(items[0])]
        self.chance.shuffle(deeds)
        await asyncio.gather(*deeds)
        await self.judge()

    async def items(self) -> list[str]:
        page = await self.scene.backend.find(id_prefix=f"{self.name}~", limit=10)
        return sorted(row.instance_id for row in page.rows)

    async def let_go(self) -> None:
        for _ in range(self.chance.randrange(8)):
            await asyncio.sleep(0)
        self.scene.gates[self.name].set()

    async def do(self, item: str) -> None:
        """What befalls the parent, or one of its items."""
        client = self.scene.client
        for _ in range(self.chance.randrange(8)):
            await asyncio.sleep(0)
        try:
            match self.act:
                case "cancel":
                    await client.cancel(self.name)
                case "pause":
                    await client.pause(self.name)
                case "delete":
                    await client.delete(self.name, force=True)
                case "replace":
                    await client.submit(
                        self.workflow, self.name, ["c"], conflict_policy="terminate_existing"
                    )
                case "cancel an item":
                    await client.cancel(item)
                case "delete an item":
                    await client.delete(item, force=True)
        except InvalidStateError:
            self.refused = True

    async def status(self) -> str:
        try:
            return str((await self.scene.client.status(self.name)).status)
        except InstanceNotFoundError:
            return "gone"

    async def over(self) -> bool:
        """Whether the parent has ended, and its items; one that is paused goes on."""
        status = await self.status()
        if status == "paused":
            await self.scene.client.unpause(self.name)
        page = await self.scene.backend.find(id_prefix=f"{self.name}~", limit=10)
        return status in (*ENDED, "gone") and all(row.status in ENDED for row in page.rows)

    async def judge(self) -> None:
        """It has ended as it may, and nothing of it is left over."""
        await self.scene.until(self.over)
        status, items = await self.status(), await self.items()
        starts = self.scene.starts.items()
        counts = {key: n for key, n in starts if key[0].partition("~")[0] == self.name}
        if self.act == "replace":
            # The step of the parent's own has its path in both lives.
            counts.pop((self.name, "fork/own/own"), None)
        assert set(counts.values()) <= {1}, counts
        output = None if status == "gone" else (await self.scene.client.status(self.name)).output
        match self.act:
            case "nothing" | "pause":
                assert (status, output) == ("completed", ["a", "b"])
            case "cancel":
                # Finished work is never reported as cancelled.
                assert status == "completed" or (status == "cancelled" and not self.refused)
                assert status == "cancelled" or output == ["a", "b"]
            case "delete":
                assert (status, items) == ("gone", [])
            case "replace":
                assert (status, output, len(items)) == ("completed", ["c"], 1)
            case _ if self.rule == "collect" or self.refused:
                assert status == "completed"
                assert output is not None
                assert output[1] == "b"
            case _:
                # It came too late for the item, or it is what the map fails of.
                assert status == "failed" or output == ["a", "b"]
        backend = self.scene.backend
        for name in ([self.name] if status != "gone" else []) + items:
            assert (await backend.get(name)).worker_id is None


async def test_whatever_befalls_a_parent_when_its_last_items_end(places: Places) -> None:
    one = os.environ.get("SAYIIR_SEED")
    count = ON_A_SERVER if places.kind == "postgres" else COUNT
    scene = Scene(places)
    flows = [*scene.alone.values(), *scene.beside.values()]
    async with Worker(scene.backend, flows, poll_interval="10ms", concurrency=16):
        for seed in [int(one)] if one else range(count):
            story = Story(scene, seed)
            try:
                await story.tell()
            except (Exception, asyncio.CancelledError) as error:
                error.add_note(f"{story}; SAYIIR_SEED={seed} brings it back")
                raise
