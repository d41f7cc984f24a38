"""The fine-tuned model has not forgotten ordinary language."""

from __future__ import annotations

from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.base import Encoder
from nearer.guardrails.base import GuardrailEvidence, NotMeasured, Row
from nearer.measure.metrics import score
from nearer.measure.significance import non_inferior
from nearer.search.dense import Dense
from nearer.types import Split

#: Why general ability was not measured.
NO_SET = "decide.guardrails.general is null"
_MEASURE = "nDCG@10"


class GeneralGuardrail:
    """Both models search the general-ability set exactly."""

    name = "general ability"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | NotMeasured:
        if evidence.general_set is None:
            return NotMeasured(NO_SET)
        encoders = evidence.base.encoder, evidence.tuned.encoder
        return [general_row(encoders, evidence.general_set, evidence.settings)]


def general_row(
    encoders: tuple[Encoder, Encoder], general_set: tuple[Corpus, Split], settings: config.Decide
) -> Row:
    """How much the second model has lost against the first one on the general-ability set."""
    corpus, split = general_set
    columns = []
    for encoder in encoders:
        run = Dense(encoder, corpus).search(split.queries, 10)
        columns.append(score(run, split, [_MEASURE]).column(_MEASURE))
    before, after = columns
    guard = non_inferior(after - before, settings.guardrails.general_margin, settings.alpha)
    means = {"before": float(before.mean()), "after": float(after.mean())}
    return Row.of(GeneralGuardrail.name, guard, **means)
