"""Which chunk of a document an example is about, where chunks are searched.

A positive is the chunk that holds the gold span; without one, the chunk on which the base model and
BM25 agree; where they disagree, the chunks that the base model finds nearly as near as the nearest,
with weights that sum to 1.  A negative is the chunk that finds its document.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nearer.data.corpus import Corpus
from nearer.diagnosis.passages import answer_spans
from nearer.errors import DataError
from nearer.search.chunkers import Chunked
from nearer.search.lexical import BM25
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Document, Passage, Query, Split

GOLD = "gold span"
AGREED = "judged, base and BM25 agree"
SHARED = "judged, shared"
ALONE = "judged"
#: A chunk shares the weight of a positive from this share of the nearest chunk's similarity on.
_NEARLY = 0.9
#: Inverse temperature of the weights: that of the contrastive loss.
_SCALE = 20.0


class Chunks:
    """The chunks of the baseline's chunker, scored for the training queries."""

    def __init__(self, systems: Systems, train: Split, model: str | None = None) -> None:
        """Chunks and vectors of a model (None: today's).  Raises ValueError without a chunker."""
        chunker = systems.config.search.chunker
        chunked = systems.chunked(chunker, model)
        if chunked is None:
            raise ValueError(f"{chunker} cuts no document")
        self._chunked: Chunked = chunked
        self._corpus = systems.corpus
        self._vectors = systems.text_vectors(Pipeline(model=model, chunker=chunker))
        texts = [query.text for query in train.queries]
        self._queries = systems.encoder_of(model).encode(texts, "query")
        self._rows = {query.id: row for row, query in enumerate(train.queries)}
        self._train = train
        self._most = systems.config.mine.passages
        self._stopwords = systems.config.search.stopwords
        self._stemmer = systems.config.search.stemmer

    def similarity(self, query_id: str, doc_ids: Sequence[str]) -> np.ndarray:
        """float32 (n_documents,): that of the nearest chunk of each, as in a search."""
        nearest = [self._scores(query_id, doc_id).max() for doc_id in doc_ids]
        return np.array(nearest, np.float32)

    def nearest(self, query_id: str, doc_id: str) -> Passage:
        """The chunk that finds a document for a query."""
        first, _ = self._span(doc_id)
        return self._passage(first + int(np.argmax(self._scores(query_id, doc_id))))

    def answering(self, query: Query, doc_id: str) -> list[tuple[Passage | None, float, str]]:
        """The chunks that a positive stands for, their weights (which sum to 1), and why they."""
        first, stop = self._span(doc_id)
        if stop - first == 1:
            return [(self._passage(first), 1.0, ALONE)]
        document = self._corpus.get(doc_id)
        golden = [] if document is None else self._golden(query, document, first, stop)
        if golden:
            share = 1.0 / len(golden)
            return [(self._passage(row), share, GOLD) for row in golden]
        scores = self._scores(query.id, doc_id)
        nearest = int(np.argmax(scores))
        if nearest == self._best_by_words(query, first, stop):
            return [(self._passage(first + nearest), 1.0, AGREED)]
        return self._shared(scores, first)

    def _shared(self, scores: np.ndarray, first: int) -> list[tuple[Passage | None, float, str]]:
        best = float(scores.max())
        threshold = best - (1.0 - _NEARLY) * abs(best)
        near = [row for row in np.argsort(-scores, kind="stable") if scores[row] >= threshold]
        near = near[: self._most]
        weights = np.exp(_SCALE * (scores[near] - best))
        weights /= weights.sum()
        shared: list[tuple[Passage | None, float, str]] = []
        for row, weight in zip(near, weights.tolist(), strict=True):
            shared.append((self._passage(first + int(row)), weight, SHARED))
        return shared

    def _golden(self, query: Query, document: Document, first: int, stop: int) -> list[int]:
        """The chunk that holds most of each gold span, each chunk once."""
        rows: list[int] = []
        spans = self._chunked.spans[first:stop]
        for start, end in answer_spans(query, document):
            shared = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], start)
            row = int(np.argmax(shared))
            if shared[row] > 0 and first + row not in rows:
                rows.append(first + row)
        return rows

    def _best_by_words(self, query: Query, first: int, stop: int) -> int | None:
        """The chunk that BM25 likes best, from the first one on; None where no word is shared."""
        if self._words is None:
            return None
        index, places = self._words
        place = places[first]
        scores = index.score([query])[0][place : place + stop - first]
        best = int(np.argmax(scores))
        return best if np.isfinite(scores[best]) else None

    @cached_property
    def _words(self) -> tuple[BM25, dict[int, int]] | None:
        """BM25 over the chunks of the training positives, and the place of each document's first.

        None where they have no word at all.
        """
        positions: dict[int, None] = {}
        for query in self._train.queries:
            for doc_id in self._train.relevant(query.id):
                if doc_id in self._corpus:
                    positions[self._corpus.position(doc_id)] = None
        places: dict[int, int] = {}
        documents: list[Document] = []
        for position in positions:
            first = int(self._chunked.starts[position])
            places[first] = len(documents)
            for number, text in enumerate(self._chunked.of(position)):
                documents.append(Document(f"{position}:{number}", text))
        try:
            index = BM25(Corpus.from_documents(documents), self._stemmer, self._stopwords)
        except DataError:
            return None
        return index, places

    def _span(self, doc_id: str) -> tuple[int, int]:
        """The rows of a document's chunks, from first to stop."""
        position = self._corpus.position(doc_id)
        first = int(self._chunked.starts[position])
        if position + 1 < len(self._chunked.starts):
            return first, int(self._chunked.starts[position + 1])
        return first, len(self._chunked.owners)

    def _scores(self, query_id: str, doc_id: str) -> np.ndarray:
        first, stop = self._span(doc_id)
        scores: np.ndarray = self._vectors[first:stop] @ self._queries[self._rows[query_id]]
        return scores

    def _passage(self, row: int) -> Passage:
        start, end = self._chunked.spans[row].tolist()
        text = self._chunked.texts[row]
        content = self._corpus[int(self._chunked.owners[row])].content
        if text == content[start:end]:
            return Passage(start, end)
        return Passage(start, end, text)
