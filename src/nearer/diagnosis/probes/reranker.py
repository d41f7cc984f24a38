"""Ranks after reranking: the reranker over the baseline's candidates."""

from __future__ import annotations

from collections.abc import Sequence

from nearer import progress
from nearer.diagnosis.probes.base import Misses, Named, Results
from nearer.diagnosis.values import CANDIDATES, Probe, Probes
from nearer.search.rerank import Reranker
from nearer.types import Query


def reranked(misses: Misses, results: Results) -> Named:
    """Ranks of the documents that are among the candidates; keeps the first choice of each query."""
    reranker = misses.systems.reranker
    depth = _depth(misses)
    probes: Probes = {}
    with progress.task("reranking candidates", len(misses.queries), "queries") as bar:
        for query in misses.split.queries:
            bar.advance()
            candidates = misses.baseline_run.top(query.id, CANDIDATES)
            read: list[str] = []
            for doc_id in misses.wanted[query.id]:
                pair = (query.id, doc_id)
                if doc_id not in candidates or results[pair]["today"].within(misses.k):
                    continue
                if reranker is not None and doc_id in candidates[:depth]:
                    read.append(doc_id)
                else:
                    probes[pair] = _not_read(misses, depth)
            if read and reranker is not None:
                probes |= _rerank(misses, query, candidates[:depth], read, reranker)
    return {"ranking": probes}


def _depth(misses: Misses) -> int:
    """How many candidates are read: as many as are named, or as `rerank.budget` has time for."""
    systems = misses.systems
    settings = systems.config.rerank
    if systems.reranker is None or not settings.automatic:
        return min(CANDIDATES, settings.depth)
    return systems.affordable_depth(misses.split, CANDIDATES, settings.budget)


def _rerank(
    misses: Misses,
    query: Query,
    hits: Sequence[str],
    wanted: Sequence[str],
    reranker: Reranker,
) -> Probes:
    """Ranks of the documents wanted, which are among the hits, by the reranker's scores.

    Once k hits stand above every one of them the rest is not scored: the repair has failed, and
    the rank is known to be that or worse.
    """
    first = 2 * misses.k
    scores: dict[str, float] = {}
    for part in (hits[:first], hits[first:]):
        unscored = [doc_id for doc_id in [*wanted, *part] if doc_id not in scores]
        scores |= _scores(misses, query, unscored, reranker)
        best_wanted = max(scores[doc_id] for doc_id in wanted)
        above = sum(score > best_wanted for score in scores.values())
        if above >= misses.k:
            break
    incomplete = len(scores) < len({*hits, *wanted})
    # Where the reranker sees no difference the first stage's order stands: a tie is no repair.
    order = sorted(scores, key=lambda doc_id: (-scores[doc_id], hits.index(doc_id)))
    misses.first_choice[query.id] = order[0]
    probes: Probes = {}
    for doc_id in wanted:
        rank = order.index(doc_id) + 1
        probes[query.id, doc_id] = Probe(rank, at_least=incomplete)
    return probes


def _scores(
    misses: Misses, query: Query, doc_ids: Sequence[str], reranker: Reranker
) -> dict[str, float]:
    """The reranker's score of each document that the corpus has."""
    present: list[str] = []
    texts: list[tuple[str, str]] = []
    for doc_id in doc_ids:
        document = misses.corpus.get(doc_id)
        if document is not None:
            present.append(doc_id)
            texts.append((query.text, document.content))
    if not present:
        return {}
    scores = map(float, reranker.score(texts))
    return dict(zip(present, scores, strict=True))


def _not_read(misses: Misses, depth: int) -> Probe:
    """Why a candidate was not reranked, and the command that would do it."""
    systems = misses.systems
    settings = systems.config.rerank
    if systems.reranker is None:
        why, setting = systems.lacking.why, systems.lacking.setting
    elif settings.automatic:
        pairs = CANDIDATES * len(misses.queries)
        needed = int(1.5 * pairs * systems.seconds_per_pair(misses.split)) + 1
        why = f"the reranker has time for the first {depth} results only (rerank.budget)"
        setting = f"rerank.budget={needed}s"
    else:
        why = f"the reranker reads the first {depth} results only (rerank.depth)"
        setting = f"rerank.depth={CANDIDATES}"
    return Probe(skipped=why, next_step=f"nearer diagnose --set {setting}")
