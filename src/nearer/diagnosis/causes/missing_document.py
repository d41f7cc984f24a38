"""`missing_document`: no system can find what the corpus does not hold."""

from __future__ import annotations

from nearer.diagnosis.causes.base import Case, Cause, Explanation, Rule, Turn


def _absent(case: Case) -> Explanation | None:
    missing = case.facts.missing
    return Explanation(missing, missing) if missing else None


CAUSE = Cause(
    "missing_document",
    remedy="index the document, or correct the judgment",
    rules=(Rule(Turn.FACTS, _absent),),
)
