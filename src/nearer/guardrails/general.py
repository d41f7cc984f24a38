"""The fine-tuned model has not forgotten ordinary language."""

from __future__ import annotations

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.measure.metrics import score
from nearer.measure.significance import non_inferior
from nearer.search.dense import Dense

_MEASURE = "nDCG@10"


class GeneralGuardrail:
    """Both models search the general-ability set exactly."""

    name = "general ability"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        if evidence.general_set is None:
            return DoesNotApply("decide.guardrails.general is null")
        corpus, split = evidence.general_set
        columns = []
        for systems in (evidence.base, evidence.tuned):
            run = Dense(systems.encoder, corpus).search(split.queries, 10)
            columns.append(score(run, split, [_MEASURE]).column(_MEASURE))
        before, after = columns
        settings = evidence.settings
        guard = non_inferior(after - before, settings.guardrails.general_margin, settings.alpha)
        means = {"before": float(before.mean()), "after": float(after.mean())}
        return [Row.of(self.name, guard, **means)]
