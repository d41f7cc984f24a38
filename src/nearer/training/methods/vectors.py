"""Queries and documents as vectors that are fixed: what an adapter and document updates learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from nearer.embed.base import of_length_one
from nearer.training.examples import TrainingSet

#: Share of the training queries that are kept from a fit, to say when to stop; at most so many.
_KEPT_SHARE = 0.2
_MOST_KEPT = 1000
#: Share of the documents whose queries are all kept from a fit that must do unseen ones no harm, and
#: the share of the queries that this may take.
_UNSEEN_SHARE = 0.25
_UNSEEN_QUERIES = 0.35
#: Share of the other queries that are kept from that fit, whose documents are seen.
_SEEN_SHARE = 0.1
_BLOCK = 512  # pairs ranked at a time
#: With fewer distinct queries nothing can be kept from the fit.
FEWEST_QUERIES = 10


class GivesVectors(Protocol):
    """Text in, vector out: all that is asked of an encoder, ours or one behind an API."""

    def encode(self, texts: Sequence[str], kind: Literal["query", "document"]) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`."""


@dataclass(frozen=True, slots=True)
class VectorTask:
    """Training examples whose texts are vectors.

    `queries` is float32 (n_queries, dimension), `documents` (n_documents, dimension); `pairs` is
    int64 (n_pairs, 2), positions of a query and of its positive; `blocked[q]` are the documents
    that are never a negative of query q.  With `cosine` all rows have length 1.
    """

    queries: np.ndarray
    documents: np.ndarray
    pairs: np.ndarray
    blocked: tuple[frozenset[int], ...]
    cosine: bool = True

    @classmethod
    def of(cls, encoder: GivesVectors, rows: TrainingSet) -> VectorTask:
        """Encode the distinct texts of a training set, each once."""
        cosine = getattr(encoder, "similarity", "cosine") == "cosine"
        queries = encoder.encode(list(rows.queries), "query")
        documents = encoder.encode(list(rows.documents), "document")
        if cosine:
            queries, documents = of_length_one(queries), of_length_one(documents)
        pairs = sorted({(query, positive) for query, positive, _ in rows.rows})
        return cls(
            queries,
            documents,
            np.array(pairs, np.int64).reshape(-1, 2),
            rows.blocked,
            cosine,
        )

    @property
    def dimension(self) -> int:
        return int(self.documents.shape[1])

    def divided(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs to fit on and pairs kept from the fit, int64 (n, 2) each, by whole queries.

        Nothing is kept where there are too few queries.
        """
        distinct = np.unique(self.pairs[:, 0])
        if len(distinct) < FEWEST_QUERIES:
            return self.pairs, self.pairs[:0]
        count = min(_MOST_KEPT, max(1, round(_KEPT_SHARE * len(distinct))))
        kept = rng.permutation(distinct)[:count]
        held_out = np.isin(self.pairs[:, 0], kept)
        return self.pairs[~held_out], self.pairs[held_out]

    def held_out(self, rng: np.random.Generator) -> HeldOut | None:
        """The pairs divided by queries and by documents; None where there are too few queries."""
        queries = np.unique(self.pairs[:, 0])
        if len(queries) < FEWEST_QUERIES:
            return None
        without, documents = self._without_documents(rng, int(_UNSEEN_QUERIES * len(queries)))
        others = np.setdiff1d(queries, without)
        seen = rng.permutation(others)[: max(1, round(_SEEN_SHARE * len(queries)))]
        kept = np.isin(self.pairs[:, 0], np.concatenate([without, seen]))
        among_seen = np.isin(self.pairs[:, 0], seen)
        # A query that is kept for its unseen document may have others, which were seen.
        among_unseen = np.isin(self.pairs[:, 1], documents)
        if kept.all():
            return None
        return HeldOut(self.pairs[~kept], self.pairs[among_seen], self.pairs[among_unseen])

    def _without_documents(
        self, rng: np.random.Generator, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random documents, and all their queries, at most `most` of them: (queries, documents).

        A document whose queries are too many is passed over.
        """
        distinct = np.unique(self.pairs[:, 1])
        queries: set[int] = set()
        documents: list[int] = []
        for document in rng.permutation(distinct):
            if len(documents) >= _UNSEEN_SHARE * len(distinct):
                break
            own = set(self.pairs[self.pairs[:, 1] == document, 0].tolist())
            if len(queries | own) <= most:
                queries |= own
                documents.append(int(document))
        return np.array(sorted(queries), np.int64), np.array(documents, np.int64)

    def blocked_mask(self, queries: np.ndarray) -> np.ndarray:
        """bool (len(queries), n_documents): documents that are never a negative of each query."""
        mask = np.zeros((len(queries), len(self.documents)), bool)
        for row, query in enumerate(queries):
            mask[row, list(self.blocked[query])] = True
        return mask


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pairs to fit on, and pairs that are kept from the fit, int64 (n, 2) each.

    The documents of `seen` pairs have other queries in the fit; those of `unseen` pairs have none.
    """

    fitting: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray


def reciprocal_ranks(scores: np.ndarray, targets: np.ndarray, blocked: np.ndarray) -> np.ndarray:
    """float64 (n,): 1 / rank of each target among the documents that may be its negatives.

    `scores` and `blocked` are (n, n_documents).  Equal scores count half.
    """
    positions = np.arange(len(targets))
    own = scores[positions, targets][:, None]
    rivals = ~blocked
    rivals[positions, targets] = False
    above = np.sum((scores > own) & rivals, axis=1)
    equal = np.sum((scores == own) & rivals, axis=1)
    ranks: np.ndarray = 1.0 + above + 0.5 * equal
    return 1.0 / ranks


def mean_reciprocal_rank(
    task: VectorTask,
    pairs: np.ndarray,
    queries: np.ndarray,
    documents: np.ndarray,
    *,
    per_document: bool = False,
) -> float:
    """Mean reciprocal rank of the positives of `pairs`; NaN where there are none.

    `queries` (n_queries, d) and `documents` (n_documents, d) stand in for the task's own vectors.
    `per_document` gives every document the same weight, however many queries it has.
    """
    parts = []
    for start in range(0, len(pairs), _BLOCK):
        part = pairs[start : start + _BLOCK]
        scores = queries[part[:, 0]] @ documents.T
        parts.append(reciprocal_ranks(scores, part[:, 1], task.blocked_mask(part[:, 0])))
    if not parts:
        return float("nan")
    ranks = np.concatenate(parts)
    if not per_document:
        return float(np.mean(ranks))
    _, group, counts = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    return float(np.mean(np.bincount(group, ranks) / counts))
