"""What a loss cannot learn from is refused before training, naming the example and the mend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nearer.config import Train
from nearer.errors import DataError
from nearer.training.examples import TrainingSet
from nearer.training.kinds import (
    GRADED,
    PAIRS,
    SCORED_PAIRS,
    TEACHER_SCORES,
    TEACHER_VECTORS,
    TRIPLETS,
)


@dataclass(frozen=True, slots=True)
class Subset:
    """The rows that are to train with one loss."""

    all: TrainingSet
    members: Sequence[int]
    loss: str
    settings: Train
    min_score: float | None

    def error(self, what: str, row: int | None, next_step: str) -> DataError:
        where = "examples.jsonl"
        if row is not None:
            where = f"examples.jsonl:{row + 1}"
        return DataError(what, where=where, next_step=next_step)


def _refuse_low_scores(rows: Subset) -> None:
    """For a scored pair that would be taken as a positive against its score."""
    for row in rows.members:
        score = rows.all.score(row)
        if np.isnan(score) or (rows.min_score is not None and score >= rows.min_score):
            continue
        reason = "and mine.min_score is not set"
        if rows.min_score is not None:
            reason = f"below mine.min_score {rows.min_score:g}"
        raise rows.error(
            f"the example has the score {score:g}, {reason}: training would pull its texts together",
            row,
            "remove the line, declare which scores make a positive (nearer run --set "
            "mine.min_score=0.5), or learn from the scores themselves (train.loss=auto)",
        )


def _refuse_useless_scores(rows: Subset) -> None:
    """For a pair without a score, and for scores that do not differ."""
    for row in rows.members:
        if np.isnan(rows.all.score(row)):
            raise rows.error(
                f"the loss {rows.loss} learns from scores, and the example has none",
                row,
                "give it a `score`, or set train.loss=auto",
            )
    scores = {rows.all.score(row) for row in rows.members}
    if len(scores) == 1:
        (score,) = scores
        raise rows.error(
            f"all {len(rows.members):,} scored pairs have the score {score:g}: nothing says which "
            "texts are more similar than others",
            None,
            f"give them different scores; if all are positives, set mine.min_score={score:g}",
        )


def _refuse_missing_negatives(rows: Subset) -> None:
    without = [row for row in rows.members if not rows.all.rows[row][2]]
    if without:
        raise rows.error(
            f"the loss {rows.loss} learns from negatives, and {len(without):,} of "
            f"{len(rows.members):,} examples have none",
            without[0],
            "give them negatives (mine.negatives, or a column `negative`), or set train.loss=ranking",
        )
    _refuse_low_scores(rows)


def _refuse_one_grade(rows: Subset) -> None:
    ungraded = [row for row in rows.members if not rows.all.grade(row)]
    if ungraded:
        raise rows.error(
            f"the loss {rows.loss} learns from grades, and {len(ungraded):,} of "
            f"{len(rows.members):,} examples are not judged",
            ungraded[0],
            "train with train.loss=auto, which gives each kind of example its own loss",
        )
    grades = {grade for row in rows.members for grade in rows.all.grade(row).values()}
    if len(grades) == 1:
        (grade,) = grades
        raise rows.error(
            f"all {len(rows.members):,} judgments have the grade {grade:g}: there is no order in it "
            f"for the loss {rows.loss}",
            None,
            "set train.loss=ranking, or lower data.min_grade if it leaves grades out",
        )


def _refuse_missing_teacher_scores(rows: Subset) -> None:
    without = [row for row in rows.members if len(rows.all.teacher_score(row)) < 2]
    if without:
        raise rows.error(
            f"the loss {rows.loss} learns from a reranker's scores of a positive and its negatives, "
            f"and {len(without):,} of {len(rows.members):,} examples have none",
            without[0],
            "add `teacher_scores`: [of the positive, of each negative], or set train.loss=auto, "
            "which trains such examples with the ranking loss",
        )


def _refuse_missing_teacher(rows: Subset) -> None:
    if rows.settings.teacher is None and rows.all.teacher is None:
        raise rows.error(
            f"the loss {rows.loss} imitates a teacher's vectors, and no teacher is named",
            None,
            "set train.teacher to the folder or name of a model",
        )


_REFUSALS: Final[Mapping[str, Callable[[Subset], None]]] = {
    PAIRS: _refuse_low_scores,
    TRIPLETS: _refuse_missing_negatives,
    SCORED_PAIRS: _refuse_useless_scores,
    GRADED: _refuse_one_grade,
    TEACHER_SCORES: _refuse_missing_teacher_scores,
    TEACHER_VECTORS: _refuse_missing_teacher,
}


def refuse_unusable(rows: Subset, takes: str) -> None:
    """Raises DataError for rows from which a loss that takes this kind would learn something wrong."""
    _REFUSALS[takes](rows)
