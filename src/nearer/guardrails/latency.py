"""Answers do not come noticeably later."""

from __future__ import annotations

from nearer.guardrails.base import GuardrailEvidence, Outcome, Row, cannot_be_measured
from nearer.search.costs import slowdown


class LatencyGuardrail:
    """Fails when median and tail are both slower than allowed."""

    name = "latency"

    def check(self, evidence: GuardrailEvidence) -> Outcome:
        limits = evidence.settings.guardrails
        before = evidence.latencies[evidence.baseline.name]
        after = evidence.latencies[evidence.candidate.name]
        ratio = slowdown(before, after)
        if ratio is None:
            reason = "a system is a file of results, which takes no time"
            return cannot_be_measured(reason, "latency_ratio", limits)
        return [Row.of_ratio(self.name, ratio, limits.latency_ratio)]
