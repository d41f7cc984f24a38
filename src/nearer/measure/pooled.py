"""Measures from a pool of which only a part was judged.

A pool holds what any of several systems ranks first; a stratified sample of it is judged.  Per
query, a judged document stands for N / n documents of its stratum (N in the pool, n judged):

- `weighted_ndcg`: gains and the ideal list from weighted counts, which is infNDCG of Yilmaz,
  Kanoulas and Aslam (SIGIR 2008), and a Hajek estimator (the weights sum to the size of the pool);
- `inferred_ap`: infAP with strata, of the same paper;
- `ndcg_bounds`: what the documents that nobody judged could make of it.

Each of these is a ratio, and where few documents are relevant a sample often misses all of them: on
its own it is biased by up to .1 nDCG@10 (`bench/pooling.py`).  `pooled_mean` therefore takes the
per-query values as predictions and corrects their mean by queries whose pool was judged whole, drawn
at random: then the bias is gone whatever the predictions are worth (`prediction_powered`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement
from operator import mul
from typing import Any

import numpy as np

from nearer.measure.prediction_powered import Estimate, combined, interval_of, tuned_power

_SMOOTHING = 1e-5  # as in infAP
_ROUNDS = 3  # of tuning the power to the ratio that it gives


@dataclass(frozen=True, slots=True)
class SampledPool:
    """One query: the stratum of each document of its pool, and the grades of the sampled ones."""

    strata: Mapping[str, int]
    grades: Mapping[str, int]

    def weights(self) -> dict[str, float]:
        """Document → how many of the pool it stands for, of those that were judged."""
        sizes = Counter(self.strata.values())
        judged = Counter(self.strata[doc_id] for doc_id in self.grades if doc_id in self.strata)
        weights = {}
        for doc_id in self.grades:
            stratum = self.strata.get(doc_id)
            if stratum is not None:
                weights[doc_id] = sizes[stratum] / judged[stratum]
        return weights


def weighted_ndcg(ranking: Sequence[str], pool: SampledPool, k: int = 10) -> float | None:
    """nDCG@k of a ranking (grade as gain, log2 discount); None where no relevant document was seen."""
    weights = pool.weights()
    counts: Counter[int] = Counter()
    totals: dict[int, float] = {}
    for doc_id, weight in weights.items():
        grade = pool.grades[doc_id]
        if grade > 0:
            counts[grade] += 1
            totals[grade] = totals.get(grade, 0.0) + weight
    if not counts:
        return None
    gain = 0.0
    for rank, doc_id in enumerate(ranking[:k], start=1):
        if doc_id in weights:
            gain += weights[doc_id] * max(pool.grades[doc_id], 0) / math.log2(rank + 1)
    return gain / _ideal(totals, k)


def _ideal(counts: Mapping[int, float], k: int) -> float:
    """DCG@k of so many documents of each grade, best first; a part of one counts in part."""
    reached = 0.0
    total = 0.0
    for grade in sorted(counts, reverse=True):
        until = min(reached + counts[grade], float(k))
        total += grade * (_cumulated(until) - _cumulated(reached))
        reached = until
    return total


def _cumulated(positions: float) -> float:
    """The sum of the discounts of the first positions, the last of them in part."""
    whole = int(positions)
    return _discounts(whole) + (positions - whole) / math.log2(whole + 2)


@cache
def _discounts(positions: int) -> float:
    return math.fsum(1.0 / math.log2(rank + 1) for rank in range(1, positions + 1))


def inferred_ap(ranking: Sequence[str], pool: SampledPool) -> float | None:
    """infAP: average precision of a ranking; None where no relevant document was seen.

    The precision at a relevant document is expected from the judged ones of each stratum above
    it.  Where none was judged above, the rate of the whole stratum is taken, where the paper takes
    one half.  Documents outside the pool count as not relevant.
    """
    weights = pool.weights()
    rates = _rates(pool)
    relevant = sum(weights[doc_id] for doc_id in weights if pool.grades[doc_id] > 0)
    if relevant == 0.0:
        return None
    above: Counter[int] = Counter()  # documents of each stratum so far
    judged: Counter[int] = Counter()
    hits: Counter[int] = Counter()
    total = 0.0
    for rank, doc_id in enumerate(ranking, start=1):
        stratum = pool.strata.get(doc_id)
        if stratum is None:
            continue
        if doc_id in weights and pool.grades[doc_id] > 0:
            expected = 1.0
            for each, number in above.items():
                smoothed = hits[each] + _SMOOTHING * rates[each]
                expected += number * smoothed / (judged[each] + _SMOOTHING)
            total += weights[doc_id] * expected / rank
            hits[stratum] += 1
        judged[stratum] += doc_id in weights
        above[stratum] += 1
    return total / relevant


def _rates(pool: SampledPool) -> dict[int, float]:
    """The share of relevant documents among the judged ones of each stratum; 0 where none was judged."""
    judged: Counter[int] = Counter()
    hits: Counter[int] = Counter()
    for doc_id, grade in pool.grades.items():
        if doc_id in pool.strata:
            judged[pool.strata[doc_id]] += 1
            hits[pool.strata[doc_id]] += grade > 0
    return {each: hits[each] / max(judged[each], 1) for each in set(pool.strata.values())}


def ndcg_bounds(
    ranking: Sequence[str], pool: SampledPool, k: int, highest: int
) -> tuple[float, float]:
    """The lowest and highest nDCG@k, each unjudged document of the pool having a grade of 0 to `highest`.

    Both are reached by some grades.  (0, 1) where nothing relevant is known and something is
    unjudged.
    """
    known = sorted((value for value in pool.grades.values() if value > 0), reverse=True)
    top = list(ranking[:k])
    gain = 0.0
    unjudged = []  # discounts, the largest first
    for rank, doc_id in enumerate(top, start=1):
        discount = 1.0 / math.log2(rank + 1)
        if doc_id in pool.grades:
            gain += max(pool.grades[doc_id], 0) * discount
        elif doc_id in pool.strata:
            unjudged.append(discount)
    below = len(set(pool.strata) - set(pool.grades) - set(top))
    if not known and (unjudged or below):
        return 0.0, 1.0
    # nDCG is quasi-concave in each grade: it is lowest where each is 0 or the highest.  Of so many
    # highest ones, those at the lowest ranks add least, and all below the ranking only cost.
    lows = []
    for number in range(len(unjudged) + 1):
        worst = gain + highest * math.fsum(unjudged[len(unjudged) - number :])
        lows.append(_ratio(worst, [*known, *[highest] * (number + below)], k))
    # It may be highest in between: every combination of grades, the best of them first.
    highs = []
    for grades in combinations_with_replacement(range(highest, -1, -1), len(unjudged)):
        best = gain + math.fsum(map(mul, grades, unjudged))
        highs.append(_ratio(best, [*known, *grades], k))
    return min(lows), min(1.0, max(highs))


def _ratio(gain: float, grades: Sequence[int], k: int) -> float:
    ideal = _ideal({grade: float(count) for grade, count in Counter(grades).items()}, k)
    return gain / ideal if ideal else 0.0


# -- means ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PooledValues:
    """A measure of n pooled queries; each array is (n,).

    `weights`: how many queries (or requests) each stands for.  `predicted` and `seen`: the measure
    from the sample of its pool, 0 where it saw nothing relevant, and whether it did.  `whole`:
    whether the pool was judged whole; there `exact` is the measure, 0 where nothing is relevant, and
    `relevant` whether anything is.
    """

    weights: np.ndarray
    predicted: np.ndarray
    seen: np.ndarray
    whole: np.ndarray
    exact: np.ndarray
    relevant: np.ndarray

    def less(self, other: PooledValues) -> PooledValues:
        """The difference of two systems over the same pools."""
        return replace(
            self, predicted=self.predicted - other.predicted, exact=self.exact - other.exact
        )


@dataclass(frozen=True, slots=True)
class PooledMean:
    """The mean over the queries that have a relevant document in their pool, as `metrics.score` takes it.

    `corrected` is None with fewer than two queries judged whole; `plain` is the mean of the
    predictions alone, which is biased, None where they saw nothing relevant.
    """

    corrected: Estimate | None
    plain: float | None
    n_queries: int
    n_whole: int
    power: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "corrected": None if self.corrected is None else self.corrected.as_dict(),
            "plain": self.plain,
            "n_queries": self.n_queries,
            "n_whole": self.n_whole,
            "power": self.power,
        }


def pooled_mean(values: PooledValues, alpha: float = 0.05) -> PooledMean:
    """The weighted mean of a measure, corrected by the queries whose pool was judged whole.

    Both the sum of the measure and the number of queries with a relevant document are estimated by
    prediction-powered inference; the interval is that of their ratio, linearised (Saerndal, Swensson
    and Wretman, Model Assisted Survey Sampling, 1992, section 5.6).
    """
    whole = values.whole.astype(bool)
    seen = float((values.weights * values.seen).sum())
    plain = float((values.weights * values.predicted).sum()) / seen if seen else None
    n_whole = int(whole.sum())
    corrected, power = None, 0.0
    if n_whole > 1 and bool(values.relevant[whole].any()):
        corrected, power = _corrected(values, whole, alpha)
    return PooledMean(corrected, plain, len(whole), n_whole, power)


def _corrected(values: PooledValues, whole: np.ndarray, alpha: float) -> tuple[Estimate, float]:
    weights = values.weights / values.weights.mean()
    rest = ~whole
    sums = (weights * values.exact)[whole], weights * values.predicted
    counts = (weights * values.relevant)[whole], weights * values.seen
    power = 0.0
    for _ in range(_ROUNDS):
        total, number = (
            combined(people, predicted[whole], predicted[rest], power)
            for people, predicted in (sums, counts)
        )
        if number.mean <= 0.0:  # then the predictions mislead: people alone
            power = 0.0
            continue
        ratio = total.mean / number.mean
        people = (sums[0] - ratio * counts[0]) / number.mean
        predicted = (sums[1] - ratio * counts[1]) / number.mean
        linear = combined(people, predicted[whole], predicted[rest], power)
        power = tuned_power(people, predicted[whole], predicted[rest])
    return interval_of(replace(linear, mean=ratio), alpha, 1.0), linear.power
