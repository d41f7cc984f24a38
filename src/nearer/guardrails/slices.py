"""No group of queries pays for the gain of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.guardrails.base import GuardrailEvidence, Row
from nearer.measure.significance import non_inferior

#: Guarded beside the slices that the data declares as tags.
_GUARDED = ("seen documents", "unseen documents")


class SliceGuardrail:
    """One row for each declared slice, and for any other that is shown to collapse."""

    name = "slices"

    def check(self, evidence: GuardrailEvidence) -> list[Row]:
        rows = []
        for measured in evidence.slice_rows:
            name = measured["slice"]
            if name.startswith("tag:") or name in _GUARDED:
                rows.append(_guarded(name, evidence))
            elif _collapses(measured, evidence):
                rows.append(_collapsed(measured, evidence))
        return rows


def _guarded(name: str, evidence: GuardrailEvidence) -> Row:
    positions = evidence.baseline.scores.positions(evidence.slices[name])
    settings = evidence.settings
    change = evidence.change[positions]
    guard = non_inferior(change, settings.guardrails.slice_margin, settings.alpha)
    return Row.of(f"slice {name}", guard)


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
