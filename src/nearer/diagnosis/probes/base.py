"""What every probe needs: the pairs that the baseline misses, and ranks under any pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from nearer import config
from nearer.diagnosis.values import CANDIDATES, ByName, Pair, Probe, Probes, best
from nearer.search import ranking
from nearer.search.filters import Fields
from nearer.search.pipeline import OWN, Filters, Pipeline
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split

#: Probes so far, by pair and name.
Results = Mapping[Pair, ByName]
#: What a step gives: probes by name.
Named = dict[str, Probes]
Ranks = dict[Pair, int | None]

#: Share of neighbouring results in the order of the model's scores from which a system of the
#: user's own counts as an index over that model; and the queries that are looked at.
_AGREES, _SAMPLE = 0.95, 50
_EQUAL = 1e-4  # scores that differ by less are equal


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
        self.systems = systems
        self.corpus = systems.corpus
        self.split = failing
        self.wanted = wanted
        self.settings = settings
        self.k = settings.k
        self.baseline = systems.base(systems.today)
        self.filters_apply = systems.config.search.filters == "apply"
        self.first_choice: dict[str, str] = {}  # query id → what the reranker puts first
        self.queries = {query.id: query for query in failing.queries}
        self.pairs: list[Pair] = []
        self.positions: dict[str, list[int]] = {}  # of the documents that the corpus has
        for query_id in self.queries:
            self.positions[query_id] = []
            for doc_id in wanted[query_id]:
                self.pairs.append((query_id, doc_id))
                if doc_id in self.corpus:
                    self.positions[query_id].append(self.corpus.position(doc_id))

    # -- the baseline ------------------------------------------------------------------------------

    @property
    def own_system(self) -> bool:
        """Is the baseline a search system of the user's own?"""
        return self.baseline.system in OWN

    @property
    def over_words(self) -> bool:
        """Does the baseline search words alone?"""
        return self.baseline.system == "bm25"

    @cached_property
    def over_model(self) -> bool:
        """Does the baseline rank by the configured model?

        A system of the user's own does when its order agrees with the model's scores.
        """
        if self.own_system:
            return self._share_in_model_order() >= _AGREES
        return not self.over_words

    @cached_property
    def baseline_run(self) -> Run:
        return self.run(self.baseline)

    @property
    def plain(self) -> Pipeline:
        """Exact dense search with the baseline's chunks and filters."""
        filters: Filters = "ignore"
        if self.filters_apply:
            filters = "declared"
        return replace(self.systems.base("dense"), filters=filters)

    @property
    def changeable(self) -> Pipeline:
        """What chunks and queries are changed in: the baseline, or ours instead of the user's own."""
        if self.own_system:
            return self.plain
        return self.baseline

    @property
    def fields(self) -> Fields:
        return self.systems.fields

    def _share_in_model_order(self) -> float:
        """Share of neighbouring results that the model's scores put in the same order, of a sample."""
        results = self.baseline_run.results
        answered = [query for query in self.split.queries if len(results.get(query.id, ())) > 1]
        scorer = self.systems.scorer(self.plain)
        agreeing = neighbours = 0
        for query, scores in ranking.blocks(scorer, answered[:_SAMPLE]):
            listed = self.baseline_run.top(query.id, CANDIDATES)
            positions = [self.corpus.position(doc_id) for doc_id in listed]
            rises = np.diff(scores[positions])
            agreeing += int((rises <= _EQUAL).sum())
            neighbours += len(rises)
        if neighbours == 0:
            return 0.0
        return agreeing / neighbours

    # -- ranks -------------------------------------------------------------------------------------

    def run(self, pipeline: Pipeline, split: Split | None = None) -> Run:
        """Results of a pipeline for the failing queries, or for those of a split."""
        queries = split or self.split
        return self.systems.run(pipeline, queries, self.settings.depth)

    def ranks(self, pipeline: Pipeline) -> Ranks:
        """Rank of every pair: exact where the pipeline scores every document, else within its list."""
        if pipeline.system in ("dense", "bm25") and pipeline == pipeline.first:
            return self._exact_ranks(self.systems.scorer(pipeline))
        ranks: Ranks = dict.fromkeys(self.pairs)
        for query_id, hits in self.run(pipeline).results.items():
            for rank, (doc_id, _) in enumerate(hits, start=1):
                pair = (query_id, doc_id)
                if pair in ranks:
                    ranks[pair] = rank
        return ranks

    def _exact_ranks(self, scorer: ranking.Scorer) -> Ranks:
        by_position = ranking.ranks(scorer, self.split.queries, self.positions)
        ranks: Ranks = dict.fromkeys(self.pairs)
        for (query_id, position), rank in by_position.items():
            doc_id = self.corpus.ids[position]
            ranks[query_id, doc_id] = rank
        return ranks

    def simple(self, pipeline: Pipeline) -> Probes:
        """One pipeline as a probe."""
        ranks = self.ranks(pipeline)
        return {pair: Probe(rank) for pair, rank in ranks.items()}

    def variants(self, pipelines: Mapping[str, Pipeline]) -> Probes:
        """The best of several pipelines, by name, pair by pair; empty where there is none."""
        tried = Tried()
        for name, pipeline in pipelines.items():
            for pair, rank in self.ranks(pipeline).items():
                tried.add(pair, name, rank)
        return tried.probes()

    def untried(self, why: str, next_step: str) -> Probes:
        """A repair that nobody could try, and the command that would, for every pair."""
        probe = Probe(skipped=why, next_step=next_step)
        return dict.fromkeys(self.pairs, probe)

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

    def probes(self) -> Probes:
        return {pair: best(ranks) for pair, ranks in self._ranks.items()}
