"""The nightly job: it sleeps in the database, so a kill costs neither the figures nor the delay."""

from .program import Place, line_with, said_by

REPORT = "2026-02-03: 120 bread, 20 salt"


def test_a_killed_job_sleeps_on_until_the_same_moment(place: Place) -> None:
    with place.started("nightly", "2026-02-03", "--late", "1h") as program:
        assert line_with(program, "") == "collecting the figures of 2026-02-03"
        moment = line_with(program, "sleeping until ")
        program.kill()
    # Neither collected again nor slept anew; and who sleeps already keeps to the old delay.
    with place.started("nightly", "2026-02-03", "--late", "0s") as program:
        assert line_with(program, "") == moment
        program.kill()
        assert said_by(program).read() == ""


def test_a_killed_job_ends_when_its_delay_is_over(place: Place) -> None:
    with place.started("nightly", "2026-02-03", "--late", "500ms") as program:
        moment = line_with(program, "sleeping until ")
        program.kill()
    *before, last = place.run("nightly", "2026-02-03")
    # It may be over before the second program looks.
    assert before in ([moment], [])
    assert last == REPORT


def test_a_job_runs_once_for_each_day(place: Place) -> None:
    first = place.run("nightly", "2026-02-03", "--late", "0s")
    assert first[0] == "collecting the figures of 2026-02-03"
    assert first[-1] == REPORT
    assert place.run("nightly", "2026-02-03") == [REPORT]
    other = place.run("nightly", "2026-02-04", "--late", "0s")
    assert other[0] == "collecting the figures of 2026-02-04"
