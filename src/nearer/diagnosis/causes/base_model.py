"""`base_model`: another embedding model finds the document."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn

PROBE = "base_model"


def _found_by_another(case: Case) -> Explanation | None:
    if not case.works(PROBE):
        return None
    return Explanation(case.probe(PROBE).best_variant, case.route(PROBE))


def _in_part(case: Case) -> int | None:
    return case.rank_near(PROBE)


CAUSE = Cause(
    "base_model",
    remedy="use the other embedding model",
    rules=(Rule(Turn.REPAIR, _found_by_another),),
    rank_in_part=_in_part,
)
