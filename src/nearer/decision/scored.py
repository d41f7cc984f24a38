"""Decides on held-out scored pairs: whose similarities follow the scores better, and what is forgotten.

Where plain training files of scored pairs are all the data there is no search to compare: the base
model stands against the fine-tuned one, by Spearman's rank correlation on the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.config import Config, Decide
from nearer.data.corpus import Corpus
from nearer.data.scored import ScoredPair
from nearer.decision.record import (
    Answer,
    CandidateRecord,
    Compared,
    ComparisonRecord,
    DecisionRecord,
    GuardrailRecord,
    Measure,
)
from nearer.embed.base import TextEncoder
from nearer.embed.pairs import similarities
from nearer.guardrails import load_guardrails
from nearer.guardrails.base import Guardrail, NotTried, Row, cannot_be_measured
from nearer.guardrails.general import NO_SET, GeneralGuardrail, general_row
from nearer.measure.correlation import CorrelationChange, compare_correlations
from nearer.measure.guarded import that_are_open, that_passed
from nearer.measure.verdict import TUNED
from nearer.types import Split

MEASURE = "Spearman"
#: With fewer pairs a bootstrap says too little: nothing is shown.
LEAST_PAIRS = 20
_TODAY = "today"
_NO_SEARCH = "scored pairs are all the data: there is no search"
#: Guardrails of a search that have a limit in the settings: the name of each, and the setting.
_LIMITS = {"slices": "slice_margin", "latency": "latency_ratio", "memory": "memory_ratio"}


@dataclass(frozen=True)
class PairsEvidence:
    """What the decision rests on; `tuned` is None where nothing was trained."""

    pairs: Sequence[ScoredPair]
    base: TextEncoder
    tuned: TextEncoder | None
    general_set: tuple[Corpus, Split] | None
    settings: Config
    looks: int  # how often test has been opened
    guardrails: Sequence[Guardrail] = field(default_factory=load_guardrails)

    @property
    def scores(self) -> np.ndarray:
        """float64 (n_pairs,)."""
        return np.array([pair.score for pair in self.pairs], np.float64)


def decide_on_pairs(evidence: PairsEvidence, rng: np.random.Generator) -> DecisionRecord:
    """The record: base against fine-tuned model on the pairs, and the guardrail of general ability.

    Raises DataError for fewer than 3 pairs.
    """
    settings = evidence.settings.decide
    before = similarities(evidence.base, evidence.pairs)
    after = before if evidence.tuned is None else similarities(evidence.tuned, evidence.pairs)
    change = compare_correlations(evidence.scores, before, after, rng, settings.alpha)
    guardrails = [] if evidence.tuned is None else _guardrails(evidence, evidence.tuned)
    verdict, why = _verdict(evidence, change, guardrails)
    ships = verdict == "ship"
    words = {"ship": f"Ship the {TUNED} model", "do_not_ship": "Do not ship"}
    comparisons = []
    if evidence.tuned is not None:
        comparisons = [_comparison(change, settings.alpha)]
    return DecisionRecord(
        verdict=verdict,
        recommended=TUNED if ships else _TODAY,
        sentence=f"{words.get(verdict, 'Inconclusive')}: {why}.",
        reasons=tuple(_reasons(change, guardrails, evidence)),
        primary=MEASURE,
        n_queries=len(evidence.pairs),
        compared=Compared(baseline=_TODAY, candidate=TUNED if comparisons else None),
        min_gain=settings.min_gain,
        alpha=settings.alpha,
        seeds=0 if evidence.tuned is None else 1,
        checklist=tuple(_checklist(evidence, change)),
        candidates=tuple(_candidates(evidence, change)),
        comparisons=tuple(comparisons),
        guardrails=tuple(GuardrailRecord.of(row.as_dict()) for row in guardrails),
        test_looks=evidence.looks,
    )


def _guardrails(evidence: PairsEvidence, tuned: TextEncoder) -> list[Row]:
    """A row of each guardrail: ordinary language is measured, the others need a search."""
    ours = {guardrail.name for guardrail in load_guardrails()}
    settings = evidence.settings.decide
    rows = []
    for guardrail in evidence.guardrails:
        name = str(guardrail.name)
        if not isinstance(guardrail, GeneralGuardrail):
            rows.append(_without_search(name, settings, asked_for=name not in ours))
        elif evidence.general_set is None:
            rows.append(Row.not_measured(name, NO_SET))
        else:
            encoders = evidence.base, tuned
            rows.append(general_row(encoders, evidence.general_set, settings))
    return rows


def _without_search(name: str, settings: Decide, asked_for: bool) -> Row:
    """The row of a guardrail of searches: open where somebody asked for it."""
    if name == "tasks":
        asked_for = bool(settings.guards)
    if name == "named queries":
        asked_for = bool(settings.must_pass or settings.high_risk)
    if name in _LIMITS:
        answer = cannot_be_measured(_NO_SEARCH, _LIMITS[name], settings.guardrails)
        asked_for = isinstance(answer, NotTried)
    if asked_for:
        return Row.unchecked(name, f"not tried: {_NO_SEARCH}")
    return Row.without_object(name, _NO_SEARCH)


def _verdict(
    evidence: PairsEvidence, change: CorrelationChange, guardrails: Sequence[Row]
) -> tuple[str, str]:
    """The verdict and why, as `measure.verdict.judge` has it for queries."""
    settings = evidence.settings.decide
    if evidence.tuned is None:
        return "do_not_ship", "no model was fine-tuned"
    failed = [row.name for row in guardrails if row.status == "fail"]
    if failed:
        return "do_not_ship", f"the {TUNED} model fails its guardrails ({', '.join(failed)})"
    useful = f"{settings.min_gain:g}"
    enough = change.n >= LEAST_PAIRS
    if change.delta <= 0 or (enough and change.high < settings.min_gain):
        told = f"fine-tuning changes {MEASURE} by {_span(change)}, less than the useful {useful}"
        return "do_not_ship", told
    if _outcome(change, settings.alpha) != "better" or change.delta < settings.min_gain:
        told = f"{MEASURE} changes by {_span(change)}; more held-out pairs would settle it"
        if not enough:
            told += f" ({change.n:,} are fewer than the {LEAST_PAIRS} that an interval needs)"
        return "inconclusive", told
    rise = (
        f"{MEASURE} rises from {change.before.mean:.3f} to {change.after.mean:.3f} "
        f"({_span(change)}) on {change.n:,} held-out pairs"
    )
    rows = [row.as_dict() for row in guardrails]
    unsettled = that_are_open(rows)
    if unsettled:
        return "inconclusive", f"{rise}, but {unsettled}"
    return "ship", f"{rise}, and {that_passed(rows)}"


def _outcome(change: CorrelationChange, alpha: float) -> str:
    """better, worse or unclear: interval and p must agree, on enough pairs."""
    if change.p > alpha or change.n < LEAST_PAIRS:
        return "unclear"
    if change.low > 0.0:
        return "better"
    return "worse" if change.high < 0.0 else "unclear"


def _span(change: CorrelationChange) -> str:
    return f"{change.delta:+.3f}, {change.low:+.3f} to {change.high:+.3f}".replace("-", "−")


def _reasons(
    change: CorrelationChange, guardrails: Sequence[Row], evidence: PairsEvidence
) -> list[str]:
    reasons = []
    if evidence.tuned is not None:
        reasons.append(f"{TUNED} against {_TODAY}: {MEASURE} {_span(change)}, p = {change.p:.4f}")
    for row in guardrails:
        if row.status != "does not apply":
            why = f" ({row.more['reason']})" if "reason" in row.more else ""
            reasons.append(f"guardrail {row.name}: {row.status}{why}")
    reasons.append("there are scored pairs alone: no search and no simpler fix was compared")
    return reasons


def _checklist(evidence: PairsEvidence, change: CorrelationChange) -> list[Answer]:
    outcome = _outcome(change, evidence.settings.decide.alpha)
    improves = {"better": "yes", "worse": "no"}.get(outcome, "unknown")
    if evidence.tuned is None:
        improves = "not tried"
    answers = (
        (
            "Is the failure measured?",
            "yes",
            f"the base model's {MEASURE} is {change.before.mean:.3f} on {change.n:,} held-out pairs",
        ),
        ("Are simpler fixes insufficient?", "not tried", "there is no search to repair"),
        ("Does held-out evaluation improve?", improves, _span(change)),
    )
    rows = []
    for question, answer, told in answers:
        rows.append(Answer(question=question, answer=answer, evidence=told))
    return rows


def _comparison(change: CorrelationChange, alpha: float) -> ComparisonRecord:
    values: dict[str, Any] = {
        "baseline": _TODAY,
        "candidate": TUNED,
        "measure": MEASURE,
        "outcome": _outcome(change, alpha),
        **change.as_dict(),
    }
    return ComparisonRecord.of(values)


def _candidates(evidence: PairsEvidence, change: CorrelationChange) -> list[CandidateRecord]:
    rows = [_candidate(_TODAY, "today", evidence.base, change.before.as_dict())]
    if evidence.tuned is not None:
        rows.append(_candidate(TUNED, "candidate", evidence.tuned, change.after.as_dict()))
    return rows


def _candidate(
    name: str, role: str, encoder: TextEncoder, measured: Mapping[str, Any]
) -> CandidateRecord:
    fingerprint = encoder.fingerprint
    return CandidateRecord(
        name=name,
        role=role,
        system="dense",
        model=encoder.name,
        fingerprint=fingerprint.id,
        measures={MEASURE: Measure.of(measured)},
    )
