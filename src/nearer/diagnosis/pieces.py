"""Finer pieces of a document and of its nearest competitors, and repairs that work only together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearer import progress
from nearer.diagnosis.values import Pair
from nearer.search import ranking
from nearer.search.chunkers import make_chunker
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Query

#: A filter: its label, and which documents satisfy it, bool (n_documents,)
Mask = tuple[str, np.ndarray]
#: Pair → filters that its document satisfies.
Filters = Mapping[Pair, Sequence[Mask]]

_DECIMALS = 6  # as in dense search, so that equal texts tie
_RRF_K = 60  # constant of reciprocal rank fusion


@dataclass(frozen=True, slots=True)
class Ways:
    """Ranks of one document: per way to cut it, and per combination."""

    alone: dict[str, int | None] = field(default_factory=dict)
    combined: dict[str, int | None] = field(default_factory=dict)


class Pieces:
    """Ranks documents by their best piece, within pools of competitors that are cut alike.

    `pools` are query id → ids of the documents that compete, `specs` the chunkers to try, `plain`
    the exact dense search whose filters hold here too.
    """

    def __init__(
        self,
        systems: Systems,
        plain: Pipeline,
        specs: Sequence[str],
        pools: Mapping[str, Sequence[str]],
    ) -> None:
        self._systems = systems
        self._corpus = systems.corpus
        self._encoder = systems.encoder
        self._specs = specs
        self._pools = pools
        self._eligible = systems.eligible(plain.filters)
        self._words = systems.scorer(Pipeline("bm25", filters=plain.filters))
        competing: set[int] = set()
        for pool in pools.values():
            competing.update(map(self._corpus.position, pool))
        #: Position in the corpus → row among all competitors, in the order of the corpus.
        self._row = {position: row for row, position in enumerate(sorted(competing))}

    def among(self, query_id: str) -> int | None:
        """How many documents compete; None where the whole corpus does."""
        size = len(self._pools[query_id])
        if size == len(self._corpus):
            return None
        return size

    def ranks(
        self, queries: Sequence[Query], pairs: Sequence[Pair], filters: Filters
    ) -> Iterator[tuple[Pair, Ways]]:
        """Every pair with its ranks; `filters` are some that its document satisfies."""
        wanted: dict[str, list[str]] = defaultdict(list)
        for query_id, doc_id in pairs:
            wanted[query_id].append(doc_id)
        pools = self._pools_of(queries)
        texts = [query.text for query in queries]
        vectors = self._encoder.encode(texts, "query")
        ways: dict[Pair, Ways] = {pair: Ways() for pair in pairs}
        for spec in self._specs:
            pieces, starts = self._cut(spec)
            for query, vector in zip(queries, vectors, strict=True):
                best = np.maximum.reduceat(pieces @ vector, starts)
                pool = pools[query.id]
                scores = np.round(best, _DECIMALS)[pool.rows]
                for doc_id in wanted[query.id]:
                    pair = (query.id, doc_id)
                    own_filters = filters.get(pair, ())
                    pool.rank(spec, doc_id, scores, own_filters, ways[pair])
        yield from ways.items()

    def _pools_of(self, queries: Sequence[Query]) -> dict[str, _Pool]:
        """Query id → its competitors, with their scores by words."""
        pools = {}
        for query, scores in ranking.blocks(self._words, queries):
            positions = self._positions(query)
            ids = [self._corpus.ids[position] for position in positions]
            rows = [self._row[position] for position in positions]
            words = scores[positions]
            pools[query.id] = _Pool(ids, positions, np.array(rows, dtype=np.int64), words)
        return pools

    def _positions(self, query: Query) -> np.ndarray:
        """Positions in the corpus of the competitors that the baseline's filters let through, int64."""
        pool = self._pools[query.id]
        positions = np.array(list(map(self._corpus.position, pool)), dtype=np.int64)
        if self._eligible is None:
            return positions
        mask = self._eligible(query)
        if mask is None:
            return positions
        return positions[mask[positions]]

    def _cut(self, spec: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the pieces of all competitors, and the first piece of each."""
        chunker = make_chunker(spec, self._encoder.token_spans, self._systems.root)
        texts: list[str] = []
        starts: list[int] = []
        with progress.task(f"cutting competitors: {spec}", len(self._row), "documents") as bar:
            for position in self._row:
                starts.append(len(texts))
                document = self._corpus[position]
                texts += [chunk.text for chunk in chunker.chunk(document)]
                bar.advance()
        vectors = self._encoder.encode(texts, "document")
        return vectors, np.array(starts, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Documents that compete for a query.

    `positions` are theirs in the corpus, `rows` theirs among all competitors, both int64
    (n_competitors,); `words` are their scores by words, float32 (n_competitors,).
    """

    ids: list[str]
    positions: np.ndarray
    rows: np.ndarray
    words: np.ndarray

    def rank(
        self,
        spec: str,
        doc_id: str,
        pieces: np.ndarray,
        filters: Sequence[Mask],
        ways: Ways,
    ) -> None:
        """Write the ranks of a document into `ways`: by pieces alone, with words, with filters.

        `pieces` are the scores of every competitor's best piece, float32 (n_competitors,).
        """
        if doc_id not in self.ids:  # a filter that the baseline applies excludes it
            return
        row = self.ids.index(doc_id)
        order = ranking.Order(self.ids)
        ways.alone[spec] = order.rank(pieces, row)
        ways.combined[f"{spec} + bm25"] = order.rank(self._fused(order, pieces), row)
        for label, mask in filters:
            inside = mask[self.positions]
            narrowed = np.where(inside, pieces, -np.inf)
            ways.combined[f"{label} + {spec}"] = order.rank(narrowed, row)
            narrowed = np.where(inside, self.words, -np.inf)
            ways.combined[f"{label} + bm25"] = order.rank(narrowed, row)

    def _fused(self, order: ranking.Order, pieces: np.ndarray) -> np.ndarray:
        """Reciprocal ranks by pieces and by words, added up."""
        size = len(self.ids)
        fused = np.zeros(size)
        row_of = {doc_id: row for row, doc_id in enumerate(self.ids)}
        for scores in (pieces, self.words):
            hits = order.top(scores, size)
            for rank, (doc_id, _) in enumerate(hits, start=1):
                row = row_of[doc_id]
                fused[row] += 1.0 / (_RRF_K + rank)
        return fused
