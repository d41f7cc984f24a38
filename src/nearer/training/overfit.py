"""How much better a model does on queries that it trained on than on dev: the gap of overfitting."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.embed.encoder import Kind, SentenceEncoder
from nearer.measure.significance import mean_interval
from nearer.training.examples import TrainingSet
from nearer.training.looks import Judge
from nearer.types import Document, Query, Split


@dataclass(frozen=True, slots=True)
class Final:
    """The final model on dev, per query, and on as many of its training queries."""

    dev: float
    per_query: np.ndarray  # of `dev`, float64 (n_queries,)
    interval: tuple[float, float]  # of `dev`, 95%
    train: float
    beside: float  # dev once more, over the documents that `train` was measured on
    queries: int  # of training

    def gap(self) -> dict[str, Any]:
        """The key `gap` of `train/summary.json`."""
        return {
            "train": round(self.train, 6),
            "dev": round(self.beside, 6),
            "gap": round(self.train - self.beside, 6),
            "queries": self.queries,
        }


def final_look(
    encoder: SentenceEncoder, judge: Judge, rows: TrainingSet, rng: np.random.Generator
) -> Final:
    """One more evaluation of the model that is kept; its documents are encoded once for all of it.

    The training queries are drawn at random, as many as dev has where there are so many.  Their
    relevant documents join those that dev is judged over, and both are measured over all of them,
    so that neither has fewer distractors.
    """
    remembering: Any = _Remembering(encoder)
    dev = judge.values(remembering)
    training, pool = _training_queries(rows, judge, rng)
    train = replace(judge, pool=pool, dev=training).values(remembering)
    beside = dev
    if len(pool) > len(judge.pool):
        beside = replace(judge, pool=pool).values(remembering)
    bounds = mean_interval(dev)
    return Final(
        dev=float(np.mean(dev)),
        per_query=dev,
        interval=(bounds.low, bounds.high),
        train=float(np.mean(train)),
        beside=float(np.mean(beside)),
        queries=len(training),
    )


def _training_queries(
    rows: TrainingSet, judge: Judge, rng: np.random.Generator
) -> tuple[Split, Corpus]:
    """Training queries with their positives, and the judge's documents with those positives."""
    ids = {document.content: document.id for document in judge.pool}
    positives: dict[int, set[int]] = {}
    for query, positive, _ in rows.rows:
        positives.setdefault(query, set()).add(positive)
    trained = sorted(positives)
    order = rng.permutation(len(trained))[: len(judge.dev.queries)]
    added: list[Document] = []
    queries: list[Query] = []
    judgments: dict[str, dict[str, int]] = {}
    for query in (trained[position] for position in sorted(order)):
        query_id = f"training-{query}"
        if judge.item_to_item:  # the query is a document, which is left out of its own results
            query_id = ids.get(rows.queries[query], query_id)
        queries.append(Query(query_id, rows.queries[query]))
        judgments[query_id] = {}
        for positive in sorted(positives[query]):
            text = rows.documents[positive]
            if text not in ids:
                ids[text] = f"training-{positive}"
                added.append(Document(ids[text], text))
            judgments[query_id][ids[text]] = 1
    pool = judge.pool
    if added:
        pool = Corpus.from_documents([*judge.pool, *added])
    return Split("train", tuple(queries), judgments), pool


class _Remembering:
    """An encoder that encodes each text once."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder.without_cache()
        self._vectors: dict[tuple[Kind, str], np.ndarray] = {}
        self.fingerprint = encoder.fingerprint
        self.similarity = encoder.similarity
        self.dimension = encoder.dimension

    def without_cache(self) -> _Remembering:
        return copy(self)

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        missing = list(dict.fromkeys(text for text in texts if (kind, text) not in self._vectors))
        if missing:
            for text, vector in zip(missing, self._encoder.encode(missing, kind), strict=True):
                self._vectors[kind, text] = vector
        return np.stack([self._vectors[kind, text] for text in texts])
