"""Did positives move nearer and negatives farther?  The margin of each query, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nearer.types import Split

_BINS = 40
_BLOCK = 256  # queries compared with all documents at once

Vectors = tuple[np.ndarray, np.ndarray]  # of queries, of documents


def margins(
    queries: np.ndarray,
    documents: np.ndarray,
    doc_ids: Sequence[str],
    split: Split,
) -> np.ndarray:
    """Similarity of the nearest relevant document minus that of the nearest other one, per query.

    queries (n, d) and documents (m, d) float32, in the order of `split.queries` and `doc_ids`.
    Returns float32 (n_scored,); queries without a relevant document in the corpus are left out.
    The query itself (item-to-item data) is neither.
    """
    columns = {doc_id: column for column, doc_id in enumerate(doc_ids)}
    differences: list[float] = []
    for start in range(0, len(queries), _BLOCK):
        end = start + _BLOCK
        block = queries[start:end] @ documents.T
        block_queries = split.queries[start:end]
        for query, scores in zip(block_queries, block, strict=True):
            judged = split.relevant(query.id)
            relevant = [columns[doc_id] for doc_id in judged if doc_id in columns]
            n_others = len(doc_ids) - len(relevant)
            if relevant and n_others > 1:
                itself = columns.get(query.id)
                differences.append(_margin(scores, relevant, itself))
    return np.array(differences, np.float32)


def _margin(scores: np.ndarray, relevant: Sequence[int], itself: int | None) -> float:
    """The margin from the scores of one query with all documents, which are overwritten.

    `itself` is the column of the document that is the query.
    """
    nearest = scores[relevant].max()
    scores[relevant] = -np.inf
    if itself is not None:
        scores[itself] = -np.inf
    return float(nearest - scores.max())


def margin_histogram(
    before: Vectors,
    after: Vectors,
    doc_ids: Sequence[str],
    split: Split,
) -> dict[str, Any]:
    """Histograms of both on the same bins.

    A margin above 0 means that a relevant document is nearer than every other one.
    """
    first = margins(*before, doc_ids, split)
    second = margins(*after, doc_ids, split)
    edges = _edges(np.concatenate([first, second]))
    counts_before, _ = np.histogram(first, edges)
    counts_after, _ = np.histogram(second, edges)
    return {
        "bins": [round(float(edge), 5) for edge in edges],
        "before": counts_before.tolist(),
        "after": counts_after.tolist(),
        "before_mean": _mean(first),
        "after_mean": _mean(second),
        "share_positive_before": _mean(first > 0),
        "share_positive_after": _mean(second > 0),
        "n": len(first),
    }


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins of equal width over all values."""
    low = high = 0.0
    if len(values):
        low = float(values.min())
        high = float(values.max())
    return np.linspace(low, high or 1.0, _BINS + 1)


def _mean(values: np.ndarray) -> float:
    if not len(values):
        return 0.0
    return float(values.mean())
