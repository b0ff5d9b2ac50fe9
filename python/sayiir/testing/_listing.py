"""Contract: listing instances, by filter and page by page."""

from __future__ import annotations

from typing import Any

import pytest

from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import DELAYED, LISTENING, ONE, TWO
from ._ground import Ground, end_as, start, submit

STATUSES = [
    "in_progress",
    "waiting",
    "awaiting_signal",
    "paused",
    "completed",
    "failed",
    "cancelled",
]


async def found(backend: Backend, **filters: Any) -> list[str]:
    """Ids on the first page."""
    return [row.instance_id for row in (await backend.find(**filters)).rows]


async def one_of_each(backend: Backend) -> None:
    """An instance in each status, named after it, in that order."""
    await submit(backend, ONE, "in_progress")
    await (await start(backend, DELAYED, "waiting")).complete()
    await (await start(backend, LISTENING, "awaiting_signal")).complete()
    await submit(backend, ONE, "paused")
    await backend.pause("paused", None, None)
    for end in ("completed", "failed", "cancelled"):
        await end_as(backend, end, end)


class ListContract(Ground):
    """`find`."""

    async def test_nothing_there_nothing_found(self, backend: Backend) -> None:
        """An empty page without a next one."""
        page = await backend.find()
        assert (list(page.rows), page.cursor) == ([], None)

    async def test_newest_first(self, backend: Backend, clock: VirtualClock) -> None:
        """Also within one moment; later changes do not move a row."""
        await submit(backend, ONE, "c", "a")
        clock.advance(1)
        await submit(backend, ONE, "b")
        await backend.pause("c", None, None)
        assert await found(backend) == ["b", "a", "c"]

    async def test_a_row_is_what_get_gives(self, backend: Backend) -> None:
        """In every status."""
        await one_of_each(backend)
        rows = (await backend.find()).rows
        assert [row.status for row in rows] == STATUSES[::-1]
        for row in rows:
            assert row == await backend.get(row.instance_id)

    @pytest.mark.parametrize("status", STATUSES)
    async def test_by_status(self, backend: Backend, status: str) -> None:
        """As the row says it."""
        await one_of_each(backend)
        assert await found(backend, status=status) == [status]

    async def test_by_status_when_a_lease_has_run_out(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A cancel that took effect by time is seen here too."""
        await start(backend, ONE)
        await backend.cancel("i-1", None, None)
        clock.advance(31)
        assert await found(backend, status="in_progress") == []
        assert await found(backend, status="cancelled") == ["i-1"]

    async def test_by_workflow(self, backend: Backend) -> None:
        """By its whole name."""
        await submit(backend, ONE, "i-1")
        await submit(backend, TWO, "i-2")
        assert await found(backend, workflow="two") == ["i-2"]
        for none in ("tw", "TWO", "%", ""):
            assert await found(backend, workflow=none) == []

    @pytest.mark.parametrize(
        ("prefix", "ids"),
        [
            ("order-", ["order-2", "order-1"]),
            ("order-1", ["order-1"]),
            ("Order", ["Order-3"]),
            ("%", ["%x"]),
            ("_", ["_y"]),
            ("a[", ["a[b"]),
            ("a*", []),
            ("é", ["élan"]),
            ("\\", ["\\z"]),
            ("", ["\\z", "élan", "a[b", "_y", "%x", "Order-3", "order-2", "order-1"]),
        ],
    )
    async def test_by_prefix(self, backend: Backend, prefix: str, ids: list[str]) -> None:
        """Literally: no letter stands for another one."""
        known = ["order-1", "order-2", "Order-3", "%x", "_y", "a[b", "élan", "\\z"]
        await submit(backend, ONE, *known)
        assert await found(backend, id_prefix=prefix) == ids

    async def test_by_time_of_creation(self, backend: Backend, clock: VirtualClock) -> None:
        """After and before, neither of them including the moment itself."""
        begun = clock()
        for n in range(4):
            await submit(backend, ONE, f"i-{n}")
            clock.advance(10)
        assert await found(backend, created_after=begun + 10) == ["i-3", "i-2"]
        assert await found(backend, created_before=begun + 10) == ["i-0"]
        between = {"created_after": begun + 5, "created_before": begun + 25}
        assert await found(backend, **between) == ["i-2", "i-1"]
        assert await found(backend, created_after=begun + 30) == []

    async def test_everything_given_must_match(self, backend: Backend) -> None:
        """Filters narrow each other down."""
        await submit(backend, ONE, "a-1", "b-1")
        await submit(backend, TWO, "a-2", "a-3")
        await backend.pause("a-3", None, None)
        assert await found(backend, workflow="two", id_prefix="a") == ["a-3", "a-2"]
        assert await found(backend, workflow="two", status="paused") == ["a-3"]
        assert await found(backend, workflow="one", status="paused") == []

    @pytest.mark.parametrize(("total", "limit"), [(10, 3), (9, 3), (3, 3), (2, 3), (7, 1)])
    async def test_pages_have_every_row_once(
        self, backend: Backend, total: int, limit: int
    ) -> None:
        """In order; the last page leads nowhere, and no page is empty."""
        await submit(backend, ONE, *(f"i-{n}" for n in range(total)))
        seen: list[str] = []
        cursor = None
        while True:
            page = await backend.find(limit=limit, cursor=cursor)
            assert 0 < len(page.rows) <= limit
            seen += [row.instance_id for row in page.rows]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == [f"i-{n}" for n in reversed(range(total))]

    async def test_pages_of_a_filter(self, backend: Backend) -> None:
        """What does not match takes no place on a page."""
        for n in range(12):
            await submit(backend, TWO if n % 3 else ONE, f"i-{n}")
        first = await backend.find(workflow="one", limit=2)
        assert [row.instance_id for row in first.rows] == ["i-9", "i-6"]
        assert first.cursor is not None
        second = await backend.find(workflow="one", limit=2, cursor=first.cursor)
        assert [row.instance_id for row in second.rows] == ["i-3", "i-0"]
        assert second.cursor is None

    async def test_pages_do_not_move_when_instances_come_and_go(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A cursor is a place in the order of creation, not a number of rows."""
        await submit(backend, ONE, *(f"i-{n}" for n in range(6)))
        page = await backend.find(limit=2)
        assert [row.instance_id for row in page.rows] == ["i-5", "i-4"]
        clock.advance(1)
        await submit(backend, ONE, "newer-1", "newer-2")
        await backend.delete("i-5", True)
        await backend.delete("i-4", True)
        await backend.delete("i-2", True)
        page = await backend.find(limit=2, cursor=page.cursor)
        assert [row.instance_id for row in page.rows] == ["i-3", "i-1"]
        page = await backend.find(limit=2, cursor=page.cursor)
        assert [row.instance_id for row in page.rows] == ["i-0"]
        assert page.cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "' OR 1=1", "9" * 99, "٣"])
    async def test_a_cursor_that_no_page_gave_is_refused(
        self, backend: Backend, cursor: str
    ) -> None:
        """With a `ValueError`, not with an empty page."""
        await submit(backend, ONE, "i-1")
        with pytest.raises(ValueError, match="cursor"):
            await backend.find(cursor=cursor)
