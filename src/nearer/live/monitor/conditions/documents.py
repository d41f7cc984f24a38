"""Do the documents of the active generation match the corpus, and does it know their words?"""

from __future__ import annotations

from itertools import chain

import numpy as np

from nearer.live.monitor.conditions.day import Freshness
from nearer.live.monitor.conditions.judging import Evidence, Family, Judge
from nearer.measure import drift
from nearer.measure.significance import MIN_QUERIES

_ADVICE = {
    "documents": "nearer index sync, then nearer index verify ID",
    "document_terms": "after nearer index sync evaluate again (nearer evaluate): the model may not know the new words",
}


def _judge(judge: Judge) -> None:
    freshness = judge.seen.documents
    if freshness is None:
        judge.skip("no generation is active", *_ADVICE)
        return
    _content(judge, freshness)
    _words(judge, freshness)


def _content(judge: Judge, freshness: Freshness) -> None:
    differing = {
        "missing": freshness.missing,
        "outdated": freshness.changed,
        "deleted but still there": freshness.extra,
    }
    documents = max(1, freshness.documents)
    for name, ids in differing.items():
        judge.row("documents", len(ids) / documents, slice=name)
    counts = ", ".join(f"{len(ids)} {name}" for name, ids in differing.items())
    evidence = Evidence(
        f"of {freshness.documents} documents the active generation has {counts}",
        examples=chain.from_iterable(differing.values()),
        slice=max(differing, key=lambda name: len(differing[name])),
    )
    share = sum(map(len, differing.values())) / documents
    judge.fact("documents", share, judge.settings.stale, evidence)


def _words(judge: Judge, freshness: Freshness) -> None:
    indexed, coming = freshness.terms
    if min(len(indexed), len(coming)) < MIN_QUERIES:
        judge.skip(f"fewer than {MIN_QUERIES} documents wait to be indexed", "document_terms")
        return
    shift, new = drift.new_terms(indexed, coming, ())
    with_new_words = [coming[row] for row in np.flatnonzero(new).tolist()]
    words = drift.telling_terms(indexed, with_new_words)
    what = f"{shift.value:.0%} of the new documents use words that no indexed one has ({shift.before:.0%} expected): {', '.join(words)}"
    judge.outcome("document_terms", shift, judge.settings.rate, Evidence(what, words))


FAMILY = Family(_judge, _ADVICE, facts=("documents",), needs_whole_day=False)
