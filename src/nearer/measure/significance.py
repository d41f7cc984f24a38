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
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from nearer.errors import DataError
from nearer.measure.bounded import Sample, lower_bound, sample_of, upper_bound
from nearer.types import Interval

RESAMPLES = 10_000
#: below this many queries monitoring judges no change of quality
MIN_QUERIES = 10
#: smallest and largest value of a measure; all that `metrics.score` knows lie in [0, 1]
UNIT = (0.0, 1.0)
#: the same of a paired difference of two such measures
DIFFERENCE = (-1.0, 1.0)
#: share of all samples in which a number of queries that is promised to suffice does
_POWER = 0.8
_BLOCK = 4_000_000  # numbers drawn at once, which bounds memory to about 100 MB
_TIE = 1e-9  # differences below this are rounding
_MOST = 10_000_000  # queries; what needs more cannot be settled by judging

Values = np.ndarray  # (n,) float64: one value per query, or per cluster
Clusters = Sequence[Any] | np.ndarray | None  # what each query belongs to
Range = tuple[float, float]  # the smallest and largest value that is possible for one query
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
        return {
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

    def __str__(self) -> str:
        width = f"{100 * (1 - self.alpha):g}% interval"
        interval = f"{width} {self.low:+.3f} to {self.high:+.3f}"
        counts = f"{self.wins} won, {self.ties} tied, {self.losses} lost"
        evidence = f"p = {self.p:.4f}, {self.n} queries: {counts}"
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

    def as_dict(self) -> dict[str, Any]:
        """Keys of `guardrails` in `decision.json` (without the name)."""
        return asdict(self)


def mean_interval(
    values: Values,
    alpha: float = 0.05,
    clusters: Clusters = None,
    bounds: Range = UNIT,
) -> Interval:
    """Mean of (n,) values with its two-sided 1 - alpha interval; each end is a one-sided bound at alpha / 2.

    `bounds` are the smallest and largest value that is possible for one query.  `clusters` names
    what each query belongs to (a user, a template, a shared document); whole clusters are then the
    unit and the mean is the ratio of their sums.  Raises DataError when there are no values, one is
    not finite, or one lies outside the bounds.
    """
    sample = _sample(values, clusters, bounds)
    one_sided = alpha / 2
    return Interval(
        mean=float(np.mean(values)),
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
    interval = mean_interval(diff, alpha, clusters, DIFFERENCE)
    wins = int((diff > _TIE).sum())
    losses = int((diff < -_TIE).sum())
    # (k+1)/(B+1) must be able to fall below a small alpha
    draws = max(resamples, math.ceil(20 / alpha))
    sums, _ = _by_cluster(diff, clusters)
    return Comparison(
        delta=interval.mean,
        low=interval.low,
        high=interval.high,
        p=_sign_flip(sums, rng, draws),
        n=len(diff),
        wins=wins,
        ties=len(diff) - wins - losses,
        losses=losses,
        sd=_sd(diff),
        alpha=alpha,
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
    sample = _sample(diff, clusters, bounds)
    mean = float(np.mean(diff))
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
        needed = queries_to_settle(diff, to_margin, alpha, bounds)
    return Guard(
        status=status,
        margin=margin,
        delta=mean,
        lower_bound=low,
        upper_bound=high,
        n=len(diff),
        queries_needed=needed,
    )


def queries_to_settle(
    diff: Values,
    distance: float,
    alpha: float = 0.05,
    bounds: Range = DIFFERENCE,
) -> int | None:
    """How many queries like the (n,) observed ones settle on which side of a threshold the mean lies.

    `distance` is how far the true mean is assumed to lie above the threshold (below it, where
    negative); `alpha` is the one-sided error rate.  The answer is the smallest number of queries of
    the same composition with which the bound used for decisions clears the threshold in 80% of all
    samples, and always more than there are.  None where no number would do.
    """
    # two decimals are enough for a number of queries, and much faster
    rounded = np.round(_checked(diff), 2)
    plan = _Plan(_sample(rounded, None, bounds), _sd(diff), alpha)
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

    @classmethod
    def assuming(cls, sd: float, alpha: float) -> _Plan:
        """Half of the differences one sd above their mean and half below; `alpha` is two-sided."""
        totals = np.array([-sd, sd])
        sample = sample_of(totals, np.ones(2), *DIFFERENCE)
        return cls(sample, sd, alpha / 2)

    def reach(self, n: float) -> float:
        """How far above a threshold the true mean must lie for the lower bound of n queries to clear it.

        The mean of n queries falls short of the true one by more than z_power * sd / sqrt(n) in
        1 - power of all samples.
        """
        from scipy.stats import norm

        observed = float(self.sample.counts.sum())
        enlarged = self.sample.enlarged(n / observed)
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
    moved = diff[np.abs(diff) > _TIE]  # flipping a 0 changes nothing
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


def _checked(values: Values) -> Values:
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


def _sample(values: Values, clusters: Clusters, bounds: Range) -> Sample:
    values = _checked(values)
    least, most = bounds
    lowest, highest = values.min(), values.max()
    if lowest < least - _TIE or highest > most + _TIE:
        raise DataError(
            f"per-query values lie between {lowest:g} and {highest:g}, "
            f"outside the {least:g} to {most:g} that the measure allows",
            next_step="state the range of the measure (`bounds`); no interval holds without it",
        )
    inside = np.clip(values, least, most)
    sums, counts = _by_cluster(inside, clusters)
    return sample_of(sums, counts, least, most)


def _by_cluster(values: Values, clusters: Clusters) -> tuple[Values, Values]:
    """Sum and count of each cluster; each value is its own where `clusters` is None."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(clusters)} clusters for {len(values)} values")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=values)
    counts = np.bincount(member)
    return sums, counts.astype(np.float64)


def _sd(values: Values) -> float:
    if len(values) < 2:
        return 0.0
    return float(values.std(ddof=1))
