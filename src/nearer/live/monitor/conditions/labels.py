"""Quality with labels: canary queries, and requests that people judged."""

from __future__ import annotations

import numpy as np

from nearer.live.monitor.conditions.day import Labelled
from nearer.live.monitor.conditions.judging import Evidence, Family, Judge, telling_slice
from nearer.measure import drift
from nearer.measure.drift import Shift
from nearer.measure.metrics import Scores
from nearer.measure.significance import MIN_QUERIES, compare, mean_interval
from nearer.measure.slices import SliceEvidence, automatic_slices, slice_table

_ADVICE = {
    "quality_canary": "see the diagnosis",
    "quality_judged": "see the diagnosis",
}
_RESAMPLES = 2000
_SAME = 1e-9  # values nearer than this are equal


def _judge(judge: Judge) -> None:
    canaries, fresh = judge.seen.canaries, judge.seen.judged
    if canaries is None or len(canaries.now) < MIN_QUERIES:
        judge.skip(f"fewer than {MIN_QUERIES} judged canary queries", *_ADVICE)
        return
    _canaries(judge, canaries)
    if fresh is None or len(fresh.now) < MIN_QUERIES:
        judge.skip(f"fewer than {MIN_QUERIES} requests of these days were judged", "quality_judged")
        return
    _judged_requests(judge, fresh)


def _canaries(judge: Judge, canaries: Labelled) -> None:
    change = compare(canaries.before, canaries.now, judge.rng, _RESAMPLES)
    level = mean_interval(canaries.now)
    before = float(canaries.before.mean())
    shift = Shift(-change.delta, change.p, level.mean, level.low, level.high, before)
    worse = np.flatnonzero(canaries.now < canaries.before - _SAME)
    lost = f"canary queries lost {-change.delta:.3f} ({before:.3f} → {level.mean:.3f}); "
    what = f"{lost}{len(worse)} of {len(canaries.now)} became worse"
    evidence = _about(canaries, worse, what)
    judge.outcome("quality_canary", shift, judge.settings.quality, evidence)
    _slices(judge, canaries)


def _slices(judge: Judge, canaries: Labelled) -> None:
    """The measure of canary queries by slice, for the series."""
    slices = automatic_slices(canaries.queries, SliceEvidence())
    scores = Scores(tuple(query.id for query in canaries.queries), {"": canaries.now})
    for line in slice_table(scores, slices, "", judge.min_slice):
        interval = line["ci"][0], line["ci"][1]
        judge.row("quality_canary", line["mean"], interval, line["slice"])


def _judged_requests(judge: Judge, fresh: Labelled) -> None:
    shift = drift.mean_shift([fresh.before], fresh.now, -1)
    what = (
        f"judged requests of these days reach {shift.value:.3f}, canary queries {shift.before:.3f}"
    )
    evidence = _about(fresh, np.flatnonzero(fresh.now < shift.before), what)
    judge.outcome("quality_judged", shift, judge.settings.quality, evidence)


def _about(labelled: Labelled, worse: np.ndarray, what: str) -> Evidence:
    """Evidence about the queries in the rows that became worse."""
    queries = [labelled.queries[row] for row in worse]
    ids = [query.id for query in queries]
    return Evidence(
        what,
        examples=[query.text for query in queries],
        slice=telling_slice(ids, labelled.queries),
        affected=ids,
    )


FAMILY = Family(_judge, _ADVICE, needs_whole_day=False)
