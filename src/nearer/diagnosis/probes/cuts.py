"""Ranks of finer pieces, and of repairs that work only together, where nothing else finds the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nearer.diagnosis.pieces import Pieces
from nearer.diagnosis.probes.base import Misses, Results
from nearer.diagnosis.probes.filters import satisfied
from nearer.diagnosis.values import CANDIDATES, Pair, Probe, best


def cut_finer(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks by finer pieces (`finer`), and by them together with words and filters (`combined`).

    The document and its nearest competitors are cut alike: the first results of every list that
    was made.  A competitor that none of these lists shows could still stand above it, so the rank
    is the best one possible wherever the competitors are not the whole corpus.
    """
    left = [pair for pair in misses.pairs if _unrepaired(misses, pair, results[pair])]
    if not left or misses.baseline.system == "bm25":
        return {}
    settings = misses.settings
    specs = [spec for spec in settings.pieces if spec not in settings.chunkers]
    if not specs:
        why = "no finer pieces are named (diagnose.pieces)"
        step = "nearer diagnose --set 'diagnose.pieces=[tokens:32:8]'"
        return {"finer": misses.untried(why, step, left)}
    pieces = Pieces(misses.systems, misses.plain, specs, _competitors(misses, left))
    finer: dict[Pair, Probe] = {}
    combined: dict[Pair, Probe] = {}
    for pair, ranks in pieces.ranks(misses.queries_of(left), left, satisfied(misses)):
        among = pieces.among(pair[0])
        finer[pair] = best(ranks.alone, among)
        if ranks.combined:
            combined[pair] = best(ranks.combined, among)
    return {"finer": finer, "combined": combined}


def _unrepaired(misses: Misses, pair: Pair, probes: Mapping[str, Probe]) -> bool:
    """Is the document there, missed by exact search too, and found by no probe so far?"""
    k, exact = misses.settings.k, probes["exact"]
    if pair[1] not in misses.systems.corpus:
        return False
    if probes["today"].within(k) or exact.within(k):
        return False
    return not any(probe.repairs(exact, k) for probe in probes.values())


def _competitors(misses: Misses, pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Query id → the documents wanted and the first results of every list, of queries in `pairs`."""
    systems = misses.systems
    pipelines = [misses.plain]
    pipelines += [replace(misses.changeable, chunker=spec) for spec in misses.settings.chunkers]
    pipelines.append(systems.base("bm25"))
    runs = [misses.run(pipeline) for pipeline in dict.fromkeys(pipelines)]
    pools: dict[str, list[str]] = {}
    for query in misses.queries_of(pairs):
        nearest = dict.fromkeys(misses.wanted[query.id])
        for run in (misses.baseline_run, *runs):
            nearest.update(dict.fromkeys(run.top(query.id, CANDIDATES)))
        pools[query.id] = [doc_id for doc_id in nearest if doc_id in systems.corpus]
    return pools
