"""A map of documents: one dot each, coloured by cluster, its text when pointed at."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from nearer.report.charts.drawing import Axis, are_equal, svg
from nearer.report.values import as_text

#: Clusters with a colour of their own; those beyond share one.
COLOURS = 10
_HEIGHT = 460
_MARGIN = 10.0
_SMALLEST = 3  # dots


def document_map(
    points: Sequence[tuple[float, float, int, str]], *, title: str, width: int
) -> Markup | None:
    """Dots at (x, y) with the rank of their cluster (-1: none) and a text; None for a few of them."""
    if len(points) < _SMALLEST:
        return None
    x = _axis([point[0] for point in points], _MARGIN, width - _MARGIN)
    y = _axis([point[1] for point in points], _HEIGHT - _MARGIN, _MARGIN)
    body = []
    for across, up, rank, text in points:
        colour = f"c{rank}" if 0 <= rank < COLOURS else "other"
        place = f'cx="{x(across):.1f}" cy="{y(up):.1f}"'
        about = escape(as_text(text, 200))
        body.append(
            f'<circle class="leaf {colour}" {place} r="3.5"><title>{about}</title></circle>'
        )
    description = f"{len(points)} documents, near where the model finds them alike"
    return svg(width, _HEIGHT, body, title, description)


def _axis(values: Sequence[float], start: float, stop: float) -> Axis:
    low, high = min(values), max(values)
    if are_equal(low, high):
        room = abs(high) * 0.1 or 0.1
        low, high = low - room, high + room
    return Axis(low, high, start, stop)
