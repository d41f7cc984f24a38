"""What is searched does not take noticeably more room in memory."""

from __future__ import annotations

from nearer.guardrails.base import GuardrailEvidence, Outcome, Row, cannot_be_measured


class MemoryGuardrail:
    """Fails when the index of the fine-tuned system is larger than allowed."""

    name = "memory"

    def check(self, evidence: GuardrailEvidence) -> Outcome:
        limits = evidence.settings.guardrails
        before = evidence.index_bytes.get(evidence.baseline.name)
        after = evidence.index_bytes.get(evidence.candidate.name)
        if not before or after is None:
            reason = "the size of one of the two indexes is not known"
            return cannot_be_measured(reason, "memory_ratio", limits)
        sizes = {"before": before, "after": after}
        return [Row.of_ratio(self.name, after / before, limits.memory_ratio, **sizes)]
