"""The review of one project: its pairs, its log, its reviewers, and what flows back.

Everything that a judgment changes goes through here, from the page and from imports alike: the log
first, then `review/qrels.tsv`, which the next `nearer check` reads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import files
from nearer.data.splits import read_split
from nearer.decision.record import DecisionRecord
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_json
from nearer.live.traffic.log import append_whole
from nearer.project import Project
from nearer.review.agreement import Agreement, agreement
from nearer.review.consensus import (
    SPLIT,
    adopt_by_hand,
    consensus,
    disagreements,
    settled_grades,
    undo_of,
    write_qrels,
)
from nearer.review.desk import Desk, Progress
from nearer.review.judgments import ADJUDICATE, GRADE, Entry, JudgmentLog, Judgments, now
from nearer.review.lists import LISTS, Lists
from nearer.review.more import More, how_many_more
from nearer.review.origins import judge_beside, pools_behind
from nearer.review.pairs import Pair, choose_pairs, read_pairs
from nearer.review.reviewers import Reviewer, Reviewers

_SPLITS = ("train", "dev")
_log = logging.getLogger("nearer.review")


@dataclass(frozen=True, slots=True)
class Action:
    """What a reviewer does with a pair; `id` is made by the page, so that sending it twice saves it once."""

    id: str
    action: str
    grade: int | None = None
    comment: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a reviewer is shown: the pair to judge next, None when nothing is open.

    `adjudicates`: others disagree about this pair, and this reviewer settles it.
    """

    pair: Pair | None
    progress: Progress
    adjudicates: bool
    can_undo: bool


class Review:
    """One project as its reviewers meet it.  Safe for threads."""

    def __init__(self, project: Project, *, choose: bool = False) -> None:
        """`choose`: look for pairs again, in what the run holds now.  Raises DataError."""
        self.project, self.root = project, project.root
        self.folder = project.root / "review"
        self.log = JudgmentLog(self.folder / "judgments.jsonl")
        self.reviewers = Reviewers(project.root)
        with self.log.alone():
            self.adopted = adopt_by_hand(project.root, self.log)
            write_qrels(project.root, self.log.judgments)
            self._remember_decision()
        self.pairs = choose_pairs(project) if choose else read_pairs(project.root)
        self.by_subject = {pair.subject: pair for pair in self.pairs}
        settings = project.settings.review
        self.desk = Desk(
            self.pairs,
            self.reviewers.secret(),
            overlap=settings.overlap,
            block=settings.block,
            several=self._several(),
        )

    def _several(self) -> bool:
        """Whether more than one person was invited."""
        return len(self.reviewers.all()) > 1

    # -- judging -------------------------------------------------------------------------------

    def turn(self, reviewer: Reviewer) -> Turn:
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

    def judge(self, reviewer: Reviewer, pair: Pair, action: Action) -> None:
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
            entry = _entry(reviewer, pair, kind, action)
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

    def add(self, entries: list[Entry]) -> int:
        """Append entries, and write what flows back; returns how many are new.  Raises DataError.

        What somebody wrote into `review/qrels.tsv` by hand meanwhile is taken in first.  Where it
        cannot be read, the entries are saved all the same and the file is left as it is: the next
        command says what is wrong with it.
        """
        with self.log.alone():
            readable = True
            try:
                self.adopted += adopt_by_hand(self.root, self.log)
            except DataError as error:
                readable = False
                _log.warning("review/qrels.tsv is left as it is: %s", error)
            added = self.log.append(entries)
            if readable:
                write_qrels(self.root, self.log.judgments)
            return added

    # -- what is known -------------------------------------------------------------------------

    def query_check(self) -> Callable[[str], bool]:
        """Tells whether a judgment may be about a query: one of the data or of a pair, or a logged request."""
        known = {pair.query_id for pair in self.pairs}
        split = self._run_dir / "check" / "split"
        for name in _SPLITS:
            if (split / name).is_dir():
                known.update(query.id for query in read_split(split, name).queries)
        lists = self.lists()
        if lists is not None:
            known.update(row.query_id for row in lists.queries)
        queue = self.folder / "queue.jsonl"
        if queue.is_file():
            known.update(str(line["request_id"]) for line in read_jsonl(queue))
        return known.__contains__

    @property
    def _run_dir(self) -> Path:
        if self.project.run_dir is None:
            raise DataError(
                "a notebook has no review", next_step="nearer init DIR, then nearer review serve"
            )
        return self.project.run_dir

    def lists(self) -> Lists | None:
        """The lists of the finalists that `decide` left; None before it ran."""
        path = self._run_dir / LISTS
        return Lists.of(read_json(path)) if path.is_file() else None

    def agreement(self) -> Agreement:
        """How far reviewers agree, now."""
        return self._agreement(self.log.snapshot())

    def _agreement(self, judgments: Judgments) -> Agreement:
        return agreement(judgments, self._rng("agreement"))

    def more(self) -> More | None:
        """How many more judgments would settle the verdict; None before there is one to settle."""
        return self._more(self.log.snapshot())

    def _more(self, judgments: Judgments) -> More | None:
        lists = self.lists()
        if lists is None:
            return None
        grades = settled_grades(judgments)
        return how_many_more(lists, grades, self.project.settings, self._rng("more"))

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.project.settings.seed, *name.encode()])

    def summary(self) -> dict[str, Any]:
        """What `nearer review status` says; also written to `review/summary.json`, for the report."""
        judgments = self.log.snapshot()
        agreed = self._agreement(judgments)
        more = self._more(judgments)
        graded: dict[str, int] = {}
        for said in judgments.by_subject.values():
            for entry in said.values():
                graded[entry.reviewer] = graded.get(entry.reviewer, 0) + (entry.action == GRADE)
        waiting = disagreements(judgments)
        settled = settled_grades(judgments)
        values = {
            "judgments": sum(graded.values()),
            "pairs_judged": len(settled),
            "pairs": len(self.pairs),
            "reviewers": graded,
            "agreement": agreed.as_dict(),
            "disagreements": len(waiting),
            "adjudicated": len(judgments.final),
            "origins": pools_behind(self.root, settled),
            "judge": judge_beside(self.folder),
            "warnings": self.log.warnings(),
            "more": None if more is None else more.as_dict(),
            "sentence": None if more is None else more.sentence(blind=False),
        }
        if values["judgments"] or values["adjudicated"]:
            write_json(self.folder / "summary.json", values)
        return values

    def _remember_decision(self) -> None:
        """Add the decision of the run to `review/history.jsonl`, once: the report says what changed."""
        path = self._run_dir / "decide" / "decision.json"
        if not path.is_file():
            return
        history = self.folder / "history.jsonl"
        digest = files.content_hash(path)
        if history.is_file() and any(row["decision"] == digest for row in read_jsonl(history)):
            return
        decided = DecisionRecord.of(read_json(path))
        row = {
            "time": now(),
            "decision": digest,
            "verdict": decided.verdict,
            "recommended": decided.recommended,
            "sentence": decided.sentence,
            "reviewed": reviewed_counts(self._run_dir),
        }
        append_whole(history, json.dumps(row, ensure_ascii=False).encode() + b"\n", durable=True)


def _adjudicates(reviewer: Reviewer, pair: Pair, judgments: Judgments) -> bool:
    """Whether what this reviewer says about a pair settles what others disagree on."""
    return reviewer.adjudicates and consensus(judgments, pair.subject).status == SPLIT


def _entry(reviewer: Reviewer, pair: Pair, kind: str, action: Action) -> Entry:
    """The line of the log for an action."""
    return Entry(
        id=action.id,
        time=now(),
        reviewer=reviewer.name,
        action=kind,
        query_id=pair.query_id,
        doc_id=pair.doc_id,
        grade=action.grade if kind in (GRADE, ADJUDICATE) else None,
        comment=action.comment,
        seconds=action.seconds,
    )


def _refuse_other_content(known: Entry | None, entry: Entry) -> None:
    """Raises DataError where something else was saved under this id: it would count as sent twice."""
    if known is None:
        return
    before = (known.reviewer, known.subject, known.grade)
    if before != (entry.reviewer, entry.subject, entry.grade):
        raise DataError(
            "another judgment was saved under this id",
            where=f"query {entry.query_id!r}, document {entry.doc_id!r}",
            next_step="send it under an id of its own",
        )


def reviewed_counts(run_dir: Path) -> Mapping[str, Any]:
    """What the latest `check` says of reviewed judgments; empty where there were none."""
    path = run_dir / "check" / "findings.json"
    if not path.is_file():
        return {}
    counts: Mapping[str, Any] = read_json(path).get("reviewed", {})
    return counts
