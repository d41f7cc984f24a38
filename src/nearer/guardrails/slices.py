"""No group of queries pays for the gain of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.measure.significance import Units, non_inferior

#: Guarded beside the slices that the data declares as tags.
_GUARDED = ("seen documents", "unseen documents", "identifier", "high risk")
#: Exact codes are what a fine-tuned model loses first: one more lost than found is enough.
_IDENTIFIER = "identifier"
#: Slices that a person named: a tag of the data, and queries of high risk.
_HIGH_RISK = "high risk"
_TAG = "tag:"
#: Nearly every answer: this share of those that today's system gives.
_NEARLY_ALL = 0.75
#: With many tags of a query or two, some tag loses its only answer by chance.
_LEAST_LOST = 2
_SHOWN = 12  # small slices that a reason names


class SliceGuardrail:
    """One row for each guarded slice, and for any other that is shown to collapse.

    A guarded slice with fewer queries than `evaluate.min_slice` is tested only where it loses
    answers; one row tells of those that were not.
    """

    name = "slices"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        rows = []
        for measured in evidence.slice_rows:
            name = str(measured["slice"])
            if _is_guarded(name):
                rows.append(_guarded(name, evidence))
            elif _collapses(measured, evidence):
                rows.append(_collapsed(measured, evidence))
        rows += _of_small_slices(evidence)
        if not rows:
            return DoesNotApply("no query is in a guarded slice, and no other slice collapses")
        return rows


def _is_guarded(name: str) -> bool:
    return name.startswith(_TAG) or name in _GUARDED


def _guarded(name: str, evidence: GuardrailEvidence, **more: Any) -> Row:
    """The row of a test that the slice is not inferior."""
    positions = evidence.baseline.scores.positions(evidence.slices[name])
    settings = evidence.settings
    change = evidence.change[positions]
    units = Units(evidence.labels).at(positions)
    guard = non_inferior(change, settings.guardrails.slice_margin, settings.alpha, units)
    return Row.of(f"slice {name}", guard, **more)


# -- guarded slices with too few queries -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answers:
    """How many queries of a slice have an answer: a relevant result where the measure counts it."""

    queries: int
    before: int  # answered by today's system
    lost: int  # of those, no longer answered
    found: int  # answered by the candidate alone

    @classmethod
    def of(cls, name: str, evidence: GuardrailEvidence) -> _Answers:
        positions = evidence.baseline.scores.positions(evidence.slices[name])
        before = evidence.baseline.scores.column(evidence.primary)[positions] > 0.0
        after = evidence.candidate.scores.column(evidence.primary)[positions] > 0.0
        return cls(
            queries=len(positions),
            before=_count(before),
            lost=_count(before & ~after),
            found=_count(~before & after),
        )

    def are_lost(self, name: str) -> bool:
        """Whether so many are lost that the slice gets a row, few as its queries are."""
        if self.lost <= self.found:
            return False
        if name == _IDENTIFIER:
            return True
        if name != _HIGH_RISK and not name.startswith(_TAG):
            return False
        return self.lost >= _LEAST_LOST and self.lost >= _NEARLY_ALL * self.before


def _count(mask: np.ndarray) -> int:
    return int(mask.sum())


def _of_small_slices(evidence: GuardrailEvidence) -> list[Row]:
    """A row for each small slice that loses its answers, and one for all the others."""
    measured = {str(row["slice"]) for row in evidence.slice_rows}
    least = evidence.base.config.evaluate.min_slice
    rows = []
    untested: dict[str, int] = {}
    for name in evidence.slices:
        if name in measured or not _is_guarded(name):
            continue
        answers = _Answers.of(name, evidence)
        if answers.are_lost(name):
            rows.append(_guarded(name, evidence, reason=_lost_in_words(answers, least)))
        elif answers.queries:
            untested[name] = answers.queries
    if untested:
        reason = f"fewer queries than evaluate.min_slice ({least}): {_listed(untested.items())}"
        rows.append(Row.not_measured("small slices", reason))
    return rows


def _lost_in_words(answers: _Answers, least: int) -> str:
    count = f"{answers.lost} of the {answers.before} queries"
    return (
        f"{count} that today's system answers lost all their results; the slice has "
        f"{answers.queries} queries, fewer than evaluate.min_slice ({least}), from which little "
        "can be shown"
    )


def _listed(sizes: Iterable[tuple[str, int]]) -> str:
    texts = [f"{name} ({size})" for name, size in sizes]
    left = len(texts) - _SHOWN
    if left > 0:
        texts = [*texts[:_SHOWN], f"and {left} more"]
    return ", ".join(texts)


# -- slices that nobody declared -------------------------------------------------------------------


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
