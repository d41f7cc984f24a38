"""The data decides the loss: which rows of a training set train with which loss, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from nearer.config import Train
from nearer.training.examples import Part, TrainingRow, TrainingSet
from nearer.training.kinds import (
    GRADED,
    PAIRS,
    SCORED_PAIRS,
    TEACHER_SCORES,
    TEACHER_VECTORS,
    TRIPLETS,
)
from nearer.training.losses import ChosenLoss, choose_loss
from nearer.training.refusals import Subset, refuse_unusable

#: What `train.loss: auto` takes for each kind of examples.
AUTO: Final = {
    PAIRS: "ranking",
    TRIPLETS: "ranking",
    SCORED_PAIRS: "cosent",
    GRADED: "listwise",
    TEACHER_SCORES: "distill_kl",
    TEACHER_VECTORS: "mse",
}
#: Documents of one query that a listwise row holds at most, the best grades first.
MOST_GRADED = 16


def planned(
    rows: TrainingSet,
    settings: Train,
    min_score: float | None,
    root: Path,
    *,
    weighted_by_grade: bool = False,
) -> TrainingSet:
    """The training set with the losses that its rows train with, and the reason in a sentence.

    With `train.loss: auto` each kind of example gets its own loss, otherwise all get the one that is
    named.  `min_score` is `mine.min_score`: where it is set, scored pairs are plain pairs.
    `weighted_by_grade` says that the weights hold the grades already (`mine.grades: weight`).  Raises
    DataError for rows that a loss cannot learn from, and what `choose_loss` raises.
    """
    if not rows.rows:
        return rows
    kinds = _kinds(rows, settings, min_score)
    losses = _Losses(settings.loss, root)
    by_part: dict[Part, list[int]] = {}
    for row, kind in enumerate(kinds):
        loss = losses.of(kind)
        symmetric = losses.takes(loss) == SCORED_PAIRS and rows.pair_is_symmetric(row)
        by_part.setdefault(Part(loss, symmetric), []).append(row)
    for part, members in by_part.items():
        subset = Subset(rows, members, part.loss, settings, min_score)
        refuse_unusable(subset, losses.takes(part.loss))
    plan = _Plan(rows, kinds, by_part)
    rows = replace(
        rows,
        parts=tuple(by_part),
        part_of=tuple(plan.part_of()),
        reason=plan.reason(settings.loss),
    )
    for number, part in enumerate(rows.parts):
        if losses.unit_scores(part.loss):
            rows = _with_unit_scores(rows, number)
        if losses.takes(part.loss) == GRADED:
            rows = _one_row_per_query(rows, number, weighted_by_grade)
    return rows


class _Losses:
    """The loss of each kind of example, and what it takes."""

    def __init__(self, setting: str, root: Path) -> None:
        self._setting = setting
        self._root = root
        self._chosen: dict[str, ChosenLoss] = {}

    def of(self, kind: str) -> str:
        return AUTO[kind] if self._setting == "auto" else self._setting

    def takes(self, loss: str) -> str:
        return self._choose(loss).takes

    def unit_scores(self, loss: str) -> bool:
        return self._choose(loss).unit_scores

    def _choose(self, loss: str) -> ChosenLoss:
        if loss not in self._chosen:
            self._chosen[loss] = choose_loss(loss, self._root)
        return self._chosen[loss]


def _kinds(rows: TrainingSet, settings: Train, min_score: float | None) -> list[str]:
    """The kind of each row: the most that it brings."""
    grades = {grade for row in range(len(rows)) for grade in rows.grade(row).values()}
    kinds = []
    for row, (_, _, negatives) in enumerate(rows.rows):
        kind: str = PAIRS
        if negatives:
            kind = TRIPLETS
        if settings.teacher is not None:
            kind = TEACHER_VECTORS
        if len(grades) > 1 and rows.grade(row):
            kind = GRADED
        if not np.isnan(rows.score(row)) and min_score is None:
            kind = SCORED_PAIRS
        if len(rows.teacher_score(row)) > 1:
            kind = TEACHER_SCORES
        kinds.append(kind)
    return kinds


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which rows train with which loss."""

    rows: TrainingSet
    kinds: Sequence[str]
    by_part: dict[Part, list[int]]

    def part_of(self) -> list[int]:
        numbers = [0] * len(self.rows)
        for number, members in enumerate(self.by_part.values()):
            for row in members:
                numbers[row] = number
        return numbers

    def reason(self, setting: str) -> str:
        """The choice in one sentence; `setting` is `train.loss`."""
        if setting != "auto":
            return f"The loss is {setting}, which train.loss names."
        contents = []
        for part, members in self.by_part.items():
            kinds = [self.kinds[row] for row in members]
            described = []
            for kind in dict.fromkeys(kinds):
                of_kind = [row for row in members if self.kinds[row] == kind]
                described.append(_described(self.rows, kind, of_kind))
            contents.append((part.loss, " and ".join(described)))
        if len(contents) == 1:
            ((loss, described_part),) = contents
            return f"The loss is {loss}, for {described_part}."
        listed = "; ".join(f"{loss} for {described_part}" for loss, described_part in contents)
        return f"Each part of the examples trains with its own loss: {listed}."


def _described(rows: TrainingSet, kind: str, members: Sequence[int]) -> str:
    count = f"{len(members):,}"
    if kind == SCORED_PAIRS:
        scores = [rows.score(row) for row in members]
        return f"{count} pairs with scores from {min(scores):g} to {max(scores):g}"
    if kind == GRADED:
        grades = [grade for row in members for grade in rows.grade(row).values()]
        return f"{count} judgments with grades from {min(grades):g} to {max(grades):g}"
    return {
        PAIRS: f"{count} pairs of a query and its positive",
        TRIPLETS: f"{count} pairs of a query and its positive with negatives of their own",
        TEACHER_SCORES: f"{count} examples with a reranker's scores",
        TEACHER_VECTORS: f"{count} pairs whose vectors a teacher gives",
    }[kind]


def _with_unit_scores(rows: TrainingSet, part: int) -> TrainingSet:
    """The scores of a part brought to 0 to 1."""
    members = [row for row in range(len(rows)) if rows.part(row) == part]
    values = [rows.score(row) for row in members]
    lowest, highest = min(values), max(values)
    scores = list(rows.scores)
    for row, value in zip(members, values, strict=True):
        scores[row] = (value - lowest) / (highest - lowest)
    return replace(rows, scores=tuple(scores))


def _one_row_per_query(rows: TrainingSet, part: int, weighted: bool) -> TrainingSet:
    """The rows of a listwise part joined by query: its best document is the target.

    A document's gain is its grade times the weight of its example, or that weight times the highest
    grade where the weights hold the grades already (`weighted`).  The row counts as its weightiest
    example.  At most `MOST_GRADED` judged documents are kept, the best first.
    """
    by_query: dict[int, list[int]] = {}
    for row, (query, _, _) in enumerate(rows.rows):
        if rows.part_of[row] == part:
            by_query.setdefault(query, []).append(row)
    highest = max(max(rows.grade(row).values()) for members in by_query.values() for row in members)
    kept = [row for row in range(len(rows)) if rows.part_of[row] != part]
    table = _Table(rows, kept)
    for query, members in by_query.items():
        gains: dict[int, float] = {}
        for row in members:
            _, positive, _ = rows.rows[row]
            grade = highest if weighted else rows.grade(row)[positive]
            gain = grade * rows.weight(row)
            gains[positive] = max(gain, gains.get(positive, 0.0))
        best = sorted(gains, key=lambda document: (-gains[document], document))[:MOST_GRADED]
        others = [document for row in members for document in rows.rows[row][2]]
        listed = dict.fromkeys([*best[1:], *others])
        listed.pop(best[0], None)
        table.add(
            (query, best[0], tuple(listed)),
            {document: gains[document] for document in best},
            max(rows.weight(row) for row in members),
            part,
        )
    return table.training_set()


class _Table:
    """Rows taken from a training set, and rows that replace others."""

    def __init__(self, rows: TrainingSet, kept: Sequence[int]) -> None:
        self._base = rows
        self._rows = [rows.rows[row] for row in kept]
        self._weights = [rows.weight(row) for row in kept]
        self._grades = [dict(rows.grade(row)) for row in kept]
        self._part_of = [rows.part_of[row] for row in kept]
        self._scores: list[float | None] = [rows.score(row) for row in kept]
        self._teacher_scores: list[tuple[float, ...]] = [()] * len(kept)
        if rows.teacher_scores:
            self._teacher_scores = [rows.teacher_scores[row] for row in kept]

    def add(self, row: TrainingRow, grades: dict[int, float], weight: float, part: int) -> None:
        self._rows.append(row)
        self._weights.append(weight)
        self._grades.append(grades)
        self._part_of.append(part)
        self._scores.append(None)
        self._teacher_scores.append(())

    def training_set(self) -> TrainingSet:
        return replace(
            self._base,
            rows=tuple(self._rows),
            weights=tuple(self._weights),
            grades=tuple(self._grades),
            part_of=tuple(self._part_of),
            scores=tuple(self._scores),
            teacher_scores=tuple(self._teacher_scores),
            symmetric=(),
        )
