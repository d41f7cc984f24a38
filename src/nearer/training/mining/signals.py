"""How well each judged pair agrees with the model, with words, and with the other judged pairs.

Every signal is the score of a document for a query, standardised over documents drawn from the
judged pairs, so that signals of different sets compare.  The same signals are computed for random
pairs: what a wrong positive looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nearer.embed.base import of_length_one

#: Positions of queries → scores of all documents, float32 (n_queries, n_documents); -inf: no word.
Words = Callable[[np.ndarray], np.ndarray]
#: Random pairs per judged pair.
_DRAWS = 4
#: Documents over which the scores of a query are standardised.
_REFERENCE = 512
_NEIGHBOURS = 10
#: Queries among which neighbours are looked for.
_CROWD = 20_000
_FOLDS = 5
#: Weight of the identity in the learned map, as a multiple of the mean variance of the queries.
_RIDGE = 1.0
#: Inverse temperature by which nearer neighbours count more.
_SCALE = 20.0
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """Judged pairs as vectors.

    `queries` float32 (n_queries, dimension), `documents` float32 (n_documents, dimension), `rows`
    int64 (n_pairs, 2): positions of the query and of the document of each pair.
    """

    queries: np.ndarray
    documents: np.ndarray
    rows: np.ndarray
    words: Words | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """One column per name.

    `judged` float32 (n_pairs, n_signals), `random` float32 (n_random, n_signals); `groups` int64
    (n_random,) are the queries of the random pairs.
    """

    names: tuple[str, ...]
    judged: np.ndarray
    random: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, slots=True)
class _Asked:
    """Pairs to score, judged ones first: positions of queries and documents, each int64 (n,).

    `judged` int64 (n,) is the judged pair itself, or the one that a random pair is drawn for.
    """

    queries: np.ndarray
    documents: np.ndarray
    judged: np.ndarray
    reference: np.ndarray  # positions of the documents to standardise over

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some queries at a time: which, the pairs that they are in, and their row among the queries."""
        order = np.argsort(self.queries, kind="stable")
        distinct, starts = np.unique(self.queries[order], return_index=True)
        stops = np.append(starts[1:], len(order))
        for first in range(0, len(distinct), _BLOCK):
            block = distinct[first : first + _BLOCK]
            pairs = order[starts[first] : stops[first + len(block) - 1]]
            yield block, pairs, np.searchsorted(block, self.queries[pairs])


def signals_of(pairs: JudgedPairs, rng: np.random.Generator) -> Signals:
    """All signals of the judged pairs and of random ones."""
    queries, documents = of_length_one(pairs.queries), of_length_one(pairs.documents)
    asked, n_judged = _asked(pairs.rows, rng)
    targets = _targets(documents, pairs.rows, len(queries))
    columns = {
        "model": _by_vectors(queries, documents, asked),
        "neighbours": _by_vectors(_votes(queries, targets, rng), documents, asked),
        "learned": _by_vectors(_mapped(queries, documents, pairs.rows, rng), documents, asked),
    }
    counts = np.bincount(pairs.rows[:, 0])
    if counts.max() > 1:
        columns["others"] = _by_others(documents, pairs.rows, asked)
    if pairs.words is not None:
        columns["words"] = _by_words(pairs.words, asked)
    table = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Signals(tuple(columns), table[:n_judged], table[n_judged:], asked.queries[n_judged:])


def _asked(rows: np.ndarray, rng: np.random.Generator) -> tuple[_Asked, int]:
    """The judged pairs, then random ones: the same queries with documents of other pairs."""
    queries, documents = rows.T
    pair = np.repeat(np.arange(len(rows)), _DRAWS)
    drawn_for = queries[pair]
    drawn = documents[rng.integers(len(rows), size=len(drawn_for))]
    width = int(documents.max()) + 1
    judged = np.unique(queries * width + documents)
    unjudged = ~np.isin(drawn_for * width + drawn, judged)
    reference = documents[rng.integers(len(rows), size=min(_REFERENCE, _DRAWS * len(rows)))]
    asked = _Asked(
        np.concatenate([queries, drawn_for[unjudged]]),
        np.concatenate([documents, drawn[unjudged]]),
        np.concatenate([np.arange(len(rows)), pair[unjudged]]),
        reference,
    )
    return asked, len(rows)


def _targets(documents: np.ndarray, rows: np.ndarray, n_queries: int) -> np.ndarray:
    """The mean document of each query, float32 (n_queries, dimension); zero where it has none."""
    sums = np.zeros((n_queries, documents.shape[1]), np.float32)
    counts = np.zeros((n_queries, 1), np.float32)
    np.add.at(sums, rows[:, 0], documents[rows[:, 1]])
    np.add.at(counts, rows[:, 0], 1)
    means: np.ndarray = sums / np.maximum(counts, 1)
    return means


def _votes(queries: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the nearest other queries are answered by; the nearest count most."""
    judged = np.flatnonzero(np.any(targets != 0, axis=1))
    crowd = judged
    if len(crowd) > _CROWD:
        crowd = np.sort(rng.choice(judged, _CROWD, replace=False))
    count = min(_NEIGHBOURS, len(crowd) - 1)
    votes = np.zeros_like(targets)
    if count < 1:
        return votes
    for first in range(0, len(queries), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(queries)))
        similar = queries[block] @ queries[crowd].T
        similar[block[:, None] == crowd[None, :]] = -np.inf  # nobody votes on itself
        nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(similar, nearest, axis=1)
        weights = np.exp(_SCALE * (near - near.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        votes[block] = np.einsum("qk,qkd->qd", weights, targets[crowd[nearest]])
    return votes


def _mapped(
    queries: np.ndarray, documents: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Queries under a linear map to documents that was learned without the pairs of those queries.

    Ridge regression around the identity, cross-fitted: a pair never judges itself.
    """
    fold_of = rng.permutation(len(queries)) % _FOLDS
    dimension = queries.shape[1]
    middle = queries.mean(axis=0)
    centre = documents[rows[:, 1]].mean(axis=0)
    mapped = np.zeros_like(queries)
    for fold in range(_FOLDS):
        others = rows[fold_of[rows[:, 0]] != fold]
        own = fold_of == fold
        if not len(others):
            continue
        sources = queries[others[:, 0]] - middle
        gram = sources.T @ sources
        ridge = _RIDGE * max(float(np.trace(gram)) / dimension, 1e-6) * np.eye(dimension)
        aims = sources.T @ (documents[others[:, 1]] - centre)
        learned = np.linalg.solve(gram + ridge, aims + ridge)
        mapped[own] = (queries[own] - middle) @ learned
    return mapped


def _by_vectors(queries: np.ndarray, documents: np.ndarray, asked: _Asked) -> np.ndarray:
    """Standardised scores of the asked pairs, float32 (n,)."""
    scores = np.empty(len(asked.queries), np.float32)
    reference = documents[asked.reference].T
    for block, pairs, row in asked.blocks():
        own = np.einsum("ij,ij->i", queries[block][row], documents[asked.documents[pairs]])
        scores[pairs] = _standardised(own, queries[block] @ reference, row)
    return scores


def _by_others(documents: np.ndarray, rows: np.ndarray, asked: _Asked) -> np.ndarray:
    """The same for the other positives of the query; 0 where the judged pair is its only one.

    A random pair is compared with the same others as the judged pair that it is drawn for.
    """
    sums = np.zeros((int(rows[:, 0].max()) + 1, documents.shape[1]), np.float32)
    np.add.at(sums, rows[:, 0], documents[rows[:, 1]])
    others = sums[rows[:, 0]] - documents[rows[:, 1]]
    others[np.bincount(rows[:, 0])[rows[:, 0]] < 2] = 0.0  # not a rest of rounding
    others = of_length_one(others)
    reference = others @ documents[asked.reference].T
    own = np.einsum("ij,ij->i", others[asked.judged], documents[asked.documents])
    return _standardised(own, reference, asked.judged)


def _by_words(words: Words, asked: _Asked) -> np.ndarray:
    """The same for exact words; a document without any of them scores 0 before it is standardised."""
    scores = np.empty(len(asked.queries), np.float32)
    for block, pairs, row in asked.blocks():
        everything = np.maximum(words(block), 0.0)
        own = everything[row, asked.documents[pairs]]
        scores[pairs] = _standardised(own, everything[:, asked.reference], row)
    return scores


def _standardised(own: np.ndarray, reference: np.ndarray, row: np.ndarray) -> np.ndarray:
    mean = reference.mean(axis=1)
    spread = reference.std(axis=1) + 1e-3 * (1 + np.abs(mean))
    standardised: np.ndarray = (own - mean[row]) / spread[row]
    return standardised
