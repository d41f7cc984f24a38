"""Charts with one row per value: dots with whiskers, and the waterfall of causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nearer.report.charts.drawing import (
    Axis,
    axis_around,
    columns,
    dot,
    fit,
    horizontal,
    is_narrow,
    path,
    svg,
    text,
    vertical,
)
from nearer.report.values import whole


@dataclass(frozen=True, slots=True)
class Mark:
    """One row: a value, its interval, and the figures written beside it."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    tone: str = "plain"  # accent, today, good, bad, plain, total


@dataclass(frozen=True, slots=True)
class Reference:
    """A dashed vertical line that every row is compared with: the baseline, or no change."""

    value: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where rows stand, in pixels.

    Wide: the label left of the value and the figures right of it.  Narrow: both above the value.
    """

    width: int
    top: float
    step: float  # height of a row
    middle: float  # from the top of a row to its value

    @property
    def narrow(self) -> bool:
        return is_narrow(self.width)

    def y(self, row: int) -> float:
        """Height at which the value of a row is drawn."""
        return self.top + self.step * row + self.middle

    def texts(self, row: int, mark: Mark, room: float) -> list[str]:
        """The label, cut to `room` pixels, and the note of a row."""
        y = self.y(row) + 4.5
        if self.narrow:
            y = self.y(row) - 14
        return [
            text(0, y, fit(mark.label, room), "name"),
            text(self.width, y, mark.note, "note", "end"),
        ]


def _group(mark: Mark, description: str, elements: Sequence[str]) -> list[str]:
    """The elements of one row, with a tooltip."""
    title = escape(f"{mark.label}: {description}")
    return [f'<g class="mark {mark.tone}"><title>{title}</title>', *elements, "</g>"]


def whiskers(
    marks: Sequence[Mark],
    *,
    width: int,
    title: str,
    reference: Reference | None = None,
    margin: Reference | None = None,
    sign: bool = False,
) -> Markup | None:
    """Dots with whiskers, one row per mark.

    `margin` is a second line: the loss that is still accepted.  `sign` writes + and − on the axis.
    """
    if not marks:
        return None
    references = [line for line in (reference, margin) if line is not None]
    x = _value_axis(marks, references, width, sign)
    top = 6.0
    if reference is not None and reference.label:
        top = 22.0
    if margin is not None:
        top += 16.0
    rows = _Rows(width, top, 30.0, 15.0)
    if is_narrow(width):
        rows = _Rows(width, top, 44.0, 30.0)
    bottom = top + rows.step * len(marks)
    body = columns(x, top, bottom)
    if reference is not None:
        body += _reference_line(reference, x, top, bottom)
    if margin is not None:
        pixel = x(margin.value)
        body.append(vertical(pixel, top - 4, bottom, "margin"))
        body += _margin_label(margin, pixel, top)
    for row, mark in enumerate(marks):
        body += _whisker_row(mark, row, rows, x)
    description = "; ".join(f"{mark.label} {mark.note}" for mark in marks)
    return svg(width, bottom + 24, body, title, description)


def _value_axis(
    marks: Sequence[Mark], references: Sequence[Reference], width: int, sign: bool
) -> Axis:
    values = []
    for mark in marks:
        values.append(mark.value)
        if mark.low is not None:
            values.append(mark.low)
        if mark.high is not None:
            values.append(mark.high)
    values += [line.value for line in references]
    if is_narrow(width):
        return axis_around(values, 14.0, width - 14.0, 5, sign)
    return axis_around(values, width * 0.26, width * 0.77, 7, sign)


def _reference_line(reference: Reference, x: Axis, top: float, bottom: float) -> list[str]:
    pixel = x(reference.value)
    share = (pixel - x.start) / (x.stop - x.start)
    anchor = "middle"
    if share < 0.25:
        anchor = "start"
    elif share > 0.75:
        anchor = "end"
    return [
        vertical(pixel, top - 4, bottom, "reference"),
        text(pixel, top - 9, reference.label, "tick", anchor),
    ]


def _margin_label(margin: Reference, pixel: float, top: float) -> list[str]:
    """Above the label of the other line, to the left where there is room."""
    if pixel < 140:
        return [text(pixel - 4, top - 25, margin.label, "tick")]
    return [text(pixel + 4, top - 25, margin.label, "tick", "end")]


def _whisker_row(mark: Mark, row: int, rows: _Rows, x: Axis) -> list[str]:
    y = rows.y(row)
    room = rows.width * 0.24
    if rows.narrow:
        room = rows.width - 12 - 0.57 * 12 * len(mark.note)
    elements = rows.texts(row, mark, room)
    if mark.low is not None and mark.high is not None:
        low = x(mark.low)
        high = x(mark.high)
        elements.append(horizontal(low, high, y, "whisker"))
        elements.append(vertical(low, y - 4, y + 4, "whisker"))
        elements.append(vertical(high, y - 4, y + 4, "whisker"))
    middle = x(mark.value)
    if mark.tone == "total":
        diamond = [
            (middle - 7, y),
            (middle, y - 6),
            (middle + 7, y),
            (middle, y + 6),
        ]
        elements.append(path(diamond, "dot", "Z"))
    else:
        elements.append(dot(middle, y, 5, "dot"))
    return _group(mark, mark.note, elements)


@dataclass(frozen=True, slots=True)
class _Bar:
    """The part [low, high] that one mark takes off; what lies below `low` is left."""

    mark: Mark
    low: float
    high: float


def _bars(marks: Sequence[Mark]) -> list[_Bar]:
    """The first mark is the whole; each further one takes its part off what is left."""
    total, *parts = marks
    left = total.value
    bars = [_Bar(total, 0.0, left)]
    for mark in parts:
        rest = max(0.0, left - mark.value)
        bars.append(_Bar(mark, rest, left))
        left = rest
    return bars


def waterfall(marks: Sequence[Mark], *, width: int, title: str, heading: str = "") -> Markup | None:
    """Bars, one row per mark: the first is the whole, each other one takes its part off the rest.

    Faint bars are what is left; the note stands at the right, under `heading`.
    """
    if len(marks) < 2 or not marks[0].value > 0:
        return None
    total = marks[0].value
    if is_narrow(width):
        rows = _Rows(width, 24.0, 46.0, 32.0)
        room = width * 0.62
        x = Axis(0.0, total, 0.0, width - 48.0)
    else:
        rows = _Rows(width, 24.0, 32.0, 16.0)
        room = width * 0.19
        x = Axis(0.0, total, width * 0.2, width * 0.76)
    body = [text(width, 12, heading, "tick", "end")]
    for row, bar in enumerate(_bars(marks)):
        mark = bar.mark
        elements = rows.texts(row, mark, room)
        elements += _bar_elements(bar, x, rows.y(row))
        body += _group(mark, f"{whole(mark.value)}; {mark.note}", elements)
    height = rows.top + rows.step * len(marks) + 4
    description = "; ".join(f"{mark.label} {whole(mark.value)}" for mark in marks)
    return svg(width, height, body, title, description)


def _bar_elements(bar: _Bar, x: Axis, y: float) -> list[str]:
    rest_end = x(bar.low)
    end = x(bar.high)
    start = min(rest_end, end - 1.5)  # one failure among many is still visible
    return [
        horizontal(x(0), rest_end, y, "rest"),
        horizontal(start, end, y, "bar"),
        text(
            end + 6,
            y + 4.5,
            whole(bar.mark.value),
            "note",
        ),
    ]
