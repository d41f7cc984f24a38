"""Plain training files: pairs, triplets, scored pairs of texts, and a reranker's scores of them.

Columns are found by name, never by order, so that query and document cannot change places:

    query       anchor, query, question, sentence1, text1
    positive    positive, pos, answer, response, document, passage, sentence2, text2
    negatives   negative, negatives, neg, negative_1, negative_2, …   (text, or a list of texts)
    score       score, similarity, label
    teacher     teacher_scores, teacher: a list, of the positive and of each negative in their order
    weight      weight: above 0 and at most 1

With a score, sentence1 and sentence2 (or text1 and text2) are symmetric: neither is a query.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from nearer.data import cells, records
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.text import count_words
from nearer.types import Example

QUERY = ("anchor", "query", "question", "sentence1", "text1")
POSITIVE = ("positive", "pos", "answer", "response", "document", "passage", "sentence2", "text2")
SCORE = ("score", "similarity", "label")
TEACHER = ("teacher_scores", "teacher")
WEIGHT = ("weight",)
#: Names of two columns that have the same part in a scored pair.
SYMMETRIC = (("sentence1", "sentence2"), ("text1", "text2"))
_NEGATIVE = re.compile(r"(neg|negative|negatives|hard_negatives|(neg|negative)_?\d+)")
_ASYMMETRIC = ("query", "question")  # names that promise a short text against a longer one
_SAMPLE = 2000


class Layout(NamedTuple):
    """Which column plays which part."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    score: str | None
    teacher: str | None = None
    weight: str | None = None

    @property
    def symmetric(self) -> bool:
        """Whether the file holds scored pairs in which neither text is a query."""
        return self.score is not None and (self.query.lower(), self.positive.lower()) in SYMMETRIC


def layout(row: Row) -> Layout:
    """Parts of a training file from the columns of its first row.  Raises DataError when they are unclear."""
    parts = {"query": _named(row, QUERY), "positive": _named(row, POSITIVE)}
    missing = [part for part, columns in parts.items() if not columns]
    if missing:
        what = f"no {' and no '.join(missing)} column; the columns here: {', '.join(row.values)}"
        raise row.bad(
            what, "name the columns query, positive, and optionally negative_1, … or score"
        )
    for part, columns in parts.items():
        if len(columns) > 1:
            what = f"{' and '.join(columns)} could both be the {part}"
            raise row.bad(what, "rename or drop one of them")
    scores = _named(row, SCORE)
    if len(scores) > 1:  # `label` beside a score is usually a class
        scores = [name for name in scores if name.lower() != "label"]
    negatives = tuple(name for name in row.values if _NEGATIVE.fullmatch(name.lower()))
    if len(scores) > 1 or (scores and negatives):  # a score beside negatives has no meaning
        both = " and ".join([*scores, *negatives])
        raise row.bad(f"triplets or scored pairs? {both} are both here", "drop one of them")
    teachers = _named(row, TEACHER)
    if teachers and not negatives:
        raise row.bad(
            f"{teachers[0]} is here and no negatives: a teacher scores a positive and its negatives",
            "add the negatives, or call the column score",
        )
    (query,), (positive,) = parts.values()
    return Layout(
        query,
        positive,
        negatives,
        next(iter(scores), None),
        next(iter(teachers), None),
        next(iter(_named(row, WEIGHT)), None),
    )


def _named(row: Row, names: Collection[str]) -> list[str]:
    """The columns of a row that go by one of the names."""
    return [column for column in row.values if column.lower() in names]


def read_training(path: Path) -> list[Example]:
    """Examples of texts; scores are kept as they stand (SICK's go from 1 to 5).

    Raises DataError, with file and line, for unclear or swapped-looking columns, empty texts,
    scores that are not finite numbers, and a file without rows.
    """
    examples: list[Example] = []
    columns: Layout | None = None
    for row in records.read(path):
        columns = columns or layout(row)
        examples.extend(_examples(row, columns))
    if columns is None or not examples:
        raise bad("the file holds no training examples", path, "correct data.training")
    _refuse_swapped(examples[:_SAMPLE], columns, path)
    return examples


def _refuse_swapped(examples: Sequence[Example], columns: Layout, path: Path) -> None:
    """Raises DataError where what should be queries is much longer than what should be documents."""
    queries = median(count_words(example.query or "") for example in examples)
    positives = median(count_words(example.positive) for example in examples)
    promises_short = columns.query.lower() in _ASYMMETRIC
    if promises_short and queries >= 20 and queries > 3 * positives:
        query, positive = columns.query, columns.positive
        what = (
            f"look swapped: the median {query} has {queries:g} words, the {positive} {positives:g}"
        )
        mend = f"swap the two names; if it is meant so, call them anchor and {positive}"
        raise bad(f"{query} and {positive} {what}", path, mend)


def _examples(row: Row, columns: Layout) -> Iterator[Example]:
    """One example per positive text of a row."""
    query = _text(row, columns.query, row.values.get(columns.query))
    negatives: list[str] = []
    for column in columns.negatives:
        if row.values.get(column):
            negatives.extend(_texts(row, column))
    positives = _texts(row, columns.positive)
    score = None
    if columns.score:
        score = _number(row, columns.score, row.values.get(columns.score))
    teacher_scores: tuple[float, ...] = ()
    if columns.teacher:
        teacher_scores = _teacher_scores(row, columns.teacher, len(positives), len(negatives))
    for text in positives:
        yield Example(
            text,
            query=query,
            negatives=tuple(negatives),
            score=score,
            source=(f"{row.path.name}:{row.number}",),
            weight=_weight(row, columns.weight),
            symmetric=columns.symmetric,
            teacher_scores=teacher_scores,
        )


def _number(row: Row, column: str, value: Any) -> float:
    number = cells.as_float(value)
    if not math.isfinite(number):
        what = f"{column} {cells.shown(value)} is not a finite number"
        raise row.bad(what, "mend that line, or rename the column if it is no score")
    return number


def _weight(row: Row, column: str | None) -> float:
    """How much the example counts; 1 where the file or the row says nothing."""
    if column is None or row.values.get(column) in (None, ""):
        return 1.0
    weight = _number(row, column, row.values[column])
    if not 0 < weight <= 1:
        what = f"{column} {weight:g} is not above 0 and at most 1"
        raise row.bad(what, "mend that line, or rename the column if it is no weight")
    return weight


def _teacher_scores(row: Row, column: str, n_positives: int, n_negatives: int) -> tuple[float, ...]:
    """A teacher's scores of a row's positive and negatives; empty where the row has none.

    Text files hold the list as JSON.
    """
    value = row.values.get(column)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or n_positives != 1 or len(value) != 1 + n_negatives:
        what = f"{column} is not a list of {1 + n_negatives} numbers, one per text"
        raise row.bad(what, "give one score to the positive, then one to each negative")
    return tuple(_number(row, column, score) for score in value)


def _texts(row: Row, column: str) -> list[str]:
    """The texts of a cell that holds one text or a list of them.  Raises DataError for no text."""
    value = row.values.get(column)
    if isinstance(value, list) and value:
        return [_text(row, column, text) for text in value]
    return [_text(row, column, value)]


def _text(row: Row, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise row.bad(f"{column} is empty or no text", "mend or drop that line")
    return value
