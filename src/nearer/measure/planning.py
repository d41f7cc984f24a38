"""How many queries settle a question, and which difference a number of queries can show."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nearer.measure.bounded import Sample, lower_bound, sample_of
from nearer.measure.units import (
    DIFFERENCE,
    Clusters,
    Range,
    Units,
    Values,
    checked,
    sample_by_unit,
    spread_by_unit,
)

#: share of all samples in which a number of queries that is promised to suffice does
_POWER = 0.8
_MOST = 10_000_000  # queries; what needs more cannot be settled by judging


def queries_to_settle(
    diff: Values,
    distance: float,
    alpha: float = 0.05,
    bounds: Range = DIFFERENCE,
    clusters: Clusters = None,
) -> int | None:
    """How many queries like the (n,) observed ones settle on which side of a threshold the mean lies.

    `distance` is how far the true mean is assumed to lie above the threshold (below it, where
    negative); `alpha` is the one-sided error rate.  The answer is the smallest number of queries of
    the same composition, in clusters of the same sizes, with which the bound used for decisions
    clears the threshold in 80% of all samples, and always more than there are.  None where no
    number would do.
    """
    # two decimals are enough for a number of queries, and much faster
    rounded = np.round(checked(diff), 2)
    units = Units.of(clusters)
    sample = sample_by_unit(rounded, units, bounds)
    plan = _Plan(sample, spread_by_unit(diff, units), alpha, len(diff))
    if distance < 0.0:
        plan = replace(plan, sample=plan.sample.mirrored())
    return plan.queries(abs(distance), at_least=len(diff) + 1)


def queries_needed(sd: float, difference: float, alpha: float = 0.05) -> int | None:
    """Queries that show a true mean difference in 80% of all samples, before any was measured.

    `sd` is that of the paired differences, which lie in [-1, 1]; half of them are taken to be one
    sd above their mean and half one sd below.  `alpha` is two-sided.  None where no number would do.
    """
    return _Plan.assuming(sd, alpha).queries(abs(difference), at_least=2)


def smallest_difference(n: int, sd: float = 0.25, alpha: float = 0.05) -> float:
    """The smallest true mean difference that `n` paired queries find; the inverse of `queries_needed`."""
    if n <= 0:
        return math.inf
    return _Plan.assuming(sd, alpha).reach(n)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Queries of which composition are going to be judged, and at which one-sided error rate."""

    sample: Sample
    sd: float
    alpha: float
    observed: float  # queries of the sample

    @classmethod
    def assuming(cls, sd: float, alpha: float) -> _Plan:
        """Half of the differences one sd above their mean and half below; `alpha` is two-sided."""
        totals = np.array([-sd, sd])
        sample = sample_of(totals, np.ones(2), *DIFFERENCE)
        return cls(sample, sd, alpha / 2, 2.0)

    def reach(self, n: float) -> float:
        """How far above a threshold the true mean must lie for the lower bound of n queries to clear it.

        The mean of n queries falls short of the true one by more than z_power * sd / sqrt(n) in
        1 - power of all samples.
        """
        from scipy.stats import norm

        enlarged = self.sample.enlarged(n / self.observed)
        z_power = float(norm.ppf(_POWER))
        shortfall = z_power * self.sd / math.sqrt(n)
        width = enlarged.mean - lower_bound(enlarged, self.alpha)
        return width + shortfall

    def queries(self, distance: float, at_least: int) -> int | None:
        """The smallest n of at least `at_least`, to about 1 in 1,000, whose reach is within the distance."""
        from scipy.optimize import brentq

        def excess(log_n: float) -> float:
            return self.reach(math.exp(log_n)) - distance

        low = math.log(at_least)
        if excess(low) <= 0.0:
            return at_least
        high = low + 1.0
        while excess(high) > 0.0:
            low = high
            high += 1.0
            if low > math.log(_MOST):
                return None
        root = brentq(excess, low, high, xtol=1e-3)
        return math.ceil(math.exp(root))
