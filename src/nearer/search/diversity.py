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
#: With fewer results there is no order to choose.
_FEWEST = 3
#: Below every cosine, so that it is the same for all items while none is chosen.
_NO_CHOSEN = -1.0

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
    """Item ids in the new order: `k` chosen ones, the others of the first `DEPTH`, then the rest.

    Those that were not chosen keep the order in which they stood.
    """
    ids = [doc_id for doc_id, _ in hits]
    pool, beyond = ids[:DEPTH], ids[DEPTH:]
    if len(pool) < _FEWEST:
        return ids
    scores = np.array([score for _, score in hits[:DEPTH]])
    unit_vectors = unit_rows(vectors(pool))
    cosines = unit_vectors @ unit_vectors.T
    chosen = _chosen(scores, cosines, weight, min(k, len(pool)))
    left = [position for position in range(len(pool)) if position not in chosen]
    order = [*chosen, *left]
    return [*(pool[position] for position in order), *beyond]


def _chosen(scores: np.ndarray, cosines: np.ndarray, weight: float, k: int) -> list[int]:
    """The positions of `k` items in the order in which they are chosen.

    `scores` is float64 (n_items,), `cosines` float32 (n_items, n_items) of the items to each other.
    """
    spread = float(scores.max() - scores.min()) or 1.0
    weighted_relevance = weight * (scores - scores.min()) / spread
    nearest_chosen = np.full(len(scores), _NO_CHOSEN)  # the largest cosine to those already chosen
    is_left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    for _ in range(k):
        worth = weighted_relevance - (1 - weight) * nearest_chosen
        worth[~is_left] = -np.inf
        best = int(worth.argmax())
        chosen.append(best)
        is_left[best] = False
        nearest_chosen = np.maximum(nearest_chosen, cosines[best])
    return chosen


def _renumbered(ids: Sequence[str]) -> list[Hit]:
    """Hits in this order, with scores from 1 down."""
    return rank_hits((doc_id, 1 - rank / (len(ids) + 1)) for rank, doc_id in enumerate(ids))
