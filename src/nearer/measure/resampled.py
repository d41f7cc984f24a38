"""Bounds of measures that are no mean over queries: coverage, exposure, the quality of clusters.

Both systems are measured on the same draws of the same units (queries, or documents), so that what
both owe to the draw cancels.  The bounds are percentiles of the bootstrap (Efron and Tibshirani
1993, chapter 13) around what was measured: unlike those of `nearer.measure.significance` they hold
approximately, and better with more units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

DRAWS = 500
#: Below so many units a bootstrap says too little.
LEAST = 20

#: The measure of one system on a draw: `weights`, int (n_units,), says how often each unit counts.
Statistic = Callable[[np.ndarray], float]
Status = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Change:
    """A measure before and after, and what draws say about `after - share * before`."""

    before: float
    after: float
    low: float  # one-sided bounds at alpha each
    high: float
    n: int

    def status(self, least: float) -> Status:
        """Whether the difference is shown to reach `least` (pass), or to stay below it (fail)."""
        if self.n < LEAST:
            return "inconclusive"
        if self.low >= least:
            return "pass"
        if self.high < least:
            return "fail"
        return "inconclusive"


def change(
    before: Statistic,
    after: Statistic,
    n_units: int,
    rng: np.random.Generator,
    *,
    share: float = 1.0,
    alpha: float = 0.05,
    labels: np.ndarray | None = None,
) -> Change:
    """Draw the units `DRAWS` times with replacement and compare.  Raises ValueError without units.

    `labels` (n_units,) say which units hang together: whole clusters are drawn then.
    """
    if n_units < 1:
        raise ValueError("there is nothing to draw from")
    if labels is None:
        cluster_of, n = np.arange(n_units), n_units
    else:
        names, cluster_of = np.unique(labels, return_inverse=True)
        n = len(names)
    whole = np.ones(n_units, np.int64)
    first, second = before(whole), after(whole)
    differences = np.empty(DRAWS)
    for draw in range(DRAWS):
        drawn = np.bincount(rng.integers(0, n, n), minlength=n)
        weights = drawn[cluster_of]
        differences[draw] = after(weights) - share * before(weights)
    # A draw repeats units, and what is no mean differs then: lists that repeat cover less of a
    # catalogue.  Only how far draws scatter is taken from them; the middle is what was measured.
    differences += second - share * first - differences.mean()
    low, high = np.quantile(differences, [alpha, 1 - alpha])
    return Change(first, second, float(low), float(high), n)
