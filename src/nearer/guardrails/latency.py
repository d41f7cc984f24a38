"""Answers do not come noticeably later."""

from __future__ import annotations

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
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
        return [Row.of_ratio(self.name, ratio, evidence.settings.guardrails.latency_ratio)]
