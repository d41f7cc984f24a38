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
        room = self.high - self.low
        length = self.stop - self.start
        share = (value - self.low) / room
        return self.start + share * length

    def labels(self) -> list[tuple[float, str]]:
        """Pixel and label of each tick, with as many decimal places as their spacing needs."""
        values = ticks(self.low, self.high, self.about)
        step = _step(values)
        labels = []
        for value in values:
            labels.append((self(value), self._label(value, step)))
        return labels

    def _label(self, value: float, step: float) -> str:
        if step >= 1:
            return whole(value)
        magnitude = math.log10(step) + 1e-9
        places = -math.floor(magnitude)
        places = min(6, max(1, places))
        if self.sign:
            return signed(value, places)
        return fixed(value, places)


def _step(values: Sequence[float]) -> float:
    """Distance between ticks; of a single tick, its own size."""
    first = values[0]
    if len(values) > 1:
        return values[1] - first
    return abs(first) or 1.0


def axis_around(
    values: Sequence[float], start: float, stop: float, about: int = 5, sign: bool = False
) -> Axis:
    """An axis with some room on both sides of the values."""
    low = min(values)
    high = max(values)
    room = (high - low) * 0.06
    if are_equal(low, high):
        room = abs(high) * 0.1 or 0.1
    return Axis(
        low - room,
        high + room,
        start,
        stop,
        about,
        sign,
    )


def are_equal(low: float, high: float) -> bool:
    """Whether two values differ by no more than rounding does."""
    return high - low <= 1e-12 * max(abs(low), abs(high), 1e-280)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if are_equal(low, high):
        return [low]
    rough = (high - low) / about
    magnitude = math.floor(math.log10(rough))
    power = 10.0**magnitude
    step = 10 * power
    for factor in (5, 2, 1):
        if factor * power >= rough:
            step = factor * power
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    positions = range(first, last + 1)
    return [position * step + 0.0 for position in positions]


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
            end = max(1, position - 1)
            return content[:end].rstrip() + "…"
    return content


def svg(width: int, height: float, body: Sequence[str], title: str, description: str) -> Markup:
    """The whole drawing, named for those who do not see it."""
    kind = {WIDE: "wide", NARROW: "narrow"}.get(width, "any")
    size = f'width="{width}" height="{height:.0f}"'
    name = escape(title)
    parts = [
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height:.0f}" ',
        f'{size} role="img" aria-label="{name}">',
        f"<title>{name}</title>",
        f"<desc>{escape(description)}</desc>",
        *body,
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704 - its texts are escaped


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Escaped text; `kind` is its CSS class."""
    position = f'x="{x:.1f}" y="{y:.1f}"'
    style = f'class="{kind}" text-anchor="{anchor}"'
    return f"<text {position} {style}>{escape(content)}</text>"


def vertical(x: float, top: float, bottom: float, kind: str) -> str:
    """A line from top to bottom."""
    return _line(x, top, x, bottom, kind)


def horizontal(left: float, right: float, y: float, kind: str) -> str:
    """A line from left to right."""
    return _line(left, y, right, y, kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    start = f'x1="{x1:.1f}" y1="{y1:.1f}"'
    end = f'x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {start} {end} class="{kind}"/>'


def dot(x: float, y: float, radius: float, kind: str) -> str:
    """A filled circle."""
    middle = f'cx="{x:.1f}" cy="{y:.1f}"'
    return f'<circle {middle} r="{radius}" class="{kind}"/>'


def path(points: Sequence[Point], kind: str, end: str = "") -> str:
    """A line through points; `end="Z"` closes it."""
    steps = [f"{x:.1f} {y:.1f}" for x, y in points]
    outline = "M" + "L".join(steps) + end
    return f'<path d="{outline}" class="{kind}"/>'


def columns(x: Axis, top: float, bottom: float) -> list[str]:
    """Vertical grid lines, with the labels of the axis below them."""
    elements = []
    for pixel, label in x.labels():
        grid = vertical(pixel, top, bottom, "grid")
        name = text(pixel, bottom + 17, label, "tick", "middle")
        elements.append(grid + name)
    return elements


def levels(x: Axis, y: Axis) -> list[str]:
    """Horizontal grid lines, with the labels of the axis left of them."""
    elements = []
    for pixel, label in y.labels():
        grid = horizontal(x.start, x.stop, pixel, "grid")
        name = text(x.start - 7, pixel + 4, label, "tick", "end")
        elements.append(grid + name)
    return elements


def frame(x: Axis, y: Axis) -> list[str]:
    """Horizontal grid lines, and the labels of both axes."""
    below = y.start + 17
    elements = levels(x, y)
    for pixel, label in x.labels():
        elements.append(text(pixel, below, label, "tick", "middle"))
    return elements
