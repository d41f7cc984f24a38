"""Exact nearest-neighbour search over documents or their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nearer.embed.encoder import Encoder
from nearer.errors import ModelError
from nearer.search import ranking
from nearer.search.ranking import Eligible, Order
from nearer.types import Query, Run

if TYPE_CHECKING:
    from nearer.search.chunkers import Chunked

#: Scores are rounded so that equal texts tie wherever they stand in a block; a matrix product may
#: differ in the last bits of float32 from one edge of a block to another.
_DECIMALS = 6
_ENOUGH = 10  # different documents that no working model confuses
_LOOKED_AT = 1000


class Dense:
    """Retriever over an encoder: documents are encoded when first searched, then held in memory.

    With `chunked`, a document scores as its best chunk.  `vectors` hands over vectors that this
    very encoder made before (of documents, or of the chunks); `eligible` says which documents may
    be results of a query.
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: Any,
        name: str = "dense",
        *,
        chunked: Chunked | None = None,
        vectors: Any = None,
        eligible: Eligible | None = None,
    ) -> None:
        self.name = name
        self.encoder = encoder
        self.order = Order(corpus.ids)
        self.contents = Contents(corpus)
        self._texts: Sequence[str] = self.contents
        self._starts: np.ndarray | None = None  # first chunk of each document, where some have more
        if chunked is not None:
            self._texts = chunked.texts
            if len(chunked.owners) != len(corpus):
                self._starts = chunked.starts
        self._vectors = vectors
        self._eligible = eligible

    @property
    def documents(self) -> Any:
        """float32 (n_texts, dimension), in corpus order; or what `vectors` handed over."""
        if self._vectors is None:
            self._vectors = self.encoder.encode(self._texts, "document")
        return self._vectors

    def score(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, n_documents), -inf where a document is not eligible."""
        documents = self.documents
        vectors = self.query_vectors(queries)
        if isinstance(documents, np.ndarray):
            scores = vectors @ documents.T
        else:
            scores = documents.scores(vectors)
        if self._starts is not None:
            scores = np.maximum.reduceat(scores, self._starts, axis=1)
        return ranking.restrict(np.round(scores, _DECIMALS), queries, self._eligible)

    def query_vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """float32 (n_queries, dimension)."""
        return self.encoder.encode([query.text for query in queries], "query")

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The `k` nearest documents of each query, in canonical order."""
        return ranking.search(self, queries, k)


def require_differences(vectors: np.ndarray, texts: Sequence[str], where: str) -> None:
    """Raises ModelError where a model gave the same vector to different documents, whatever they say.

    `vectors` is float32 (n_texts, dimension).  Such a model ranks by the ids of documents: its
    weights are zeros, its tokenizer is lost, or it reads none of the words.
    """
    few = len(vectors) < _ENOUGH
    if few or not np.allclose(vectors[:_LOOKED_AT], vectors[0], atol=1e-6):
        return
    different = set(texts[:_LOOKED_AT])  # read where all looks alike, and nowhere else
    if len(different) < _ENOUGH:
        return
    raise ModelError(
        f"the model gives {len(different):,} different documents the same vector",
        where=where,
        next_step="check its weights, its tokenizer and its maximum length, or set another model.name",
    )


class Contents(Sequence[str]):
    """The corpus as a sequence of strings that holds none of them."""

    def __init__(self, corpus: Any) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self._corpus.contents(range(*index.indices(len(self)))))
        return next(iter(self._corpus.contents([index])))

    def __iter__(self) -> Any:
        return iter(self._corpus.contents())
