"""Ranks of finer pieces, and of repairs that work only together, where nothing else finds the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer.diagnosis.pieces import Pieces
from nearer.diagnosis.probes.base import Misses, Named, Results
from nearer.diagnosis.probes.filters import satisfied
from nearer.diagnosis.values import CANDIDATES, ByName, Pair, Probe, Probes, best
from nearer.search.pipeline import Pipeline


def cut_finer(misses: Misses, results: Results) -> Named:
    """Ranks by finer pieces (`finer`), and by them together with words and filters (`combined`).

    The document and its nearest competitors are cut alike: the first results of every list that
    was made.  A competitor that none of these lists shows could still stand above it, so the rank
    is the best one possible wherever the competitors are not the whole corpus.
    """
    left = [pair for pair in misses.pairs if _unrepaired(misses, pair, results[pair])]
    if not left or misses.over_words:
        return {}
    chunkers = misses.settings.chunkers
    specs = [spec for spec in misses.settings.pieces if spec not in chunkers]
    if not specs:
        return {"finer": _untried(left)}
    pools = _competitors(misses, left)
    pieces = Pieces(misses.systems, misses.plain, specs, pools)
    queries = misses.queries_of(left)
    filters = satisfied(misses)
    finer: Probes = {}
    combined: Probes = {}
    for pair, ways in pieces.ranks(queries, left, filters):
        among = pieces.among(pair[0])
        finer[pair] = best(ways.alone, among)
        if ways.combined:
            combined[pair] = best(ways.combined, among)
    return {"finer": finer, "combined": combined}


def _untried(pairs: Sequence[Pair]) -> Probes:
    why = "no finer pieces are named (diagnose.pieces)"
    step = "nearer diagnose --set 'diagnose.pieces=[tokens:32:8]'"
    return dict.fromkeys(pairs, Probe(skipped=why, next_step=step))


def _unrepaired(misses: Misses, pair: Pair, probes: ByName) -> bool:
    """Is the document there, missed by exact search too, and found by no probe so far?"""
    k = misses.k
    exact = probes["exact"]
    if pair[1] not in misses.corpus:
        return False
    if probes["today"].within(k) or exact.within(k):
        return False
    return not any(probe.repairs(exact, k) for probe in probes.values())


def _competitors(misses: Misses, pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Query id → the documents wanted and the first results of every list, of queries in `pairs`."""
    runs = [misses.baseline_run]
    for pipeline in dict.fromkeys(_lists(misses)):
        runs.append(misses.run(pipeline))
    pools: dict[str, list[str]] = {}
    for query in misses.queries_of(pairs):
        nearest = dict.fromkeys(misses.wanted[query.id])
        for run in runs:
            top = run.top(query.id, CANDIDATES)
            nearest.update(dict.fromkeys(top))
        pools[query.id] = [doc_id for doc_id in nearest if doc_id in misses.corpus]
    return pools


def _lists(misses: Misses) -> list[Pipeline]:
    """The pipelines beside the baseline whose first results compete."""
    pipelines = [misses.plain]
    for spec in misses.settings.chunkers:
        pipelines.append(replace(misses.changeable, chunker=spec))
    pipelines.append(misses.systems.base("bm25"))
    return pipelines
