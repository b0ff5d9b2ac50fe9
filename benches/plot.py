"""Pictures of a run, as SVG: bars beside each other, on a scale of powers of ten.

What is compared differs by factors of hundreds, which only such a scale shows; so a bar says its
figure in words as well. Colours are readable on light and on dark pages. It knows bars and words,
and nothing of what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

__all__ = ["Bar", "Group", "svg"]

WIDTH, LEFT, RIGHT = 760, 210, 150
BAR, GAP, TOP = 14, 12, 56
COLOURS = ("#2f81f7", "#d29922", "#8b949e")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.quiet{fill:#656d76}"
    "line{stroke:#8b949e;stroke-opacity:.35}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure."""

    series: int
    """Which of the picture's series it is of."""
    value: float
    text: str
    """The figure in words."""


@dataclass(frozen=True, slots=True)
class Group:
    """Figures that are compared with one another."""

    name: str
    bars: Sequence[Bar]


def svg(title: str, series: Sequence[str], groups: Sequence[Group]) -> str:
    """A picture of the groups, one below the other.

    Raises:
        ValueError: There is nothing to draw, or a figure that is not above zero.

    >>> svg("Speed", ["ours"], [Group("a", [Bar(0, 120.0, "120 /s")])]).count("<rect")
    2
    """
    values = [bar.value for group in groups for bar in group.bars]
    if not values or min(values) <= 0:
        raise ValueError("a picture needs figures, and on its scale they are above zero")
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    span = WIDTH - LEFT - RIGHT

    def across(value: float) -> float:
        return LEFT + span * (log10(value) - low) / (high - low)

    parts: list[str] = []
    y = TOP
    for group in groups:
        middle = y + len(group.bars) * BAR / 2 + 4
        parts.append(
            f'<text x="{LEFT - 8}" y="{middle:g}" text-anchor="end">{escape(group.name)}</text>'
        )
        for bar in group.bars:
            end = across(bar.value)
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{max(end - LEFT, 1):.1f}" height="{BAR - 2}"'
                f' rx="2" fill="{COLOURS[bar.series]}"/>'
                f'<text class="quiet" x="{end + 5:.1f}" y="{y + BAR - 4}">{escape(bar.text)}</text>'
            )
            y += BAR
        y += GAP
    lines = [
        f'<line x1="{across(10.0**power):.1f}" x2="{across(10.0**power):.1f}" y1="{TOP - 6}"'
        f' y2="{y - GAP + 6}"/>'
        for power in range(low, high + 1)
    ]
    lines += [
        f'<text class="quiet" x="{across(10.0**power):.1f}" y="{y - GAP + 20}"'
        f' text-anchor="middle">{f"{10.0**power:,.10g}"}</text>'
        for power in range(low, high + 1)
    ]
    y += 18
    legend = "".join(
        f'<rect x="{LEFT + 150 * at}" y="30" width="10" height="10" rx="2" fill="{COLOURS[at]}"/>'
        f'<text class="quiet" x="{LEFT + 150 * at + 15}" y="39">{escape(name)}</text>'
        for at, name in enumerate(series)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}"'
        f' height="{y}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<text x="8" y="18" font-weight="600">{escape(title)}</text>{legend}'
        f"{''.join(lines)}{''.join(parts)}</svg>\n"
    )
