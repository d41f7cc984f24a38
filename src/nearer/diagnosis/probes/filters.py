"""Ranks among the documents of a filter: with the metadata mended, and with filters that the query names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nearer.diagnosis.pieces import Filters, Mask
from nearer.diagnosis.probes.base import Misses, Named, Results, Tried
from nearer.diagnosis.values import Pair, Probes
from nearer.search import ranking
from nearer.search.filters import mismatch
from nearer.search.pipeline import HYBRIDS, OWN
from nearer.types import Metadata, Query


def mended(misses: Misses, results: Results) -> Named:
    """Ranks under the declared filter as if the document satisfied it, where it does not."""
    filters: dict[Pair, list[Mask]] = {}
    fields = misses.fields
    for query_id, doc_id in misses.pairs:
        declared = misses.queries[query_id].filter
        document = misses.corpus.get(doc_id)
        if not declared or document is None:
            continue
        metadata = fields.read(document.metadata)
        if mismatch(declared, metadata):
            position = misses.corpus.position(doc_id)
            mask = fields.eligible(declared).copy()
            mask[position] = True
            filters[query_id, doc_id] = [("metadata mended", mask)]
    return {"ineligible": _ranks_within(misses, filters)}


def narrowed(misses: Misses, results: Results) -> Named:
    """Ranks under the declared filter where the baseline ignores it, and those that the query names."""
    filters = satisfied(misses)
    return {"needs_metadata": _ranks_within(misses, filters)}


def satisfied(misses: Misses) -> Filters:
    """Filters that the document satisfies and the baseline does not apply."""
    filters: dict[Pair, list[Mask]] = {}
    for query in misses.queries.values():
        masks = _masks(misses, query)
        for position in misses.positions[query.id]:
            doc_id = misses.corpus.ids[position]
            satisfying = [named for named in masks if named[1][position]]
            if satisfying:
                filters[query.id, doc_id] = satisfying
    return filters


def _masks(misses: Misses, query: Query) -> list[Mask]:
    """The filters that a query names, within the one that the baseline applies."""
    fields = misses.fields
    applied = None
    if query.filter and misses.filters_apply:
        applied = fields.eligible(query.filter)
    masks: list[Mask] = []
    for label, named in _named(misses, query):
        mask = fields.eligible(named)
        if applied is not None:
            mask = mask & applied
        masks.append((label, mask))
    return masks


def _named(misses: Misses, query: Query) -> list[tuple[str, Metadata]]:
    """Filters that a query declares in vain, and those that its text names, each with a label."""
    filters: list[tuple[str, Metadata]] = []
    if query.filter and not misses.filters_apply:
        filters.append(("declared", query.filter))
    for named in misses.fields.infer(query.text):
        values = [f"{field}={value}" for field, value in named.items()]
        filters.append((", ".join(values), named))
    return filters


def _ranks_within(misses: Misses, filters: Filters) -> Probes:
    """Rank of each pair among the documents of each of its filters.

    Within the baseline's list where the document is there, else exactly, where the baseline ranks
    by scores of ours.
    """
    asking = {query_id for query_id, _ in filters}
    queries = [query for query in misses.split.queries if query.id in asking]
    if not queries:
        return {}
    system = misses.baseline.system
    has_list = system in HYBRIDS or system in OWN
    by_score = not has_list or misses.over_model
    scorer = _scorer(misses, has_list)
    tried = Tried()
    for query, scores in ranking.blocks(scorer, queries):
        hits: list[str] = []
        if has_list:
            hits = _unfiltered_hits(misses, query)
        for position in misses.positions[query.id]:
            doc_id = misses.corpus.ids[position]
            pair = (query.id, doc_id)
            for label, mask in filters.get(pair, ()):
                rank = None
                if doc_id in hits:
                    rank = _rank_in_list(misses, hits, doc_id, mask)
                elif by_score:
                    inside = np.where(mask, scores, -np.inf)
                    rank = scorer.order.rank(inside, position)
                tried.add(pair, label, rank)
    return tried.probes()


def _scorer(misses: Misses, has_list: bool) -> ranking.Scorer:
    """What scores every document as the baseline does, without its filters."""
    pipeline = misses.baseline
    if has_list:
        pipeline = misses.plain
    unfiltered = replace(pipeline, filters="ignore")
    scorer: ranking.Scorer = misses.systems.scorer(unfiltered)
    return scorer


def _rank_in_list(misses: Misses, hits: list[str], doc_id: str, mask: np.ndarray) -> int:
    """The rank of a document among the hits that a mask lets through."""
    allowed = [hit for hit in hits if mask[misses.corpus.position(hit)]]
    return 1 + allowed.index(doc_id)


def _unfiltered_hits(misses: Misses, query: Query) -> list[str]:
    """The baseline's list without its filters, where we can have it."""
    run = misses.baseline_run
    if not misses.own_system:
        unfiltered = replace(misses.baseline, filters="ignore")
        run = misses.run(unfiltered)
    hits = run.results.get(query.id, ())
    return [doc_id for doc_id, _ in hits]
