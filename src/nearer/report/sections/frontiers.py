"""The section of frontiers: gain against forgetting, and quality against latency and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.charts.scatter import Spot
from nearer.report.data import ReportData
from nearer.report.sections.drawn import in_both_widths
from nearer.report.values import Json, as_number, as_object, as_objects, as_text, signed, words

_MOST_TRIALS = 40
ON_DEV, ON_TEST = "dev", "held out"


@dataclass(frozen=True, slots=True)
class System:
    """A system with its gain over the baseline and what it costs; None: not measured."""

    number: int
    name: str
    queries: str  # on which the gain was measured
    gain: float
    milliseconds: float | None
    size: float | None
    tone: str

    def cost(self, kind: str) -> float | None:
        return self.milliseconds if kind == "milliseconds" else self.size


def frontiers(data: ReportData) -> Json | None:
    """Three charts with their tables; None where there is nothing to set against each other."""
    forgetting = _forgetting(data)
    systems = systems_of(data)
    latency = _against(systems, "milliseconds", "median latency, ms", _milliseconds, data)
    sizes = _against(systems, "size", "size of the index", values.size, data)
    if not (forgetting or latency or sizes):
        return None
    best = {kind: best_of(systems, kind) for kind in ("milliseconds", "size")}
    rows = []
    for system in systems:
        marks = [kind for kind, numbers in best.items() if system.number in numbers]
        rows.append({"system": system, "marks": marks})
    return {
        "forgetting": forgetting,
        "latency": latency,
        "size": sizes,
        "measure": content.primary(data.decided),
        "rows": rows if latency or sizes else [],
    }


def systems_of(data: ReportData) -> list[System]:
    """The candidates of the decision (on test), then the trials of the simpler fixes (on dev)."""
    systems: list[System] = []
    for name, gain, row, tone in _candidates(data):
        milliseconds = None if row.latency is None else row.latency.p50_ms
        systems.append(
            System(len(systems) + 1, name, ON_TEST, gain, milliseconds, row.cost.index_bytes, tone)
        )
    for trial in as_objects(data.trials)[:_MOST_TRIALS]:
        change = as_number(as_object(trial.get("delta")).get("mean"))
        if change is None:
            continue
        cost = as_object(trial.get("cost"))
        name = f"{words(str(trial.get('fix')))}: {as_text(trial.get('label'), 120)}"
        milliseconds = as_number(cost.get("p50_ms"))
        size = as_number(cost.get("index_bytes"))
        systems.append(System(len(systems) + 1, name, ON_DEV, change, milliseconds, size, "plain"))
    return systems


def _candidates(data: ReportData) -> list[tuple[str, float, Any, str]]:
    """Name, gain over the baseline, record and tone of each candidate that was measured."""
    decided = data.decided
    measure = content.primary(decided)
    today = None
    for row in decided.candidates:
        if row.role == "today":
            today = row.mean(measure)
    if today is None:
        return []
    rows = []
    for row in decided.candidates:
        value = row.mean(measure)
        if value is None:
            continue
        tone = "plain"
        if row.role == "today":
            tone = "today"
        elif row.name == decided.recommended or row.role == "candidate":
            tone = "accent"
        rows.append((as_text(row.name, 120), value - today, row, tone))
    return rows


def best_of(systems: Sequence[System], kind: str) -> set[int]:
    """Numbers of the systems that no other beats in gain and cost, among those of the same queries."""
    best: set[int] = set()
    for queries in (ON_TEST, ON_DEV):
        known = [each for each in systems if each.queries == queries and each.cost(kind)]
        points = [(float(each.cost(kind) or 0), each.gain) for each in known]
        best.update(known[at].number for at in charts.frontier(points))
    return best


def _milliseconds(value: float) -> str:
    return f"{value:,.3g}"


def _against(
    systems: Sequence[System], kind: str, name: str, show: Any, data: ReportData
) -> Json | None:
    known = [each for each in systems if each.cost(kind)]
    best = best_of(systems, kind)
    spots = []
    lines: dict[str, list[tuple[float, int]]] = {ON_TEST: [], ON_DEV: []}
    for position, each in enumerate(known):
        cost = float(each.cost(kind) or 0)
        note = f"{each.name}, {signed(each.gain)} on {each.queries} queries, {show(cost)}"
        spots.append(
            Spot(cost, each.gain, each.number, note, each.tone, hollow=each.queries == ON_DEV)
        )
        if each.number in best:
            lines[each.queries].append((cost, position))
    axes = charts.Axes(
        f"{name} (by ratio)", f"change of {content.primary(data.decided)}", show, ratio=True
    )
    joined = [[position for _, position in sorted(line)] for line in lines.values()]

    def draw(width: int) -> Markup | None:
        title = f"Gain over today's system against {name}"
        return charts.scatter(spots, width=width, title=title, axes=axes, lines=joined)

    chart = in_both_widths(draw)
    if not chart:
        return None
    return {"chart": chart, "unknown": len(systems) - len(known)}


def merge_points(training: Json) -> list[Json]:
    """Points of the merge curve: weight, change of dev and of the general set; empty without both."""
    curve = as_objects(as_object(training.get("merge")).get("curve"))
    dev = as_number(as_object(training.get("dev")).get("before"))
    general = as_number(as_object(training.get("forgetting")).get("before"))
    measure = as_text(as_object(training.get("dev")).get("measure"), 40)
    kept = as_number(as_object(training.get("merge")).get("weight"))
    points: list[Json] = []
    if dev is None or general is None:
        return points
    for row in curve:
        weight, value = as_number(row.get("weight")), as_number(row.get(measure))
        remembered = as_number(row.get("general"))
        if weight is None or value is None or remembered is None:
            continue
        points.append(
            {
                "weight": weight,
                "gain": value - dev,
                "general": remembered - general,
                "kept": weight == kept,
            }
        )
    return points


def _forgetting(data: ReportData) -> Json | None:
    """Gain on dev against the change on general questions, by how far the model went from its base."""
    points = merge_points(data.training)
    spots = []
    for number, point in enumerate(points, start=1):
        note = (
            f"{point['weight']:.0%} of the way: {signed(point['gain'])} on dev, "
            f"{signed(point['general'])} on general questions"
        )
        tone = "accent" if point["kept"] else "plain"
        spots.append(Spot(point["general"], point["gain"], number, note, tone))
    measure = as_text(as_object(data.training.get("dev")).get("measure"), 40)
    axes = charts.Axes(
        "change on general questions, nDCG@10", f"change of {measure} on dev", _change_of
    )
    order = sorted(range(len(spots)), key=lambda at: points[at]["weight"])

    def draw(width: int) -> Markup | None:
        title = "Gain against forgetting, by how far the model went from its base"
        return charts.scatter(spots, width=width, title=title, axes=axes, lines=[order])

    chart = in_both_widths(draw)
    if not chart:
        return None
    return {"chart": chart, "points": points}


def _change_of(value: float) -> str:
    return signed(value)
