"""A decision that was judged across a bridge says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearer.decision.record import DecisionRecord


def across_a_bridge(
    decided: DecisionRecord, generation: str, bridge: Mapping[str, Any], fingerprint: str
) -> DecisionRecord:
    """The record with the bridge of a generation, and what the bridge keeps."""
    recall = bridge["kept"]["recall@10"]
    kept = f"its queries find {recall:.3f} of the new model's ten nearest"
    across = f"judged across the bridge {generation} ({bridge['kind']}): {kept}"
    described = {"generation": generation, **bridge, "fingerprint": fingerprint}
    return replace(decided, bridge=described, reasons=(*decided.reasons, across))
