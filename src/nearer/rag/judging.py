"""A judge of answers, and how far it agrees with people: without that it is not asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.measure.answers import Agreement, agreement, is_declined
from nearer.measure.significance import mean_interval
from nearer.rag.model import LanguageModel
from nearer.rag.prompts import grade_in, grading
from nearer.rag.references import Graded

MEASURE = "Judge"
#: Answers graded by people from which the agreement of a judge is told.
ENOUGH = 20

Item = tuple[str, str, Sequence[str]]  # question, answer, references


@dataclass(frozen=True, slots=True)
class Judging:
    """What a judge says of answers (None: no grade could be read), and its agreement with people."""

    model: str
    grades: tuple[bool | None, ...]
    agreement: Agreement
    without_grade: int  # of the answers that people graded

    def as_dict(self, alpha: float) -> dict[str, Any]:
        """`judge` of the record."""
        agreed = np.zeros(self.agreement.n)
        agreed[: self.agreement.agreed] = 1.0
        unread = sum(grade is None for grade in self.grades)
        return {
            "model": self.model,
            "agreement": mean_interval(agreed, alpha).as_dict(),
            "kappa": self.agreement.kappa,
            "n": self.agreement.n,
            "agreed": self.agreement.agreed,
            "judge_correct": self.agreement.judge_correct,
            "people_correct": self.agreement.people_correct,
            "without_grade": unread + self.without_grade,
        }


def judge_answers(
    model: LanguageModel, items: Sequence[Item], graded: Sequence[Graded]
) -> Judging | str:
    """Grades of answers, or in words why the judge cannot be shown.  Raises ModelError.

    What people graded is asked first: a judge whose agreement is not known is asked nothing else.
    """
    known = [(each.question, each.answer, each.references) for each in graded]
    if len(known) < ENOUGH:
        return f"{len(known)} answers graded by people are too few to know the judge: {ENOUGH} are needed"
    by_judge = _grades(model, known, "grade what people graded")
    told: list[bool] = []
    people: list[bool] = []
    for grade, each in zip(by_judge, graded, strict=True):
        if grade is not None:
            told.append(grade)
            people.append(each.correct)
    if len(told) < ENOUGH:
        return f"only {len(told)} of {len(known)} replies of the judge hold a grade: {ENOUGH} are needed"
    grades = _grades(model, items, "grade answers")
    agreed = agreement(told, people)
    return Judging(model.name, tuple(grades), agreed, len(known) - len(told))


def _grades(model: LanguageModel, items: Sequence[Item], doing: str) -> list[bool | None]:
    """A grade per item; an answer that declines is incorrect without being asked about."""
    asked = [item for item in items if not is_declined(item[1])]
    conversations = []
    codes = []
    for item in asked:
        conversation, code = grading(*item)
        conversations.append(conversation)
        codes.append(code)
    replies = iter(zip(model.ask(conversations, doing), codes, strict=True))
    grades: list[bool | None] = []
    for _, answer, _ in items:
        if is_declined(answer):
            grades.append(False)
        else:
            reply, code = next(replies)
            grades.append(grade_in(reply, code))
    return grades
