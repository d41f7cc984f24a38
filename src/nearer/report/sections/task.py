"""The section of a task: its own measures as tables, and a map where it has one."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from nearer.report import charts
from nearer.report.data import ReportData
from nearer.report.sections.drawn import in_both_widths
from nearer.report.sections.odd_one_out import odd_one_out
from nearer.report.values import (
    Json,
    as_list,
    as_number,
    as_objects,
    as_text,
    fixed,
    whole,
)

_MOST_ROWS = 40
_MOST_POINTS = 1000
#: Task → title of its section.
_TITLES = {"recommend": "Recommendations", "cluster": "Clusters"}

#: Between the parts of the text of a point of the map.
SEPARATOR = " · "

Place = tuple[float, float, int, str]


def task(data: ReportData) -> Json | None:
    """What the task measured on test, else on the development queries; None where there is nothing."""
    found = data.task or data.task_on_dev
    sheets = [_sheet(sheet) for sheet in as_objects(found.get("sheets"))]
    notes = [as_text(note, 500) for note in as_list(found.get("notes"))[:12]]
    people = odd_one_out(data)
    if people is not None:
        sheets += [_sheet(people["sheet"])] if people["sheet"] else []
        notes += [people["note"]] if people["note"] else []
    if not sheets and not notes:
        return None
    name = as_text(found.get("task"), 40)
    points = _points(as_list(found.get("points")))
    return {
        "title": _TITLES.get(name, name or "Task"),
        "on": "held-out" if data.task else "development",
        "sheets": sheets,
        "notes": notes,
        "people": [row["sentence"] for row in people["groupings"]] if people else [],
        "map": _map(points),
        "clusters": _legend(points),
        "listed": _by_cluster(points),
    }


def _sheet(sheet: Json) -> Json:
    rows = []
    for row in as_list(sheet.get("rows"))[:_MOST_ROWS]:
        rows.append([_cell(value) for value in as_list(row)])
    return {
        "title": as_text(sheet.get("title"), 120),
        "lead": as_text(sheet.get("lead"), 800),
        "columns": [as_text(name, 60) for name in as_list(sheet.get("columns"))],
        "rows": rows,
    }


def _cell(value: Any) -> Json:
    """A cell and whether it is a figure."""
    if value is None or isinstance(value, bool):
        return {"text": "–", "figure": True}
    if isinstance(value, int):
        return {"text": whole(value), "figure": True}
    if isinstance(value, float):
        return {"text": fixed(value), "figure": True}
    return {"text": as_text(value, 200), "figure": False}


def _points(rows: list[Any]) -> list[Place]:
    """The points of the map; what is no point is left out."""
    points = []
    for row in rows[:_MOST_POINTS]:
        point = _point(row)
        if point is not None:
            points.append(point)
    return points


def _map(points: list[Place]) -> Markup:
    """The map in both widths; empty for a few points."""
    return in_both_widths(
        lambda width: charts.document_map(points, title="Map of the documents", width=width)
    )


def _legend(points: list[Place]) -> list[tuple[str, str]]:
    """CSS class and name of each cluster that has a colour of its own, the largest first.

    The text of a point ends with the name of its cluster.
    """
    names: dict[int, str] = {}
    for _, _, rank, text in points:
        if 0 <= rank < charts.COLOURS and SEPARATOR in text:
            names.setdefault(rank, text.rpartition(SEPARATOR)[2])
    legend = [(f"c{rank}", names[rank]) for rank in sorted(names)]
    if legend and any(not 0 <= rank < charts.COLOURS for _, _, rank, _ in points):
        legend.append(("other", "smaller clusters, or none"))
    return legend


def _by_cluster(points: list[Place]) -> list[tuple[str, list[str]]]:
    """Name of each cluster of the map and the texts of its points, the largest cluster first.

    For those who cannot point at a dot.  Points of no cluster come last.
    """
    listed: dict[int, tuple[str, list[str]]] = {}
    for _, _, rank, text in points:
        about, _, name = text.rpartition(SEPARATOR)
        _, texts = listed.setdefault(max(rank, -1), (name, []))
        texts.append(about or text)
    ranks = sorted(listed, key=lambda rank: (rank < 0, rank))
    return [listed[rank] for rank in ranks]


def _point(row: Any) -> Place | None:
    values = as_list(row)
    if len(values) != 4:
        return None
    x, y, rank = (as_number(value) for value in values[:3])
    if x is None or y is None or rank is None or not math.isfinite(x + y):
        return None
    return x, y, int(rank), as_text(values[3], 200)
