"""`ranking`: the document is among the candidates, and a reranker lifts it."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn
from nearer.diagnosis.values import CANDIDATES

PROBE = "ranking"


def is_found_by_reranker(case: Case) -> bool:
    """Is the document among the candidates, and within k after reranking?"""
    rank = case.baseline.rank
    if rank is None or rank > CANDIDATES:
        return False
    return case.works(PROBE, sure=True)


def _lifted_though_lost(case: Case) -> Explanation | None:
    """Exact search would find it too: of the two repairs reranking needs no new index."""
    if case.lost and is_found_by_reranker(case):
        return _lift(case)
    return None


def _lifted(case: Case) -> Explanation | None:
    if case.works(PROBE):
        return _lift(case)
    return None


def _lift(case: Case) -> Explanation:
    rank = case.baseline.rank
    evidence = f"among the candidates at {rank}; the reranker takes it {case.ranks(PROBE)}"
    return Explanation("", evidence)


CAUSE = Cause(
    "ranking",
    remedy="put a reranker behind the first stage",
    rules=(Rule(Turn.FACTS, _lifted_though_lost), Rule(Turn.REPAIR, _lifted)),
)
