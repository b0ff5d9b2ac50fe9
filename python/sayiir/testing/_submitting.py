"""Contract: submitting, and what becomes of an id that is taken."""

# Asserting is what a suite does.

from __future__ import annotations

import pytest

from sayiir._codec import decode_payload, encode_payload
from sayiir._errors import DefinitionMismatchError, InstanceAlreadyExistsError
from sayiir._errors import InstanceNotFoundError as NotFound
from sayiir.backends import Backend

from ._clocks import VirtualClock
from ._flows import LISTENING, ONE, OTHER, TWO, Anything, new_instance, new_instances, tagged
from ._ground import Ground, everything, held_by, start, submit
from ._hand import HandWorker

POLICIES = ["fail", "use_existing", "terminate_existing"]
REFUSING = ["fail", "use_existing"]


class SubmitContract(Ground):
    """`check_submit` and `submit`."""

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_a_free_id_is_created_under_every_policy(
        self, backend: Backend, policy: str
    ) -> None:
        """For a created instance the answer is `None`."""
        assert await backend.check_submit("i-1", ONE.program, policy) is None
        assert list(await backend.submit([new_instance(ONE, "i-1")], policy)) == [None]
        assert (await backend.get("i-1")).status == "in_progress"

    async def test_a_fresh_instance_says_what_it_is(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Its row has the definition, the times and the needs of the first step, and no more."""
        workflow = tagged("gpu", "eu")
        await submit(backend, workflow, "i-1")
        row = await backend.get("i-1")
        assert (row.instance_id, row.workflow_id) == ("i-1", workflow.workflow_id)
        assert row.definition_hash == workflow.definition_hash
        assert (row.status, row.created_at, row.updated_at) == ("in_progress", clock(), clock())
        assert (sorted(row.tags), row.priority) == (["eu", "gpu"], 3)
        assert (row.worker_id, row.steps) == (None, 0)
        assert (row.ended_at, row.start_at, row.wake_at, row.delay_id) == (None,) * 4
        assert (row.signal_id, row.signal_name, row.reason, row.by) == (None,) * 4
        assert (row.output, row.error) == (None, None)

    async def test_the_input_comes_back_as_it_was_given(self, backend: Backend) -> None:
        """Payloads are bytes to a backend, whatever is in them."""
        value = {"text": "'; DROP TABLE instances; -- \0 😀", "blob": bytes(range(256))}
        await backend.submit([new_instance(ONE, "i-1", value)], "fail")
        assert await backend.input("i-1") == encode_payload(value)

    @pytest.mark.parametrize(
        "instance_id",
        [
            "x",
            "x" * 256,
            "😀" * 64,
            "'; DROP TABLE x; --",
            "%_..",
            "a/b[0]#1~2",
            "\u200fabc",
            "A b",
        ],
    )
    async def test_ids_are_kept_as_they_are(self, backend: Backend, instance_id: str) -> None:
        """An id is 1 to 256 bytes of UTF-8, and no two of them are the same to a backend."""
        await submit(backend, ONE, instance_id, instance_id[:-1] + "é")
        assert (await backend.get(instance_id)).instance_id == instance_id
        assert len((await backend.find()).rows) == 2

    async def test_ids_differ_by_case(self, backend: Backend) -> None:
        """Ids are compared byte by byte."""
        await submit(backend, ONE, "order", "Order", "ORDER", "order ")
        assert len((await backend.find()).rows) == 4

    async def test_a_batch_creates_all(self, backend: Backend) -> None:
        """One answer for each, in order, and oldest is what came first."""
        ids = [f"i-{n}" for n in range(50)]
        assert list(await backend.submit(new_instances(TWO, ids), "fail")) == [None] * 50
        assert await HandWorker(backend, [TWO]).claim_ids(100) == ids

    async def test_an_empty_batch_does_nothing(self, backend: Backend) -> None:
        """No instances, no answers."""
        assert list(await backend.submit([], "fail")) == []

    @pytest.mark.parametrize("taken", [ONE, OTHER], ids=["taken", "mismatch"])
    async def test_a_refused_batch_creates_none(self, backend: Backend, taken: Anything) -> None:
        """All or none: what stands before and after the refused one is not created either."""
        await submit(backend, ONE, "i-2")
        before = await everything(backend, "i-2")
        batch = [new_instance(ONE, "i-1"), new_instance(taken, "i-2"), new_instance(ONE, "i-3")]
        with pytest.raises((InstanceAlreadyExistsError, DefinitionMismatchError)):
            await backend.submit(batch, "fail")
        for absent in ("i-1", "i-3"):
            with pytest.raises(NotFound):
                await backend.get(absent)
        assert await everything(backend, "i-2") == before

    async def test_a_taken_id_is_refused_under_fail(self, backend: Backend) -> None:
        """Also before anything is encoded, and the error names the instance."""
        await submit(backend, ONE, "i-1")
        with pytest.raises(InstanceAlreadyExistsError) as checked:
            await backend.check_submit("i-1", ONE.program, "fail")
        with pytest.raises(InstanceAlreadyExistsError) as submitted:
            await backend.submit([new_instance(ONE, "i-1")], "fail")
        assert checked.value.instance_id == submitted.value.instance_id == "i-1"

    async def test_the_end_of_an_instance_does_not_free_its_id(self, backend: Backend) -> None:
        """A second run under one id is asked for by name, never by accident."""
        await (await start(backend, ONE)).complete(1)
        with pytest.raises(InstanceAlreadyExistsError):
            await submit(backend, ONE, "i-1")

    async def test_use_existing_answers_with_the_row_and_changes_nothing(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """Whatever the input: the first submit decides."""
        await backend.submit([new_instance(ONE, "i-1", "first")], "fail")
        before = await everything(backend, "i-1")
        clock.advance(5)
        [row] = await backend.submit([new_instance(ONE, "i-1", "second")], "use_existing")
        assert row == before[0] == await backend.check_submit("i-1", ONE.program, "use_existing")
        assert await everything(backend, "i-1") == before

    async def test_use_existing_creates_what_is_missing(self, backend: Backend) -> None:
        """In a mixed batch each answer stands at its place."""
        await submit(backend, ONE, "i-2")
        batch = new_instances(ONE, ["i-1", "i-2", "i-3"])
        answers = await backend.submit(batch, "use_existing")
        assert [answer and answer.instance_id for answer in answers] == [None, "i-2", None]
        assert len((await backend.find()).rows) == 3

    async def test_use_existing_shows_the_end(self, backend: Backend) -> None:
        """The output of a completed instance is in the row."""
        await (await start(backend, ONE)).complete({"sum": 3})
        [row] = await backend.submit([new_instance(ONE, "i-1")], "use_existing")
        assert row is not None
        assert row.status == "completed"
        assert row.output is not None
        assert decode_payload(row.output) == {"sum": 3}

    async def test_use_existing_says_what_get_says_when_a_lease_has_run_out(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """A lease ends by time for every call alike, and what was pending takes effect."""
        await start(backend, ONE)
        await backend.cancel("i-1", "too late", "ops")
        clock.advance(31)
        checked = await backend.check_submit("i-1", ONE.program, "use_existing")
        [submitted] = await backend.submit([new_instance(ONE, "i-1")], "use_existing")
        assert checked is not None
        assert (checked.status, checked.worker_id) == ("cancelled", None)
        assert submitted == checked == await backend.get("i-1")

    @pytest.mark.parametrize("policy", REFUSING)
    async def test_another_definition_is_refused_and_changes_nothing(
        self, backend: Backend, policy: str
    ) -> None:
        """Under `fail` and `use_existing`; the error has both definition hashes."""
        await submit(backend, ONE, "i-1")
        before = await everything(backend, "i-1")
        with pytest.raises(DefinitionMismatchError) as checked:
            await backend.check_submit("i-1", OTHER.program, policy)
        with pytest.raises(DefinitionMismatchError) as submitted:
            await backend.submit([new_instance(OTHER, "i-1")], policy)
        for error in (checked.value, submitted.value):
            assert (error.expected, error.found) == (OTHER.definition_hash, ONE.definition_hash)
            assert error.instance_id == "i-1"
        assert await everything(backend, "i-1") == before

    async def test_a_check_creates_nothing(self, backend: Backend) -> None:
        """It only says what a submit would say."""
        await backend.check_submit("i-1", ONE.program, "terminate_existing")
        with pytest.raises(NotFound):
            await backend.get("i-1")

    @pytest.mark.parametrize("workflow", [LISTENING, OTHER], ids=["same", "other"])
    async def test_terminate_existing_starts_anew(
        self, backend: Backend, clock: VirtualClock, workflow: Anything
    ) -> None:
        """The old instance, its events and its history go; the definition may be another."""
        old = await start(backend, LISTENING)
        await old.complete(1)
        await backend.send_event("i-1", "go", encode_payload("old"), "key")
        clock.advance(5)
        assert await backend.check_submit("i-1", workflow.program, "terminate_existing") is None
        fresh = new_instance(workflow, "i-1", "new")
        assert list(await backend.submit([fresh], "terminate_existing")) == [None]
        row, sealed, history = await everything(backend, "i-1")
        assert (row.status, row.created_at, row.steps) == ("in_progress", clock(), 0)
        assert row.definition_hash == workflow.definition_hash
        assert (row.signal_id, row.signal_name, row.worker_id) == (None, None, None)
        assert (sealed, history) == (encode_payload("new"), [])
        held = await held_by(HandWorker(backend, [workflow]), "i-1")
        assert held.claim.cursor is None
        assert not (await backend.news("i-1", held.fence, ["go"])).events
        assert await backend.send_event("i-1", "go", encode_payload("new"), "key")
        assert len((await backend.find()).rows) == 1

    async def test_terminate_existing_fences_the_old_run_off(self, backend: Backend) -> None:
        """A late write of the old run is refused and leaves the new one as it is."""
        old = await start(backend, TWO)
        late = old.completion(1)
        await backend.submit([new_instance(TWO, "i-1", "new")], "terminate_existing")
        before = await everything(backend, "i-1")
        assert await old.send(late) == "lease_lost"
        assert (await backend.news("i-1", old.fence, [])).lost
        assert await everything(backend, "i-1") == before
        new = await held_by(HandWorker(backend, [TWO], "worker-2"), "i-1")
        assert new.fence > old.fence
        before = await everything(backend, "i-1")
        assert await old.send(late) == "lease_lost"
        assert await everything(backend, "i-1") == before

    async def test_terminate_existing_leaves_the_rest_of_a_lease(self, backend: Backend) -> None:
        """Only the replaced instance is taken from its worker."""
        await submit(backend, ONE, "i-1", "i-2")
        worker = HandWorker(backend, [ONE])
        _, second = await worker.claim(2)
        await backend.submit([new_instance(ONE, "i-1")], "terminate_existing")
        assert await backend.release("worker-2") == 0
        assert await second.complete(2) == "ok"
        assert await worker.claim_ids() == ["i-1"]

    async def test_terminate_existing_replaces_an_ended_instance(self, backend: Backend) -> None:
        """Its output goes with it."""
        await (await start(backend, ONE)).complete("old")
        await backend.submit([new_instance(ONE, "i-1")], "terminate_existing")
        row = await backend.get("i-1")
        assert (row.status, row.output, row.ended_at) == ("in_progress", None, None)

    async def test_nothing_starts_before_its_time(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """`start_at` holds an instance back, and says so."""
        worker = HandWorker(backend, [ONE])
        at = clock() + 60
        await backend.submit([new_instance(ONE, "i-1", start_at=at)], "fail")
        row = await backend.get("i-1")
        assert (row.status, row.start_at, row.wake_at) == ("waiting", at, at)
        assert await backend.next_wake() == at
        clock.advance(59)
        assert await worker.claim_ids() == []
        assert await worker.claim_one("i-1") is None
        clock.advance(1)
        assert await worker.claim_ids() == ["i-1"]
        assert (await backend.get("i-1")).status == "in_progress"

    async def test_a_start_in_the_past_is_no_wait(
        self, backend: Backend, clock: VirtualClock
    ) -> None:
        """It can be claimed at once."""
        await backend.submit([new_instance(ONE, "i-1", start_at=clock() - 60)], "fail")
        assert (await backend.get("i-1")).status == "in_progress"
        assert await HandWorker(backend, [ONE]).claim_ids() == ["i-1"]
