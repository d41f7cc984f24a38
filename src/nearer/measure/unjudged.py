"""What the results that nobody judged could change: exact bounds of a difference.

A document without a judgment counts as not relevant.  A system that finds documents which no
earlier system showed is then measured too low: the bounds say how far unjudged results alone
could move the difference of two systems, each of them being relevant (grade 1) or not.

Every measure here is, per query, either a sum over relevant results (nDCG, P, R) or the best one
of them (RR, Success).  For a sum and a given number of relevant ones among the unjudged, the
lowest difference comes from those that speak most against the candidate; for a best one, from a
single result or none.  So trying each number, or each result, gives the exact bounds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from nearer.measure.metrics import Scores
from nearer.types import Judgments, Run

_SUMS = ("nDCG", "P", "R")
_BEST = ("RR", "Success")


@dataclass(frozen=True, slots=True)
class JudgedResults:
    """Of two systems' first `k` results: how many were judged, and what the others could change.

    `baseline` and `candidate` are means of Judged@k; `unjudged` counts (query, document) pairs
    that either system shows; `worst` to `best` bound the mean difference of the measure over these
    queries (candidate minus baseline), None where the measure has no such bounds.
    """

    k: int
    baseline: float
    candidate: float
    unjudged: int
    delta: float
    worst: float | None
    best: float | None

    def as_dict(self) -> dict[str, Any]:
        """`judged` in decision.json."""
        return {
            "measure": f"Judged@{self.k}",
            "baseline": self.baseline,
            "candidate": self.candidate,
            "unjudged": self.unjudged,
            "delta": self.delta,
            "worst": self.worst,
            "best": self.best,
        }


@dataclass(frozen=True, slots=True)
class Results:
    """What a system found and what it is worth."""

    run: Run
    scores: Scores


def judged_results(
    baseline: Results, candidate: Results, judgments: Judgments, measure: str, k: int = 10
) -> JudgedResults:
    """Judged@k of two systems over the same queries, and bounds of the difference of `measure`.

    `k` is the depth for measures that name none.
    """
    base, _, cutoff = measure.partition("@")
    depth = int(cutoff) if cutoff else k
    bounded = base in (*_SUMS, *_BEST) and bool(cutoff)
    query_ids = baseline.scores.query_ids
    unjudged = 0
    shares = [0.0, 0.0]
    lows: list[float] = []
    highs: list[float] = []
    for query_id in query_ids:
        grades = judgments.get(query_id, {})
        tops = [baseline.run.top(query_id, depth), candidate.run.top(query_id, depth)]
        open_ids = sorted({doc_id for top in tops for doc_id in top} - set(grades))
        unjudged += len(open_ids)
        for number, top in enumerate(tops):
            shares[number] += _share_judged(top, grades)
        if bounded:
            before, after = (_weights(base, top) for top in tops)
            pair = _Pair(base, depth, before, after, grades, open_ids)
            lows.append(pair.lowest())
            highs.append(-pair.mirrored().lowest())
    n_queries = max(len(query_ids), 1)
    change = candidate.scores.mean(measure) - baseline.scores.mean(measure)
    return JudgedResults(
        k=depth,
        baseline=shares[0] / n_queries,
        candidate=shares[1] / n_queries,
        unjudged=unjudged,
        delta=change,
        worst=math.fsum(lows) / n_queries if bounded else None,
        best=math.fsum(highs) / n_queries if bounded else None,
    )


def _share_judged(top: Sequence[str], grades: Collection[str]) -> float:
    if not top:
        return 0.0
    return sum(doc_id in grades for doc_id in top) / len(top)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The first results of two systems for one query, each with what it adds where it is relevant."""

    base: str  # of the measure
    k: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    grades: Mapping[str, int]
    unjudged: Sequence[str]

    def mirrored(self) -> _Pair:
        """With the systems exchanged: its lowest difference is the negated highest one."""
        return _Pair(self.base, self.k, self.after, self.before, self.grades, self.unjudged)

    def lowest(self) -> float:
        """The lowest difference that judging the unjudged results could give."""
        return self._lowest_best() if self.base in _BEST else self._lowest_sum()

    def _lowest_sum(self) -> float:
        known = 0.0
        for doc_id, grade in self.grades.items():
            gain = grade if self.base == "nDCG" else min(grade, 1)
            known += max(gain, 0) * self._change(doc_id)
        changes = sorted(self._change(doc_id) for doc_id in self.unjudged)
        lowest = math.inf
        for total, norm in zip(accumulate(changes, initial=known), self._norms(), strict=True):
            if norm > 0.0:
                lowest = min(lowest, total / norm)
        return 0.0 if math.isinf(lowest) else lowest

    def _change(self, doc_id: str) -> float:
        """What a relevant document adds to the candidate's sum, less what it adds to the baseline's."""
        return self.after.get(doc_id, 0.0) - self.before.get(doc_id, 0.0)

    def _norms(self) -> list[float]:
        """What a sum is divided by, if none, one, two … of the unjudged documents were relevant."""
        numbers = range(len(self.unjudged) + 1)
        if self.base == "P":
            return [float(self.k) for _ in numbers]
        relevant = sorted((grade for grade in self.grades.values() if grade > 0), reverse=True)
        if self.base == "R":
            return [float(len(relevant) + more) for more in numbers]
        ranked = enumerate(relevant[: self.k], start=1)
        norms = [math.fsum(grade * _discount(rank) for rank, grade in ranked)]
        for more in numbers[1:]:
            rank = len(relevant) + more
            norms.append(norms[-1] + (_discount(rank) if rank <= self.k else 0.0))
        return norms

    def _lowest_best(self) -> float:
        relevant = [doc_id for doc_id, grade in self.grades.items() if grade > 0]
        before = max((self.before.get(doc_id, 0.0) for doc_id in relevant), default=0.0)
        after = max((self.after.get(doc_id, 0.0) for doc_id in relevant), default=0.0)
        lowest = after - before
        for doc_id in self.unjudged:
            changed_after = max(after, self.after.get(doc_id, 0.0))
            changed_before = max(before, self.before.get(doc_id, 0.0))
            lowest = min(lowest, changed_after - changed_before)
        return lowest


def _discount(rank: int) -> float:
    return 1.0 / math.log2(rank + 1)


def _weights(base: str, top: Sequence[str]) -> dict[str, float]:
    """What each result adds to a measure where it is relevant, with grade 1."""
    weights = {}
    for rank, doc_id in enumerate(top, start=1):
        weight = 1.0
        if base == "nDCG":
            weight = _discount(rank)
        elif base == "RR":
            weight = 1.0 / rank
        weights[doc_id] = weight
    return weights
