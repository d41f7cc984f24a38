"""Confidence bounds for the mean of bounded values that hold for every sample, however small.

A bootstrap sees only the spread that was observed.  Where most differences are 0, or where a rare
large loss has not happened yet, that spread is too small and the interval too short.  The bound
here also weighs what was not seen: one more observation at the worst value that is possible.

Gaffke (2005, *Three test statistics for a nonparametric one-sided hypothesis on the mean of a
nonnegative variable*) weighs the n observations and that worst value by a random division of 1
into n + 1 parts, uniform over all divisions (a Dirichlet distribution with parameters 1).  The
lower bound is the alpha quantile of the weighted mean.  For values of two kinds it is the bound of
Clopper and Pearson (1934).  That it holds for all independent bounded values was a conjecture for
twenty years and is proved in Vlassis and Thomas, *An exact distribution-free test for means of
nonnegative random variables* (arXiv:2607.08415, 2026).  See also Learned-Miller and Thomas, *A new
confidence interval for the mean of a bounded random variable* (arXiv:1905.06208, 2019).

The quantile is computed by numerical integration, not by drawing: a bound depends on the values
alone, neither on their order nor on a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

_STEP = 0.15  # of the trapezoidal rule; the error falls exponentially with 1 / step
_STEEPEST = 0.5  # of the path, so that it leaves the real axis also where the integrand is Gaussian
_REACH = 4.0  # sinh(4) is 27 standard deviations of the integrand; few observations need more
_PRECISION = 1e-7  # of a bound
_SMALLEST_P = 1e-300  # so that a p of 0 has a logarithm

Floats = np.ndarray  # one-dimensional, float64


@dataclass(frozen=True, slots=True)
class Sample:
    """Distinct observations, each the total of `sizes` values, with how often it was observed.

    Without clusters every size is 1 and a total is one value.  All three arrays are (k,) float64;
    `counts` need not be whole, which lets a sample stand for a larger one of the same composition.
    `least` and `most` are the smallest and largest value that is possible for a single query.
    """

    totals: Floats
    sizes: Floats
    counts: Floats
    least: float
    most: float

    @property
    def n(self) -> float:
        """Number of all values."""
        return float(self.counts @ self.sizes)

    @property
    def mean(self) -> float:
        """Mean of all values: the ratio of the sums of totals and sizes."""
        total = float(self.counts @ self.totals)
        return total / self.n

    @property
    def unseen_size(self) -> float:
        """Size of the observation that was not seen: that which a random value belongs to, on average.

        Large observations hold more of the values, so this lies above the mean size and below the
        largest.  With the mean size the bound fails more often than alpha where a rare loss is a
        cluster's; with the largest it is far too careful (`docs/statistics.md` has the figures).
        """
        return float(self.counts @ self.sizes**2) / self.n

    def mirrored(self) -> Sample:
        """The sample of the negated values: its lower bound is the negated upper bound."""
        return replace(
            self,
            totals=-self.totals,
            least=-self.most,
            most=-self.least,
        )

    def enlarged(self, factor: float) -> Sample:
        """The sample that the same observations would be if each came `factor` times as often."""
        return replace(self, counts=self.counts * factor)


def sample_of(totals: Floats, sizes: Floats, least: float, most: float) -> Sample:
    """The sample of (n,) totals over (n,) sizes; equal observations are counted once."""
    totals = np.round(totals, 12)  # equal but for rounding is equal
    rows, counts = np.unique(
        np.column_stack([totals, sizes]),
        axis=0,
        return_counts=True,
    )
    return Sample(
        totals=rows[:, 0],
        sizes=rows[:, 1],
        counts=counts.astype(np.float64),
        least=least,
        most=most,
    )


def lower_bound(sample: Sample, alpha: float) -> float:
    """One-sided lower 1 - alpha confidence bound for the mean.

    Clusters are the unit where there are some: the worst observation is then one more cluster, of
    `unseen_size`, with the worst value for all its queries.  With clusters of equal size this is
    exact; with others it is an approximation that simulations bear out, for clusters that are
    independent and whose expected value does not depend on their size.
    """
    mean = sample.mean
    floor = sample.least + _PRECISION
    if mean <= floor:
        return sample.least

    def excess(candidate: float) -> float:
        p = max(p_value(sample, candidate), _SMALLEST_P)
        return math.log(p / alpha)

    if excess(mean) <= 0.0:
        return mean
    # A bracket from the normal approximation, widened until the bound lies in it.
    step = _standard_error(sample)
    low = high = mean
    while low == mean or excess(low) > 0.0:
        if low == floor:
            return sample.least
        high = low
        low = max(mean - 2.0 * step, floor)
        step *= 2.0
    root = brentq(
        excess,
        low,
        high,
        xtol=_PRECISION,
        rtol=_PRECISION,
    )
    return float(root)


def _standard_error(sample: Sample) -> float:
    """About the standard error of the mean, with the unseen worst observation added."""
    mean = sample.mean
    deviations = sample.totals - mean * sample.sizes
    squares = deviations**2
    spread = math.sqrt(sample.counts @ squares)
    unseen = (mean - sample.least) * sample.unseen_size
    return (spread + unseen) / sample.n


def upper_bound(sample: Sample, alpha: float) -> float:
    """One-sided upper 1 - alpha confidence bound for the mean."""
    return -lower_bound(sample.mirrored(), alpha)


def p_value(sample: Sample, candidate: float) -> float:
    """One-sided p of the hypothesis that the true mean is at most `candidate`.

    The lower bound at alpha is the candidate whose p is alpha.  It is the probability that the
    randomly weighted mean lies below the candidate.  Dirichlet weights are independent exponential
    variables E divided by their sum, so this is the probability that the sum of E * gap is
    positive, where a gap is how far an observation lies below the candidate.
    """
    worst = (candidate - sample.least) * sample.unseen_size
    gaps = candidate * sample.sizes - sample.totals
    return _chance_positive(
        gaps=np.append(gaps, worst),
        counts=np.append(sample.counts, 1.0),
    )


def _chance_positive(gaps: Floats, counts: Floats) -> float:
    """P(sum of gaps * G > 0) for independent Gamma(counts) variables G; the largest gap is > 0.

    The moment generating function of the sum is the product of (1 - gap s)^-count, and the
    probability is the integral of that function over 2 pi i s, from below to above the real axis
    between 0 and the first pole (the inverse Laplace transform).  The path is a hyperbola that
    leaves the saddlepoint along the steepest descent (Daniels, *Saddlepoint approximations in
    statistics*, 1954); on it the trapezoidal rule is exact to many digits (Trefethen and Weideman,
    *The exponentially convergent trapezoidal rule*, SIAM Review 2014).
    """
    saddle = _saddlepoint(gaps, counts)
    width, bend = _shape_of_path(saddle, gaps, counts)
    end = _REACH
    end += 30.0 / float(counts.sum())
    steps = np.arange(0.0, end, _STEP)
    cosh = np.cosh(steps)
    sinh = np.sinh(steps)
    offset = bend * (cosh - 1.0) + 1j * sinh
    slope = bend * sinh + 1j * cosh
    path = saddle + width * offset
    slope = width * slope
    mgf = _moments(path, gaps, counts)
    values = (mgf / path * slope).imag
    trapezoids = values.sum() - 0.5 * values[0]
    return float(_STEP * trapezoids / math.pi)


def _shape_of_path(saddle: float, gaps: Floats, counts: Floats) -> tuple[float, float]:
    """Width and bend of the hyperbola, from the second and third derivative at the saddlepoint."""
    ratio = gaps / (1.0 - gaps * saddle)
    curvature = float(counts @ ratio**2)
    curvature += saddle**-2
    skewness = 2.0 * float(counts @ ratio**3)
    skewness -= 2.0 * saddle**-3
    width = curvature**-0.5
    bend = skewness * width
    bend /= 3.0 * curvature
    bend = float(np.clip(bend, -_STEEPEST, _STEEPEST))
    return width, bend


def _moments(points: np.ndarray, gaps: Floats, counts: Floats) -> np.ndarray:
    """The moment generating function at (n,) complex points, (n,) complex."""
    real = 1.0 - np.outer(points.real, gaps)
    imaginary = np.outer(points.imag, gaps)
    squares = real**2 + imaginary**2
    log_size = 0.5 * (np.log(squares) @ counts)
    angle = np.arctan2(imaginary, real) @ counts
    return np.asarray(np.exp(-log_size + 1j * angle))


def _saddlepoint(gaps: Floats, counts: Floats) -> float:
    """Where the integrand is smallest on the real axis, between 0 and the first pole."""
    pole = 1.0 / float(gaps.max())

    def slope(share: float) -> float:
        s = share * pole
        ratio = gaps / (1.0 - gaps * s)
        return float(counts @ ratio) - 1.0 / s

    edge = 1e-12
    share = brentq(
        slope,
        edge,
        1.0 - edge,
        xtol=1e-6,
        rtol=1e-6,
    )
    return pole * float(share)
