"""Exact rankings out of scores for every document: the ground under BM25 and dense search.

Scores come in blocks of queries, so that no n × m matrix is kept.  From a row of scores follow the
best hits, and the exact rank of any document however deep it lies, which is what diagnosis asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from nearer import progress
from nearer.types import Hit, Query, Run

#: Documents that may be results of a query, bool (n_documents,); None: all of them.
Eligible = Callable[[Query], np.ndarray | None]

_BLOCK_SCORES = 1 << 25  # scores held at once: 128 MB of float32
_BLOCK_QUERIES = 256


class Scorer(Protocol):
    """A retriever that scores every document for a block of queries."""

    name: str
    order: Order

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents); -inf where a document cannot be a result."""


class Order:
    """Canonical order (score, then id, both descending) over the documents of a corpus."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        ascending = sorted(range(len(ids)), key=ids.__getitem__)
        # Rank of each id in ascending order, so that ties are broken by comparing integers.
        self._id_rank = np.empty(len(ids), dtype=np.int64)
        self._id_rank[ascending] = np.arange(len(ids))

    def top(self, scores: np.ndarray, k: int) -> list[Hit]:
        """The `k` best documents of one row of scores; all that tie with the last one compete by id."""
        candidates = np.flatnonzero(scores > -np.inf)
        if len(candidates) > k:
            values = -scores[candidates]
            last = np.partition(values, k - 1)[k - 1]
            candidates = candidates[values <= last]
        id_ranks = self._id_rank[candidates]
        order = np.lexsort((id_ranks, scores[candidates]))
        hits = []
        for position in candidates[order[::-1][:k]]:
            hits.append((self.ids[position], float(scores[position])))
        return hits

    def rank(self, scores: np.ndarray, position: int) -> int | None:
        """1-based rank of the document at a position in one row of scores; None when it is no result."""
        own = scores[position]
        if own == -np.inf:
            return None
        tied = np.flatnonzero(scores == own)
        better = np.count_nonzero(scores > own)
        better += np.count_nonzero(self._id_rank[tied] > self._id_rank[position])
        return int(1 + better)


def restrict(scores: np.ndarray, queries: Sequence[Query], eligible: Eligible | None) -> np.ndarray:
    """Scores with -inf where a query's filter excludes the document, in place."""
    if eligible is not None:
        for row, query in zip(scores, queries, strict=True):
            mask = eligible(query)
            if mask is not None:
                row[~mask] = -np.inf
    return scores


def blocks(scorer: Scorer, queries: Sequence[Query]) -> Iterator[tuple[Query, np.ndarray]]:
    """Every query with its row of scores, computed a block of queries at a time."""
    documents = max(1, len(scorer.order.ids))
    size = min(max(1, _BLOCK_SCORES // documents), _BLOCK_QUERIES)
    with progress.task(f"{scorer.name}: searching", len(queries), "queries") as bar:
        for start in range(0, len(queries), size):
            block = queries[start : start + size]
            yield from zip(block, scorer.score(block), strict=True)
            bar.advance(len(block))


def search(scorer: Scorer, queries: Sequence[Query], k: int) -> Run:
    """The `k` best documents of each query, in canonical order."""
    started = time.perf_counter()
    results = {}
    for query, row in blocks(scorer, queries):
        results[query.id] = scorer.order.top(row, k)
    return Run(scorer.name, results, time.perf_counter() - started)


def ranks(
    scorer: Scorer, queries: Sequence[Query], wanted: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], int | None]:
    """Exact ranks: (query id, position) → rank, for the document positions wanted of each query."""
    exact = {}
    for query, row in blocks(scorer, queries):
        for position in wanted.get(query.id, ()):
            exact[query.id, position] = scorer.order.rank(row, position)
    return exact
