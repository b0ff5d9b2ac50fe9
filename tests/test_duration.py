"""Durations: every form that is accepted, and every one that is refused, with its sentence."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayiir import parse_duration

CENTURY = 100 * 365.25 * 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("100ms", 0.1),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7_200.0),
        ("1d", 86_400.0),
        ("1h30m", 5_400.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5_400.0),
        (" 1H 30M ", 5_400.0),
        ("10 S", 10.0),
        ("0s", 0.0),
        (0, 0.0),
        (3, 3.0),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        (CENTURY, CENTURY),
        (int(CENTURY), CENTURY),
        ("36525d", CENTURY),
    ],
)
def test_forms(value: Any, seconds: float) -> None:
    parsed = parse_duration(value)
    assert type(parsed) is float
    assert parsed == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        float("-inf"),
        1e300,
        1e18,
        10**400,
        -(10**400),
        CENTURY + 1,
        timedelta(seconds=-1),
        timedelta.max,
        "36526d",
        "9" * 60 + "d",
    ],
)
def test_numbers_out_of_range(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^delay must be"):
        parse_duration(value, name="delay")


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "30",
        "s",
        "-5s",
        "+5s",
        "5 parsecs",
        "1m1h",
        "1s1s",
        "5s!",
        "5s\x00",
        "1e3s",
        "nan",
        "inf",
        ".5s",
        "5.s",
        "٣s",
        "\ud800",
        "5s" * 1_000_000,
        "1" + " " * 1_000_000 + "x",
    ],
)
def test_text_of_another_form(value: str) -> None:
    with pytest.raises(ValueError, match=r"^delay: .* is not a duration; write ") as caught:
        parse_duration(value, name="delay")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [True, False, None, b"5s", [5], object(), 1j])
def test_other_kinds(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^timeout must be a duration, got "):
        parse_duration(value, name="timeout")


@pytest.mark.parametrize("value", [0, 0.0, "0s", timedelta(0)])
def test_zero_only_where_it_makes_sense(value: Any) -> None:
    assert parse_duration(value) == 0
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds"):
        parse_duration(value, name="timeout", allow_zero=False)


def test_a_huge_number_does_not_flood_the_message() -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(10**4000)
    assert len(str(caught.value)) < 100


@given(st.text(alphabet="0123456789. \tdhmsDHMSx-", max_size=80))
def test_text_gives_seconds_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= CENTURY


@given(
    st.integers(0, 9),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999),
)
def test_parts_add_up(d: int, h: int, m: int, s: int, ms: int) -> None:
    exact = timedelta(days=d, hours=h, minutes=m, seconds=s, milliseconds=ms)
    assert parse_duration(f"{d}d{h}h{m}m{s}s{ms}ms") == pytest.approx(exact.total_seconds())
