"""Ranks by words: BM25 and hybrids, and queries with their acronyms and synonyms written out."""

from __future__ import annotations

from dataclasses import replace

from nearer.diagnosis.probes.base import Misses, Results, Tried
from nearer.diagnosis.values import Pair, Probe
from nearer.types import Query, Split

#: Baseline → what searches words beside it; of any other baseline, BM25 and a hybrid.
_BESIDE = {"bm25": (), "rrf": ("bm25",), "convex": ("bm25",)}


def matched(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks under BM25 and a hybrid, with the baseline's filters."""
    names = _BESIDE.get(misses.baseline.system, ("bm25", "rrf"))
    filters = misses.plain.filters
    pipelines = {name: replace(misses.systems.base(name), filters=filters) for name in names}
    return {"exact_match": misses.variants(pipelines)}


def rewritten(misses: Misses, results: Results) -> dict[str, dict[Pair, Probe]]:
    """Ranks for rewritten queries; absent where no rewriter changes the query."""
    if misses.baseline.system == "run":
        return {}
    specs = misses.systems.config.fix.rewriters
    if not specs:
        why = "no rewriter is named (fix.rewriters)"
        step = "nearer diagnose --set 'fix.rewriters=[acronyms]'"
        return {"rewriting": misses.untried(why, step)}
    tried = Tried()
    for spec in specs:
        changed = _changed_by(spec, misses)
        if not changed:
            continue
        part = Split(f"{misses.split.name} rewritten by {spec}", changed, misses.split.judgments)
        run = misses.run(replace(misses.changeable, rewrite=spec), part)
        for query in changed:
            for doc_id in misses.wanted[query.id]:
                tried.add((query.id, doc_id), spec, run.rank(query.id, doc_id))
    return {"rewriting": tried.probes()}


def _changed_by(spec: str, misses: Misses) -> tuple[Query, ...]:
    """The queries whose text a rewriter changes, as they were."""
    queries = misses.split.queries
    rewritten = misses.systems.rewriter(spec)(queries)
    pairs = zip(queries, rewritten, strict=True)
    return tuple(before for before, after in pairs if before.text != after.text)
