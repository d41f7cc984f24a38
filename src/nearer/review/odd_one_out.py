"""Odd one out: people say which of three documents does not belong, and so judge the groups of a model.

The answers are shown beside a model's measures.  They decide nothing and guard nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.errors import DataError
from nearer.files import read_json, write_json
from nearer.project import Project
from nearer.review.asking import Action, Asking
from nearer.review.exchange import project_name
from nearer.review.judgments import PICK, SKIP, Entry, now
from nearer.review.reviewers import Reviewer
from nearer.tasks.cluster.odd_one_out import (
    CHANCE,
    LEAST,
    Answer,
    Groups,
    Question,
    Share,
    draw_questions,
    groups_digest,
    question_id,
    share_of,
)

#: Below the folder `review`: the answers, and what they say so far.
LOG, SUMMARY = "odd_one_out.jsonl", "odd_one_out.json"
#: Below the run: where groupings are, those of the held-out documents first.
_GROUPED = ("decide/task.json", "evaluate/task.json")


class OddOneOut(Asking[Question]):
    """Questions about the groupings of today's model and, once there is one, of the fine-tuned one."""

    answer = PICK

    def __init__(self, project: Project) -> None:
        """Raises DataError: no groupings, one cluster only, unknown documents, another project's log."""
        super().__init__(project, LOG)
        groups = read_groups(project)
        if groups is None:
            raise DataError(
                "there are no groups to ask about yet",
                where=str(self.run_dir),
                next_step="nearer run, in a project with task: cluster",
            )
        self.groups = groups
        self._refuse_unknown_documents()
        self._name = project_name(self)
        self._refuse_log_of_another_project()
        settings = project.settings
        number = settings.review.questions
        self.questions = draw_questions(groups, self._name, number, settings.seed)
        self._by_id = {question.id: question for question in self.questions}
        self.desk = self.new_desk(self.questions)

    def _refuse_unknown_documents(self) -> None:
        for grouping, cluster_of in self.groups.items():
            for doc_id in cluster_of:
                if doc_id not in self.project.corpus:
                    raise DataError(
                        f"document {doc_id!r}, grouped by {grouping}, is not in the corpus",
                        where=str(self.run_dir),
                        next_step="nearer run groups the documents that are there now",
                    )

    def _refuse_log_of_another_project(self) -> None:
        """A question's id is made of its documents and the project's name.

        Documents that have left the corpus since they were asked about are no fault: their answers
        no longer count, and stay.
        """
        for entry in self.log.judgments.by_id.values():
            if entry.documents and question_id(self._name, entry.documents) == entry.query_id:
                continue
            unknown = [doc_id for doc_id in entry.documents if doc_id not in self.project.corpus]
            told = f"; the corpus has no document {unknown[0]!r}" if unknown else ""
            raise DataError(
                f"the answer {entry.id} of {entry.reviewer} is to no question of this project{told}",
                where=str(self.log.path),
                next_step="move this log back to its project (review/project.json names it)",
            )

    def entry(self, reviewer: Reviewer, asked: Question, kind: str, action: Action) -> Entry:
        picked = ""
        if kind == PICK and action.picked is not None:
            picked = asked.documents[action.picked - 1]
        return Entry(
            id=action.id,
            time=now(),
            reviewer=reviewer.name,
            action=kind,
            query_id=asked.id,
            documents=asked.documents,
            picked=picked,
            comment=action.comment,
            seconds=action.seconds,
        )

    def add(self, entries: list[Entry]) -> int:
        """Append entries, and write what all say now for the report; returns how many are new."""
        with self.log.alone():
            added = self.log.append(entries)
            self.summary()
            return added

    def answers(self) -> list[Answer]:
        """What people said about the questions that are asked now."""
        return [
            Answer(self._by_id[entry.query_id], entry.picked or None)
            for entry in self._standing()
            if entry.query_id in self._by_id
        ]

    def _standing(self) -> list[Entry]:
        """Every answer that was neither taken back nor a skip."""
        said_by_subject = self.log.snapshot().by_subject.values()
        entries = [entry for said in said_by_subject for entry in said.values()]
        return [entry for entry in entries if entry.action != SKIP]

    def shares(self) -> list[Share]:
        """One per grouping, in the order in which they were measured."""
        answers = self.answers()
        return [share_of(grouping, self.questions, answers) for grouping in self.groups]

    def summary(self) -> dict[str, Any]:
        """What the answers say of each grouping; also written for the report, once there are any."""
        standing = self._standing()
        people: dict[str, int] = {}
        for entry in standing:
            people[entry.reviewer] = people.get(entry.reviewer, 0) + 1
        values = {
            "questions": len(self.questions),
            "answers": len(standing),
            "earlier": sum(entry.query_id not in self._by_id for entry in standing),
            "reviewers": people,
            "least": LEAST,
            "chance": round(CHANCE, 6),
            "groups": groups_digest(self.groups),
            "groupings": [share.as_dict() for share in self.shares()],
            "warnings": self.log.warnings(),
        }
        if self.log.judgments.by_id:
            write_json(self.folder / SUMMARY, values)
        return values

    def outlook(self) -> dict[str, Any]:
        """Whether there are enough answers; nothing about which side they favour."""
        missing = any(share.more for share in self.shares())
        more = "There are enough answers to say something; more make it surer."
        if missing:
            more = f"It takes {LEAST} answers about each of the groupings to say anything."
        return {"agreement": None, "more": more, "settled": not missing}


def read_groups(project: Project) -> Groups | None:
    """The clusters of each document by grouping, as the run measured them; None where it has not.

    Raises DataError for a damaged file.
    """
    if project.run_dir is None:
        return None
    for name in _GROUPED:
        path = project.run_dir / name
        found = read_json(path) if path.is_file() else {}
        groups = found.get("groups") if isinstance(found, dict) else None
        if not groups:
            continue
        if not _are_groups(groups):
            raise DataError(
                "these groups do not say the cluster of each document",
                where=str(path),
                next_step="restore the file, or nearer run --force",
            )
        return {str(grouping): dict(cluster_of) for grouping, cluster_of in groups.items()}
    return None


def _are_groups(groups: Any) -> bool:
    if not isinstance(groups, Mapping):
        return False
    for cluster_of in groups.values():
        if not isinstance(cluster_of, Mapping):
            return False
        if not all(type(cluster) is int for cluster in cluster_of.values()):
            return False
    return True
