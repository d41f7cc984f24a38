"""Answers before and after: does a gain of the search reach what users read?

Only `decide` calls this: answers to held-out queries are made nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.errors import ModelError
from nearer.measure.answers import MEASURES, values_of
from nearer.measure.context import Piece, pieces_within
from nearer.measure.significance import Clusters, Comparison, Units, mean_interval
from nearer.rag.contexts import Contexts
from nearer.rag.judging import MEASURE as JUDGE
from nearer.rag.judging import Item, Judging, judge_answers
from nearer.rag.model import LanguageModel
from nearer.rag.prompts import question
from nearer.rag.references import read_graded, references_of
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.settings.rag import Rag
from nearer.types import Query, Run, Split

#: The measure that says whether a gain of the search reaches the answers.
DECISIVE = "TokenF1"
_AGAIN = "nearer decide --force"

Compare = Callable[[np.ndarray, np.ndarray, Clusters], Comparison]
#: Query ids → what each belongs to; None where every query stands for itself.
Labels = Callable[[Sequence[str]], np.ndarray | None]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Searched:
    """One system with its results for the test queries."""

    name: str
    systems: Systems
    pipeline: Pipeline
    run: Run


@dataclass(frozen=True, slots=True)
class Question:
    """A test query with its reference answers."""

    query: Query
    references: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What each system led the model to answer, in the order of `questions`."""

    questions: Sequence[Question] = ()
    contexts: Mapping[str, Sequence[Sequence[Piece]]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """Measure → (n_questions,) float64 of one system."""
        rows = []
        for number, each in enumerate(self.questions):
            context = [piece.text for piece in self.contexts[name][number]]
            rows.append(values_of(self.texts[name][number], each.references, context))
        return {measure: np.array([row[measure] for row in rows]) for measure in MEASURES}

    def items(self, names: Sequence[str]) -> list[Item]:
        """What a judge grades: every answer of the systems, one system after the other."""
        items: list[Item] = []
        for name in names:
            for each, answer in zip(self.questions, self.texts[name], strict=True):
                items.append((each.query.text, answer, each.references))
        return items

    def lines(self, columns: Mapping[str, Mapping[str, np.ndarray]]) -> list[Json]:
        """`answers.jsonl`: to be read, and graded by people in a field `correct`."""
        lines: list[Json] = []
        for number, each in enumerate(self.questions):
            for name, texts in self.texts.items():
                pieces = self.contexts[name][number]
                measures = columns[name]
                line: Json = {
                    "query_id": each.query.id,
                    "system": name,
                    "question": each.query.text,
                    "answer": texts[number],
                    "references": list(each.references),
                    "context": [[piece.doc_id, piece.start, piece.end] for piece in pieces],
                }
                for measure, column in measures.items():
                    if not np.isnan(column[number]):
                        line[measure] = round(float(column[number]), 6)
                lines.append(line)
        return lines


@dataclass(frozen=True)
class Answered:
    """`answers` of the record's `rag`, and the lines of `answers.jsonl`."""

    record: Json
    lines: Sequence[Json] = ()

    @classmethod
    def not_tried(cls, why: str, next_step: str = _AGAIN) -> Answered:
        progress.warn(f"answers were not tried: {why}")
        return cls({"not_tried": [{"what": "answers", "why": why, "next": next_step}]})


@dataclass(frozen=True, slots=True)
class Asking:
    """Everything that answers are made with."""

    settings: Rag
    root: Path
    cache: Path | None
    seed: int
    alpha: float
    labels: Labels | None = None

    def units(self, questions: Sequence[Question]) -> Units:
        """How the questions hang together: those of one cluster are one unit of all intervals."""
        if self.labels is None:
            return Units()
        return Units(self.labels([each.query.id for each in questions]))


def require_usable(settings: Rag, root: Path) -> None:
    """Raise ConfigError or DataError for settings that cannot work, before test is opened."""
    if settings.url is None:
        return
    for model in {settings.model, settings.judge or settings.model}:
        LanguageModel(settings, str(model), None)
    if settings.graded is not None:
        read_graded(settings.graded, root)


def answer_queries(
    searched: Sequence[Searched],
    pairs: Sequence[tuple[str, str]],
    test: Split,
    asking: Asking,
    comparing: Compare,
) -> Answered:
    """Answers of every system to the test queries that have reference answers, compared in pairs.

    `pairs` are (baseline, candidate) by name.  An endpoint that fails makes this `not tried`, with
    its reason; what it answered until then is kept and not paid for again.
    """
    questions, available = _questions(test, asking)
    if not questions:
        return Answered.not_tried(
            "no test query has a reference answer",
            "give queries.jsonl a field `answer` or `answers`, then nearer run",
        )
    settings = asking.settings
    model = LanguageModel(settings, str(settings.model), asking.cache)
    try:
        answers = _answers(model, searched, questions, settings)
    except ModelError as error:
        return Answered.not_tried(str(error).replace("\n  → ", "; "))
    names = [each.name for each in searched]
    columns = {name: answers.columns(name) for name in names}
    judged, why = _judged(answers, names, asking)
    if judged is not None:
        _add_grades(columns, judged, names)
    units = asking.units(questions)
    record: Json = {
        "model": model.name,
        "n_queries": len(questions),
        "queries_with_answers": available,
        "budget": settings.budget,
        "systems": _means(columns, asking.alpha, units),
        "comparisons": _comparisons(columns, pairs, comparing, units),
        "judge": None if judged is None else judged.as_dict(asking.alpha),
        "not_tried": [] if why is None else [{"what": "judge", "why": why, "next": _AGAIN}],
    }
    return Answered(record, answers.lines(columns))


def _questions(test: Split, asking: Asking) -> tuple[list[Question], int]:
    """A seeded sample of the queries with reference answers, and how many there are."""
    questions = []
    for query in test.queries:
        references = references_of(query)
        if references:
            questions.append(Question(query, references))
    most = asking.settings.queries
    if len(questions) <= most:
        return questions, len(questions)
    rng = np.random.default_rng([asking.seed, *b"answers"])
    chosen = sorted(rng.choice(len(questions), most, replace=False).tolist())
    return [questions[position] for position in chosen], len(questions)


def _answers(
    model: LanguageModel, searched: Sequence[Searched], questions: Sequence[Question], settings: Rag
) -> Answers:
    """Equal contexts of two systems make equal conversations, which are asked once.  Raises ModelError."""
    queries = [each.query for each in questions]
    contexts: dict[str, list[list[Piece]]] = {}
    conversations = []
    for each in searched:
        pieces = Contexts.of(each.systems, each.pipeline).pieces(each.run, queries, settings.budget)
        read = [pieces_within(pieces[query.id], settings.budget) for query in queries]
        contexts[each.name] = read
        for query, context in zip(queries, read, strict=True):
            conversations.append(question(query.text, context, settings.instructions))
    replies = model.ask(conversations, "answer test queries")
    texts = {}
    for number, each in enumerate(searched):
        start = number * len(queries)
        texts[each.name] = replies[start : start + len(queries)]
    return Answers(questions, contexts, texts)


def _judged(
    answers: Answers, names: Sequence[str], asking: Asking
) -> tuple[Judging | None, str | None]:
    """The grades of a judge, or why there are none."""
    settings = asking.settings
    if settings.graded is None:
        return None, (
            "nobody graded answers, so how far a judge agrees with people is not known: grade "
            "some lines of answers.jsonl (a field `correct`) and name the file in rag.graded"
        )
    model = LanguageModel(settings, str(settings.judge or settings.model), asking.cache)
    try:
        judged = judge_answers(
            model, answers.items(names), read_graded(settings.graded, asking.root)
        )
    except ModelError as error:
        judged = str(error).replace("\n  → ", "; ")
    if isinstance(judged, str):
        progress.warn(f"the judge was not tried: {judged}")
        return None, judged
    return judged, None


def _add_grades(
    columns: dict[str, dict[str, np.ndarray]], judged: Judging, names: Sequence[str]
) -> None:
    """The grades as one more measure; NaN where a reply held none."""
    values = [np.nan if grade is None else float(grade) for grade in judged.grades]
    for name, column in zip(names, np.split(np.array(values), len(names)), strict=True):
        columns[name][JUDGE] = column


def _means(columns: Mapping[str, Mapping[str, np.ndarray]], alpha: float, units: Units) -> Json:
    means: Json = {}
    for name, measures in columns.items():
        means[name] = {}
        for measure, column in measures.items():
            known = np.flatnonzero(~np.isnan(column))
            if len(known):
                interval = mean_interval(column[known], alpha, units.at(known))
                means[name][measure] = interval.as_dict()
    return means


def _comparisons(
    columns: Mapping[str, Mapping[str, np.ndarray]],
    pairs: Sequence[tuple[str, str]],
    comparing: Compare,
    units: Units,
) -> list[Json]:
    """Query by query; queries without a grade of both answers are left out of the judge's."""
    rows = []
    for baseline, candidate in pairs:
        for measure, before in columns[baseline].items():
            after = columns[candidate][measure]
            known = np.flatnonzero(~np.isnan(before) & ~np.isnan(after))
            if len(known):
                result = comparing(before[known], after[known], units.at(known))
                names = {"baseline": baseline, "candidate": candidate, "measure": measure}
                rows.append({**names, **result.as_dict()})
    return rows
