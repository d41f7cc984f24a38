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
#: Other queries that vote on what answers a query.
_NEIGHBOURS = 10
#: Queries among which neighbours are looked for.
_CROWD = 20_000
#: Parts of the queries: each is mapped by what the others teach.
_FOLDS = 5
#: Weight of the identity in the learned map, as a multiple of the mean variance of the queries.
_RIDGE = 1.0
#: Inverse temperature by which nearer neighbours count more.
_SCALE = 20.0
#: Queries whose scores of all documents are in memory at once.
_BLOCK = 256
#: Added to every spread, as a share of 1 + the size of the mean: scores that are all alike divide by
#: something.
_LEAST_SPREAD = 1e-3


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
class _PairsToScore:
    """Judged pairs, then random ones: positions of queries and documents, each int64 (n_pairs,).

    `judged_pair` int64 (n_pairs,) is the position of the judged pair itself, or of the one that a
    random pair is drawn for.  `reference` int64 (n_reference,) are the documents to standardise over.
    """

    queries: np.ndarray
    documents: np.ndarray
    judged_pair: np.ndarray
    reference: np.ndarray
    n_judged: int

    @classmethod
    def of(cls, rows: np.ndarray, rng: np.random.Generator) -> _PairsToScore:
        """The judged pairs int64 (n_judged, 2), and their queries with documents of other pairs."""
        n_judged = len(rows)
        queries, documents = rows.T
        drawn_for = np.repeat(np.arange(n_judged), _DRAWS)
        drawn_queries = queries[drawn_for]
        drawn_documents = documents[rng.integers(n_judged, size=len(drawn_for))]
        # One number per pair, so that a drawn pair that is judged can be left out.
        width = int(documents.max()) + 1
        judged_numbers = np.unique(queries * width + documents)
        is_random = ~np.isin(drawn_queries * width + drawn_documents, judged_numbers)
        n_reference = min(_REFERENCE, _DRAWS * n_judged)
        reference = documents[rng.integers(n_judged, size=n_reference)]
        return cls(
            queries=np.concatenate([queries, drawn_queries[is_random]]),
            documents=np.concatenate([documents, drawn_documents[is_random]]),
            judged_pair=np.concatenate([np.arange(n_judged), drawn_for[is_random]]),
            reference=reference,
            n_judged=n_judged,
        )

    def blocks(self, asking: np.ndarray) -> Iterator[_Block]:
        """All pairs, those of a few askers at a time; `asking` int64 (n_pairs,) asks in each pair."""
        order = np.argsort(asking, kind="stable")
        distinct, starts = np.unique(asking[order], return_index=True)
        stops = np.append(starts[1:], len(order))
        for first in range(0, len(distinct), _BLOCK):
            askers = distinct[first : first + _BLOCK]
            last = first + len(askers) - 1
            pairs = order[starts[first] : stops[last]]
            yield _Block(askers, pairs, np.searchsorted(askers, asking[pairs]))


@dataclass(frozen=True, slots=True)
class _Block:
    """What a few askers ask: `askers` int64 (n_askers,), `pairs` int64 (n_block,) positions of pairs,
    `rows` int64 (n_block,) the position of each pair's asker among the askers."""

    askers: np.ndarray
    pairs: np.ndarray
    rows: np.ndarray


def signals_of(pairs: JudgedPairs, rng: np.random.Generator) -> Signals:
    """All signals of the judged pairs and of random ones."""
    queries, documents = of_length_one(pairs.queries), of_length_one(pairs.documents)
    to_score = _PairsToScore.of(pairs.rows, rng)
    targets = _targets(documents, pairs.rows, len(queries))
    votes = _votes(queries, targets, rng)
    mapped = _mapped(queries, documents, pairs.rows, rng)
    columns = {
        "model": _by_vectors(queries, documents, to_score),
        "neighbours": _by_vectors(votes, documents, to_score),
        "learned": _by_vectors(mapped, documents, to_score),
    }
    pairs_per_query = np.bincount(pairs.rows[:, 0])
    if pairs_per_query.max() > 1:
        columns["others"] = _by_others(documents, pairs.rows, to_score)
    if pairs.words is not None:
        columns["words"] = _by_words(pairs.words, to_score)
    table = np.stack(list(columns.values()), axis=1).astype(np.float32)
    judged, random = table[: to_score.n_judged], table[to_score.n_judged :]
    return Signals(tuple(columns), judged, random, to_score.queries[to_score.n_judged :])


def _targets(documents: np.ndarray, rows: np.ndarray, n_queries: int) -> np.ndarray:
    """The mean document of each query, float32 (n_queries, dimension); zero where it has none."""
    sums = np.zeros((n_queries, documents.shape[1]), np.float32)
    counts = np.zeros((n_queries, 1), np.float32)
    np.add.at(sums, rows[:, 0], documents[rows[:, 1]])
    np.add.at(counts, rows[:, 0], 1)
    means: np.ndarray = sums / np.maximum(counts, 1)
    return means


def _votes(queries: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the nearest other queries are answered by; the nearest count most.

    Takes and gives float32 (n_queries, dimension).
    """
    has_target = np.any(targets != 0, axis=1)
    crowd = np.flatnonzero(has_target)
    if len(crowd) > _CROWD:
        crowd = np.sort(rng.choice(crowd, _CROWD, replace=False))
    n_nearest = min(_NEIGHBOURS, len(crowd) - 1)
    votes = np.zeros_like(targets)
    if n_nearest < 1:
        return votes
    for first in range(0, len(queries), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(queries)))
        cosines = queries[block] @ queries[crowd].T
        is_itself = block[:, None] == crowd[None, :]
        cosines[is_itself] = -np.inf  # no query votes on itself
        nearest = np.argpartition(-cosines, n_nearest - 1, axis=1)[:, :n_nearest]
        nearest_cosines = np.take_along_axis(cosines, nearest, axis=1)
        weights = _softmax(nearest_cosines)
        votes[block] = np.einsum("qk,qkd->qd", weights, targets[crowd[nearest]])
    return votes


def _softmax(cosines: np.ndarray) -> np.ndarray:
    """Weights of each row that add up to 1, the more of them the nearer: (n_rows, n_columns) as given."""
    below_nearest = cosines - cosines.max(axis=1, keepdims=True)
    weights: np.ndarray = np.exp(_SCALE * below_nearest)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _mapped(
    queries: np.ndarray, documents: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Queries under a linear map to documents that was learned without the pairs of those queries.

    Ridge regression around the identity, cross-fitted: a pair never judges itself.
    """
    fold_of_query = rng.permutation(len(queries)) % _FOLDS
    fold_of_pair = fold_of_query[rows[:, 0]]
    centre_of_queries = queries.mean(axis=0)
    centre_of_documents = documents[rows[:, 1]].mean(axis=0)
    mapped = np.zeros_like(queries)
    for fold in range(_FOLDS):
        others = rows[fold_of_pair != fold]
        if not len(others):
            continue
        sources = queries[others[:, 0]] - centre_of_queries
        targets = documents[others[:, 1]] - centre_of_documents
        in_fold = fold_of_query == fold
        mapped[in_fold] = (queries[in_fold] - centre_of_queries) @ _ridge(sources, targets)
    return mapped


def _ridge(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The linear map from sources to targets, both (n_pairs, dimension), that is held to the identity."""
    dimension = sources.shape[1]
    gram = sources.T @ sources
    mean_variance = max(float(np.trace(gram)) / dimension, 1e-6)
    penalty = _RIDGE * mean_variance * np.eye(dimension)
    learned: np.ndarray = np.linalg.solve(gram + penalty, sources.T @ targets + penalty)
    return learned


def _by_vectors(queries: np.ndarray, documents: np.ndarray, pairs: _PairsToScore) -> np.ndarray:
    """Standardised cosines of query and document, float32 (n_pairs,)."""
    return _cosines(queries, pairs.queries, documents, pairs)


def _by_others(documents: np.ndarray, rows: np.ndarray, pairs: _PairsToScore) -> np.ndarray:
    """The same for the other positives of the query; 0 where the judged pair is its only one.

    A random pair is compared with the same others as the judged pair that it is drawn for.
    """
    query_of_pair, document_of_pair = rows.T
    n_queries = int(query_of_pair.max()) + 1
    sums = np.zeros((n_queries, documents.shape[1]), np.float32)
    np.add.at(sums, query_of_pair, documents[document_of_pair])
    others = sums[query_of_pair] - documents[document_of_pair]
    is_only_one = np.bincount(query_of_pair)[query_of_pair] < 2
    others[is_only_one] = 0.0  # not a rest of rounding
    return _cosines(of_length_one(others), pairs.judged_pair, documents, pairs)


def _cosines(
    vectors: np.ndarray, asking: np.ndarray, documents: np.ndarray, pairs: _PairsToScore
) -> np.ndarray:
    """Standardised cosines of `vectors`, float32 (n_vectors, dimension), and documents.

    `asking` int64 (n_pairs,) says which of the vectors stands for the query of each pair.
    """
    scores = np.empty(len(asking), np.float32)
    reference = documents[pairs.reference].T
    for block in pairs.blocks(asking):
        asked_for = documents[pairs.documents[block.pairs]]
        asking_vectors = vectors[block.askers]
        cosines = np.einsum("ij,ij->i", asking_vectors[block.rows], asked_for)
        scores[block.pairs] = _standardised(cosines, asking_vectors @ reference, block.rows)
    return scores


def _by_words(words: Words, pairs: _PairsToScore) -> np.ndarray:
    """The same for exact words; a document without any of them scores 0 before it is standardised."""
    scores = np.empty(len(pairs.queries), np.float32)
    for block in pairs.blocks(pairs.queries):
        of_all_documents = np.maximum(words(block.askers), 0.0)
        own = of_all_documents[block.rows, pairs.documents[block.pairs]]
        reference = of_all_documents[:, pairs.reference]
        scores[block.pairs] = _standardised(own, reference, block.rows)
    return scores


def _standardised(scores: np.ndarray, reference: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n_pairs,) scores less the mean of their query's reference, in its standard deviations.

    `reference` is (n_queries, n_reference), `rows` int64 (n_pairs,) the query of each score.
    """
    means = reference.mean(axis=1)
    spreads = reference.std(axis=1) + _LEAST_SPREAD * (1 + np.abs(means))
    standardised: np.ndarray = (scores - means[rows]) / spreads[rows]
    return standardised
