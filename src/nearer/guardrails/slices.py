"""No group of queries pays for the gain of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.guardrails.base import GuardrailEvidence, Row
from nearer.measure.significance import Units, non_inferior

#: Guarded beside the slices that the data declares as tags.
_GUARDED = ("seen documents", "unseen documents", "identifier", "high risk")
#: Guarded also where it has fewer queries than `evaluate.min_slice`: exact codes are what a
#: fine-tuned model loses first.
_IDENTIFIER = "identifier"


class SliceGuardrail:
    """One row for each guarded slice, and for any other that is shown to collapse."""

    name = "slices"

    def check(self, evidence: GuardrailEvidence) -> list[Row]:
        rows = []
        measured_slices = {str(measured["slice"]) for measured in evidence.slice_rows}
        for measured in evidence.slice_rows:
            name = measured["slice"]
            if name.startswith("tag:") or name in _GUARDED:
                rows.append(_guarded(name, evidence))
            elif _collapses(measured, evidence):
                rows.append(_collapsed(measured, evidence))
        if _IDENTIFIER not in measured_slices and _loses_answers(_IDENTIFIER, evidence):
            rows.append(_guarded(_IDENTIFIER, evidence))
        return rows


def _guarded(name: str, evidence: GuardrailEvidence) -> Row:
    positions = evidence.baseline.scores.positions(evidence.slices[name])
    settings = evidence.settings
    change = evidence.change[positions]
    units = Units(evidence.labels).at(positions)
    guard = non_inferior(change, settings.guardrails.slice_margin, settings.alpha, units)
    return Row.of(f"slice {name}", guard)


def _loses_answers(name: str, evidence: GuardrailEvidence) -> bool:
    """Whether more queries of a slice lost all their results than found some, few as they are."""
    positions = evidence.baseline.scores.positions(evidence.slices.get(name, ()))
    before = evidence.baseline.scores.column(evidence.primary)[positions] > 0.0
    after = evidence.candidate.scores.column(evidence.primary)[positions] > 0.0
    return bool((before & ~after).sum() > (~before & after).sum())


def _collapses(measured: Mapping[str, Any], evidence: GuardrailEvidence) -> bool:
    settings = evidence.settings
    shown = measured["outcome"] == "worse" and measured["p_holm"] < settings.alpha
    return bool(shown and measured["delta"] < -settings.guardrails.slice_margin)


def _collapsed(measured: Mapping[str, Any], evidence: GuardrailEvidence) -> Row:
    return Row(
        name=f"slice {measured['slice']}",
        status="fail",
        margin=evidence.settings.guardrails.slice_margin,
        delta=measured["delta"],
        lower_bound=measured["ci"][0],
        n=measured["n"],
    )
