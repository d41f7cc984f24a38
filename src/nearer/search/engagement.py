"""Recommending by what people did in training: popularity, item-kNN, and item-kNN beside vectors.

They are the baselines that an embedding model must beat where items are warm.  Of an item with
which nobody engaged in training item-kNN knows nothing, and finds nothing: the hybrid leaves such
items to the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from nearer.data.items import history_of
from nearer.errors import DataError
from nearer.measure.recommendation import engagements
from nearer.search import ranking
from nearer.search.base import Retriever
from nearer.search.dense import Dense
from nearer.search.fusion import Hybrid
from nearer.search.pipeline import Pipeline
from nearer.search.ranking import Eligible, Order
from nearer.types import Judgments, Query, Run

if TYPE_CHECKING:
    from nearer.search.systems import Systems


class Popularity:
    """The same list for everybody: items by the number of others they were engaged with."""

    def __init__(self, trained: Judgments, order: Order, eligible: Eligible | None) -> None:
        self.name = "popularity"
        self.order = order
        self._counts = engagements(trained, order.ids).astype(np.float32)
        self._eligible = eligible

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_items); -inf for items with which nobody engaged."""
        counts = np.where(self._counts > 0, self._counts, -np.inf)
        scores = np.repeat(counts[None, :], len(queries), axis=0)
        return ranking.restrict(scores, queries, self._eligible)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        return ranking.search(self, queries, k)


class ItemKnn:
    """Items that were engaged together with an item, or with the same others.

    The score is the number of direct relations plus the cosine of the items' relations (item-kNN of
    Deshpande and Karypis, TOIS 2004), over relations in both directions.  A history scores as the
    sum over its items.
    """

    def __init__(self, trained: Judgments, order: Order, eligible: Eligible | None) -> None:
        self.name = "item_knn"
        self.order = order
        self._trained = trained
        self._eligible = eligible
        # Queries that are no items stand behind the items: they have relations, and are no results.
        self._position = {doc_id: place for place, doc_id in enumerate(order.ids)}
        for query_id in trained:
            self._position.setdefault(query_id, len(self._position))

    @cached_property
    def similarity(self) -> sparse.csr_array:
        """float32 (n_ids, n_ids), sparse: items first, in the order of the corpus."""
        related = self._relations()
        counts = np.asarray(related.sum(axis=1)).ravel()
        lengths = np.sqrt(np.maximum(counts, 1))
        unit = sparse.diags_array(1 / lengths) @ related
        return sparse.csr_array(related + unit @ unit.T, dtype=np.float32)

    def _relations(self) -> sparse.csr_array:
        """1 where two items were engaged together, in both directions."""
        rows, columns = [], []
        for query_id, graded in self._trained.items():
            one = self._position.get(query_id)
            for doc_id, grade in graded.items():
                other = self._position.get(doc_id)
                if one is not None and other is not None and grade > 0:
                    rows += [one, other]
                    columns += [other, one]
        size = len(self._position)
        ones = np.ones(len(rows), np.float32)
        related = sparse.csr_array((ones, (rows, columns)), shape=(size, size))
        related.data[:] = 1.0  # a relation that was said twice is one relation
        return related

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_items); -inf for items without a relation to the query."""
        n_items = len(self.order.ids)
        scores = np.zeros((len(queries), n_items), np.float32)
        for row, query in enumerate(queries):
            for item in history_of(query) or (query.id,):
                place = self._position.get(item)
                if place is not None:
                    scores[row] += self.similarity[[place]].toarray()[0, :n_items]
        scores[scores <= 0] = -np.inf
        return ranking.restrict(np.round(scores, 6), queries, self._eligible)

    def search(self, queries: Sequence[Query], k: int) -> Run:
        return ranking.search(self, queries, k)


class HistoryDense(Dense):
    """Dense search in which a history lies at the mean of its items' vectors.

    `half_life` is the number of items after which one counts half, from the last one on; without,
    all count the same.
    """

    half_life: float | None = None

    def query_vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, dimension)."""
        plain = [query for query in queries if not history_of(query)]
        own = {}
        if plain:
            vectors = super().query_vectors(plain)
            own = {query.id: vector for query, vector in zip(plain, vectors, strict=True)}
        return np.stack(
            [own[query.id] if query.id in own else self._pooled(query) for query in queries]
        )

    def _pooled(self, query: Query) -> np.ndarray:
        places = [self._places[item] for item in history_of(query) if item in self._places]
        texts = [self.contents[place] for place in places]
        if not texts:
            alone: np.ndarray = super().query_vectors([query])[0]
            return alone
        return pooled(self.encoder.encode(texts, "document"), self.half_life)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {doc_id: place for place, doc_id in enumerate(self.order.ids)}


def pooled(vectors: np.ndarray, half_life: float | None = None) -> np.ndarray:
    """The vector of a history, (dimension,) of unit length; `vectors` are its items', the last one last."""
    age = np.arange(len(vectors))[::-1]
    weights = np.ones(len(vectors)) if half_life is None else 0.5 ** (age / half_life)
    mean = (weights[:, None] * vectors).sum(0) / weights.sum()
    length = float(np.linalg.norm(mean))
    unit: np.ndarray = (mean / length if length else mean).astype(np.float32)
    return unit


def popularity(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """What most people engaged with."""
    return Popularity(_trained(systems), Order(systems.corpus.ids), systems.eligible("ignore"))


def item_knn(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """What was engaged together with the item."""

    def make() -> ItemKnn:
        return ItemKnn(_trained(systems), Order(systems.corpus.ids), systems.eligible("ignore"))

    retriever: ItemKnn = systems.once(("own", "item_knn"), make)
    return retriever


def item_hybrid(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """Item-kNN and vectors, fused by ranks: items that are cold are left to the vectors."""
    depth = max(systems.depth, pipeline.rerank)
    vectors = systems.scorer(systems.base("dense"), cached)
    hybrid = Hybrid(
        item_knn(systems, pipeline, cached), vectors, None, systems.config.search.rrf_k, depth
    )
    hybrid.name = "item_hybrid"
    return hybrid


def _trained(systems: Systems) -> Judgments:
    """Training relations.  Raises DataError where there are none."""
    trained = systems.trained
    if not trained:
        raise DataError(
            "there are no training relations: nobody knows what is popular, or engaged together",
            where="check/split/train",
            next_step="give training judgments or recommend.interactions, then nearer check",
        )
    return trained
