"""How every condition is judged: the effect, its threshold and chance; and what an alert says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer import config
from nearer.live.monitor.conditions.day import Seen
from nearer.live.monitor.series import Row
from nearer.measure.drift import Shift
from nearer.measure.significance import MIN_QUERIES
from nearer.measure.slices import DESCRIPTIONS, SliceEvidence, automatic_slices
from nearer.types import Query

#: Requests or distinct queries on each side below which shares and distributions are not judged.
ENOUGH = 100
_EXAMPLES = 10
_LIFT = 1.5  # how much more often than elsewhere a slice is affected before an alert names it

#: Says why judged queries (ids) fail; None where it cannot.
Diagnose = Callable[[Sequence[str]], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an alert shows: a sentence, examples, the slice that is affected most.

    `affected` are ids of judged queries that became worse, for a diagnosis.
    """

    what: str
    examples: Iterable[str] = ()
    slice: str = "all"
    affected: Sequence[str] | None = None


@dataclass
class Judge:
    """Collects the outcomes of a day and decides which of them fire."""

    seen: Seen
    settings: config.Monitor
    rng: np.random.Generator
    advice: Mapping[str, str]  # condition → what its alert asks somebody to do
    alpha: float  # largest p value with which a condition fires
    min_slice: int = MIN_QUERIES
    earlier: Mapping[str, str] = field(default_factory=dict)  # since when conditions have fired
    diagnose: Diagnose | None = None
    alerts: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, why: str, *conditions: str) -> None:
        self.skipped |= dict.fromkeys(conditions, why)

    def row(
        self,
        name: str,
        value: float,
        interval: tuple[float | None, float | None] = (None, None),
        slice: str = "all",
    ) -> None:
        """Put a value into the series; `interval` is its 95% interval."""
        low, high = interval
        day, generation = self.seen.day, self.seen.generation
        self.rows.append(Row(day, name, float(value), low, high, slice, generation))

    def fires(self, shift: Shift, threshold: float) -> bool:
        """Is the effect as large as the settings ask for, and not explained by chance?"""
        return shift.size > 0 and shift.size >= threshold and shift.p <= self.alpha

    def fact(self, condition: str, size: float, threshold: float, evidence: Evidence) -> None:
        """Judge a condition that states a fact, which no chance explains."""
        self.row(condition, size)
        judged = {"size": size, "threshold": threshold, "p": None, "alpha": None}
        self._conclude(condition, judged, size > 0 and size >= threshold, evidence)

    def outcome(self, condition: str, shift: Shift, threshold: float, evidence: Evidence) -> None:
        """Judge a condition that is tested."""
        self.row(condition, shift.value, (shift.low, shift.high))
        judged = {"size": shift.size, "threshold": threshold, "p": shift.p, "alpha": self.alpha}
        self._conclude(condition, judged, self.fires(shift, threshold), evidence)

    def _conclude(
        self, condition: str, judged: Mapping[str, Any], fires: bool, evidence: Evidence
    ) -> None:
        self.conditions[condition] = {**judged, "fires": fires}
        if not fires:
            return
        diagnosis = None
        if evidence.affected and self.diagnose:
            diagnosis = self.diagnose(evidence.affected)
        advice = self.advice[condition].replace("ID", self.seen.generation or "ID")
        self.alerts.append(
            {
                "condition": condition,
                "since": self.earlier.get(condition, self.seen.day),
                **judged,
                "slice": evidence.slice,
                "examples": list(dict.fromkeys(evidence.examples))[:_EXAMPLES],
                "what": evidence.what,
                "do": (diagnosis or {}).get("do") or advice,
                "diagnosis": diagnosis,
            }
        )


def _always(_: Seen) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Family:
    """Conditions that are judged together, by one function.

    `advice` maps each condition to what its alert asks somebody to do; `facts` are those without a
    test; `needs_whole_day` says that they are judged once the day is over, and `applies` whether
    they mean anything to a project: elsewhere they are neither judged nor named, nor take a share
    of the false alarms.
    """

    judge: Callable[[Judge], None]
    advice: Mapping[str, str]
    facts: Collection[str] = ()
    needs_whole_day: bool = True
    applies: Callable[[Seen], bool] = _always

    @property
    def tested(self) -> list[str]:
        """The conditions that chance may explain."""
        return [name for name in self.advice if name not in self.facts]


def telling_slice(affected: Collection[str], queries: Sequence[Query]) -> str:
    """The slice in which queries (ids) are affected most, if that is clearly more than elsewhere."""
    affected = set(affected)
    name, highest = "all", 0.0
    share = len(affected) / max(1, len(queries))
    for candidate, members in automatic_slices(queries, SliceEvidence()).items():
        inside, expected = len(affected & members), share * len(members)
        gain = (inside - expected) / max(1.0, expected**0.5)
        if inside >= MIN_QUERIES // 2 and inside >= _LIFT * expected and gain > highest:
            name, highest = candidate, gain
    if name in DESCRIPTIONS:
        return f"{name} ({DESCRIPTIONS[name]})"
    return name
