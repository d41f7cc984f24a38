"""Did positives move nearer and negatives farther?  The margin of each query, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer.types import Split

_BINS = 40
_BLOCK = 256


def margins(
    queries: np.ndarray, documents: np.ndarray, doc_ids: Sequence[str], split: Split
) -> np.ndarray:
    """Similarity of the nearest relevant document minus that of the nearest other one, a query.

    queries (n, d) and documents (m, d) float32, in the order of `split.queries` and `doc_ids`.
    Returns float32 (n_scored,); queries without a relevant document in the corpus are left out.
    The query itself (item-to-item data) is neither.
    """
    position = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    found = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ documents.T
        for query, scores in zip(split.queries[start : start + _BLOCK], block, strict=True):
            relevant = [position[d] for d in split.relevant(query.id) if d in position]
            if not relevant or len(relevant) >= len(doc_ids) - 1:
                continue
            nearest = scores[relevant].max()
            scores[relevant] = -np.inf
            if query.id in position:
                scores[position[query.id]] = -np.inf
            found.append(nearest - scores.max())
    return np.array(found, np.float32)


Vectors = tuple[np.ndarray, np.ndarray]  # of queries, of documents


def margin_histogram(
    before: Vectors, after: Vectors, doc_ids: Sequence[str], split: Split
) -> dict[str, Any]:
    """Histograms of both on the same bins.

    A margin above 0 means that a relevant document is nearer than every other one.
    """
    first, second = (margins(*vectors, doc_ids, split) for vectors in (before, after))
    both = np.concatenate([first, second]) if len(first) else np.zeros(2, np.float32)
    edges = np.linspace(float(both.min()), float(both.max()) or 1.0, _BINS + 1)
    return {
        "bins": [round(float(edge), 5) for edge in edges],
        "before": np.histogram(first, edges)[0].tolist(),
        "after": np.histogram(second, edges)[0].tolist(),
        "before_mean": float(first.mean()) if len(first) else 0.0,
        "after_mean": float(second.mean()) if len(second) else 0.0,
        "share_positive_before": float((first > 0).mean()) if len(first) else 0.0,
        "share_positive_after": float((second > 0).mean()) if len(second) else 0.0,
        "n": len(first),
    }
