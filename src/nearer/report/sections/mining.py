"""The examples that training learned from: how hard negatives were chosen, and which look wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from nearer.report import charts, values
from nearer.report.data import ReportData
from nearer.report.sections.drawn import in_both_widths
from nearer.report.values import Json, as_list, as_number, as_numbers, as_object, as_objects, fixed

#: Keys of `mine/summary.json` that stand here and not among the figures of training.
SHOWN_HERE = ("dropped", "candidates", "similarities", "noise", "warnings")
_MOST_EXAMPLES = 20


def mining(data: ReportData) -> Json | None:
    """Warnings, the rules that rejected candidates, the histogram, and twenty examples."""
    summary = data.mining
    section = {
        "warnings": [values.as_text(text, 300) for text in as_list(summary.get("warnings"))],
        "rules": _rules(as_object(summary.get("candidates"))),
        "considered": as_number(as_object(summary.get("candidates")).get("considered")),
        "similarities": _similarities(as_object(summary.get("similarities"))),
        "noise": values.facts(summary.get("noise")),
        "examples": _examples(data),
    }
    return section if any(section.values()) else None


def _rules(candidates: Json) -> list[Json]:
    """What each rule turned down, and the share of all candidates that is."""
    rules: list[Json] = []
    for rule, counted in as_object(candidates.get("rejected")).items():
        count = as_number(as_object(counted).get("count"))
        if count is not None:
            share = as_number(as_object(counted).get("share"))
            rules.append({"rule": values.as_text(rule, 160), "count": count, "share": share})
    return rules


def _similarities(data: Json) -> Json | None:
    """The histogram of negatives against positives, also as a table; None without usable counts."""
    edges = as_numbers(data.get("bins"))
    positives = as_numbers(data.get("positives"))
    negatives = as_numbers(data.get("negatives"))
    means = (as_number(data.get("negatives_mean")), as_number(data.get("positives_mean")))

    def draw(width: int) -> Markup | None:
        return charts.similarities(edges, negatives, positives, means, width=width)

    chart = in_both_widths(draw)
    if not chart:
        return None
    rows: list[Any] = []
    bars = zip(pairwise(edges), negatives, positives, strict=True)
    for (start, end), negative, positive in bars:
        if negative or positive:
            rows.append((f"{fixed(start)} to {fixed(end)}", negative, positive))
    return {"chart": chart, "rows": rows}


def _examples(data: ReportData) -> list[Json]:
    examples: list[Json] = []
    for line in as_objects(data.mined)[:_MOST_EXAMPLES]:
        negatives = as_objects(line.get("negatives"))
        positive = as_object(line.get("positive"))
        examples.append({**line, "positive": positive, "negatives": negatives[:10]})
    return examples
