"""The sections about the model: margins of its vectors, and its training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.data import ReportData
from nearer.report.sections.drawn import in_both_widths
from nearer.report.sections.mining import SHOWN_HERE
from nearer.report.sections.searched import searched
from nearer.report.values import (
    Json,
    as_number,
    as_numbers,
    as_object,
    as_objects,
    as_text,
    fixed,
    signed,
)

_MOST_CANDIDATES = 40

# What the training section leaves out: it stands elsewhere, or is of no use to readers.
_LEFT_OUT = (
    "settings",
    "dev",
    "base_model",
    "seeds",
    "planned_steps",
    "fingerprint",
    "base_fingerprint",
    "learning_curve",
    "search",
)


def margins(data: Json) -> Json | None:
    """The two histograms with shares and means, or None without usable counts."""
    edges = as_numbers(data.get("bins"))
    before = as_numbers(data.get("before"))
    after = as_numbers(data.get("after"))
    before_mean = as_number(data.get("before_mean"))
    after_mean = as_number(data.get("after_mean"))
    means = (before_mean, after_mean)

    def draw(width: int) -> Markup | None:
        return charts.margins(edges, before, after, means, width=width)

    chart = in_both_widths(draw)
    if not chart:
        return None
    places = 2 if edges[1] - edges[0] >= 0.02 else 3
    rows = []
    bars = zip(pairwise(edges), before, after, strict=True)
    for (start, end), old, new in bars:
        if old or new:
            span = f"{signed(start, places)} to {signed(end, places)}"
            rows.append((span, old, new))
    shares = [data.get("share_positive_before"), data.get("share_positive_after")]
    numbers = {key: value for key, value in data.items() if as_number(value) is not None}
    return {
        "chart": chart,
        "shares": [f"{share:.0%}" for share in as_numbers(shares)],
        "rows": rows,
        "facts": values.facts(numbers),
    }


def training(data: ReportData) -> Json | None:
    """Curves of the loss and the dev measure, the figures, and where the examples came from."""
    summary = data.training
    mining = data.mining
    candidates = tried(data.candidates)
    if not (data.history or summary or mining or candidates):
        return None
    measure = _dev_measure(data)
    on_dev = _points(data, measure)
    best = as_number(summary.get("best_step"))
    dropped = as_object(mining.get("dropped"))
    return {
        "loss": charts.curve(_points(data, "loss"), title="Training loss by step", smooth=True),
        "dev": charts.curve(on_dev, title=f"{measure} on dev by step", best=best, base=True),
        "measure": measure,
        # set where searching the whole corpus at every evaluation would take too long
        "pool": as_number(as_object(summary.get("dev")).get("documents")),
        "table": on_dev[:60],
        "facts": values.facts(_training_facts(summary, measure)),
        "candidates": candidates,
        "search": searched(summary),
        "mining": values.facts({key: mining[key] for key in mining if key not in SHOWN_HERE}),
        "dropped": values.facts({key: dropped[key] for key in dropped if as_number(dropped[key])}),
    }


def tried(table: Json) -> Json | None:
    """The candidates of the training side by side, or None where there is no row."""
    rows = [_tried_row(row) for row in as_objects(table.get("candidates"))]
    if not rows:
        return None
    queries = as_object(table.get("queries"))
    left_out = []
    for line in as_objects(table.get("not_tried")):
        left_out.append((as_text(line.get("name"), 80), as_text(line.get("reason"))))
    return {
        "measure": as_text(table.get("measure"), 40),
        "reason": as_text(table.get("reason")),
        "seen": as_number(queries.get("seen")),
        "unseen": as_number(queries.get("unseen")),
        "rows": rows[:_MOST_CANDIDATES],
        "not_tried": left_out[:_MOST_CANDIDATES],
    }


def _tried_row(row: Json) -> Json:
    """One candidate, every figure written out."""
    seeds = as_object(row.get("seeds"))
    scores = as_numbers(seeds.get("scores"))
    spread = ""
    if scores:
        spread = f"{len(scores)} seeds: {fixed(min(scores))} to {fixed(max(scores))}"
    moved = as_number(row.get("documents_moved"))
    again = as_text(row.get("reindex"), 40)
    return {
        "name": as_text(row.get("name"), 80),
        "reference": row.get("reference") is True,
        "chosen": row.get("chosen") is True,
        "seconds": values.duration(row.get("seconds")),
        "changes": [_tried_change(row.get(part)) for part in ("dev", "seen", "unseen")],
        "reindex": again if moved is None else f"{again} ({values.whole(moved)})",
        "size": values.size(row.get("size_bytes")),
        "seeds": spread,
    }


def _tried_change(change: Any) -> tuple[str, str, str]:
    """Before, after and gain of a measure on some dev queries."""
    found = as_object(change)
    return fixed(found.get("before")), fixed(found.get("after")), signed(found.get("gain"))


def _dev_measure(data: ReportData) -> str:
    """The measure in the history: the one that decides, where it was recorded."""
    recorded: dict[str, None] = {}
    for line in as_objects(list(data.history)):
        for key in line:
            if "@" in key or key in ("AP", "RR", "Spearman"):
                recorded[key] = None
    wanted = content.primary(data.decided)
    if wanted in recorded:
        return wanted
    return next(iter(recorded), "")


def _points(data: ReportData, key: str) -> list[charts.Point]:
    points = []
    for line in as_objects(list(data.history)):
        step = as_number(line.get("step"))
        value = as_number(line.get(key))
        if step is not None and value is not None:
            points.append((step, value))
    return points


def _training_facts(summary: Json, measure: str) -> Json:
    base = values.model_name(summary.get("base_model"))
    facts: dict[str, Any] = {"base_model": base or None}
    dev = as_object(summary.get("dev"))
    before = as_number(dev.get("before"))
    after = as_number(dev.get("after"))
    if before is not None and after is not None:
        label = f"{measure or 'measure'} on dev"
        facts[label] = f"{fixed(before)} → {fixed(after)}"
    curve = as_object(summary.get("learning_curve"))
    if curve:
        facts["more data"] = curve.get("sentence")
    for key, value in summary.items():
        if key not in _LEFT_OUT:
            facts[key] = value
    return facts
