"""Makes the decision record: what was found, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nearer.decision.candidates import Finalists, MeasuredCandidate
from nearer.decision.examples import Changes
from nearer.decision.inputs import DecisionInputs
from nearer.decision.payback import Change, Payback, payback
from nearer.decision.queries import QueryFindings, comparison_record
from nearer.decision.record import (
    Answer,
    CandidateCost,
    CandidateRecord,
    Compared,
    ComparisonRecord,
    CostRecord,
    DecisionRecord,
    Flip,
    FlipsRecord,
    GuardrailRecord,
    LatencyRecord,
    Measure,
    NotTriedRecord,
    SkippedRecord,
    SliceRecord,
)
from nearer.measure.checklist import checklist
from nearer.measure.not_tried import NotTried, exceptions, untold, untried, whole_fixes
from nearer.measure.significance import Units, mean_interval
from nearer.measure.verdict import Evidence, Verdict, judge

Json = dict[str, Any]

_SHOWN = 5  # named queries that a reason tells
#: What is said of simpler fixes where `fix` did not run: the plain systems alone were compared.
_NO_FIXES = (
    {"fix": "the ladder of simpler fixes", "why": "nearer fix did not run", "next": "nearer fix"},
)


@dataclass(frozen=True, slots=True)
class TunedFindings:
    """What was found about the fine-tuned system alone; empty where nothing was trained."""

    slices: Sequence[SliceRecord] = ()
    guardrails: Sequence[GuardrailRecord] = ()
    cost: CostRecord = field(default_factory=CostRecord)  # what re-embedding takes
    margins: Json = field(default_factory=dict)  # of the test queries, under both models

    @classmethod
    def of(
        cls, *, slices: Sequence[Json], guardrails: Sequence[Json], cost: Json, margins: Json
    ) -> TunedFindings:
        """From the rows as they were measured."""
        return cls(
            slices=[SliceRecord.of(row) for row in slices],
            guardrails=[GuardrailRecord.of(row) for row in guardrails],
            cost=CostRecord.of(cost),
            margins=margins,
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the decision record tells."""

    inputs: DecisionInputs
    evidence: Evidence
    measured: Sequence[MeasuredCandidate]
    tuned: TunedFindings
    changes: Changes | None
    missing: Mapping[str, int]  # relevant documents that the corpus lacks
    queries: QueryFindings = field(default_factory=QueryFindings)
    #: The test queries, each counted as often as users ask it; None where nobody says how often.
    requests: Units | None = None

    def record(self) -> DecisionRecord:
        """The decision record; its sign-off is a person's."""
        tuned = self.tuned
        not_tried, skipped = untried_fixes(self.inputs)
        evidence = replace(self.evidence, not_tried=not_tried)
        verdict = judge(evidence)
        questions = checklist(
            evidence,
            self.inputs.mined or {},
            self.inputs.diagnosis or {},
            not_tried,
            skipped,
        )
        pays = self._pays()
        questions.append(pays.question())
        flips = [] if self.changes is None else self.changes.negative_flips()
        counted = None if self.changes is None else FlipsRecord.of(self.changes.flips())
        return DecisionRecord(
            verdict=verdict.verdict,
            recommended=verdict.recommended,
            sentence=_sentence(verdict, not_tried, skipped),
            reasons=tuple(self._reasons(verdict, not_tried, skipped)),
            not_tried=tuple(map(NotTriedRecord.of, not_tried)),
            primary=evidence.primary,
            n_queries=len(evidence.today.scores),
            missing=self.missing,
            compared=self._compared(),
            min_gain=evidence.min_gain,
            alpha=evidence.alpha,
            seeds=0 if evidence.tuned is None else 1,
            checklist=tuple(map(Answer.of, questions)),
            candidates=tuple(_candidate(row, evidence) for row in self.measured),
            comparisons=tuple(self._comparisons()),
            slices=tuple(tuned.slices),
            guardrails=tuple(tuned.guardrails),
            cost=tuned.cost,
            negative_flips=tuple(map(Flip.of, flips)),
            test_looks=self.inputs.looks,
            pays=pays.as_dict(),
            flips=counted,
            skipped=tuple(map(SkippedRecord.of, skipped)) or None,
            queries_from=self._queries_from(),
            **self.queries.records(evidence.primary),
        )

    def _queries_from(self) -> Json | None:
        """Queries of people and generated ones by split, and why generated ones may decide."""
        accepted = self.inputs.settings.decide.accept_generated
        counts: Json = dict(self.inputs.queries_from)
        if accepted and self.inputs.generated:
            counts["accepted"] = accepted
        return counts or None

    def _pays(self) -> Payback:
        """Whether re-indexing for the fine-tuned system pays."""
        evidence = self.evidence
        today, tuned = evidence.today, evidence.tuned
        change = None
        if tuned is not None:
            sizes = {row.candidate.name: row.index_bytes for row in self.measured}
            change = Change(
                today,
                tuned,
                sizes.get(today.name),
                sizes.get(tuned.name),
                evidence.clusters if self.requests is None else self.requests,
            )
        return payback(
            change,
            self.tuned.cost,
            self.inputs.settings.decide,
            evidence.primary,
            evidence.shown(tuned, today),
        )

    def _reasons(self, verdict: Verdict, not_tried: NotTried, skipped: NotTried) -> list[str]:
        reasons = [*verdict.reasons, *self._too_slow()]
        for row in self.tuned.guardrails:
            if row.status == "not measured":
                reasons.append(f"guardrail {row.name} was not measured: {row.more['reason']}")
            elif "reason" in row.more and row.status != "does not apply":
                reasons.append(f"guardrail {row.name}: {row.more['reason']}")
        for line in self.evidence.fix_guardrails:
            if self.evidence.simple is not None and "reason" in line:
                reasons.append(f"{self.evidence.simple.name}, {line['name']}: {line['reason']}")
        reasons += self.queries.reasons(self.evidence.primary)
        reasons += self._not_judged()
        reasons += untried(not_tried)
        if skipped:
            reasons.append(f"left out by decision (decide.skip): {exceptions(skipped)}")
        return reasons

    def _not_judged(self) -> list[str]:
        """The named queries that nothing can be said of: they never count as kept."""
        named = dict.fromkeys(entry.query.id for entry in self.inputs.named)
        reasons = []
        for candidate, outcomes in self.queries.named.items():
            judged = {outcome.query_id for outcome in outcomes}
            left = [query_id for query_id in named if query_id not in judged]
            if left:
                reasons.append(
                    f"{candidate}: {len(left)} of {len(named)} must-pass and high-risk queries were "
                    f"not judged ({', '.join(left[:_SHOWN])}): a file of results answers no "
                    "training query"
                )
        return reasons

    def _too_slow(self) -> list[str]:
        """The fine-tuned system that dev would have chosen, were it not for the latency."""
        tuned = self.evidence.tuned
        if tuned is None:
            return []
        better = [
            row.candidate
            for row in self.measured
            if row.candidate.role == "candidate" and row.candidate.dev > tuned.dev
        ]
        best = max(better, key=lambda candidate: candidate.dev, default=None)
        if best is None:
            return []
        limit = self.inputs.settings.decide.guardrails.latency_ratio
        return [
            f"{best.name} does better on dev ({best.dev:.3f} against {tuned.dev:.3f}) and answers "
            f"more than {limit:g} times as late as today's system: {tuned.name} was chosen"
        ]

    def _compared(self) -> Compared:
        evidence = self.evidence
        finalists = Finalists(evidence.today, evidence.tuned, evidence.simple)
        challenger = finalists.challenger
        name = None if challenger is None else challenger.name
        return Compared(baseline=evidence.today.name, candidate=name)

    def _comparisons(self) -> list[ComparisonRecord]:
        primary = self.evidence.primary
        rows = []
        for names, result in self.evidence.comparisons.items():
            rows.append(comparison_record(names, result, primary))
        return rows


def untried_fixes(inputs: DecisionInputs) -> tuple[list[Json], list[Json]]:
    """The simpler fixes that nobody tried (`fix`, `why`, `next`), and the declared exceptions (`fix`, `reason`).

    A fix counts as an exception while `decide.skip` names it, also where `fix` ran before that.
    """
    fixes = _NO_FIXES if inputs.not_tried is None else inputs.not_tried
    skip = inputs.settings.decide.skip
    not_tried = [dict(fix) for fix in fixes if fix["fix"] not in skip]
    excepted = {fix["fix"] for fix in fixes} & set(skip)
    skipped = [{"fix": name, "reason": skip[name]} for name in skip if name in excepted]
    return not_tried, skipped


def _sentence(verdict: Verdict, not_tried: NotTried, skipped: NotTried) -> str:
    """The verdict in words; a fix that nobody tried is never one that does not help."""
    sentence = verdict.sentence
    if verdict.verdict == "use_simpler_fix":
        return sentence
    whole = whole_fixes(not_tried)
    names = dict.fromkeys(map(_words, whole))
    if names and untold(whole) not in sentence:
        sentence += f" Simpler fixes not tried: {', '.join(names)}."
    if skipped:
        reasons = [f"{_words(fix)} ({fix['reason']})" for fix in skipped]
        sentence += f" Left out by decision: {', '.join(reasons)}."
    return sentence


def _words(fix: Mapping[str, Any]) -> str:
    return str(fix["fix"]).replace("_", " ")


def _candidate(measured: MeasuredCandidate, evidence: Evidence) -> CandidateRecord:
    """One line of `candidates`."""
    candidate, latency = measured.candidate, measured.latency
    measures = {}
    for name, column in candidate.scores.values.items():
        interval = mean_interval(column, evidence.alpha, evidence.clusters)
        measures[name] = Measure.of(interval.as_dict())
    return CandidateRecord(
        name=candidate.name,
        role=candidate.role,
        system=candidate.system,
        **candidate.described,
        dev=round(candidate.dev, 6),
        measures=measures,
        latency=None if latency is None else LatencyRecord.of(latency.as_dict()),
        cost=CandidateCost(index_bytes=measured.index_bytes),
    )
