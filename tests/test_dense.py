"""Exact search is exact, whatever the blocks, and ties fall as trec_eval breaks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer.data.corpus import Corpus
from nearer.search import ranking
from nearer.search.dense import Dense
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
def test_search_equals_sorting_everything(
    seed: int, n_documents: int, n_queries: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    documents = rng.integers(-2, 3, (n_documents, 3)).astype(
        np.float32
    )  # small integers: many ties
    queries = rng.integers(-2, 3, (n_queries, 3)).astype(np.float32)
    ids = [f"d{i}" for i in rng.permutation(n_documents)]
    corpus = Corpus.from_documents(Document(doc_id, doc_id) for doc_id in ids)
    encoder = Lookup(
        {doc_id: documents[i] for i, doc_id in enumerate(ids)}
        | {f"q{i}": queries[i] for i in range(n_queries)}
    )
    run = Dense(encoder, corpus).search([Query(f"q{i}", f"q{i}") for i in range(n_queries)], k)  # type: ignore[arg-type]
    for i in range(n_queries):
        wanted = sorted(
            ((float(queries[i] @ documents[j]), ids[j]) for j in range(n_documents)), reverse=True
        )[:k]
        assert [(score, doc_id) for doc_id, score in run.results[f"q{i}"]] == wanted


def test_small_blocks_give_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = {
        name: rng.normal(size=8).astype(np.float32)
        for name in [f"d{i}" for i in range(300)] + [f"q{i}" for i in range(9)]
    }
    corpus = Corpus.from_documents(Document(name, name) for name in vectors if name.startswith("d"))
    queries = [Query(f"q{i}", f"q{i}") for i in range(9)]
    whole = Dense(Lookup(vectors), corpus).search(queries, 7)  # type: ignore[arg-type]
    monkeypatch.setattr(ranking, "_BLOCK_SCORES", 600)
    parts = Dense(Lookup(vectors), corpus).search(queries, 7)  # type: ignore[arg-type]
    assert [parts.top(query.id, 7) for query in queries] == [
        whole.top(query.id, 7) for query in queries
    ]


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_exact_rank_of_every_document_is_its_place_in_the_whole_list(
    seed: int, n_documents: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = {
        f"d{i}": rng.integers(-2, 3, 3).astype(np.float32) for i in rng.permutation(n_documents)
    }
    corpus = Corpus.from_documents(Document(name, name) for name in vectors)
    query = Query("q", "q")
    dense = Dense(Lookup(vectors | {"q": np.array([1, 2, -1], np.float32)}), corpus)  # type: ignore[arg-type]
    listed = dense.search([query], n_documents)
    ranks = ranking.ranks(dense, [query], {"q": range(n_documents)})
    assert {corpus.ids[place]: rank for (_, place), rank in ranks.items()} == {
        d: i for i, (d, _) in enumerate(listed.results["q"], start=1)
    }


def test_documents_that_are_not_eligible_are_no_results_and_have_no_rank() -> None:
    vectors = {
        "a": np.array([3.0], np.float32),
        "b": np.array([2.0], np.float32),
        "q": np.array([1.0], np.float32),
    }
    corpus = Corpus.from_documents([Document("a", "a"), Document("b", "b")])
    dense = Dense(Lookup(vectors), corpus, eligible=lambda query: np.array([False, True]))  # type: ignore[arg-type]
    assert dense.search([Query("q", "q")], 5).top("q", 5) == ["b"]
    assert ranking.ranks(dense, [Query("q", "q")], {"q": [0, 1]}) == {("q", 0): None, ("q", 1): 1}


def test_equal_texts_tie_and_the_later_id_stands_first() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    corpus = Corpus.from_documents(
        [Document("a", "same"), Document("c", "same"), Document("b", "same")]
    )
    run = Dense(Lookup({"same": vector, "q": vector}), corpus).search([Query("q", "q")], 2)  # type: ignore[arg-type]
    assert run.top("q", 2) == ["c", "b"]
