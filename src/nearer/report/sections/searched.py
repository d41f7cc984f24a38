"""The settings that a search tried (`train.search`)."""

from __future__ import annotations

from typing import Any

from nearer.report import values
from nearer.report.values import Json, as_number, as_object, as_objects, as_text, fixed, whole

_MOST_TRIALS = 40


def searched(summary: Json) -> Json | None:
    """One row per trial, the best of each round first; None without a search.

    A row is (round, settings, time, steps, dev, whether the model has these settings).
    """
    search = as_object(summary.get("search"))
    trials = sorted(as_objects(search.get("trials")), key=_by_round)
    if not trials:
        return None
    chosen = as_object(search.get("chosen"))
    rows = []
    for trial in trials[:_MOST_TRIALS]:
        dev = fixed(trial.get("dev"))
        if as_number(trial.get("dev")) is None:
            dev = as_text(trial.get("stopped"), 80)
        rows.append(
            (
                whole((as_number(trial.get("round")) or 0) + 1),
                as_text(trial.get("label"), 120),
                values.duration(trial.get("seconds")),
                whole(trial.get("steps")),
                dev,
                trial.get("arm") == chosen.get("arm"),
            )
        )
    return {
        "rows": rows,
        "arms": whole(search.get("arms")),
        "seconds": values.duration(search.get("seconds")),
        "budget": values.duration(search.get("budget")),
        "chosen": as_text(chosen.get("label"), 120),
        "reason": as_text(search.get("reason"), 200),
        "measure": as_text(as_object(summary.get("dev")).get("measure"), 40),
    }


def _by_round(trial: Any) -> tuple[float, float]:
    number, score = as_number(trial.get("round")), as_number(trial.get("dev"))
    best = float("-inf") if score is None else score
    return number or 0.0, -best
