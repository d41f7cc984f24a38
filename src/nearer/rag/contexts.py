"""What a language model would read of a pipeline's results: documents, or their chunks as searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nearer.diagnosis.passages import answer_spans
from nearer.measure.context import ContextEvidence, Piece, budget_of, is_context
from nearer.measure.metrics import Scores, score
from nearer.search.chunkers import Chunked
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
    neighbours: int = 0  # chunks before and after each that are read with it

    @classmethod
    def of(cls, systems: Systems, pipeline: Pipeline) -> Contexts:
        settings = systems.config.evaluate
        return cls(systems, pipeline, settings.context_chunks, settings.context_neighbours)

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
        """The chunks of a document that are nearest to a query, in the order of the text.

        With their neighbours, chunks that follow each other are one piece, without the overlap.
        """
        pipeline = self.pipeline
        chunked = self.systems.chunked(pipeline.chunker, pipeline.model)
        if chunked is None:
            raise ValueError("this pipeline searches no chunks")
        position = self.systems.corpus.position(document.id)
        first, stop = np.searchsorted(chunked.owners, (position, position + 1)).tolist()
        similarities = self.systems.text_vectors(pipeline)[first:stop] @ vector
        nearest = np.argsort(-similarities, kind="stable")[: self.chunks]
        rows: set[int] = set()
        for row in (first + nearest).tolist():
            lowest, highest = row - self.neighbours, row + self.neighbours
            rows.update(range(max(first, lowest), min(stop - 1, highest) + 1))
        groups = [[row] for row in sorted(rows)]
        if self.neighbours:
            groups = _consecutive(sorted(rows))
        return [_piece(document, chunked, group) for group in groups]


def _consecutive(rows: Sequence[int]) -> list[list[int]]:
    """Sorted numbers in groups of those that follow each other without a gap."""
    groups: list[list[int]] = []
    for row in rows:
        if groups and row == groups[-1][-1] + 1:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _piece(document: Document, chunked: Chunked, rows: Sequence[int]) -> Piece:
    """Chunks of a document that follow each other, as one piece of its text."""
    spans = chunked.spans[list(rows)]
    start, end = int(spans[:, 0].min()), int(spans[:, 1].max())
    text = chunked.texts[rows[0]]
    if len(rows) > 1:
        own = document.content[slice(*spans[0].tolist())]
        title = text.removesuffix(own) if text.endswith(own) else ""
        text = f"{title}{document.content[start:end]}"
    return Piece(document.id, start, end, text)


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
