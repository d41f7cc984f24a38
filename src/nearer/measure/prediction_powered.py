"""The mean of what people would say, from few people and many predictions of theirs.

Predictions (grades of a language model, estimates from a part of the judgments) are cheap and
biased.  Where people judged too, the bias can be seen; it is taken off everywhere.  This is
prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan, Zrnic, Science 382, 2023), with
the tuning of PPI++ (Angelopoulos, Duchi, Zrnic, arXiv:2311.01453): predictions that say little are
used little, so that the result is hardly worse than people alone.

What is assumed: the items that people judged are drawn at random from the same population as the
others.  Nothing is assumed of the predictions.

Items of one group (documents of one query) are alike: a hundred of them say less than a hundred items
of a hundred groups.  Where groups are named, the variance is that of whole groups (Liang and Zeger,
Biometrika 1986), and the interval takes t with the number of groups less one.
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

    `power` in [0, 1] is how far the predictions were used, 0 not at all.  `n_groups` are the groups
    that people's items fall into, as many as items where none are named.
    """

    corrected: Estimate
    people: Estimate
    predictions: float
    n_people: int
    n_predictions: int
    n_groups: int
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
    n_groups: int  # groups that people's items fall into


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of each item by people, int (n,), and of each other item, int (N,); one numbering."""

    people: np.ndarray
    others: np.ndarray

    @classmethod
    def alone(cls, n_people: int, n_others: int) -> Groups:
        """Every item is a group of its own."""
        return cls(np.arange(n_people), n_people + np.arange(n_others))


def prediction_powered_mean(
    people: np.ndarray,
    predicted: np.ndarray,
    others: np.ndarray,
    *,
    groups: Groups | None = None,
    alpha: float = 0.05,
    unit: float = 1.0,
) -> PredictionPowered:
    """The mean over all items of what people would say.

    `people` are (n,) float64 values by people, `predicted` (n,) predictions of the same items in
    the same order, `others` (N,) predictions of items that nobody judged.  `groups` says which items
    are alike (None: all are independent).  The interval takes Student's t with g - 1 degrees of
    freedom, g being the groups with items by people; where no residual differs from another, it is
    as wide as g groups without a fault allow, a fault being one `unit`.  Raises ValueError for items
    by people of fewer than two groups, or other shapes.
    """
    people, predicted, others = (
        np.asarray(values, dtype=np.float64) for values in (people, predicted, others)
    )
    if people.shape != predicted.shape or people.ndim != 1 or len(people) < 2:
        raise ValueError(f"{people.shape} by people and {predicted.shape} predictions of the same")
    groups = groups or Groups.alone(len(people), len(others))
    if groups.people.shape != people.shape or groups.others.shape != others.shape:
        raise ValueError("every item needs one group")
    if len(np.unique(groups.people)) < 2:
        raise ValueError("all items by people are of one group: nothing is known of others")
    power = 0.0  # other items of one group alone do not say how groups differ
    if len(np.unique(groups.others)) > 1:
        power = tuned_power(people, predicted, others)
    with_predictions = combined(people, predicted, others, power, groups)
    alone = combined(people, predicted, others, 0.0, groups)
    return PredictionPowered(
        corrected=interval_of(with_predictions, alpha, unit),
        people=interval_of(alone, alpha, unit),
        predictions=float(np.concatenate([predicted, others]).mean()),
        n_people=len(people),
        n_predictions=len(others),
        n_groups=alone.n_groups,
        power=power,
    )


def tuned_power(people: np.ndarray, predicted: np.ndarray, others: np.ndarray) -> float:
    """The power in [0, 1] with the least variance for independent items (PPI++, equation 5, for a mean).

    The interval holds at any power.  One tuned to groups would be chosen from few numbers.
    """
    n, more = len(people), len(others)
    spread = float(np.concatenate([predicted, others]).var(ddof=1))
    if more < 2 or spread <= 0.0:
        return 0.0
    shared = float(np.cov(people, predicted, ddof=1)[0, 1])
    return min(1.0, max(0.0, shared / ((1.0 + n / more) * spread)))


def combined(
    people: np.ndarray,
    predicted: np.ndarray,
    others: np.ndarray,
    power: float,
    groups: Groups | None = None,
) -> Combined:
    """The mean of `others`, corrected by what people and predictions differ by, at a power."""
    groups = groups or Groups.alone(len(people), len(others))
    residuals = people - power * predicted
    mean = float(residuals.mean())
    pulls = [_pulls(residuals, groups.people)]
    labels = [groups.people]
    if power > 0.0:
        mean += power * float(others.mean())
        pulls.append(power * _pulls(others, groups.others))
        labels.append(groups.others)
    # A group may hold items by people and others: what pulls the mean apart is their sum.
    _, group_of = np.unique(np.concatenate(labels), return_inverse=True)
    by_group = np.bincount(group_of, np.concatenate(pulls))
    variance = float((by_group**2).sum())
    return Combined(mean, variance, power, residuals, len(np.unique(groups.people)))


def _pulls(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far each value pulls the mean from where it is, corrected for so many groups (two or more).

    Where each value is a group of its own, the squares sum to the variance of the mean.
    """
    n_groups = len(np.unique(labels))
    correction = math.sqrt(n_groups / (n_groups - 1.0))
    pulls: np.ndarray = correction * (values - values.mean()) / len(values)
    return pulls


def interval_of(value: Combined, alpha: float, unit: float) -> Estimate:
    """The two-sided 1 - alpha interval of a mean."""
    from scipy.stats import t

    half = float(t.ppf(1.0 - alpha / 2.0, value.n_groups - 1)) * math.sqrt(value.variance)
    if float(np.ptp(value.residuals)) == 0.0:
        half = max(half, _RULE_OF_THREE * unit / value.n_groups)
    return Estimate(value.mean, value.mean - half, value.mean + half)
