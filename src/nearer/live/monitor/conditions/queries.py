"""Drift of the queries: another distribution, new words, new topics.

Queries that were never asked before are compared with those that were; an effect counts by its size
among all queries of the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nearer.live.monitor.conditions.day import Asked
from nearer.live.monitor.conditions.judging import ENOUGH, Evidence, Family, Judge
from nearer.measure import drift
from nearer.measure.slices import terms

_IF_THEY_MATTER = "read the terms: if these queries matter, judge some of them, add them to the data and run nearer run"
_ADVICE = {
    "query_distribution": _IF_THEY_MATTER,
    "query_classifier": _IF_THEY_MATTER,
    "new_terms": "index documents that explain the words, search words beside vectors (nearer fix), or fine-tune again with them",
    "new_clusters": "judge some queries of the new topic, add them to the data, then nearer run",
}
FEW = 20  # queries that were never asked before, below which there is nothing to tell apart
_MMD = 0.015  # smallest √MMD² that counts: a tenth of the traffic about something else gives more
_CHANCE = 0.5  # AUC of a classifier that knows nothing
_EXAMPLES = 10
_GROUPS = 5  # new topics that an alert names


@dataclass(frozen=True, slots=True)
class _Fresh:
    """The queries of a day that the reference does not have, and the words of both."""

    fresh: Asked
    reference: Asked
    rest: Asked  # of the reference, what was not asked on the day
    share: float  # of the queries of the day
    words: Sequence[set[str]]  # per fresh query
    known: Sequence[set[str]]  # per query of the reference

    def telling(self, rows: Iterable[int], most: int = 8) -> list[str]:
        """Words that tell some fresh queries from the reference."""
        return drift.telling_terms(self.known, [self.words[row] for row in rows], most)

    def texts(self, rows: Sequence[int]) -> list[str]:
        return [self.fresh.texts[row] for row in rows]


def _judge(judge: Judge) -> None:
    asked, reference = judge.seen.asked, judge.seen.reference
    if asked is None or reference is None or min(len(asked.texts), len(reference.texts)) < ENOUGH:
        why = f"no model, or fewer than {ENOUGH} different queries on the day or in the reference"
        judge.skip(why, *_ADVICE)
        return
    fresh, rest = asked.without(reference), reference.without(asked)
    share = len(fresh.texts) / len(asked.texts)
    judge.row("new_queries", share)
    if min(len(fresh.texts), len(rest.texts)) < FEW:
        judge.skip(f"fewer than {FEW} queries of the day were not asked before", *_ADVICE)
        return
    words = [set(terms(text)) for text in fresh.texts]
    known = [set(terms(text)) for text in reference.texts]
    day = _Fresh(fresh, reference, rest, share, words, known)
    _distribution(judge, day)
    _new_terms(judge, day)
    _new_clusters(judge, day)


def _distribution(judge: Judge, day: _Fresh) -> None:
    """Two tests of one question: are the fresh queries from the distribution of the reference?"""
    words = day.telling(range(len(day.words)))
    listed = ", ".join(words)
    addition = f"; they say more often: {listed}" if words else ""
    overlaps = [-len(query & set(words)) for query in day.words]
    typical = np.argsort(overlaps, kind="stable").tolist()
    examples = day.texts(typical[:_EXAMPLES])
    mmd, auc = drift.two_sample(day.rest.vectors, day.fresh.vectors, judge.rng)
    mmd, auc = mmd.within(day.share), auc.within(day.share, _CHANCE)
    what = f"queries come from another distribution than the reference (√MMD² {mmd.value:.3f})"
    evidence = Evidence(what + addition, examples, listed or "all")
    judge.outcome("query_distribution", mmd, _MMD, evidence)
    what = f"a classifier tells the queries from the reference (AUC {auc.value:.2f})"
    evidence = Evidence(what + addition, examples, listed or "all")
    judge.outcome("query_classifier", auc, judge.settings.apart - _CHANCE, evidence)


def _new_terms(judge: Judge, day: _Fresh) -> None:
    known = judge.seen.known
    shift, new = drift.new_terms(day.known, day.words, known)
    shift, rows = shift.within(day.share), np.flatnonzero(new).tolist()
    words = drift.telling_terms(day.known, [day.words[row] - known for row in rows])
    what = f"{shift.value:.1%} of the queries have a word that is neither in the reference nor in a document ({shift.before:.1%} expected)"
    evidence = Evidence(what, day.texts(rows), ", ".join(words) or "all")
    judge.outcome("new_terms", shift, judge.settings.rate, evidence)


def _new_clusters(judge: Judge, day: _Fresh) -> None:
    novel = drift.new_clusters(day.reference.vectors, day.fresh.vectors, judge.rng)
    shift = novel.shift.within(day.share)
    groups = novel.groups[:_GROUPS] or (np.flatnonzero(novel.outside),)
    names = [", ".join(day.telling(group, 4)) or "mixed" for group in groups]
    sizes = zip(names, groups, strict=True)
    listed = "; ".join(f"{name} ({len(group)})" for name, group in sizes)
    what = f"{shift.value:.1%} of the queries lie outside every known topic ({shift.before:.1%} expected): {listed}"
    examples = day.texts(np.concatenate(groups).tolist())
    evidence = Evidence(what, examples, f"new topic: {names[0]}")
    judge.outcome("new_clusters", shift, judge.settings.rate, evidence)


FAMILY = Family(_judge, _ADVICE)
