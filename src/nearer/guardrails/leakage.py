"""The model was not trained on the queries that judge it."""

from __future__ import annotations

from typing import Any

from nearer.guardrails.base import GuardrailEvidence, NotMeasured, Row

_SHOWN = 5  # queries that the reason names


class LeakageGuardrail:
    """Fails where a test query, or a near-duplicate of one, is among the training examples."""

    name = "no test query in training"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | NotMeasured:
        leakage = evidence.leakage
        if leakage is None:
            return NotMeasured("the training examples are not known")
        n_queries = len(evidence.test)
        if not leakage.queries:
            more = {"examples": leakage.examples}
            return [Row(name=self.name, status="pass", n=n_queries, more=more)]
        shown = [f"{query.query_id} “{query.text[:80]}”" for query in leakage.queries[:_SHOWN]]
        left = len(leakage.queries) - len(shown)
        if left:
            shown.append(f"and {left} more")
        reason = (
            f"leakage: {len(leakage.queries)} of {n_queries} test queries are among the training "
            f"examples ({', '.join(shown)}); nearer mine leaves such examples out"
        )
        found: dict[str, Any] = {
            "examples": leakage.examples,
            "queries": [query.query_id for query in leakage.queries],
            "reason": reason,
        }
        return [Row(name=self.name, status="fail", n=n_queries, more=found)]
