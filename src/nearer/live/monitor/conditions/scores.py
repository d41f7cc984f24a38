"""Scores of the first results: did they move, and do more queries score low?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

import numpy as np

from nearer.live.monitor.conditions.judging import ENOUGH, Evidence, Family, Judge, telling_slice
from nearer.live.traffic.log import Request
from nearer.measure import drift
from nearer.types import Query

_ADVICE = {
    "scores": "the model or index behind this generation changed, or the queries: nearer index verify ID; if it passes, read the examples",
    "low_scores": "read the examples: documents may be missing, or the model does not know the words; judge some for a diagnosis",
}
_LOW = 0.05  # quantile of the reference's first scores below which a score is low


def _judge(judge: Judge) -> None:
    """Distinct queries count once: within one generation the same query has the same score."""
    seen, settings = judge.seen, judge.settings
    now = _first_scores(seen.today, seen.generation)
    before = _first_scores(chain.from_iterable(seen.before), seen.generation)
    if min(len(now), len(before)) < ENOUGH:
        why = f"fewer than {ENOUGH} different queries of this generation on the day, or before it"
        judge.skip(why, *_ADVICE)
        return
    old = np.array(list(before.values()), np.float64)
    new = np.array(list(now.values()), np.float64)
    queries = [Query(str(row), text) for row, (text, _) in enumerate(now)]
    border = float(np.quantile(old, _LOW))
    shift = drift.score_shift(old, new)
    judge.row("scores_psi", shift.size)
    where = "all"
    if shift.size >= settings.scores:
        where = telling_slice([str(row) for row in np.flatnonzero(new < border)], queries)
    rising = new.mean() >= old.mean()
    order = np.argsort(-new if rising else new)
    what = f"first scores moved from {shift.before:.3f} to {shift.value:.3f} on average (stability index {shift.size:.2f})"
    evidence = Evidence(what, [queries[row].text for row in order], where)
    judge.outcome("scores", shift, settings.scores, evidence)
    low = drift.mean_shift([old < border], new < border)
    what = (
        f"{low.value:.1%} of the queries score below {border:.3f} at best ({low.before:.1%} before)"
    )
    evidence = Evidence(what, [queries[row].text for row in np.argsort(new)], where)
    judge.outcome("low_scores", low, settings.rate, evidence)


def _first_scores(requests: Iterable[Request], generation: str) -> dict[tuple[str, str], float]:
    """Score of the first result by query and filter."""
    scores = {}
    for request in requests:
        if request.generation == generation and request.arm == "live" and request.results:
            filter = json.dumps(request.filter, sort_keys=True, default=str)
            scores[request.query, filter] = request.results[0][1]
    return scores


FAMILY = Family(_judge, _ADVICE)
