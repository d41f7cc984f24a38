"""`ineligible`: the filter that the query declares excludes the document."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn


def _excluded(case: Case) -> Explanation | None:
    """The baseline honours the filter, or the rank with mended metadata proves that it matters."""
    excluded = case.facts.excluded
    if not excluded or not (case.facts.filters_apply or case.works("ineligible")):
        return None
    rank = case.probe("ineligible").rank
    mended = "" if rank is None else f"; were it eligible it would stand at {rank}"
    return Explanation(excluded.partition(":")[0], excluded + mended)


CAUSE = Cause(
    "ineligible",
    remedy="correct the document's metadata, or the filter that the application declares",
    rules=(Rule(Turn.FACTS, _excluded),),
)
