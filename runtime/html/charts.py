"""Bars for a table's cells and curves on logarithmic axes, as SVG. Colours: `series-0` and on in report.css."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.html.elements import Element, element
from runtime.html.tables import scrolling

__all__ = ["Series", "bars", "curves", "legend"]

BAR_WIDTH, BAR_HEIGHT = 140, 8
WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 14, 50
COLOURS, DASHES = 8, ("", "6 4", "2 3", "9 3 2 3")
"""With more series than colours, the next round of them is dashed."""
MOST_TICKS = 7

_SHAPES = (
    "M-4,0 a4,4 0 1,0 8,0 a4,4 0 1,0 -8,0",
    "M-4,-4 h8 v8 h-8 z",
    "M0,-5 L5,4 H-5 z",
    "M0,-5 L5,0 L0,5 L-5,0 z",
    "M0,5 L5,-4 H-5 z",
    "M-5,-2 h3 v-3 h4 v3 h3 v4 h-3 v3 h-4 v-3 h-3 z",
    "M-2,-5 h4 v10 h-4 z",
    "M-5,-2 h10 v4 h-10 z",
)
"""Outlines around (0,0), one for each colour, for whoever does not tell colours apart."""


@dataclass(frozen=True)
class Series:
    """One curve: (x, y, what the point is called), all numbers above 0."""

    name: str
    points: Sequence[tuple[float, float, str]]


def bars(shares: Sequence[float | None]) -> Element:
    """A bar for each share of 0..1, one below the other; for a cell whose row gives the numbers."""
    height = (BAR_HEIGHT + 2) * len(shares)
    drawn = [
        element(
            "rect",
            x="0",
            y=index * (BAR_HEIGHT + 2) + 1,
            height=BAR_HEIGHT,
            width=f"{BAR_WIDTH * share:.2f}",
            class_=f"bar-{index}",
        )
        for index, share in enumerate(shares)
        if share is not None
    ]
    frame = element("rect", x="0", y="0", width=BAR_WIDTH, height=height, class_="groove")
    return element("svg", frame, *drawn, width=BAR_WIDTH, height=height, aria_hidden="true", class_="bars")


def curves(
    name: str, title: str, series: Sequence[Series], x_ticks: Sequence[tuple[float, str]], x_title: str
) -> Element:
    """A chart of `series`, both axes logarithmic, with its title above. `x_ticks` are (x, text).

    Some series must have a point.
    """
    across = _Axis.around([x for one in series for x, _, _ in one.points], LEFT, WIDTH - RIGHT)
    up = _Axis.around([y for one in series for _, y, _ in one.points], HEIGHT - BOTTOM, TOP)
    parts = [*_y_grid(up), *_x_grid(across, x_ticks)]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", x_title, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="axis"))
    for index, one in enumerate(series):
        parts.append(_curve(index, one, across, up))
    svg = element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_labelledby=f"{name}-title", class_="curves"
    )
    caption = element("figcaption", title, id=f"{name}-title")
    return element("figure", caption, scrolling(svg, f"{name}-title"), id=name)


def legend(names: Sequence[str]) -> Element:
    """Which mark is whose, for charts with the same series."""
    return element("ul", *(element("li", _key(index), name) for index, name in enumerate(names)), class_="legend")


@dataclass(frozen=True)
class _Axis:
    """Logarithms of `low` to `high` on `start` to `end` of the picture."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = min(values), max(values)
        room = max((high / low) ** 0.06, 1.15)  # a single value needs a span as well
        return cls(low / room, high * room, start, end)

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 2)


def _y_grid(up: _Axis) -> list[Element]:
    parts = []
    for value in _round_values(up.low, up.high):
        y = up.at(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{value:,.10g}", x=LEFT - 8, y=y + 4, text_anchor="end"))
    return parts


def _x_grid(across: _Axis, ticks: Sequence[tuple[float, str]]) -> list[Element]:
    parts: list[Element] = []
    last = -math.inf
    for value, text in sorted(ticks):
        x = across.at(value)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        if x - last > 7 * len(text) + 8:  # sizes that lie close share a label
            parts.append(element("text", text, x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
            last = x
    return parts


def _round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between `low` and `high`; powers alone where those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= MOST_TICKS:
            break
    return inside


def _curve(index: int, one: Series, across: _Axis, up: _Axis) -> Element:
    placed = [(across.at(x), up.at(y), text) for x, y, text in sorted(one.points)]
    line = element(
        "polyline",
        points=" ".join(f"{x},{y}" for x, y, _ in placed),
        stroke_dasharray=DASHES[index // COLOURS % len(DASHES)] or None,
    )
    marks = [_mark(index, x, y, f"{one.name}, {text}") for x, y, text in placed]
    return element("g", line, *marks, class_=f"series-{index % COLOURS}")


def _mark(index: int, x: float, y: float, title: str = "") -> Element:
    shape = _SHAPES[index % COLOURS]
    return element("path", element("title", title) if title else None, d=shape, transform=f"translate({x} {y})")


def _key(index: int) -> Element:
    line = element("polyline", points="0,7 28,7", stroke_dasharray=DASHES[index // COLOURS % len(DASHES)] or None)
    drawn = element("g", line, _mark(index, 14, 7), class_=f"series-{index % COLOURS}")
    return element("svg", drawn, width="28", height="14", aria_hidden="true", class_="key")
