"""Two rankings made into one: by ranks (RRF), or by a convex combination of scores tuned on dev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nearer.errors import NO_DEV, DataError
from nearer.measure.metrics import score
from nearer.search.base import Retriever
from nearer.types import Hit, Query, Run, Split, rank_hits

DEPTH = 100
WEIGHTS: tuple[float, ...] = tuple(step / 20 for step in range(21))


def fuse(first: Run, second: Run, weight: float | None, rrf_k: int, depth: int) -> Run:
    """The convex combination with `weight` on the second run, or RRF where there is none."""
    if weight is None:
        return rrf((first, second), rrf_k, depth)
    return convex(first, second, weight, depth)


def rrf(runs: Sequence[Run], k: int = 60, depth: int = DEPTH) -> Run:
    """Reciprocal rank fusion: Σ 1 / (k + rank) over the first `depth` hits of each run.

    Cormack, Clarke and Büttcher, SIGIR 2009.  Returns at most `depth` hits per query.
    """
    results: dict[str, list[Hit]] = {}
    for query_id in _queries(runs):
        fused: dict[str, float] = {}
        for run in runs:
            hits = run.results.get(query_id, ())[:depth]
            for rank, (doc_id, _) in enumerate(hits, start=1):
                fused.setdefault(doc_id, 0.0)
                fused[doc_id] += 1.0 / (k + rank)
        results[query_id] = rank_hits(fused.items(), depth)
    return Run("rrf", results, sum(run.seconds for run in runs))


def convex(a: Run, b: Run, weight: float, depth: int = DEPTH) -> Run:
    """(1 - weight)·a + weight·b on scores brought to 0..1 per query and list (min-max).

    So 0 ranks by `a` alone, 1 by `b` alone.  A document missing from a list counts as that list's
    last one (0); where all scores of a list are equal they count 1.  Bruch, Gai and Ingber, *An
    Analysis of Fusion Functions for Hybrid Retrieval*, TOIS 2023, §3.  At most `depth` hits per query.
    """
    return _Pairs(a, b, depth).fuse(weight)


class Tuned(NamedTuple):
    """The chosen weight, and the mean of the measure at every weight tried."""

    weight: float
    curve: tuple[tuple[float, float], ...]


def tune_convex(
    lexical: Run, dense: Run, split: Split, measure: str, weights: Sequence[float] = WEIGHTS
) -> Tuned:
    """The weight of `dense` with the best mean of `measure` on `split`, which must not be test.

    Equal means go to the weight nearest .5, then to the smaller.  Raises DataError when the split
    has no judged query.
    """
    pairs = _Pairs(lexical, dense, DEPTH)
    curve = []
    for weight in weights:
        scores = score(pairs.fuse(weight), split, [measure])
        if not len(scores):
            raise DataError(
                f"the {split.name} split has no judged query to tune the hybrid's weight on",
                where=f"split {split.name}",
                next_step=NO_DEV,
            )
        curve.append((float(weight), scores.mean(measure)))
    best_weight, _ = min(curve, key=_preference)
    return Tuned(best_weight, tuple(curve))


def _preference(point: tuple[float, float]) -> tuple[float, float, float]:
    """Sorts the best mean first, then the weight nearest .5, then the smaller."""
    weight, mean = point
    return -round(mean, 9), abs(weight - 0.5), weight


class Hybrid:
    """Retriever over two others: RRF, or the convex combination where `weight` (of the second) is given."""

    def __init__(
        self,
        first: Retriever,
        second: Retriever,
        weight: float | None = None,
        rrf_k: int = 60,
        depth: int = DEPTH,
    ) -> None:
        self.name = "rrf" if weight is None else "convex"
        self._first = first
        self._second = second
        self._weight, self._rrf_k, self._depth = weight, rrf_k, depth

    def search(self, queries: Sequence[Query], k: int) -> Run:
        depth = max(k, self._depth)
        first = self._first.search(queries, depth)
        second = self._second.search(queries, depth)
        fused = fuse(first, second, self._weight, self._rrf_k, depth)
        results = {query_id: hits[:k] for query_id, hits in fused.results.items()}
        return Run(self.name, results, fused.seconds)


class _Scores(NamedTuple):
    """The normalised scores of both runs for one query; float64 (n_documents,) each."""

    doc_ids: list[str]
    first: np.ndarray
    second: np.ndarray


class _Pairs:
    """Normalised scores of two runs side by side, so that trying another weight is one weighted sum."""

    def __init__(self, a: Run, b: Run, depth: int) -> None:
        self._depth = depth
        self._seconds = a.seconds + b.seconds
        self._scores: dict[str, _Scores] = {}
        for query_id in _queries((a, b)):
            first = _unit(a.results.get(query_id, ())[:depth])
            second = _unit(b.results.get(query_id, ())[:depth])
            # in descending order: a stable sort by score then leaves ties in canonical order
            doc_ids = sorted(first.keys() | second.keys(), reverse=True)
            self._scores[query_id] = _Scores(
                doc_ids,
                np.array([first.get(doc_id, 0.0) for doc_id in doc_ids]),
                np.array([second.get(doc_id, 0.0) for doc_id in doc_ids]),
            )

    def fuse(self, weight: float) -> Run:
        results: dict[str, list[Hit]] = {}
        for query_id, scores in self._scores.items():
            exact = (1.0 - weight) * scores.first + weight * scores.second
            fused = exact.astype(np.float32)
            order = np.argsort(-fused, kind="stable")
            hits = []
            for row in order[: self._depth]:
                hits.append((scores.doc_ids[row], float(fused[row])))
            results[query_id] = hits
        return Run("convex", results, self._seconds)


def _queries(runs: Sequence[Run]) -> list[str]:
    """Queries of all runs, in the order of the first that has them."""
    queries: dict[str, None] = {}
    for run in runs:
        queries |= dict.fromkeys(run.results)
    return list(queries)


def _unit(hits: Sequence[Hit]) -> dict[str, float]:
    """Scores brought to 0..1; 1 where all are equal."""
    if not hits:
        return {}
    values = [value for _, value in hits]
    low = min(values)
    width = max(values) - low
    unit = {}
    for doc_id, value in hits:
        unit[doc_id] = (value - low) / width if width > 0 else 1.0
    return unit
