"""How far one number per query moved: population stability, means and shares, with p values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

_NORMAL_95 = 1.96  # standard errors of half a 95% interval

Worse = Literal[1, -1]  # the direction that is worse: greater, or smaller


@dataclass(frozen=True, slots=True)
class Shift:
    """A sample against its reference.

    `size` is how far it moved, `p` the probability of that by chance, `value` the sample's own
    figure with its 95% interval `low` to `high`, and `before` that of the reference.
    """

    size: float
    p: float
    value: float
    low: float
    high: float
    before: float = 0.0

    def within(self, share: float, unmoved: float = 0.0) -> Shift:
        """The shift of a whole of which only this share moved, and the rest is `unmoved`."""

        def diluted(figure: float) -> float:
            return unmoved + (figure - unmoved) * share

        return replace(
            self,
            size=self.size * share,
            value=diluted(self.value),
            low=diluted(self.low),
            high=diluted(self.high),
            before=diluted(self.before),
        )


def psi(reference: np.ndarray, sample: np.ndarray, bins: int = 10) -> float:
    """Population stability index over the reference's deciles (Siddiqi 2006, *Credit Risk Scorecards*, ch. 9).

    Σ (b - a)·ln(b / a) over the shares of each bin, half a count added to each; from .1 on it is
    customarily called a moderate change, from .25 on a large one.
    """
    shares = np.linspace(0, 1, bins + 1)
    quantiles = np.quantile(reference, shares[1:-1])
    edges = np.unique(quantiles)
    before = _shares(reference, edges)
    now = _shares(sample, edges)
    terms = (now - before) * np.log(now / before)
    return float(np.sum(terms))


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values in each bin, half a count added to each."""
    bins = np.searchsorted(edges, values, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    smoothed = counts + 0.5
    return np.asarray(smoothed / smoothed.sum())


def score_shift(reference: np.ndarray, sample: np.ndarray) -> Shift:
    """PSI as the size, the two-sample Kolmogorov-Smirnov test as the p value.

    Value and interval are those of the mean.
    """
    from scipy.stats import ks_2samp

    mean = float(sample.mean())
    half = _NORMAL_95 * float(sample.std()) / len(sample) ** 0.5
    test = ks_2samp(reference, sample, method="asymp")
    return Shift(
        size=psi(reference, sample),
        p=float(test.pvalue),
        value=mean,
        low=mean - half,
        high=mean + half,
        before=float(reference.mean()),
    )


def mean_shift(before: Sequence[np.ndarray], now: np.ndarray, worse: Worse = 1) -> Shift:
    """Is a mean worse (greater, or smaller with -1) than in a reference, of which each part is a day?  One-sided.

    Shares (bool) are compared by Fisher's exact test, other values by Welch's.  Days differ more than
    chance says; that spread divides the number of observations (quasi-likelihood: McCullagh and
    Nelder 1989, §4.5).  The interval is Wilson's for shares, normal for means.
    """
    pooled = np.concatenate(list(before))
    dispersion = _dispersion(before, pooled)
    test = _share_test if now.dtype == bool else _mean_test
    return test(
        _Sample.of(pooled, dispersion),
        _Sample.of(now, dispersion),
        worse,
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """Mean and standard deviation of values, with the number of independent ones that they count as."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: np.ndarray, dispersion: float) -> _Sample:
        sd = 0.0
        if len(values) > 1:
            sd = float(values.std(ddof=1))
        n = max(1, round(len(values) / dispersion))
        return cls(float(values.mean()), sd, n)

    @property
    def hits(self) -> int:
        """Of shares: how many of the n are true."""
        return round(self.mean * self.n)


def _share_test(before: _Sample, now: _Sample, worse: Worse) -> Shift:
    from scipy.stats import binomtest, hypergeom

    null = hypergeom(before.n + now.n, before.hits + now.hits, now.n)
    p = null.cdf(now.hits)
    if worse > 0:
        p = null.sf(now.hits - 1)
    interval = binomtest(now.hits, now.n).proportion_ci(method="wilson")
    return Shift(
        size=(now.mean - before.mean) * worse,
        p=float(p),
        value=now.mean,
        low=float(interval.low),
        high=float(interval.high),
        before=before.mean,
    )


def _mean_test(before: _Sample, now: _Sample, worse: Worse) -> Shift:
    half = _NORMAL_95 * now.sd / now.n**0.5
    return Shift(
        size=(now.mean - before.mean) * worse,
        p=_welch(before, now, worse),
        value=now.mean,
        low=now.mean - half,
        high=now.mean + half,
        before=before.mean,
    )


def _welch(before: _Sample, now: _Sample, worse: Worse) -> float:
    """One-sided p of Welch's test; 0 or 1 where there is no spread to compare with."""
    from scipy.stats import ttest_ind_from_stats

    countable = min(before.n, now.n) > 1
    if not countable:
        return 1.0
    if before.sd == now.sd == 0:
        is_worse = (now.mean - before.mean) * worse > 0
        return 0.0 if is_worse else 1.0
    # Few values may not have shown their spread: ten queries that all score 0 are nothing unusual
    # where nine in ten always did.
    test: Any = ttest_ind_from_stats(
        mean1=now.mean,
        std1=max(before.sd, now.sd),
        nobs1=now.n,
        mean2=before.mean,
        std2=before.sd,
        nobs2=before.n,
        equal_var=False,
        alternative="greater" if worse > 0 else "less",
    )
    return float(test.pvalue)


def _dispersion(days: Sequence[np.ndarray], pooled: np.ndarray) -> float:
    """Pearson's χ² over its degrees of freedom, at least 1.

    It says how much more days differ than the number of their observations lets expect.
    """
    variance = float(pooled.var())
    if len(days) < 3 or not variance:
        return 1.0
    mean = pooled.mean()
    squares = sum(len(day) * (day.mean() - mean) ** 2 for day in days)
    degrees = len(days) - 1
    return max(1.0, float(squares) / variance / degrees)
