"""`neighbours.json`: where queries, their positives and hard negatives lie in both models, in the plane.

The plane of each model is that of the two first principal components of the same texts; the second
is turned (orthogonal Procrustes) to lie as the first one does, and both keep one scale.  Queries
and documents are centred apart: otherwise the plane shows little but that short texts lie elsewhere
than long ones.  Distances in a plane are distorted, so the similarities themselves stand beside the
points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.decision.examples import Changes
from nearer.search.systems import Systems
from nearer.types import Query

_QUERIES = 12  # a third each: won most, lost most, drawn at random
_POSITIVES = 3  # of a query
_NEGATIVES = 3  # of a query and a model: the nearest
_TEXT = 160  # characters

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Point:
    """A text of the picture: a query, or a document beside the query that it belongs to."""

    kind: str  # query, positive or negative
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Space:
    """Vectors of one model: (n_queries, d) of the chosen queries, (n_documents, d) of the corpus."""

    queries: np.ndarray
    documents: np.ndarray

    @classmethod
    def of(cls, systems: Systems, queries: Sequence[Query]) -> _Space:
        vectors = systems.encoder.encode([query.text for query in queries], "query")
        return cls(vectors, systems.document_vectors)

    def nearest(self, row: int, k: int) -> list[int]:
        """Positions of the k documents nearest to a query."""
        similarities = self.documents @ self.queries[row]
        k = min(k, len(similarities))
        nearest = np.argpartition(-similarities, k - 1)[:k]
        return [int(at) for at in nearest[np.argsort(-similarities[nearest], kind="stable")]]


def neighbourhoods(base: Systems, tuned: Systems, changes: Changes, seed: int) -> Json:
    """The whole file; empty where no query has a relevant document in the corpus."""
    queries = _chosen(changes, seed)
    if not queries:
        return {}
    before, after = _Space.of(base, queries), _Space.of(tuned, queries)
    groups = [_group(query, row, changes, (before, after)) for row, query in enumerate(queries)]
    are_queries = np.array([point.kind == "query" for group in groups for point in group])
    planes = []
    for space in (before, after):
        planes.append(_plane(_stacked(space, groups, base.corpus), are_queries))
    (first, explained_first), (second, explained_second) = planes
    second = _turned(second, first)
    scores = {query_id: values for query_id, *values in changes.values()}
    rows = []
    at = 0
    for row, group in enumerate(groups):
        query = group[0]
        points = []
        for point in group:
            similarities = [
                _similarity(space, row, point, base.corpus) for space in (before, after)
            ]
            points.append(
                {
                    "kind": point.kind,
                    "id": point.id,
                    "text": point.text,
                    "before": _rounded(first[at]),
                    "after": _rounded(second[at]),
                    "similarity": similarities,
                }
            )
            at += 1
        value_before, value_after = scores[query.id]
        rows.append(
            {"id": query.id, "before": value_before, "after": value_after, "points": points}
        )
    return {
        "measure": changes.primary,
        "explained": [round(explained_first, 4), round(explained_second, 4)],
        "queries": rows,
    }


def _chosen(changes: Changes, seed: int) -> list[Query]:
    """Queries that won most, lost most, and others at random, all with a document to find."""
    findable = []
    for query_id, before, after in changes.values():
        relevant = changes.test.relevant(query_id)
        if any(doc_id in changes.corpus for doc_id in relevant):
            findable.append((after - before, query_id))
    findable.sort(key=lambda row: row[0])
    third = _QUERIES // 3
    chosen = [query_id for change, query_id in findable[:third] if change < 0]
    chosen += [query_id for change, query_id in findable[::-1][:third] if change > 0]
    others = [query_id for _, query_id in findable if query_id not in chosen]
    rng = np.random.default_rng([seed, *b"neighbours"])
    rng.shuffle(others)
    chosen += others[: _QUERIES - len(chosen)]
    queries = {query.id: query for query in changes.test.queries}
    return [queries[query_id] for query_id in chosen]


def _group(query: Query, row: int, changes: Changes, spaces: Sequence[_Space]) -> list[_Point]:
    """A query, its positives, and the irrelevant documents that are nearest to it in either model."""
    corpus = changes.corpus
    relevant = [doc_id for doc_id in changes.test.relevant(query.id) if doc_id in corpus]
    points = [_Point("query", query.id, query.text[:_TEXT])]
    for doc_id in relevant[:_POSITIVES]:
        points.append(_document("positive", doc_id, corpus))
    negatives: dict[str, None] = {}
    for space in spaces:
        nearest = [corpus.ids[at] for at in space.nearest(row, _NEGATIVES + len(relevant) + 1)]
        others = [doc_id for doc_id in nearest if doc_id not in relevant and doc_id != query.id]
        negatives |= dict.fromkeys(others[:_NEGATIVES])
    for doc_id in negatives:
        points.append(_document("negative", doc_id, corpus))
    return points


def _document(kind: str, doc_id: str, corpus: Corpus) -> _Point:
    document = corpus[corpus.position(doc_id)]
    return _Point(kind, doc_id, document.content[:_TEXT])


def _stacked(space: _Space, groups: Sequence[Sequence[_Point]], corpus: Corpus) -> np.ndarray:
    """float64 (n_points, d), in the order of the groups."""
    rows = []
    for row, group in enumerate(groups):
        rows.append(space.queries[row])
        for point in group[1:]:
            rows.append(space.documents[corpus.position(point.id)])
    return np.array(rows, np.float64)


def _plane(vectors: np.ndarray, are_queries: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2) coordinates on the first two principal components, and the variance they explain.

    `are_queries` bool (n,): these rows are centred apart from the others.
    """
    centred = vectors.copy()
    for kind in (are_queries, ~are_queries):
        centred[kind] -= vectors[kind].mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is arbitrary: its largest part is made positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    plane = centred @ (axes * signs[:, None]).T
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    total = float((sizes**2).sum())
    explained = float((sizes[:2] ** 2).sum()) / total if total else 0.0
    return plane, explained


def _turned(plane: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The plane rotated and mirrored, not scaled, to lie as near as possible to another."""
    left, _, right = np.linalg.svd(plane.T @ onto)
    turned: np.ndarray = plane @ (left @ right)
    return turned


def _similarity(space: _Space, row: int, point: _Point, corpus: Corpus) -> float | None:
    """Similarity of a document to its query; None for the query itself."""
    if point.kind == "query":
        return None
    vector = space.documents[corpus.position(point.id)]
    return round(float(vector @ space.queries[row]), 4)


def _rounded(point: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in point]
