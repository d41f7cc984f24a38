"""What all questions to reviewers share: who is asked what next, and a log that keeps each answer once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic

from nearer.errors import DataError
from nearer.project import Project
from nearer.review.consensus import SPLIT, consensus, undo_of
from nearer.review.desk import Asked, AskedT, Desk, Progress
from nearer.review.judgments import ADJUDICATE, GRADE, Entry, JudgmentLog, Judgments
from nearer.review.reviewers import Reviewer, Reviewers


@dataclass(frozen=True, slots=True)
class Action:
    """What a reviewer does with what was asked.

    `id` is made by the page, so that sending it twice saves it once.  `picked` is the place of a
    document in its question, from 1.
    """

    id: str
    action: str
    grade: int | None = None
    comment: str = ""
    seconds: float | None = None
    picked: int | None = None


@dataclass(frozen=True, slots=True)
class Turn(Generic[AskedT]):
    """What a reviewer is shown: the pair or question to judge next, None when nothing is open.

    `adjudicates`: others disagree about this pair, and this reviewer settles it.
    """

    pair: AskedT | None
    progress: Progress
    adjudicates: bool
    can_undo: bool


class Asking(ABC, Generic[AskedT]):
    """What one project asks its reviewers, and what they answered.  Safe for threads.

    A subclass sets `answer`, fills `desk`, and says what an answer is in the log.
    """

    #: The action of the log that answers what is asked.
    answer: ClassVar[str]
    desk: Desk[AskedT]

    def __init__(self, project: Project, log: str) -> None:
        self.project, self.root = project, project.root
        self.folder = project.root / "review"
        self.log = JudgmentLog(self.folder / log)
        self.reviewers = Reviewers(project.root)

    @abstractmethod
    def entry(self, reviewer: Reviewer, asked: AskedT, kind: str, action: Action) -> Entry:
        """The line of the log for an action; `kind` is what it counts as."""

    @abstractmethod
    def add(self, entries: list[Entry]) -> int:
        """Append entries, and write what follows from them; returns how many are new.  Raises DataError."""

    @abstractmethod
    def outlook(self) -> dict[str, Any]:
        """What the page tells of all answers, without a hint at what to answer."""

    def new_desk(self, asked: Sequence[AskedT]) -> Desk[AskedT]:
        """A desk that hands these out as the settings say."""
        settings = self.project.settings.review
        return Desk(
            asked,
            self.reviewers.secret(),
            overlap=settings.overlap,
            block=settings.block,
            several=self._several(),
        )

    def _several(self) -> bool:
        """Whether more than one person was invited."""
        return len(self.reviewers.all()) > 1

    @property
    def run_dir(self) -> Path:
        """The folder of the run.  Raises DataError in a notebook."""
        if self.project.run_dir is None:
            raise DataError(
                "a notebook has no review", next_step="nearer init DIR, then nearer review serve"
            )
        return self.project.run_dir

    def turn(self, reviewer: Reviewer) -> Turn[AskedT]:
        """What a reviewer is asked next, and how far all are."""
        judgments = self.log.snapshot()
        self.desk.several = self._several()
        pair = self.desk.next(reviewer, judgments)
        return Turn(
            pair,
            self.desk.progress(reviewer, judgments),
            pair is not None and _adjudicates(reviewer, pair, judgments),
            judgments.last_of(reviewer.name) is not None,
        )

    def judge(self, reviewer: Reviewer, pair: AskedT, action: Action) -> None:
        """Save what a reviewer did with a pair.  Raises DataError for what contradicts the log."""
        with self.log.alone():
            judgments = self.log.judgments
            kind = action.action
            if _adjudicates(reviewer, pair, judgments):
                if kind == GRADE:
                    kind = ADJUDICATE
                else:
                    self.desk.pass_over(reviewer, pair)
                    if reviewer.name in judgments.by_subject.get(pair.subject, {}):
                        return  # what this reviewer said of the pair earlier stands
            entry = self.entry(reviewer, pair, kind, action)
            _refuse_other_content(judgments.by_id.get(entry.id), entry)
            self.add([entry])

    def undo(self, reviewer: Reviewer, action_id: str) -> Entry | None:
        """Take back the latest action of a reviewer; the entry that was undone, None without one."""
        with self.log.alone():
            judgments = self.log.judgments
            known = judgments.by_id.get(action_id)
            if known is not None:  # sent twice
                return judgments.by_id.get(known.undone)
            last = judgments.last_of(reviewer.name)
            if last is None:
                return None
            self.add([replace(undo_of(last), id=action_id)])
            return last


def _adjudicates(reviewer: Reviewer, asked: Asked, judgments: Judgments) -> bool:
    """Whether what this reviewer says about a pair settles what others disagree on."""
    return reviewer.adjudicates and consensus(judgments, asked.subject).status == SPLIT


def _refuse_other_content(known: Entry | None, entry: Entry) -> None:
    """Raises DataError where something else was saved under this id: it would count as sent twice."""
    if known is None:
        return
    before = (known.reviewer, known.subject, known.grade, known.picked)
    if before != (entry.reviewer, entry.subject, entry.grade, entry.picked):
        raise DataError(
            "another judgment was saved under this id",
            where=entry.about,
            next_step="send it under an id of its own",
        )
