"""Answers do not come noticeably later."""

from __future__ import annotations

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row, Status


class LatencyGuardrail:
    """Fails when median and tail are both slower than allowed.

    One of them alone is noise on a shared machine.
    """

    name = "latency"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        before = evidence.latencies[evidence.baseline.name]
        after = evidence.latencies[evidence.candidate.name]
        if before is None or after is None:
            return DoesNotApply("a system is a file of results, which takes no time")
        median = after.p50_ms / max(before.p50_ms, 1e-9)
        tail = after.p95_ms / max(before.p95_ms, 1e-9)
        ratio = min(median, tail)
        limit = evidence.settings.guardrails.latency_ratio
        status: Status = "fail" if ratio > limit else "pass"
        row = Row(
            name=self.name,
            status=status,
            margin=limit,
            delta=round(ratio, 3),
        )
        return [row]
