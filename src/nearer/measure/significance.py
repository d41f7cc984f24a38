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
_BLOCK = 4_000_000  # numbers drawn at once, which bounds memory to about 100 MB
_TIE = 1e-9  # differences below this are rounding
_MOST = 10_000_000  # queries; what needs more cannot be settled by judging


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
    def outcome(self) -> Literal["better", "worse", "unclear"]:
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
        figures = {"delta": self.delta, "ci": [self.low, self.high], "outcome": self.outcome}
        for key in ("p", "n", "wins", "ties", "losses", "sd"):
            figures[key] = getattr(self, key)
        return figures

    def __str__(self) -> str:
        width = f"{100 * (1 - self.alpha):g}% interval"
        counts = f"{self.wins} won, {self.ties} tied, {self.losses} lost"
        return f"{self.delta:+.3f} ({width} {self.low:+.3f} to {self.high:+.3f}, p = {self.p:.4f}, {self.n} queries: {counts})"


@dataclass(frozen=True, slots=True)
class Guard:
    """Outcome of a non-inferiority test.

    `queries_needed` is the total number of queries that would settle an inconclusive one, or None
    when it is settled or no number would do.
    """

    status: Literal["pass", "fail", "inconclusive"]
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
    values: np.ndarray,
    alpha: float = 0.05,
    clusters: Sequence[Any] | np.ndarray | None = None,
    bounds: tuple[float, float] = UNIT,
) -> Interval:
    """Mean of (n,) values with its two-sided 1 - alpha interval; each end is a one-sided bound at alpha / 2.

    `bounds` are the smallest and largest value that is possible for one query.  `clusters` names
    what each query belongs to (a user, a template, a shared document); whole clusters are then the
    unit and the mean is the ratio of their sums.  Raises DataError when there are no values, one is
    not finite, or one lies outside the bounds.
    """
    sample = _sample(values, clusters, bounds)
    low, high = lower_bound(sample, alpha / 2), upper_bound(sample, alpha / 2)
    return Interval(float(np.mean(values)), low, high)


def compare(
    baseline: np.ndarray,
    candidate: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    clusters: Sequence[Any] | np.ndarray | None = None,
    *,
    bounds: tuple[float, float] = UNIT,
) -> Comparison:
    """Paired comparison of two (n,) columns over the same queries in the same order.

    p is two-sided: the share of random sign flips of the differences (of whole clusters, where
    given) whose mean is at least as far from 0 as the observed one, (k+1)/(B+1).  `bounds` are
    those of the measure; those of its differences follow from them.
    Raises ValueError for different shapes, DataError as `mean_interval` does.
    """
    if np.shape(baseline) != np.shape(candidate):
        raise ValueError(
            f"baseline has shape {np.shape(baseline)}, candidate {np.shape(candidate)}"
        )
    diff = np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    span = bounds[1] - bounds[0]
    interval = mean_interval(diff, alpha, clusters, (-span, span))
    wins, losses = int((diff > _TIE).sum()), int((diff < -_TIE).sum())
    # (k+1)/(B+1) must be able to fall below a small alpha
    draws = max(resamples, math.ceil(20 / alpha))
    p = _sign_flip(_by_cluster(diff, clusters)[0], rng, draws)
    counts = {"n": len(diff), "wins": wins, "ties": len(diff) - wins - losses, "losses": losses}
    return Comparison(
        delta=interval.mean,
        low=interval.low,
        high=interval.high,
        p=p,
        sd=_sd(diff),
        alpha=alpha,
        **counts,
    )


def non_inferior(
    diff: np.ndarray,
    margin: float,
    alpha: float = 0.05,
    clusters: Sequence[Any] | np.ndarray | None = None,
    bounds: tuple[float, float] = DIFFERENCE,
) -> Guard:
    """Is the candidate no worse than `margin` below the baseline?  `diff` is candidate - baseline, (n,).

    pass: the one-sided lower 1 - alpha bound reaches -margin; fail: the one-sided upper bound lies
    below it (really worse); inconclusive otherwise.  The number of queries needed assumes that the
    true difference is the observed one where that is a loss, and none where it is a gain.
    """
    sample = _sample(diff, clusters, bounds)
    mean = float(np.mean(diff))
    low, high = lower_bound(sample, alpha), upper_bound(sample, alpha)
    needed = None
    status: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if low >= -margin:
        status = "pass"
    elif high < -margin:
        status = "fail"
    else:
        to_margin = margin + min(mean, 0.0)
        needed = queries_to_settle(diff, to_margin, alpha, bounds=bounds)
    return Guard(status, margin, mean, low, high, len(diff), needed)


def queries_to_settle(
    diff: np.ndarray,
    distance: float,
    alpha: float = 0.05,
    power: float = 0.8,
    bounds: tuple[float, float] = DIFFERENCE,
) -> int | None:
    """How many queries like the (n,) observed ones settle on which side of a threshold the mean lies.

    `distance` is how far the true mean is assumed to lie above the threshold (below it, where
    negative); `alpha` is the one-sided error rate.  The answer is the smallest number of queries of
    the same composition with which the bound used for decisions clears the threshold in `power` of
    all samples, and always more than there are.  None where no number would do.
    """
    # two decimals are enough for a number of queries, and much faster
    sample = _sample(np.round(_checked(diff), 2), None, bounds)
    if distance < 0.0:
        sample, distance = sample.mirrored(), -distance
    return _smallest(sample, _sd(diff), distance, (alpha, power), at_least=len(diff) + 1)


def queries_needed(
    sd: float, difference: float, alpha: float = 0.05, power: float = 0.8, sides: Literal[1, 2] = 2
) -> int | None:
    """Queries that show a true mean difference with `power`, before any was measured.

    `sd` is that of the paired differences, which lie in [-1, 1]; half of them are taken to be one
    sd above their mean and half one sd below.  None where no number would do.
    """
    return _smallest(_assumed(sd), sd, abs(difference), (alpha / sides, power), at_least=2)


def smallest_difference(
    n: int, sd: float = 0.25, alpha: float = 0.05, power: float = 0.8, sides: Literal[1, 2] = 2
) -> float:
    """The smallest true mean difference that `n` paired queries find; the inverse of `queries_needed`."""
    if n <= 0:
        return math.inf
    return _reach(_assumed(sd), sd, n, (alpha / sides, power))


def _assumed(sd: float) -> Sample:
    return sample_of(np.array([-sd, sd]), np.ones(2), *DIFFERENCE)


def _reach(sample: Sample, sd: float, n: float, rates: tuple[float, float]) -> float:
    """How far above a threshold the true mean must lie for the lower bound of n queries to clear it.

    `rates` are the one-sided error rate and the power.  The mean of n queries falls short of the
    true one by more than z_power * sd / sqrt(n) in 1 - power of all samples.
    """
    from scipy.stats import norm

    alpha, power = rates
    enlarged = sample.enlarged(n / float(sample.counts.sum()))
    chance = float(norm.ppf(power)) * sd / math.sqrt(n)
    return enlarged.mean - lower_bound(enlarged, alpha) + chance


def _smallest(
    sample: Sample, sd: float, distance: float, rates: tuple[float, float], at_least: int
) -> int | None:
    """The smallest n of at least `at_least`, to about 1 in 1,000, whose `_reach` is within the distance."""
    from scipy.optimize import brentq

    def excess(log_n: float) -> float:
        return _reach(sample, sd, math.exp(log_n), rates) - distance

    low = math.log(at_least)
    if excess(low) <= 0.0:
        return at_least
    high = low + 1.0
    while excess(high) > 0.0:
        low, high = high, high + 1.0
        if low > math.log(_MOST):
            return None
    return math.ceil(math.exp(brentq(excess, low, high, xtol=1e-3)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjustment (1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return ()
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return tuple(float(adjusted[rank]) for rank in np.argsort(order, kind="stable"))


def _sign_flip(diff: np.ndarray, rng: np.random.Generator, resamples: int) -> float:
    moved = diff[np.abs(diff) > _TIE]  # flipping a 0 changes nothing
    if not len(moved):
        return 1.0
    total = moved.sum()
    least = (
        abs(total) - 1e-12 * np.abs(moved).sum()
    )  # equal arrangements must count as equal despite rounding
    block = max(1, _BLOCK // len(moved))
    extreme = 0
    for start in range(0, resamples, block):
        flips = rng.integers(0, 2, size=(min(block, resamples - start), len(moved)), dtype=np.int8)
        extreme += int((np.abs(2.0 * (flips.astype(np.float64) @ moved) - total) >= least).sum())
    return (extreme + 1) / (resamples + 1)


def _checked(values: np.ndarray) -> np.ndarray:
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


def _sample(
    values: np.ndarray,
    clusters: Sequence[Any] | np.ndarray | None,
    bounds: tuple[float, float],
) -> Sample:
    values = _checked(values)
    least, most = bounds
    if values.min() < least - _TIE or values.max() > most + _TIE:
        raise DataError(
            f"per-query values lie between {values.min():g} and {values.max():g}, "
            f"outside the {least:g} to {most:g} that the measure allows",
            next_step="state the range of the measure (`bounds`); no interval holds without it",
        )
    sums, counts = _by_cluster(np.clip(values, least, most), clusters)
    return sample_of(sums, counts, least, most)


def _by_cluster(
    values: np.ndarray, clusters: Sequence[Any] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of each cluster; each value is its own where `clusters` is None."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(clusters)} clusters for {len(values)} values")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(member, weights=values), np.bincount(member).astype(np.float64)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
