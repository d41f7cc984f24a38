"""What a language model would read of a pipeline's results: documents, or their chunks as searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nearer.diagnosis.passages import answer_spans
from nearer.measure.context import ContextEvidence, Piece, budget_of, is_context
from nearer.measure.metrics import Scores, score
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.text import Span
from nearer.types import Document, Query, Run, Split


def measured(
    systems: Systems, pipeline: Pipeline, run: Run, split: Split, measures: Sequence[str]
) -> Scores:
    """`score`, with the texts of the results where a measure of contexts is among the names."""
    budget = max(map(budget_of, filter(is_context, measures)), default=0)
    contexts = None
    if budget:
        contexts = Contexts.of(systems, pipeline).evidence(run, split, budget)
    return score(run, split, measures, systems.item_to_item, contexts)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Pieces of a pipeline's results: of each document the chunks nearest to the query, in their order.

    A system that searches whole documents gives whole documents.
    """

    systems: Systems
    pipeline: Pipeline
    chunks: int  # of one document, at most

    @classmethod
    def of(cls, systems: Systems, pipeline: Pipeline) -> Contexts:
        return cls(systems, pipeline, systems.config.evaluate.context_chunks)

    def evidence(self, run: Run, split: Split, budget: int) -> dict[str, ContextEvidence]:
        """Query id → what fits so many tokens, and what should be in it."""
        pieces = self.pieces(run, split.queries, budget)
        evidence = {}
        for query in split.queries:
            relevant = frozenset(split.relevant(query.id))
            if self.systems.item_to_item:
                relevant -= {query.id}
            gold = gold_spans(self.systems, query, relevant)
            evidence[query.id] = ContextEvidence(pieces[query.id], relevant, gold)
        return evidence

    def pieces(self, run: Run, queries: Sequence[Query], budget: int) -> dict[str, list[Piece]]:
        """Query id → pieces in the order of its results, as many as reach the budget of tokens."""
        vectors: np.ndarray | None = None
        if self._is_chunked:
            encoder = self.systems.encoder_of(self.pipeline.model)
            vectors = encoder.encode([query.text for query in queries], "query")
        pieces = {}
        for row, query in enumerate(queries):
            vector = None if vectors is None else vectors[row]
            kept: list[Piece] = []
            tokens = 0
            for piece in self._in_order(run, query, vector):
                if tokens >= budget:
                    break
                kept.append(piece)
                tokens += piece.tokens
            pieces[query.id] = kept
        return pieces

    @property
    def _is_chunked(self) -> bool:
        """Whether chunks are searched: learned sparse models search whole documents."""
        pipeline = self.pipeline
        if not pipeline.dense or self.systems.sparse(pipeline.model) is not None:
            return False
        return self.systems.chunked(pipeline.chunker, pipeline.model) is not None

    def _in_order(self, run: Run, query: Query, vector: np.ndarray | None) -> Iterator[Piece]:
        for doc_id, _ in run.results.get(query.id, ()):
            document = self.systems.corpus.get(doc_id)
            if document is None:
                continue
            if vector is None:
                content = document.content
                yield Piece(doc_id, 0, len(content), content)
            else:
                yield from self._nearest(document, vector)

    def _nearest(self, document: Document, vector: np.ndarray) -> list[Piece]:
        """The chunks of a document that are nearest to a query, in the order of the text."""
        pipeline = self.pipeline
        chunked = self.systems.chunked(pipeline.chunker, pipeline.model)
        if chunked is None:
            raise ValueError("this pipeline searches no chunks")
        position = self.systems.corpus.position(document.id)
        first, stop = np.searchsorted(chunked.owners, (position, position + 1)).tolist()
        similarities = self.systems.text_vectors(pipeline)[first:stop] @ vector
        nearest = np.argsort(-similarities, kind="stable")[: self.chunks]
        pieces = []
        for row in sorted((first + nearest).tolist()):
            start, end = chunked.spans[row].tolist()
            pieces.append(Piece(document.id, start, end, chunked.texts[row]))
        return pieces


def gold_spans(
    systems: Systems, query: Query, relevant: frozenset[str]
) -> dict[str, Sequence[Span]]:
    """Where in the relevant documents the query's gold spans lie; empty where it has none."""
    if not query.gold_spans:
        return {}
    spans: dict[str, Sequence[Span]] = {}
    for doc_id in sorted(relevant):
        document = systems.corpus.get(doc_id)
        if document is not None:
            found = answer_spans(query, document)
            if found:
                spans[doc_id] = found
    return spans
