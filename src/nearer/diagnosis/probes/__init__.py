"""Every cheap repair, executed on failing pairs: the rank that each gives the relevant document.

Probes share one embedding cache, one BM25 index and blocks of queries; ranks are exact at any depth
where a system scores every document, and as deep as its list where it does not.

A probe is a function of this folder and one line of `_PROBES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nearer import progress
from nearer.diagnosis.probes import cuts, filters, reranker, vectors, words
from nearer.diagnosis.probes.base import Misses, Named, Results
from nearer.diagnosis.values import Pair, Probe

#: Name → what gives one or more probes, from the pairs and the probes so far.
_PROBES: Mapping[str, Callable[[Misses, Results], Named]] = {
    "ineligible": filters.mended,
    "needs_metadata": filters.narrowed,
    "chunking": vectors.chunked,
    "exact_match": words.matched,
    "ranking": reranker.reranked,
    "base_model": vectors.by_another_model,
    "rewriting": words.rewritten,
    "finer": cuts.cut_finer,
}


def run_probes(misses: Misses) -> dict[Pair, dict[str, Probe]]:
    """All probes of all pairs, by name; pairs whose document is missing have the first two alone.

    `today` is the baseline's rank, `exact` that of exact search with the same model, chunks and
    filters.
    """
    results = _today_and_exact(misses)
    with progress.task("probes", len(_PROBES), "probes") as bar:
        for step, execute in _PROBES.items():
            bar.note(step)
            for name, probes in execute(misses, results).items():
                for pair, probe in probes.items():
                    if pair[1] in misses.corpus:
                        results[pair][name] = probe
            bar.advance()
    return results


def _today_and_exact(misses: Misses) -> dict[Pair, dict[str, Probe]]:
    """The ranks that the baseline gives, and exact search over the same model."""
    exact_search = misses.baseline
    if misses.own_system and misses.over_model:
        exact_search = misses.plain
    results: dict[Pair, dict[str, Probe]] = {}
    for pair, exact in misses.simple(exact_search).items():
        today = exact
        if misses.own_system:
            rank = misses.baseline_run.rank(*pair)
            today = Probe(rank)
        results[pair] = {"today": today, "exact": exact}
    return results
