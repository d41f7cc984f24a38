"""Is a difference real, is it worth having, and how many queries would it take to know?

The unit is the query, always paired.  Intervals and one-sided bounds hold for every number of
queries and every distribution of bounded values (`nearer.measure.bounded`); p values come from a
sign-flip randomisation (Fisher's test; Smucker, Allan and Carterette, CIKM 2007), with the observed
arrangement counted once: (k+1)/(B+1) (Phipson and Smyth 2010).  A difference is called real only
when both agree.  docs/statistics.md says what is claimed, and measures how often it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nearer.measure.bounded import lower_bound, upper_bound
from nearer.measure.planning import queries_needed, queries_to_settle, smallest_difference
from nearer.measure.units import (
    DIFFERENCE,
    TIE,
    UNIT,
    Clusters,
    Range,
    Units,
    Values,
    sample_by_unit,
    spread,
)
from nearer.types import Interval

__all__ = [
    "DIFFERENCE",
    "MIN_QUERIES",
    "RESAMPLES",
    "UNIT",
    "Clusters",
    "Comparison",
    "Guard",
    "Range",
    "Units",
    "Values",
    "compare",
    "holm",
    "mean_interval",
    "non_inferior",
    "queries_needed",
    "queries_to_settle",
    "smallest_difference",
]

RESAMPLES = 10_000
#: below this many queries monitoring judges no change of quality
MIN_QUERIES = 10
_BLOCK = 4_000_000  # numbers drawn at once, which bounds memory to about 100 MB

Outcome = Literal["better", "worse", "unclear"]
Status = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline over the same queries.

    `low` to `high` is the two-sided 1 - alpha interval of the mean difference, `p` two-sided.
    """

    delta: float
    low: float
    high: float
    p: float
    n: int
    wins: int
    ties: int
    losses: int
    sd: float
    alpha: float = 0.05
    clusters: int | None = None  # independent units, where they are not the queries themselves

    @property
    def outcome(self) -> Outcome:
        """What is shown: the interval excludes 0 *and* p is at most alpha.

        Where the true mean difference is 0, each of better and worse comes out in at most alpha / 2
        of all samples (the interval alone guarantees that).
        """
        if self.p > self.alpha:
            return "unclear"
        if self.low > 0.0:
            return "better"
        if self.high < 0.0:
            return "worse"
        return "unclear"

    def as_dict(self) -> dict[str, Any]:
        """Keys of `comparisons` in `decision.json`."""
        line = {
            "delta": self.delta,
            "ci": [self.low, self.high],
            "outcome": self.outcome,
            "p": self.p,
            "n": self.n,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "sd": self.sd,
        }
        if self.clusters is not None:
            line["clusters"] = self.clusters
        return line

    def __str__(self) -> str:
        width = f"{100 * (1 - self.alpha):g}% interval"
        interval = f"{width} {self.low:+.3f} to {self.high:+.3f}"
        counts = f"{self.wins} won, {self.ties} tied, {self.losses} lost"
        queries = f"{self.n} queries"
        if self.clusters is not None:
            queries += f" in {self.clusters} clusters"
        evidence = f"p = {self.p:.4f}, {queries}: {counts}"
        return f"{self.delta:+.3f} ({interval}, {evidence})"


@dataclass(frozen=True, slots=True)
class Guard:
    """Outcome of a non-inferiority test.

    `queries_needed` is the total number of queries that would settle an inconclusive one, or None
    when it is settled or no number would do.
    """

    status: Status
    margin: float
    delta: float
    lower_bound: float
    upper_bound: float
    n: int
    queries_needed: int | None = None
    clusters: int | None = None  # independent units, where they are not the queries themselves

    def as_dict(self) -> dict[str, Any]:
        """Keys of `guardrails` in `decision.json` (without the name)."""
        line = asdict(self)
        if self.clusters is None:
            del line["clusters"]
        return line


def mean_interval(
    values: Values,
    alpha: float = 0.05,
    clusters: Clusters = None,
    bounds: Range = UNIT,
) -> Interval:
    """Mean of (n,) values with its two-sided 1 - alpha interval; each end is a one-sided bound at alpha / 2.

    `bounds` are the smallest and largest value that is possible for one query.  `clusters` names
    what each query belongs to (a user, a template, a shared document); whole clusters are then the
    unit and the mean is the ratio of their sums.  `Units` also say how much each query counts.
    Raises DataError when there are no values, one is not finite, or one lies outside the bounds.
    """
    units = Units.of(clusters)
    sample = sample_by_unit(values, units, bounds)
    one_sided = alpha / 2
    return Interval(
        mean=units.mean(values),
        low=lower_bound(sample, one_sided),
        high=upper_bound(sample, one_sided),
    )


def compare(
    baseline: Values,
    candidate: Values,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    clusters: Clusters = None,
) -> Comparison:
    """Paired comparison of two (n,) columns of a measure in [0, 1] over the same queries in the same order.

    p is two-sided: the share of random sign flips of the differences (of whole clusters, where
    given) whose mean is at least as far from 0 as the observed one, (k+1)/(B+1).
    Raises ValueError for different shapes, DataError as `mean_interval` does.
    """
    if np.shape(baseline) != np.shape(candidate):
        raise ValueError(
            f"baseline has shape {np.shape(baseline)}, candidate {np.shape(candidate)}"
        )
    before = np.asarray(baseline, dtype=np.float64)
    diff = np.asarray(candidate, dtype=np.float64) - before
    units = Units.of(clusters)
    interval = mean_interval(diff, alpha, units, DIFFERENCE)
    wins = int((diff > TIE).sum())
    losses = int((diff < -TIE).sum())
    # (k+1)/(B+1) must be able to fall below a small alpha
    draws = max(resamples, math.ceil(20 / alpha))
    sums, _ = units.totals(diff)
    return Comparison(
        delta=interval.mean,
        low=interval.low,
        high=interval.high,
        p=_sign_flip(sums, rng, draws),
        n=len(diff),
        wins=wins,
        ties=len(diff) - wins - losses,
        losses=losses,
        sd=spread(diff),
        alpha=alpha,
        clusters=_clusters(units, len(diff)),
    )


def non_inferior(
    diff: Values,
    margin: float,
    alpha: float = 0.05,
    clusters: Clusters = None,
    bounds: Range = DIFFERENCE,
) -> Guard:
    """Is the candidate no worse than `margin` below the baseline?  `diff` is candidate - baseline, (n,).

    pass: the one-sided lower 1 - alpha bound reaches -margin; fail: the one-sided upper bound lies
    below it (really worse); inconclusive otherwise.  The number of queries needed assumes that the
    true difference is the observed one where that is a loss, and none where it is a gain.
    """
    units = Units.of(clusters)
    sample = sample_by_unit(diff, units, bounds)
    mean = units.mean(diff)
    low = lower_bound(sample, alpha)
    high = upper_bound(sample, alpha)
    needed = None
    status: Status = "inconclusive"
    if low >= -margin:
        status = "pass"
    elif high < -margin:
        status = "fail"
    else:
        to_margin = margin + min(mean, 0.0)
        needed = queries_to_settle(diff, to_margin, alpha, bounds, units)
    return Guard(
        status=status,
        margin=margin,
        delta=mean,
        lower_bound=low,
        upper_bound=high,
        n=len(diff),
        queries_needed=needed,
        clusters=_clusters(units, len(diff)),
    )


def _clusters(units: Units, n_queries: int) -> int | None:
    """How many clusters there are; None where every query is a unit of its own."""
    return None if units.labels is None else units.count(n_queries)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjustment (1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return ()
    order = np.argsort(p, kind="stable")
    remaining = np.arange(len(p), 0, -1)
    stepped = np.maximum.accumulate(p[order] * remaining)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, stepped)
    return tuple(adjusted.tolist())


def _sign_flip(diff: Values, rng: np.random.Generator, resamples: int) -> float:
    moved = diff[np.abs(diff) > TIE]  # flipping a 0 changes nothing
    if not len(moved):
        return 1.0
    total = moved.sum()
    # equal arrangements must count as equal despite rounding
    rounding = 1e-12 * np.abs(moved).sum()
    least = abs(total) - rounding
    block = max(1, _BLOCK // len(moved))
    extreme = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        flips = rng.integers(0, 2, size=(rows, len(moved)), dtype=np.int8)
        sums = 2.0 * (flips.astype(np.float64) @ moved) - total
        extreme += int((np.abs(sums) >= least).sum())
    return (extreme + 1) / (resamples + 1)
