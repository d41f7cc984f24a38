"""Every cheap repair, executed on failing pairs: the rank that each gives the relevant document.

Probes share one embedding cache, one BM25 index and blocks of queries; ranks are exact at any depth
where a system scores every document, and as deep as its list where it does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from nearer import config, progress
from nearer.diagnosis.causes import CANDIDATES, Probe, best
from nearer.diagnosis.pieces import Masks, Pair, Pieces
from nearer.search import ranking
from nearer.search.filters import mismatch
from nearer.search.pipeline import HYBRIDS, OWN, Pipeline
from nearer.search.systems import Systems
from nearer.types import Run, Split

_AGREES = 0.95  # share of neighbouring results in the order of the model's scores: then it is an index over that model
_SAMPLE = 50


class Prober:
    """Runs the probes over failing queries; `wanted` are their relevant documents, query id → document ids."""

    def __init__(
        self,
        systems: Systems,
        failing: Split,
        wanted: Mapping[str, Sequence[str]],
        settings: config.Diagnose,
    ) -> None:
        self.systems, self.split, self.settings = systems, failing, settings
        self.today = systems.base(systems.today)
        self.queries, self._wanted = {query.id: query for query in failing.queries}, wanted
        self.pairs: list[Pair] = [
            (query_id, doc_id) for query_id in self.queries for doc_id in wanted[query_id]
        ]
        self.positions: dict[str, list[int]] = {
            query_id: [
                systems.corpus.position(doc_id)
                for doc_id in wanted[query_id]
                if doc_id in systems.corpus
            ]
            for query_id in self.queries
        }
        self.filters_apply = systems.config.search.filters == "apply"
        self.first_choice: dict[str, str] = {}  # query id → what the reranker puts first
        self._combined: dict[Pair, Probe] = {}  # made beside the finer pieces

    @cached_property
    def today_run(self) -> Run:
        return self.systems.run(self.today, self.split, self.settings.depth)

    @property
    def plain(self) -> Pipeline:
        """Exact dense search with today's chunks and filters."""
        return replace(
            self.systems.base("dense"), filters="declared" if self.filters_apply else "ignore"
        )

    @cached_property
    def over_model(self) -> bool:
        """Does today's system rank by the configured model?  The user's own is one when its order agrees with the scores."""
        if self.today.system not in OWN:
            return self.today.system != "bm25"
        scorer, agree, pairs = self.systems.scorer(self.plain), 0, 0
        answered = [
            query
            for query in self.split.queries
            if len(self.today_run.results.get(query.id, ())) > 1
        ][:_SAMPLE]
        for query, row in ranking.blocks(scorer, answered):
            hits = self.today_run.results[query.id][:CANDIDATES]
            scores = row[[self.systems.corpus.position(doc_id) for doc_id, _ in hits]]
            agree += int((np.diff(scores) <= 1e-4).sum())
            pairs += len(scores) - 1
        return pairs > 0 and agree / pairs >= _AGREES

    def run(self) -> dict[Pair, dict[str, Probe]]:
        """All probes of all pairs, by name; pairs whose document is missing have `today` alone."""
        exact = self._simple(
            self.today if self.today.system not in OWN or not self.over_model else self.plain
        )
        today = (
            exact
            if self.today.system not in OWN
            else {pair: Probe(self.today_run.rank(*pair)) for pair in self.pairs}
        )
        found: dict[Pair, dict[str, Probe]] = {
            pair: {"today": today[pair], "exact": exact[pair]} for pair in self.pairs
        }
        steps: dict[str, Callable[[], Mapping[Pair, Probe]]] = {
            "ineligible": lambda: self._masked(self._mended()),
            "needs_metadata": lambda: self._masked(self._narrowed()),
            "chunking": self._chunking,
            "exact_match": self._words,
            "ranking": lambda: self._ranking(found),
            "base_model": self._models,
            "rewriting": self._rewriting,
            "finer": lambda: self._pieces(found),
        }
        with progress.task("probes", len(steps), "probes") as bar:
            for name, probe in steps.items():
                bar.note(name)
                for pair, result in probe().items():
                    if pair[1] in self.systems.corpus:
                        found[pair][name] = result
                bar.advance()
        for pair, result in self._combined.items():
            found[pair]["combined"] = result
        return found

    # -- one probe each ----------------------------------------------------------------------------

    def ranks(self, pipeline: Pipeline) -> dict[Pair, int | None]:
        """Rank of every pair: exact where the pipeline scores every document, else within its list."""
        corpus = self.systems.corpus
        if pipeline.system in ("dense", "bm25") and pipeline == pipeline.first:
            exact = ranking.ranks(self.systems.scorer(pipeline), self.split.queries, self.positions)
            return {
                (q, d): exact[q, corpus.position(d)] if d in corpus else None for q, d in self.pairs
            }
        run = self.systems.run(pipeline, self.split, self.settings.depth)
        places = {
            q: {d: rank for rank, (d, _) in enumerate(hits, start=1)}
            for q, hits in run.results.items()
        }
        return {(q, d): places.get(q, {}).get(d) for q, d in self.pairs}

    def _simple(self, pipeline: Pipeline) -> dict[Pair, Probe]:
        return {pair: Probe(rank) for pair, rank in self.ranks(pipeline).items()}

    def _variants(self, pipelines: Mapping[str, Pipeline]) -> dict[Pair, Probe]:
        """The best of several pipelines, pair by pair."""
        tried: dict[Pair, dict[str, int | None]] = defaultdict(dict)
        for name, pipeline in pipelines.items():
            for pair, rank in self.ranks(pipeline).items():
                tried[pair][name] = rank
        return {pair: best(variants) for pair, variants in tried.items()}

    def _mended(self) -> Masks:
        """The declared filter as if the document satisfied it, where it does not."""
        masks: dict[Pair, list[tuple[str, np.ndarray]]] = {}
        for query_id, doc_id in self.pairs:
            query, document = self.queries[query_id], self.systems.corpus.get(doc_id)
            if (
                query.filter
                and document is not None
                and mismatch(query.filter, self.systems.fields.read(document.metadata))
            ):
                mask = self.systems.fields.eligible(query.filter).copy()
                mask[self.systems.corpus.position(doc_id)] = True
                masks[query_id, doc_id] = [("metadata mended", mask)]
        return masks

    def _narrowed(self) -> Masks:
        """Filters that the document satisfies: the declared one where today ignores it, and those that the query names."""
        masks: dict[Pair, list[tuple[str, np.ndarray]]] = {}
        fields, corpus = self.systems.fields, self.systems.corpus
        for query in self.queries.values():
            named = [("declared", query.filter)] if query.filter and not self.filters_apply else []
            named += [
                (", ".join(f"{k}={v}" for k, v in one.items()), one)
                for one in fields.infer(query.text)
            ]
            within = (
                fields.eligible(query.filter) if query.filter and self.filters_apply else np.True_
            )
            for position in self.positions[query.id]:
                chosen = [
                    (label, mask)
                    for label, one in named
                    if (mask := fields.eligible(one) & within)[position]
                ]
                if chosen:
                    masks[query.id, corpus.ids[position]] = chosen
        return masks

    def _masked(self, masks: Masks) -> dict[Pair, Probe]:
        """Rank of each pair among the documents of each of its masks: within today's list where it is there, else exactly."""
        wanted = {query_id for query_id, _ in masks}
        queries = [query for query in self.split.queries if query.id in wanted]
        tried: dict[Pair, dict[str, int | None]] = defaultdict(dict)
        listed, exactly = (
            self.today.system in HYBRIDS or self.today.system in OWN,
            self.today.system in ("dense", "bm25") or self.over_model,
        )
        ids, position = self.systems.corpus.ids, self.systems.corpus.position
        scorer = self.systems.scorer(
            replace(self.plain if listed else self.today, filters="ignore")
        )
        for query, row in ranking.blocks(scorer, queries) if queries else ():
            hits = (
                [doc_id for doc_id, _ in self._unfiltered().results.get(query.id, ())]
                if listed
                else []
            )
            for place in self.positions[query.id]:
                for label, mask in masks.get((query.id, ids[place]), ()):
                    rank = None
                    if ids[place] in hits:
                        rank = 1 + [doc_id for doc_id in hits if mask[position(doc_id)]].index(
                            ids[place]
                        )
                    elif exactly:
                        rank = scorer.order.rank(np.where(mask, row, -np.inf), place)
                    tried[query.id, ids[place]][label] = rank
        return {pair: best(variants) for pair, variants in tried.items()}

    def _unfiltered(self) -> Run:
        """Today's list without its filters, where we can have it."""
        if self.today.system in OWN:
            return self.today_run
        return self.systems.run(
            replace(self.today, filters="ignore"), self.split, self.settings.depth
        )

    def _chunking(self) -> dict[Pair, Probe]:
        if self.today.system == "bm25":
            return {}
        others = [spec for spec in self.settings.chunkers if spec != self._base.chunker]
        if not others:
            why = "no other chunks are named (diagnose.chunkers)"
            return self._untried(why, "nearer diagnose --set 'diagnose.chunkers=[tokens:128:32]'")
        return self._variants({spec: replace(self._base, chunker=spec) for spec in others})

    @property
    def _base(self) -> Pipeline:
        """What the chunks of a document are tried in: today's system, or ours instead of the user's own."""
        return self.plain if self.today.system in OWN else self.today

    def _untried(self, why: str, next_step: str) -> dict[Pair, Probe]:
        return {pair: Probe(skipped=why, next_step=next_step) for pair in self.pairs}

    def _rewriting(self) -> dict[Pair, Probe]:
        """Queries with acronyms and synonyms written out; absent where no rewriter changes the query."""
        if self.today.system == "run":
            return {}
        specs = self.systems.config.fix.rewriters
        if not specs:
            why = "no rewriter is named (fix.rewriters)"
            return self._untried(why, "nearer diagnose --set 'fix.rewriters=[acronyms]'")
        tried: dict[Pair, dict[str, int | None]] = defaultdict(dict)
        for spec in specs:
            rewritten = self.systems.rewriter(spec)(self.split.queries)
            changed = tuple(
                before
                for before, after in zip(self.split.queries, rewritten, strict=True)
                if before.text != after.text
            )
            if not changed:
                continue
            part = Split(f"{self.split.name} rewritten by {spec}", changed, self.split.judgments)
            run = self.systems.run(replace(self._base, rewrite=spec), part, self.settings.depth)
            for query in changed:
                for doc_id in self._wanted[query.id]:
                    tried[query.id, doc_id][spec] = run.rank(query.id, doc_id)
        return {pair: best(variants) for pair, variants in tried.items()}

    def _pieces(self, found: Mapping[Pair, Mapping[str, Probe]]) -> dict[Pair, Probe]:
        """Finer pieces, and combinations with words and filters, where nothing else finds the document.

        The document and its nearest competitors are cut alike: the first results of every list
        that was made.  A competitor that none of these lists shows could still stand above it, so
        the rank is the best one possible wherever the competitors are not the whole corpus.
        """
        left = [pair for pair in self.pairs if self._unrepaired(pair, found[pair])]
        if not left or self.today.system == "bm25":
            return {}
        specs = [spec for spec in self.settings.pieces if spec not in self.settings.chunkers]
        if not specs:
            why = "no finer pieces are named (diagnose.pieces)"
            step = "nearer diagnose --set 'diagnose.pieces=[tokens:32:8]'"
            return {pair: Probe(skipped=why, next_step=step) for pair in left}
        trial = Pieces(self.systems, self.plain, specs, self._competitors(left))
        filters = self._narrowed()
        probes: dict[Pair, Probe] = {}
        for pair, ways in trial.ranks([self.queries[q] for q in _queries(left)], left, filters):
            among = trial.among(pair[0])
            probes[pair] = best(ways.alone, among)
            if ways.combined:
                self._combined[pair] = best(ways.combined, among)
        return probes

    def _unrepaired(self, pair: Pair, probes: Mapping[str, Probe]) -> bool:
        """Is the document there, missed by exact search too, and found by no probe so far?"""
        if pair[1] not in self.systems.corpus:
            return False
        if probes["today"].found(self.settings.k) or probes["exact"].found(self.settings.k):
            return False
        return not any(probe.repairs(probes["exact"], self.settings.k) for probe in probes.values())

    def _competitors(self, pairs: Sequence[Pair]) -> dict[str, list[str]]:
        """Query id → the documents wanted and the first results of every list, of queries in `pairs`."""
        chunked = [replace(self._base, chunker=spec) for spec in self.settings.chunkers]
        lists = [self.today_run]
        lists += [
            self.systems.run(pipeline, self.split, self.settings.depth)
            for pipeline in dict.fromkeys([self.plain, *chunked, self.systems.base("bm25")])
        ]
        pools: dict[str, list[str]] = {}
        for query_id in _queries(pairs):
            nearest = dict.fromkeys(d for d in self._wanted[query_id] if d in self.systems.corpus)
            for run in lists:
                nearest.update(dict.fromkeys(run.top(query_id, CANDIDATES)))
            pools[query_id] = [doc_id for doc_id in nearest if doc_id in self.systems.corpus]
        return pools

    def _words(self) -> dict[Pair, Probe]:
        filters = self.plain.filters
        names = {"bm25": (), "rrf": ("bm25",), "convex": ("bm25",)}.get(
            self.today.system, ("bm25", "rrf")
        )
        return self._variants(
            {name: replace(self.systems.base(name), filters=filters) for name in names}
        )

    def _models(self) -> dict[Pair, Probe]:
        others = {
            model: replace(self.plain, model=model) for model in self.systems.config.fix.models
        }
        if self.today.system == "bm25" or (self.today.system in OWN and not self.over_model):
            others = {"the configured model": self.plain} | others
        tried = self._variants(
            {
                name.rstrip("/").rpartition("/")[2] or name: pipeline
                for name, pipeline in others.items()
            }
        )
        if self.systems.config.fix.models:
            return tried
        why = "no other embedding model is named (fix.models)"
        step = "nearer diagnose --set 'fix.models=[FOLDER]'"
        untried = self._untried(why, step)
        return {
            pair: replace(tried.get(pair, Probe()), skipped=probe.skipped, next_step=step)
            for pair, probe in untried.items()
        }

    def _ranking(self, found: Mapping[Pair, Mapping[str, Probe]]) -> dict[Pair, Probe]:
        """The reranker over today's candidates.

        Once `k` candidates stand above every relevant document the rest is not scored: the repair
        has failed, and the rank is known to be that or worse.
        """
        reranker, corpus = self.systems.reranker, self.systems.corpus
        probes: dict[Pair, Probe] = {}
        depth = min(CANDIDATES, self.systems.config.rerank.depth)
        with progress.task("reranking candidates", len(self.queries), "queries") as bar:
            for query in self.split.queries:
                bar.advance()
                listed = self.today_run.top(query.id, CANDIDATES)
                missed = [
                    d
                    for d in self._wanted[query.id]
                    if d in listed and not found[query.id, d]["today"].found(self.settings.k)
                ]
                hits = listed[:depth]
                asked = [d for d in missed if reranker is not None and d in hits]
                probes |= {(query.id, d): self._not_read(depth) for d in missed if d not in asked}
                if not asked or reranker is None:
                    continue
                scores: dict[str, float] = {}
                for part in (hits[: 2 * self.settings.k], hits[2 * self.settings.k :]):
                    new = [d for d in [*asked, *part] if d not in scores and d in corpus]
                    texts = [
                        (query.text, document.content)
                        for d in new
                        if (document := corpus.get(d)) is not None
                    ]
                    scores |= (
                        dict(zip(new, map(float, reranker.score(texts)), strict=True))
                        if new
                        else {}
                    )
                    best_asked = max(scores[d] for d in asked)
                    if sum(value > best_asked for value in scores.values()) >= self.settings.k:
                        break
                complete = len(scores) == len(set(hits) | set(asked))
                # Where the reranker sees no difference the first stage's order stands: a tie is no repair.
                order = sorted(scores, key=lambda d: (-scores[d], hits.index(d)))
                self.first_choice[query.id] = order[0]
                probes |= {
                    (query.id, d): Probe(order.index(d) + 1, at_least=not complete) for d in asked
                }
        return probes

    def _not_read(self, depth: int) -> Probe:
        """Why a candidate was not reranked, and the command that would do it."""
        if self.systems.reranker is not None:
            why = f"the reranker reads the first {depth} results only (rerank.depth)"
            return Probe(skipped=why, next_step=f"nearer diagnose --set rerank.depth={CANDIDATES}")
        why = "no reranker is at hand (rerank.model)"
        return Probe(skipped=why, next_step="nearer diagnose --set rerank.model=train")


def _queries(pairs: Sequence[Pair]) -> list[str]:
    """The query ids of pairs, each once."""
    return list(dict.fromkeys(query_id for query_id, _ in pairs))
