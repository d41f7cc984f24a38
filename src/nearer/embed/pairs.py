"""How similar a model finds the two texts of each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearer.data.scored import ScoredPair
from nearer.embed.base import Encoder


def similarities(encoder: Encoder, pairs: Sequence[ScoredPair]) -> np.ndarray:
    """float64 (n_pairs,): a symmetric pair is two documents, another a query and a document."""
    queries = dict.fromkeys(pair.first for pair in pairs if not pair.symmetric)
    documents: dict[str, None] = {}
    for pair in pairs:
        documents.setdefault(pair.second)
        if pair.symmetric:
            documents.setdefault(pair.first)
    of_documents = encoder.encode(list(documents), "document")
    rows = {text: row for row, text in enumerate(documents)}
    seconds = of_documents[[rows[pair.second] for pair in pairs]].astype(np.float64)
    firsts = np.empty_like(seconds)
    own = np.array([pair.symmetric for pair in pairs], bool)
    firsts[own] = of_documents[[rows[pair.first] for pair in pairs if pair.symmetric]]
    if queries:
        of_queries = encoder.encode(list(queries), "query")
        asked = {text: row for row, text in enumerate(queries)}
        firsts[~own] = of_queries[[asked[pair.first] for pair in pairs if not pair.symmetric]]
    products_of_pairs: np.ndarray = np.einsum("ij,ij->i", firsts, seconds)
    return products_of_pairs
