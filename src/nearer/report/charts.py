"""Charts as inline SVG: no script, no network, colours by CSS class so that dark mode and print follow.

A chart is drawn for one width in CSS pixels and never scaled up, so that its text keeps its size;
the page asks for a wide and a narrow one and shows whichever fits.  `None` means: nothing to draw.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from markupsafe import Markup, escape

from nearer.report.content import fixed, signed, whole

WIDE, NARROW = 832, 330
_MAX_POINTS = 300

Point = tuple[float, float]


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
class _Axis:
    """Values [low, high] onto pixels [start, stop], with about as many tick marks."""

    low: float
    high: float
    start: float
    stop: float
    about: int = 5
    sign: bool = False

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def labels(self) -> list[tuple[float, str]]:
        """Pixel and label of each tick, with as many places as their spacing needs."""
        marks = ticks(self.low, self.high, self.about)
        step = marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) or 1.0
        places = min(6, max(1, -math.floor(math.log10(step) + 1e-9)))
        show = whole if step >= 1 else lambda value: (signed if self.sign else fixed)(value, places)
        return [(self(value), show(value)) for value in marks]


def _around(
    values: Sequence[float], start: float, stop: float, about: int = 5, sign: bool = False
) -> _Axis:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return _Axis(low - room, high + room, start, stop, about, sign)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    return [
        index * step + 0.0
        for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _ems(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if char in "MW@%" or unicodedata.east_asian_width(char) in "WF":
        return 1.0
    return 0.7 if char.isupper() else 0.57


def _fit(text: str, pixels: float, font: float = 13.0) -> str:
    """Text cut with … so that it stays within `pixels`; a safe estimate, as fonts differ."""
    width = 0.0
    for index, char in enumerate(text):
        width += _ems(char) * font
        if width > pixels:
            return text[: max(1, index - 1)].rstrip() + "…"
    return text


def _svg(width: int, height: float, body: Sequence[str], title: str, description: str) -> Markup:
    kind = "wide" if width == WIDE else "narrow" if width == NARROW else "any"
    return Markup(  # noqa: S704 - every text in it has been escaped
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title><desc>{escape(description)}</desc>{"".join(body)}</svg>'
    )


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def _line(a: Point, b: Point, kind: str) -> str:
    return f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" class="{kind}"/>'


def _dot(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"/>'


def _path(points: Sequence[Point], kind: str, end: str = "") -> str:
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}{end}" class="{kind}"/>'


def _frame(x: _Axis, y: _Axis) -> list[str]:
    """Horizontal grid lines, and the labels of both axes."""
    rows = [
        _line((x.start, at), (x.stop, at), "grid")
        + _text(x.start - 7, at + 4, label, "tick", "end")
        for at, label in y.labels()
    ]
    return rows + [_text(at, y.start + 17, label, "tick", "middle") for at, label in x.labels()]


def whiskers(
    marks: Sequence[Mark],
    *,
    width: int,
    title: str,
    reference: float | None = None,
    reference_label: str = "",
    sign: bool = False,
) -> Markup | None:
    """Dot and whisker, a row a mark; `reference` is a dashed vertical line (today's system, or no change).

    Wide: label left, figures right.  Narrow: both above the dot.  `sign` writes + on the axis.
    """
    if not marks:
        return None
    narrow = width < 500
    values = [v for m in marks for v in (m.value, m.low, m.high, reference) if v is not None]
    x = _around(
        values, *((14.0, width - 14.0, 5) if narrow else (width * 0.26, width * 0.77, 7)), sign
    )
    top, step = (22.0 if reference_label else 6.0), (44.0 if narrow else 30.0)
    bottom = top + step * len(marks)
    body = [
        _line((at, top), (at, bottom), "grid") + _text(at, bottom + 17, label, "tick", "middle")
        for at, label in x.labels()
    ]
    if reference is not None:
        at = x(reference)
        share = (at - x.start) / (x.stop - x.start)
        body.append(_line((at, top - 4), (at, bottom), "reference"))
        body.append(
            _text(
                at,
                top - 9,
                reference_label,
                "tick",
                "start" if share < 0.25 else "end" if share > 0.75 else "middle",
            )
        )
    for index, mark in enumerate(marks):
        y, cx = top + step * index + (30.0 if narrow else 15.0), x(mark.value)
        line, room = (
            (y - 14, width - 12 - 0.57 * 12 * len(mark.note)) if narrow else (y + 4.5, width * 0.24)
        )
        body.append(
            f'<g class="mark {mark.tone}"><title>{escape(f"{mark.label}: {mark.note}")}</title>'
        )
        body += [
            _text(0, line, _fit(mark.label, room), "name"),
            _text(width, line, mark.note, "note", "end"),
        ]
        if mark.low is not None and mark.high is not None:
            body.append(_line((x(mark.low), y), (x(mark.high), y), "whisker"))
            body += [_line((x(v), y - 4), (x(v), y + 4), "whisker") for v in (mark.low, mark.high)]
        diamond = [(cx - 7, y), (cx, y - 6), (cx + 7, y), (cx, y + 6)]
        body += [
            _path(diamond, "dot", "Z") if mark.tone == "total" else _dot(cx, y, 5, "dot"),
            "</g>",
        ]
    return _svg(width, bottom + 24, body, title, "; ".join(f"{m.label} {m.note}" for m in marks))


def waterfall(marks: Sequence[Mark], *, width: int, title: str, heading: str = "") -> Markup | None:
    """Rows of bars: the first mark is the whole, each further one takes its part off what is left of it.

    Faint bars are what is left; the note stands at the right, under `heading`.
    """
    if len(marks) < 2 or not marks[0].value > 0:
        return None
    narrow, left = width < 500, marks[0].value
    x = _Axis(0.0, left, *((0.0, width - 48.0) if narrow else (width * 0.2, width * 0.76)))
    top, step, room = 24.0, *((46.0, width * 0.62) if narrow else (32.0, width * 0.19))
    body = [_text(width, 12, heading, "tick", "end")]
    for index, mark in enumerate(marks):
        y, low = (
            top + step * index + (32.0 if narrow else 16.0),
            max(0.0, left - mark.value) if index else 0.0,
        )
        line, start = (
            (y - 14 if narrow else y + 4.5),
            min(x(low), x(left) - 1.5),
        )  # one of many is still seen
        body.append(
            f'<g class="mark {mark.tone}"><title>{escape(f"{mark.label}: {whole(mark.value)}; {mark.note}")}</title>'
        )
        body += [
            _text(0, line, _fit(mark.label, room), "name"),
            _text(width, line, mark.note, "note", "end"),
        ]
        body += [_line((x(0), y), (x(low), y), "rest"), _line((start, y), (x(left), y), "bar")]
        body += [_text(x(left) + 6, y + 4.5, whole(mark.value), "note"), "</g>"]
        left = low if index else left
    return _svg(
        width,
        top + step * len(marks) + 4,
        body,
        title,
        "; ".join(f"{m.label} {whole(m.value)}" for m in marks),
    )


def margins(
    edges: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    means: tuple[float | None, float | None],
    *,
    width: int,
) -> Markup | None:
    """Two histograms of the margin laid over each other; right of zero the relevant document is nearer."""
    bars = len(edges) - 1
    if (
        bars < 1
        or len(before) != bars
        or len(after) != bars
        or any(b <= a for a, b in pairwise(edges))
        or not any([*before, *after])
    ):
        return None
    wide = width > 500
    height, top = (250.0 if wide else 220.0), 46.0
    x = _Axis(
        min(edges[0], 0.0),
        max(edges[-1], 0.0),
        40.0 if wide else 30.0,
        width - 14.0,
        8 if wide else 4,
        sign=True,
    )
    y = _Axis(0.0, max(*before, *after), height, top + 6, 4)
    body = _frame(x, y)
    for counts, kind in ((before, "before"), (after, "after")):
        steps = [
            (x(edge), y(count))
            for i, count in enumerate(counts)
            for edge in (edges[i], edges[i + 1])
        ]
        body.append(_path([(x(edges[0]), y(0)), *steps, (x(edges[-1]), y(0))], f"area {kind}", "Z"))
    body.append(_line((x(0), top), (x(0), height), "reference"))
    room = 150 if wide else 72
    body += (
        [_text(x(0) - 8, 14, "← irrelevant nearer", "tick", "end")] if x(0) - x.start > room else []
    )
    body += [_text(x(0) + 8, 14, "relevant nearer →", "tick")] if width - x(0) > room else []
    known = sorted(
        (mean, kind)
        for mean, kind in zip(means, ("before", "after"), strict=True)
        if mean is not None and x.low <= mean <= x.high
    )
    for mean, kind in known:
        # The smaller mean is labelled to its left and the larger to its right, so that they never meet.
        left = len(known) == 2 and (mean, kind) == known[0]
        body.append(_line((x(mean), top - 8), (x(mean), height), f"mean {kind}"))
        body.append(
            _text(
                x(mean) + (-5 if left else 5),
                top - 10,
                f"{kind} {signed(mean)}",
                f"label {kind}",
                "end" if left else "start",
            )
        )
    words = f"Mean margin before {signed(means[0])}, after {signed(means[1])}; {whole(sum(before))} queries."
    return _svg(
        width,
        height + 26,
        body,
        "Margin between relevant and irrelevant documents, before and after",
        words,
    )


def curve(
    points: Sequence[Point],
    *,
    title: str,
    best: float | None = None,
    base: bool = False,
    smooth: bool = False,
) -> Markup | None:
    """A line over training steps.

    `best` marks that step; `base` draws the first value as a dashed line (the base model);
    `smooth` draws a moving average over faint raw values when there are enough of them.
    """
    points = sorted(points)
    if not points:
        return None
    width, height, top = 368, 196.0, 26.0
    points = points[:: math.ceil(len(points) / _MAX_POINTS)] + (
        points[-1:] if len(points) > _MAX_POINTS else []
    )
    x = _Axis(min(0.0, points[0][0]), max(points[-1][0], 1.0), 44.0, width - 14.0)
    y = _around([value for _, value in points], height, top)
    drawn = [(x(a), y(b)) for a, b in points]
    body = _frame(x, y)
    if base:
        body.append(_line((x.start, drawn[0][1]), (x.stop, drawn[0][1]), "reference"))
    if smooth and len(points) >= 15:
        half = max(1, len(points) // 20)
        windows = (
            [b for _, b in drawn[max(0, i - half) : i + half + 1]] for i in range(len(drawn))
        )
        body += [
            _path(drawn, "raw"),
            _path(
                [(a, sum(part) / len(part)) for (a, _), part in zip(drawn, windows, strict=True)],
                "line",
            ),
        ]
    else:
        body += [
            _path(drawn, "line"),
            *(_dot(a, b, 3, "point") for a, b in drawn if len(drawn) <= 40),
        ]
    for (step, value), (cx, cy) in zip(points, drawn, strict=True):
        if step == best:
            shift, anchor = (-8, "end") if cx > width * 0.6 else (8, "start")
            label = _text(
                cx + shift,
                top - 8,
                f"best {fixed(value)}, step {whole(best)}",
                "label after",
                anchor,
            )
            body += [_line((cx, top), (cx, height), "mean after"), _dot(cx, cy, 6, "best"), label]
    words = f"From {fixed(points[0][1])} at step {whole(points[0][0])} to {fixed(points[-1][1])} at step {whole(points[-1][0])}."
    return _svg(width, height + 26, body, title, words)


def timeline(
    points: Sequence[tuple[str, float]], *, title: str, marks: Sequence[str] = ()
) -> Markup | None:
    """A line over days (ISO dates); `marks` are days with a cut-over, drawn as vertical lines."""
    if not points:
        return None
    width, height, top = 368, 170.0, 20.0
    days = {
        day: date.fromisoformat(day).toordinal() for day in {*(day for day, _ in points), *marks}
    }
    first, last = min(days.values()), max(days.values())
    x = _Axis(first - 0.5, last + 0.5, 44.0, width - 14.0)
    y = _around([value for _, value in points], height, top)
    body = [
        _line((x.start, at), (x.stop, at), "grid")
        + _text(x.start - 7, at + 4, label, "tick", "end")
        for at, label in y.labels()
    ]
    ends = {first: "start", last: "end"} if last > first else {first: "middle"}
    body += [
        _text(x(at), height + 17, date.fromordinal(at).strftime("%-d %b"), "tick", anchor)
        for at, anchor in ends.items()
    ]
    body += [_line((x(days[day]), top), (x(days[day]), height), "reference") for day in marks]
    drawn = [(x(days[day]), y(value)) for day, value in sorted(points)]
    body += [_path(drawn, "line"), *(_dot(a, b, 3, "point") for a, b in drawn if len(drawn) <= 40)]
    words = f"From {fixed(points[0][1])} on {points[0][0]} to {fixed(points[-1][1])} on {points[-1][0]}; {len(marks)} cut-overs."
    return _svg(width, height + 26, body, title, words)
