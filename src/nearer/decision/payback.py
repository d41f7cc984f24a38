"""Does the gain justify re-indexing?  What it costs, what it brings per day, and when it is earned back.

The gain is counted in queries: those that the candidate answers better, less those that it answers
worse, each as often as users ask it where the data says so.  Its interval decides: the answer is yes
where even the low end pays, no where not even the high end does, and unknown in between, or where a
figure that only the team knows is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.decision.record import CostRecord
from nearer.measure.significance import DIFFERENCE, Clusters, Units, mean_interval
from nearer.measure.verdict import Candidate
from nearer.settings.decision import Decide
from nearer.types import Interval

Json = dict[str, Any]

QUESTION = "Does the gain justify re-indexing?"
#: Settings whose figures only the team knows, and what each is, in words.
FIGURES: Mapping[str, str] = {
    "queries_per_day": "queries per day",
    "value_per_query": "what one more answered query is worth",
    "cost_per_hour": "what an hour of the embedding machine costs",
}
_TIE = 1e-9  # differences below this are rounding


@dataclass(frozen=True, slots=True)
class Change:
    """What production would have to change to, from one candidate to another."""

    before: Candidate
    after: Candidate
    before_bytes: int | None = None  # of the index
    after_bytes: int | None = None
    #: Which queries hang together and how often each is asked, in the order of the scores.
    units: Clusters = None

    def in_words(self) -> list[str]:
        """What changes in production, one clause each."""
        first, second = self.before.described, self.after.described
        clauses = ["every document is embedded again, into a new generation"]
        if _dimension(first) and _dimension(first) != _dimension(second):
            clauses.append(f"vectors have {_dimension(second)} dimensions, not {_dimension(first)}")
        pipelines = (first.get("pipeline", {}), second.get("pipeline", {}))
        for key in dict.fromkeys([*pipelines[0], *pipelines[1]]):
            before, after = (pipeline.get(key) for pipeline in pipelines)
            if before != after and key != "weight":
                clauses.append(f"{key.replace('_', ' ')}: {_shown(before)} → {_shown(after)}")
        return clauses

    def rollback(self) -> str:
        """How it is undone."""
        return (
            "the old generation stays until nearer index gc: nearer index rollback puts it back "
            "with one rename"
        )

    def storage(self) -> Json:
        """Bytes of the index before and after, and while both stand side by side."""
        both = None
        if self.before_bytes is not None and self.after_bytes is not None:
            both = self.before_bytes + self.after_bytes
        return {
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "both_bytes": both,
        }


def _dimension(described: Mapping[str, Any]) -> Any:
    identity = described.get("identity")
    return identity.get("dimension") if isinstance(identity, Mapping) else None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Payback:
    """The answer, why, and every figure that it rests on."""

    answer: str  # yes, no or unknown
    why: str
    figures: Json = field(default_factory=dict)

    def question(self) -> dict[str, str]:
        """The line of the checklist."""
        return {"question": QUESTION, "answer": self.answer, "evidence": self.why}

    def as_dict(self) -> Json:
        """`pays` of `decision.json`."""
        return {"answer": self.answer, "why": self.why, **self.figures}


def payback(
    change: Change | None, cost: CostRecord, settings: Decide, primary: str, shown: bool
) -> Payback:
    """Weigh what a re-index costs against what it brings.

    `change` is None where nothing was trained; `shown` says whether a useful gain is shown at all.
    """
    if change is None:
        return Payback("unknown", "no model was fine-tuned; nothing to re-embed")
    units = Units.of(change.units)
    counted = "queries" if units.weights is None else "requests"
    difference = change.after.scores.column(primary) - change.before.scores.column(primary)
    better = np.where(np.abs(difference) > _TIE, np.sign(difference), 0.0)
    share = mean_interval(better, settings.alpha, units, DIFFERENCE)
    takes = _takes(cost, change)
    figures: Json = {
        "improved_share": share.as_dict(),
        "counted": counted,
        "machine_hours": cost.hours,
        "tokens_per_second": cost.tokens_per_second,
        "storage": change.storage(),
        "changes": change.in_words(),
        "rollback": change.rollback(),
    }
    missing = _missing(cost, settings)
    net = f"{share.mean:+.1%} of the {counted}, net, get a better answer"
    if not shown:
        why = f"no useful gain is shown, so there is nothing to weigh; {takes}"
        return Payback("no" if units.mean(difference) <= 0 else "unknown", why, figures)
    if missing:
        names = ", ".join(f"{FIGURES[name]} (decide.{name})" for name in missing)
        return Payback("unknown", f"{net}; {takes}; not known: {names}", figures)
    return _weighed(share, cost, settings, figures, f"{net}; {takes}")


def _takes(cost: CostRecord, change: Change) -> str:
    """What a re-index takes, in words, with a measured throughput."""
    documents = f"{cost.documents or 0:,}"
    hours, speed = cost.hours or 0.0, cost.tokens_per_second or 0.0
    text = (
        f"re-embedding {documents} documents takes about {hours:,.2f} machine hours "
        f"(measured here: {speed:,.0f} tokens per second)"
    )
    if change.before_bytes is not None and change.after_bytes is not None:
        before, after = change.before_bytes / 1e6, change.after_bytes / 1e6
        text += f"; the index has {after:,.1f} MB, not {before:,.1f}, and both stand until the old one goes"
    return text


def _missing(cost: CostRecord, settings: Decide) -> list[str]:
    """Settings without which nothing can be weighed; a price that is known needs no hourly rate."""
    known = {
        "queries_per_day": settings.queries_per_day is not None,
        "value_per_query": settings.value_per_query is not None,
        "cost_per_hour": cost.price is not None,
    }
    return [name for name in FIGURES if not known[name]]


def _weighed(
    share: Interval, cost: CostRecord, settings: Decide, figures: Json, text: str
) -> Payback:
    """The answer where every figure is known."""
    traffic, value = settings.queries_per_day or 0.0, settings.value_per_query or 0.0
    price, within = cost.price or 0.0, settings.payback_days
    per_day = [traffic * end for end in (share.mean, share.low, share.high)]
    worth = [value * queries for queries in per_day]
    days = [_days(price, gain) for gain in worth]
    figures = {
        **figures,
        "queries_per_day": traffic,
        "value_per_query": value,
        "price": price,
        "improved_per_day": {"mean": per_day[0], "ci": per_day[1:]},
        "value_per_day": {"mean": worth[0], "ci": worth[1:]},
        "payback_days": days[0],
        "payback_days_at_worst": days[1],
        "payback_days_wanted": within,
    }
    answer = "unknown"
    if days[1] is not None and days[1] <= within:
        answer = "yes"
    elif days[2] is None or days[2] > within:
        answer = "no"
    low, high = (f"{end:,.0f}" for end in per_day[1:])
    why = (
        f"about {per_day[0]:,.0f} more answered queries per day ({low} to {high}), worth "
        f"{worth[0]:,.2f}; it costs {price:,.2f} and is earned back {_when(days[0])}, at worst "
        f"{_when(days[1])} (wanted: within {within:g} days); {text}"
    )
    return Payback(answer, why, figures)


def _days(price: float, worth: float) -> float | None:
    """Days until a price is earned back; None: never."""
    return round(price / worth, 3) if worth > 0 else None


def _when(days: float | None) -> str:
    if days is None:
        return "never"
    if days < 1:
        return "within a day"
    return f"in {days:,.0f} days"
