"""Where the direction of a change turns round when one looks closer (Simpson's kind of surprise).

Both systems answer the same queries, so a gain cannot be a loss in *every* part of them.  What can
happen: one part loses while the whole gains, or the mean changes its sign once each request, each
cluster or each part counts the same instead of each query.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.measure.metrics import Scores
from nearer.measure.slices import PARTITIONS
from nearer.measure.units import TIE, Labels

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reversal:
    """One way to look at the queries in which the change has the other sign.

    `shown` says that this is more than chance; without it the reversal is only what was measured.
    """

    by: str  # slice, requests, clusters, or the slices that are counted alike
    name: str
    delta: float
    overall: float
    n: int
    shown: bool = False

    def as_dict(self) -> dict[str, Any]:
        """A row of `reversals` in decision.json."""
        return {
            "by": self.by,
            "name": self.name,
            "delta": self.delta,
            "overall": self.overall,
            "n": self.n,
            "shown": self.shown,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """Candidate minus baseline per query, and how the queries can be grouped."""

    query_ids: tuple[str, ...]
    values: np.ndarray  # (n_queries,) float64
    slices: Mapping[str, Collection[str]]
    labels: Labels | None = None  # clusters
    weights: np.ndarray | None = None  # how often each query is asked

    @property
    def overall(self) -> float:
        """Mean over the queries."""
        return float(self.values.mean())


def reversals(
    change: Change, slice_rows: Sequence[Json], alpha: float, margin: float
) -> list[Reversal]:
    """All reversals, those of slices first.

    A slice counts where its opposite change is shown (Holm-adjusted) or larger than `margin`.
    `slice_rows` are those of `compare_slices`.
    """
    overall = change.overall
    if abs(overall) <= TIE:
        return []
    turned = [*_of_slices(overall, slice_rows, alpha, margin), *_of_partitions(change)]
    if change.weights is not None:
        mean = float(np.average(change.values, weights=change.weights))
        turned.append(
            Reversal("requests", "each request counts the same", mean, overall, len(change.values))
        )
    if change.labels is not None:
        mean, n_clusters = _mean_of_clusters(change.values, change.labels)
        turned.append(
            Reversal("clusters", "each cluster counts the same", mean, overall, n_clusters)
        )
    return [reversal for reversal in turned if _opposite(reversal.delta, overall)]


def _opposite(delta: float, overall: float) -> bool:
    return abs(delta) > TIE and (delta > 0.0) != (overall > 0.0)


def _of_slices(
    overall: float, slice_rows: Sequence[Json], alpha: float, margin: float
) -> list[Reversal]:
    turned = []
    for row in slice_rows:
        shown = row["outcome"] != "unclear" and row["p_holm"] <= alpha
        if shown or abs(row["delta"]) > margin:
            turned.append(Reversal("slice", row["slice"], row["delta"], overall, row["n"], shown))
    return turned


def _of_partitions(change: Change) -> list[Reversal]:
    """The mean of the means of slices that divide the queries among them."""
    scores = Scores(change.query_ids, {"change": change.values})
    turned = []
    for names in PARTITIONS:
        means = []
        for name in names:
            positions = scores.positions(change.slices.get(name, ()))
            if len(positions):
                means.append(float(change.values[positions].mean()))
        if len(means) > 1:
            label = f"each of {', '.join(names)} counts the same"
            mean = float(np.mean(means))
            turned.append(Reversal("slices", label, mean, change.overall, len(change.values)))
    return turned


def _mean_of_clusters(values: np.ndarray, labels: Labels) -> tuple[float, int]:
    _, member = np.unique(np.asarray(labels), return_inverse=True)
    sums = np.bincount(member, weights=values)
    counts = np.bincount(member)
    return float((sums / counts).mean()), len(counts)
