"""What a decision says about single queries and kinds of queries, beside its means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.data.leakage import Leakage
from nearer.decision.record import (
    ClustersRecord,
    ComparisonRecord,
    JudgedRecord,
    LeakageRecord,
    NamedRecord,
    ReversalRecord,
)
from nearer.measure.named import NamedOutcome
from nearer.measure.reversals import Reversal
from nearer.measure.significance import Comparison
from nearer.measure.unjudged import JudgedResults
from nearer.measure.verdict import Comparisons

_SHOWN = 3  # reversals that the reasons tell


@dataclass(frozen=True, slots=True)
class QueryFindings:
    """Clusters, requests, named queries, judged results, reversals and leakage.

    `named` are the named queries by the system that is set against today's; `requests` the
    comparisons with each query counted as often as it is asked.
    """

    clusters: Mapping[str, Any] = field(default_factory=dict)
    requests: Comparisons = field(default_factory=dict)
    named: Mapping[str, Sequence[NamedOutcome]] = field(default_factory=dict)
    judged: JudgedResults | None = None
    reversals: Sequence[Reversal] = ()
    leakage: Leakage | None = None

    def records(self, primary: str) -> dict[str, Any]:
        """The keys of decision.json that this fills; None where there is nothing to say."""
        requests = [
            comparison_record(names, result, primary) for names, result in self.requests.items()
        ]
        named = []
        for candidate, outcomes in self.named.items():
            for outcome in outcomes:
                named.append(NamedRecord.of({**outcome.as_dict(), "candidate": candidate}))
        return {
            "clusters": ClustersRecord.of(self.clusters) if self.clusters else None,
            "requests": tuple(requests) or None,
            "named_queries": tuple(named) or None,
            "judged": None if self.judged is None else JudgedRecord.of(self.judged.as_dict()),
            "reversals": self._reversals() or None,
            "leakage": None if self.leakage is None else LeakageRecord.of(self.leakage.as_dict()),
        }

    def _reversals(self) -> tuple[ReversalRecord, ...]:
        return tuple(ReversalRecord.of(reversal.as_dict()) for reversal in self.reversals)

    def reasons(self, primary: str) -> list[str]:
        """What of it belongs beside the verdict, in sentences."""
        reasons = []
        for (baseline, candidate), result in self.requests.items():
            change = f"{candidate} against {baseline}: {primary} {result}"
            reasons.append(f"counted as often as users ask: {change}")
        for reversal in self.reversals[:_SHOWN]:
            reasons.append(_turned(reversal))
        left = len(self.reversals) - _SHOWN
        if left > 0:
            reasons.append(f"the change turns round in {left} further ways (reversals)")
        return reasons


def _turned(reversal: Reversal) -> str:
    measured = "shown" if reversal.shown else "measured, not shown"
    change = f"{reversal.delta:+.3f} where all queries have {reversal.overall:+.3f}"
    if reversal.by == "slice":
        return f"the change turns round in the slice {reversal.name}: {change} ({measured})"
    return f"the change turns round once {reversal.name}: {change}"


def comparison_record(names: tuple[str, str], result: Comparison, primary: str) -> ComparisonRecord:
    """One line of `comparisons` or `requests`."""
    baseline, candidate = names
    described = {"baseline": baseline, "candidate": candidate, "measure": primary}
    return ComparisonRecord.of({**described, **result.as_dict()})
