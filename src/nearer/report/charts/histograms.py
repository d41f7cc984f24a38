"""Two histograms of the margin of queries, laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from nearer.report.charts.drawing import Axis, frame, is_narrow, line, path, svg, text
from nearer.report.values import signed, whole

_TITLE = "Margin between relevant and irrelevant documents, before and after"
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
    low, high = min(edges[0], 0.0), max(edges[-1], 0.0)
    if is_narrow(width):
        height, room = 220.0, 72
        x = Axis(low, high, 30.0, width - 14.0, 4, sign=True)
    else:
        height, room = 250.0, 150
        x = Axis(low, high, 40.0, width - 14.0, 8, sign=True)
    y = Axis(0.0, max(*before, *after), height, _TOP + 6, 4)
    body = frame(x, y)
    body.append(_area(edges, before, "before", x, y))
    body.append(_area(edges, after, "after", x, y))
    body.append(line((x(0), _TOP), (x(0), height), "reference"))
    if x(0) - x.start > room:
        body.append(text(x(0) - 8, 14, "← irrelevant nearer", "tick", "end"))
    if width - x(0) > room:
        body.append(text(x(0) + 8, 14, "relevant nearer →", "tick"))
    body += _mean_lines(means, x, height)
    changed = f"Mean margin before {signed(means[0])}, after {signed(means[1])}"
    return svg(width, height + 26, body, _TITLE, f"{changed}; {whole(sum(before))} queries.")


def _drawable(edges: Sequence[float], before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether there is one count per bar, the edges rise, and some count is not zero."""
    bars = len(edges) - 1
    if bars < 1 or len(before) != bars or len(after) != bars:
        return False
    if any(end <= start for start, end in pairwise(edges)):
        return False
    return any(before) or any(after)


def _area(edges: Sequence[float], counts: Sequence[float], kind: str, x: Axis, y: Axis) -> str:
    points = [(x(edges[0]), y(0))]
    for count, (start, end) in zip(counts, pairwise(edges), strict=True):
        points += [(x(start), y(count)), (x(end), y(count))]
    points.append((x(edges[-1]), y(0)))
    return path(points, f"area {kind}", "Z")


def _mean_lines(means: Means, x: Axis, bottom: float) -> list[str]:
    """A line and a label per known mean.

    The smaller mean is labelled to its left and the larger to its right, so that they never meet.
    """
    known = []
    for mean, kind in zip(means, ("before", "after"), strict=True):
        if mean is not None and x.low <= mean <= x.high:
            known.append((mean, kind))
    known.sort()
    elements = []
    for position, (mean, kind) in enumerate(known):
        shift, anchor = 5, "start"
        if len(known) == 2 and position == 0:
            shift, anchor = -5, "end"
        pixel, label = x(mean), f"{kind} {signed(mean)}"
        elements.append(line((pixel, _TOP - 8), (pixel, bottom), f"mean {kind}"))
        elements.append(text(pixel + shift, _TOP - 10, label, f"label {kind}", anchor))
    return elements
