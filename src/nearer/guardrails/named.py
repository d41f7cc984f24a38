"""Queries that people named, must-pass and high-risk ones, are not lost."""

from __future__ import annotations

from collections.abc import Sequence

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.measure.named import NamedOutcome

#: Names of the rows, by the list.
ROWS = {"must_pass": "must-pass queries", "high_risk": "high-risk queries"}
_SHOWN = 5  # queries that the reason names


class NamedGuardrail:
    """One row per list: it fails where the candidate no longer answers a query that was answered.

    A query that neither system answers is listed and does not fail the row: it is no loss.
    """

    name = "named queries"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        rows = named_rows(evidence.named)
        return rows or DoesNotApply("no query is named as must-pass or high-risk")


def named_rows(outcomes: Sequence[NamedOutcome]) -> list[Row]:
    """A row for each list that names a query."""
    rows = []
    for group, name in ROWS.items():
        listed = [outcome for outcome in outcomes if outcome.group == group]
        if listed:
            rows.append(_row(name, listed))
    return rows


def _row(name: str, listed: Sequence[NamedOutcome]) -> Row:
    lost = [outcome for outcome in listed if outcome.fate == "lost"]
    missed = [outcome for outcome in listed if outcome.fate == "missed"]
    reasons = []
    if lost:
        reasons.append(f"no longer answered: {_ids(lost)}")
    if missed:
        reasons.append(f"answered by neither system: {_ids(missed)}")
    more = {"lost": [outcome.query_id for outcome in lost]}
    more |= {"missed": [outcome.query_id for outcome in missed]}
    if reasons:
        return Row(
            name=name,
            status="fail" if lost else "pass",
            n=len(listed),
            more={**more, "reason": "; ".join(reasons)},
        )
    return Row(name=name, status="pass", n=len(listed), more=more)


def _ids(outcomes: Sequence[NamedOutcome]) -> str:
    shown = [f"{outcome.query_id} “{outcome.text[:80]}”" for outcome in outcomes[:_SHOWN]]
    left = len(outcomes) - len(shown)
    if left:
        shown.append(f"and {left} more")
    return ", ".join(shown)
