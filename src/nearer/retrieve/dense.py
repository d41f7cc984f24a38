"""Exact nearest-neighbour search: blocked, top k, no n × m matrix kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer import progress
from nearer.retrieve.encoder import Encoder
from nearer.types import Query, Run, rank_hits

_QUERY_BLOCK = 256
_DOCUMENT_BLOCK = 32_768
#: Scores are rounded so that equal texts tie wherever they stand in a block; a matrix product may
#: differ in the last bits of float32 from one edge of a block to another.
_DECIMALS = 6


class Dense:
    """Retriever over an encoder: documents are encoded when first searched, then held in memory.

    `vectors` hands over document vectors that this very encoder made before.
    """

    def __init__(self, encoder: Encoder, corpus: Any, name: str = "dense", vectors: np.ndarray | None = None) -> None:
        self.name = name
        self.encoder = encoder
        self._corpus = corpus
        self._documents = vectors

    @property
    def documents(self) -> np.ndarray:
        """float32 (n_documents, dimension), in corpus order."""
        if self._documents is None:
            self._documents = self.encoder.encode(_Contents(self._corpus), "document")
        return self._documents

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The `k` nearest documents of each query, in canonical order."""
        documents = self.documents
        started = time.perf_counter()
        vectors = self.encoder.encode([query.text for query in queries], "query")
        results = {}
        ids = self._corpus.ids
        for query, (positions, scores) in zip(queries, top_k(vectors, documents, k), strict=True):
            results[query.id] = rank_hits(((ids[p], float(s)) for p, s in zip(positions, scores, strict=True)), k)
        return Run(self.name, results, time.perf_counter() - started)


class _Contents(Sequence[str]):
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


def top_k(queries: np.ndarray, documents: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions and scores of the `k` largest inner products of each query, ties at the end included.

    queries (n, d) and documents (m, d) float32.  Returns n pairs (positions int64, scores float32)
    of at least min(k, m) entries, unordered: the caller ranks them with their ids.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    k = min(k, len(documents))
    with progress.task("search", len(queries), "queries") as bar:
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = queries[start : start + _QUERY_BLOCK]
            best: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(block)
            for offset in range(0, len(documents), _DOCUMENT_BLOCK):
                scores = np.round(block @ documents[offset : offset + _DOCUMENT_BLOCK].T, _DECIMALS)
                for row in range(len(block)):
                    positions, values = _largest(scores[row], k)
                    merged = np.concatenate([best[row][1], values])
                    places = np.concatenate([best[row][0], positions + offset])
                    keep, kept = _largest(merged, k)
                    best[row] = (places[keep], kept)
            found.extend(best)
            bar.advance(len(block))
    return found


def _largest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values from the k-th largest value on, every tie with it included."""
    if len(values) > k:
        positions = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
    else:
        positions = np.arange(len(values))
    return positions, values[positions]
