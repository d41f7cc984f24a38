"""The mean of what people would say, from few people and many predictions of theirs.

Predictions (grades of a language model, estimates from a part of the judgments) are cheap and
biased.  Where people judged too, the bias can be seen; it is taken off everywhere.  This is
prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan, Zrnic, Science 382, 2023), with
the tuning of PPI++ (Angelopoulos, Duchi, Zrnic, arXiv:2311.01453): predictions that say little are
used little, so that the result is hardly worse than people alone.

What is assumed: the items that people judged are drawn at random from the same population as the
others.  Nothing is assumed of the predictions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: Failures that are still compatible with none among n (95%): Hanley and Lippman-Hand, JAMA 1983.
_RULE_OF_THREE = 3.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its two-sided 1 - alpha interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class PredictionPowered:
    """`corrected` is the result; the means of people and of predictions alone stand beside it.

    `power` in [0, 1] is how far the predictions were used, 0 not at all.
    """

    corrected: Estimate
    people: Estimate
    predictions: float
    n_people: int
    n_predictions: int
    power: float

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["corrected"] = self.corrected.as_dict()
        values["people"] = self.people.as_dict()
        return values


@dataclass(frozen=True, slots=True)
class Combined:
    """A mean and the variance of that mean, with `power` of the predictions."""

    mean: float
    variance: float
    power: float
    residuals: np.ndarray  # (n,) what people said, less what was predicted of it


def prediction_powered_mean(
    people: np.ndarray,
    predicted: np.ndarray,
    others: np.ndarray,
    *,
    alpha: float = 0.05,
    unit: float = 1.0,
) -> PredictionPowered:
    """The mean over all items of what people would say.

    `people` are (n,) float64 values by people, `predicted` (n,) predictions of the same items in
    the same order, `others` (N,) predictions of items that nobody judged.  The interval takes
    Student's t with n - 1 degrees of freedom; where no residual differs from another, it is as wide
    as n items without a fault allow, a fault being one `unit`.  Raises ValueError for fewer than two
    items by people, or other shapes.
    """
    people, predicted, others = (
        np.asarray(values, dtype=np.float64) for values in (people, predicted, others)
    )
    if people.shape != predicted.shape or people.ndim != 1 or len(people) < 2:
        raise ValueError(f"{people.shape} by people and {predicted.shape} predictions of the same")
    power = tuned_power(people, predicted, others)
    with_predictions = combined(people, predicted, others, power)
    alone = combined(people, predicted, others, 0.0)
    return PredictionPowered(
        corrected=interval_of(with_predictions, alpha, unit),
        people=interval_of(alone, alpha, unit),
        predictions=float(np.concatenate([predicted, others]).mean()),
        n_people=len(people),
        n_predictions=len(others),
        power=power,
    )


def tuned_power(people: np.ndarray, predicted: np.ndarray, others: np.ndarray) -> float:
    """The power in [0, 1] with the least variance (PPI++, equation 5, for a mean)."""
    n, more = len(people), len(others)
    spread = float(np.concatenate([predicted, others]).var(ddof=1))
    if more < 2 or spread <= 0.0:
        return 0.0
    shared = float(np.cov(people, predicted, ddof=1)[0, 1])
    return min(1.0, max(0.0, shared / ((1.0 + n / more) * spread)))


def combined(
    people: np.ndarray, predicted: np.ndarray, others: np.ndarray, power: float
) -> Combined:
    """The mean of `others`, corrected by what people and predictions differ by, at a power."""
    residuals = people - power * predicted
    mean = float(residuals.mean())
    variance = float(residuals.var(ddof=1)) / len(residuals)
    if power > 0.0:
        mean += power * float(others.mean())
        variance += power**2 * float(others.var(ddof=1)) / len(others)
    return Combined(mean, variance, power, residuals)


def interval_of(value: Combined, alpha: float, unit: float) -> Estimate:
    """The two-sided 1 - alpha interval of a mean."""
    from scipy.stats import t

    n = len(value.residuals)
    half = float(t.ppf(1.0 - alpha / 2.0, n - 1)) * math.sqrt(value.variance)
    if float(np.ptp(value.residuals)) == 0.0:
        half = max(half, _RULE_OF_THREE * unit / n)
    return Estimate(value.mean, value.mean - half, value.mean + half)
