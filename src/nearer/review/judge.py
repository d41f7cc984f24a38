"""The seam of judges: something that grades pairs as people would.  One behind a chat endpoint is ours.

A judge is compared with people before anything it says is shown (`judging.py`), and nothing that it
says becomes a judgment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nearer import plugins
from nearer.config import Config
from nearer.errors import ConfigError, ModelError
from nearer.rag.model import LanguageModel
from nearer.review.grading import Item, conversation, grade_in
from nearer.review.judgments import GRADES


@runtime_checkable
class RelevanceJudge(Protocol):
    """Grades pairs of a query and a document from 0 to 3."""

    @property
    def name(self) -> str:
        """What is shown beside its grades."""

    def grade(self, items: Sequence[Item]) -> list[int | None]:
        """A grade per item, in order; None where it gives none.  Raises ModelError."""


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """What a class of the seam is made from, in its `from_spec` where it has one."""

    settings: Config
    root: Path
    cache: Path | None


def load_judge(spec: JudgeSpec) -> RelevanceJudge:
    """The judge that `review.judge` names.  Raises ConfigError and ModelError."""
    name = spec.settings.review.judge
    judge: RelevanceJudge = plugins.answerer("judge", name, spec, RelevanceJudge, "grade(items)")
    return judge


def grades_of(judge: RelevanceJudge, items: Sequence[Item]) -> list[int | None]:
    """What a judge says of each item.  Raises ModelError for anything that is no list of grades."""
    with plugins.answering(judge, "grade(items)"):
        given: Any = judge.grade(items)
        answers = list(given)
    if len(answers) != len(items):
        raise _wrong(judge, f"gave {len(answers)} answers to {len(items)} pairs")
    grades: list[int | None] = []
    for answer in answers:
        # numpy's integers are grades too; True is an int for Python and none for us.
        whole = isinstance(answer, Integral) and not isinstance(answer, bool)
        if answer is not None and not (whole and answer in GRADES):
            raise _wrong(judge, f"gave {answer!r}, which is no grade from 0 to {max(GRADES)}")
        grades.append(None if answer is None else int(answer))
    return grades


def _wrong(judge: RelevanceJudge, problem: str) -> ModelError:
    return ModelError(
        f"the judge {problem}"[:500],
        where=plugins.named(judge),
        next_step="mend its grade(items): 0 to 3 or None for each pair, in order",
    )


class ChatJudge:
    """A language model behind `/chat/completions`, each pair paid for once."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    @classmethod
    def from_spec(cls, spec: JudgeSpec) -> ChatJudge:
        """Raises ConfigError where no endpoint or no model is named."""
        review, rag = spec.settings.review, spec.settings.rag
        url = review.judge_url or rag.url
        model = review.judge_model or rag.judge or rag.model
        if not url or not model:
            missing = "review.judge_model" if url else "review.judge_url"
            raise ConfigError(
                "there is no model that could judge",
                where=missing,
                next_step="nearer review judge --set review.judge_url=http://localhost:8000/v1 "
                "--set review.judge_model=MODEL",
            )
        settings = rag.model_copy(update={"url": url, "model": model})
        return cls(LanguageModel(settings, model, spec.cache))

    @property
    def name(self) -> str:
        """The model, and where it is."""
        return self._model.name

    def grade(self, items: Sequence[Item]) -> list[int | None]:
        """Ask each pair once; a reply that is no grade counts as none."""
        asked = [conversation(item) for item in items]
        replies = self._model.ask([messages for messages, _ in asked], "grade pairs")
        return [grade_in(reply, code) for reply, (_, code) in zip(replies, asked, strict=True)]
