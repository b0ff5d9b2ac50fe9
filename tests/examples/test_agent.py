"""The agent: a conversation goes on at the turn in which its process died."""

from .program import Place

CONVERSATION = [
    " user: What shall I wear in Oslo, and what is 4 + 38?",
    "model: I look at the weather.",
    " tool: snow in Oslo",
    "model: Now I count.",
    " tool: 42",
    "model: I try a tool that I made up.",
    " tool: there is no tool 'guess'",
    "model: Take a coat; and the sum is 42.",
]


def paid(*turns: int) -> list[str]:
    """What is printed when these turns are paid for."""
    return [f"paying for turn {turn}" for turn in turns]


def test_no_turn_is_paid_for_twice_but_the_one_that_was_lost(place: Place) -> None:
    assert place.run_until("agent", "model", 2) == paid(1, 2)
    assert place.run("agent") == [*paid(2, 3, 4), *CONVERSATION]
    # What has ended is looked up.
    assert place.run("agent") == CONVERSATION
