"""The search systems of one configuration, and their results, each computed once.

A system is a `Pipeline`; the plain ones go by the names of `nearer.plugins`: `dense`, `bm25`, `rrf`,
`convex` (the hybrids of the first two) and the user's own.  Indexes, embeddings and results that
exist already are not made again, whichever stage asks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from nearer import plugins
from nearer.errors import ConfigError
from nearer.measure.metrics import drop_self
from nearer.search import fusion
from nearer.search.base import Retriever
from nearer.search.costs import Latency, latency_of
from nearer.search.dense import Dense
from nearer.search.diversity import diversified
from nearer.search.external import OwnRetriever
from nearer.search.parts import LATE, Parts
from nearer.search.pipeline import (
    HYBRIDS,
    OWN,
    Filters,
    Pipeline,
    PipelineRetriever,
    Reordering,
    boosted,
)
from nearer.search.rerank import CachedReranker, Reranker, rerank
from nearer.types import Query, Run, Split

__all__ = ["LATE", "Systems"]

_PACED, _PAIRS_PER_QUERY = 16, 4  # queries, and results of each, that a reranker's pace is taken of


class Systems(Parts):
    """Systems over the parts of one configuration; `weight`, of the dense part in `convex`, is tuned on dev."""

    weight: float | None = None

    @cached_property
    def depth(self) -> int:
        """Hits per query: as deep as any measure looks."""
        evaluate = self.config.evaluate
        depth = max(evaluate.depth, 10)
        if self.config.task == "recommend":
            depth = max(depth, self.config.recommend.k)
        guarded = [guard.measure for guard in self.config.decide.guards or ()]
        for measure in (*evaluate.measures, evaluate.primary, *guarded):
            _, at, cutoff = measure.partition("@")
            if at and cutoff.isdecimal():  # of contexts it is a number of tokens
                depth = max(depth, int(cutoff))
        return depth

    @property
    def today(self) -> str:
        """Name of the baseline: the system that users have now."""
        return self.config.search.system

    def base(self, name: str) -> Pipeline:
        """The pipeline of a plain system: the baseline's chunks and filters, the tuned weight."""
        search = self.config.search
        applied = search.filters == "apply" and name not in OWN
        filters: Filters = "declared" if applied else "ignore"
        chunker = search.chunker if name in ("dense", *HYBRIDS) else "document"
        weight = self.weight if name == "convex" else None
        return Pipeline(name, chunker=chunker, filters=filters, weight=weight)

    # -- searching ---------------------------------------------------------------------------------

    def search(self, name: str, split: Split, depth: int | None = None) -> Run:
        """Results of a plain system for the queries of a split."""
        return replace(self.run(self.base(name), split, depth), name=name)

    def run(self, pipeline: Pipeline, split: Split, depth: int | None = None) -> Run:
        """Results of a pipeline for the queries of a split; parts that other pipelines share are searched once."""
        depth = max(depth or self.depth, pipeline.rerank)

        def search() -> Run:
            run = self._search(pipeline, split, depth)
            return Run(pipeline.label, run.results, run.seconds, run.latencies)

        run: Run = self.once(("run", pipeline, self._content(split), depth), search)
        return run

    def _search(self, pipeline: Pipeline, split: Split, depth: int) -> Run:
        if pipeline.first != pipeline and not pipeline.rewrite:
            first = _Known(self.run(pipeline.first, split, depth))
            return self._after(pipeline, first).search(split.queries, depth)
        if pipeline.system in HYBRIDS and not pipeline.rewrite:
            words, vectors = (self.run(part, split, depth) for part in pipeline.parts)
            rrf_k = self.config.search.rrf_k
            return fusion.fuse(words, vectors, self.weight_of(pipeline), rrf_k, depth)
        if self.item_to_item and pipeline.system in OWN:
            return drop_self(self.retriever(pipeline).search(split.queries, depth + 1))
        return self.retriever(pipeline).search(split.queries, depth)

    def retriever(self, pipeline: Pipeline, cached: bool = True) -> Retriever:
        """The pipeline as something that answers any queries; `cached` False encodes every query anew, to time it."""
        return self._after(pipeline, self.scorer(pipeline, cached), cached)

    def scorer(self, pipeline: Pipeline, cached: bool = True) -> Any:
        """The first stage of a pipeline: a retriever, that of `dense` and `bm25` scores every document (`Scorer`)."""
        system = pipeline.system
        implementation = plugins.find("retriever", system, self.root)
        if system in plugins.SEAMS["retriever"].ours:
            return implementation(self, pipeline, cached)
        make = partial(OwnRetriever, system, implementation, self.known_ids)
        return self.once(("own", system), make)

    def _after(self, pipeline: Pipeline, first: Retriever, cached: bool = True) -> Retriever:
        """First-stage results with the pipeline's rewriting, preferences and reranking around them."""
        reorderings: list[Reordering] = []
        if pipeline.filters == "boost":
            reorderings.append(partial(boosted, corpus=self.corpus, known=self.fields))
        if pipeline.rerank:
            reranker = self._reranker(cached)
            reorderings.append(
                partial(rerank, corpus=self.corpus, reranker=reranker, depth=pipeline.rerank)
            )
        if pipeline.diversity is not None:
            reorderings.append(
                partial(diversified, weight=pipeline.diversity, vectors=self.item_vectors)
            )
        if not reorderings and not pipeline.rewrite:
            return first
        rewriter = self.rewriter(pipeline.rewrite) if pipeline.rewrite else None
        return PipelineRetriever(pipeline, first, rewriter, reorderings)

    def _reranker(self, cached: bool) -> Reranker:
        if self.reranker is None:
            raise ConfigError(
                "this pipeline needs a reranker",
                where="rerank.model",
                next_step="set rerank.model, then nearer fix",
            )
        if isinstance(self.reranker, CachedReranker) and not cached:
            return self.reranker.without_cache()
        return self.reranker

    # -- tuning and costs --------------------------------------------------------------------------

    def tune(self, dev: Split, measure: str) -> float:
        """Choose the weight of `convex` on dev, once; the choice is kept in `weight`."""
        if self.weight is None:
            self.weight = self.tuned(self.base("convex"), dev, measure).weight
        return self.weight or 0.0

    def tuned(self, pipeline: Pipeline, dev: Split, measure: str) -> Pipeline:
        """The pipeline with the weight of its hybrid chosen on dev; others come back as they are."""
        if pipeline.system != "convex" or pipeline.weight is not None:
            return pipeline
        parts = pipeline.parts

        def best() -> float:
            words, vectors = (self.run(part, dev) for part in parts)
            return fusion.tune_convex(words, vectors, dev, measure).weight

        key = ("weight", parts, self._content(dev), measure)
        return replace(pipeline, weight=self.once(key, best))

    def weight_of(self, pipeline: Pipeline) -> float | None:
        """The weight of a hybrid's dense part; None for RRF, which has none."""
        if pipeline.system == "rrf":
            return None
        if pipeline.weight is None:
            raise ConfigError(
                "the convex hybrid has no weight yet",
                next_step="call Systems.tune(dev, measure) first",
            )
        return pipeline.weight

    def latency(self, pipeline: Pipeline, queries: Sequence[Query]) -> Latency | None:
        """p50 and p95 of asking one query at a time; None where the system is a file of results.

        The caches stand aside: a query nobody asked before must be encoded.
        """
        if pipeline.system == "run" or not queries:
            return None
        return latency_of(self.retriever(pipeline, cached=False), queries, self.depth)

    def affordable_depth(self, split: Split, deepest: int, seconds: float) -> int:
        """How many results of each query of a split the reranker reads in so many seconds, at most `deepest`.

        From the time that it takes for a sample, the caches left out.
        """
        pairs = seconds / max(self.seconds_per_pair(split), 1e-9)
        return min(deepest, int(pairs / max(1, len(split.queries))))

    def seconds_per_pair(self, split: Split) -> float:
        """What the reranker takes to read a query and a document, timed once."""
        key = ("pace", self._reranker(cached=True).fingerprint)
        return float(self.once(key, partial(self._pace, split)))

    def _pace(self, split: Split) -> float:
        run = self.run(self.base(self.today), split)
        step = max(1, len(split.queries) // _PACED)
        texts: list[tuple[str, str]] = []
        for query in split.queries[::step]:
            for doc_id in run.top(query.id, _PAIRS_PER_QUERY):
                if doc_id in self.corpus:
                    content = self.corpus[self.corpus.position(doc_id)].content
                    texts.append((query.text, content))
        if not texts:
            return 0.0
        reranker = self._reranker(cached=False)
        reranker.score(texts[:_PAIRS_PER_QUERY])  # the first pass is slower than the rest
        started = time.perf_counter()
        reranker.score(texts)
        return (time.perf_counter() - started) / len(texts)

    def index_bytes(self, pipeline: Pipeline) -> int | None:
        """Size of what a pipeline searches; None for the user's own."""
        if pipeline.system in OWN:
            return None
        words, vectors = pipeline.parts
        size = 0
        if pipeline.dense:
            scorer = self.scorer(vectors)
            size += int(scorer.documents.nbytes if isinstance(scorer, Dense) else scorer.nbytes)
        if pipeline.system != "dense":
            size += int(self.scorer(words).nbytes)
        return size

    def _content(self, split: Split) -> str:
        """A hash of the queries and judgments of a split: another split may have the same name."""

        def hashed() -> tuple[Split, str]:
            content = repr((split.queries, split.judgments)).encode("utf-8", "replace")
            return split, hashlib.sha256(content).hexdigest()

        # The split is kept beside its hash, so that its id stays its own.
        _, content_hash = self.once(("split", id(split)), hashed)
        return str(content_hash)


class _Known:
    """Results that are there already, as a retriever."""

    def __init__(self, run: Run) -> None:
        self.name, self._run = run.name, run

    def search(self, queries: Sequence[Query], k: int) -> Run:
        return self._run
