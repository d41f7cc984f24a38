"""How far reviewers agree, with intervals, and who agrees no more than chance would.

Cohen's kappa (weighted by the square of the difference, as grades are ordered) comes from
scikit-learn, Krippendorff's alpha for ordinal data from `krippendorff`.  Intervals are percentiles
of the bootstrap over queries, as the pairs of one query are alike (Field and Welsh, JRSS B 2007);
the kappas of all resamples are computed at once, by the same formula.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nearer.review.judgments import GRADES, Judgments, Subject

_Table = Mapping[Subject, Mapping[str, int]]

_RESAMPLES = 1000
_ALPHA_RESAMPLES = 200  # the library takes one table at a time
_ALPHA = 0.05
#: Fewer shared pairs than that say nothing about a reviewer.
MIN_SHARED = 10


@dataclass(frozen=True, slots=True)
class Coefficient:
    """An agreement of 1 is perfect, of 0 is chance.  `value` is None where it is not defined.

    With pairs of one query alone the interval is all from -1 to 1: nothing is known of others.
    """

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
    names = sorted({name for grades in table.values() for name in grades})
    kappa = {}
    for first, second in combinations(names, 2):
        shared, queries = _shared(table, first, second)
        if len(shared):
            kappa[first, second] = kappa_of(shared, queries, rng)
    against = {}
    for name in names:
        shared, queries = _against(table, name)
        if len(shared):
            against[name] = kappa_of(shared, queries, rng)
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


def _table(judgments: Judgments) -> dict[Subject, dict[str, int]]:
    """The grades of every pair that two or more people graded."""
    table = {}
    for subject in sorted(judgments.by_subject):
        grades = judgments.grades(subject)
        if len(grades) > 1:
            table[subject] = grades
    return table


def _shared(table: _Table, first: str, second: str) -> tuple[np.ndarray, list[str]]:
    """The grades of two reviewers, (n, 2), and the query of each pair."""
    pairs, queries = [], []
    for (query_id, _), row in table.items():
        if first in row and second in row:
            pairs.append((row[first], row[second]))
            queries.append(query_id)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), queries


def _against(table: _Table, name: str) -> tuple[np.ndarray, list[str]]:
    """The grades of one reviewer beside the lower median of the others, and the query of each pair."""
    pairs, queries = [], []
    for (query_id, _), row in table.items():
        others = sorted(grade for other, grade in row.items() if other != name)
        if name in row and others:
            pairs.append((row[name], others[(len(others) - 1) // 2]))
            queries.append(query_id)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), queries


def kappa_of(pairs: np.ndarray, queries: Sequence[str], rng: np.random.Generator) -> Coefficient:
    """Quadratically weighted kappa of (n, 2) grades, with a bootstrap interval over their queries."""
    value = cohen_kappa(pairs)
    names, query_of = np.unique(np.array(queries), return_inverse=True)
    n = len(names)
    by_query = np.zeros((n, len(GRADES) ** 2), dtype=np.int64)
    np.add.at(by_query, (query_of, pairs[:, 0] * len(GRADES) + pairs[:, 1]), 1)
    counts = rng.multinomial(n, np.full(n, 1.0 / n), _RESAMPLES) @ by_query
    drawn = kappas(counts.reshape(-1, len(GRADES), len(GRADES)))
    return _coefficient(value, drawn, len(pairs), n)


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


def _alpha_of(table: _Table, names: Sequence[str], rng: np.random.Generator) -> Coefficient:
    grades = np.full((len(table), len(names)), np.nan)
    rows_of: dict[str, list[int]] = {}
    for row, ((query_id, _), given) in enumerate(table.items()):
        rows_of.setdefault(query_id, []).append(row)
        for column, name in enumerate(names):
            grades[row, column] = given.get(name, np.nan)
    value = krippendorff_alpha(grades) if len(grades) else math.nan
    drawn: list[float] = []
    if not math.isnan(value):
        by_query = list(rows_of.values())
        for _ in range(_ALPHA_RESAMPLES):
            queries = rng.integers(0, len(by_query), len(by_query))
            rows = np.concatenate([by_query[query] for query in queries])
            drawn.append(krippendorff_alpha(grades[rows]))
    return _coefficient(value, np.array(drawn), len(grades), len(rows_of))


def _coefficient(value: float, drawn: np.ndarray, n: int, n_queries: int) -> Coefficient:
    """A value with its percentile interval; resamples where it is not defined are left out."""
    if math.isnan(value):
        return Coefficient(None, None, None, n)
    if n_queries < 2:
        return Coefficient(value, -1.0, 1.0, n)
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        defined = np.array([value])
    low, high = np.quantile(defined, [_ALPHA / 2, 1 - _ALPHA / 2])
    return Coefficient(value, float(min(low, value)), float(max(high, value)), n)
