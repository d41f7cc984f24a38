"""Two histograms of the margin of queries, laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from nearer.report.charts.drawing import (
    Axis,
    are_equal,
    frame,
    is_narrow,
    path,
    svg,
    text,
    vertical,
)
from nearer.report.values import signed, whole

_TITLE = "Margin between relevant and irrelevant documents, before and after"
_SIMILARITIES = "Similarity to the query of hard negatives and of positives"
_TOP = 46.0

Means = tuple[float | None, float | None]


def margins(
    edges: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    means: Means,
    *,
    width: int,
) -> Markup | None:
    """Counts of queries per margin, before and after; right of zero the relevant document is nearer.

    `edges` are the borders of the bars, one more than there are counts; `means` are those of both
    histograms.
    """
    if not _drawable(edges, before, after):
        return None
    low = min(edges[0], 0.0)
    high = max(edges[-1], 0.0)
    right = width - 14.0
    if is_narrow(width):
        height = 220.0
        x = Axis(low, high, 30.0, right, 4, sign=True)
    else:
        height = 250.0
        x = Axis(low, high, 40.0, right, 8, sign=True)
    most = max(*before, *after)
    y = Axis(0.0, most, height, _TOP + 6, 4)
    body = frame(x, y)
    body.append(_area(edges, before, "before", x, y))
    body.append(_area(edges, after, "after", x, y))
    body.append(vertical(x(0), _TOP, height, "reference"))
    body += _directions(x, width)
    body += _mean_lines(means, x, height)
    old, new = means
    change = f"before {signed(old)}, after {signed(new)}"
    queries = whole(sum(before))
    description = f"Mean margin {change}; {queries} queries."
    return svg(width, height + 26, body, _TITLE, description)


def similarities(
    edges: Sequence[float],
    negatives: Sequence[float],
    positives: Sequence[float],
    means: Means,
    *,
    width: int,
) -> Markup | None:
    """Counts of hard negatives and of positives by their similarity to the query.

    `edges` are the borders of the bars, one more than there are counts; `means` are those of the
    negatives and of the positives.
    """
    if not _drawable(edges, negatives, positives):
        return None
    right = width - 14.0
    left, height, labels = (30.0, 220.0, 4) if is_narrow(width) else (40.0, 250.0, 8)
    x = Axis(edges[0], edges[-1], left, right, labels)
    y = Axis(0.0, max(*negatives, *positives), height, _TOP + 6, 4)
    body = frame(x, y)
    body.append(_area(edges, negatives, "before", x, y))
    body.append(_area(edges, positives, "after", x, y))
    body += _mean_lines(means, x, height, ("negatives", "positives"))
    low, high = means
    description = (
        f"{whole(sum(negatives))} hard negatives, mean {signed(low)}; "
        f"{whole(sum(positives))} positives, mean {signed(high)}."
    )
    return svg(width, height + 26, body, _SIMILARITIES, description)


def _drawable(edges: Sequence[float], before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether there is one count per bar, the edges rise, and some count is not zero."""
    bars = len(edges) - 1
    if bars < 1:
        return False
    if len(before) != bars or len(after) != bars:
        return False
    for start, end in pairwise(edges):
        if end <= start or are_equal(start, end):
            return False
    return any(before) or any(after)


def _directions(x: Axis, width: int) -> list[str]:
    """What the two sides of zero mean, where there is room to say so."""
    room = 72 if is_narrow(width) else 150
    zero = x(0)
    elements = []
    if zero - x.start > room:
        elements.append(text(zero - 8, 14, "← irrelevant nearer", "tick", "end"))
    if width - zero > room:
        elements.append(text(zero + 8, 14, "relevant nearer →", "tick"))
    return elements


def _area(edges: Sequence[float], counts: Sequence[float], kind: str, x: Axis, y: Axis) -> str:
    """The outline of one histogram, from the axis over every bar back to the axis."""
    zero = y(0)
    left = x(edges[0])
    right = x(edges[-1])
    points = [(left, zero)]
    bars = zip(counts, pairwise(edges), strict=True)
    for count, (start, end) in bars:
        height = y(count)
        points.append((x(start), height))
        points.append((x(end), height))
    points.append((right, zero))
    return path(points, f"area {kind}", "Z")


def _mean_lines(
    means: Means, x: Axis, bottom: float, names: tuple[str, str] = ("before", "after")
) -> list[str]:
    """A line and a label per known mean.

    The smaller mean is labelled to its left and the larger to its right, so that they never meet.
    """
    known = []
    named = zip(means, ("before", "after"), names, strict=True)
    for mean, kind, name in named:
        if mean is None:
            continue
        if x.low <= mean <= x.high:
            known.append((mean, kind, name))
    known.sort()
    elements = []
    for position, (mean, kind, name) in enumerate(known):
        shift, anchor = 5, "start"
        if len(known) == 2 and position == 0:
            shift = -5
            anchor = "end"
        pixel = x(mean)
        label = f"{name} {signed(mean)}"
        words = text(
            pixel + shift,
            _TOP - 10,
            label,
            f"label {kind}",
            anchor,
        )
        elements.append(vertical(pixel, _TOP - 8, bottom, f"mean {kind}"))
        elements.append(words)
    return elements
