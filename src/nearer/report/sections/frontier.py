"""How far the model went back towards its base: gain and forgetting at every share of the way."""

from __future__ import annotations

from typing import Any

from nearer.report.charts.frontier import Step, frontier
from nearer.report.values import Json, as_number, as_object, as_objects, as_text, fixed, signed

_MOST_STEPS = 10


def merging(summary: Json) -> Json | None:
    """The chart and the rows of `merge` in `train/summary.json`; None where nothing was merged.

    A row is (share of the way, dev, gain, general, lost, whether it was chosen).
    """
    steps = _steps(summary)
    if not steps:
        return None
    dev = as_object(summary.get("dev"))
    forget = as_number(as_object(summary.get("settings")).get("forget"))
    known = [step for step in steps if step["lost"] is not None]
    drawn = []
    for step in known:
        drawn.append(Step(step["weight"], step["gain"], step["lost"], step["chosen"]))
    rows = []
    for step in steps[:_MOST_STEPS]:
        share = f"{step['weight']:.0%}"
        figures = fixed(step["dev"]), signed(step["gain"])
        general = fixed(step["general"]), signed(step["lost"])
        rows.append((share, *figures, *general, step["chosen"]))
    return {
        "chart": frontier(drawn, title="Gain on dev against general loss", allowed=forget),
        "measure": as_text(dev.get("measure"), 40),
        "rows": rows,
    }


def _steps(summary: Json) -> list[dict[str, Any]]:
    """The points of the curve that have figures, from the trained model backwards."""
    dev = as_object(summary.get("dev"))
    merge = as_object(summary.get("merge"))
    before = as_number(dev.get("before"))
    measure = as_text(dev.get("measure"), 40)
    general_before = as_number(as_object(summary.get("forgetting")).get("before"))
    chosen = as_number(merge.get("weight"))
    steps = []
    for point in as_objects(merge.get("curve")):
        weight = as_number(point.get("weight"))
        score = as_number(point.get(measure))
        if weight is None or score is None or before is None:
            continue
        general = as_number(point.get("general"))
        lost = None
        if general is not None and general_before is not None:
            lost = general_before - general
        steps.append(
            {
                "weight": weight,
                "dev": score,
                "gain": score - before,
                "general": general,
                "lost": lost,
                "chosen": weight == chosen,
            }
        )
    steps.sort(key=_weight, reverse=True)
    return steps


def _weight(step: dict[str, Any]) -> float:
    return float(step["weight"])
