"""Scatter charts: gain against what it costs, with the line of those that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nearer.report.charts.drawing import (
    Axis,
    Point,
    are_equal,
    axis_around,
    dot,
    fit,
    horizontal,
    is_narrow,
    levels,
    path,
    svg,
    text,
    vertical,
)

_TOP = 34.0
_CHEAPEST, _DEAREST = 1e-9, 1e30  # costs with a place on an axis by ratio


@dataclass(frozen=True, slots=True)
class Spot:
    """One system: what it costs (x), what it gains (y), its number in the table beside the chart."""

    x: float
    y: float
    number: int
    note: str
    tone: str = "plain"  # accent, today, plain
    hollow: bool = False  # measured on other queries than the filled ones


@dataclass(frozen=True, slots=True)
class Axes:
    """Names of both axes; `ratio` spaces the costs by ratio, `show` writes one of them."""

    x: str
    y: str
    show: Callable[[float], str]
    ratio: bool = False
    zero: str = "no change"  # what a gain of 0 means; no line where it is empty


def scatter(
    spots: Sequence[Spot],
    *,
    width: int,
    title: str,
    axes: Axes,
    lines: Sequence[Sequence[int]] = (),
) -> Markup | None:
    """Dots with their numbers; each of `lines` joins the spots at these positions.

    By ratio, a spot that costs nothing has no place: it is left out.
    """
    usable = [spot for spot in spots if _has_place(spot, axes)]
    if len(usable) < 2:
        return None
    height = 270.0
    left, right = (46.0, width - 12.0) if is_narrow(width) else (60.0, width - 24.0)
    x = _cost_axis([_place(spot, axes) for spot in usable], left, right)
    y = axis_around([0.0, *(spot.y for spot in usable)], height, _TOP, 5, sign=True)
    body = levels(x, y)
    body += _cost_labels(x, height, axes)
    body.append(text(0, 14, axes.y, "tick"))
    body.append(text(right, height + 36, axes.x, "tick", "end"))
    if axes.zero:
        body.append(horizontal(x.start, x.stop, y(0.0), "reference"))
    for line in lines:
        joined = [spots[at] for at in line if _has_place(spots[at], axes)]
        pixels = [(x(_place(spot, axes)), y(spot.y)) for spot in joined]
        if len(pixels) > 1:
            body.append(path(pixels, "frontier"))
    taken: list[Point] = []
    for spot in usable:
        body += _mark(spot, (x(_place(spot, axes)), y(spot.y)), taken)
    description = "; ".join(f"{spot.number}: {spot.note}" for spot in usable)
    return svg(width, height + 44, body, title, description)


def _has_place(spot: Spot, axes: Axes) -> bool:
    return not axes.ratio or _CHEAPEST <= spot.x <= _DEAREST


def _place(spot: Spot, axes: Axes) -> float:
    return math.log10(spot.x) if axes.ratio else spot.x


def _cost_axis(values: Sequence[float], left: float, right: float) -> Axis:
    low, high = min(values), max(values)
    room = (high - low) * 0.08
    if are_equal(low, high):
        room = abs(high) * 0.1 or 0.1
    return Axis(low - room, high + room, left, right, 5)


def _cost_labels(x: Axis, height: float, axes: Axes) -> list[str]:
    """Values below the axis: round ones where it is even, 1, 2 and 5 times powers of ten by ratio."""
    elements = []
    last = -math.inf
    for value in _ticks(x, axes):
        pixel = x(math.log10(value) if axes.ratio else value)
        if pixel - last < 52:
            continue
        last = pixel
        elements.append(vertical(pixel, _TOP, height, "grid"))
        elements.append(text(pixel, height + 17, axes.show(value), "tick", "middle"))
    return elements


def _ticks(x: Axis, axes: Axes) -> list[float]:
    if not axes.ratio:
        return [
            x.low + (pixel - x.start) / (x.stop - x.start) * (x.high - x.low)
            for pixel, _ in x.labels()
        ]
    for factors in ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)):
        values = []
        for power in range(math.floor(x.low), math.ceil(x.high) + 1):
            for factor in factors:
                value = factor * 10.0**power
                if x.low <= math.log10(value) <= x.high:
                    values.append(value)
        if len(values) > 2:
            return values
    return [10.0 ** (x.low + share * (x.high - x.low)) for share in (0.1, 0.5, 0.9)]


def _mark(spot: Spot, pixel: Point, taken: list[Point]) -> list[str]:
    """A dot with its number beside it, on the side that is still free."""
    x, y = pixel
    number = str(spot.number)
    kind = "dot hollow" if spot.hollow else "dot"
    title = escape(f"{number}: {spot.note}")
    place = (x + 8, y - 6)
    for shift in ((8, -6), (8, 14), (-16, -6), (-16, 14), (-4, -10), (-4, 20)):
        wanted = (x + shift[0], y + shift[1])
        if all(abs(wanted[0] - a) > 15 or abs(wanted[1] - b) > 11 for a, b in taken):
            place = wanted
            break
    taken.append(place)
    label = text(place[0], place[1], fit(number, 40), "note")
    return [
        f'<g class="mark {spot.tone}"><title>{title}</title>',
        dot(x, y, 5, kind),
        label,
        "</g>",
    ]


def frontier(points: Sequence[Point]) -> list[int]:
    """Positions of the points that no other beats: none costs less and gains as much, by cost."""
    order = sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1]))
    best = -math.inf
    kept = []
    for at in order:
        if points[at][1] > best:
            best = points[at][1]
            kept.append(at)
    return kept
