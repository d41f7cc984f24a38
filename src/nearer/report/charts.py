"""Charts as inline SVG: no script, no network, colours by CSS class so that dark mode and print follow.

A chart is drawn for one width in CSS pixels and never scaled up, so that its text keeps its size;
the page asks for a wide and a narrow one and shows whichever fits.  `None` means: nothing to draw.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
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


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [index * step + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float, marks: Sequence[float], sign: bool = False) -> str:
    """A tick label with as many places as the spacing of the ticks needs."""
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else abs(value) or 1.0
    if step >= 1:
        return whole(value).replace("-", "−")
    places = min(6, max(1, -math.floor(math.log10(step) + 1e-9)))
    return signed(value, places) if sign else fixed(value, places)


def _ems(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if char in "MW@%" or unicodedata.east_asian_width(char) in "WF":
        return 1.0
    return 0.7 if char.isupper() else 0.57


def fit(text: str, pixels: float, font: float = 13.0) -> str:
    """Text cut with … so that it stays within `pixels`; a safe estimate, as fonts differ."""
    width = 0.0
    for index, char in enumerate(text):
        width += _ems(char) * font
        if width > pixels:
            return text[: max(1, index - 1)].rstrip() + "…"
    return text


def _svg(width: int, height: float, body: Sequence[str], *, title: str, description: str) -> Markup:
    kind = "wide" if width == WIDE else "narrow" if width == NARROW else "any"
    return Markup(  # noqa: S704 - every text in it has been escaped
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title><desc>{escape(description)}</desc>{"".join(body)}</svg>'
    )


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def _line(a: Point, b: Point, kind: str) -> str:
    return f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" class="{kind}"/>'


def _path(points: Sequence[Point], kind: str, end: str = "") -> str:
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}{end}" class="{kind}"/>'


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values [low, high] onto pixels [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    @classmethod
    def around(cls, values: Sequence[float], start: float, stop: float, pad: float = 0.05) -> _Axis:
        low, high = min(values), max(values)
        room = (high - low) * pad or abs(high) * 0.1 or 0.1
        return cls(low - room, high + room, start, stop)


def whiskers(
    marks: Sequence[Mark], *, width: int, title: str, reference: float | None = None, reference_label: str = "", sign: bool = False
) -> Markup | None:
    """Dot and whisker, a row a mark; `reference` is a dashed vertical line (today's system, or no change).

    Wide: label left, figures right.  Narrow: both above the dot.  `sign` writes + on the axis.
    """
    if not marks:
        return None
    narrow = width < 500
    values = [v for m in marks for v in (m.value, m.low, m.high) if v is not None]
    if reference is not None:
        values.append(reference)
    # Room for half a tick label at both ends.
    x = _Axis.around(values, *((14.0, width - 14.0) if narrow else (width * 0.26, width * 0.77)))
    top, step = (22.0 if reference_label else 6.0), (44.0 if narrow else 30.0)
    bottom = top + step * len(marks)
    scale = ticks(x.low, x.high, 4 if narrow else 5)
    body = [_line((x(v), top), (x(v), bottom), "grid") + _text(x(v), bottom + 17, _label(v, scale, sign), "tick", "middle") for v in scale]
    if reference is not None:
        body.append(_line((x(reference), top - 4), (x(reference), bottom), "reference"))
        share = (x(reference) - x.start) / (x.stop - x.start)
        body.append(_text(x(reference), top - 9, reference_label, "tick", "start" if share < 0.25 else "end" if share > 0.75 else "middle"))
    for index, mark in enumerate(marks):
        y = top + step * index + (30.0 if narrow else 15.0)
        words = f"{mark.label}: {mark.note}"
        body.append(f'<g class="mark {mark.tone}"><title>{escape(words)}</title>')
        at = y - 14 if narrow else y + 4.5
        note_room = 0.57 * 12 * len(mark.note) if narrow else 0
        body.append(_text(0, at, fit(mark.label, (width - note_room - 12) if narrow else width * 0.24), "name"))
        body.append(_text(width, at, mark.note, "note", "end"))
        if mark.low is not None and mark.high is not None:
            body.append(_line((x(mark.low), y), (x(mark.high), y), "whisker"))
            body += [_line((x(v), y - 4), (x(v), y + 4), "whisker") for v in (mark.low, mark.high)]
        if mark.tone == "total":
            cx = x(mark.value)
            body.append(_path([(cx - 7, y), (cx, y - 6), (cx + 7, y), (cx, y + 6)], "dot", "Z"))
        else:
            body.append(f'<circle cx="{x(mark.value):.1f}" cy="{y:.1f}" r="5" class="dot"/>')
        body.append("</g>")
    words = "; ".join(f"{m.label} {m.note}" for m in marks)
    return _svg(width, bottom + 24, body, title=title, description=words)


def margins(
    edges: Sequence[float], before: Sequence[float], after: Sequence[float], means: tuple[float | None, float | None], *, width: int
) -> Markup | None:
    """Two histograms of the margin laid over each other; right of zero the relevant document is nearer."""
    bars = len(edges) - 1
    if bars < 1 or len(before) != bars or len(after) != bars or any(b <= a for a, b in pairwise(edges)):
        return None
    tallest = max(*before, *after, 0.0) if bars > 1 else max(before[0], after[0])
    if tallest <= 0 or min(*before, *after) < 0:
        return None
    height, top, left = (250.0, 46.0, 40.0) if width > 500 else (220.0, 46.0, 30.0)
    low, high = min(edges[0], 0.0), max(edges[-1], 0.0)
    x = _Axis(low, high, left, width - 14.0)
    y = _Axis(0.0, tallest, height, top + 6)
    across, up = ticks(low, high, 8 if width > 500 else 4), ticks(0.0, tallest, 4)
    body = [_line((left, y(v)), (width - 14.0, y(v)), "grid") + _text(left - 7, y(v) + 4, _label(v, up), "tick", "end") for v in up]
    body += [_text(x(v), height + 17, _label(v, across, sign=True), "tick", "middle") for v in across]
    for counts, kind in ((before, "before"), (after, "after")):
        steps = [(x(edge), y(count)) for i, count in enumerate(counts) for edge in (edges[i], edges[i + 1])]
        body.append(_path([(x(edges[0]), y(0)), *steps, (x(edges[-1]), y(0))], f"area {kind}", "Z"))
    body.append(_line((x(0), top), (x(0), height), "reference"))
    room = 250 if width > 500 else 120
    if x(0) - left > room * 0.6:
        body.append(_text(x(0) - 8, 14, "← irrelevant nearer", "tick", "end"))
    if width - x(0) > room * 0.6:
        body.append(_text(x(0) + 8, 14, "relevant nearer →", "tick"))
    known = sorted((mean, kind) for mean, kind in zip(means, ("before", "after"), strict=True) if mean is not None and low <= mean <= high)
    for index, (mean, kind) in enumerate(known):
        # The smaller mean is labelled to its left and the larger to its right, so that they never meet.
        outward = "end" if index == 0 and len(known) == 2 else "start"
        outward = "start" if x(mean) < left + 110 and len(known) == 1 else outward
        body.append(_line((x(mean), top - 8), (x(mean), height), f"mean {kind}"))
        body.append(_text(x(mean) + (-5 if outward == "end" else 5), top - 10, f"{kind} {signed(mean)}", f"label {kind}", outward))
    words = f"Mean margin before {signed(means[0])}, after {signed(means[1])}; {whole(sum(before))} queries."
    return _svg(width, height + 26, body, title="Margin between relevant and irrelevant documents, before and after", description=words)


def curve(points: Sequence[Point], *, title: str, best: float | None = None, base: bool = False, smooth: bool = False) -> Markup | None:
    """A line over training steps.

    `best` marks that step; `base` draws the first value as a dashed line (the base model);
    `smooth` draws a moving average over faint raw values when there are enough of them.
    """
    points = sorted(points)
    if not points:
        return None
    width, height, left, top = 368, 196.0, 44.0, 26.0
    points = points[:: math.ceil(len(points) / _MAX_POINTS)] + (points[-1:] if len(points) > _MAX_POINTS else [])
    x = _Axis(min(0.0, points[0][0]), max(points[-1][0], 1.0), left, width - 14.0)
    y = _Axis.around([p[1] for p in points], height, top, 0.08)
    up, across = ticks(y.low, y.high, 5), ticks(x.low, x.high, 5)
    body = [_line((left, y(v)), (width - 14, y(v)), "grid") + _text(left - 7, y(v) + 4, _label(v, up), "tick", "end") for v in up]
    body += [_text(x(v), height + 17, _label(v, across), "tick", "middle") for v in across]
    drawn = [(x(a), y(b)) for a, b in points]
    if base:
        body.append(_line((left, drawn[0][1]), (width - 14, drawn[0][1]), "reference"))
    if smooth and len(points) >= 15:
        half = max(1, len(points) // 20)
        values = [b for _, b in points]
        averages = [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - half) : i + half + 1])]
        body += [_path(drawn, "raw"), _path([(p[0], y(a)) for p, a in zip(drawn, averages, strict=True)], "line")]
    else:
        body.append(_path(drawn, "line"))
        body += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" class="point"/>' for a, b in drawn] if len(drawn) <= 40 else []
    if best is not None and (hit := next((i for i, p in enumerate(points) if p[0] == best), None)) is not None:
        cx, cy = drawn[hit]
        body.append(_line((cx, top), (cx, height), "mean after"))
        body.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="6" class="best"/>')
        anchor = "end" if cx > width * 0.6 else "start"
        body.append(
            _text(cx + (-8 if anchor == "end" else 8), top - 8, f"best {fixed(points[hit][1])}, step {whole(best)}", "label after", anchor)
        )
    words = f"From {fixed(points[0][1])} at step {whole(points[0][0])} to {fixed(points[-1][1])} at step {whole(points[-1][0])}."
    return _svg(width, height + 26, body, title=title, description=words)
