"""The seam of judges: something that grades pairs as people would.  One behind a chat endpoint is ours.

A judge is compared with people before anything it says is shown (`judging.py`), and nothing that it
says becomes a judgment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from nearer import plugins
from nearer.config import Config
from nearer.errors import ConfigError
from nearer.rag.model import LanguageModel
from nearer.review.grading import Item, conversation, grade_in


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
    implementation = plugins.find("judge", name, spec.root)
    judge: RelevanceJudge = plugins.make(implementation, spec, f"review.judge: {name}")
    return judge


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
