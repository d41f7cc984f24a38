"""Answers do not come noticeably later."""

from __future__ import annotations

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row, Status
from nearer.search.costs import slowdown


class LatencyGuardrail:
    """Fails when median and tail are both slower than allowed."""

    name = "latency"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        before = evidence.latencies[evidence.baseline.name]
        after = evidence.latencies[evidence.candidate.name]
        ratio = slowdown(before, after)
        if ratio is None:
            return DoesNotApply("a system is a file of results, which takes no time")
        limit = evidence.settings.guardrails.latency_ratio
        status: Status = "fail" if ratio > limit else "pass"
        row = Row(
            name=self.name,
            status=status,
            margin=limit,
            delta=round(ratio, 3),
        )
        return [row]
