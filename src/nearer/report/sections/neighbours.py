"""The section of neighbourhoods: where queries and documents lie in both models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nearer.report import charts
from nearer.report.charts.planes import Spot
from nearer.report.sections.drawn import in_both_widths
from nearer.report.values import Json, as_list, as_number, as_objects, as_pair, as_text, fixed, span

_MOST_QUERIES, _MOST_POINTS = 12, 12
_KINDS = {"query": "query", "positive": "relevant", "negative": "hard negative"}


def neighbours(data: Json) -> Json | None:
    """The picture, its sentence, and for each query a table of the similarities themselves."""
    groups = []
    for row in as_objects(data.get("queries"))[:_MOST_QUERIES]:
        points = _points(row)
        if points:
            groups.append((row, points))
    spots = [_spots(points) for _, points in groups]

    def draw(width: int) -> Markup | None:
        return charts.planes(spots, width=width)

    chart = in_both_widths(draw)
    if not chart:
        return None
    return {
        "chart": chart,
        "sentence": moved(data),
        "explained": [f"{share:.0%}" for share in as_pair(data.get("explained")) or ()],
        "queries": [_query(number, row, points) for number, (row, points) in enumerate(groups)],
    }


def moved(data: Json) -> str:
    """Mean similarities to the query before and after, of positives and of hard negatives."""
    parts = []
    for kind, name in (("positive", "their relevant documents"), ("negative", "hard negatives")):
        pairs = []
        for row in as_objects(data.get("queries")):
            for point in as_objects(row.get("points")):
                pair = as_pair(point.get("similarity"))
                if point.get("kind") == kind and pair is not None:
                    pairs.append(pair)
        if pairs:
            before = sum(first for first, _ in pairs) / len(pairs)
            after = sum(second for _, second in pairs) / len(pairs)
            parts.append(f"{fixed(before)} to {fixed(after)} for {name}")
    if not parts:
        return ""
    return f"Similarity to these queries goes from {' and from '.join(parts)}."


def _points(row: Json) -> list[Json]:
    """The points of a query that can be drawn, the query first; none where it is missing."""
    points = []
    for point in as_objects(row.get("points"))[:_MOST_POINTS]:
        placed = as_pair(point.get("before")), as_pair(point.get("after"))
        if point.get("kind") in _KINDS and None not in placed:
            points.append(point)
    if not points or points[0]["kind"] != "query":
        return []
    return [points[0], *(point for point in points[1:] if point["kind"] != "query")]


def _spots(points: Sequence[Json]) -> list[Spot]:
    spots = []
    for point in points:
        note = f"{_KINDS[point['kind']]}: {as_text(point.get('text'), 160)}"
        similarity = as_pair(point.get("similarity"))
        if similarity is not None:
            note += f" (similarity {span(similarity)})"
        before, after = as_pair(point.get("before")), as_pair(point.get("after"))
        spots.append(Spot(point["kind"], note, before or (0.0, 0.0), after or (0.0, 0.0)))
    return spots


def _query(number: int, row: Json, points: Sequence[Json]) -> Json:
    documents: list[Any] = []
    for point in points[1:]:
        similarities = [as_number(value) for value in as_list(point.get("similarity"))[:2]]
        if len(similarities) == 2:
            documents.append(
                {
                    "kind": _KINDS[point["kind"]],
                    "relevant": point["kind"] == "positive",
                    "text": as_text(point.get("text"), 160),
                    "id": as_text(point.get("id"), 80),
                    "before": similarities[0],
                    "after": similarities[1],
                }
            )
    return {
        "group": number,
        "number": number + 1,
        "text": as_text(points[0].get("text"), 160),
        "before": as_number(row.get("before")),
        "after": as_number(row.get("after")),
        "documents": documents,
    }
