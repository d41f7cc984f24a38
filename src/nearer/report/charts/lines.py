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
    levels,
    line,
    path,
    svg,
    text,
)
from nearer.report.values import fixed, whole

_WIDTH = 368
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
    x = Axis(min(0.0, points[0][0]), max(points[-1][0], 1.0), 44.0, _WIDTH - 14.0)
    y = axis_around([value for _, value in points], height, top)
    pixels = [(x(step), y(value)) for step, value in points]
    body = frame(x, y)
    if base:
        level = pixels[0][1]
        body.append(line((x.start, level), (x.stop, level), "reference"))
    if smooth and len(points) >= _MIN_SMOOTHED:
        body += [path(pixels, "raw"), path(_smoothed(pixels), "line")]
    else:
        body += _dotted(pixels)
    for (step, value), pixel in zip(points, pixels, strict=True):
        if step == best:
            label = f"best {fixed(value)}, step {whole(best)}"
            body += _best_step(pixel, label, top, height)
    description = _from_to(
        (points[0][1], f"at step {whole(points[0][0])}"),
        (points[-1][1], f"at step {whole(points[-1][0])}"),
    )
    return svg(_WIDTH, height + 26, body, title, f"{description}.")


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
        window = points[max(0, position - half) : position + half + 1]
        averages.append((x, sum(y for _, y in window) / len(window)))
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
        shift, anchor = -8, "end"
    return [
        line((x, top), (x, bottom), "mean after"),
        dot(x, y, 6, "best"),
        text(x + shift, top - 8, label, "label after", anchor),
    ]


def _from_to(first: tuple[float, str], last: tuple[float, str]) -> str:
    """A sentence without its full stop; each end is a value and where it stands."""
    return f"From {fixed(first[0])} {first[1]} to {fixed(last[0])} {last[1]}"


def timeline(
    points: Sequence[tuple[str, float]], *, title: str, marks: Sequence[str] = ()
) -> Markup | None:
    """A line over days, through (ISO date, value); `marks` are days with a cut-over."""
    if not points:
        return None
    height, top = 170.0, 20.0
    days = {day: date.fromisoformat(day).toordinal() for day, _ in points}
    days |= {day: date.fromisoformat(day).toordinal() for day in marks}
    first, last = min(days.values()), max(days.values())
    x = Axis(first - 0.5, last + 0.5, 44.0, _WIDTH - 14.0)
    y = axis_around([value for _, value in points], height, top)
    body = levels(x, y)
    ends = {first: "middle"}
    if last > first:
        ends = {first: "start", last: "end"}
    for day, anchor in ends.items():
        label = date.fromordinal(day).strftime("%-d %b")
        body.append(text(x(day), height + 17, label, "tick", anchor))
    for mark in marks:
        pixel = x(days[mark])
        body.append(line((pixel, top), (pixel, height), "reference"))
    body += _dotted([(x(days[day]), y(value)) for day, value in sorted(points)])
    description = _from_to(
        (points[0][1], f"on {points[0][0]}"), (points[-1][1], f"on {points[-1][0]}")
    )
    return svg(_WIDTH, height + 26, body, title, f"{description}; {len(marks)} cut-overs.")
