"""The first hits of each query of a run in the order of a reranker's scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.errors import DataError
from nearer.search.rerank.base import Reranker
from nearer.search.rerank.cached import CachedReranker
from nearer.types import Hit, Query, Run, rank_hits


def rerank(run: Run, queries: Sequence[Query], corpus: Any, reranker: Reranker, depth: int) -> Run:
    """The first `depth` hits of each query in the order of the reranker's scores; the rest follows as it was.

    The head carries the reranker's scores, the rest made-up ones below them, so that the whole is
    in canonical order.  Queries of the run that are not among `queries` stay as they are.  Raises
    DataError for a hit that is not in the corpus.
    """
    scorer = reranker if isinstance(reranker, CachedReranker) else CachedReranker(reranker)
    results = dict(run.results)
    answered = [query for query in queries if results.get(query.id)]
    pairs = sum(len(results[query.id][:depth]) for query in answered)
    started = time.perf_counter()
    with progress.task("rerank", pairs, "pairs") as bar:
        for query in answered:
            hits = results[query.id]
            head = [doc_id for doc_id, _ in hits[:depth]]
            _require_known(head, corpus, f"{run.name}, query {query.id}")
            scores = scorer.score([(query.text, corpus.get(doc_id).content) for doc_id in head])
            best = rank_hits(zip(head, scores.tolist(), strict=True))
            results[query.id] = best + _below(best[-1][1], hits[depth:])
            bar.advance(len(head))
    return replace(
        run,
        name=f"{run.name}+rerank",
        results=results,
        seconds=run.seconds + time.perf_counter() - started,
        latencies=(),
    )


def _require_known(doc_ids: Sequence[str], corpus: Any, where: str) -> None:
    missing = [doc_id for doc_id in doc_ids if doc_id not in corpus]
    if missing:
        raise DataError(
            f"document {missing[0]!r} is not in the corpus",
            where=where,
            next_step="rerank results over the same documents",
        )


def _below(lowest: float, hits: Sequence[Hit]) -> list[Hit]:
    """Hits in their order, with scores below `lowest` that float32 tells apart at any height."""
    step = max(1.0, 4 * float(np.spacing(np.float32(abs(lowest)))))
    below = []
    for steps, (doc_id, _) in enumerate(hits, start=1):
        below.append((doc_id, float(np.float32(lowest - step * steps))))
    return below
