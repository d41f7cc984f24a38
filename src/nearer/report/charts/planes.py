"""Two pictures side by side: where queries and documents lie in both models, in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nearer.report.charts.drawing import Point, dot, is_narrow, path, svg, text

_TITLE = "Queries, their relevant documents and hard negatives, before and after"
_TOP = 26.0
_ROOM = 14.0  # pixels between the outermost point and the border


@dataclass(frozen=True, slots=True)
class Spot:
    """A text in both planes; `kind` is query, positive or negative."""

    kind: str
    note: str
    before: Point
    after: Point


@dataclass(frozen=True, slots=True)
class _Panel:
    """Maps one plane onto a square of pixels; both panels share the scale."""

    left: float
    top: float
    size: float
    middle: Point
    reach: float  # from the middle to the outermost point

    def __call__(self, point: Point) -> Point:
        scale = (self.size / 2 - _ROOM) / self.reach
        x = self.left + self.size / 2 + (point[0] - self.middle[0]) * scale
        y = self.top + self.size / 2 - (point[1] - self.middle[1]) * scale
        return x, y


def planes(
    groups: Sequence[Sequence[Spot]], *, width: int, names: tuple[str, str] = ("Before", "After")
) -> Markup | None:
    """Each group is a query and its documents; lines join a query with what it should find."""
    spots = [spot for group in groups for spot in group]
    if len(spots) < 2:
        return None
    before, after = _panels(spots, width)
    body = []
    for name, panel in zip(names, (before, after), strict=True):
        box = f'x="{panel.left:.0f}" y="{panel.top:.0f}"'
        size = f'width="{panel.size:.0f}" height="{panel.size:.0f}"'
        body.append(text(panel.left, panel.top - 9, name, "heading"))
        body.append(f'<rect {box} {size} rx="8" class="panel"/>')
    # The numbers of all queries lie above all documents.
    for draw in (_documents, _query):
        for number, group in enumerate(groups):
            body.append(f'<g class="group" data-group="{number}">')
            body += draw(group, number, before, [spot.before for spot in group])
            body += draw(group, number, after, [spot.after for spot in group])
            body.append("</g>")
    height = after.top + after.size + 2
    description = f"{len(groups)} queries and {len(spots) - len(groups)} documents."
    return svg(width, height, body, _TITLE, description)


def _panels(spots: Sequence[Spot], width: int) -> tuple[_Panel, _Panel]:
    middles = []
    reach = 0.0
    for points in ([spot.before for spot in spots], [spot.after for spot in spots]):
        xs = [x for x, _ in points]
        ys = [y for _, y in points]
        middles.append(((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2))
        reach = max(reach, (max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2)
    reach = reach or 1.0
    if is_narrow(width):
        size = float(width)
        second = (0.0, _TOP + size + 34)
    else:
        size = (width - 24) / 2
        second = (size + 24, _TOP)
    return (
        _Panel(0.0, _TOP, size, middles[0], reach),
        _Panel(second[0], second[1], size, middles[1], reach),
    )


def _documents(
    group: Sequence[Spot], number: int, panel: _Panel, points: Sequence[Point]
) -> list[str]:
    """The documents of a query, the relevant ones joined with it."""
    pixels = [panel(point) for point in points]
    elements = []
    for spot, pixel in zip(group, pixels, strict=True):
        if spot.kind == "positive":
            elements.append(path([pixels[0], pixel], "tie"))
    for spot, pixel in zip(group[1:], pixels[1:], strict=True):
        elements.append(_spot(spot, _shape(spot.kind, pixel)))
    return elements


def _query(group: Sequence[Spot], number: int, panel: _Panel, points: Sequence[Point]) -> list[str]:
    x, y = panel(points[0])
    label = text(x, y + 4, str(number + 1), "number", "middle")
    return [_spot(group[0], dot(x, y, 9, "spot query") + label)]


def _shape(kind: str, pixel: Point) -> str:
    """Squares are relevant, rings are not: the difference is not in the colour alone."""
    x, y = pixel
    if kind == "positive":
        corners = [(x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5)]
        return path(corners, "spot positive", "Z")
    return dot(x, y, 4.5, "spot negative")


def _spot(spot: Spot, shape: str) -> str:
    return f"<g><title>{escape(spot.note)}</title>{shape}</g>"
