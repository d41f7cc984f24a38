"""The decision record, `decision.json`: what was found, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.decision.candidates import Finalists, MeasuredCandidate
from nearer.decision.examples import Changes
from nearer.decision.inputs import DecisionInputs
from nearer.measure.significance import mean_interval
from nearer.measure.verdict import Evidence, Verdict, checklist, judge, untold

Json = dict[str, Any]

#: What is said of simpler fixes where `fix` did not run: the plain systems alone were compared.
_NO_FIXES = (
    {"fix": "the ladder of simpler fixes", "why": "nearer fix did not run", "next": "nearer fix"},
)


@dataclass(frozen=True, slots=True)
class TunedFindings:
    """What was found about the fine-tuned system alone; empty where nothing was trained."""

    slices: list[Json] = field(default_factory=list)  # one row per slice
    guardrails: list[Json] = field(default_factory=list)
    cost: Json = field(default_factory=dict)  # what re-embedding takes
    margins: Json = field(default_factory=dict)  # of the test queries, under both models


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the decision record tells."""

    inputs: DecisionInputs
    evidence: Evidence
    measured: Sequence[MeasuredCandidate]
    findings: TunedFindings
    changes: Changes | None
    missing: Mapping[str, int]  # relevant documents that the corpus lacks

    def as_dict(self) -> Json:
        """The keys of `decision.json`, in their order."""
        evidence, findings = self.evidence, self.findings
        not_tried = self._not_tried()
        verdict = judge(evidence)
        return {
            "verdict": verdict.verdict,
            "recommended": verdict.recommended,
            "sentence": _sentence(verdict, not_tried),
            "reasons": self._reasons(verdict, not_tried),
            "not_tried": not_tried,
            "primary": evidence.primary,
            "n_queries": len(evidence.today.scores),
            "missing": self.missing,
            "compared": self._compared(),
            "min_gain": evidence.min_gain,
            "alpha": evidence.alpha,
            "seeds": 0 if evidence.tuned is None else 1,
            "checklist": checklist(
                evidence,
                self.inputs.mined or {},
                findings.cost,
                self.inputs.diagnosis or {},
                not_tried,
            ),
            "candidates": [_candidate(row, evidence.alpha) for row in self.measured],
            "comparisons": self._comparisons(),
            "slices": findings.slices,
            "guardrails": findings.guardrails,
            "cost": findings.cost,
            "negative_flips": [] if self.changes is None else self.changes.negative_flips(),
            "test_looks": self.inputs.looks,
            "sign_off": None,
        }

    def _not_tried(self) -> list[dict[str, str]]:
        """The simpler fixes that nobody tried: `fix`, `why`, and the command `next`."""
        fixes = self.inputs.not_tried
        return [dict(fix) for fix in (_NO_FIXES if fixes is None else fixes)]

    def _reasons(self, verdict: Verdict, not_tried: Sequence[Mapping[str, str]]) -> list[str]:
        reasons = list(verdict.reasons)
        for row in self.findings.guardrails:
            if "reason" in row:
                reasons.append(f"guardrail {row['name']}: {row['reason']}")
        if not_tried:
            reasons.append(f"not tried: {untold(not_tried)}")
        return reasons

    def _compared(self) -> dict[str, str | None]:
        evidence = self.evidence
        finalists = Finalists(evidence.today, evidence.tuned, evidence.simple)
        challenger = finalists.challenger
        return {
            "baseline": evidence.today.name,
            "candidate": None if challenger is None else challenger.name,
        }

    def _comparisons(self) -> list[Json]:
        rows = []
        for (baseline, candidate), result in self.evidence.comparisons.items():
            names = {"baseline": baseline, "candidate": candidate}
            rows.append({**names, "measure": self.evidence.primary, **result.as_dict()})
        return rows


def _sentence(verdict: Verdict, not_tried: Sequence[Mapping[str, str]]) -> str:
    """The verdict in words; a fix that nobody tried is never one that does not help."""
    if not not_tried or verdict.verdict == "use_simpler_fix":
        return verdict.sentence
    names = ", ".join(dict.fromkeys(fix["fix"].replace("_", " ") for fix in not_tried))
    return f"{verdict.sentence} Simpler fixes not tried: {names}."


def _candidate(measured: MeasuredCandidate, alpha: float) -> Json:
    """One line of `candidates`."""
    candidate, latency = measured.candidate, measured.latency
    measures = {}
    for name, column in candidate.scores.values.items():
        measures[name] = mean_interval(column, alpha).as_dict()
    return {
        "name": candidate.name,
        "role": candidate.role,
        "system": candidate.system,
        **candidate.described,
        "dev": round(candidate.dev, 6),
        "measures": measures,
        "latency": None if latency is None else latency.as_dict(),
        "cost": {"index_bytes": measured.index_bytes},
    }
