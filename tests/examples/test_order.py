"""The order: asked again after a kill, charged once whatever happens, declined, or left open."""

from .program import Place, line_with

PAID = "order-42: approved, shipped, receipt 1"
QUESTION = "order-42: a lamp for 30. Approve? [y/n] "


def test_an_order_is_paid_once_though_its_process_died_with_the_receipt(any_place: Place) -> None:
    # The bank has booked, and nobody has written down that it did.
    attempts = any_place.run_until("order", "bank", 1, said="y\n")
    assert attempts == [QUESTION, *(f"charging 30, attempt {number}" for number in (1, 2, 3))]
    # It is charged again under the same key, which the bank knows; the question was answered.
    assert any_place.run("order") == ["charging 30, attempt 3", PAID]
    book = (any_place.folder / "bank.txt").read_text(encoding="utf-8")
    assert book == "order-42:route/approved/charge 30\n"


def test_an_order_waits_through_kills_until_somebody_answers(place: Place) -> None:
    with place.started("order") as program:
        assert line_with(program, "Approve?") == QUESTION
        program.kill()
    assert place.run("order") == [QUESTION, "order-42 goes on waiting; run this again"]
    said = place.run("order", said="n\n")
    assert said == [QUESTION, "order-42: declined, no lamp today"]
    assert not (place.folder / "bank.txt").exists()
    # What has ended is looked up, and nobody is asked.
    assert place.run("order", said="y\n") == said[-1:]
    # Another order is another instance, with a question of its own.
    assert place.run("order", "order-43", said="n\n")[1:] == ["order-43: declined, no lamp today"]
