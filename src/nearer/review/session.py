"""The review of one project: its pairs, its log, its reviewers, and what flows back.

Everything that a judgment changes goes through here, from the page and from imports alike: the log
first, then `review/qrels.tsv`, which the next `nearer check` reads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
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
from nearer.review.asking import Action, Asking
from nearer.review.consensus import (
    adopt_by_hand,
    disagreements,
    settled_grades,
    write_qrels,
)
from nearer.review.judgments import ADJUDICATE, GRADE, Entry, Judgments, now
from nearer.review.lists import LISTS, Lists
from nearer.review.more import More, how_many_more
from nearer.review.origins import judge_beside, pools_behind
from nearer.review.pairs import Pair, choose_pairs, read_pairs
from nearer.review.reviewers import Reviewer

_SPLITS = ("train", "dev")
_log = logging.getLogger("nearer.review")


class Review(Asking[Pair]):
    """Pairs of a query and a document, graded by relevance.  Safe for threads."""

    answer = GRADE

    def __init__(self, project: Project, *, choose: bool = False) -> None:
        """`choose`: look for pairs again, in what the run holds now.  Raises DataError."""
        super().__init__(project, "judgments.jsonl")
        with self.log.alone():
            self.adopted = adopt_by_hand(project.root, self.log)
            write_qrels(project.root, self.log.judgments)
            self._remember_decision()
        self.pairs = choose_pairs(project) if choose else read_pairs(project.root)
        self.by_subject = {pair.subject: pair for pair in self.pairs}
        self.desk = self.new_desk(self.pairs)

    # -- judging -------------------------------------------------------------------------------

    def entry(self, reviewer: Reviewer, asked: Pair, kind: str, action: Action) -> Entry:
        return Entry(
            id=action.id,
            time=now(),
            reviewer=reviewer.name,
            action=kind,
            query_id=asked.query_id,
            doc_id=asked.doc_id,
            grade=action.grade if kind in (GRADE, ADJUDICATE) else None,
            comment=action.comment,
            seconds=action.seconds,
        )

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
        split = self.run_dir / "check" / "split"
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

    def lists(self) -> Lists | None:
        """The lists of the finalists that `decide` left; None before it ran."""
        path = self.run_dir / LISTS
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

    def outlook(self) -> dict[str, Any]:
        """How far reviewers agree, and how many more judgments there should be."""
        more = self.more()
        agreed = self.agreement()
        return {
            "agreement": str(agreed.alpha) if agreed.alpha.n else None,
            "alpha": agreed.alpha.as_dict(),
            "kappa": [value.as_dict() for value in agreed.kappa.values()],
            "more": None if more is None else more.sentence(blind=True),
            "settled": more is not None and more.settled,
        }

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
        path = self.run_dir / "decide" / "decision.json"
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
            "reviewed": reviewed_counts(self.run_dir),
        }
        append_whole(history, json.dumps(row, ensure_ascii=False).encode() + b"\n", durable=True)


def reviewed_counts(run_dir: Path) -> Mapping[str, Any]:
    """What the latest `check` says of reviewed judgments; empty where there were none."""
    path = run_dir / "check" / "findings.json"
    if not path.is_file():
        return {}
    counts: Mapping[str, Any] = read_json(path).get("reviewed", {})
    return counts
