"""What is drawn at random when queries are: single queries or clusters of them, and their weights.

A statement about a mean needs independent draws.  Queries of one user, of one template or about
one document are not independent, so whole clusters take the place of queries.  A weight says how
often users ask a query; the mean is then that of all requests instead of all different queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.errors import DataError
from nearer.measure.bounded import Sample, sample_of

#: smallest and largest value of a measure; all that `metrics.score` knows lie in [0, 1]
UNIT = (0.0, 1.0)
#: the same of a paired difference of two such measures
DIFFERENCE = (-1.0, 1.0)
#: differences below this are rounding
TIE = 1e-9

Values = np.ndarray  # (n,) float64: one value per query
Range = tuple[float, float]  # the smallest and largest value that is possible for one query
Labels = Sequence[Any] | np.ndarray  # (n,) what each query belongs to


@dataclass(frozen=True, slots=True)
class Units:
    """How queries hang together, and how much each counts; both are per query, in its order."""

    labels: Labels | None = None  # None: each query is a unit of its own
    weights: Values | None = None  # (n,) float64 above 0; None: each counts 1

    @classmethod
    def of(cls, clusters: Clusters) -> Units:
        """Clusters as they are given: names of what each query belongs to, or units already."""
        return clusters if isinstance(clusters, Units) else cls(clusters)

    def at(self, positions: np.ndarray) -> Units:
        """The same for the queries at some positions, int64 (m,)."""
        labels = None if self.labels is None else np.asarray(self.labels)[positions]
        weights = None if self.weights is None else self.weights[positions]
        return Units(labels, weights)

    def mean(self, values: Values) -> float:
        """Mean of (n,) values, each counted as often as its weight says."""
        return float(np.average(values, weights=self.weights))

    def count(self, n_queries: int) -> int:
        """How many independent units there are."""
        return n_queries if self.labels is None else len(np.unique(np.asarray(self.labels)))

    def totals(self, values: Values) -> tuple[Values, Values]:
        """Weighted sum of the values of each unit, and the sum of its weights, (n_units,) each."""
        weights = np.ones(len(values)) if self.weights is None else self.weights
        if len(weights) != len(values):
            raise ValueError(f"{len(weights)} weights for {len(values)} values")
        weighted = values * weights
        if self.labels is None:
            return weighted, weights
        if len(self.labels) != len(values):
            raise ValueError(f"{len(self.labels)} clusters for {len(values)} values")
        _, member = np.unique(np.asarray(self.labels), return_inverse=True)
        sums = np.bincount(member, weights=weighted)
        sizes = np.bincount(member, weights=weights)
        return sums, sizes


#: Names of what each query belongs to, such units with weights, or None: every query by itself.
Clusters = Labels | Units | None


def checked(values: Values) -> Values:
    """The values as (n,) float64.  Raises DataError where there are none, or one is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(
            "there are no judged queries to average",
            next_step="add judgments, or lower evaluate.min_slice",
        )
    if not np.isfinite(values).all():
        raise DataError(
            "a per-query value is not a finite number",
            next_step="rerun the stage that wrote the scores with --force",
        )
    return values


def sample_by_unit(values: Values, units: Units, bounds: Range) -> Sample:
    """What the bounds of `measure.bounded` start from.  Raises DataError outside the bounds."""
    values = checked(values)
    least, most = bounds
    lowest, highest = values.min(), values.max()
    if lowest < least - TIE or highest > most + TIE:
        raise DataError(
            f"per-query values lie between {lowest:g} and {highest:g}, "
            f"outside the {least:g} to {most:g} that the measure allows",
            next_step="bring the values into that range, or, in Python, give theirs as `bounds`: "
            "no interval holds without one",
        )
    inside = np.clip(values, least, most)
    sums, sizes = units.totals(inside)
    return sample_of(sums, sizes, least, most)


def spread(values: Values) -> float:
    """Standard deviation of single values; 0 where there is only one."""
    if len(values) < 2:
        return 0.0
    return float(values.std(ddof=1))


def spread_by_unit(values: Values, units: Units) -> float:
    """The standard deviation that independent queries would need for the mean to be as uncertain."""
    if units.labels is None and units.weights is None:
        return spread(values)
    sums, sizes = units.totals(values)
    n_units = len(sums)
    if n_units < 2:
        return 0.0
    mean = float(sums.sum() / sizes.sum())
    squares = float(((sums - mean * sizes) ** 2).sum())
    variance_of_mean = squares * n_units / (n_units - 1) / float(sizes.sum()) ** 2
    return float(np.sqrt(variance_of_mean * len(values)))
