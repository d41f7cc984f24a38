"""How far reviewers agree, with intervals, and who agrees no more than chance would.

Cohen's kappa (weighted by the square of the difference, as grades are ordered) comes from
scikit-learn, Krippendorff's alpha for ordinal data from `krippendorff`.  Intervals are percentiles
of the bootstrap over pairs; the kappas of all resamples are computed at once, by the same formula.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nearer.review.judgments import GRADES, Judgments

_RESAMPLES = 1000
_ALPHA_RESAMPLES = 200  # the library takes one table at a time
_ALPHA = 0.05
#: Fewer shared pairs than that say nothing about a reviewer.
MIN_SHARED = 10


@dataclass(frozen=True, slots=True)
class Coefficient:
    """An agreement of 1 is perfect, of 0 is chance.  `value` is None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # pairs that two or more people graded

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None:
            return f"not defined on {self.n} shared pairs"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, {self.n} shared pairs)"


@dataclass(frozen=True, slots=True)
class Agreement:
    """`kappa` of each two reviewers, `alpha` of all; `below_chance` names those to talk to.

    A reviewer is named there when the whole interval of the agreement with the others (`against`)
    does not reach above 0.  Nothing that they judged is dropped.
    """

    alpha: Coefficient
    kappa: Mapping[tuple[str, str], Coefficient]
    against: Mapping[str, Coefficient]
    below_chance: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `review/summary.json`."""
        kappa = []
        for (first, second), value in self.kappa.items():
            kappa.append({"reviewers": [first, second], **value.as_dict()})
        return {
            "alpha": self.alpha.as_dict(),
            "kappa": kappa,
            "against_others": {name: value.as_dict() for name, value in self.against.items()},
            "below_chance": list(self.below_chance),
        }


def agreement(judgments: Judgments, rng: np.random.Generator) -> Agreement:
    """How far all who judged agree."""
    table = _table(judgments)
    names = sorted({name for grades in table for name in grades})
    kappa = {}
    for first, second in combinations(names, 2):
        shared = _shared(table, first, second)
        if len(shared):
            kappa[first, second] = kappa_of(shared, rng)
    against = {}
    for name in names:
        shared = _against(table, name)
        if len(shared):
            against[name] = kappa_of(shared, rng)
    below = []
    for name, value in against.items():
        if value.n >= MIN_SHARED and value.high is not None and value.high <= 0.0:
            below.append(name)
    return Agreement(_alpha_of(table, names, rng), kappa, against, tuple(below))


def cohen_kappa(pairs: np.ndarray) -> float:
    """Quadratically weighted kappa of (n, 2) grades; NaN where both always give the same one grade."""
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of division by 0, which NaN says
        value = cohen_kappa_score(pairs[:, 0], pairs[:, 1], labels=GRADES, weights="quadratic")
    return float(value)


def krippendorff_alpha(table: np.ndarray) -> float:
    """Ordinal alpha of (n_pairs, n_reviewers) grades, NaN where somebody gave none.

    NaN where all grades are the same: then there is nothing to agree on.
    """
    import krippendorff

    given = table[~np.isnan(table)]
    if not len(given) or len(np.unique(given)) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = krippendorff.alpha(
            reliability_data=table.T,
            level_of_measurement="ordinal",
            value_domain=list(GRADES),
        )
    return float(value)


def _table(judgments: Judgments) -> list[dict[str, int]]:
    """The grades of every pair that two or more people graded."""
    rows = []
    for subject in sorted(judgments.by_subject):
        grades = judgments.grades(subject)
        if len(grades) > 1:
            rows.append(grades)
    return rows


def _shared(table: Sequence[Mapping[str, int]], first: str, second: str) -> np.ndarray:
    pairs = [(row[first], row[second]) for row in table if first in row and second in row]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _against(table: Sequence[Mapping[str, int]], name: str) -> np.ndarray:
    """The grades of one reviewer beside the lower median of the others."""
    pairs = []
    for row in table:
        others = sorted(grade for other, grade in row.items() if other != name)
        if name in row and others:
            pairs.append((row[name], others[(len(others) - 1) // 2]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def kappa_of(pairs: np.ndarray, rng: np.random.Generator) -> Coefficient:
    """Quadratically weighted kappa of (n, 2) grades, with a bootstrap interval over the pairs."""
    value = cohen_kappa(pairs)
    cells = pairs[:, 0] * len(GRADES) + pairs[:, 1]
    observed = np.bincount(cells, minlength=len(GRADES) ** 2)
    counts = rng.multinomial(len(pairs), observed / len(pairs), _RESAMPLES)
    drawn = kappas(counts.reshape(-1, len(GRADES), len(GRADES)))
    return _coefficient(value, drawn, len(pairs))


def kappas(tables: np.ndarray) -> np.ndarray:
    """Quadratically weighted kappa of each of (n, 4, 4) tables of counts; NaN where it is not defined."""
    grades = np.array(GRADES, dtype=np.float64)
    apart = (grades[:, None] - grades[None, :]) ** 2
    total = tables.sum(axis=(1, 2))
    expected = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    by_chance = (expected * apart).sum(axis=(1, 2)) / total
    differing = (tables * apart).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = 1.0 - differing / by_chance
    return np.where(by_chance > 0.0, values, np.nan)


def _alpha_of(
    table: Sequence[Mapping[str, int]], names: Sequence[str], rng: np.random.Generator
) -> Coefficient:
    grades = np.full((len(table), len(names)), np.nan)
    for row, given in enumerate(table):
        for column, name in enumerate(names):
            grades[row, column] = given.get(name, np.nan)
    n = len(grades)
    value = krippendorff_alpha(grades) if n else math.nan
    drawn: list[float] = []
    if not math.isnan(value):
        for _ in range(_ALPHA_RESAMPLES):
            drawn.append(krippendorff_alpha(grades[rng.integers(0, n, n)]))
    return _coefficient(value, np.array(drawn), n)


def _coefficient(value: float, drawn: np.ndarray, n: int) -> Coefficient:
    """A value with its percentile interval; resamples where it is not defined are left out."""
    if math.isnan(value):
        return Coefficient(None, None, None, n)
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        defined = np.array([value])
    low, high = np.quantile(defined, [_ALPHA / 2, 1 - _ALPHA / 2])
    return Coefficient(value, float(min(low, value)), float(max(high, value)), n)
