"""Ranks after reranking: the reranker over the baseline's candidates."""

from __future__ import annotations

from collections.abc import Sequence

from nearer import progress
from nearer.diagnosis.probes.base import Misses, Results
from nearer.diagnosis.values import CANDIDATES, Pair, Probe
from nearer.search.rerank import Reranker
from nearer.types import Query


def reranked(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks of the documents that are among the candidates; keeps the first choice of each query."""
    reranker, k = misses.systems.reranker, misses.settings.k
    depth = min(CANDIDATES, misses.systems.config.rerank.depth)
    probes: dict[Pair, Probe] = {}
    with progress.task("reranking candidates", len(misses.queries), "queries") as bar:
        for query in misses.split.queries:
            bar.advance()
            candidates = misses.baseline_run.top(query.id, CANDIDATES)
            read: list[str] = []
            for doc_id in misses.wanted[query.id]:
                pair = (query.id, doc_id)
                if doc_id not in candidates or results[pair]["today"].within(k):
                    continue
                if reranker is not None and doc_id in candidates[:depth]:
                    read.append(doc_id)
                else:
                    probes[pair] = _not_read(misses, depth)
            if read and reranker is not None:
                probes.update(_rerank(misses, query, candidates[:depth], read, reranker))
    return {"ranking": probes}


def _rerank(
    misses: Misses, query: Query, hits: Sequence[str], wanted: Sequence[str], reranker: Reranker
) -> dict[Pair, Probe]:
    """Ranks of the documents wanted, which are among the hits, by the reranker's scores.

    Once k hits stand above every one of them the rest is not scored: the repair has failed, and
    the rank is known to be that or worse.
    """
    k = misses.settings.k
    scores: dict[str, float] = {}
    for part in (hits[: 2 * k], hits[2 * k :]):
        unscored = [doc_id for doc_id in [*wanted, *part] if doc_id not in scores]
        scores.update(_scores(misses, query, unscored, reranker))
        best_wanted = max(scores[doc_id] for doc_id in wanted)
        if sum(score > best_wanted for score in scores.values()) >= k:
            break
    incomplete = len(scores) < len({*hits, *wanted})
    # Where the reranker sees no difference the first stage's order stands: a tie is no repair.
    order = sorted(scores, key=lambda doc_id: (-scores[doc_id], hits.index(doc_id)))
    misses.first_choice[query.id] = order[0]
    return {
        (query.id, doc_id): Probe(order.index(doc_id) + 1, at_least=incomplete) for doc_id in wanted
    }


def _scores(
    misses: Misses, query: Query, doc_ids: Sequence[str], reranker: Reranker
) -> dict[str, float]:
    """The reranker's score of each document that the corpus has."""
    corpus = misses.systems.corpus
    present = [doc_id for doc_id in doc_ids if doc_id in corpus]
    if not present:
        return {}
    texts = [(query.text, corpus[corpus.position(doc_id)].content) for doc_id in present]
    return dict(zip(present, map(float, reranker.score(texts)), strict=True))


def _not_read(misses: Misses, depth: int) -> Probe:
    """Why a candidate was not reranked, and the command that would do it."""
    if misses.systems.reranker is not None:
        why = f"the reranker reads the first {depth} results only (rerank.depth)"
        return Probe(skipped=why, next_step=f"nearer diagnose --set rerank.depth={CANDIDATES}")
    why = "no reranker is at hand (rerank.model)"
    return Probe(skipped=why, next_step="nearer diagnose --set rerank.model=train")
