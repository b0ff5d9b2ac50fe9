"""The saga: whatever was booked is undone, once, also when the process dies between the two."""

import pytest

from sayiir import SyncWorkflowClient

from .program import Place

END = "trip-1 is incomplete; undone: hotel, flight"


@pytest.mark.parametrize("call", [1, 4], ids=["while booking", "while undoing"])
def test_a_trip_is_undone_to_the_end(place: Place, call: int) -> None:
    before = place.run_until("trip", "call", call)
    after = place.run("trip")
    assert after[-1] == END
    # The deed whose checkpoint was lost was asked for once more, and done once.
    assert f"{before[-1]}, once more" in after
    book = (place.folder / "bookings.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(book[:2]) == ["book trip-1:flight", "book trip-1:hotel"]
    assert book[2:] == ["cancel trip-1:hotel", "cancel trip-1:flight"]
    if call == 4:
        # What was checkpointed before was not even asked for.
        assert after == ["cancel flight, once more", END]
    with SyncWorkflowClient.from_url(f"sqlite:///{place.folder}/sayiir.db") as client:
        hotel, flight = (step for step in client.history("trip-1") if step.task == "cancel")
    assert hotel.ended_at <= flight.started_at
