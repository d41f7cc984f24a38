"""The sections about the model: margins of its vectors, and its training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from nearer.report import charts, content, values
from nearer.report.data import ReportData
from nearer.report.sections.drawn import in_both_widths
from nearer.report.values import Json, as_number, as_numbers, as_object, fixed, signed

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
    if not (data.history or summary or mining):
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
        "mining": values.facts({key: mining[key] for key in mining if key != "dropped"}),
        "dropped": values.facts({key: dropped[key] for key in dropped if as_number(dropped[key])}),
    }


def _dev_measure(data: ReportData) -> str:
    """The measure in the history: the one that decides, where it was recorded."""
    recorded: dict[str, None] = {}
    for line in data.history:
        for key in line:
            if "@" in key or key in ("AP", "RR"):
                recorded[key] = None
    wanted = content.primary(data.decision)
    if wanted in recorded:
        return wanted
    return next(iter(recorded), "")


def _points(data: ReportData, key: str) -> list[charts.Point]:
    points = []
    for line in data.history:
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
