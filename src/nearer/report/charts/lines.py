"""Line charts: a value over training steps, and a value over days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

from markupsafe import Markup

from nearer.report.charts.drawing import (
    Axis,
    Point,
    axis_around,
    dot,
    frame,
    horizontal,
    levels,
    path,
    svg,
    text,
    vertical,
)
from nearer.report.values import fixed, whole

_WIDTH = 368
_LEFT, _RIGHT = 44.0, _WIDTH - 14.0  # ends of the axis of steps or days
_MAX_POINTS = 300  # longer histories are thinned
_MAX_DOTS = 40  # more points than this are a line without dots
_MIN_SMOOTHED = 15  # fewer points than this are never smoothed


def curve(
    points: Sequence[Point],
    *,
    title: str,
    best: float | None = None,
    base: bool = False,
    smooth: bool = False,
) -> Markup | None:
    """A line over training steps, through (step, value) in any order.

    `best` marks that step; `base` draws the first value as a dashed line (the base model);
    `smooth` draws a moving average over faint raw values when there are enough of them.
    """
    if not points:
        return None
    points = _thinned(sorted(points))
    height, top = 196.0, 26.0
    first = points[0]
    last = points[-1]
    x = Axis(
        min(0.0, first[0]),
        max(last[0], 1.0),
        _LEFT,
        _RIGHT,
    )
    y = axis_around([value for _, value in points], height, top)
    pixels = [(x(step), y(value)) for step, value in points]
    body = frame(x, y)
    if base:
        _, level = pixels[0]
        body.append(horizontal(x.start, x.stop, level, "reference"))
    if smooth and len(points) >= _MIN_SMOOTHED:
        body.append(path(pixels, "raw"))
        body.append(path(_smoothed(pixels), "line"))
    else:
        body += _dotted(pixels)
    for (step, value), pixel in zip(points, pixels, strict=True):
        if step == best:
            label = f"best {fixed(value)}, step {whole(best)}"
            body += _best_step(pixel, label, top, height)
    description = f"From {_at_step(first)} to {_at_step(last)}."
    return svg(_WIDTH, height + 26, body, title, description)


def _at_step(point: Point) -> str:
    step, value = point
    return f"{fixed(value)} at step {whole(step)}"


def _thinned(points: list[Point]) -> list[Point]:
    """At most so many points, evenly chosen, the last always among them."""
    if len(points) <= _MAX_POINTS:
        return points
    every = math.ceil(len(points) / _MAX_POINTS)
    return points[::every] + points[-1:]


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """Moving average of y over about a tenth of the points."""
    half = max(1, len(points) // 20)
    averages = []
    for position, (x, _) in enumerate(points):
        start = max(0, position - half)
        window = points[start : position + half + 1]
        total = sum(y for _, y in window)
        averages.append((x, total / len(window)))
    return averages


def _dotted(points: Sequence[Point]) -> list[str]:
    """A line, with a dot per point where there are few."""
    elements = [path(points, "line")]
    if len(points) <= _MAX_DOTS:
        elements += [dot(x, y, 3, "point") for x, y in points]
    return elements


def _best_step(pixel: Point, label: str, top: float, bottom: float) -> list[str]:
    x, y = pixel
    shift, anchor = 8, "start"
    if x > _WIDTH * 0.6:
        shift = -8
        anchor = "end"
    return [
        vertical(x, top, bottom, "mean after"),
        dot(x, y, 6, "best"),
        text(x + shift, top - 8, label, "label after", anchor),
    ]


def timeline(
    points: Sequence[tuple[str, float]], *, title: str, marks: Sequence[str] = ()
) -> Markup | None:
    """A line over days, through (ISO date, value); `marks` are days with a cut-over."""
    if not points:
        return None
    height, top = 170.0, 20.0
    days = {}
    values = []
    for day, value in points:
        days[day] = date.fromisoformat(day).toordinal()
        values.append(value)
    for day in marks:
        days[day] = date.fromisoformat(day).toordinal()
    first = min(days.values())
    last = max(days.values())
    x = Axis(first - 0.5, last + 0.5, _LEFT, _RIGHT)
    y = axis_around(values, height, top)
    body = levels(x, y)
    ends = {first: "middle"}
    if last > first:
        ends = {first: "start", last: "end"}
    for ordinal, anchor in ends.items():
        label = date.fromordinal(ordinal).strftime("%-d %b")
        name = text(x(ordinal), height + 17, label, "tick", anchor)
        body.append(name)
    for mark in marks:
        pixel = x(days[mark])
        body.append(vertical(pixel, top, height, "reference"))
    pixels = [(x(days[day]), y(value)) for day, value in sorted(points)]
    body += _dotted(pixels)
    first_day, first_value = points[0]
    last_day, last_value = points[-1]
    start = f"{fixed(first_value)} on {first_day}"
    end = f"{fixed(last_value)} on {last_day}"
    description = f"From {start} to {end}; {len(marks)} cut-overs."
    return svg(_WIDTH, height + 26, body, title, description)
