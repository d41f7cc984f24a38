"""A decision that was judged across a bridge says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearer.decision.payback import QUESTION, Payback
from nearer.decision.record import Answer, CostRecord, DecisionRecord

_NOT_WEIGHED = Payback(
    "unknown",
    "judged across a bridge, which embeds no document again: what a re-index takes and brings is "
    "not weighed",
)


def across_a_bridge(
    decided: DecisionRecord, generation: str, bridge: Mapping[str, Any], fingerprint: str
) -> DecisionRecord:
    """The record with the bridge of a generation, and what the bridge keeps.

    Nothing is embedded again across a bridge, so the record tells no cost of that.
    """
    recall = bridge["kept"]["recall@10"]
    kept = f"its queries find {recall:.3f} of the new model's ten nearest"
    across = f"judged across the bridge {generation} ({bridge['kind']}): {kept}"
    described = {"generation": generation, **bridge, "fingerprint": fingerprint}
    pays = Answer.of(_NOT_WEIGHED.question())
    return replace(
        decided,
        bridge=described,
        reasons=(*decided.reasons, across),
        checklist=tuple(pays if row.question == QUESTION else row for row in decided.checklist),
        cost=CostRecord(),
        pays=_NOT_WEIGHED.as_dict(),
    )
