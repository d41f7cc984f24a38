"""Ranks by words: BM25 and hybrids, and queries with their acronyms and synonyms written out."""

from __future__ import annotations

from dataclasses import replace

from nearer.diagnosis.probes.base import Misses, Named, Results, Tried
from nearer.search.pipeline import Pipeline
from nearer.types import Query, Split

#: Baseline → what searches words beside it; of any other baseline, BM25 and a hybrid.
_BESIDE = {"bm25": (), "rrf": ("bm25",), "convex": ("bm25",)}


def matched(misses: Misses, results: Results) -> Named:
    """Ranks under BM25 and a hybrid, with the baseline's filters."""
    names = _BESIDE.get(misses.baseline.system, ("bm25", "rrf"))
    filters = misses.plain.filters
    pipelines: dict[str, Pipeline] = {}
    for name in names:
        base = misses.systems.base(name)
        pipelines[name] = replace(base, filters=filters)
    return {"exact_match": misses.variants(pipelines)}


def rewritten(misses: Misses, results: Results) -> Named:
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
        name = f"{misses.split.name} rewritten by {spec}"
        part = Split(name, changed, misses.split.judgments)
        pipeline = replace(misses.changeable, rewrite=spec)
        run = misses.run(pipeline, part)
        for query in changed:
            for doc_id in misses.wanted[query.id]:
                pair = (query.id, doc_id)
                tried.add(pair, spec, run.rank(*pair))
    return {"rewriting": tried.probes()}


def _changed_by(spec: str, misses: Misses) -> tuple[Query, ...]:
    """The queries whose text a rewriter changes, as they were."""
    queries = misses.split.queries
    rewrite = misses.systems.rewriter(spec)
    changed = []
    for before, after in zip(queries, rewrite(queries), strict=True):
        if before.text != after.text:
            changed.append(before)
    return tuple(changed)
