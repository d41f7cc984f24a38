"""How well similarities follow scores: Spearman's rank correlation, and whether a change of it is real.

The unit is the pair of texts.  Intervals and p values come from resampling whole pairs (the paired
percentile bootstrap, Efron and Tibshirani 1993): both models are measured on the same pairs each
time, so that what the pairs have in common cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.errors import DataError
from nearer.types import Interval

RESAMPLES = 2000
#: With fewer pairs, or with equal scores alone, no correlation is defined.
FEWEST = 3


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Rank correlation of two (n,) columns, equal values sharing the mean of their ranks.

    0 where either column is constant, as nothing then follows anything.  Raises DataError for fewer
    than 3 values, or values that are not finite.
    """
    if len(left) < FEWEST or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise DataError(
            f"a correlation needs {FEWEST} finite pairs or more",
            where="scored pairs",
            next_step="hold out more pairs (data.scored, data.split)",
        )
    return float(np.mean(_standardised(left) * _standardised(right)))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and variance 1; zeros for a constant column."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    centred = ranks - ranks.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    standardised: np.ndarray = centred / spread if spread > 0 else np.zeros(len(ranks))
    return standardised


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64 (n,): what each pair adds; their mean is `spearman`."""
    product: np.ndarray = _standardised(left) * _standardised(right)
    return product


@dataclass(frozen=True, slots=True)
class CorrelationChange:
    """Candidate minus baseline on the same pairs; `low` to `high` is the 1 - alpha interval."""

    before: Interval
    after: Interval
    delta: float
    low: float
    high: float
    p: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "delta": self.delta,
            "ci": [self.low, self.high],
            "p": self.p,
            "n": self.n,
        }


def compare_correlations(
    scores: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    rng: np.random.Generator,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
) -> CorrelationChange:
    """Two models' similarities of the same pairs against their scores, all (n,).

    `p` is two-sided: twice the share of resamples in which the change has the other sign, the
    observed one counted once.  Raises DataError as `spearman` does.
    """
    observed = spearman(before, scores), spearman(after, scores)
    drawn = np.empty((resamples, 2))
    n = len(scores)
    for row in range(resamples):
        chosen = rng.integers(0, n, n)
        drawn[row] = (
            spearman(before[chosen], scores[chosen]),
            spearman(after[chosen], scores[chosen]),
        )
    changes = drawn[:, 1] - drawn[:, 0]
    delta = observed[1] - observed[0]
    low, high = _ends(changes, alpha)
    below, above = int((changes <= 0).sum()), int((changes >= 0).sum())
    p = min(1.0, 2.0 * (1 + min(below, above)) / (1 + resamples))
    of_before, of_after = _ends(drawn[:, 0], alpha), _ends(drawn[:, 1], alpha)
    return CorrelationChange(
        before=Interval(observed[0], *of_before),
        after=Interval(observed[1], *of_after),
        delta=delta,
        low=low,
        high=high,
        p=p,
        n=n,
    )


def _ends(values: np.ndarray, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
