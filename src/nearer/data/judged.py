"""Judgments by where they come from, and the splits that they make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearer.data.division import Rules
from nearer.data.fitting import Findings, Splits
from nearer.data.generated import GENERATED, divided_with_generated
from nearer.data.reviewed import (
    POOLED,
    REVIEWED,
    named_under_test,
    with_pooled_in_test,
    with_reviewed,
)
from nearer.types import Judgments, Query


@dataclass(frozen=True, slots=True)
class JudgmentSources:
    """Judgments by where they come from."""

    own: Mapping[str, Judgments]  # of the data, by split
    reviewed: Judgments  # added later by people
    generated: Judgments
    pooled: Judgments
    named: Mapping[str, Judgments]  # as the data names them under splits, pooled ones under test

    @classmethod
    def of(cls, judgments: Mapping[str, Judgments]) -> JudgmentSources:
        later = (REVIEWED, GENERATED)
        of_people = {name: graded for name, graded in judgments.items() if name not in later}
        return cls(
            own={name: graded for name, graded in of_people.items() if name != POOLED},
            reviewed=judgments.get(REVIEWED, {}),
            generated=judgments.get(GENERATED, {}),
            pooled=judgments.get(POOLED, {}),
            named=named_under_test(of_people),
        )


def divide_all(
    queries: Mapping[str, Query],
    usable: Mapping[str, Judgments],
    source: JudgmentSources,
    rules: Rules,
    item_to_item: bool,
    findings: Findings,
) -> tuple[Splits, tuple[str, ...], Mapping[str, Any]]:
    """Judgments by split, notes on how they were divided, and what became of reviewed ones."""
    only_pooled = ("test",) if source.pooled else ()
    divided, notes = divided_with_generated(
        queries, usable, source.generated, rules, findings, asked=only_pooled
    )
    divided = with_pooled_in_test(divided, source.pooled)
    later = _known(source.reviewed, queries)
    reviewed = with_reviewed(divided, source.named, later, item_to_item)
    return reviewed.splits, (*notes, *reviewed.notes), reviewed.counts


def _known(judgments: Judgments, queries: Mapping[str, Query]) -> Judgments:
    """Without requests of the traffic log, which are judged under ids of their own."""
    return {query_id: grades for query_id, grades in judgments.items() if query_id in queries}
