"""Odd one out: whether people tell apart what a grouping tells apart.

A question shows three documents, two of one cluster and one of another, and asks which does not
belong.  Who guesses picks the odd one in a third of the questions.  A grouping is measured on the
questions that were drawn from it alone: those of another grouping are no fair sample of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from nearer.data.clusters import most_shared
from nearer.errors import DataError
from nearer.measure.significance import mean_interval
from nearer.types import Interval

#: Fewer answers than this say nothing about a grouping.
LEAST = 30
#: Share of the questions in which somebody who guesses picks the odd document.
CHANCE = 1 / 3

Groups = Mapping[str, Mapping[str, int]]  # grouping → document id → its cluster, -1: none
Three = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Three documents in the order in which they are shown.

    `odd` is the one that does not belong, by the grouping that the question was drawn from; no
    reviewer is told.
    """

    id: str
    documents: Three
    odd: Mapping[str, str]

    @property
    def subject(self) -> tuple[str, str]:
        """What the log knows the question by."""
        return self.id, ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said; `picked` is None where that person could not tell."""

    question: Question
    picked: str | None


def groups_digest(groups: Groups) -> str:
    """What tells these groupings from earlier ones."""
    content = json.dumps(groups, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def question_id(project: str, documents: Sequence[str]) -> str:
    """The same for the same documents of a project in any order, and for no other project's."""
    content = json.dumps([project, *sorted(documents)])
    return hashlib.sha256(content.encode()).hexdigest()[:20]


# -- what is asked -----------------------------------------------------------------------------------


def draw_questions(groups: Groups, project: str, number: int, seed: int) -> list[Question]:
    """At most so many questions from each grouping, in turn; the same seed draws the same.

    What is drawn from one grouping does not depend on the others, so that answers about today's
    model are kept when another one is trained.  Raises DataError for a grouping of one cluster.
    """
    drawn = []
    for grouping, cluster_of in groups.items():
        members = _members(grouping, cluster_of)
        rng = np.random.default_rng([seed, *grouping.encode()])
        triples = _distinct_triples(members, number, rng)
        drawn.append([_question(grouping, triple, project, rng) for triple in triples])
    questions: dict[str, Question] = {}
    for row in zip_longest(*drawn):
        for question in row:
            if question is None:
                continue
            known = questions.get(question.id)
            if known is not None:  # two groupings ask about the same documents
                question = replace(known, odd={**known.odd, **question.odd})  # noqa: PLW2901
            questions[question.id] = question
    return list(questions.values())


def _members(grouping: str, cluster_of: Mapping[str, int]) -> list[list[str]]:
    """Documents of each cluster; those of no cluster are not asked about.  Raises DataError."""
    members: dict[int, list[str]] = {}
    for doc_id, cluster in cluster_of.items():
        if cluster >= 0:
            members.setdefault(cluster, []).append(doc_id)
    if len(members) < 2:
        found = "one cluster" if members else "no cluster"
        raise DataError(
            f"{grouping} has {found}: no document is the odd one",
            where="cluster.algorithm, cluster.n_clusters",
            next_step="ask for more clusters, then nearer run",
        )
    if max(map(len, members.values())) < 2:
        raise DataError(
            f"no cluster of {grouping} has two documents: nothing belongs together",
            where="cluster.algorithm, cluster.n_clusters",
            next_step="ask for fewer clusters, then nearer run",
        )
    return list(members.values())


def _distinct_triples(
    members: Sequence[Sequence[str]], number: int, rng: np.random.Generator
) -> list[Three]:
    """Two documents of a cluster and one of another, at most so many times.

    No document is asked about twice while the others still make a question: answers to questions
    that share a document are not independent.
    """
    triples: dict[frozenset[str], Three] = {}
    while len(triples) < number:
        before = len(triples)
        for triple in _round(members, rng):
            triples.setdefault(frozenset(triple), triple)
        if len(triples) == before:  # hardly anything is left that was not drawn
            break
    return list(triples.values())[:number]


def _round(members: Sequence[Sequence[str]], rng: np.random.Generator) -> Iterator[Three]:
    """Triples of which no two share a document, until none is left; the last document is the odd one."""
    left = [rng.permutation(np.array(ids, dtype=object)).tolist() for ids in members]
    while True:
        sizes = np.array([len(ids) for ids in left])
        paired = np.where((sizes >= 2) & (sizes.sum() > sizes), sizes, 0)
        if not paired.any():
            return
        cluster = int(rng.choice(len(left), p=paired / paired.sum()))
        others = sizes.copy()
        others[cluster] = 0
        other = int(rng.choice(len(left), p=others / others.sum()))
        yield left[cluster].pop(), left[cluster].pop(), left[other].pop()


def _question(grouping: str, triple: Three, project: str, rng: np.random.Generator) -> Question:
    """The question in a random order of its documents."""
    first, second, third = rng.permutation(3).tolist()
    documents = (triple[first], triple[second], triple[third])
    return Question(
        id=question_id(project, documents), documents=documents, odd={grouping: triple[2]}
    )


# -- what comes out ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """How often people picked the document that a grouping says is odd.

    `interval` is None below `LEAST` answers: nothing is said then.
    """

    grouping: str
    questions: int
    answers: int  # that picked a document
    cannot_tell: int
    interval: Interval | None

    @property
    def more(self) -> int:
        """Answers that are missing before anything can be said."""
        return max(0, LEAST - self.answers)

    @property
    def against_chance(self) -> str:
        """Which side of chance the whole interval lies on."""
        if self.interval is None:
            return "cannot say yet"
        if self.interval.low > CHANCE:
            return "above chance"
        return "below chance" if self.interval.high < CHANCE else "not told from chance"

    @property
    def sentence(self) -> str:
        """For people; no more than the interval allows."""
        if self.interval is None:
            answers = "answer" if self.more == 1 else "answers"
            sentence = f"{self.grouping}: cannot say yet; {self.more} more {answers} needed"
            if self.questions < LEAST:
                sentence += f" (its documents give {self.questions} questions)"
            return sentence
        share = self.interval
        return (
            f"{self.grouping}: the odd one was picked in {share.mean:.0%} of {self.answers} answers "
            f"(95% interval {share.low:.0%} to {share.high:.0%}; by chance {CHANCE:.0%}): "
            f"{self.against_chance}"
        )

    def as_dict(self) -> dict[str, Any]:
        share = self.interval
        return {
            "grouping": self.grouping,
            "questions": self.questions,
            "answers": self.answers,
            "cannot_tell": self.cannot_tell,
            "share": None if share is None else round(share.mean, 6),
            "ci": None if share is None else [round(share.low, 6), round(share.high, 6)],
            "more": self.more,
            "against_chance": self.against_chance,
            "sentence": self.sentence,
        }


def share_of(grouping: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Share:
    """How often people agree with one grouping, on the questions that were drawn from it.

    Answers to the same question are one unit of the interval; so are those about the document that
    each of them shares with the most others.
    """
    asked = [question for question in questions if grouping in question.odd]
    own = [answer for answer in answers if grouping in answer.question.odd]
    picks = [answer for answer in own if answer.picked is not None]
    interval = None
    if len(picks) >= LEAST:
        right = [answer.picked == answer.question.odd[grouping] for answer in picks]
        units = most_shared([answer.question.documents for answer in picks])
        interval = mean_interval(np.array(right, np.float64), clusters=np.array(units, dtype=str))
    return Share(grouping, len(asked), len(picks), len(own) - len(picks), interval)
