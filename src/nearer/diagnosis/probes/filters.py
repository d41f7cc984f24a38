"""Ranks among the documents of a filter: with the metadata mended, and with filters that the query names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nearer.diagnosis.pieces import Filters
from nearer.diagnosis.probes.base import Misses, Results, Tried
from nearer.diagnosis.values import Pair, Probe
from nearer.search import ranking
from nearer.search.filters import mismatch
from nearer.search.pipeline import HYBRIDS, OWN
from nearer.types import Metadata, Query


def mended(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks under the declared filter as if the document satisfied it, where it does not."""
    systems = misses.systems
    filters: dict[Pair, list[tuple[str, np.ndarray]]] = {}
    for query_id, doc_id in misses.pairs:
        declared, document = misses.queries[query_id].filter, systems.corpus.get(doc_id)
        if not declared or document is None:
            continue
        if mismatch(declared, systems.fields.read(document.metadata)):
            mask = systems.fields.eligible(declared).copy()
            mask[systems.corpus.position(doc_id)] = True
            filters[query_id, doc_id] = [("metadata mended", mask)]
    return {"ineligible": _ranks_within(misses, filters)}


def narrowed(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks under the declared filter where the baseline ignores it, and those that the query names."""
    return {"needs_metadata": _ranks_within(misses, satisfied(misses))}


def satisfied(misses: Misses) -> Filters:
    """Filters that the document satisfies and the baseline does not apply."""
    fields, corpus = misses.systems.fields, misses.systems.corpus
    filters: dict[Pair, list[tuple[str, np.ndarray]]] = {}
    for query in misses.queries.values():
        masks = [(label, fields.eligible(filter)) for label, filter in _named(misses, query)]
        if query.filter and misses.filters_apply:
            applied = fields.eligible(query.filter)
            masks = [(label, mask & applied) for label, mask in masks]
        for position in misses.positions[query.id]:
            satisfying = [(label, mask) for label, mask in masks if mask[position]]
            if satisfying:
                filters[query.id, corpus.ids[position]] = satisfying
    return filters


def _named(misses: Misses, query: Query) -> list[tuple[str, Metadata]]:
    """Filters that a query declares in vain, and those that its text names, each with a label."""
    filters: list[tuple[str, Metadata]] = []
    if query.filter and not misses.filters_apply:
        filters.append(("declared", query.filter))
    for filter in misses.systems.fields.infer(query.text):
        label = ", ".join(f"{field}={value}" for field, value in filter.items())
        filters.append((label, filter))
    return filters


def _ranks_within(misses: Misses, filters: Filters) -> dict[Pair, Probe]:
    """Rank of each pair among the documents of each of its filters.

    Within the baseline's list where the document is there, else exactly, where the baseline ranks
    by scores of ours.
    """
    asking = {query_id for query_id, _ in filters}
    queries = [query for query in misses.split.queries if query.id in asking]
    if not queries:
        return {}
    corpus = misses.systems.corpus
    system = misses.baseline.system
    by_list = system in HYBRIDS or system in OWN
    by_score = not by_list or misses.over_model
    scored = replace(misses.plain if by_list else misses.baseline, filters="ignore")
    scorer = misses.systems.scorer(scored)
    tried = Tried()
    for query, scores in ranking.blocks(scorer, queries):
        hits = _unfiltered_hits(misses, query) if by_list else []
        for position in misses.positions[query.id]:
            doc_id = corpus.ids[position]
            for label, mask in filters.get((query.id, doc_id), ()):
                rank = None
                if doc_id in hits:
                    allowed = [hit for hit in hits if mask[corpus.position(hit)]]
                    rank = 1 + allowed.index(doc_id)
                elif by_score:
                    rank = scorer.order.rank(np.where(mask, scores, -np.inf), position)
                tried.add((query.id, doc_id), label, rank)
    return tried.probes()


def _unfiltered_hits(misses: Misses, query: Query) -> list[str]:
    """The baseline's list without its filters, where we can have it."""
    run = misses.baseline_run
    if not misses.own_system:
        run = misses.run(replace(misses.baseline, filters="ignore"))
    return [doc_id for doc_id, _ in run.results.get(query.id, ())]
