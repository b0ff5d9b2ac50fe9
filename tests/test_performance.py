"""The paper on speed shows one run, whole and as it was measured; the writer of the paper works."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from benches.page import PAGE, PLOTS, ROOT, main, page_of, plots_of, run_of_page
from benches.plot import Bar, Group, svg

TEXT = PAGE.read_text(encoding="utf-8")
NAME = run_of_page(TEXT)
RUN = json.loads((ROOT / "benches" / "results" / NAME).read_text(encoding="utf-8"))


def test_the_page_is_what_its_run_says() -> None:
    assert page_of(TEXT, NAME, RUN) == TEXT, f"python -m benches.page benches/results/{NAME}"


def test_the_run_is_a_whole_one() -> None:
    assert not RUN["quick"]
    sections = {row["section"] for row in RUN["rows"]}
    assert sections >= {"codec", "crowd", "fan-out", "footprint", "growth", "latency"}
    assert sections >= {"snapshot", "step", "stored", "throughput"}


def test_the_plots_are_those_of_the_run() -> None:
    drawn = plots_of(RUN)
    assert {path.stem for path in PLOTS.glob("*.svg")} == drawn.keys()
    for name, drawing in drawn.items():
        assert (PLOTS / f"{name}.svg").read_text(encoding="utf-8") == drawing
        assert f"](plots/{name}.svg)" in TEXT


def test_a_plot_says_its_figures_and_is_a_drawing() -> None:
    groups = [
        Group("one & two", [Bar(0, 20.0, "20 /s"), Bar(1, 2_000.0, "2,000 /s")]),
        Group("three", [Bar(0, 200.0, "200 /s")]),
    ]
    root = ET.fromstring(svg("Speed < light", ("ours", "theirs"), groups))
    space = "{http://www.w3.org/2000/svg}"
    said = [text.text for text in root.iter(f"{space}text")]
    for word in ("Speed < light", "one & two", "20 /s", "2,000 /s", "200 /s", "theirs"):
        assert word in said
    widths = [float(rect.attrib["width"]) for rect in root.iter(f"{space}rect")][2:]
    assert widths[0] < widths[2] < widths[1]
    # On a scale of powers of ten, ten times as much is always as far away.
    assert widths[2] - widths[0] == pytest.approx(widths[1] - widths[2], abs=0.2)


def test_a_row_that_leaves_out_what_is_above_it_is_whole_on_the_page() -> None:
    for row in (
        "SQLite, synchronous=normal: 3-step instances, 64 in flight",
        "of them in a second",
    ):
        assert f"{row} | " in TEXT
    assert "the same |" not in TEXT


def test_a_run_without_a_server_or_a_file_is_told_apart() -> None:
    versions = {name: it for name, it in RUN["versions"].items() if name != "postgres"}
    alone = page_of(TEXT, NAME, RUN | {"versions": versions})
    assert run_of_page(alone) == NAME
    assert "PostgreSQL" not in alone.partition("<!-- run -->")[2].partition("<!-- end -->")[0]
    with pytest.raises(SystemExit, match=r"usage: .*NAME\.json"):
        main([])


def test_what_cannot_be_drawn_or_written_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        svg("Nothing", ("ours",), [Group("a", [Bar(0, 0.0, "0")])])
    with pytest.raises(ValueError, match="not a whole run"):
        page_of(TEXT, NAME, RUN | {"rows": []})
    with pytest.raises(ValueError, match="is of a quick run"):
        page_of(TEXT, NAME, RUN | {"quick": True})
    with pytest.raises(ValueError, match="0 places for 'sqlite'"):
        page_of(TEXT.replace("<!-- sqlite -->", ""), NAME, RUN)
    with pytest.raises(ValueError, match="names no run"):
        run_of_page("")
