"""What becomes of a gain once a language model reads the results: contexts, and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nearer.decision.candidates import Finalists, PlannedCandidate
from nearer.decision.inputs import DecisionInputs
from nearer.decision.record import DecisionRecord
from nearer.measure.context import is_context
from nearer.measure.significance import Clusters, Comparison, compare
from nearer.measure.verdict import Candidate
from nearer.rag.evaluation import DECISIVE, Answered, Asking, Searched, answer_queries
from nearer.rag.finding import finding, reaches

Json = dict[str, Any]


@dataclass(frozen=True)
class RagFindings:
    """`rag` of the record (None: nothing was asked for), and the lines of `answers.jsonl`."""

    record: Mapping[str, Any] | None = None
    lines: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(
        cls, plan: Sequence[PlannedCandidate], finalists: Finalists, inputs: DecisionInputs
    ) -> RagFindings:
        """Contexts by the measures that were asked for, answers where there is a language model."""
        return _Reading(plan, finalists, inputs).findings()

    def added_to(self, decided: DecisionRecord) -> DecisionRecord:
        """The record with what was found; a gain that does not reach the answers is in its sentence."""
        if self.record is None:
            return decided
        record = {**self.record, **_about(self.record["conclusions"], decided.recommended)}
        reasons = list(decided.reasons)
        sentence = decided.sentence
        if record["finding"]:
            reasons.append(f"what a language model reads: {record['finding']}")
        for row in record.get("answers", {}).get("not_tried", ()):
            reasons.append(f"not tried: {row['what']} ({row['why']}; {row['next']})")
        if record["reaches_answers"] is False:
            sentence += " The gain of the search is not shown to reach the answers."
        return replace(decided, rag=record, reasons=tuple(reasons), sentence=sentence)


def _about(conclusions: Sequence[Json], recommended: str) -> Json:
    """The conclusion about the recommended system, or the first where the baseline stays."""
    nothing: Json = {"candidate": "", "finding": "", "reaches_answers": None}
    chosen = next(iter(conclusions), nothing)
    for conclusion in conclusions:
        if conclusion["candidate"] == recommended:
            chosen = conclusion
    return {
        "about": chosen["candidate"],
        "finding": chosen["finding"],
        "reaches_answers": chosen["reaches_answers"],
    }


@dataclass(frozen=True)
class _Reading:
    plan: Sequence[PlannedCandidate]
    finalists: Finalists
    inputs: DecisionInputs

    def findings(self) -> RagFindings:
        contexts = self._contexts()
        answered = self._answered()
        if not contexts and answered is None:
            return RagFindings()
        record: Json = {"contexts": contexts}
        if answered is not None:
            record["answers"] = answered.record
        rows = [*contexts, *record.get("answers", {}).get("comparisons", ())]
        record["conclusions"] = self._conclusions(rows)
        return RagFindings(record, () if answered is None else answered.lines)

    def _compare(
        self, before: np.ndarray, after: np.ndarray, clusters: Clusters = None
    ) -> Comparison:
        """With random numbers of its own: what else is decided does not depend on it."""
        settings = self.inputs.settings
        rng = np.random.default_rng([settings.seed, *b"rag"])
        resamples, alpha = settings.evaluate.resamples, settings.decide.alpha
        return compare(before, after, rng, resamples, alpha, clusters)

    def _row(self, baseline: Candidate, candidate: Candidate, measure: str) -> Json:
        before, after = baseline.scores.column(measure), candidate.scores.column(measure)
        names = {"baseline": baseline.name, "candidate": candidate.name, "measure": measure}
        clusters = self.inputs.clusters.labels(candidate.scores.query_ids)
        return {**names, **self._compare(before, after, clusters).as_dict()}

    def _contexts(self) -> list[Json]:
        """Comparisons of every measure of contexts."""
        rows = []
        for baseline, candidate in self.finalists.pairs():
            for measure in filter(is_context, baseline.scores.values):
                rows.append(self._row(baseline, candidate, measure))
        return rows

    def _answered(self) -> Answered | None:
        """Answers of the finalists; None without a language model."""
        inputs, settings = self.inputs, self.inputs.settings
        if settings.rag.url is None:
            return None
        pairs = self.finalists.pairs()
        planned = {each.name: each for each in self.plan}
        searched = []
        for candidate in (self.finalists.today, self.finalists.simple, self.finalists.tuned):
            if candidate is not None:
                each = planned[candidate.name]
                searched.append(
                    Searched(candidate.name, each.systems, each.pipeline, candidate.run)
                )
        asking = Asking(
            settings.rag,
            inputs.base.root,
            inputs.base.cache,
            settings.seed,
            settings.decide.alpha,
            labels=inputs.clusters.labels,
        )
        named = [(baseline.name, candidate.name) for baseline, candidate in pairs]
        return answer_queries(searched, named, inputs.test, asking, self._compare)

    def _conclusions(self, rows: Sequence[Json]) -> list[Json]:
        """What becomes of the change from the baseline to each other finalist, the challenger first."""
        return [
            self._conclusion(baseline, candidate, rows)
            for baseline, candidate in self.finalists.pairs()
            if baseline is self.finalists.today
        ]

    def _conclusion(self, baseline: Candidate, candidate: Candidate, rows: Sequence[Json]) -> Json:
        retrieval = self._row(baseline, candidate, self.inputs.primary)
        told = []
        reached = None
        for row in rows:
            if (row["baseline"], row["candidate"]) != (baseline.name, candidate.name):
                continue
            if row["measure"].startswith("ContextRecall") or row["measure"] == DECISIVE:
                told.append(row)
            if row["measure"] == DECISIVE:
                reached = reaches(retrieval, row)
        return {
            "candidate": candidate.name,
            "finding": finding(retrieval, told),
            "reaches_answers": reached,
        }
