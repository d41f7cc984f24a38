"""`index_loss`: exact search finds the document, the baseline's approximate index does not."""

from __future__ import annotations

from nearer.diagnosis.causes import ranking
from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn


def _lost(case: Case) -> Explanation | None:
    """What a reranker finds among the candidates was not lost by the index."""
    if not case.lost or ranking.is_found_by_reranker(case):
        return None
    rank = case.baseline.rank
    outcome = f"today's index has it at {rank}" if rank else "today's index does not return it"
    return Explanation("", f"exact search has it at {case.exact.rank}; {outcome}")


CAUSE = Cause(
    "index_loss",
    remedy="rebuild the approximate index, or search more of it",
    rules=(Rule(Turn.FACTS, _lost),),
)
