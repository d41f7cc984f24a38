"""How stores search: by scanning all that a filter leaves, or through an engine that finds near chunks.

Scores are computed here from the stored vectors, so that they are the same in every store, and
chunks become documents by their best score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nearer.embed.fingerprint import Vectors
from nearer.live.stores.common import Store
from nearer.live.stores.space import Space
from nearer.live.stores.terms import Clauses
from nearer.live.stores.vectors import decode, fit
from nearer.types import Hit, rank_hits

#: Document ids and vectors in stored form, row by row.
Candidates = tuple[list[str], np.ndarray]
#: Stored forms that engines cannot score themselves: they find candidates by their signs.
LOSSY = ("int8", "binary")
#: As in search/dense.py: equal texts tie wherever they stand.
DECIMALS = 6
GOOD_RECALL = 0.99
_SAMPLE = 100  # queries that an index is tuned on
_GROWTH = 4  # how many more chunks are fetched where documents are not certain yet


class ScannedStore(Store):
    """A store that searches exactly, over all chunks that a filter leaves."""

    @abstractmethod
    def _stored(self, space: Space, wanted: Clauses) -> Iterable[Candidates]:
        """All chunks that have a term of every clause, in batches."""

    def _search(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool
    ) -> list[list[Hit]]:
        return scan_search(space, self._stored(space, wanted), queries, k)


class IndexedStore(Store):
    """A store whose engine finds the chunks that are nearest to a query, exactly or through its index."""

    #: Below this many chunks (all, or those that a filter leaves) exact search is quick enough to need no index.
    exact_below = 20_000
    efforts = 10  # how often the effort is doubled while an index is tuned

    @abstractmethod
    def _effort(self, space: Space) -> int | None:
        """How hard the approximate index searches, 0 and up, as tuned; None without such an index."""

    @abstractmethod
    def _eligible(self, space: Space, wanted: Clauses) -> int:
        """How many chunks have a term of every clause; any number above `exact_below` may stand for more."""

    @abstractmethod
    def _nearest(
        self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None
    ) -> list[Candidates]:
        """The n best chunks of each query, best first; by an exact search where `effort` is None."""

    def _search(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool
    ) -> list[list[Hit]]:
        effort = None if exact else self._usable_effort(space, wanted)
        return self._gather(space, queries, k, wanted, effort)

    def _usable_effort(self, space: Space, wanted: Clauses) -> int | None:
        """The tuned effort; None where nothing is indexed, or a filter leaves little.

        An approximate index loses what a narrow filter leaves.
        """
        effort = self._effort(space)
        if effort is None or not wanted:
            return effort
        if self._eligible(space, wanted) <= self.exact_below:
            return None
        return effort

    def _gather(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, effort: int | None
    ) -> list[list[Hit]]:
        """Documents out of an engine that finds chunks: fetch more until `k` documents are certain.

        Lossy vectors are found by their signs, so that more of them are rescored as the effort rises.
        """
        hits: list[list[Hit]] = [[] for _ in queries]
        pending = list(range(len(queries)))
        n = k * 4
        if space.dtype in LOSSY:
            n <<= effort or 0
        while pending:
            candidates = self._nearest(space, queries[pending], n, wanted, effort)
            unsettled = []
            for row, (doc_ids, stored) in zip(pending, candidates, strict=True):
                scores = np.round(decode(space, stored) @ queries[row], DECIMALS)
                hits[row] = collapse(doc_ids, scores, k)
                # an exact search also looks at all that tie with the last document
                certain = len(hits[row]) == k and (
                    effort is not None or _clearly_below(space, scores[-1], hits[row][-1][1])
                )
                if not certain and len(doc_ids) >= n:
                    unsettled.append(row)
            pending = unsettled
            n *= _GROWTH
        return hits

    def _tune(
        self, space: Space, sample: Vectors | None, remember: Callable[[int], None]
    ) -> dict[str, Any]:
        """Raise the effort until recall@10 against exact search on a sample reaches GOOD_RECALL."""
        if sample is None:
            sample = self._noisy_documents(space)
        queries = fit(space, sample, self.address)[:_SAMPLE]
        truth = self._search(space, queries, 10, [], exact=True)
        for effort in range(self.efforts):
            hits = self._gather(space, queries, 10, [], effort)
            recall = _share_found(hits, truth)
            if recall >= GOOD_RECALL:
                break
        remember(effort)
        return {"effort": effort, "recall@10": round(recall, 4), "queries": len(queries)}

    def _noisy_documents(self, space: Space) -> Vectors:
        """Stand-ins for queries: documents of the store plus noise as long as their vectors.

        That is as far (cosine .7) as queries often stand; documents themselves would be too easy.
        """
        rng = np.random.default_rng(7)
        array = self.fetch(space, self._some_documents(space, rng, _SAMPLE)).vectors.array
        lengths = np.linalg.norm(array, axis=1, keepdims=True)
        noise = rng.normal(size=array.shape) * lengths / space.dimension**0.5
        return Vectors(array + noise, space.fingerprint)

    def _some_documents(self, space: Space, rng: np.random.Generator, most: int) -> list[str]:
        """Ids of at most so many documents, drawn by chance."""
        doc_ids = sorted(self.hashes(space))
        rows = rng.choice(len(doc_ids), min(most, len(doc_ids)), replace=False)
        return [doc_ids[row] for row in rows]


def scan_search(
    space: Space, batches: Iterable[Candidates], queries: np.ndarray, k: int
) -> list[list[Hit]]:
    """The `k` best documents of each query (n, space.dimension) over batches of stored chunks."""
    hits: list[list[Hit]] = [[] for _ in queries]
    for doc_ids, stored in batches:
        scores = np.round(queries @ decode(space, stored).T, DECIMALS)
        for row, best in enumerate(hits):
            known_ids = [doc_id for doc_id, _ in best]
            known_scores = [score for _, score in best]
            joined = np.append(known_scores, scores[row])
            hits[row] = collapse([*known_ids, *doc_ids], joined, k)
    return hits


def collapse(doc_ids: Sequence[str], scores: np.ndarray, k: int) -> list[Hit]:
    """The `k` best documents by their best chunk, in canonical order."""
    best: dict[str, float] = {}
    for row in np.argsort(-scores, kind="stable"):
        if len(best) >= k and scores[row] < min(best.values()):
            break
        best.setdefault(doc_ids[row], float(scores[row]))
    return rank_hits(best.items(), k)


def _clearly_below(space: Space, score: float, last: float) -> bool:
    """Whether a chunk's score is below that of the last document, by more than an engine's own may be off."""
    slack = 1e-5 if space.dtype == "float32" else 4e-3
    return bool(score < last - slack * max(1.0, abs(last)))


def _share_found(hits: list[list[Hit]], truth: list[list[Hit]]) -> float:
    common = 0
    for ours, exact in zip(hits, truth, strict=True):
        common += len(dict(ours).keys() & dict(exact).keys())
    return common / sum(map(len, truth))
