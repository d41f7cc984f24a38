"""`needs_metadata`: a filter that the query declares, or names in its text, finds the document."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn

PROBE = "needs_metadata"


def _filtered(case: Case) -> Explanation | None:
    if not case.works(PROBE, sure=case.facts.declared):
        return None
    declared = case.probe(PROBE).best_variant == "declared"
    kind = "declared filter" if declared else "filter named in the query"
    return Explanation(kind, case.route(PROBE))


def _in_part(case: Case) -> int | None:
    return case.rank_near(PROBE) if case.facts.declared else None


CAUSE = Cause(
    "needs_metadata",
    remedy="apply the filter that the query declares or names",
    rules=(Rule(Turn.REPAIR, _filtered),),
    rank_in_part=_in_part,
)
