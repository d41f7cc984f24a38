"""Finer pieces of a document and of its nearest competitors, and repairs that work only together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearer import progress
from nearer.search import ranking
from nearer.search.chunkers import make_chunker
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Query

Pair = tuple[str, str]  # query id, document id
#: Pair → filters that the document satisfies, each with its name: bool (n_documents,)
Masks = Mapping[Pair, Sequence[tuple[str, np.ndarray]]]

_DECIMALS = 6  # as in dense search, so that equal texts tie


@dataclass(frozen=True, slots=True)
class Ways:
    """Ranks of one document: under each way to cut, and under each combination."""

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
        used = sorted({systems.corpus.position(d) for pool in pools.values() for d in pool})
        self._row = {position: row for row, position in enumerate(used)}

    def among(self, query_id: str) -> int | None:
        """How many documents compete; None where the whole corpus does."""
        size = len(self._pools[query_id])
        return None if size == len(self._systems.corpus) else size

    def ranks(
        self, queries: Sequence[Query], pairs: Sequence[Pair], masks: Masks
    ) -> Iterator[tuple[Pair, Ways]]:
        """Every pair with its ranks; `masks` are filters that its document satisfies."""
        found: dict[Pair, Ways] = defaultdict(Ways)
        wanted: dict[str, list[str]] = defaultdict(list)
        for query_id, doc_id in pairs:
            wanted[query_id].append(doc_id)
        words: dict[str, np.ndarray] = {}
        for query, row in ranking.blocks(self._words, queries):
            words[query.id] = row[self._positions(query)]
        asked = self._systems.encoder.encode([query.text for query in queries], "query")
        for spec in self._specs:
            vectors, starts = self._cut(spec)
            for query, vector in zip(queries, asked, strict=True):
                best = np.round(np.maximum.reduceat(vectors @ vector, starts), _DECIMALS)
                pool = self._pool(query, best, words[query.id])
                for doc_id in wanted[query.id]:
                    pair = (query.id, doc_id)
                    pool.add(spec, doc_id, found[pair], masks.get(pair, ()))
        yield from ((pair, found[pair]) for pair in pairs)

    def _positions(self, query: Query) -> np.ndarray:
        """Where the competitors that today's filters let through stand in the corpus, int64."""
        position = self._systems.corpus.position
        positions = np.array([position(d) for d in self._pools[query.id]], dtype=np.int64)
        mask = None if self._eligible is None else self._eligible(query)
        return positions if mask is None else positions[mask[positions]]

    def _pool(self, query: Query, best: np.ndarray, words: np.ndarray) -> _Pool:
        """The competitors of a query with their scores; `best` is the best piece of every document."""
        positions = self._positions(query)
        ids = [self._systems.corpus.ids[position] for position in positions]
        rows = [self._row[position] for position in positions.tolist()]
        return _Pool(ids, positions, best[rows], words)

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
    """Documents that compete for a query: ids, positions in the corpus, scores by pieces and words."""

    ids: list[str]
    positions: np.ndarray
    pieces: np.ndarray
    words: np.ndarray

    def add(
        self, spec: str, doc_id: str, ways: Ways, filters: Sequence[tuple[str, np.ndarray]]
    ) -> None:
        """Write down the ranks of a document under one way to cut, alone and combined."""
        if doc_id not in self.ids:  # a filter that today's system applies excludes it
            return
        own = self.ids.index(doc_id)
        order = ranking.Order(self.ids)
        ways.alone[spec] = order.rank(self.pieces, own)
        fused = self._fused(order)
        ways.combined[f"{spec} + bm25"] = order.rank(fused, own)
        for label, mask in filters:
            inside = mask[self.positions]
            narrowed = np.where(inside, self.pieces, -np.inf)
            ways.combined[f"{label} + {spec}"] = order.rank(narrowed, own)
            both = np.where(inside, self.words, -np.inf)
            ways.combined[f"{label} + bm25"] = order.rank(both, own)

    def _fused(self, order: ranking.Order, k: int = 60) -> np.ndarray:
        """Reciprocal ranks by pieces and by words, added up."""
        fused = np.zeros(len(self.ids))
        place = {doc_id: row for row, doc_id in enumerate(self.ids)}
        for scores in (self.pieces, self.words):
            for rank, (doc_id, _) in enumerate(order.top(scores, len(self.ids)), start=1):
                fused[place[doc_id]] += 1.0 / (k + rank)
        return fused
