"""Contract: many threads at once, each with an event loop of its own.

Nothing here waits for a moment. The threads begin together, do all they can, and the books are
looked at afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from sayiir._errors import InstanceAlreadyExistsError, InstanceNotFoundError, InvalidStateError
from sayiir.backends import Backend

from ._family import items_of, spread, worker
from ._flows import COLLECTING, LISTENING, NESTED, ONE, SPREADING, new_instance
from ._ground import Ground, start, submit
from ._hand import HandWorker

T = TypeVar("T")

THREADS = 8
IDS = [f"i-{n}" for n in range(200)]


async def at_once(work: Callable[[int], Awaitable[T]]) -> list[T]:
    """Run `work(n)` on each of eight threads, all beginning together; what each returned."""
    together = threading.Barrier(THREADS)

    async def after_the_others(n: int) -> T:
        # Each thread has a loop of its own, with nothing else on it to be held up.
        together.wait(timeout=60)
        return await work(n)

    def run(n: int) -> T:
        return asyncio.run(after_the_others(n))

    # The loop's own pool may have fewer threads than have to meet at the barrier.
    with ThreadPoolExecutor(THREADS) as pool:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, run, n) for n in range(THREADS)))


class RaceContract(Ground):
    """What concurrency must not break."""

    @pytest.mark.parametrize("policy", ["fail", "use_existing"])
    async def test_of_many_submits_of_an_id_one_creates(
        self, backend: Backend, policy: str
    ) -> None:
        """The others are refused, or answered with what the one created."""

        async def work(n: int) -> list[str]:
            created = []
            for at in range(len(IDS)):
                instance_id = IDS[(at + n * 7) % len(IDS)]
                try:
                    [row] = await backend.submit([new_instance(ONE, instance_id, n)], policy)
                except InstanceAlreadyExistsError:
                    assert policy == "fail"
                    continue
                if row is None:
                    created.append(instance_id)
                else:
                    assert (policy, row.instance_id) == ("use_existing", instance_id)
            return created

        created = Counter(instance_id for ids in await at_once(work) for instance_id in ids)
        assert created == Counter(IDS)
        assert len((await backend.find(limit=1000)).rows) == len(IDS)

    async def test_of_many_terminating_submits_one_instance_is_left(self, backend: Backend) -> None:
        """Each creates; the last one stays, whole."""

        async def work(n: int) -> None:
            for _ in range(25):
                await backend.submit([new_instance(ONE, "i-1", n)], "terminate_existing")

        await at_once(work)
        assert [row.instance_id for row in (await backend.find()).rows] == ["i-1"]
        assert await HandWorker(backend, [ONE]).claim_ids(9) == ["i-1"]

    @pytest.mark.parametrize("limit", [1, 7])
    async def test_no_instance_is_given_out_twice(self, backend: Backend, limit: int) -> None:
        """And all are given out."""
        await submit(backend, ONE, *IDS)

        async def work(n: int) -> list[str]:
            worker = HandWorker(backend, [ONE], f"worker-{n}")
            mine: list[str] = []
            while got := await worker.claim_ids(limit):
                mine += got
            return mine

        claimed = Counter(instance_id for ids in await at_once(work) for instance_id in ids)
        assert claimed == Counter(IDS)

    async def test_one_instance_is_claimed_by_one(self, backend: Backend) -> None:
        """Of many that ask for it by its id."""
        await submit(backend, ONE, *IDS)

        async def work(n: int) -> list[str]:
            worker = HandWorker(backend, [ONE], f"worker-{n}")
            claims = [await backend.claim_one(worker.claimant, name) for name in IDS]
            return [claim.instance_id for claim in claims if claim is not None]

        claimed = Counter(instance_id for ids in await at_once(work) for instance_id in ids)
        assert claimed == Counter(IDS)

    async def test_work_is_done_once(self, backend: Backend) -> None:
        """Claims and commits from all sides: each instance has one step, and it is completed."""
        await submit(backend, ONE, *IDS)

        async def work(n: int) -> int:
            worker = HandWorker(backend, [ONE], f"worker-{n}")
            done = 0
            while runs := await worker.claim(5):
                for held in runs:
                    assert await held.complete(n) == "ok"
                    done += 1
            return done

        assert sum(await at_once(work)) == len(IDS)
        rows = (await backend.find(limit=1000)).rows
        assert {(row.status, row.steps, row.worker_id) for row in rows} == {("completed", 1, None)}

    async def test_no_event_is_lost_or_doubled(self, backend: Backend) -> None:
        """Sent from all sides, each with a key, and every send made twice."""
        held = await start(backend, LISTENING)

        async def work(n: int) -> int:
            fresh = 0
            for at in range(50):
                for _ in range(2):
                    payload = f"{n}:{at}".encode()
                    fresh += await backend.send_event("i-1", "go", payload, f"{n}:{at}")
            return fresh

        assert await at_once(work) == [50] * THREADS
        news = await backend.news("i-1", held.fence, ["go"] * 1000)
        payloads = [event.payload.decode().split(":") for event in news.events]
        assert len(payloads) == 50 * THREADS
        for n in range(THREADS):
            mine = [int(at) for sender, at in payloads if sender == str(n)]
            assert mine == list(range(50)), f"events of sender {n} are out of order"

    async def test_one_cancel_and_one_end(self, backend: Backend) -> None:
        """Cancelled and completed at once, an instance is one of the two, for everybody."""
        await submit(backend, ONE, *IDS)

        async def work(n: int) -> list[tuple[str, str]]:
            worker = HandWorker(backend, [ONE], f"worker-{n}")
            seen = []
            if n % 2:
                while runs := await worker.claim():
                    # A cancel that came right after the claim has ended it before it began.
                    begun = [held for held in runs if held.steps]
                    seen += [(held.instance_id, await held.complete() or "") for held in begun]
            else:
                for name in IDS[n // 2 :: 4]:
                    try:
                        await backend.cancel(name, None, None)
                    except InvalidStateError as error:
                        seen.append((name, error.state or ""))
            return seen

        answers = [answer for answers in await at_once(work) for answer in answers]
        statuses = {row.instance_id: row.status for row in (await backend.find(limit=999)).rows}
        assert set(statuses.values()) <= {"completed", "cancelled"}
        for name, answer in answers:
            # `ok` is what the completing commit heard, `completed` what the late cancel heard.
            assert statuses[name] == "completed"
            assert answer in ("ok", "completed")

    @pytest.mark.parametrize("failing", [False, True])
    async def test_a_parent_is_told_once(self, backend: Backend, failing: bool) -> None:
        """Though its items end, and the last of them, on all sides at once."""
        families = [await spread(backend, SPREADING, range(THREADS), f"p-{n}") for n in range(10)]

        async def work(n: int) -> int:
            done = 0
            mine = worker(backend, f"worker-{n}")
            # Each ends one item of every family, in the order of the families.
            for family in families:
                held = await mine.claim_one(family.items[n])
                assert held is not None
                kind = await (held.fail() if failing else held.complete(n))
                done += kind == "ok"
            return done

        assert await at_once(work) == [10] * THREADS
        for family in families:
            assert await family.told() == 1
            assert await family.statuses() == ["failed" if failing else "completed"] * THREADS
            held = await family.hold_parent()
            assert held.state == ("failed" if failing else "held")
            assert failing or held.steps[0].input == list(range(THREADS))

    async def test_items_end_in_any_way_at_once(self, backend: Backend) -> None:
        """Completed, cancelled and deleted from all sides, each is counted once."""
        families = [await spread(backend, COLLECTING, range(12), f"p-{n}") for n in range(10)]

        async def work(n: int) -> None:
            mine = worker(backend, f"worker-{n}")
            for family in families:
                for index, name in enumerate(family.items):
                    # Whoever comes later finds it ended or gone, which is as it should be.
                    with contextlib.suppress(InvalidStateError, InstanceNotFoundError):
                        if (n + index) % 4 == 0:
                            held = await mine.claim_one(name)
                            if held is not None and held.steps:
                                await held.complete(0)
                        elif (n + index) % 4 == 1:
                            await backend.cancel(name, None, None)
                        elif (n + index) % 4 == 2 and index % 3 == 0:
                            await backend.delete(name, True)

        await at_once(work)
        for family in families:
            assert await family.told() == 1
            assert "unended" not in await family.ends()
            assert len((await family.hold_parent()).steps) == 1

    async def test_a_parent_and_its_items_end_at_once(self, backend: Backend) -> None:
        """Cancelled on one side, its items completed on all others: nothing is left to do."""
        families = [await spread(backend, NESTED, [[n]] * 7, f"p-{n}") for n in range(10)]

        async def work(n: int) -> None:
            mine = worker(backend, f"worker-{n}")
            for family in families:
                if n == 0:
                    await backend.cancel(family.parent, "enough", None)
                    continue
                held = await mine.claim_one(family.items[n - 1])
                if held is None or held.state != "parked":
                    continue
                for name in await items_of(backend, held.instance_id):
                    inner = await mine.claim_one(name)
                    if inner is not None and inner.steps:
                        await inner.complete(n)

        await at_once(work)
        rows = (await backend.find(limit=1000)).rows
        assert {row.status for row in rows} <= {"cancelled", "completed"}
        assert {row.worker_id for row in rows} == {None}
        for family in families:
            assert (await backend.get(family.parent)).status == "cancelled"
            assert await family.ends() == ["cancelled"] * 7
        assert await worker(backend).claim_ids(9) == []
