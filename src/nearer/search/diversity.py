"""Lists whose items differ: maximal marginal relevance over the first results.

Carbonell and Goldstein, SIGIR 1998: the next item is the one with the largest weight · relevance -
(1 - weight) · (its largest cosine to those already chosen).  Relevance is the score brought to 0..1
within the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nearer.measure.vectors import unit_rows
from nearer.types import Hit, Query, Run, rank_hits

#: Results among which items are chosen.
DEPTH = 50

#: float32 (n_items, dimension), of items by id.
ItemVectors = Callable[[Sequence[str]], np.ndarray]


def diversified(
    run: Run, queries: Sequence[Query], weight: float, vectors: ItemVectors, k: int = 20
) -> Run:
    """A run whose first `k` hits are chosen one by one out of the first `DEPTH`.

    Scores become falling numbers that say the new order and nothing else.
    """
    results = {}
    for query in queries:
        hits = list(run.results.get(query.id, ()))
        results[query.id] = _renumbered(mmr(hits, weight, vectors, k))
    return Run(run.name, results, run.seconds)


def mmr(hits: Sequence[Hit], weight: float, vectors: ItemVectors, k: int) -> list[str]:
    """Item ids in the new order; those that are not among the first `DEPTH` follow as they stood."""
    ids = [doc_id for doc_id, _ in hits]
    pool = ids[:DEPTH]
    if len(pool) < 3:
        return ids
    scores = np.array([score for _, score in hits[: len(pool)]])
    spread = float(scores.max() - scores.min()) or 1.0
    relevance = weight * (scores - scores.min()) / spread
    found = unit_rows(vectors(pool))
    cosines = found @ found.T
    nearest = np.full(len(pool), -1.0)  # of each to those chosen
    chosen: list[int] = []
    left = np.ones(len(pool), bool)
    for _ in range(min(k, len(pool))):
        worth = np.where(left, relevance - (1 - weight) * nearest, -np.inf)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, cosines[best])
    rest = [doc_id for place, doc_id in enumerate(pool) if left[place]]
    return [*(pool[place] for place in chosen), *rest, *ids[len(pool) :]]


def _renumbered(ids: Sequence[str]) -> list[Hit]:
    """Hits in this order, with scores from 1 down."""
    return rank_hits((doc_id, 1 - rank / (len(ids) + 1)) for rank, doc_id in enumerate(ids))
