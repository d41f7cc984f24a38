"""What more data would add: the same training on 25, 50, 75 and 100% of the queries.

The subsets are nested and every model is judged on all of dev, query by query.  The measure is taken
to grow with the logarithm of the data, which holds over one doubling better than over many: that is
as far as is extrapolated.  The interval is that of the dev queries; how much another seed would
change is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.measure.significance import mean_interval
from nearer.training.examples import TrainingSet

#: Shares of the training queries; the last is the training itself.
SHARES = (0.25, 0.5, 0.75, 1.0)
#: Fields of a training set that go by row.
_BY_ROW = (
    "rows",
    "scores",
    "weights",
    "grades",
    "teacher_scores",
    "symmetric",
    "part_of",
)
#: Fewest training queries of the smallest subset: fewer teach nothing that could be extrapolated.
FEWEST_QUERIES = 8


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Dev by the amount of training data, and what twice the data would add."""

    measure: str
    queries: tuple[int, ...]  # training queries of each point
    values: tuple[float, ...]  # dev of each point
    doubling: float  # what twice the data would add
    low: float
    high: float

    @property
    def sentence(self) -> str:
        return (
            f"twice the data would add about {self.doubling:+.3f} {self.measure} on dev "
            f"({self.low:+.3f} to {self.high:+.3f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """`train/learning_curve.json`."""
        points = []
        for queries, value in zip(self.queries, self.values, strict=True):
            points.append({"queries": queries, self.measure: round(value, 6)})
        return {
            "measure": self.measure,
            "points": points,
            "doubling": round(self.doubling, 6),
            "interval": [round(self.low, 6), round(self.high, 6)],
            "sentence": self.sentence,
        }


def subset(rows: TrainingSet, share: float, seed: int) -> TrainingSet:
    """The rows of a share of the training queries; a larger share holds all of a smaller one."""
    trained = sorted({query for query, _, _ in rows.rows})
    order = np.random.default_rng([seed, len(trained)]).permutation(len(trained))
    kept = {trained[position] for position in order[: round(share * len(trained))]}
    positions = [row for row, (query, _, _) in enumerate(rows.rows) if query in kept]
    changes: dict[str, Any] = {}
    for field in fields(rows):
        values = getattr(rows, field.name)
        if field.name in _BY_ROW and values:
            changes[field.name] = tuple(values[position] for position in positions)
    return replace(rows, **changes)


def worth_drawing(rows: TrainingSet) -> bool:
    """Whether the smallest subset has enough queries to learn from."""
    queries = {query for query, _, _ in rows.rows}
    return len(queries) * SHARES[0] >= FEWEST_QUERIES


def draw(
    rows: TrainingSet,
    seed: int,
    train: Callable[[TrainingSet, str], np.ndarray],
    whole: np.ndarray,
    measure: str,
) -> LearningCurve:
    """Train on each subset and fit the curve.

    `train(subset, name)` gives `measure` per dev query, float (n_queries,); `whole` is that of the
    training on all rows.
    """
    queries, columns = [], []
    for share in SHARES:
        chosen = rows if share == 1.0 else subset(rows, share, seed)
        queries.append(len({query for query, _, _ in chosen.rows}))
        if share == 1.0:
            columns.append(whole)
            continue
        progress.info(f"learning curve: training on {share:.0%} of the training queries")
        columns.append(train(chosen, f"curve-{share:.0%}".rstrip("%")))
    return fit_curve(queries, columns, measure)


def fit_curve(queries: Sequence[int], columns: Sequence[np.ndarray], measure: str) -> LearningCurve:
    """Least squares of each dev query's measure on the logarithm of the number of training queries.

    The mean of the slopes is the slope of the mean, and their spread over the queries its
    uncertainty: dev queries are paired across the points.
    """
    doublings = np.log2(np.asarray(queries, np.float64))
    centred = doublings - doublings.mean()
    weights = centred / np.sum(centred**2)
    slopes = np.sum([w * column for w, column in zip(weights, columns, strict=True)], axis=0)
    steepest = float(np.abs(weights).sum())
    interval = mean_interval(slopes, bounds=(-steepest, steepest))
    return LearningCurve(
        measure,
        tuple(queries),
        tuple(float(np.mean(column)) for column in columns),
        interval.mean,
        interval.low,
        interval.high,
    )
