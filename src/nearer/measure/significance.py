"""Is a difference real, is it worth having, and how many queries would it take to know?

The unit is the query, always paired.  Intervals come from the BCa bootstrap (Efron 1987, as in
`scipy.stats.bootstrap`), p values from a sign-flip randomisation (Fisher's test; Smucker, Allan
and Carterette, CIKM 2007), with the observed arrangement counted once: (k+1)/(B+1) (Phipson and
Smyth 2010).  Everything random comes from the generator that is handed in.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nearer.errors import DataError
from nearer.types import Interval

RESAMPLES = 10_000
#: below this many queries no guardrail passes or fails: the bootstrap cannot see enough spread
MIN_QUERIES = 10
_BLOCK = 4_000_000  # numbers drawn at once, which bounds memory to about 100 MB
_TIE = 1e-9  # differences below this are rounding


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline over the same queries."""

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

    def as_dict(self) -> dict[str, Any]:
        """Keys of `comparisons` in `decision.json`."""
        return {"delta": self.delta, "ci": [self.low, self.high]} | {
            key: getattr(self, key) for key in ("p", "n", "wins", "ties", "losses", "sd")
        }

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
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    clusters: Sequence[Any] | np.ndarray | None = None,
) -> Interval:
    """Mean of (n,) values with its two-sided 1 - alpha BCa interval.

    `clusters` names what each query belongs to (a user, a template, a shared document); whole
    clusters are then resampled and the mean is the ratio of their sums (Davison and Hinkley 1997,
    §3.8).  Constant values give an interval of width 0; with a single query or cluster nothing is
    known about spread, and the interval is the range of the values.
    Raises DataError when there are no values or one is not finite.
    """
    from scipy.stats import bootstrap

    values = _checked(values)
    mean = float(values.mean())
    sums, counts = _by_cluster(values, clusters)
    if np.ptp(values) == 0.0 or len(sums) < 2:
        return Interval(mean, float(values.min()), float(values.max()))
    data, statistic = ((values,), np.mean) if clusters is None else ((sums, counts), _ratio)
    options: dict[str, Any] = {
        "n_resamples": resamples,
        "batch": max(1, _BLOCK // len(sums)),
        "confidence_level": 1.0 - alpha,
    }
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # scipy warns where BCa is undefined; that case is handled below
        result = bootstrap(
            data,
            statistic,
            paired=clusters is not None,
            vectorized=True,
            method="BCa",
            rng=rng,
            **options,
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if not (
        math.isfinite(low) and math.isfinite(high)
    ):  # every resample fell on one side: no bias correction exists
        low, high = (
            float(q) for q in np.quantile(result.bootstrap_distribution, [alpha / 2, 1 - alpha / 2])
        )
    return Interval(mean, low, high)


def compare(
    baseline: np.ndarray,
    candidate: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    clusters: Sequence[Any] | np.ndarray | None = None,
) -> Comparison:
    """Paired comparison of two (n,) columns over the same queries in the same order.

    p is two-sided: the share of random sign flips of the differences (of whole clusters, where
    given) whose mean is at least as far from 0 as the observed one, (k+1)/(B+1).
    Raises ValueError for different shapes, DataError as `mean_interval` does.
    """
    if np.shape(baseline) != np.shape(candidate):
        raise ValueError(
            f"baseline has shape {np.shape(baseline)}, candidate {np.shape(candidate)}"
        )
    diff = _checked(
        np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    )
    interval = mean_interval(diff, rng, resamples, alpha, clusters)
    wins, losses = int((diff > _TIE).sum()), int((diff < -_TIE).sum())
    p = _sign_flip(_by_cluster(diff, clusters)[0], rng, resamples)
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
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
) -> Guard:
    """Is the candidate no worse than `margin` below the baseline?  `diff` is candidate - baseline, (n,).

    pass: the one-sided lower bound reaches -margin; fail: the one-sided upper bound lies below it
    (really worse); inconclusive otherwise, and always below `MIN_QUERIES` queries.  The number of
    queries needed comes from the observed spread, on the assumption that the true difference is
    the observed one where that is a loss, and none where it is a gain.
    """
    diff = _checked(diff)
    interval = mean_interval(
        diff, rng, resamples, 2 * alpha
    )  # its ends are the two one-sided bounds
    n, needed, distance = len(diff), None, abs(margin + min(interval.mean, 0.0))
    status: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if n >= MIN_QUERIES and interval.low >= -margin:
        status = "pass"
    elif n >= MIN_QUERIES and interval.high < -margin:
        status = "fail"
    elif distance > _TIE:
        needed = max(queries_needed(_sd(diff), distance, alpha, sides=1), n + 1, MIN_QUERIES)
    return Guard(status, margin, interval.mean, interval.low, interval.high, n, needed)


def queries_needed(
    sd: float, difference: float, alpha: float = 0.05, power: float = 0.8, sides: Literal[1, 2] = 2
) -> int:
    """Queries for a paired test to find a true mean difference: ((z₁₋ₐ + z_power)·sd / difference)².

    `sd` is that of the paired differences; normal approximation (Cohen 1988, §2; Sakai,
    *Laboratory Experiments in Information Retrieval*, 2018, ch. 6).
    """
    if difference == 0:
        raise ValueError("no number of queries finds a difference of 0")
    return max(2, math.ceil((_z(alpha, power, sides) * sd / difference) ** 2 - 1e-9))


def smallest_difference(
    n: int, sd: float = 0.25, alpha: float = 0.05, power: float = 0.8, sides: Literal[1, 2] = 2
) -> float:
    """The smallest true mean difference that `n` paired queries find; the inverse of `queries_needed`."""
    return _z(alpha, power, sides) * sd / math.sqrt(n) if n > 0 else math.inf


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


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> Any:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _z(alpha: float, power: float, sides: int) -> float:
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / sides) + norm.ppf(power))
