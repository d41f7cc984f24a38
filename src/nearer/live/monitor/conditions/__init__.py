"""The conditions of monitoring, judged on one day: what was logged goes in, alerts and series come out.  No I/O, no clock.

A condition fires when its effect is as large as the settings ask *and* chance does not explain it.
The allowed share of days with a false alarm is divided over all conditions that are tested
(Bonferroni), so that it holds for the day as a whole.  Those without a p value state a fact.

Each file is a family of conditions; a new one is a file with a FAMILY and a line in FAMILIES below.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nearer import config
from nearer.live.monitor.conditions import (
    behaviour,
    documents,
    exposure,
    generation,
    labels,
    queries,
    scores,
)
from nearer.live.monitor.conditions.day import Asked, Freshness, Labelled, Report, Seen
from nearer.live.monitor.conditions.judging import Diagnose, Family, Judge
from nearer.measure.significance import MIN_QUERIES

__all__ = [
    "CONDITIONS",
    "FAMILIES",
    "TESTED",
    "Asked",
    "Freshness",
    "Labelled",
    "Report",
    "Seen",
    "monitor",
]

#: In the order in which they are judged, and in which alerts are reported.
FAMILIES: tuple[Family, ...] = (
    documents.FAMILY,
    generation.FAMILY,
    labels.FAMILY,
    behaviour.FAMILY,
    scores.FAMILY,
    queries.FAMILY,
    exposure.FAMILY,
)
#: Condition → what its alert asks somebody to do.
CONDITIONS: Mapping[str, str] = {
    name: advice for family in FAMILIES for name, advice in family.advice.items()
}
TESTED = tuple(name for family in FAMILIES for name in family.tested)


def monitor(
    seen: Seen,
    settings: config.Monitor,
    rng: np.random.Generator,
    *,
    earlier: Mapping[str, str] | None = None,
    diagnose: Diagnose | None = None,
    min_slice: int = MIN_QUERIES,
) -> Report:
    """Judge every condition of a day.

    `earlier` is since when conditions have been firing; `diagnose` says why judged queries (ids)
    fail, and is called only for alerts about quality.
    """
    families = [family for family in FAMILIES if family.applies(seen)]
    tested = [name for family in families for name in family.tested]
    alpha = settings.false_alarms / len(tested)
    judge = Judge(seen, settings, rng, CONDITIONS, alpha, min_slice, earlier or {}, diagnose)
    judge.row("requests", len(seen.today))
    for family in families:
        if seen.whole or not family.needs_whole_day:
            family.judge(judge)
    if not seen.whole:
        without_labels = [name for name in tested if name not in labels.FAMILY.advice]
        judge.skip("the day is not over", *without_labels)
    skipped = {name: why for name, why in judge.skipped.items() if name not in judge.conditions}
    return Report(
        seen.day,
        seen.generation,
        len(seen.today),
        judge.alerts,
        judge.rows,
        judge.conditions,
        skipped,
    )
