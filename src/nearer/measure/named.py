"""Queries that people named: what became of each.  A list of names needs no interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Fate = Literal["kept", "lost", "found", "missed"]


@dataclass(frozen=True, slots=True)
class NamedOutcome:
    """One named query under two systems, in the measure that decides.

    A query is answered where the measure is above 0: a relevant result stands where it counts.
    """

    group: str  # must_pass or high_risk
    query_id: str
    text: str
    split: str  # train, dev or test: where the query stands
    before: float
    after: float

    @property
    def fate(self) -> Fate:
        """Lost: answered before and no longer; missed: answered by neither."""
        if self.before > 0.0:
            return "kept" if self.after > 0.0 else "lost"
        return "found" if self.after > 0.0 else "missed"

    @property
    def failing(self) -> bool:
        """Whether the candidate does not answer it."""
        return self.after <= 0.0

    def as_dict(self) -> dict[str, Any]:
        """A row of `named_queries` in decision.json."""
        return {
            "group": self.group,
            "query_id": self.query_id,
            "split": self.split,
            "before": self.before,
            "after": self.after,
            "fate": self.fate,
            "text": self.text,
        }
