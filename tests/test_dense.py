"""Exact search is exact, whatever the blocks, and ties fall as trec_eval breaks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer.data.corpus import Corpus
from nearer.retrieve import dense
from nearer.retrieve.dense import Dense, top_k
from nearer.types import Document, Query


class Lookup:
    """An encoder of the user's own: vectors by text."""

    similarity = "dot"
    fingerprint = None

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    def encode(self, texts: Sequence[str], kind: str) -> np.ndarray:
        return np.array([self._vectors[text] for text in texts], np.float32)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 12), st.integers(1, 50))
def test_search_equals_sorting_everything(seed: int, n_documents: int, n_queries: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    documents = rng.integers(-2, 3, (n_documents, 3)).astype(np.float32)  # small integers: many ties
    queries = rng.integers(-2, 3, (n_queries, 3)).astype(np.float32)
    ids = [f"d{i}" for i in rng.permutation(n_documents)]
    corpus = Corpus.from_documents(Document(doc_id, doc_id) for doc_id in ids)
    encoder = Lookup({doc_id: documents[i] for i, doc_id in enumerate(ids)} | {f"q{i}": queries[i] for i in range(n_queries)})
    run = Dense(encoder, corpus).search([Query(f"q{i}", f"q{i}") for i in range(n_queries)], k)  # type: ignore[arg-type]
    for i in range(n_queries):
        wanted = sorted(((float(queries[i] @ documents[j]), ids[j]) for j in range(n_documents)), reverse=True)[:k]
        assert [(score, doc_id) for doc_id, score in run.results[f"q{i}"]] == wanted


def test_small_blocks_give_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    documents, queries = rng.normal(size=(500, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    whole = [set(positions[np.argsort(-scores)][:7]) for positions, scores in top_k(queries, documents, 7)]
    monkeypatch.setattr(dense, "_DOCUMENT_BLOCK", 33)
    monkeypatch.setattr(dense, "_QUERY_BLOCK", 2)
    assert [set(positions[np.argsort(-scores)][:7]) for positions, scores in top_k(queries, documents, 7)] == whole


def test_equal_texts_tie_and_the_later_id_stands_first() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    corpus = Corpus.from_documents([Document("a", "same"), Document("c", "same"), Document("b", "same")])
    run = Dense(Lookup({"same": vector, "q": vector}), corpus).search([Query("q", "q")], 2)  # type: ignore[arg-type]
    assert run.top("q", 2) == ["c", "b"]
