"""What the results that nobody judged could change: exact bounds of a difference.

A document without a judgment counts as not relevant.  A system that finds documents which no
earlier system showed is then measured too low: the bounds say how far unjudged results alone
could move the difference of two systems, each of them having any of the grades in use, or none.

Every measure here is, per query, either a sum over relevant results (nDCG, P, R) or the best one
of them (RR, Success).  For a sum and given numbers of each grade among the unjudged, the lowest
difference comes from giving the highest grades to those that speak most against the candidate; for
a best one, from a single result or none.  So trying all numbers, or each result, gives the exact
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, combinations_with_replacement
from typing import Any

import numpy as np

from nearer.measure.metrics import Scores
from nearer.types import Judgments, Run

_SUMS = ("nDCG", "P", "R")
_BEST = ("RR", "Success")
#: With more ways to grade the unjudged results of a query there are no bounds.
_MOST_WAYS = 20_000


@dataclass(frozen=True, slots=True)
class JudgedResults:
    """Of two systems' first `k` results: how many were judged, and what the others could change.

    `baseline` and `candidate` are means of Judged@k; `unjudged` counts (query, document) pairs
    that either system shows; `worst` to `best` bound the mean difference of the measure over these
    queries (candidate minus baseline), None where the measure has no such bounds or where there
    are too many results and grades to try.
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
    levels = _levels(base, judgments)
    query_ids = baseline.scores.query_ids
    open_of: dict[str, list[str]] = {}
    shares = [0.0, 0.0]
    for query_id in query_ids:
        grades = judgments.get(query_id, {})
        tops = [baseline.run.top(query_id, depth), candidate.run.top(query_id, depth)]
        open_of[query_id] = sorted({doc_id for top in tops for doc_id in top} - set(grades))
        for number, top in enumerate(tops):
            shares[number] += _share_judged(top, grades)
    most = max(map(len, open_of.values()), default=0)
    bounded = base in (*_SUMS, *_BEST) and bool(cutoff) and _can_be_tried(most, levels)
    lows: list[float] = []
    highs: list[float] = []
    if bounded:
        for query_id in query_ids:
            before = _weights(base, baseline.run.top(query_id, depth))
            after = _weights(base, candidate.run.top(query_id, depth))
            grades = judgments.get(query_id, {})
            pair = _Pair(base, depth, before, after, grades, open_of[query_id], levels)
            lows.append(pair.lowest())
            highs.append(-pair.mirrored().lowest())
    n_queries = max(len(query_ids), 1)
    change = candidate.scores.mean(measure) - baseline.scores.mean(measure)
    return JudgedResults(
        k=depth,
        baseline=shares[0] / n_queries,
        candidate=shares[1] / n_queries,
        unjudged=sum(map(len, open_of.values())),
        delta=change,
        worst=math.fsum(lows) / n_queries if bounded else None,
        best=math.fsum(highs) / n_queries if bounded else None,
    )


def _levels(base: str, judgments: Judgments) -> tuple[int, ...]:
    """The grades that an unjudged document may turn out to have, the highest first.

    Where only relevant or not counts, or where nobody graded anything, grade 1 stands for all.
    """
    used = {grade for grades in judgments.values() for grade in grades.values() if grade > 0}
    if base != "nDCG" or not used:
        return (1,)
    return tuple(sorted(used, reverse=True))


def _can_be_tried(n_unjudged: int, levels: Sequence[int]) -> bool:
    """Can every way of grading so many results be tried?  One grade is a matter of their number."""
    if len(levels) == 1:
        return True
    return math.comb(n_unjudged + len(levels), len(levels)) <= _MOST_WAYS


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
    levels: tuple[int, ...]  # grades that an unjudged result may have, the highest first

    def mirrored(self) -> _Pair:
        """With the systems exchanged: its lowest difference is the negated highest one."""
        return replace(self, before=self.after, after=self.before)

    def lowest(self) -> float:
        """The lowest difference that judging the unjudged results could give."""
        return self._lowest_best() if self.base in _BEST else self._lowest_sum()

    def _lowest_sum(self) -> float:
        known = 0.0
        for doc_id, grade in self.grades.items():
            gain = grade if self.base == "nDCG" else min(grade, 1)
            known += max(gain, 0) * self._change(doc_id)
        changes = sorted(self._change(doc_id) for doc_id in self.unjudged)
        if len(self.levels) > 1:
            return self._lowest_graded(known, changes)
        (level,) = self.levels
        added = [level * change for change in changes]
        lowest = math.inf
        for total, norm in zip(accumulate(added, initial=known), self._norms(level), strict=True):
            if norm > 0.0:
                lowest = min(lowest, total / norm)
        return 0.0 if math.isinf(lowest) else lowest

    def _lowest_graded(self, known: float, changes: Sequence[float]) -> float:
        """The lowest nDCG difference over all ways of grading; `changes` rise."""
        ways = _ways(len(changes), self.levels)
        totals = known + ways @ np.array(changes, dtype=np.float64)
        judged = np.array([grade for grade in self.grades.values() if grade > 0], dtype=np.float64)
        of_judged = np.broadcast_to(judged, (len(ways), len(judged)))
        grades = -np.sort(-np.concatenate([ways, of_judged], axis=1), axis=1)[:, : self.k]
        discounts = np.array([_discount(rank) for rank in range(1, grades.shape[1] + 1)])
        ideals = grades @ discounts
        possible = ideals > 0.0
        if not possible.any():
            return 0.0
        return float((totals[possible] / ideals[possible]).min())

    def _change(self, doc_id: str) -> float:
        """What a relevant document adds to the candidate's sum, less what it adds to the baseline's."""
        return self.after.get(doc_id, 0.0) - self.before.get(doc_id, 0.0)

    def _norms(self, level: int) -> list[float]:
        """What a sum is divided by, if none, one, two … of the unjudged documents had this grade."""
        numbers = range(len(self.unjudged) + 1)
        if self.base == "P":
            return [float(self.k) for _ in numbers]
        relevant = sorted((grade for grade in self.grades.values() if grade > 0), reverse=True)
        if self.base == "R":
            return [float(len(relevant) + more) for more in numbers]
        # Grade 1, or the only grade in use: a further document comes after those that are known.
        ranked = enumerate(relevant[: self.k], start=1)
        norms = [math.fsum(grade * _discount(rank) for rank, grade in ranked)]
        for more in numbers[1:]:
            rank = len(relevant) + more
            norms.append(norms[-1] + (level * _discount(rank) if rank <= self.k else 0.0))
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


@cache
def _ways(n: int, levels: tuple[int, ...]) -> np.ndarray:
    """(n_ways, n) float64: all ways of grading n documents, the highest grades first, whichever they are."""
    ways = list(combinations_with_replacement((*levels, 0), n))
    return np.array(ways, dtype=np.float64).reshape(len(ways), n)


def _discount(rank: int) -> float:
    return 1.0 / math.log2(rank + 1)


def _weights(base: str, top: Sequence[str]) -> dict[str, float]:
    """What each result adds to a measure per grade where it is relevant."""
    weights = {}
    for rank, doc_id in enumerate(top, start=1):
        weight = 1.0
        if base == "nDCG":
            weight = _discount(rank)
        elif base == "RR":
            weight = 1.0 / rank
        weights[doc_id] = weight
    return weights
