"""`chunking`: a piece of the document is found where the whole is not.

A piece may be near to a query by chance.  It is a cause where the answer lies in text that the model
does not read, or where most ways to cut the document agree.
"""

from __future__ import annotations

from nearer.diagnosis.causes import exact_match
from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn
from nearer.diagnosis.values import Probe


def _cut(case: Case) -> Explanation | None:
    """Chunks that an index would have find the document."""
    facts = case.facts
    evidence = facts.unread
    if not evidence and facts.overlap > 0:
        evidence = facts.mixed
    if not evidence or not case.works("chunking", sure=bool(facts.unread)):
        return None
    if exact_match.goes_before_chunks(case):
        return None
    return Explanation(evidence.partition(":")[0], f"{evidence}; {case.route('chunking')}")


def _cut_finer(case: Case) -> Explanation | None:
    """Only pieces that are finer than those find it."""
    unread = case.facts.unread
    if not case.works("finer", sure=bool(unread)):
        return None
    if not _must_be_cut(case, case.probe("finer")):
        return None
    evidence = f"only finer pieces find it: {case.route_among('finer')}"
    if not unread:
        return Explanation("mixed topics", evidence)
    return Explanation(unread.partition(":")[0], f"{unread}; {evidence}")


def _must_be_cut(case: Case, probe: Probe) -> bool:
    """Is there evidence that cutting is the repair: text that is not read, or ways that agree?"""
    if case.facts.unread:
        return True
    if case.facts.overlap == 0:
        return False
    agreed = 0
    for rank in probe.variants.values():
        variant = Probe(rank)
        if variant.comes_near(case.exact) or variant.repairs(case.exact, case.k):
            agreed += 1
    return agreed > max(1, len(probe.variants) / 2)


def _in_part(case: Case) -> int | None:
    ranks = []
    for name in ("chunking", "finer"):
        rank = case.rank_near(name)
        if rank is not None and _must_be_cut(case, case.probe(name)):
            ranks.append(rank)
    return min(ranks, default=None)


CAUSE = Cause(
    "chunking",
    remedy="embed smaller pieces of the documents",
    rules=(Rule(Turn.REPAIR, _cut), Rule(Turn.COSTLY_REPAIR, _cut_finer)),
    rank_in_part=_in_part,
)
