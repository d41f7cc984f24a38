"""What every probe needs: the pairs that the baseline misses, and ranks under any pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from nearer import config
from nearer.diagnosis.values import CANDIDATES, Pair, Probe, best
from nearer.search import ranking
from nearer.search.pipeline import OWN, Filters, Pipeline
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split

#: Probes so far, by pair and name.
Results = Mapping[Pair, Mapping[str, Probe]]

#: Share of neighbouring results in the order of the model's scores from which a system of the
#: user's own counts as an index over that model; and the queries that are looked at.
_AGREES, _SAMPLE = 0.95, 50


class Misses:
    """Pairs of a query and a relevant document that the baseline misses.

    `wanted` are the documents to look for, query id → document ids; `failing` holds the queries.
    """

    def __init__(
        self,
        systems: Systems,
        failing: Split,
        wanted: Mapping[str, Sequence[str]],
        settings: config.Diagnose,
    ) -> None:
        self.systems, self.split, self.wanted, self.settings = systems, failing, wanted, settings
        self.baseline = systems.base(systems.today)
        self.queries = {query.id: query for query in failing.queries}
        self.pairs: list[Pair] = []
        self.positions: dict[str, list[int]] = {}  # of the documents that the corpus has
        for query_id in self.queries:
            self.pairs += [(query_id, doc_id) for doc_id in wanted[query_id]]
            present = [doc_id for doc_id in wanted[query_id] if doc_id in systems.corpus]
            self.positions[query_id] = [systems.corpus.position(doc_id) for doc_id in present]
        self.filters_apply = systems.config.search.filters == "apply"
        self.first_choice: dict[str, str] = {}  # query id → what the reranker puts first

    @property
    def own_system(self) -> bool:
        """Is the baseline a search system of the user's own?"""
        return self.baseline.system in OWN

    @cached_property
    def baseline_run(self) -> Run:
        return self.run(self.baseline)

    @property
    def plain(self) -> Pipeline:
        """Exact dense search with the baseline's chunks and filters."""
        filters: Filters = "declared" if self.filters_apply else "ignore"
        return replace(self.systems.base("dense"), filters=filters)

    @property
    def changeable(self) -> Pipeline:
        """What chunks and queries are changed in: the baseline, or ours instead of the user's own."""
        return self.plain if self.own_system else self.baseline

    @cached_property
    def over_model(self) -> bool:
        """Does the baseline rank by the configured model?

        A system of the user's own does when its order agrees with the model's scores.
        """
        if not self.own_system:
            return self.baseline.system != "bm25"
        return self._share_in_model_order() >= _AGREES

    def _share_in_model_order(self) -> float:
        """Share of neighbouring results that the model's scores put in the same order, of a sample."""
        results = self.baseline_run.results
        answered = [query for query in self.split.queries if len(results.get(query.id, ())) > 1]
        agreeing = neighbours = 0
        for query, scores in ranking.blocks(self.systems.scorer(self.plain), answered[:_SAMPLE]):
            hits = results[query.id][:CANDIDATES]
            listed = scores[[self.systems.corpus.position(doc_id) for doc_id, _ in hits]]
            agreeing += int((np.diff(listed) <= 1e-4).sum())
            neighbours += len(listed) - 1
        return agreeing / neighbours if neighbours else 0.0

    def run(self, pipeline: Pipeline, split: Split | None = None) -> Run:
        """Results of a pipeline for the failing queries, or for those of a split, as deep as is looked."""
        return self.systems.run(pipeline, split or self.split, self.settings.depth)

    def ranks(self, pipeline: Pipeline) -> dict[Pair, int | None]:
        """Rank of every pair: exact where the pipeline scores every document, else within its list."""
        if pipeline.system in ("dense", "bm25") and pipeline == pipeline.first:
            return self._exact_ranks(self.systems.scorer(pipeline))
        ranks: dict[Pair, int | None] = dict.fromkeys(self.pairs)
        for query_id, hits in self.run(pipeline).results.items():
            for rank, (doc_id, _) in enumerate(hits, start=1):
                if (query_id, doc_id) in ranks:
                    ranks[query_id, doc_id] = rank
        return ranks

    def _exact_ranks(self, scorer: ranking.Scorer) -> dict[Pair, int | None]:
        corpus = self.systems.corpus
        by_position = ranking.ranks(scorer, self.split.queries, self.positions)
        ranks: dict[Pair, int | None] = dict.fromkeys(self.pairs)
        for query_id, doc_id in self.pairs:
            if doc_id in corpus:
                ranks[query_id, doc_id] = by_position[query_id, corpus.position(doc_id)]
        return ranks

    def simple(self, pipeline: Pipeline) -> dict[Pair, Probe]:
        """One pipeline as a probe."""
        return {pair: Probe(rank) for pair, rank in self.ranks(pipeline).items()}

    def variants(self, pipelines: Mapping[str, Pipeline]) -> dict[Pair, Probe]:
        """The best of several pipelines, by name, pair by pair; empty where there is none."""
        tried = Tried()
        for name, pipeline in pipelines.items():
            for pair, rank in self.ranks(pipeline).items():
                tried.add(pair, name, rank)
        return tried.probes()

    def untried(
        self, why: str, next_step: str, pairs: Iterable[Pair] | None = None
    ) -> dict[Pair, Probe]:
        """A repair that nobody could try, and the command that would: for all pairs, or for some."""
        probe = Probe(skipped=why, next_step=next_step)
        return dict.fromkeys(self.pairs if pairs is None else pairs, probe)

    def queries_of(self, pairs: Iterable[Pair]) -> list[Query]:
        """The queries of pairs, each once, in the order of the pairs."""
        ids = dict.fromkeys(query_id for query_id, _ in pairs)
        return [self.queries[query_id] for query_id in ids]


class Tried:
    """Ranks per pair and variant, as they come."""

    def __init__(self) -> None:
        self._ranks: dict[Pair, dict[str, int | None]] = defaultdict(dict)

    def add(self, pair: Pair, variant: str, rank: int | None) -> None:
        self._ranks[pair][variant] = rank

    def probes(self) -> dict[Pair, Probe]:
        return {pair: best(ranks) for pair, ranks in self._ranks.items()}
