"""Whether the gain justifies re-indexing: the answer, its figures, what changes, and the way back."""

from __future__ import annotations

from nearer.decision.record import DecisionRecord
from nearer.report import values
from nearer.report.values import Json, as_list, as_object, as_text

#: Keys that are told in words of their own.
_IN_WORDS = ("answer", "why", "changes", "rollback")


def pays(decided: DecisionRecord) -> Json | None:
    """None where the record does not weigh it."""
    found = as_object(decided.pays)
    if not found:
        return None
    figures = {key: value for key, value in found.items() if key not in _IN_WORDS}
    return {
        "answer": as_text(found.get("answer"), 20),
        "why": as_text(found.get("why"), 600),
        "figures": values.facts(figures),
        "changes": [as_text(change, 200) for change in as_list(found.get("changes"))[:12]],
        "rollback": as_text(found.get("rollback"), 300),
    }
