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

#: Pair → filters that its document satisfies, each a label and a mask: bool (n_documents,)
Filters = Mapping[Pair, Sequence[tuple[str, np.ndarray]]]

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
        self._systems, self._specs, self._pools = systems, specs, pools
        self._eligible = systems.eligible(plain.filters)
        self._words = systems.scorer(Pipeline("bm25", filters=plain.filters))
        competing: set[int] = set()
        for pool in pools.values():
            competing.update(systems.corpus.position(doc_id) for doc_id in pool)
        #: Position in the corpus → row among all competitors, in the order of the corpus.
        self._row = {position: row for row, position in enumerate(sorted(competing))}

    def among(self, query_id: str) -> int | None:
        """How many documents compete; None where the whole corpus does."""
        size = len(self._pools[query_id])
        return None if size == len(self._systems.corpus) else size

    def ranks(
        self, queries: Sequence[Query], pairs: Sequence[Pair], filters: Filters
    ) -> Iterator[tuple[Pair, Ways]]:
        """Every pair with its ranks; `filters` are some that its document satisfies."""
        wanted: dict[str, list[str]] = defaultdict(list)
        for query_id, doc_id in pairs:
            wanted[query_id].append(doc_id)
        pools = self._pools_of(queries)
        vectors = self._systems.encoder.encode([query.text for query in queries], "query")
        ways: dict[Pair, Ways] = {pair: Ways() for pair in pairs}
        for spec in self._specs:
            pieces, starts = self._cut(spec)
            for query, vector in zip(queries, vectors, strict=True):
                best = np.round(np.maximum.reduceat(pieces @ vector, starts), _DECIMALS)
                pool = pools[query.id]
                scores = best[pool.rows]
                for doc_id in wanted[query.id]:
                    pair = (query.id, doc_id)
                    pool.rank(spec, doc_id, scores, filters.get(pair, ()), ways[pair])
        yield from ways.items()

    def _pools_of(self, queries: Sequence[Query]) -> dict[str, _Pool]:
        """Query id → its competitors, with their scores by words."""
        pools = {}
        for query, scores in ranking.blocks(self._words, queries):
            positions = self._positions(query)
            ids = [self._systems.corpus.ids[position] for position in positions]
            rows = np.array([self._row[position] for position in positions], dtype=np.int64)
            pools[query.id] = _Pool(ids, positions, rows, scores[positions])
        return pools

    def _positions(self, query: Query) -> np.ndarray:
        """Positions in the corpus of the competitors that the baseline's filters let through, int64."""
        position = self._systems.corpus.position
        pool = self._pools[query.id]
        positions = np.array([position(doc_id) for doc_id in pool], dtype=np.int64)
        mask = None if self._eligible is None else self._eligible(query)
        return positions if mask is None else positions[mask[positions]]

    def _cut(self, spec: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the pieces of all competitors, and the first piece of each."""
        systems = self._systems
        chunker = make_chunker(spec, systems.encoder.token_spans, systems.root)
        texts: list[str] = []
        starts: list[int] = []
        with progress.task(f"cutting competitors: {spec}", len(self._row), "documents") as bar:
            for position in self._row:
                starts.append(len(texts))
                texts.extend(chunk.text for chunk in chunker.chunk(systems.corpus[position]))
                bar.advance()
        return systems.encoder.encode(texts, "document"), np.array(starts, dtype=np.int64)


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
        filters: Sequence[tuple[str, np.ndarray]],
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
        fused = np.zeros(len(self.ids))
        row_of = {doc_id: row for row, doc_id in enumerate(self.ids)}
        for scores in (pieces, self.words):
            for rank, (doc_id, _) in enumerate(order.top(scores, len(self.ids)), start=1):
                fused[row_of[doc_id]] += 1.0 / (_RRF_K + rank)
        return fused
