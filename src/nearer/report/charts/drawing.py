"""What every chart is drawn with: axes, ticks, and the few SVG elements."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nearer.report.values import fixed, signed, whole

WIDE, NARROW = 832, 330
_NARROW_BELOW = 500  # pixels: below this width, labels stand above their values

Point = tuple[float, float]


def is_narrow(width: int) -> bool:
    """Whether labels and figures must stand above the values, for want of width."""
    return width < _NARROW_BELOW


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values [low, high] onto pixels [start, stop], with about `about` tick marks."""

    low: float
    high: float
    start: float
    stop: float
    about: int = 5
    sign: bool = False  # labels have a + or −

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def labels(self) -> list[tuple[float, str]]:
        """Pixel and label of each tick, with as many decimal places as their spacing needs."""
        values = ticks(self.low, self.high, self.about)
        step = _step(values)
        return [(self(value), self._label(value, step)) for value in values]

    def _label(self, value: float, step: float) -> str:
        if step >= 1:
            return whole(value)
        places = -math.floor(math.log10(step) + 1e-9)
        places = min(6, max(1, places))
        if self.sign:
            return signed(value, places)
        return fixed(value, places)


def _step(values: Sequence[float]) -> float:
    """Distance between ticks; of a single tick, its own size."""
    if len(values) > 1:
        return values[1] - values[0]
    return abs(values[0]) or 1.0


def axis_around(
    values: Sequence[float], start: float, stop: float, about: int = 5, sign: bool = False
) -> Axis:
    """An axis with some room on both sides of the values."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return Axis(low - room, high + room, start, stop, about, sign)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((size for size in (power, 2 * power, 5 * power) if size >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [position * step + 0.0 for position in range(first, last + 1)]


def _ems(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if char in "MW@%" or unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if char.isupper():
        return 0.7
    return 0.57


def fit(content: str, pixels: float, font: float = 13.0) -> str:
    """Text cut with … so that it stays within `pixels`; a safe estimate, as fonts differ."""
    width = 0.0
    for position, char in enumerate(content):
        width += _ems(char) * font
        if width > pixels:
            return content[: max(1, position - 1)].rstrip() + "…"
    return content


def svg(width: int, height: float, body: Sequence[str], title: str, description: str) -> Markup:
    """The whole drawing, named for those who do not see it."""
    kind = {WIDE: "wide", NARROW: "narrow"}.get(width, "any")
    size = f'viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}"'
    name = escape(title)
    opening = f'<svg class="chart {kind}" {size} role="img" aria-label="{name}">'
    words = f"<title>{name}</title><desc>{escape(description)}</desc>"
    return Markup(f"{opening}{words}{''.join(body)}</svg>")  # noqa: S704 - its texts are escaped


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Escaped text; `kind` is its CSS class."""
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def line(start: Point, end: Point, kind: str) -> str:
    """A straight line from one point to another."""
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {ends} class="{kind}"/>'


def dot(x: float, y: float, radius: float, kind: str) -> str:
    """A filled circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"/>'


def path(points: Sequence[Point], kind: str, end: str = "") -> str:
    """A line through points; `end="Z"` closes it."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}{end}" class="{kind}"/>'


def columns(x: Axis, top: float, bottom: float) -> list[str]:
    """Vertical grid lines, with the labels of the axis below them."""
    elements = []
    for pixel, label in x.labels():
        grid = line((pixel, top), (pixel, bottom), "grid")
        elements.append(grid + text(pixel, bottom + 17, label, "tick", "middle"))
    return elements


def levels(x: Axis, y: Axis) -> list[str]:
    """Horizontal grid lines, with the labels of the axis left of them."""
    elements = []
    for pixel, label in y.labels():
        grid = line((x.start, pixel), (x.stop, pixel), "grid")
        elements.append(grid + text(x.start - 7, pixel + 4, label, "tick", "end"))
    return elements


def frame(x: Axis, y: Axis) -> list[str]:
    """Horizontal grid lines, and the labels of both axes."""
    labels = [text(pixel, y.start + 17, label, "tick", "middle") for pixel, label in x.labels()]
    return levels(x, y) + labels
