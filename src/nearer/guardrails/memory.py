"""What is searched does not take noticeably more room in memory."""

from __future__ import annotations

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row


class MemoryGuardrail:
    """Fails when the index of the fine-tuned system is larger than allowed."""

    name = "memory"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        before = evidence.index_bytes.get(evidence.baseline.name)
        after = evidence.index_bytes.get(evidence.candidate.name)
        if not before or after is None:
            return DoesNotApply("the size of one of the two indexes is not known")
        limit = evidence.settings.guardrails.memory_ratio
        return [Row.of_ratio(self.name, after / before, limit, before=before, after=after)]
