"""`exact_match`: the words of the query find the document where vectors do not."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn

PROBE = "exact_match"
_MOSTLY_NAMES = 0.5  # share of the query's terms from which identifiers outweigh unread text


def _works(case: Case) -> bool:
    return case.works(PROBE, sure=bool(case.facts.identifiers))


def goes_before_chunks(case: Case) -> bool:
    """Do identifiers speak for words more than anything speaks for cutting the document?"""
    facts = case.facts
    if not facts.identifiers or not _works(case):
        return False
    return not facts.unread or facts.identifier_share >= _MOSTLY_NAMES


def _matched(case: Case) -> Explanation | None:
    if not _works(case):
        return None
    identifiers = case.facts.identifiers
    if not identifiers:
        return Explanation("words", case.route(PROBE))
    evidence = f"{', '.join(identifiers[:4])} stand in it; {case.route(PROBE)}"
    return Explanation("identifier or rare term", evidence)


def _in_part(case: Case) -> int | None:
    return case.rank_near(PROBE) if case.facts.identifiers else None


CAUSE = Cause(
    "exact_match",
    remedy="search words beside vectors (BM25 or a hybrid)",
    rules=(Rule(Turn.REPAIR, _matched),),
    rank_in_part=_in_part,
)
